"""A request arrives: its candidates are scored as impressions would be, and nothing is changed by that.

Ranking moves no time either; a request that shows has moved it before (`showing`). So the scores are those of an
impression that leaves stream time where it is, bit for bit: the same functions read a spare slot, a spare user for one
that is not known, and the rows that new values would get (`reading.FORESEEN`).
"""

import numpy as np
from thalweg.operators import error_memory, facts, features, pages, rates, seen
from thalweg.operators.fold import fates, head_scoring, layout, prefetching, reading, scoring, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, Ranked, dead_letter, set_fate
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.layout import Extra
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.heads import SCORE
from thalweg.operators.joiner import Score
from thalweg.operators.machine.compiled import compiled, float64, int64, uint64
from thalweg.operators.rates import Sum
from thalweg.operators.structures import table


@compiled
def on_request(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, event: int
) -> None:
    """Score the candidates of a request, each by itself, and write what was found of them to `emitted`."""
    if parameters.learner.is_replaced:
        dead_letter(state, emitted, event, fates.REQUEST_UNSUPPORTED)
        return
    user = users.find_user(state, parameters, columns.user[event])
    if user < 0:
        user = table.spare_row(state.users, 0)  # of one who did nothing
    slot = spare_slot(state)
    moment = reading.moment_on(state, parameters, page_of(state, columns, event))
    state.waiting.users.owner[slot] = user + 1
    state.waiting.scores[slot, Score.BASE] = np.nan
    own = columns.candidate_start[event]  # the values that all candidates have
    end = columns.candidate_start[event + 1]
    reading.gather_history(state, parameters, scratch, user, moment)
    prior = rates.overall_prior(state.learner.rates, moment.now_ms, parameters.learner.rates)
    decayed = error_memory.scaled_prior(state.memory, parameters.memory)
    was_alike = is_alike = False  # the candidate has the values of the one before, but for the item
    for candidate in range(own + 1, end):
        prefetching.prefetch_candidates(state, columns, candidate, end)
        item = facts.find_item(state.facts, columns.candidate_item[candidate])
        brings_none = columns.candidate_value_start[candidate] == columns.candidate_value_start[candidate + 1]
        is_plain = brings_none and item < 0
        is_alike = was_alike and is_plain
        if is_alike:
            reading.replace_item(state, parameters, scratch, slot, columns, candidate, moment, prior)
        else:
            reading.forget_foreseen(state, slot)
            facts.begin(scratch.filling, gather_candidate(scratch.given, columns, own, candidate), int64(0))
            facts.fill(state.facts, scratch.filling, scratch.given, user, item)
            reading.resolve_values(state, parameters, scratch, slot, reading.FORESEEN, moment)
            reading.read_features(state, parameters, scratch, slot, moment)
            was_alike = is_plain and not crosses_item(parameters.crosses)
        if was_alike:
            prefetching.prefetch_pairs_ahead(state, scratch, columns, candidate, end, is_alike)
        linear = scoring.score_slot(state, parameters, scratch, slot, is_alike)
        scoring.correct_candidate(state, parameters, scratch, slot, is_alike, decayed)
        write_ranked(state, parameters, emitted, slot, candidate, linear)
        if columns.drops[event] != 0:
            row = int64(state.features_seen.row[slot, features.ITEM])
            is_seen = acted_on(state, parameters, user, row)
            item_key = scratch.keys[features.ITEM]
            emitted.ranked_seen[candidate] = is_seen or seen.has_seen(state.seen_items, user, item_key)
        for cap in range(columns.capped.shape[1]):
            place = int64(columns.capped[event, cap]) - 1
            emitted.ranked_keys[candidate, cap] = scratch.keys[place] if place >= 0 else uint64(0)
    reading.forget_foreseen(state, slot)
    state.waiting.users.owner[slot] = 0
    set_fate(state, emitted, event, Fate.RANKED)


@compiled
def page_of(state: State, columns: Columns, event: int) -> int:
    """Return the page of a request: that which an impression would continue, if there is one."""
    page = int64(pages.NO_PAGE)
    if pages.continues(state.page, columns.user[event], columns.ts_ms[event]):
        page = int64(state.page.arrival[0])
    return page


@compiled
def spare_slot(state: State) -> int:
    """Return the slot that no impression ever gets."""
    return int64(state.waiting.pool.freed.shape[0])


@compiled
def gather_candidate(given: features.Given, columns: Columns, shared: int, candidate: int) -> int:
    """Write the values of a candidate: the item, its own fields, and those `shared` by all that it does not bring.

    Return the bits of the fields that are there.
    """
    given.size[0] = 0
    brought = uint64(0)
    features.give(given, int64(features.ITEM), columns.candidate_item[candidate])
    first, last = columns.candidate_value_start[candidate], columns.candidate_value_start[candidate + 1]
    for own in range(first, last):
        brought |= facts.bit_of(int64(columns.candidate_field[own]))
        if columns.candidate_key[own] != uint64(0):  # else the field is there and has no value
            features.give(given, int64(columns.candidate_field[own]), columns.candidate_key[own])
    for value in range(columns.candidate_value_start[shared], columns.candidate_value_start[shared + 1]):
        field = int64(columns.candidate_field[value])
        brought |= facts.bit_of(field)
        is_given = columns.candidate_key[value] == uint64(0)
        for own in range(first, last):
            is_given |= int64(columns.candidate_field[own]) == field
        if not is_given:
            features.give(given, field, columns.candidate_key[value])
    return brought


@compiled
def crosses_item(crosses: features.Crosses) -> bool:
    """Return whether any cross has the item."""
    for which in range(crosses.field.shape[0]):
        if crosses.first[which] == features.ITEM or crosses.second[which] == features.ITEM:
            return True
    return False


@compiled
def write_ranked(
    state: State, parameters: Parameters, emitted: Emitted, slot: int, candidate: int, linear: float
) -> None:
    """Write a candidate's score and its parts, `linear` among them.

    Of several objectives the score is what their order makes of them.
    """
    scores, inputs, out = state.waiting.scores[slot], state.features_seen.inputs[slot], emitted.ranked[candidate]
    extras = layout.extras_start(state.learner)
    out[Ranked.SCORE], out[Ranked.MODEL] = scores[Score.SCORE], scores[Score.MODEL]
    if emitted.ranked_scores.shape[1] > 0:
        out[Ranked.SCORE] = head_scoring.order_of(state, parameters, slot)
        emitted.ranked_scores[candidate, 0] = scores[Score.SCORE]
        for head in range(1, emitted.ranked_scores.shape[1]):
            emitted.ranked_scores[candidate, head] = state.heads.scores[slot, head - 1, SCORE]
    out[Ranked.CORRECTION] = scores[Score.CORRECTION]
    out[Ranked.OVERALL] = float64(inputs[extras + Extra.OVERALL])
    out[Ranked.MACHINE] = float64(inputs[extras + Extra.MACHINE])
    out[Ranked.LINEAR] = linear
    out[Ranked.CROSS] = scoring.crossed_logit(state, slot)
    row = state.features_seen.row[slot, features.ITEM]
    out[Ranked.EXPOSURES] = state.learner.rates.sums[row, Sum.SHOWN] if row >= 0 else 0.0


@compiled
def acted_on(state: State, parameters: Parameters, user: int, row: int) -> bool:
    """Return whether an item's row is among those that the user acted on last, `behaviors.short_length` at most."""
    kind = parameters.acted
    if kind < 0 or row < 0:
        return False
    ring = state.behaviors
    for place in range(min(ring.counts[user, kind], ring.row.shape[2])):
        if ring.row[user, kind, place] == row and ring.generation[user, kind, place] == state.features.generation[row]:
            return True
    return False

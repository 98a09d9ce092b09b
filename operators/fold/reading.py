"""What an impression is scored by: its values, and the numbers that the state has of them."""

import numpy as np
from thalweg.operators import (
    admission,
    attention,
    behaviors,
    cross,
    cross_pairs,
    cross_statistics,
    derived,
    facts,
    features,
    ftrl,
    heads,
    learner,
    pairs_ahead,
    rates,
    sdim,
)
from thalweg.operators.facts import Size
from thalweg.operators.features import Given, Value
from thalweg.operators.fold import head_scoring, layout, prefetching, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State, wipe_value
from thalweg.operators.machine.compiled import clear, compiled, float32, int64, uint64
from thalweg.operators.machine.declare import Float32
from thalweg.operators.machine.numerics import log
from thalweg.operators.pages import Moment
from thalweg.operators.rates import Odds, Prior, Rates, RatesScratch, Sum
from thalweg.operators.structures import table

FOUND, KEPT, FORESEEN = range(3)
"""What becomes of a value without a row: it stays without, it is seen and may get one, or it reads as if it did."""


@compiled
def moment_on(state: State, parameters: Parameters, page: int) -> Moment:
    """Return the moment of what is seen now, on a page."""
    now_ms = state.clock.stream_time_ms[0]
    return Moment(now_ms, page, now_ms - parameters.expire_time_ms[features.ITEM])


@compiled
def gather_values(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, event: int, moment: Moment
) -> int:
    """Write an impression's values to `given`, facts where it brings none, and return the bytes of text to be kept.

    Facts about the user come before facts about the item.
    """
    given, filling = scratch.given, scratch.filling
    given.size[0] = 0
    for value in range(columns.value_start[event], columns.value_start[event + 1]):
        features.give(given, int64(columns.value_field[value]), columns.value_key[value])
    length = columns.text_end[event] - columns.text_start[event]
    facts.begin(filling, columns.brought[event], length)
    user = table.find_row(state.users, columns.user[event], moment.now_ms, parameters.user_expire_time_ms)
    item = facts.find_item(state.facts, columns.item[event])
    facts.fill(state.facts, filling, given, user, item)
    facts.mark_used(state.facts, user, item, moment)
    state.tallies[Tallied.FACTS_LEFT_OUT] += filling.sizes[Size.LEFT_OUT]
    if filling.sizes[Size.TEXT] == 0:
        return length  # type: ignore[no-any-return]
    return facts.write_whole_text(filling, columns.text, columns.text_start[event], columns.text_end[event])


@compiled
def resolve_values(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, making: int, moment: Moment
) -> None:
    """Resolve the values given, crosses and derived values to rows, and remember them in a slot.

    `making`: what becomes of those without a row. `scratch.keys` gets the key of each field's first value.
    """
    keys, given, values = scratch.keys, scratch.given, scratch.derived
    user = users.owner_of(state, slot)
    clear(keys)
    first = layout.first_derived(state.learner)
    derived.derive(
        state.visits, state.behaviors, state.features, user, moment, parameters.derived, values, keys[first:]
    )
    prefetching.prefetch_derived(state, values, user)
    state.features_seen.counts[slot] = 0
    for value in range(given.size[0]):
        field, key = given.field[value], given.key[value]
        if keys[field] == 0:
            keys[field] = key
        owner = user if field == features.USER else -1
        add_value(state, parameters, given, slot, Value(key, field, owner), making, moment)
    crosses = parameters.crosses
    for which in range(crosses.field.shape[0]):
        key = features.cross_keys(crosses, which, keys)
        if key != uint64(0):
            is_private = crosses.first[which] == features.USER or crosses.second[which] == features.USER
            owner = user if is_private else -1
            add_value(state, parameters, given, slot, Value(key, crosses.field[which], owner), making, moment)
    prefetching.prefetch_found(state, values)
    for value in range(values.size[0]):
        added = Value(values.key[value], first + values.field[value], int64(-1))
        add_value(state, parameters, given, slot, added, making, moment)
    if cross.is_on(state.cross):
        rows = state.features_seen.row[slot]
        cross_pairs.resolve_pairs(state.cross, scratch.cross, slot, rows, keys, user, moment, making == KEPT)


@compiled
def add_value(
    state: State, parameters: Parameters, given: Given, slot: int, added: Value, making: int, moment: Moment
) -> None:
    """Add one value to an impression; one that is not admitted has no row. `making`: which get one."""
    place = int64(state.features_seen.counts[slot])
    put_value(state, parameters, given, slot, place, added, making, moment)
    state.features_seen.counts[slot] = place + 1


@compiled
def put_value(
    state: State, parameters: Parameters, given: Given, slot: int, place: int, added: Value, making: int, moment: Moment
) -> None:
    """Put a value into its place among an impression's."""
    if making == KEPT:
        row = ensure_row(state, parameters, added, moment)
    else:
        row = table.find_row(state.features, added.key, moment.now_ms, parameters.expire_time_ms)
        if making == FORESEEN and row < 0:
            row, is_new = foresee_row(state, parameters, given, slot, place, added, moment)
            if is_new:
                start_row(state, parameters, row, added.key)
    prefetching.prefetch_value(state, row)
    seen = state.features_seen
    given.resolved[place] = added.key
    seen.field[slot, place] = added.field
    seen.row[slot, place] = row
    seen.generation[slot, place] = state.features.generation[row] if row >= 0 else np.uint32(0)


@compiled
def ensure_row(state: State, parameters: Parameters, added: Value, moment: Moment) -> int:
    """Return the row of a value that is seen now, made where it has none; -1 while it is not admitted."""
    row, is_new, freed = features.resolve(
        state.features,
        state.admission,
        parameters.admission,
        state.user_rows,
        parameters.expire_time_ms,
        added,
        moment,
    )
    if freed >= 0:
        wipe_value(state, freed)
    if is_new:
        start_row(state, parameters, row, added.key)
    return int64(row)


@compiled
def start_row(state: State, parameters: Parameters, row: int, key: int) -> None:
    """Give a new row what follows from its key."""
    learner.start_vector(state.learner, row, key, parameters.learner)
    state.learner.rates.at_ms[row] = state.clock.stream_time_ms[0]
    if cross.is_on(state.cross):
        cross.start_embedding(state.cross, row, key, parameters.learner.seed)


@compiled
def foresee_row(
    state: State, parameters: Parameters, given: Given, slot: int, place: int, added: Value, moment: Moment
) -> tuple[int, bool]:
    """Return the row that a value without one would get, a spare one, and whether it was not given to it just now.

    -1 where the value would not be admitted. What the spare row holds is forgotten by `forget_foreseen`.
    """
    seen = state.features_seen
    for value in range(place):
        if given.resolved[value] == uint64(added.key) and seen.row[slot, value] >= 0:
            return int64(seen.row[slot, value]), False
    if parameters.admission.threshold > 1:
        sightings = admission.read_sightings(state.admission, added.key, moment.page)
        if not admission.is_admitted(parameters.admission, added.key, sightings):
            return table.NONE, False
    return table.spare_row(state.features, place), True


@compiled
def forget_foreseen(state: State, slot: int) -> None:
    """Empty the spare rows that a candidate's values were given."""
    for value in range(state.features_seen.counts[slot]):
        forget_foreseen_row(state, int64(state.features_seen.row[slot, value]))
    state.features_seen.counts[slot] = 0


@compiled
def forget_foreseen_row(state: State, row: int) -> None:
    """Empty a row if it is a spare one."""
    if row >= table.spare_row(state.features, 0):
        wipe_value(state, row)


@compiled
def replace_item(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    slot: int,
    columns: Columns,
    candidate: int,
    moment: Moment,
    prior: Prior,
) -> None:
    """Resolve and read a candidate's item in place of another's, all else being equal; `prior` is that of the moment.

    Its pairs are those that were found ahead. The result is that of `resolve_values` and `read_features`, bit for bit,
    where no cross has the item.
    """
    seen = state.features_seen
    forget_foreseen_row(state, int64(seen.row[slot, features.ITEM]))
    key = columns.candidate_item[candidate]
    scratch.keys[features.ITEM] = key
    added = Value(key, int64(features.ITEM), int64(-1))
    put_value(state, parameters, scratch.given, slot, int64(features.ITEM), added, FORESEEN, moment)
    rows, inputs = seen.row[slot], seen.inputs[slot]
    if cross.is_on(state.cross):
        pairs_ahead.take_pairs(state.cross, scratch.cross, slot, candidate, rows[features.ITEM] >= 0)
    read_item_rates(state, parameters, slot, state.learner.rates, prior, inputs)
    for head in range(heads.count_of(state.heads)):
        its, own = heads.rates_of(state.heads, head), state.heads.inputs[slot, head]
        of_head = rates.overall_prior(its, moment.now_ms, parameters.learner.rates)
        read_item_rates(state, parameters, slot, its, of_head, own)
    read_interests(state, parameters, scratch, slot, users.owner_of(state, slot))
    if cross.is_on(state.cross):
        statistics = inputs[layout.statistics_start(state.cross, inputs.shape[0]) :]
        of_both = inputs[: 2 * (features.ITEM + 1)]
        cross_statistics.read_item_statistics(
            state.cross, scratch.cross, slot, rows, of_both, prior, moment, statistics
        )
        head_scoring.read_statistics(state, parameters, scratch, slot, moment.now_ms)


@compiled
def read_item_rates(
    state: State, parameters: Parameters, slot: int, value_rates: Rates, prior: Prior, inputs: Float32
) -> None:
    """Write an objective's rate and residual of the item alone to its `inputs`."""
    now_ms, row = state.clock.stream_time_ms[0], int64(state.features_seen.row[slot, features.ITEM])
    at = 2 * features.ITEM
    inputs[at + Odds.RATE], inputs[at + Odds.RESIDUAL] = 0.0, 0.0
    if row < 0 or not value_rates.sums[row, Sum.SHOWN] > 0.0:
        return
    sums = value_rates.sums[row]
    lately = rates.lately_factor(value_rates.sums, value_rates.at_ms, row, now_ms, parameters.learner.rates)
    shown, acted, expected = (
        sums[Sum.LATELY_SHOWN] * lately,
        sums[Sum.LATELY_ACTED] * lately,
        sums[Sum.LATELY_EXPECTED] * lately,
    )
    inputs[at + Odds.RATE] += float32(rates.read_rate(sums[Sum.SHOWN], sums[Sum.ACTED], prior))
    inputs[at + Odds.RESIDUAL] += float32(rates.read_residual(shown, acted, expected, prior))


@compiled
def read_features(state: State, parameters: Parameters, scratch: Scratch, slot: int, moment: Moment) -> None:
    """Read all numbers that the learner is to see of an impression into its slot: rates, interests, statistics."""
    read_rates(state, parameters, scratch.rates, slot, state.learner.rates, state.features_seen.inputs[slot])
    for head in range(heads.count_of(state.heads)):
        own = state.heads.inputs[slot, head]
        read_rates(state, parameters, scratch.rates, slot, heads.rates_of(state.heads, head), own)
    read_interests(state, parameters, scratch, slot, users.owner_of(state, slot))
    if cross.is_on(state.cross):
        inputs, rows = state.features_seen.inputs[slot], state.features_seen.row[slot]
        prior = rates.overall_prior(state.learner.rates, moment.now_ms, parameters.learner.rates)
        of_both = inputs[: 2 * (features.ITEM + 1)]
        statistics = inputs[layout.statistics_start(state.cross, inputs.shape[0]) :]
        cross_statistics.read_statistics(state.cross, scratch.cross, slot, rows, of_both, prior, moment, statistics)
        head_scoring.read_statistics(state, parameters, scratch, slot, moment.now_ms)


@compiled
def read_rates(
    state: State, parameters: Parameters, scratch: RatesScratch, slot: int, value_rates: Rates, inputs: Float32
) -> None:
    """Write an objective's rate and residual of each field, meant over its values, and its overall log-odds."""
    seen = state.features_seen
    now_ms = state.clock.stream_time_ms[0]
    fields = state.learner.pairs.shape[0]
    for i in range(2 * fields):
        inputs[i] = 0.0
    values = scratch.values
    clear(values)
    for value in range(seen.counts[slot]):
        if seen.row[slot, value] >= 0:
            values[seen.field[slot, value]] += 1
    prior = rates.overall_prior(value_rates, now_ms, parameters.learner.rates)
    inputs[2 * fields + layout.Extra.OVERALL] = float32(log(prior.mean / (1.0 - prior.mean)))
    sums, odds = scratch.sums, scratch.odds
    count = int64(seen.counts[slot])
    for value in range(count):
        row = seen.row[slot, value]
        is_known = row >= 0 and value_rates.sums[row, Sum.SHOWN] > 0.0
        factor = 1.0
        if is_known:
            its = parameters.learner.rates
            factor = rates.shared_factor(scratch, value, value_rates.sums, value_rates.at_ms, row, now_ms, its)
        for part in range(rates.SUMS):
            lately = factor if part >= Sum.LATELY_SHOWN else 1.0
            sums[part, value] = value_rates.sums[row, part] * lately if is_known else 0.0
    for value in range(count):  # apart, so that a processor works at several values at once
        odds[Odds.RATE, value] = rates.read_rate(sums[Sum.SHOWN, value], sums[Sum.ACTED, value], prior)
    for value in range(count):
        shown, acted = sums[Sum.LATELY_SHOWN, value], sums[Sum.LATELY_ACTED, value]
        odds[Odds.RESIDUAL, value] = rates.read_residual(shown, acted, sums[Sum.LATELY_EXPECTED, value], prior)
    for value in range(count):
        if sums[Sum.SHOWN, value] > 0.0:
            field = int64(seen.field[slot, value])
            inputs[2 * field + Odds.RATE] += float32(odds[Odds.RATE, value] / values[field])
            inputs[2 * field + Odds.RESIDUAL] += float32(odds[Odds.RESIDUAL, value] / values[field])


@compiled
def gather_recent(state: State, scratch: Scratch, user: int, moment: Moment) -> None:
    """Gather what a user did last, of which `read_interests` reads the short interests."""
    scratch.sdim.is_directed[0] = 0
    if has_interests(scratch):
        vectors = state.learner.features[:, ftrl.Part.WEIGHT, 1:]
        behaviors.gather_recent(state.behaviors, state.features, vectors, user, moment.gone_ms, scratch.gathered)


@compiled
def gather_history(state: State, parameters: Parameters, scratch: Scratch, user: int, moment: Moment) -> None:
    """Gather what a user did last, and all before it: many candidates are to read of both, and none is shown yet."""
    gather_recent(state, scratch, user, moment)
    if has_interests(scratch):
        oldest_ms = sdim.oldest_of(parameters.sdim.window, state.clock.stream_time_ms[0])
        for kind in range(state.behaviors.counts.shape[1]):
            history = behaviors.find_history(state.behaviors, user, kind)
            if history >= 0:
                directions = scratch.sdim.directions[kind]
                sdim.write_directions(state.behaviors.histories, history, oldest_ms, scratch.sdim.total, directions)
        scratch.sdim.is_directed[0] = 1


@compiled
def has_interests(scratch: Scratch) -> bool:
    """Return whether there are interests beside the fields."""
    return scratch.pooled.vectors.shape[0] > scratch.pooled.values.shape[0]  # type: ignore[no-any-return]


@compiled
def read_interests(state: State, parameters: Parameters, scratch: Scratch, slot: int, user: int) -> None:
    """Write the candidate's interest in each kind of sequence: exact in the short one, SDIM's in the long history.

    Both are of what was gathered of the user.
    """
    vectors = state.learner.features[:, ftrl.Part.WEIGHT, 1:]
    size = vectors.shape[1]
    every = state.features_seen.inputs[slot]
    end = layout.statistics_start(state.cross, every.shape[0])
    inputs = every[layout.interests_start(state.learner) : end]
    for i in range(inputs.shape[0]):
        inputs[i] = 0.0
    item = int64(state.features_seen.row[slot, features.ITEM])
    if item < 0 or inputs.shape[0] == 0:
        return
    oldest_ms = sdim.oldest_of(parameters.sdim.window, state.clock.stream_time_ms[0])
    for kind in range(state.behaviors.counts.shape[1]):
        if state.behaviors.counts[user, kind] == 0:
            continue
        at = layout.INTERESTS * kind * size
        short = inputs[at + layout.Interest.SHORT * size :][:size]
        attention.attend(scratch.gathered, kind, vectors[item], parameters.sdim.tau, short)
        long = inputs[at + layout.Interest.LONG * size :][:size]
        history = behaviors.find_history(state.behaviors, user, kind)
        if history >= 0:
            bits = sdim.signature(parameters.sdim.projection, vectors[item], scratch.sdim.signs)
            if scratch.sdim.is_directed[0] == 1:
                sdim.read_directions(scratch.sdim.directions[kind], bits, parameters.sdim.tau, long)
            else:
                sdim.read_interest(state.behaviors.histories, history, bits, oldest_ms, scratch.sdim.total, long)

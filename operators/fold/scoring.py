"""One impression from its values to its score, and from its outcome to what is learned: the operators put together."""

import numpy as np
from thalweg.operators.behaviors import append_behavior, extend_sequence, read_long_interest, read_short_interest
from thalweg.operators.edges.columnizer import Columns
from thalweg.operators.error_memory import amend_label, locate, look_ahead_at_errors, read_error, write_error
from thalweg.operators.features import ITEM, USER, cross_keys, resolve
from thalweg.operators.fold.state import INTERESTS, LONG, MACHINE, OTHERS, OVERALL, SHORT, Parameters, State
from thalweg.operators.fold.users import forget_values
from thalweg.operators.ftrl import WEIGHT
from thalweg.operators.joiner import BASE, CORRECTION, LOGIT, MODEL, SCORE, UNLEARNED
from thalweg.operators.learner import (
    DERIVED,
    DERIVED_BUCKETS,
    RECENT,
    USER_EXPOSURES,
    USER_GAP,
    learn_dense,
    learn_features,
    learn_pairs,
    pool_fields,
    power_of_two,
    score_dense,
    score_pairs,
    wipe_feature,
)
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64, uint64
from thalweg.operators.machine.hashing import cross, uniform
from thalweg.operators.machine.numerics import log, sigmoid
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.rates import (
    ACTED,
    LATELY_ACTED,
    LATELY_EXPECTED,
    LATELY_SHOWN,
    RATE,
    RESIDUAL,
    SHOWN,
    SUMS,
    add_outcome,
    decay,
    overall_prior,
    read_rate,
    read_residual,
    wipe_rates,
)
from thalweg.operators.sdim import oldest_of
from thalweg.operators.structures.table import NONE, TOUCHED, find_row, is_current, update_row

SECOND_MS = 1_000.0
SCORE_MIN = 1e-6
KEPT_SHARE = 0.1  # either outcome keeps a tenth of its probability: a wrong zero costs more than a correction wins
DERIVED_SALT = 0xDE
SAMPLE_SALT = 0x5A
LINE_INPUTS = 16  # float32 in a cache line


@compiled
def resolve_values(
    state: State, parameters: Parameters, columns: Columns, event: int, slot: int, user: int, is_kept: bool
) -> None:
    """Resolve the ids of an impression, and of its crosses, to rows, and remember them in its slot.

    One that is not kept makes no rows.
    """
    workspace = parameters.workspace
    clear(workspace.keys)
    state.seen.counts[slot] = 0
    for value in range(columns.value_start[event], columns.value_start[event + 1]):
        field = columns.value_field[value]
        key = columns.value_key[value]
        if workspace.keys[field] == 0:
            workspace.keys[field] = key
        add_value(state, parameters, slot, field, key, user if field == USER else -1, is_kept)
    crosses = parameters.crosses
    for which in range(crosses.field.shape[0]):
        key = cross_keys(crosses, which, workspace.keys)
        if key != uint64(0):
            is_private = crosses.first[which] == USER or crosses.second[which] == USER
            add_value(state, parameters, slot, crosses.field[which], key, user if is_private else -1, is_kept)


@compiled
def add_value(state: State, parameters: Parameters, slot: int, field: int, key: int, user: int, is_kept: bool) -> None:
    """Add one value to an impression; a value that is not admitted has no row, nor a new one of what is not kept."""
    now_ms = state.clock.stream_time_ms[0]
    row, is_new, freed = NONE, False, NONE
    if is_kept:
        row, is_new, freed = resolve(
            state.features,
            state.admission,
            parameters.admission,
            state.private,
            parameters.expire_time_ms,
            key,
            field,
            user,
            now_ms,
        )
    else:
        row = find_row(state.features, key, now_ms, parameters.expire_time_ms)
    if freed >= 0 and not is_new:  # a new row is the one just freed, and starts anew
        forget_values(state, freed)
    if is_new:
        wipe_feature(state.learner, row, key, parameters.learner)
        wipe_rates(state.learner.rates, row, now_ms)
    look_ahead_at_value(state, row)
    seen = state.seen
    value = seen.counts[slot]
    seen.field[slot, value] = field
    seen.row[slot, value] = row
    seen.generation[slot, value] = state.features.generation[row] if row >= 0 else np.uint32(0)
    seen.counts[slot] = value + 1


@compiled
def look_ahead_at_value(state: State, row: int) -> None:
    """Ask for what is read of a value when it is scored; -1 is none."""
    if row >= 0:
        prefetch(state.features.key, row)  # and what else the table has of it
        prefetch(state.learner.rates.sums, row)
        prefetch(state.learner.features, row)


@compiled
def look_ahead_at_slot(state: State, slot: int) -> None:
    """Ask for what will be read of an impression when its window closes; -1 is none."""
    if slot >= 0:
        seen = state.seen
        prefetch(seen.counts, slot)
        prefetch(seen.row, slot)
        prefetch(seen.field, slot)
        prefetch(seen.generation, slot)
        prefetch(state.waiting.scores, slot)
        prefetch(state.waiting.label, slot)
        for part in range(0, state.recalled.keyed.shape[1], LINE_INPUTS):
            prefetch(state.recalled.keyed[slot], part)
            prefetch(state.recalled.before[slot], part)
            prefetch(state.recalled.estimate[slot], part)
        for part in range(0, seen.inputs.shape[1], LINE_INPUTS):
            prefetch(seen.inputs[slot], part)


@compiled
def look_ahead_at_rows(state: State, slot: int) -> None:
    """Ask for the rows that will learn from an impression, all cache lines of each, and the errors near it."""
    look_ahead_at_errors(state.memory, state.recalled, slot)
    for value in range(state.seen.counts[slot]):
        row = state.seen.row[slot, value]
        if row >= 0:
            prefetch(state.features.generation, row)
            coordinates = state.learner.features[row]
            for part in range(coordinates.shape[0]):
                prefetch(coordinates, part)


@compiled
def derive_values(state: State, parameters: Parameters, slot: int, user: int, is_kept: bool) -> None:
    """Add what no event says but the state knows: how long the user was away, how often shown anything, acted on what.

    Gap and exposures are labels of nothing, so they are never late.
    """
    first = state.learner.pairs.shape[0] - len(DERIVED)
    behaviors = state.behaviors
    shown = behaviors.shown[user]
    gap = DERIVED_BUCKETS - 1
    if shown > 0:
        gap = power_of_two((state.clock.stream_time_ms[0] - behaviors.shown_ms[user]) / SECOND_MS)
    visits = first + parameters.learner.recent_items
    for which, value in ((USER_GAP, gap), (USER_EXPOSURES, power_of_two(float(shown)))):
        key = derived_key(which, value)
        parameters.workspace.keys[visits + which] = key
        add_value(state, parameters, slot, first + which, key, -1, is_kept)
    if parameters.acted < 0:
        return
    length = behaviors.row.shape[2]
    count = behaviors.counts[user, parameters.acted]
    for back in range(min(parameters.learner.recent_items, count, length)):
        place = (count - 1 - back) % length
        row = behaviors.row[user, parameters.acted, place]
        if is_current(state.features, row, behaviors.generation[user, parameters.acted, place]):
            key = derived_key(RECENT, state.features.key[row])
            parameters.workspace.keys[first + back] = key
            add_value(state, parameters, slot, first + RECENT, key, -1, is_kept)


@compiled
def derived_key(which: int, value: int) -> int:
    """Return the key of a derived field's value."""
    return cross(uint64(value), uint64(which), DERIVED_SALT)


@compiled
def read_features(state: State, parameters: Parameters, slot: int, user: int, is_kept: bool) -> None:
    """Read all that the learner is to see of an impression into its slot: derived values, rates, interests."""
    derive_values(state, parameters, slot, user, is_kept)
    read_rates(state, parameters, slot)
    read_interests(state, parameters, slot, user)


@compiled
def read_rates(state: State, parameters: Parameters, slot: int) -> None:
    """Write the rate and the residual of each field, meant over its values, and the overall log-odds."""
    seen = state.seen
    rates = state.learner.rates
    now_ms = state.clock.stream_time_ms[0]
    fields = state.learner.pairs.shape[0]
    inputs = seen.inputs[slot]
    for i in range(2 * fields):
        inputs[i] = 0.0
    values = parameters.workspace.values
    clear(values)
    for value in range(seen.counts[slot]):
        if seen.row[slot, value] >= 0:
            values[seen.field[slot, value]] += 1
    decay(rates.overall, rates.overall_at_ms, 0, now_ms, parameters.learner.rates)
    prior = overall_prior(rates, parameters.learner.rates)
    inputs[2 * fields + OVERALL] = float32(log(prior.mean / (1.0 - prior.mean)))
    sums, odds = parameters.workspace.sums, parameters.workspace.odds
    count = int64(seen.counts[slot])
    for value in range(count):
        row = seen.row[slot, value]
        is_known = row >= 0 and rates.sums[row, SHOWN] > 0.0
        if is_known:
            decay(rates.sums, rates.at_ms, row, now_ms, parameters.learner.rates)
        for part in range(SUMS):
            sums[part, value] = rates.sums[row, part] if is_known else 0.0
    for value in range(count):  # apart, so that a processor works at several values at once
        odds[RATE, value] = read_rate(sums[SHOWN, value], sums[ACTED, value], prior)
    for value in range(count):
        shown, acted, expected = sums[LATELY_SHOWN, value], sums[LATELY_ACTED, value], sums[LATELY_EXPECTED, value]
        odds[RESIDUAL, value] = read_residual(shown, acted, expected, prior)
    for value in range(count):
        if sums[SHOWN, value] > 0.0:
            field = int64(seen.field[slot, value])
            inputs[2 * field + RATE] += float32(odds[RATE, value] / values[field])
            inputs[2 * field + RESIDUAL] += float32(odds[RESIDUAL, value] / values[field])


@compiled
def read_interests(state: State, parameters: Parameters, slot: int, user: int) -> None:
    """Write the candidate's interest in each kind of sequence: exact in the short one, SDIM's in the long history."""
    size = parameters.workspace.vectors.shape[1]
    inputs = state.seen.inputs[slot, interests_start(state) :]
    for i in range(inputs.shape[0]):
        inputs[i] = 0.0
    item = state.seen.row[slot, ITEM]
    if item < 0 or inputs.shape[0] == 0:
        return
    vectors = state.learner.features[:, WEIGHT, 1:]
    oldest_ms = oldest_of(parameters.window, state.clock.stream_time_ms[0])
    for kind in range(state.behaviors.counts.shape[1]):
        if state.behaviors.counts[user, kind] == 0:
            continue
        at = (INTERESTS * kind + SHORT) * size
        tau = parameters.tau
        read_short_interest(state.behaviors, state.features, vectors, user, kind, item, tau, inputs[at : at + size])
        at = (INTERESTS * kind + LONG) * size
        out = inputs[at : at + size]
        totals, total = parameters.workspace.signs, parameters.workspace.total
        projection = parameters.projection
        read_long_interest(state.behaviors, vectors, projection, totals, total, user, kind, item, oldest_ms, out)


@compiled
def interests_start(state: State) -> int:
    """Return where the interest vectors begin among an impression's inputs."""
    return 2 * state.learner.pairs.shape[0] + OTHERS  # type: ignore[no-any-return]


@compiled
def machine_logit(state: State, parameters: Parameters, slot: int) -> float:
    """Return the factorisation machine's logit of an impression, with its rows as they are now."""
    seen = state.seen
    for value in range(seen.counts[slot]):
        row = seen.row[slot, value]
        if row >= 0 and not is_current(state.features, row, seen.generation[slot, value]):
            seen.row[slot, value] = -1
    field, row_of = seen.field[slot], seen.row[slot]
    interests = seen.inputs[slot, interests_start(state) :]
    weights = pool_fields(state.learner, parameters.workspace, seen.counts[slot], field, row_of, interests)
    return weights + score_pairs(state.learner, parameters.workspace)


@compiled
def score_slot(state: State, parameters: Parameters, slot: int) -> None:
    """Score an impression by the model and keep the logit with it.

    Another model than the built-in one scores later: only its representation is read here.
    """
    inputs = state.seen.inputs[slot]
    dense = 2 * state.learner.pairs.shape[0]
    inputs[dense + MACHINE] = machine_logit(state, parameters, slot)
    if parameters.learner.is_replaced:
        inputs[dense + MACHINE] = 0.0  # of a machine that never learns
        return
    state.waiting.scores[slot, LOGIT] = inputs[dense + OVERALL] + score_dense(state.learner, inputs[: dense + 1])


@compiled
def score_replaced(state: State, parameters: Parameters, slot: int, probability: float) -> None:
    """Take the probability that another model than the built-in one gives, negatives it did not see made up for."""
    odds = probability / (1.0 - probability)
    state.waiting.scores[slot, LOGIT] = log(odds) + parameters.joiner.log_rate


@compiled
def correct_slot(state: State, parameters: Parameters, columns: Columns, event: int, slot: int) -> None:
    """Correct the model's score by the error memory, and keep both with the impression.

    The representation is the one that `score_slot` left in the workspace.
    """
    scores = state.waiting.scores[slot]
    scores[MODEL] = sigmoid(scores[LOGIT])
    vectors = parameters.workspace.vectors
    base = base_of(state, parameters, slot)
    locate(
        state.memory,
        state.recalled,
        slot,
        parameters.memory,
        vectors[USER],
        vectors[ITEM],
        parameters.workspace.keys,
        base,
        parameters.workspace.bits,
    )
    now_ms = state.clock.stream_time_ms[0]
    near = parameters.workspace.near
    score = read_error(state.memory, state.recalled, slot, base, now_ms, parameters.memory, near)
    lowest = max(base * KEPT_SHARE, SCORE_MIN)
    highest = min(1.0 - (1.0 - base) * KEPT_SHARE, 1.0 - SCORE_MIN)
    scores[SCORE] = min(max(score, lowest), highest)
    scores[CORRECTION] = scores[SCORE] - base


@compiled
def base_of(state: State, parameters: Parameters, slot: int) -> float:
    """Return the probability that the error memory corrects: the model's, or the event's own if so configured."""
    scores = state.waiting.scores[slot]
    if parameters.memory.corrects_base_score and not np.isnan(scores[BASE]):
        return scores[BASE]  # type: ignore[no-any-return]
    return scores[MODEL]  # type: ignore[no-any-return]


@compiled
def count_exposure(state: State, slot: int, user: int) -> None:
    """Count an impression with its user, and keep its rows, once it is scored: this needs no outcome."""
    for value in range(state.seen.counts[slot]):
        row = state.seen.row[slot, value]
        if row >= 0:
            state.features.touched[row] |= TOUCHED
    state.behaviors.shown[user] += 1
    state.behaviors.shown_ms[user] = state.clock.stream_time_ms[0]


@compiled
def count_outcome(state: State, parameters: Parameters, slot: int, shown: float, acted: float) -> None:
    """Count an impression in the rates of all its values: `shown` exposures whose outcome is known, `acted` positives.

    Both are 0 or 1, or parts of 1: a provisional label counts as it is, and is made whole when the window closes.
    """
    rates = state.learner.rates
    expected = shown * state.waiting.scores[slot, MODEL]
    now_ms = state.clock.stream_time_ms[0]
    decay(rates.overall, rates.overall_at_ms, 0, now_ms, parameters.learner.rates)
    add_outcome(rates.overall, 0, shown, acted, expected)
    for value in range(state.seen.counts[slot]):
        row = state.seen.row[slot, value]
        if row >= 0 and is_current(state.features, row, state.seen.generation[slot, value]):
            decay(rates.sums, rates.at_ms, row, now_ms, parameters.learner.rates)
            add_outcome(rates.sums, row, shown, acted, expected)
            state.features.touched[row] |= TOUCHED


@compiled
def take_label(state: State, parameters: Parameters, slot: int, label: float) -> None:
    """Take an impression's label, provisional or for good: it counts in the rates, and is learned.

    A label taken before counts already: only the difference is added.
    """
    taken = state.waiting.learned[slot]
    if taken == UNLEARNED:
        count_outcome(state, parameters, slot, 1.0, label)
    elif taken != label:
        count_outcome(state, parameters, slot, 0.0, label - taken)
    learn_label(state, parameters, slot, label)


@compiled
def learn_label(state: State, parameters: Parameters, slot: int, label: float) -> None:
    """Learn from a label, remember its error and update the rows; one learned before is set right by the difference."""
    waiting = state.waiting
    if waiting.learned[slot] != label:
        frozen_from_ms = parameters.learner.frozen_from_ms
        is_frozen = frozen_from_ms > 0 and state.clock.stream_time_ms[0] >= frozen_from_ms
        if not is_frozen and is_sampled(state, parameters, slot):
            learn_slot(state, parameters, slot, label, waiting.learned[slot])
        elif not is_frozen and label == 1.0:  # what was provisional of it was not learned
            learn_slot(state, parameters, slot, label, UNLEARNED)
        remember_error(state, parameters, slot, label)
        update_rows(state, slot)
    waiting.learned[slot] = label


@compiled
def is_sampled(state: State, parameters: Parameters, slot: int) -> bool:
    """Return whether an impression is learned from even where it is a negative."""
    rate = parameters.joiner.negative_sample_rate
    return bool(rate >= 1.0 or uniform(state.waiting.key[slot], SAMPLE_SALT) < rate)


@compiled
def learn_slot(state: State, parameters: Parameters, slot: int, label: float, learned: float) -> None:
    """Take one learning step from an impression's label, with the features that it was scored with.

    The machine's rows move by the error that it would make with the rows of now, the dense level by the error with the
    machine's logit as it was served; behind a label `learned` before, both by the difference of the labels.
    Another model than the built-in one learns from the example, when the window closes.
    """
    if parameters.learner.is_replaced:
        return
    learner, workspace, seen = state.learner, parameters.workspace, state.seen
    inputs = seen.inputs[slot]
    dense = 2 * learner.pairs.shape[0]
    machine = machine_logit(state, parameters, slot)
    served = float64(inputs[dense + OVERALL] + score_dense(learner, inputs[: dense + 1])) - parameters.joiner.log_rate
    trust = learner.dense[0, WEIGHT, dense + MACHINE]
    machine_error = learned - label
    dense_error = machine_error
    if learned == UNLEARNED:
        machine_error = sigmoid(served + trust * (machine - inputs[dense + MACHINE])) - label
        dense_error = sigmoid(served) - label
    error = float32(machine_error)
    learn_pairs(learner, workspace, error, parameters.learner)
    field, row = seen.field[slot], seen.row[slot]
    learn_features(learner, workspace, seen.counts[slot], field, row, error, parameters.learner)
    learn_dense(learner, workspace, inputs[: dense + 1], float32(dense_error), parameters.learner)


@compiled
def remember_error(state: State, parameters: Parameters, slot: int, label: float) -> None:
    """Write what was predicted for an impression, and what came, to the error memory, or how a label changed."""
    now_ms = state.clock.stream_time_ms[0]
    learned = state.waiting.learned[slot]
    if learned == UNLEARNED:
        write_error(state.memory, state.recalled, slot, label, now_ms, parameters.memory)
    else:
        amend_label(state.memory, state.recalled, slot, label - learned, now_ms, parameters.memory)


@compiled
def update_rows(state: State, slot: int) -> None:
    """Say that the rows of an impression are updated."""
    for value in range(state.seen.counts[slot]):
        row = state.seen.row[slot, value]
        if row >= 0 and is_current(state.features, row, state.seen.generation[slot, value]):
            update_row(state.features, row, state.clock.stream_time_ms[0])


@compiled
def extend_with_item(state: State, parameters: Parameters, user: int, kind: int, item: int, ts_ms: int) -> None:
    """Append an item's row to a user's sequence of a kind, where both have one."""
    if kind < 0 or user < 0 or item < 0:
        return
    if interests_start(state) == state.seen.inputs.shape[1]:
        append_behavior(state.behaviors, state.features, user, kind, item, ts_ms)
    else:
        vectors = state.learner.features[:, WEIGHT, 1:]
        extend_sequence(
            state.behaviors,
            state.features,
            vectors,
            parameters.projection,
            parameters.workspace.signs,
            parameters.window,
            user,
            kind,
            item,
            ts_ms,
        )

"""One impression from its outcome to what is learned: rates, weights, errors, sequences."""

from typing import NamedTuple

import numpy as np
from thalweg.operators import behaviors, cross, cross_statistics, error_memory, features, ftrl, joiner, learner, rates
from thalweg.operators.behaviors import Behavior
from thalweg.operators.fold import layout, scoring, users
from thalweg.operators.fold.layout import Extra
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score
from thalweg.operators.machine.compiled import compiled, float32, float64, int64
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.numerics import log, sigmoid
from thalweg.operators.sdim import SdimScratch
from thalweg.operators.structures import deadlines, table

SAMPLE_SALT = 0x5A


class Step(NamedTuple):
    """What a learning step takes besides an impression: its `label`, and when.

    `weight`: how many impressions it stands for, 1 but in a lesson. `is_sampled`: the model learns from it even where
    it is a negative.
    """

    label: float
    now_ms: int
    weight: float
    is_sampled: bool


@compiled
def own_step(state: State, parameters: Parameters, slot: int, label: float) -> Step:
    """Return the step that an impression of this partition's own is."""
    sampled = is_sampled(state, parameters, slot)
    return Step(float64(label), int64(state.clock.stream_time_ms[0]), float64(1.0), sampled)


@compiled
def drop_gone(state: State, parameters: Parameters, slot: int, at_ms: int) -> None:
    """Take their rows from those values of an impression that are gone at `at_ms`, where it takes a label.

    That is when the label could be taken first, and not when an event comes that takes it. So what is learned depends
    neither on gaps in the log nor on how far a sweep has come. What is gone does not return, as a new row is another.
    """
    seen = state.features_seen
    for value in range(seen.counts[slot]):
        row, generation = int64(seen.row[slot, value]), seen.generation[slot, value]
        if row >= 0 and not table.is_alive(state.features, row, generation, at_ms, parameters.expire_time_ms):
            seen.row[slot, value] = table.NONE


@compiled
def count_outcome(state: State, parameters: Parameters, slot: int, shown: float, acted: float, now_ms: int) -> None:
    """Count an impression in the rates of all its values: `shown` exposures whose outcome is known, `acted` positives.

    Both are 0 or 1, or parts of 1: a provisional label counts as it is, and is made whole when the window closes. A
    negative of a lesson may stand for several.
    """
    value_rates = state.learner.rates
    expected = shown * state.waiting.scores[slot, joiner.Score.MODEL]
    lately = rates.decay(value_rates.overall, value_rates.overall_at_ms, 0, now_ms, parameters.learner.rates)
    rates.add_outcome(value_rates.overall, 0, shown, acted, expected, lately)
    for value in range(state.features_seen.counts[slot]):
        row = state.features_seen.row[slot, value]
        if row >= 0:  # what is gone has none (`drop_gone`)
            lately = rates.decay(value_rates.sums, value_rates.at_ms, row, now_ms, parameters.learner.rates)
            rates.add_outcome(value_rates.sums, row, shown, acted, expected, lately)
    if cross.is_on(state.cross):
        mean = rates.overall_mean(value_rates.overall)
        cross_statistics.count_label(state.cross, slot, state.features_seen.row[slot], shown, acted, mean)


@compiled
def take_label(state: State, parameters: Parameters, scratch: Scratch, slot: int, step: Step) -> None:
    """Take an impression's label, provisional or for good: it counts in the rates, and is learned.

    A label taken before counts already: only the difference is added. What is gone was dropped (`drop_gone`).
    """
    taken = state.waiting.learned[slot]
    if taken == joiner.UNLEARNED:
        count_outcome(state, parameters, slot, step.weight, step.weight * step.label, step.now_ms)
    elif taken != step.label:
        count_outcome(state, parameters, slot, 0.0, step.weight * (step.label - taken), step.now_ms)
    learn_label(state, parameters, scratch, slot, step)


@compiled
def take_late_label(state: State, parameters: Parameters, scratch: Scratch, slot: int, step: Step) -> None:
    """Take a positive of an impression that was learned as a negative: one more step, no undo."""
    count_outcome(state, parameters, slot, 0.0, step.label, step.now_ms)
    state.waiting.learned[slot] = joiner.UNLEARNED
    learn_label(state, parameters, scratch, slot, step)


@compiled
def learn_label(state: State, parameters: Parameters, scratch: Scratch, slot: int, step: Step) -> None:
    """Learn a label, remember its error and update the rows; one learned before is corrected by the difference."""
    waiting = state.waiting
    if waiting.learned[slot] != step.label:
        frozen_from_ms = parameters.learner.frozen_from_ms
        is_frozen = frozen_from_ms > 0 and state.clock.stream_time_ms[0] >= frozen_from_ms
        served = float64(waiting.scores[slot, Score.MODEL])
        now = served
        if not is_frozen and step.is_sampled:
            now = learn_slot(state, parameters, scratch, slot, step, waiting.learned[slot])
        elif not is_frozen and step.label == 1.0:  # what was provisional of it was not learned
            now = learn_slot(state, parameters, scratch, slot, step, joiner.UNLEARNED)
        remember_error(state, parameters, slot, step, now - served)
        update_rows(state, slot, step.now_ms)
    waiting.learned[slot] = step.label


@compiled
def is_sampled(state: State, parameters: Parameters, slot: int) -> bool:
    """Return whether an impression is learned from even where it is a negative."""
    rate = parameters.joiner.negative_sample_rate
    return bool(rate >= 1.0 or uniform(state.waiting.key[slot], SAMPLE_SALT) < rate)


@compiled
def learn_slot(state: State, parameters: Parameters, scratch: Scratch, slot: int, step: Step, learned: float) -> float:
    """Take one learning step from an impression's label, with the features that it was scored with.

    Return the probability that the model gave it just before. The machine's rows move by the error with the machine's
    logit of now. The dense level moves by the error with the machine's logit as it was served, the cross network by its
    own error. Behind a label `learned` before, all of them move by the difference of the labels. The overall rate is
    that of now, as what it has learned since is not to be learned twice.
    A model in place of the built-in one learns from the example, when the window closes.
    """
    if parameters.learner.is_replaced:
        return float64(state.waiting.scores[slot, Score.MODEL])
    model, pooled, gradients, seen = state.learner, scratch.pooled, scratch.gradients, state.features_seen
    inputs = seen.inputs[slot]
    extras = layout.extras_start(model)
    machine = scoring.machine_logit(state, pooled, gradients.weighted, slot, False)
    mean = rates.overall_mean(model.rates.overall)
    base = log(mean / (1.0 - mean)) - parameters.joiner.log_rate
    linear = scoring.linear_logit(state, slot)
    served = base + linear
    trust = model.dense[0, ftrl.Part.WEIGHT, extras + Extra.MACHINE]
    logit = linear + float64(trust * (machine - inputs[extras + Extra.MACHINE]))
    if cross.is_on(state.cross):
        logit = cross.mix(state.cross.mix, logit, learn_cross(state, scratch, slot, step, learned, base))
    machine_error = learned - step.label
    dense_error = machine_error
    if learned == joiner.UNLEARNED:
        machine_error = sigmoid(served + trust * (machine - inputs[extras + Extra.MACHINE])) - step.label
        dense_error = sigmoid(served) - step.label
    error = float32(step.weight * machine_error)
    learner.learn_pairs(model, pooled, gradients, error, parameters.learner)
    field, row = seen.field[slot], seen.row[slot]
    learner.learn_features(model, pooled, gradients, seen.counts[slot], field, row, error, parameters.learner)
    dense = inputs[: extras + 1]
    learner.learn_dense(model.dense, gradients.dense, dense, float32(step.weight * dense_error), parameters.learner)
    return sigmoid(base + parameters.joiner.log_rate + logit)


@compiled
def learn_cross(state: State, scratch: Scratch, slot: int, step: Step, learned: float, base: float) -> float:
    """Take one step of the cross network, and of how far it and the machine are trusted; return what it gave before.

    `base` is the overall logit.
    """
    network, seen = state.cross, state.features_seen
    inputs = seen.inputs[slot]
    statistics = inputs[layout.statistics_start(network, inputs.shape[0]) :]
    crossed = scoring.cross_logit(state, scratch, slot, False)
    own, served = float64(statistics[cross.OWN]), float64(statistics[cross.CROSS])
    error = learned - step.label
    mix_error = error
    if learned == joiner.UNLEARNED:
        error = sigmoid(base + crossed) - step.label
        mix_error = sigmoid(base + cross.mix(network.mix, own, served)) - step.label
        cross.learn_moments(network, scratch.cross, statistics)
    count = int64(seen.counts[slot])
    cross.learn_cross(network, scratch.cross, count, seen.field[slot], seen.row[slot], float32(step.weight * error))
    cross.learn_mix(network.mix, own, served, step.weight * mix_error)
    return crossed


@compiled
def remember_error(state: State, parameters: Parameters, slot: int, step: Step, moved: float) -> None:
    """Write what was predicted for an impression, and what came, to the error memory, or how a label changed.

    The model's probability has `moved` since it was served.
    """
    memory, reads = state.memory, state.memory_reads
    learned = state.waiting.learned[slot]
    if learned == joiner.UNLEARNED:
        if parameters.memory.corrects_base_score and not np.isnan(state.waiting.scores[slot, Score.BASE]):
            moved = 0.0
        error_memory.write_moved_error(memory, reads, slot, step.label, moved, parameters.memory, step.weight)
    else:
        difference = step.label - learned
        error_memory.amend_label(memory, reads, slot, difference, parameters.memory, step.weight)


@compiled
def update_rows(state: State, slot: int, now_ms: int) -> None:
    """Mark the rows of an impression as updated; spare ones have no key."""
    now_ms = max(now_ms, state.clock.stream_time_ms[0])
    owned = table.spare_row(state.features, 0)
    for value in range(state.features_seen.counts[slot]):
        row = state.features_seen.row[slot, value]
        if 0 <= row < owned:
            table.update_row(state.features, row, now_ms)


@compiled
def skip_item(state: State, parameters: Parameters, scratch: Scratch, slot: int) -> None:
    """Extend the user's sequence of items that were shown and not acted on, unless the item is gone."""
    item, ts_ms = int64(state.features_seen.row[slot, features.ITEM]), state.waiting.ts_ms[slot]
    behavior = Behavior(users.owner_of(state, slot), parameters.skipped, item, ts_ms)
    over_ms = deadlines.over_ms(state.waiting.deadlines, slot)
    extend_with_item(state, parameters, scratch.sdim, behavior, over_ms)


@compiled
def extend_with_item(
    state: State, parameters: Parameters, scratch: SdimScratch, behavior: Behavior, at_ms: int
) -> None:
    """Append an item's row to a user's sequence of a kind, at a time, where both have one."""
    if behavior.kind < 0 or behavior.user < 0 or behavior.item < 0:
        return
    end = layout.statistics_start(state.cross, state.features_seen.inputs.shape[1])
    if layout.interests_start(state.learner) == end:
        behaviors.append_behavior(state.behaviors, state.features, behavior)
    else:
        vectors = state.learner.features[:, ftrl.Part.WEIGHT, 1:]
        gone_ms = at_ms - parameters.expire_time_ms[features.ITEM]
        behaviors.extend_sequence(
            state.behaviors, state.features, vectors, parameters.sdim, scratch.signs, behavior, gone_ms
        )

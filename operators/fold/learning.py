"""One impression from its outcome to what is learned: rates, weights, errors, sequences."""

from thalweg.operators import behaviors, error_memory, ftrl, joiner, learner, rates
from thalweg.operators.behaviors import Behavior
from thalweg.operators.fold import layout, scoring
from thalweg.operators.fold.layout import Extra
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.machine.compiled import compiled, float32
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.numerics import sigmoid
from thalweg.operators.sdim import SdimScratch
from thalweg.operators.structures import table

SAMPLE_SALT = 0x5A


@compiled
def count_outcome(state: State, parameters: Parameters, slot: int, shown: float, acted: float) -> None:
    """Count an impression in the rates of all its values: `shown` exposures whose outcome is known, `acted` positives.

    Both are 0 or 1, or parts of 1: a provisional label counts as it is, and is made whole when the window closes.
    """
    value_rates = state.learner.rates
    expected = shown * state.waiting.scores[slot, joiner.Score.MODEL]
    now_ms = state.clock.stream_time_ms[0]
    rates.decay(value_rates.overall, value_rates.overall_at_ms, 0, now_ms, parameters.learner.rates)
    rates.add_outcome(value_rates.overall, 0, shown, acted, expected)
    for value in range(state.features_seen.counts[slot]):
        row = state.features_seen.row[slot, value]
        if row >= 0 and table.is_current(state.features, row, state.features_seen.generation[slot, value]):
            rates.decay(value_rates.sums, value_rates.at_ms, row, now_ms, parameters.learner.rates)
            rates.add_outcome(value_rates.sums, row, shown, acted, expected)


@compiled
def take_label(state: State, parameters: Parameters, scratch: Scratch, slot: int, label: float) -> None:
    """Take an impression's label, provisional or for good: it counts in the rates, and is learned.

    A label taken before counts already: only the difference is added.
    """
    taken = state.waiting.learned[slot]
    if taken == joiner.UNLEARNED:
        count_outcome(state, parameters, slot, 1.0, label)
    elif taken != label:
        count_outcome(state, parameters, slot, 0.0, label - taken)
    learn_label(state, parameters, scratch, slot, label)


@compiled
def learn_label(state: State, parameters: Parameters, scratch: Scratch, slot: int, label: float) -> None:
    """Learn a label, remember its error and update the rows; one learned before is corrected by the difference."""
    waiting = state.waiting
    if waiting.learned[slot] != label:
        frozen_from_ms = parameters.learner.frozen_from_ms
        is_frozen = frozen_from_ms > 0 and state.clock.stream_time_ms[0] >= frozen_from_ms
        if not is_frozen and is_sampled(state, parameters, slot):
            learn_slot(state, parameters, scratch, slot, label, waiting.learned[slot])
        elif not is_frozen and label == 1.0:  # what was provisional of it was not learned
            learn_slot(state, parameters, scratch, slot, label, joiner.UNLEARNED)
        remember_error(state, parameters, slot, label)
        update_rows(state, slot)
    waiting.learned[slot] = label


@compiled
def is_sampled(state: State, parameters: Parameters, slot: int) -> bool:
    """Return whether an impression is learned from even where it is a negative."""
    rate = parameters.joiner.negative_sample_rate
    return bool(rate >= 1.0 or uniform(state.waiting.key[slot], SAMPLE_SALT) < rate)


@compiled
def learn_slot(state: State, parameters: Parameters, scratch: Scratch, slot: int, label: float, learned: float) -> None:
    """Take one learning step from an impression's label, with the features that it was scored with.

    The machine's rows move by the error with the machine's logit of now. The dense level moves by the error with
        the
    machine's logit as it was served. Behind a label `learned` before, both move by the difference of the labels.
    A model in place of the built-in one learns from the example, when the window closes.
    """
    if parameters.learner.is_replaced:
        return
    model, pooled, gradients, seen = state.learner, scratch.pooled, scratch.gradients, state.features_seen
    inputs = seen.inputs[slot]
    extras = layout.extras_start(model)
    machine = scoring.machine_logit(state, pooled, gradients.weighted, slot)
    served = scoring.served_logit(state, slot) - parameters.joiner.log_rate
    trust = model.dense[0, ftrl.Part.WEIGHT, extras + Extra.MACHINE]
    machine_error = learned - label
    dense_error = machine_error
    if learned == joiner.UNLEARNED:
        machine_error = sigmoid(served + trust * (machine - inputs[extras + Extra.MACHINE])) - label
        dense_error = sigmoid(served) - label
    error = float32(machine_error)
    learner.learn_pairs(model, pooled, gradients, error, parameters.learner)
    field, row = seen.field[slot], seen.row[slot]
    learner.learn_features(model, pooled, gradients, seen.counts[slot], field, row, error, parameters.learner)
    dense = inputs[: extras + 1]
    learner.learn_dense(model, gradients.dense, dense, float32(dense_error), parameters.learner)


@compiled
def remember_error(state: State, parameters: Parameters, slot: int, label: float) -> None:
    """Write what was predicted for an impression, and what came, to the error memory, or how a label changed."""
    now_ms = state.clock.stream_time_ms[0]
    learned = state.waiting.learned[slot]
    if learned == joiner.UNLEARNED:
        error_memory.write_error(state.memory, state.memory_reads, slot, label, now_ms, parameters.memory)
    else:
        error_memory.amend_label(state.memory, state.memory_reads, slot, label - learned, now_ms, parameters.memory)


@compiled
def update_rows(state: State, slot: int) -> None:
    """Mark the rows of an impression as updated."""
    for value in range(state.features_seen.counts[slot]):
        row = state.features_seen.row[slot, value]
        if row >= 0 and table.is_current(state.features, row, state.features_seen.generation[slot, value]):
            table.update_row(state.features, row, state.clock.stream_time_ms[0])


@compiled
def extend_with_item(state: State, parameters: Parameters, scratch: SdimScratch, behavior: Behavior) -> None:
    """Append an item's row to a user's sequence of a kind, where both have one."""
    if behavior.kind < 0 or behavior.user < 0 or behavior.item < 0:
        return
    if layout.interests_start(state.learner) == state.features_seen.inputs.shape[1]:
        behaviors.append_behavior(state.behaviors, state.features, behavior)
    else:
        vectors = state.learner.features[:, ftrl.Part.WEIGHT, 1:]
        signs = scratch.signs
        behaviors.extend_sequence(state.behaviors, state.features, vectors, parameters.sdim, signs, behavior)

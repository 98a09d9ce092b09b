"""Several objectives of one impression are learned together.

With one objective nothing here runs. An impression waits for the longest window. Each objective's label closes with its
own, and those that close together are learned in one step.
"""

from thalweg.operators import cross, delay, error_memory, ftrl, heads, joiner, learner, rates
from thalweg.operators.fold import head_scoring, layout, learning, scoring
from thalweg.operators.fold.emitted import Emitted, emit_example
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.layout import Extra
from thalweg.operators.fold.learning import Step
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.heads import HeadScratch
from thalweg.operators.joiner import Score
from thalweg.operators.machine.compiled import compiled, float32, float64, int64
from thalweg.operators.machine.numerics import log, sigmoid


@compiled
def learned_of(state: State, slot: int, objective: int) -> float:
    """Return the label that an objective has learned of an impression so far, or `UNLEARNED`."""
    if objective == 0:
        return float64(state.waiting.learned[slot])
    return float64(state.heads.learned[slot, objective - 1])


@compiled
def model_score_of(state: State, slot: int, objective: int) -> float:
    """Return the probability that the model gave an impression for an objective."""
    if objective == 0:
        return float64(state.waiting.scores[slot, Score.MODEL])
    return float64(state.heads.scores[slot, objective - 1, heads.MODEL])


@compiled
def begin_slot(state: State, slot: int) -> None:
    """Note that nothing is learned of an impression that begins to wait."""
    for head in range(heads.count_of(state.heads)):
        state.heads.learned[slot, head] = joiner.UNLEARNED


@compiled
def take_provisional(state: State, parameters: Parameters, scratch: Scratch, slot: int, elapsed_ms: int) -> None:
    """Learn a provisional label of each objective that is open and has learned none, all in one step.

    A head whose positives mostly come later waits for its window.
    """
    p, share = scratch.heads, parameters.joiner.provisional_share
    for objective in range(p.takes.shape[0]):
        is_due = joiner.is_open(state.waiting, slot, objective, parameters.joiner)
        if objective > 0:
            is_due &= delay.has_come(heads.delays_of(state.heads, objective - 1), elapsed_ms, share)
        p.takes[objective] = is_due and learned_of(state, slot, objective) == joiner.UNLEARNED
        take_own_label(state, parameters, scratch, slot, objective, int64(0))
        if p.labels[objective] == 0.0:
            probability = model_score_of(state, slot, objective)
            p.labels[objective] = provisional_label(state, objective, probability, elapsed_ms)
    take_labels(state, parameters, scratch, slot)


@compiled
def take_own_label(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, objective: int, grace_ms: int
) -> None:
    """Write an objective's label as it is so far, and what it weighs."""
    p = scratch.heads
    p.labels[objective] = float64(joiner.label_of(state.waiting, slot, objective))
    p.weights[objective] = 1.0
    if p.labels[objective] == 1.0:
        p.weights[objective] = joiner.weight_of(state.waiting, slot, objective, grace_ms, parameters.joiner)


@compiled
def provisional_label(state: State, objective: int, probability: float, elapsed_ms: int) -> float:
    """Return the chance that a positive of an objective still comes."""
    if objective == 0:
        return delay.provisional_label(state.delays, probability, elapsed_ms, delay.CERTAIN_OF_SEVERAL)
    delays = heads.delays_of(state.heads, objective - 1)
    return delay.provisional_label(delays, probability, elapsed_ms, delay.CERTAIN_OF_SEVERAL)


@compiled
def release(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, slot: int) -> None:
    """Take the labels whose window closes; with the last of them, emit the example."""
    waiting, p = state.waiting, scratch.heads
    for objective in range(p.takes.shape[0]):
        p.takes[objective] = joiner.is_closing(waiting, slot, objective, parameters.joiner)
        take_own_label(state, parameters, scratch, slot, objective, int64(0))
    take_labels(state, parameters, scratch, slot)
    if joiner.is_closing(waiting, slot, int64(0), parameters.joiner) and waiting.label[slot] == 0:
        learning.skip_item(state, parameters, scratch, slot)
    is_last = joiner.is_last_closing(waiting, slot, parameters.joiner)
    if is_last:
        state.tallies[Tallied.LABELLED] += 1
        state.tallies[Tallied.POSITIVES] += waiting.label[slot] == 1
        is_learned = waiting.label[slot] == 1 or learning.is_sampled(state, parameters, slot)
        emit_example(state, emitted, slot, 0, is_learned)
    for objective in range(p.takes.shape[0]):
        is_negative = joiner.label_of(waiting, slot, objective) == 0
        if is_negative and joiner.is_closing(waiting, slot, objective, parameters.joiner):
            grace_ms = parameters.joiner.late_window_ms
            if joiner.has_positive(waiting, slot, objective, grace_ms, parameters.joiner):
                take_late_positive(state, parameters, scratch, emitted, slot, objective, is_last)


@compiled
def take_late_positive(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    emitted: Emitted,
    slot: int,
    objective: int,
    is_emitted: bool,
) -> None:
    """Learn a positive of an objective whose window has closed: one more step, no undo.

    Where the example `is_emitted` already, it comes once more.
    """
    joiner.set_label(state.waiting, slot, objective)
    state.tallies[Tallied.LATE_POSITIVES] += 1
    p = scratch.heads
    for other in range(p.takes.shape[0]):
        p.takes[other] = other == objective
    take_own_label(state, parameters, scratch, slot, objective, parameters.joiner.late_window_ms)
    count_outcome(state, parameters, scratch, slot, objective, 0.0, p.weights[objective])
    if objective == 0:
        state.waiting.learned[slot] = joiner.UNLEARNED
    else:
        state.heads.learned[slot, objective - 1] = joiner.UNLEARNED
    learn_labels(state, parameters, scratch, slot)
    if is_emitted:
        emit_example(state, emitted, slot, 1, True)


@compiled
def take_labels(state: State, parameters: Parameters, scratch: Scratch, slot: int) -> None:
    """Take the labels of the objectives that `scratch.heads` marks: they count in the rates, and are learned.

    A label taken before counts already: only the difference is added.
    """
    p = scratch.heads
    for objective in range(p.takes.shape[0]):
        if p.takes[objective] != 0:
            write_before(state, scratch, slot, objective)
            shown = p.weights[objective] - p.before[objective]
            acted = p.weights[objective] * p.labels[objective] - p.before[objective] * p.learned[objective]
            if shown != 0.0 or acted != 0.0:
                count_outcome(state, parameters, scratch, slot, objective, shown, acted)
    learn_labels(state, parameters, scratch, slot)


@compiled
def write_before(state: State, scratch: Scratch, slot: int, objective: int) -> None:
    """Write the label that an objective has learned, and what it weighs: 0 where it has learned none."""
    p = scratch.heads
    p.learned[objective] = learned_of(state, slot, objective)
    p.before[objective] = joiner.learned_weight(state.waiting, slot, objective)
    if p.learned[objective] == joiner.UNLEARNED:
        p.before[objective] = 0.0


@compiled
def count_outcome(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, objective: int, shown: float, acted: float
) -> None:
    """Count an objective's outcome in the rates of all values, as `learning.count_outcome` does the first one's."""
    now_ms = int64(state.clock.stream_time_ms[0])
    if objective == 0:
        learning.count_outcome(state, parameters, slot, shown, acted, now_ms)
        return
    head, seen, p = objective - 1, state.features_seen, parameters.learner.rates
    own = heads.rates_of(state.heads, head)
    expected = shown * model_score_of(state, slot, objective)
    lately = rates.decay(own.overall, own.overall_at_ms, 0, now_ms, p)
    rates.add_outcome(own.overall, 0, shown, acted, expected, lately)
    heads.floor_lately(own.overall, 0)
    for value in range(seen.counts[slot]):
        row = seen.row[slot, value]
        if row >= 0:
            rates.decay_shared(scratch.rates, value, own.sums, own.at_ms, row, now_ms, p)
            rates.add_outcome(own.sums, row, shown, acted, expected, 1.0)
            heads.floor_lately(own.sums, row)
    if cross.is_on(state.cross):
        mean = rates.overall_mean(own.overall)
        heads.count_label(state.heads, state.cross, slot, seen.row[slot], head, shown, acted, mean)


@compiled
def learn_labels(state: State, parameters: Parameters, scratch: Scratch, slot: int) -> None:
    """Learn the labels of the objectives that `scratch.heads` marks, in one step, and remember their errors."""
    p, now_ms = scratch.heads, int64(state.clock.stream_time_ms[0])
    frozen_from_ms = parameters.learner.frozen_from_ms
    is_frozen = frozen_from_ms > 0 and now_ms >= frozen_from_ms
    is_sampled = learning.is_sampled(state, parameters, slot)
    is_any, is_learned = False, False
    for objective in range(p.takes.shape[0]):
        label = p.labels[objective]
        write_before(state, scratch, slot, objective)
        is_new = p.learned[objective] != label or p.before[objective] != p.weights[objective]
        p.takes[objective] = p.takes[objective] != 0 and is_new
        p.now[objective] = model_score_of(state, slot, objective)
        is_any |= p.takes[objective] != 0
        steps = p.takes[objective] != 0 and not is_frozen and (is_sampled or label == 1.0)
        if not is_sampled:
            p.learned[objective], p.before[objective] = joiner.UNLEARNED, 0.0  # what was provisional was not learned
        p.errors[objective] = 1.0 if steps else 0.0
        is_learned |= steps
    if not is_any:
        return
    if is_learned:
        learn_slot(state, parameters, scratch, slot)
    for objective in range(p.takes.shape[0]):
        if p.takes[objective] != 0:
            moved = p.now[objective] - model_score_of(state, slot, objective)
            remember(state, parameters, scratch, slot, objective, moved)
    learning.update_rows(state, slot, now_ms)


@compiled
def remember(state: State, parameters: Parameters, scratch: Scratch, slot: int, objective: int, moved: float) -> None:
    """Remember the error of an objective's label, and that it is learned."""
    p, now_ms = scratch.heads, int64(state.clock.stream_time_ms[0])
    label, weight = p.labels[objective], p.weights[objective]
    if objective == 0:
        write_before(state, scratch, slot, objective)
        shown = weight - p.before[0]
        if p.learned[0] == joiner.UNLEARNED:
            learning.remember_error(state, parameters, slot, Step(label, now_ms, weight, True), moved)
        else:
            memory, reads = state.memory, state.memory_reads
            difference = weight * label - p.before[0] * p.learned[0]
            error_memory.amend_label(memory, reads, slot, difference, parameters.memory, 1.0)
            if shown != 0.0:
                error_memory.amend_weight(memory, reads, slot, shown, parameters.memory)
        state.waiting.learned[slot] = label
    else:
        state.heads.learned[slot, objective - 1] = label
    if state.waiting.weights.shape[1] > 0:
        state.waiting.weights[slot, objective] = weight


@compiled
def learn_slot(state: State, parameters: Parameters, scratch: Scratch, slot: int) -> None:
    """Take one step of the objectives whose `errors` are not 0: the formulas of `learning.learn_slot` for each.

    `now` gets the probability that the model gave just before.
    """
    p, pooled, seen = scratch.heads, scratch.pooled, state.features_seen
    field, row, count = seen.field[slot], seen.row[slot], int64(seen.counts[slot])
    p.machines[0] = scoring.machine_logit(state, pooled, scratch.gradients.weighted, slot, False)
    for head in range(heads.count_of(state.heads)):
        if p.errors[head + 1] != 0.0:  # no other logit is asked for
            machine = heads.sum_weights(state.heads, pooled, count, field, row, head)
            pairs = state.heads.pairs[head]
            p.machines[head + 1] = machine + learner.score_pairs(pairs, pooled, scratch.gradients.weighted)
    if cross.is_on(state.cross):
        score_layers(state, scratch, slot)
    is_first = p.errors[0] != 0.0 and p.learned[0] == joiner.UNLEARNED
    for objective in range(p.takes.shape[0]):
        p.cross_errors[objective], p.dense_errors[objective] = float32(0.0), float32(0.0)
        if p.errors[objective] != 0.0:
            p.errors[objective] = measure(state, parameters, scratch, slot, objective)
    if cross.is_on(state.cross):
        if is_first:
            statistics = seen.inputs[slot][head_scoring.statistics_start(state) :]
            cross.learn_moments(state.cross, scratch.cross, statistics)
        heads.learn_cross(state.heads, state.cross, scratch.cross, p.rights, count, field, row, p.cross_errors)
    learn_machines(state, parameters, scratch, slot)


@compiled
def score_layers(state: State, scratch: Scratch, slot: int) -> None:
    """Write the network's logit of each objective that takes a step as it is now."""
    p, seen = scratch.heads, state.features_seen
    count = int64(seen.counts[slot])
    p.crossed[0] = scoring.cross_logit(state, scratch, slot, False)
    heads.gather_products(state.cross, scratch.cross)
    for head in range(heads.count_of(state.heads)):
        if p.errors[head + 1] != 0.0:
            crossed = heads.score_cross(state.heads, scratch.cross, count, seen.field[slot], seen.row[slot], head)
            p.crossed[head + 1] = crossed


@compiled
def measure(state: State, parameters: Parameters, scratch: Scratch, slot: int, objective: int) -> float:
    """Return the error that an objective's machine steps against, and write those of its other parts; step its mix."""
    p, end = scratch.heads, 2 * state.learner.pairs.shape[0]
    if objective == 0:
        first = state.features_seen.inputs[slot]
        at = layout.extras_start(state.learner) + Extra.MACHINE
        mean = rates.overall_mean(state.learner.rates.overall)
        linear = float64(learner.score_dense(state.learner.dense, first[: at + 1]))
        served_machine, trust = float64(first[at]), float64(state.learner.dense[0, ftrl.Part.WEIGHT, end])
    else:
        head = objective - 1
        inputs = state.heads.inputs[slot, head]
        dense = state.heads.dense[head]
        mean = rates.overall_mean(state.heads.overall[head])
        linear = float64(learner.score_dense(dense, inputs[: end + 1]))
        served_machine, trust = float64(inputs[end]), float64(dense[0, ftrl.Part.WEIGHT, end])
    base = log(mean / (1.0 - mean)) - parameters.joiner.log_rate
    moved = trust * (p.machines[objective] - served_machine)
    logit = linear + moved
    if cross.is_on(state.cross):
        logit = measure_cross(state, scratch, slot, objective, base, logit)
    p.now[objective] = sigmoid(base + parameters.joiner.log_rate + logit)
    p.dense_errors[objective] = float32(error_of(p, objective, base + linear))
    return error_of(p, objective, base + linear + moved)


@compiled
def error_of(p: HeadScratch, objective: int, logit: float) -> float:
    """Return the error of a logit by an objective's label, or by how its label and weight have changed."""
    shown = p.weights[objective] - p.before[objective]
    error = p.before[objective] * max(p.learned[objective], 0.0) - p.weights[objective] * p.labels[objective]
    return float64(error + shown * sigmoid(logit)) if shown != 0.0 else float64(error)


@compiled
def measure_cross(state: State, scratch: Scratch, slot: int, objective: int, base: float, logit: float) -> float:
    """Write the error of an objective's part of the network, step its mix, and return its whole logit as it is now."""
    p, end = scratch.heads, 2 * state.learner.pairs.shape[0]
    if objective == 0:
        statistics = state.features_seen.inputs[slot][head_scoring.statistics_start(state) :]
        own, served = float64(statistics[cross.OWN]), float64(statistics[cross.CROSS])
        trusts = state.cross.mix
    else:
        inputs = state.heads.inputs[slot, objective - 1]
        own, served = float64(inputs[end + heads.LINEAR]), float64(inputs[end + heads.CROSSED])
        trusts = state.heads.mix[objective - 1]
    mix_error = error_of(p, objective, base + cross.mix(trusts, own, served))
    cross.learn_mix(trusts, own, served, mix_error)
    crossed = p.crossed[objective]
    p.cross_errors[objective] = float32(error_of(p, objective, base + crossed))
    return cross.mix(trusts, logit, crossed)


@compiled
def learn_machines(state: State, parameters: Parameters, scratch: Scratch, slot: int) -> None:
    """Step machines and dense levels of all objectives; each latent vector once, against the sum of its gradients."""
    p, pooled, gradients, seen = scratch.heads, scratch.pooled, scratch.gradients, state.features_seen
    end, its = 2 * state.learner.pairs.shape[0], parameters.learner
    heads.learn_pairs(state.heads, state.learner, pooled, gradients, p.weights_of_pairs, p.errors, its)
    for objective in range(p.takes.shape[0]):
        dense_error = p.dense_errors[objective]
        if dense_error == 0.0:
            continue
        if objective == 0:
            learner.learn_dense(state.learner.dense, gradients.dense, seen.inputs[slot][: end + 1], dense_error, its)
        else:
            dense, inputs = state.heads.dense[objective - 1], state.heads.inputs[slot, objective - 1]
            learner.learn_dense(dense, gradients.dense, inputs[: end + 1], dense_error, its)
    heads.learn_rows(state.heads, state.learner, pooled, gradients.vectors, seen, slot, p.errors, its)

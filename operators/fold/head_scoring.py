"""The scores of all objectives but the first: read, and scored behind it. With one objective nothing here runs."""

from thalweg.operators import cross, heads, learner, rates
from thalweg.operators.fold import layout
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score
from thalweg.operators.machine.compiled import compiled, float64, int64
from thalweg.operators.machine.numerics import sigmoid


@compiled
def read_statistics(state: State, parameters: Parameters, scratch: Scratch, slot: int, now_ms: int) -> None:
    """Write the statistics of each head, behind its rates and behind those of the first objective."""
    rows = state.features_seen.row[slot]
    out = state.features_seen.inputs[slot][statistics_start(state) :]
    for head in range(heads.count_of(state.heads)):
        prior = rates.overall_prior(heads.rates_of(state.heads, head), now_ms, parameters.learner.rates)
        heads.read_statistics(state.heads, state.cross, slot, rows, prior, head, scratch.cross.counts, out)


@compiled
def score_linear(state: State, scratch: Scratch, slot: int) -> None:
    """Write the logits of each head's machine and dense level, behind `scoring.machine_logit` of the impression."""
    seen, own, pooled = state.features_seen, state.heads, scratch.pooled
    field, row, count = seen.field[slot], seen.row[slot], int64(seen.counts[slot])
    end = 2 * state.learner.pairs.shape[0]
    for head in range(heads.count_of(own)):
        inputs = own.inputs[slot, head]
        machine = heads.sum_weights(own, pooled, count, field, row, head)
        inputs[end + heads.MACHINE] = machine + learner.score_pairs(own.pairs[head], pooled, scratch.gradients.weighted)
        inputs[end + heads.LINEAR] = learner.score_dense(own.dense[head], inputs[: end + 1])
        if cross.is_on(state.cross):
            statistics = state.features_seen.inputs[slot][statistics_start(state) :]
            statistics[heads.statistics_at(state.cross, own, head) + heads.OWN] = inputs[end + heads.LINEAR]


@compiled
def statistics_start(state: State) -> int:
    """Return where the statistics of an impression begin among its inputs."""
    return layout.statistics_start(state.cross, state.features_seen.inputs.shape[1])


@compiled
def score_heads(state: State, scratch: Scratch, slot: int) -> None:
    """Write each head's logit, behind `scoring.cross_logit` of the same impression where there is a network."""
    seen, own = state.features_seen, state.heads
    end = 2 * state.learner.pairs.shape[0]
    if cross.is_on(state.cross) and heads.count_of(own) > 0:
        heads.gather_products(state.cross, scratch.cross)
    for head in range(heads.count_of(own)):
        inputs = own.inputs[slot, head]
        logit = float64(inputs[end + heads.LINEAR])
        if cross.is_on(state.cross):
            count = int64(seen.counts[slot])
            crossed = heads.score_cross(own, scratch.cross, count, seen.field[slot], seen.row[slot], head)
            inputs[end + heads.CROSSED] = crossed
            logit = cross.mix(own.mix[head], logit, crossed)
        own.scores[slot, head, heads.LOGIT] = float64(inputs[end + heads.OVERALL]) + logit


@compiled
def correct_heads(state: State, slot: int, least: float) -> None:
    """Write each head's probability, at least `least` and as far below 1; no error memory corrects it."""
    for head in range(heads.count_of(state.heads)):
        scores = state.heads.scores[slot, head]
        scores[heads.MODEL] = sigmoid(scores[heads.LOGIT])
        scores[heads.SCORE] = min(max(scores[heads.MODEL], least), 1.0 - least)


@compiled
def order_of(state: State, parameters: Parameters, slot: int) -> float:
    """Return what the order makes of an impression's probabilities, summed from the first objective on."""
    total = parameters.order[0] * state.waiting.scores[slot, Score.SCORE]
    for head in range(heads.count_of(state.heads)):
        total += parameters.order[head + 1] * state.heads.scores[slot, head, heads.SCORE]
    return total  # type: ignore[no-any-return]

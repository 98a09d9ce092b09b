"""One impression from its features to its score: the operators put together."""

import numpy as np
import numpy.typing as npt
from thalweg.operators import candidate_errors, cross, error_memory, learner
from thalweg.operators.fold import head_scoring, layout
from thalweg.operators.fold.layout import Extra
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score
from thalweg.operators.learner import Pooled
from thalweg.operators.machine.compiled import compiled, float64, int64
from thalweg.operators.machine.numerics import log, log_odds, sigmoid
from thalweg.operators.structures import table

SCORE_MIN = 1e-6
KEPT_SHARE = 0.1  # either outcome keeps a tenth of its probability: a wrong zero costs more than a correction wins


@compiled
def machine_logit(state: State, pooled: Pooled, weighted: npt.NDArray[np.float32], slot: int, is_alike: bool) -> float:
    """Return the factorisation machine's logit of an impression, with its rows as they are now.

    `pooled` gets its fields' vectors; if it `is_alike`, they are there, but for the item's. `weighted` [d] is scratch.
    """
    seen = state.features_seen
    for value in range(seen.counts[slot] if not is_alike else 0):
        row = seen.row[slot, value]
        if row >= 0 and not table.is_current(state.features, row, seen.generation[slot, value]):
            seen.row[slot, value] = -1
    field, row_of = seen.field[slot], seen.row[slot]
    inputs = seen.inputs[slot]
    end = layout.statistics_start(state.cross, inputs.shape[0])
    interests = inputs[layout.interests_start(state.learner) : end]
    weights = learner.pool_fields(state.learner, pooled, seen.counts[slot], field, row_of, interests, is_alike)
    if is_alike:
        return weights + learner.score_alike_pairs(state.learner, pooled, weighted)
    return weights + learner.score_pairs(state.learner.pairs, pooled, weighted)


@compiled
def score_slot(state: State, parameters: Parameters, scratch: Scratch, slot: int, is_alike: bool) -> float:
    """Score an impression by the model and keep the logit with it; return the dense level's part.

    `scratch.pooled` gets its representation. It `is_alike` if the one scored before differs in the item alone. Another
    model than the built-in one scores later: only the representation is read here.
    """
    inputs = state.features_seen.inputs[slot]
    extras = layout.extras_start(state.learner)
    machine = machine_logit(state, scratch.pooled, scratch.gradients.weighted, slot, is_alike)
    if parameters.learner.is_replaced:
        inputs[extras + Extra.MACHINE] = 0.0  # of a machine that never learns
        return 0.0
    inputs[extras + Extra.MACHINE] = machine
    logit = linear = linear_logit(state, slot)
    head_scoring.score_linear(state, scratch, slot)
    if cross.is_on(state.cross):
        statistics = inputs[layout.statistics_start(state.cross, inputs.shape[0]) :]
        statistics[cross.OWN] = logit
        crossed = cross_logit(state, scratch, slot, is_alike)
        statistics[cross.CROSS] = crossed
        logit = cross.mix(state.cross.mix, logit, crossed)
    head_scoring.score_heads(state, scratch, slot)
    state.waiting.scores[slot, Score.LOGIT] = float64(inputs[extras + Extra.OVERALL]) + logit
    return linear


@compiled
def linear_logit(state: State, slot: int) -> float:
    """Return the dense level's part of an impression's logit as it is now, with the inputs as they were served."""
    inputs = state.features_seen.inputs[slot]
    dense = inputs[: layout.extras_start(state.learner) + 1]  # the machine's logit is the last of them
    return float64(learner.score_dense(state.learner.dense, dense))


@compiled
def cross_logit(state: State, scratch: Scratch, slot: int, is_alike: bool) -> float:
    """Return the cross network's part of an impression's logit as it is now, with the statistics as served."""
    seen = state.features_seen
    inputs = seen.inputs[slot]
    statistics = inputs[layout.statistics_start(state.cross, inputs.shape[0]) :]
    return cross.score_cross(
        state.cross, scratch.cross, int64(seen.counts[slot]), seen.field[slot], seen.row[slot], statistics, is_alike
    )


@compiled
def crossed_logit(state: State, slot: int) -> float:
    """Return the cross network's part of an impression's logit as it was served; 0 where there is no network."""
    if not cross.is_on(state.cross):
        return 0.0
    inputs = state.features_seen.inputs[slot]
    return float64(inputs[layout.statistics_start(state.cross, inputs.shape[0]) + cross.CROSS])


@compiled
def score_replaced(state: State, parameters: Parameters, slot: int, probability: float) -> None:
    """Take the probability that another model than the built-in one gives, negatives it did not see made up for."""
    odds = probability / (1.0 - probability)
    state.waiting.scores[slot, Score.LOGIT] = log(odds) + parameters.joiner.log_rate


@compiled
def correct_slot(state: State, parameters: Parameters, scratch: Scratch, slot: int, prior: float) -> None:
    """Correct the model's score by the error memory, and keep both with the impression.

    `prior` is `error_memory.scaled_prior`. The representation is `scratch.pooled`, as `score_slot` wrote it, and
    `scratch.keys`, as `resolve_values` did.
    """
    scores = state.waiting.scores[slot]
    scores[Score.MODEL] = sigmoid(scores[Score.LOGIT])
    reads, vectors, bits, near = state.memory_reads, scratch.pooled.vectors, scratch.memory.bits, scratch.memory.near
    base = base_of(state, parameters, slot)
    error_memory.project_user(parameters.memory, vectors, bits)
    error_memory.locate(state.memory, reads, slot, parameters.memory, vectors, scratch.keys, base, bits)
    score = error_memory.read_error_by(state.memory, reads, slot, base, prior, parameters.memory, near)
    keep_score(state, slot, base, score)


@compiled
def correct_candidate(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, is_alike: bool, prior: float
) -> None:
    """Correct a candidate's score as `correct_slot` does, bit for bit; `is_alike` as for `score_slot`."""
    scores = state.waiting.scores[slot]
    scores[Score.MODEL] = sigmoid(scores[Score.LOGIT])
    memory, reads, of_memory, its = state.memory, state.memory_reads, scratch.memory, parameters.memory
    vectors = scratch.pooled.vectors
    base = base_of(state, parameters, slot)
    logit = log_odds(base)
    if not is_alike:
        error_memory.project_user(its, vectors, of_memory.bits)
    error_memory.locate_near(reads, slot, its, vectors, of_memory.bits)
    error_memory.locate_keyed(memory, reads, slot, its, scratch.keys, logit, is_alike)
    score = candidate_errors.read_candidate(memory, reads, slot, logit, prior, its, of_memory, is_alike)
    keep_score(state, slot, base, score)


@compiled
def keep_score(state: State, slot: int, base: float, score: float) -> None:
    """Keep a score that the error memory made of the probability `base` with its impression, not too far off."""
    scores = state.waiting.scores[slot]
    lowest = max(base * KEPT_SHARE, SCORE_MIN)
    highest = min(1.0 - (1.0 - base) * KEPT_SHARE, 1.0 - SCORE_MIN)
    scores[Score.SCORE] = min(max(score, lowest), highest)
    scores[Score.CORRECTION] = scores[Score.SCORE] - base
    head_scoring.correct_heads(state, slot, SCORE_MIN)


@compiled
def base_of(state: State, parameters: Parameters, slot: int) -> float:
    """Return the probability that the error memory corrects: the model's, or the event's own if so configured."""
    scores = state.waiting.scores[slot]
    if parameters.memory.corrects_base_score and not np.isnan(scores[Score.BASE]):
        return scores[Score.BASE]  # type: ignore[no-any-return]
    return scores[Score.MODEL]  # type: ignore[no-any-return]

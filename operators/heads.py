"""Heads: what each objective but the first has for itself, beside what it shares with the first.

Shared are rows and their latent vectors, embeddings, interests, exposures, and the layers of the cross network. A head
has rates of its action. It also has weights of values, of pairs of fields and of the dense level. It reads the
network's layers in another way than the first objective does, which Ma et al. call a shared bottom (Modeling Task
Relationships in Multi-task Learning, 2018):

    crossed = w x0 + sum of lin + sum_k a_k (U2' x0)_k (V2' x1)_k

The first objective reads the sum of the products: a_k = 1. One step of all objectives moves a shared
coordinate once, against the sum of their gradients.
"""

import math
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import cross, cross_statistics, ftrl
from thalweg.operators.cross import Cross, CrossScratch
from thalweg.operators.delay import Delays
from thalweg.operators.features import FeaturesSeen
from thalweg.operators.ftrl import Coordinates, Part
from thalweg.operators.learner import Gradients, Learner, LearnerParameters, Pooled, add_scaled, clear_vector, dot
from thalweg.operators.machine.compiled import compiled, float32, float64, int64
from thalweg.operators.machine.declare import Float32, Float64, Int64, per
from thalweg.operators.machine.lanes import (
    LANES,
    add_crossed_lanes,
    add_scaled_lanes,
    dot_lanes,
    gather_lanes,
    learn_pairs_lanes,
    padded,
    product_lanes,
    spread_lanes,
)
from thalweg.operators.rates import Prior, Rates, Sum, read_rate
from thalweg.operators.structures import table

MACHINE, OVERALL, LINEAR, CROSSED = range(4)
OWN_INPUTS = 4
"""A head's inputs behind its rates and residuals, as served: the machine's logit, the overall log-odds, the dense
level's logit, the network's."""
LOGIT, MODEL, SCORE = range(3)
LIN, LIN_SQUARES, LABELS = range(3)
USER_RATE, ITEM_RATE, USER_LABELS, ITEM_LABELS, OWN, PAIRS = range(6)
"""A head's statistics in x0; rates of pairs come last."""
KNOWN, ACTED = range(2)


class Heads(NamedTuple):
    """What the heads have learned and counted, and what each waiting impression was scored with."""

    rates: Annotated[Float64, per("values heads 5", "`Sum` of each value", dense=True)]
    rates_at_ms: Annotated[Int64, per("values heads", "until when those with a half-life are decayed", dense=True)]
    overall: Annotated[Float64, per("heads 1 5", "`Sum`, of all")]
    overall_at_ms: Annotated[Int64, per("heads 1", "until when those with a half-life are decayed")]
    weights: Annotated[
        Coordinates,
        per("values 5 heads", "weight of each value", dense=True, seen_as=lambda values: ftrl.learned(values.weights)),
    ]
    network: Annotated[Float32, per("values heads 3", "lin, its squares, running mean of labels", dense=True)]
    pairs: Annotated[Coordinates, per("heads fields 5 pairs", "weights of two fields, and of a field and an interest")]
    dense: Annotated[Coordinates, per("heads 1 5 dense", "weights of the dense level")]
    linear: Annotated[Float32, per("heads cross_inputs", "w")]
    linear_squares: Annotated[Float32, per("heads cross_inputs", "sums of its squared gradients")]
    products: Annotated[Float32, per("heads 2 cross_rank", "a, and the sums of its squared gradients")]
    mix: Annotated[Float64, per("heads 2 2", "as `cross.mix`")]
    delays: Annotated[Float64, per("heads 2 48", "as `delays.counts` and `delays.within`")]
    delays_ms: Annotated[Int64, per("heads 3", "as `delays.times_ms`")]
    delays_since: Annotated[Int64, per("heads 1", "as `delays.since`")]
    inputs: Annotated[
        Float32, per("slots heads head_inputs", "rates and residuals, what is behind them", over="scored")
    ]
    scores: Annotated[Float64, per("slots heads 3", "raw logit, model score, score", over="scored")]
    learned: Annotated[Float64, per("slots heads", "the label learned from so far, or `UNLEARNED`", over="scored")]


class HeadScratch(NamedTuple):
    """Scratch of one step of all objectives.

    [objectives]: `takes` uint8, whether an objective takes its label, and `labels` float64, which; `weights` float64,
    of how many impressions; `learned`, `before` float64, the label that it is a correction of, or `UNLEARNED`, and its
    weight; `machines`, `crossed`, `now` float64: logits as they are now, and the probability; `errors`, `dense_errors`,
    `cross_errors` float32: what each part steps against, or 0.

    `weights_of_pairs` float32 [fields + interests], padded; `rights` float32 [2, rank].
    """

    takes: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    before: npt.NDArray[np.float64]
    learned: npt.NDArray[np.float64]
    machines: npt.NDArray[np.float64]
    crossed: npt.NDArray[np.float64]
    now: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float32]
    dense_errors: npt.NDArray[np.float32]
    cross_errors: npt.NDArray[np.float32]
    weights_of_pairs: npt.NDArray[np.float32]
    rights: npt.NDArray[np.float32]


def head_sizes(heads: int, fields: int, rank: int) -> dict[str, Any]:
    """Return the sizes of the arrays of so many heads, for so many fields and a network of this rank."""
    return {"heads": heads, "head_inputs": 2 * fields + OWN_INPUTS, "cross_rank": rank}


def head_statistics(paired: int) -> int:
    """Return how many statistics each head adds to x0, in whole blocks, where so many fields are counted in pairs.

    >>> head_statistics(7)
    16
    """
    return padded(PAIRS + 2 * (paired - 2))


def start_heads(heads: Heads, learner: Learner) -> None:
    """Write the weights of heads that have learned nothing, as those of the first objective begin."""
    heads.pairs[:] = learner.pairs
    heads.dense[:] = learner.dense
    heads.products[:, 0] = 1.0
    heads.mix[:, 0] = cross.MIX_INITIAL


def new_head_scratch(heads: int, places: int, rank: int) -> HeadScratch:
    """Return scratch for so many heads, places of fields and interests, and ranks."""
    count = heads + 1
    return HeadScratch(
        takes=np.zeros(count, np.uint8),
        labels=np.zeros(count),
        weights=np.zeros(count),
        before=np.zeros(count),
        learned=np.zeros(count),
        machines=np.zeros(count),
        crossed=np.zeros(count),
        now=np.zeros(count),
        errors=np.zeros(count, np.float32),
        dense_errors=np.zeros(count, np.float32),
        cross_errors=np.zeros(count, np.float32),
        weights_of_pairs=np.zeros(padded(places), np.float32),
        rights=np.zeros((2, rank), np.float32),
    )


@compiled
def count_of(heads: Heads) -> int:
    """Return how many heads there are."""
    return heads.mix.shape[0]  # type: ignore[no-any-return]


@compiled
def rates_of(heads: Heads, head: int) -> Rates:
    """Return a head's rates."""
    return Rates(heads.rates[:, head], heads.rates_at_ms[:, head], heads.overall[head], heads.overall_at_ms[head])


@compiled
def floor_lately(sums: Float64, row: int) -> None:
    """Keep the positives with a half-life at 0 or more: what was provisional of them may have decayed."""
    sums[row, Sum.LATELY_ACTED] = max(sums[row, Sum.LATELY_ACTED], 0.0)


@compiled
def delays_of(heads: Heads, head: int) -> Delays:
    """Return the delays of a head's positives."""
    return Delays(heads.delays[head, 0], heads.delays[head, 1], heads.delays_ms[head], heads.delays_since[head])


@compiled
def sum_weights(
    heads: Heads, pooled: Pooled, count: int, field: npt.NDArray[np.uint8], row: npt.NDArray[np.int32], head: int
) -> float:
    """Return the sum of the fields' mean weights, behind `learner.pool_fields` of the same values."""
    total = float32(0.0)
    for value in range(count):
        if row[value] >= 0:
            share = float32(1.0) / float32(pooled.values[field[value]])
            total += heads.weights[row[value], Part.WEIGHT, head] * share
    return total


@compiled
def statistics_at(cross_state: Cross, heads: Heads, head: int) -> int:
    """Return where a head's statistics begin among all."""
    count = count_of(heads)
    return cross_state.moments.shape[1] - (count - head) * head_size(cross_state)  # type: ignore[no-any-return]


@compiled
def head_size(cross_state: Cross) -> int:
    """Return how many statistics a head has, in whole blocks."""
    return -(-(PAIRS + cross_state.pairs_seen.row.shape[1]) // LANES) * LANES  # type: ignore[no-any-return]


@compiled
def read_statistics(
    heads: Heads,
    cross_state: Cross,
    slot: int,
    rows: npt.NDArray[np.int32],
    prior: Prior,
    head: int,
    counts: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Write a head's statistics of an impression to `out` [statistics], behind its rates; its logit comes later.

    `counts` [4, pairs] is scratch.
    """
    at = statistics_at(cross_state, heads, head)
    inputs, seen = heads.inputs[slot, head], cross_state.pairs_seen
    for which in range(2):
        row = int64(rows[which])
        out[at + USER_RATE + which] = inputs[2 * which]
        out[at + USER_LABELS + which] = heads.network[row, head, LABELS] if row >= 0 else float32(0.0)
    places = seen.row.shape[1]
    known, acted, pair_rates = counts[0, :places], counts[1, :places], counts[3, :places]
    for place in range(places):
        pair = int64(seen.row[slot, place])
        known[place], acted[place] = cross_statistics.NO_PAIR, 0.0
        if table.is_current(cross_state.pairs, pair, seen.generation[slot, place]):
            its = cross_state.of_heads[pair, head]
            known[place], acted[place] = its[KNOWN], its[ACTED]
    for place in range(places):  # apart, so that a processor works at several pairs at once
        pair_rates[place] = read_rate(known[place], acted[place], prior)
    for place in range(places):
        out[at + PAIRS + place] = pair_rates[place] if known[place] != cross_statistics.NO_PAIR else 0.0


@compiled
def count_label(
    heads: Heads,
    cross_state: Cross,
    slot: int,
    rows: npt.NDArray[np.int32],
    head: int,
    shown: float,
    acted: float,
    overall: float,
) -> None:
    """Count a head's outcome with user, item and pairs, as `cross_statistics.count_label` does the first one's."""
    for which in range(2):
        row = int64(rows[which])
        if row >= 0:
            its = heads.network[row, head]
            its[LABELS] += cross_statistics.step_of_mean(its[LABELS], shown, acted, overall)
    seen = cross_state.pairs_seen
    for place in range(seen.row.shape[1]):
        pair = int64(seen.row[slot, place])
        if table.is_current(cross_state.pairs, pair, seen.generation[slot, place]):
            cross_state.of_heads[pair, head, KNOWN] += float32(shown)
            cross_state.of_heads[pair, head, ACTED] += float32(acted)


@compiled
def gather_products(cross_state: Cross, scratch: CrossScratch) -> None:
    """Leave U2' x0 in the scratch, behind `cross.score_cross`: the heads read the products by their rank."""
    p = scratch
    gather_lanes(p.hidden[3], cross_state.matrices[cross.U2], p.x0, p.present, p.blocks[0], p.hidden.shape[1])


@compiled
def score_cross(
    heads: Heads,
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    head: int,
) -> float:
    """Return the network's part of a head's logit, behind `gather_products`."""
    p = scratch
    total = float32(0.0)
    for value in range(count):
        f = int64(field[value])
        if f < p.values.shape[0] and rows[value] >= 0:
            total += heads.network[rows[value], head, LIN] / float32(p.values[f])
    weights = heads.linear[head]
    for place in range(p.blocks[0]):
        at = p.present[place] * LANES
        total += dot_lanes(p.x0, at, weights, at)
    for k in range(p.hidden.shape[1]):
        total += heads.products[head, 0, k] * p.hidden[3, k] * p.hidden[1, k]
    return min(max(float64(total), -cross.LOGIT_CLIP), cross.LOGIT_CLIP)


@compiled
def learn_cross(
    heads: Heads,
    cross_state: Cross,
    scratch: CrossScratch,
    rights: npt.NDArray[np.float32],
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    errors: npt.NDArray[np.float32],
) -> None:
    """Take one step of the network for all objectives, behind `gather_products` of the same impression.

    `errors` [objectives], 0 where one takes no step; `rights` [2, rank] is scratch. The shared layers step against the
    sum of the gradients, each times its error over the root of their squares.
    """
    p = scratch
    rank, size = p.hidden.shape[1], p.hidden.shape[1] * LANES
    squares = float32(0.0)
    for error in errors:
        squares += error * error
    if squares == 0.0:
        return
    whole = float32(math.sqrt(squares))
    for k in range(rank):
        scale = errors[0]
        for head in range(count_of(heads)):
            scale += errors[head + 1] * heads.products[head, 0, k]
        rights[0, k] = scale / whole * p.hidden[3, k]
        rights[1, k] = scale / whole * p.hidden[1, k]
    part = float32(1.0) / whole
    for place in range(p.blocks[0]):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.gx, at, cross_state.matrices[cross.V2], block * size, rights[0], rank)
        product_lanes(p.gz, at, p.gx, p.x0)
    gather_lanes(p.hidden[2], cross_state.matrices[cross.U1], p.gz, p.present, p.blocks[0], rank)
    for place in range(p.blocks[0]):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.gradient, at, cross_state.matrices[cross.V1], block * size, p.hidden[2], rank)
        spread_lanes(p.z2, at, cross_state.matrices[cross.U2], block * size, rights[1], rank)
        add_scaled_lanes(p.gradient, at, errors[0] * part, cross_state.weights, at)
        for head in range(count_of(heads)):
            add_scaled_lanes(p.gradient, at, errors[head + 1] * part, heads.linear[head], at)
        add_crossed_lanes(p.gradient, at, p.z2, p.gx, p.z1)
    for head in range(count_of(heads)):
        if errors[head + 1] != 0.0:
            _step_head(heads, p, head, count, field, rows, errors[head + 1])
    cross.step_matrix(cross_state, p, cross.V1, p.x0, p.hidden[2], whole)
    cross.step_matrix(cross_state, p, cross.U1, p.gz, p.hidden[0], whole)
    cross.step_matrix(cross_state, p, cross.V2, p.x1, rights[0], whole)
    cross.step_matrix(cross_state, p, cross.U2, p.x0, rights[1], whole)
    if errors[0] != 0.0:
        cross.step_weights(cross_state.weights, cross_state.squares[cross.LINEAR], p, errors[0])
    cross.step_rows(cross_state, p, count, field, rows, errors[0], whole)


@compiled
def _step_head(
    heads: Heads,
    scratch: CrossScratch,
    head: int,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    error: float,
) -> None:
    """Step what one head reads the layers by."""
    p = scratch
    weights, squares = heads.products[head, 0], heads.products[head, 1]
    for k in range(weights.shape[0]):
        g = error * p.hidden[3, k] * p.hidden[1, k]
        squares[k] += g * g
        weights[k] -= cross.RATE * g / np.sqrt(cross.MATRIX_FLOOR + squares[k])
    cross.step_weights(heads.linear[head], heads.linear_squares[head], p, error)
    for value in range(count):
        f = int64(field[value])
        if f < p.values.shape[0] and rows[value] >= 0:
            its, share = heads.network[rows[value], head], error / float32(p.values[f])
            its[LIN_SQUARES] += share * share
            its[LIN] -= cross.RATE * share / np.sqrt(cross.ROW_FLOOR + its[LIN_SQUARES])


@compiled
def learn_pairs(
    heads: Heads,
    learner: Learner,
    pooled: Pooled,
    gradients: Gradients,
    weights: Float32,
    errors: Float32,
    parameters: LearnerParameters,
) -> None:
    """Step the pairs of each objective against its error, and write the sum of the gradients of each field's vector.

    Each gradient counts its error times. `weights` [pairs] is scratch: the weights of all, each its error times.
    """
    present, vectors, steps, dots = pooled.present, pooled.vectors, gradients.vectors, gradients.pairs
    size, end = vectors.shape[1], pooled.counts[1]
    whole = size // LANES * LANES
    for a in range(end):
        clear_vector(steps[present[a]])
    for a in range(pooled.counts[0]):
        f = present[a]
        clear_vector(weights)
        add_scaled(weights, errors[0], learner.pairs[f, Part.WEIGHT])
        for head in range(count_of(heads)):
            add_scaled(weights, errors[head + 1], heads.pairs[head, f, Part.WEIGHT])
        clear_vector(dots)  # a pair with a field that is absent takes a step of zero, which changes nothing
        for chunk in range(0, whole, LANES):
            learn_pairs_lanes(vectors, steps, size, chunk, present, a, end, weights, dots)
        if whole < size:
            vector, gradient = vectors[f, whole:], steps[f, whole:]
            for b in range(a + 1, end):
                g = present[b]
                add_scaled(gradient, weights[g], vectors[g, whole:])
                add_scaled(steps[g, whole:], weights[g], vector)
                dots[g] += dot(vector, vectors[g, whole:])
        first = (f + 1) // LANES * LANES
        if errors[0] != 0.0:
            ftrl.descend_vector(learner.pairs, f, first, dots[first:], errors[0], parameters.pair)
        for head in range(count_of(heads)):
            if errors[head + 1] != 0.0:
                ftrl.descend_vector(heads.pairs[head], f, first, dots[first:], errors[head + 1], parameters.pair)


@compiled
def learn_rows(
    heads: Heads,
    learner: Learner,
    pooled: Pooled,
    vectors: npt.NDArray[np.float32],
    seen: FeaturesSeen,
    slot: int,
    errors: npt.NDArray[np.float32],
    parameters: LearnerParameters,
) -> None:
    """Step each value's weights by their own errors, and its latent vector once, against the sum `vectors`."""
    field, row = seen.field[slot], seen.row[slot]
    for value in range(seen.counts[slot]):
        if row[value] >= 0:
            share = float32(1.0) / float32(pooled.values[field[value]])
            if errors[0] != 0.0:
                ftrl.descend(learner.features, row[value], 0, errors[0] * share, parameters.weight)
            for head in range(count_of(heads)):
                if errors[head + 1] != 0.0:
                    ftrl.descend(heads.weights, row[value], head, errors[head + 1] * share, parameters.weight)
            ftrl.descend_vector(learner.features, row[value], 1, vectors[field[value]], share, parameters.latent)

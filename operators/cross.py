"""A low-rank cross network over embeddings and running statistics, beside the machine (DCNv2: Wang et al., 2021).

    x1    = x0 * (U1 V1' x0) + x0
    cross = w x0 + sum of lin + x0 (U2 V2' x1)
    logit = overall log-odds + a machine's + b cross

x0 has four times the mean embedding of each field's values, and statistics, standardised by their running mean and
variance and clipped. Those of user and item are rate, residual, a running mean of labels, exposures, and age. The gap
since the last exposure and a running mean of gaps are two more. Those of pairs are the rate and the exposures: of user
and item with each other field, and of the item with the items that the user acted on last. Then there are what the
machine with its dense level gives, and 1. Exposures, gaps and ages need no outcome and count once the page is over
(`pages`); rates count with their outcome. `a` and `b` are learned by logistic regression from both parts as they were
served.

All steps are AdaGrad's. A matrix has one sum of squares for each input coordinate. Its step is divided by 1 plus the
change of the logit that it alone would cause for an error of 1. So statistics that are wrong by many times move the
weights no further than those that are right.

Coordinates are in blocks of eight: one for each field's embedding, two for user, item and the machine, and one for the
pairs of every two other fields or recent items. Blocks that are empty cost nothing.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators import derived
from thalweg.operators.features import ITEM
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64
from thalweg.operators.machine.declare import Float32, Float64, Int32, Int64, UInt32, part, per, side_by_side
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.lanes import (
    LANES,
    add_crossed_lanes,
    add_scaled_lanes,
    clear_lanes,
    descend_row_lanes,
    dot_lanes,
    gather_lanes,
    move_lanes,
    multiply_add_lanes,
    product_lanes,
    spread_lanes,
    weigh_lanes,
)
from thalweg.operators.structures import index
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.table import Table
from thalweg.schemas.bounds import ROWS_MAX, check, within

RANKS_MAX = 16
PAIRS_MIN = 1_024
V1, U1, V2, U2, LINEAR = range(5)
MATRICES = 4
EMBEDDING_SCALE = cast(float, np.float32(4.0))
EMBEDDING_INITIAL = 0.035  # a uniform number within it has the deviation .02
MATRIX_INITIAL = 0.5
RATE = cast(float, np.float32(0.03))
MATRIX_FLOOR, ROW_FLOOR = cast(float, np.float32(10.0)), cast(float, np.float32(0.1))
RECENT_SHARE = cast(float, np.float32(0.1))
CLIP = 4.0
LOGIT_CLIP = 22.0
MOMENTS_MAX, VARIANCE_FLOOR = 10_000.0, 1e-4
MEAN, VARIANCE, DEVIATION = range(3)
MIX_RATE, MIX_FLOOR, MIX_INITIAL = 0.05, 10.0, 0.5
SQUARES_AT, LIN, LIN_SQUARES, LABELS, SHOWN = LANES, 2 * LANES, 2 * LANES + 1, 2 * LANES + 2, 2 * LANES + 3
PACE = 2 * LANES + 4
ROW_SIZE = 2 * LANES + 5
FIRST, LAST, BEFORE = range(3)
SHOWN_BEFORE, PACE_BEFORE = range(2)
PAIR_KNOWN, PAIR_ACTED, PAIR_SHOWN, PAIR_BEFORE = range(4)
OF_ONE, OF_PAIRS = 7, 4
RATE_AT, LABELS_AT, SHOWN_AT, GAP_AT, AGE_AT, RESIDUAL_AT, PACE_AT = range(OF_ONE)
"""The statistics of user or item."""
OWN, ONE = 2 * OF_ONE, 2 * OF_ONE + 1
CROSS = ONE
"""Where the statistics have the network's own logit as served, x0 has the constant 1."""
CROSS_SALT = 0xC505
TURNS = 4
"""Candidates whose pairs are looked for at once, a power of two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossConfiguration:
    """The cross network; part of `[learner]`.

    `cross_rank`: its rank; 0 leaves it out, with the statistics that only it reads. `cross_pairs_limit`: pairs of item
    or user with another field's value that are counted at most; at the limit the one that was not shown for longest,
    to a minute, makes room.
    """

    cross_rank: Annotated[int, within(0, RANKS_MAX)] = 8
    cross_pairs_limit: Annotated[int, within(PAIRS_MIN, ROWS_MAX)] = 1 << 20

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds."""
        check(self)


@side_by_side(is_dense=True)
class Embedded(NamedTuple):
    """What the network has of each value."""

    parts: Annotated[
        Float32,
        per(
            "values cross_row",
            "embedding, its squares, lin, its squares, running mean of labels, exposures, running mean of gaps",
        ),
    ]
    seen_ms: Annotated[Int64, per("values 3", "when it was shown first, last, and last before the page; stream time")]
    page: Annotated[Int64, per("values", "the page that counted an exposure last")]
    before: Annotated[Float32, per("values 2", "exposures before that page, and the running mean of gaps")]


@side_by_side(is_dense=True)
class Counted(NamedTuple):
    """What is counted of each pair."""

    counts: Annotated[
        Float32, per("cross_pairs 4", "exposures with a known outcome, positives, exposures, these before the page")
    ]
    page: Annotated[Int64, per("cross_pairs", "the page that counted an exposure last")]


class PairsSeen(NamedTuple):
    """The pairs of each waiting impression, of user and item with each other field."""

    row: Annotated[Int32, per("slots cross_places", refers="cross_pairs", over="scored")]
    generation: Annotated[UInt32, per("slots cross_places", "of the row", digest=False)]


class Cross(NamedTuple):
    """What the cross network has learned and counted."""

    matrices: Annotated[Float32, per("4 cross_matrix", "V1, U1, V2, U2: of each block a row of eight a rank")]
    weights: Annotated[Float32, per("cross_inputs", "w")]
    squares: Annotated[Float32, per("5 cross_inputs", "sums of squared gradients of each matrix, and of w")]
    moments: Annotated[Float64, per("3 cross_statistics", "running means, variances, and the roots of these")]
    learned: Annotated[Float64, per("1", "impressions that these are of")]
    mix: Annotated[Float64, per("2 2", "a and b, and their squared gradients")]
    embedded: Annotated[Embedded, part()]
    pairs: Annotated[Table, part(rows="cross_pairs", rows_limit="cross_pairs", lists=1)]
    owners: Annotated[Owned, part(owners="users", members="cross_pairs")]
    counted: Annotated[Counted, part()]
    of_heads: Annotated[
        Float32,
        per("cross_pairs heads 2", "of further objectives: exposures with a known outcome, positives", dense=True),
    ]
    pairs_seen: Annotated[PairsSeen, part()]


class CrossScratch(NamedTuple):
    """Scratch of one impression.

    `x0`, `x1`, `z1`, `z2`, `gradient`, `gx`, `gz`, `step` float32 [blocks * 8]; `hidden` float32 [4, rank]: V1' x0,
    V2' x1 and the gradients of both; `values` int32 [fields]: rows of each field; `present` int32 [blocks], the blocks
    that are not empty, and `blocks` int64 [1], how many these are; `keys` uint64 [pairs]; `counts` float64 [4, pairs].
    `ahead` uint64 [turns, paired]: the keys of the pairs of an item that comes soon, by the other field; `ahead_rows`
    int32 [turns, paired]: their rows, see `pairs_ahead`.
    """

    x0: npt.NDArray[np.float32]
    x1: npt.NDArray[np.float32]
    z1: npt.NDArray[np.float32]
    z2: npt.NDArray[np.float32]
    gradient: npt.NDArray[np.float32]
    gx: npt.NDArray[np.float32]
    gz: npt.NDArray[np.float32]
    step: npt.NDArray[np.float32]
    hidden: npt.NDArray[np.float32]
    values: npt.NDArray[np.int32]
    present: npt.NDArray[np.int32]
    blocks: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.float64]
    ahead: npt.NDArray[np.uint64]
    ahead_rows: npt.NDArray[np.int32]


def statistics_count(rank: int, paired: int, of_heads: int = 0) -> int:
    """Return how many statistics an impression has, in whole blocks; none where there is no network.

    `paired`: user, item, and how many fields and recent items these are counted together with; `of_heads`: statistics
    of further objectives, which are the last.

    >>> statistics_count(8, 2), statistics_count(8, 5), statistics_count(0, 5)
    (16, 32, 0)
    """
    return 0 if rank == 0 else 2 * LANES + LANES * (-(-(paired - 2) // 2)) + of_heads


def cross_sizes(rank: int, pairs_limit: int, fields: int, paired: int, of_heads: int = 0) -> dict[str, Any]:
    """Return the sizes of the network's arrays for so many fields, `paired` of them; next to nothing at rank 0."""
    statistics = statistics_count(rank, paired, of_heads)
    inputs = fields * LANES + statistics if rank else 0
    return {
        "cross_inputs": inputs,
        "cross_matrix": inputs * rank,
        "cross_statistics": statistics,
        "cross_row": ROW_SIZE if rank else 1,  # without a network a row is one number: one type of array serves both
        "cross_pairs": pairs_limit if rank else PAIRS_MIN,
        "cross_places": 2 * (paired - 2) if rank else 0,
    }


def start_network(cross: Cross, fields: int, seed: int) -> None:
    """Write the weights of a network that has learned nothing, over so many fields."""
    index.make_sparse(cross.pairs.lookup)
    size = cross.matrices.shape[1]
    deviation = MATRIX_INITIAL / math.sqrt(0.1 * fields * LANES + cross.moments.shape[1] + 1)
    if len(cross.matrices) <= V2:
        return  # measured, it is one row
    for matrix in (V1, V2):
        for i in range(size):
            spread = uniform(matrix * size + i + 1, seed + CROSS_SALT)
            cross.matrices[matrix, i] = (2.0 * spread - 1.0) * deviation * math.sqrt(3.0)
    cross.moments[VARIANCE], cross.moments[DEVIATION] = 1.0, math.sqrt(1.0 + VARIANCE_FLOOR)
    cross.mix[0] = MIX_INITIAL


def new_cross_scratch(rank: int, fields: int, paired: int, of_heads: int = 0) -> CrossScratch:
    """Return scratch for one impression."""
    blocks = fields + statistics_count(rank, paired, of_heads) // LANES
    coordinates = ("x0", "x1", "z1", "z2", "gradient", "gx", "gz", "step")
    return CrossScratch(
        **{name: np.zeros(blocks * LANES, np.float32) for name in coordinates},
        hidden=np.zeros((4, rank), np.float32),
        values=np.zeros(fields, np.int32),
        present=np.zeros(blocks, np.int32),
        blocks=np.zeros(1, np.int64),
        keys=np.zeros(2 * (paired - 2), np.uint64),
        counts=np.zeros((4, 2 * (paired - 2))),
        ahead=np.zeros((TURNS, paired), np.uint64),
        ahead_rows=np.zeros((TURNS, paired), np.int32),
    )


@compiled
def is_on(cross: Cross) -> bool:
    """Return whether there is a network."""
    return cross.moments.shape[1] > 0  # type: ignore[no-any-return]


@compiled
def paired_of(scratch: CrossScratch) -> int:
    """Return how many fields and recent items user and item are counted together with, these two included."""
    return 2 + scratch.keys.shape[0] // 2  # type: ignore[no-any-return]


@compiled
def start_embedding(cross: Cross, row: int, key: int, seed: int) -> None:
    """Start the embedding of an empty row from values derived from its key."""
    parts = cross.embedded.parts[row]
    for i in range(LANES):
        parts[i] = float32((2.0 * uniform(key, seed + CROSS_SALT + 1 + i) - 1.0) * EMBEDDING_INITIAL)


@compiled
def _gather_inputs(
    cross: Cross,
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    statistics: npt.NDArray[np.float32],
    is_alike: bool,
) -> float:
    """Write x0 and the blocks that are not empty to the scratch, and return the sum of the values' own weights."""
    values, x0 = scratch.values, scratch.x0
    fields = values.shape[0]
    stay = is_alike and (values[ITEM] > 0) == (rows[ITEM] >= 0)  # the blocks of all fields but the item's
    if stay:
        clear_lanes(x0, ITEM * LANES)
    else:
        _find_blocks(scratch, count, field, rows, statistics.shape[0] // LANES)
    linear = float32(0.0)
    for value in range(count):
        f = int64(field[value])
        if f < fields and rows[value] >= 0:
            of_row = cross.embedded.parts[rows[value]]
            share = float32(1.0) / float32(values[f])
            linear += share * of_row[LIN]
            if not stay or value == ITEM:
                add_scaled_lanes(x0, f * LANES, EMBEDDING_SCALE * share, of_row, 0)
    standard, mean, deviation = x0[fields * LANES :], cross.moments[MEAN], cross.moments[DEVIATION]
    for i in range(standard.shape[0]):  # of empty blocks too, which nobody reads: one long loop takes several at once
        x = (float64(statistics[i]) - mean[i]) / deviation[i]
        standard[i] = min(max(x, -CLIP), CLIP)
    x0[fields * LANES + ONE] = 1.0
    return linear


@compiled
def _find_blocks(
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    of_statistics: int,
) -> None:
    """Count the values of each field, empty the fields' blocks, and note the blocks that are not empty.

    `of_statistics`: how many blocks of statistics there are, behind those of the fields.
    """
    values, present, x0 = scratch.values, scratch.present, scratch.x0
    fields = values.shape[0]
    clear(values)
    for value in range(count):
        if field[value] < fields and rows[value] >= 0:
            values[field[value]] += 1
    blocks = 0
    paired = paired_of(scratch)
    for f in range(fields):
        if values[f] > 0:
            present[blocks] = f
            blocks += 1
            clear_lanes(x0, f * LANES)
    for block in range(of_statistics):
        first = 2 + 2 * (block - 2)
        is_one = block < 2 or first >= paired  # behind the pairs are those of further objectives
        if is_one or _is_there(values, first) or (first + 1 < paired and _is_there(values, first + 1)):
            present[blocks] = fields + block
            blocks += 1
    scratch.blocks[0] = blocks


@compiled
def recent_of(values: npt.NDArray[np.int32]) -> int:
    """Return the place of the recent items among the fields of the network, `values` [fields]."""
    return values.shape[0] - derived.CROSSED + derived.Derived.RECENT  # type: ignore[no-any-return]


@compiled
def _is_there(values: npt.NDArray[np.int32], paired: int) -> bool:
    """Return whether a field that is counted in pairs has values, or there are so many recent items."""
    recent = recent_of(values)
    return values[paired] > 0 if paired < recent else values[recent] > paired - recent  # type: ignore[no-any-return]


@compiled
def score_cross(
    cross: Cross,
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    statistics: npt.NDArray[np.float32],
    is_alike: bool,
) -> float:
    """Return the network's part of the logit, and leave what a step needs in the scratch.

    `field`, `rows` [count or more]: the values, -1 where one has no row; `statistics` as `read_statistics` wrote them.
    It `is_alike` if the impression scored before differs in the item alone.
    """
    p, rank = scratch, scratch.hidden.shape[1]
    total = _gather_inputs(cross, p, count, field, rows, statistics, is_alike)
    blocks, size = p.blocks[0], rank * LANES
    gather_lanes(p.hidden[0], cross.matrices[V1], p.x0, p.present, blocks, rank)
    for place in range(blocks):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.z1, at, cross.matrices[U1], block * size, p.hidden[0], rank)
        multiply_add_lanes(p.x1, at, p.x0, p.z1, p.x0)
    gather_lanes(p.hidden[1], cross.matrices[V2], p.x1, p.present, blocks, rank)
    for place in range(blocks):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.z2, at, cross.matrices[U2], block * size, p.hidden[1], rank)
        total += dot_lanes(p.x0, at, p.z2, at) + dot_lanes(p.x0, at, cross.weights, at)
    return min(max(float64(total), -LOGIT_CLIP), LOGIT_CLIP)


@compiled
def learn_cross(
    cross: Cross,
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    error: float,
) -> None:
    """Take one step against `error`, behind `score_cross` of the same impression."""
    p, rank = scratch, scratch.hidden.shape[1]
    size = rank * LANES
    gather_lanes(p.hidden[3], cross.matrices[U2], p.x0, p.present, p.blocks[0], rank)
    for place in range(p.blocks[0]):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.gx, at, cross.matrices[V2], block * size, p.hidden[3], rank)
        product_lanes(p.gz, at, p.gx, p.x0)
    gather_lanes(p.hidden[2], cross.matrices[U1], p.gz, p.present, p.blocks[0], rank)
    for place in range(p.blocks[0]):
        block = p.present[place]
        at = block * LANES
        spread_lanes(p.gradient, at, cross.matrices[V1], block * size, p.hidden[2], rank)
        add_scaled_lanes(p.z2, at, float32(1.0), cross.weights, at)
        add_crossed_lanes(p.gradient, at, p.z2, p.gx, p.z1)
    step_matrix(cross, p, V1, p.x0, p.hidden[2], error)
    step_matrix(cross, p, U1, p.gz, p.hidden[0], error)
    step_matrix(cross, p, V2, p.x1, p.hidden[3], error)
    step_matrix(cross, p, U2, p.x0, p.hidden[1], error)
    step_weights(cross.weights, cross.squares[LINEAR], p, error)
    step_rows(cross, p, count, field, rows, error, error)


@compiled
def step_matrix(
    cross: Cross,
    scratch: CrossScratch,
    matrix: int,
    left: npt.NDArray[np.float32],
    right: npt.NDArray[np.float32],
    error: float,
) -> None:
    """Step a matrix against `error` times `left` [coordinates] by `right` [rank], which is scaled in place."""
    p, rank = scratch, scratch.hidden.shape[1]
    squares = float32(0.0)
    for k in range(rank):
        squares += right[k] * right[k]
    weight = error * error * squares
    change = float32(0.0)
    for place in range(p.blocks[0]):
        at = p.present[place] * LANES
        change += weigh_lanes(cross.squares[matrix], at, left, at, weight, MATRIX_FLOOR, p.step)
    scale = error * RATE / (float32(1.0) + RATE * squares * change)
    for k in range(rank):
        right[k] *= scale
    for place in range(p.blocks[0]):
        block = p.present[place]
        move_lanes(cross.matrices[matrix], block * rank * LANES, p.step, block * LANES, right, rank)


@compiled
def step_weights(weights: Float32, squares: Float32, scratch: CrossScratch, error: float) -> None:
    """Step w, `weights` [cross_inputs] with the sums of its squared gradients, against `error` times x0."""
    p = scratch
    change = float32(0.0)
    for place in range(p.blocks[0]):
        at = p.present[place] * LANES
        change += weigh_lanes(squares, at, p.x0, at, error * error, MATRIX_FLOOR, p.step)
    scale = error * RATE / (float32(1.0) + RATE * change)
    for place in range(p.blocks[0]):
        at = p.present[place] * LANES
        add_scaled_lanes(weights, at, -scale, p.step, at)


@compiled
def step_rows(
    cross: Cross,
    scratch: CrossScratch,
    count: int,
    field: npt.NDArray[np.uint8],
    rows: npt.NDArray[np.int32],
    error: float,
    whole: float,
) -> None:
    """Step the weight of each value against `error`, and its embedding against `whole` times the gradient."""
    for value in range(count):
        f = int64(field[value])
        if f < scratch.values.shape[0] and rows[value] >= 0:
            of_row = cross.embedded.parts[rows[value]]
            share = error / float32(scratch.values[f])
            both = whole / float32(scratch.values[f])
            of_row[LIN_SQUARES] += share * share
            of_row[LIN] -= RATE * share / float32(math.sqrt(ROW_FLOOR + of_row[LIN_SQUARES]))
            descend_row_lanes(of_row, scratch.gradient, f * LANES, both * EMBEDDING_SCALE, RATE, ROW_FLOOR)


@compiled
def learn_moments(cross: Cross, scratch: CrossScratch, statistics: npt.NDArray[np.float32]) -> None:
    """Let running means and variances take in the statistics of an impression, behind `score_cross` of it."""
    cross.learned[0] += 1.0
    share = 1.0 / min(cross.learned[0] + 1.0, MOMENTS_MAX)
    first = scratch.values.shape[0]
    place = 0
    while place < scratch.blocks[0]:
        block = scratch.present[place] - first
        place += 1
        if block < 0:
            continue
        end = block + 1
        while place < scratch.blocks[0] and scratch.present[place] - first == end:  # a long loop takes several at once
            end += 1
            place += 1
        its = cross.moments[:, block * LANES : end * LANES]
        _learn_moments(its[MEAN], its[VARIANCE], its[DEVIATION], statistics[block * LANES : end * LANES], share)


@compiled
def _learn_moments(
    mean: Float64, variance: Float64, deviation: Float64, x: npt.NDArray[np.float32], share: float
) -> None:
    """Let the moments of statistics that lie side by side take in theirs, x, all [statistics]."""
    for i in range(mean.shape[0]):
        off = float64(x[i]) - mean[i]
        mean[i] += share * off
        variance[i] += share * (off * off * (1.0 - share) - variance[i])
        deviation[i] = math.sqrt(variance[i] + VARIANCE_FLOOR)


@compiled
def mix(trusts: Float64, own: float, crossed: float) -> float:
    """Return the sum of the machine's and the network's logits, as far as each is trusted: `trusts` [2, 2] as `mix`."""
    return trusts[0, 0] * own + trusts[0, 1] * crossed  # type: ignore[no-any-return]


@compiled
def learn_mix(trusts: Float64, own: float, crossed: float, error: float) -> None:
    """Step the trust in both against `error`."""
    for which in range(2):
        gradient = error * (own if which == 0 else crossed)
        trusts[1, which] += gradient * gradient
        trusts[0, which] -= MIX_RATE * gradient / math.sqrt(MIX_FLOOR + trusts[1, which])

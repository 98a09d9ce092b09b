"""SDIM: a user's long history as sums in hash buckets, read at a cost that does not depend on its length.

Cao et al., Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction (2022). `m = groups * tau`
fixed Gaussian projections give every vector a signature of `groups` times `tau` sign bits. A candidate q reads

    Attn(q, S) = 1/G sum_g l2( sum over j with sig_g(j) = sig_g(q) of s_j ),

where behaviour s_j takes part in a group with probability (1 - arccos(cos(q, s_j)) / pi) ** tau. A group whose bucket
is empty adds nothing, and the mean is still over all G groups: an empty bucket says "nothing like this", which is not
the same as being left out.

A bucket's sum is integers in a unit for each bucket: 2**-24 of the first vector in it, doubled whenever a
coordinate would outgrow its 32 bits. So a read is as exact as float32 vectors are, whatever their size and number.
16 groups of 8 buckets of 16 coordinates take 8 KB.

Nothing is taken out of a sum. A window over a long history is a ring of generations. Each has its buckets, and they are
dropped whole: when the current generation holds its share of the window, the oldest makes room. What remains is not
touched by what goes, and memory is that of the generations, however long the window.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64
from thalweg.operators.machine.declare import Int32, Int64, UInt8, UInt16, made, part, per, wiper
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.lanes import LANES, positive_lanes, project_lanes
from thalweg.operators.machine.numerics import arc_cosine, bits_of, float_of, log
from thalweg.operators.structures.pool import Pool
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, check, within

VECTOR_BITS = 24  # of the largest coordinate of the first vector in a bucket

ROOM_BITS = 29  # of any other's, in the bucket's unit: beside a sum of SUM_LIMIT it fits 32 bits

SUM_LIMIT = 1 << 30

EXPONENT_OF_A_HALF, EXPONENT_OF_ONE = 1022, 1023  # as the bits of a float64 have them

UNIT_MAX = 511

GOLDEN_RATIO, TURNS_MASK = 0x9E3779B9, (1 << 32) - 1  # its multiples fill a circle evenly

UNIT_BIAS = 256  # a unit of 2**(n - 256) is kept as n; 0 says that the bucket is empty

SIGNATURE_BITS_MAX = 63

GENERATIONS_MAX = 64

LONG_AGO_MS = -(1 << 62)

PROJECTIONS_REMEMBERED = 16  # matrices


@dataclass(frozen=True, kw_only=True, slots=True)
class SdimConfiguration:
    """The hash signatures of long histories (`[sdim]`).

    `groups` and `tau`: G groups of tau sign bits each (paper: 16 and 3). `histories_limit`: users with a long history
    at most; the one whose long history was not extended for longest loses it to the next. `window_behaviors`:
    behaviours of a long history at most; `window_ms`: their age at most; 0: no window. `window_generations`: parts in
    which behaviours leave a window, and how many times as large a windowed history is.
    """

    groups: Annotated[int, within(1, SIGNATURE_BITS_MAX)] = 16
    tau: Annotated[int, within(1, 8)] = 3
    histories_limit: Annotated[int, within(1, ROWS_MAX // GENERATIONS_MAX)] = 1 << 16
    window_behaviors: Annotated[int, within(0, ROWS_MAX)] = 0
    window_ms: Annotated[int, within(0, MS_MAX)] = 0
    window_generations: Annotated[int, within(2, GENERATIONS_MAX)] = 4

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or a signature would not fit 63 bits."""
        check(self)
        if self.groups * self.tau > SIGNATURE_BITS_MAX:
            raise ValueError(f"groups and tau must have a product of at most {SIGNATURE_BITS_MAX}")
        if any(window != 0 and window < self.window_generations for window in (self.window_behaviors, self.window_ms)):
            raise ValueError("window_behaviors and window_ms must be 0 or at least window_generations")

    @property
    def generations(self) -> int:
        """How many generations a long history has: one where there is no window."""
        return self.window_generations if self.window_behaviors or self.window_ms else 1

    def sizes(self) -> dict[str, int]:
        """Return the sizes of histories' arrays."""
        groups, buckets = self.groups, 1 << self.tau
        return {
            "histories": self.histories_limit,
            "generations": self.generations,
            "groups": groups,
            "buckets": buckets,
        }


class Window(NamedTuple):
    """A window as the compiled code takes it; 0 is no bound.

    `ms`: the oldest behaviour's age; `generation_behaviors`, `generation_ms`: what one generation holds.
    """

    ms: int
    generation_behaviors: int
    generation_ms: int


class SdimParameters(NamedTuple):
    """The configuration as the compiled code takes it; `projection` float32 [d, groups * tau]."""

    projection: npt.NDArray[np.float32]
    tau: int
    window: Window


class SdimScratch(NamedTuple):
    """Scratch of one impression, or of a request.

    `signs` float32 [groups * tau], projections of a vector; `total` float64 [d], a sum of behaviours; `directions`
    float32 [kinds, groups, 2**tau, d], of a user's buckets of each kind, if `is_directed` int64 [1] is 1.
    """

    signs: npt.NDArray[np.float32]
    total: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float32]
    is_directed: npt.NDArray[np.int64]


def sdim_parameters(configuration: SdimConfiguration, size: int, seed: int) -> SdimParameters:
    """Return what the compiled code needs of the configuration, for vectors of `size` coordinates."""
    c = configuration
    return SdimParameters(projections(size, c.groups * c.tau, seed), c.tau, window_of(c))


def new_sdim_scratch(configuration: SdimConfiguration, size: int, kinds: int = 1) -> SdimScratch:
    """Return scratch for vectors of `size` coordinates, and so many kinds of behaviours."""
    groups, tau = configuration.groups, configuration.tau
    directions = np.zeros((kinds, groups, 1 << tau, size), np.float32)
    return SdimScratch(np.zeros(groups * tau, np.float32), np.zeros(size), directions, np.zeros(1, np.int64))


def window_of(configuration: SdimConfiguration) -> Window:
    """Return what the compiled code needs of the configuration of a window."""
    c = configuration
    return Window(c.window_ms, c.window_behaviors // c.window_generations, c.window_ms // c.window_generations)


class Histories(NamedTuple):
    """Bucket sums of long histories, each of some generations."""

    sums: Annotated[Int32, per("histories generations groups buckets d", "in units of 2**(unit - 256)")]
    unit: Annotated[UInt16, per("histories generations groups buckets", "0: an empty bucket", upto=UNIT_MAX)]
    lengths: Annotated[Int64, per("histories generations", "behaviours in it")]
    started_ms: Annotated[Int64, per("histories generations", "when its first one was")]
    newest_ms: Annotated[Int64, per("histories", "when the last one was")]
    current: Annotated[UInt8, per("histories", "the generation that is being filled", below="generations")]
    owner: Annotated[Int32, per("histories", "user * kinds + kind + 1", digest=False)]
    older: Annotated[Int32, per("histories", "its neighbour by the last extension + 1", digest=False)]
    newer: Annotated[Int32, per("histories", "its neighbour by the last extension + 1", digest=False)]
    ends: Annotated[Int32, per("2", "extended first and last, + 1", digest=False)]
    pool: Annotated[Pool, part(limit="histories")]


wipe_history = wiper(Histories, "histories")


def new_histories(configuration: SdimConfiguration, size: int) -> Histories:
    """Return empty histories over vectors of `size` coordinates."""
    return made(Histories, d=size, **configuration.sizes())


@lru_cache(PROJECTIONS_REMEMBERED)
def projections(rows: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Return a float32 [rows, size] matrix of N(0, 1) entries that depend on nothing but its shape and seed.

    Marsaglia's polar method over hashed uniforms: numpy's generators may change between versions. The same matrix is
    returned again, so it is not to be written to.
    """
    out = np.zeros(rows * size)
    drawn = 0
    trial = 0
    while drawn < out.size:
        u = 2.0 * uniform(2 * trial + 1, seed) - 1.0
        v = 2.0 * uniform(2 * trial + 2, seed) - 1.0
        trial += 1
        square = u * u + v * v
        if 0.0 < square < 1.0:
            factor = math.sqrt(-2.0 * log(square) / square)
            out[drawn] = u * factor
            drawn += 1
            if drawn < out.size:
                out[drawn] = v * factor
                drawn += 1
    return out.reshape(rows, size).astype(np.float32)


@compiled
def project(
    projection: npt.NDArray[np.float32], vector: npt.NDArray[np.float32], first: int, out: npt.NDArray[np.float32]
) -> None:
    """Add `vector` [n] times the rows `first` to `first + n` of `projection` [d, m] to `out` [m]."""
    columns = out.shape[0]
    whole = columns // LANES * LANES
    for i in range(0, whole, LANES):
        project_lanes(out, i, projection, first * columns + i, columns, vector, vector.shape[0])
    for i in range(whole, columns):
        for j in range(vector.shape[0]):
            out[i] += projection[first + j, i] * vector[j]


@compiled
def signature(
    projection: npt.NDArray[np.float32], vector: npt.NDArray[np.float32], totals: npt.NDArray[np.float32]
) -> int:
    """Return the sign bits of `projection` [d, m] times `vector` [d], bit i for column i; `totals` [m] is scratch."""
    clear(totals)
    project(projection, vector, 0, totals)
    return sign_bits(totals, int64(0), int64(totals.shape[0]))


@compiled
def sign_bits(totals: npt.NDArray[np.float32], first: int, count: int) -> int:
    """Return which of `count` numbers from the place `first` on are above 0, bit i for that in the place first + i."""
    bits, whole = int64(0), count // LANES * LANES
    for i in range(0, whole, LANES):
        bits |= positive_lanes(totals, first + i) << i
    for i in range(whole, count):
        bits |= int64(totals[first + i] > 0.0) << i
    return bits


@compiled
def _tau(histories: Histories) -> int:
    tau = 0
    while (1 << tau) < histories.sums.shape[3]:
        tau += 1
    return tau


@compiled
def _bucket(bits: int, group: int, tau: int) -> int:
    return (bits >> (group * tau)) & ((1 << tau) - 1)


@compiled
def add_behavior(
    histories: Histories, row: int, bits: int, vector: npt.NDArray[np.float32], ts_ms: int, window: Window
) -> None:
    """Add a behaviour with signature `bits` and `vector` [d] to a history's current generation.

    Where that is full, or began its share of the window ago, the oldest generation is dropped for a new one. A
    behaviour that is older than the one before counts as of that one's time.
    """
    generation = int64(histories.current[row])
    ts_ms = max(ts_ms, histories.newest_ms[row])
    histories.newest_ms[row] = ts_ms
    is_full = 0 < window.generation_behaviors <= histories.lengths[row, generation]
    is_over = 0 < window.generation_ms <= ts_ms - histories.started_ms[row, generation]
    if histories.lengths[row, generation] > 0 and (is_full or is_over):
        generation = (generation + 1) % histories.lengths.shape[1]
        wipe_generation(histories, row, generation)
        histories.current[row] = generation
    if histories.lengths[row, generation] == 0:
        histories.started_ms[row, generation] = ts_ms
    write_behavior(histories, row, generation, bits, vector)


@compiled
def wipe_generation(histories: Histories, row: int, generation: int) -> None:
    """Drop all behaviours of one generation of a history."""
    for group in range(histories.sums.shape[2]):
        for bucket in range(histories.sums.shape[3]):
            clear(histories.sums[row, generation, group, bucket])
        clear(histories.unit[row, generation, group])
    histories.lengths[row, generation] = 0
    histories.started_ms[row, generation] = 0


@compiled
def write_behavior(histories: Histories, row: int, generation: int, bits: int, vector: npt.NDArray[np.float32]) -> None:
    """Add a behaviour with signature `bits` and `vector` [d] to a generation; what is not finite adds nothing.

    What is added is rounded up or down by turns, in the share that its fraction asks for: a hundred thousand behaviours
    rounded to the nearest unit, all alike, would be off by all of their errors.
    """
    histories.lengths[row, generation] += 1
    turn = float((histories.lengths[row, generation] * GOLDEN_RATIO) & TURNS_MASK) / (TURNS_MASK + 1)
    largest, together = 0.0, 0.0
    for i in range(vector.shape[0]):
        largest = max(largest, abs(float64(vector[i])))
        together += abs(float64(vector[i]))
    if not 0.0 < together < math.inf:
        return
    exponent = (bits_of(largest) >> 52) - EXPONENT_OF_A_HALF  # the power of two above the largest coordinate
    tau = _tau(histories)
    for group in range(histories.sums.shape[2]):
        bucket = _bucket(bits, group, tau)
        sums = histories.sums[row, generation, group, bucket]
        unit = int64(histories.unit[row, generation, group, bucket])
        if unit == 0:
            unit = exponent - VECTOR_BITS + UNIT_BIAS
        coarsened = max(exponent - ROOM_BITS + UNIT_BIAS - unit, 0)
        if coarsened > 0:
            coarsen(sums, coarsened)
            unit += coarsened
        scale = float_of((UNIT_BIAS - unit + EXPONENT_OF_ONE) << 52)
        largest_sum = 0
        for i in range(vector.shape[0]):
            total = sums[i] + int64(math.floor(float64(vector[i]) * scale + turn))
            sums[i] = total
            largest_sum = max(largest_sum, abs(total))
        if largest_sum > SUM_LIMIT:
            coarsen(sums, 1)
            unit += 1
        histories.unit[row, generation, group, bucket] = unit


@compiled
def coarsen(sums: npt.NDArray[np.int32], doublings: int) -> None:
    """Round sums [d] to a unit that was doubled so often."""
    shift = min(doublings, 31)
    for i in range(sums.shape[0]):
        sums[i] = (int64(sums[i]) + (int64(1) << (shift - 1))) >> shift


@compiled
def oldest_of(window: Window, now_ms: int) -> int:
    """Return the time after which a generation must have begun to be within the window."""
    return now_ms - window.ms if window.ms > 0 else LONG_AGO_MS


@compiled
def is_live(histories: Histories, row: int, generation: int, oldest_ms: int) -> bool:
    """Return whether a generation holds anything, all of it later than `oldest_ms`."""
    return histories.lengths[row, generation] > 0 and histories.started_ms[row, generation] > oldest_ms  # type: ignore[no-any-return]


@compiled
def _add_sums(sums: npt.NDArray[np.int32], unit: int, total: npt.NDArray[np.float64]) -> None:
    """Add a generation's bucket [d] to `total` [d]."""
    value = float_of((int64(unit) - UNIT_BIAS + EXPONENT_OF_ONE) << 52)
    for i in range(total.shape[0]):
        total[i] += float64(sums[i]) * value


@compiled
def _add_direction(total: npt.NDArray[np.float64], groups: int, out: npt.NDArray[np.float32]) -> None:
    """Add l2(total) / groups to `out` [d]; zero adds nothing."""
    square = 0.0
    for i in range(total.shape[0]):
        square += total[i] * total[i]
    if square > 0.0:
        factor = 1.0 / (math.sqrt(square) * groups)
        for i in range(out.shape[0]):
            out[i] += float32(total[i] * factor)


@compiled
def read_interest(
    histories: Histories,
    row: int,
    bits: int,
    oldest_ms: int,
    total: npt.NDArray[np.float64],
    out: npt.NDArray[np.float32],
) -> None:
    """Write the interest of a candidate with signature `bits` in a history to `out` [d]: the paper's Attn(q, S).

    S is what the generations hold that began after `oldest_ms`; `total` float64 [d] is scratch.
    """
    groups = histories.sums.shape[2]
    tau = _tau(histories)
    clear(out)
    for group in range(groups):
        bucket = _bucket(bits, group, tau)
        clear(total)
        for generation in range(histories.lengths.shape[1]):
            unit = histories.unit[row, generation, group, bucket]
            if unit != 0 and is_live(histories, row, generation, oldest_ms):
                _add_sums(histories.sums[row, generation, group, bucket], unit, total)
        _add_direction(total, groups, out)


@compiled
def read_interests(
    histories: Histories,
    row: int,
    bits: npt.NDArray[np.int64],
    oldest_ms: int,
    total: npt.NDArray[np.float64],
    directions: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
) -> None:
    """Write the interests of many candidates with signatures `bits` [n] in one history to `out` [n, d].

    Bit for bit what `read_interest` gives one by one; the buckets are normalised once for all, into `directions`
    float32 [groups, 2**tau, d], which is scratch.
    """
    write_directions(histories, row, oldest_ms, total, directions)
    for candidate in range(bits.shape[0]):
        read_directions(directions, bits[candidate], _tau(histories), out[candidate])


@compiled
def write_directions(
    histories: Histories, row: int, oldest_ms: int, total: npt.NDArray[np.float64], out: npt.NDArray[np.float32]
) -> None:
    """Write the direction of each of a history's buckets to `out` [groups, 2**tau, d], so that each is read once."""
    for group in range(out.shape[0]):
        for bucket in range(out.shape[1]):
            clear(total)
            for generation in range(histories.lengths.shape[1]):
                unit = histories.unit[row, generation, group, bucket]
                if unit != 0 and is_live(histories, row, generation, oldest_ms):
                    _add_sums(histories.sums[row, generation, group, bucket], unit, total)
            clear(out[group, bucket])
            _add_direction(total, out.shape[0], out[group, bucket])


@compiled
def read_directions(directions: npt.NDArray[np.float32], bits: int, tau: int, out: npt.NDArray[np.float32]) -> None:
    """Write the interest of a candidate with signature `bits` in the history that `write_directions` read to `out`."""
    clear(out)
    for group in range(directions.shape[0]):
        direction = directions[group, _bucket(bits, group, tau)]
        for i in range(out.shape[0]):
            out[i] += direction[i]


@compiled
def kernel(cosine: float, tau: int) -> float:
    """Return the probability that two vectors collide in a group: (1 - arccos(cosine) / pi) ** tau."""
    base = 1.0 - arc_cosine(cosine) / math.pi
    power = 1.0
    for _ in range(tau):
        power *= base
    return power


@compiled
def write_kernel(cosines: npt.NDArray[np.float64], tau: int, out: npt.NDArray[np.float64]) -> None:
    """Write the kernel of many cosines [n] to `out` [n], bit for bit that of each."""
    for i in range(out.shape[0]):
        out[i] = 1.0
        cosines[i] = 1.0 - arc_cosine(cosines[i]) / math.pi
    for _ in range(tau):
        for i in range(out.shape[0]):
            out[i] *= cosines[i]

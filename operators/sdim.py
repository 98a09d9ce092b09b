"""SDIM: a user's long history as sums in hash buckets, read at a cost that does not depend on its length.

Cao et al., Sampling Is All You Need on Modeling Long-Term User Behaviors for CTR Prediction (2022). `m = groups * tau`
fixed Gaussian projections give every vector a signature of `groups` times `tau` sign bits. A candidate q reads

    Attn(q, S) = 1/G sum_g l2( sum over j with sig_g(j) = sig_g(q) of s_j ),

where behaviour s_j takes part in a group with probability (1 - arccos(cos(q, s_j)) / pi) ** tau. A group whose bucket
is empty adds nothing, and the mean is still over all G groups: an empty bucket says "nothing like this", which is not
the same as being left out.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from operators.compiled import clear, compiled, float32, int64
from operators.hashing import uniform
from operators.numerics import arc_cosine, log
from operators.pool import Pool, new_pool
from operators.reserve import reserve

FIXED_POINT = 65_536.0  # a summed coordinate is an integer in units of 2**-16: exact, whatever the order
VALUE_LIMIT = 64.0
SUM_LIMIT = 1 << 30
SIGNATURE_BITS_MAX = 63


@dataclass(frozen=True, kw_only=True, slots=True)
class SdimConfiguration:
    """The hash signatures of long histories (`[sdim]`).

    `groups` and `tau`: G groups of tau sign bits each (paper: 16 and 3). `histories_limit`: users with a long history
    at most; the one whose long history was not extended for longest loses it to the next.
    """

    groups: int = 16
    tau: int = 3
    histories_limit: int = 1 << 16

    def __post_init__(self) -> None:
        """Raise ValueError where a signature would not fit 63 bits."""
        if self.groups < 1 or self.tau < 1 or self.groups * self.tau > SIGNATURE_BITS_MAX:
            raise ValueError(f"groups and tau must be at least 1, their product at most {SIGNATURE_BITS_MAX}")
        if self.tau > 8:
            raise ValueError("tau must be at most 8")
        if self.histories_limit < 1:
            raise ValueError("histories_limit must be at least 1")


class Histories(NamedTuple):
    """Bucket sums of long histories.

    `sums` int32 [histories, groups, 2**tau, d] in units of 2**(shift - 16); `counts` int32 [histories, groups, 2**tau];
    `shift` int32 [histories], how often a history's sums were halved so as not to overflow; `length` int64 [histories];
    `owner` int32 [histories], the user's row + 1; `older`, `newer` int32 [histories] and `ends` int32 [2], the order in
    which histories were extended; `pool`.
    """

    sums: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int32]
    shift: npt.NDArray[np.int32]
    length: npt.NDArray[np.int64]
    owner: npt.NDArray[np.int32]
    older: npt.NDArray[np.int32]
    newer: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    pool: Pool


def new_histories(configuration: SdimConfiguration, size: int) -> Histories:
    """Return empty histories over vectors of `size` coordinates."""
    rows = configuration.histories_limit
    buckets = (rows, configuration.groups, 1 << configuration.tau)
    return Histories(
        sums=reserve((*buckets, size), np.int32),
        counts=reserve(buckets, np.int32),
        shift=reserve(rows, np.int32),
        length=reserve(rows, np.int64),
        owner=reserve(rows, np.int32),
        older=reserve(rows, np.int32),
        newer=reserve(rows, np.int32),
        ends=reserve(2, np.int32),
        pool=new_pool(rows),
    )


def projections(rows: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Return a float32 [rows, size] matrix of N(0, 1) entries that depend on nothing but its shape and seed.

    Marsaglia's polar method over hashed uniforms: numpy's generators may change between versions.
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
    """Add `vector` [n] times the rows `first` to `first + n` of `projection` [d, m] to `out` [m], all m at once."""
    for j in range(vector.shape[0]):
        row = projection[first + j]
        x = vector[j]
        for i in range(out.shape[0]):
            out[i] += row[i] * x


@compiled
def signature(
    projection: npt.NDArray[np.float32], vector: npt.NDArray[np.float32], totals: npt.NDArray[np.float32]
) -> int:
    """Return the sign bits of `projection` [d, m] times `vector` [d], bit i for column i; `totals` [m] is scratch."""
    clear(totals)
    project(projection, vector, 0, totals)
    bits = int64(0)
    for i in range(totals.shape[0]):
        bits |= int64(totals[i] > 0.0) << i
    return bits


@compiled
def _bucket(bits: int, group: int, tau: int) -> int:
    return (bits >> (group * tau)) & ((1 << tau) - 1)


@compiled
def write_behavior(histories: Histories, row: int, bits: int, vector: npt.NDArray[np.float32], sign: int) -> None:
    """Add a behaviour with signature `bits` and `vector` [d] to a history (sign 1), or take out what it added (sign
    -1).

    Taking out is exact unless the history's sums were halved in between.
    """
    groups = histories.sums.shape[1]
    tau = 0
    while (1 << tau) < histories.sums.shape[2]:
        tau += 1
    largest = 0
    scale = FIXED_POINT / float(1 << histories.shift[row])
    for group in range(groups):
        bucket = _bucket(bits, group, tau)
        histories.counts[row, group, bucket] += sign
        emptied = histories.counts[row, group, bucket] == 0
        for i in range(vector.shape[0]):
            value = min(max(float(vector[i]), -VALUE_LIMIT), VALUE_LIMIT)
            total = histories.sums[row, group, bucket, i] + sign * int64(math.floor(value * scale + 0.5))
            histories.sums[row, group, bucket, i] = 0 if emptied else total
            largest = max(largest, abs(total))
    histories.length[row] += sign
    if largest > SUM_LIMIT:
        histories.shift[row] += 1
        sums = histories.sums[row]
        for group in range(groups):
            for bucket in range(sums.shape[1]):
                for i in range(sums.shape[2]):
                    sums[group, bucket, i] = (sums[group, bucket, i] + 1) >> 1


@compiled
def read_interest(histories: Histories, row: int, bits: int, out: npt.NDArray[np.float32]) -> None:
    """Write the interest of a candidate with signature `bits` in a history to `out` [d]: the paper's Attn(q, S)."""
    groups = histories.sums.shape[1]
    tau = 0
    while (1 << tau) < histories.sums.shape[2]:
        tau += 1
    clear(out)
    for group in range(groups):
        bucket = _bucket(bits, group, tau)
        if histories.counts[row, group, bucket] == 0:
            continue
        sums = histories.sums[row, group, bucket]
        square = 0.0
        for i in range(out.shape[0]):
            square += float(sums[i]) * float(sums[i])
        if square > 0.0:
            factor = 1.0 / (math.sqrt(square) * groups)
            for i in range(out.shape[0]):
                out[i] += float32(float(sums[i]) * factor)


@compiled
def kernel(cosine: float, tau: int) -> float:
    """Return the probability that two vectors collide in a group: (1 - arccos(cosine) / pi) ** tau."""
    base = 1.0 - arc_cosine(cosine) / math.pi
    power = 1.0
    for _ in range(tau):
        power *= base
    return power

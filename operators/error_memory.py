"""ReLoop2's error memory: what the model got wrong near here lately, read and written in constant time.

Zhu et al., ReLoop2: Building Self-Adaptive Recommendation Models via Responsive Error Compensation Loop (2023). K
arrays of 2**L buckets hold (count, sum of labels, sum of predictions); near means the same bucket, by sign projections
of the scored representation. The estimate of the error is the residual form

    error = sum over the K arrays of (sum y - sum p) / (sum over the K arrays of count + prior),

and there are three memories, keyed by the representation, the user and the item. How far each is believed (the paper's
lambda) is learned by least squares of the residual on the estimates as they were when the impression was scored: on a
stream where errors can't be foreseen it goes to zero, behind a frozen model it rises.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from operators.compiled import clear, compiled, float32, int64, uint64
from operators.hashing import mix
from operators.numerics import half_life_factor
from operators.reserve import reserve
from operators.sdim import project

REPRESENTATION, USER_KEYED, ITEM_KEYED = range(3)
MEMORIES = ("representation", "user", "item")
COUNT, LABELS, PREDICTIONS = range(3)
SCALE_MAX = 1_048_576.0
BASES = ("model", "base_score")


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMemoryConfiguration:
    """How errors are remembered (`[error_memory]`).

    `arrays` and `bits`: K arrays of 2**L buckets for each of the three memories (16 MiB hold e.g. 4 x 3 x 2**16).
    `half_life_ms`: of what is remembered. `prior`: pseudo-count of errors of zero.
    """

    arrays: int = 4
    bits: int = 12
    half_life_ms: int = 86_400_000
    prior: float = 20.0

    def __post_init__(self) -> None:
        """Raise ValueError where a value makes no sense."""
        if not 1 <= self.arrays <= 256:
            raise ValueError("arrays must lie within 1 and 256")
        if not 1 <= self.bits <= 20:
            raise ValueError("bits must lie within 1 and 20")
        if self.half_life_ms < 1 or self.prior <= 0.0:
            raise ValueError("half_life_ms must be at least 1, prior above 0")


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectionConfiguration:
    """What the error memory corrects (`[correction]`).

    `base`: "model", or "base_score" of the event where it has one. `lambda_max`: how far the estimates are believed at
    most; 0 switches the correction off. `lambda_half_life_ms`: half-life of the sums that lambda is learned from.
    `lambda_prior`: pseudo-impressions whose error could not be foreseen.
    """

    base: str = "model"
    lambda_max: float = 1.0
    lambda_half_life_ms: int = 86_400_000
    lambda_prior: float = 2_000.0

    def __post_init__(self) -> None:
        """Raise ValueError where a value makes no sense."""
        if self.base not in BASES:
            raise ValueError(f"base must be one of {', '.join(BASES)}")
        if not 0.0 <= self.lambda_max <= 2.0:
            raise ValueError("lambda_max must lie within 0 and 2")
        if self.lambda_half_life_ms < 1 or self.lambda_prior <= 0.0:
            raise ValueError("lambda_half_life_ms must be at least 1, lambda_prior above 0")


class ErrorMemory(NamedTuple):
    """What was got wrong, in units that grow with time instead of decaying in place.

    `buckets` float32 [3, K, 2**L, 3]: count, sum of labels, sum of predictions; `scale` float64 [1], what one event
    weighs now; `scale_at_ms` int64 [1]; `products` float64 [3, 3] and `residuals` float64 [3], the least squares of
    lambda; `squares_at_ms` int64 [1], until when these are decayed; `trust` float64 [3], lambda of each memory.
    """

    buckets: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float64]
    scale_at_ms: npt.NDArray[np.int64]
    products: npt.NDArray[np.float64]
    residuals: npt.NDArray[np.float64]
    squares_at_ms: npt.NDArray[np.int64]
    trust: npt.NDArray[np.float64]


class ErrorMemoryParameters(NamedTuple):
    """The configuration as the compiled code takes it; `projection` float32 [2 d, K * L]."""

    projection: npt.NDArray[np.float32]
    bits: int
    half_life_ms: float
    prior: float
    corrects_base_score: bool
    lambda_max: float
    lambda_half_life_ms: float
    lambda_prior: float


class Recalled(NamedTuple):
    """Where a waiting impression's errors belong: `bucket` int32 [slots, 3, K], `estimate` float64 [slots, 3]."""

    bucket: npt.NDArray[np.int32]
    estimate: npt.NDArray[np.float64]


def new_error_memory(configuration: ErrorMemoryConfiguration) -> ErrorMemory:
    """Return a memory of no errors."""
    return ErrorMemory(
        buckets=reserve((len(MEMORIES), configuration.arrays, 1 << configuration.bits, 3), np.float32),
        scale=np.ones(1),
        scale_at_ms=reserve(1, np.int64),
        products=reserve((3, 3)),
        residuals=reserve(3),
        squares_at_ms=reserve(1, np.int64),
        trust=reserve(3),
    )


def new_recalled(slots: int, arrays: int) -> Recalled:
    """Return room for what `slots` impressions recalled."""
    return Recalled(reserve((slots, len(MEMORIES), arrays), np.int32), reserve((slots, len(MEMORIES))))


def error_memory_parameters(
    memory: ErrorMemoryConfiguration, correction: CorrectionConfiguration, projection: npt.NDArray[np.float32]
) -> ErrorMemoryParameters:
    """Return what the compiled code needs of the configuration; `projection` float32 [2 d, K * L]."""
    return ErrorMemoryParameters(
        projection,
        memory.bits,
        float(memory.half_life_ms),
        memory.prior,
        correction.base == "base_score",
        correction.lambda_max,
        float(correction.lambda_half_life_ms),
        correction.lambda_prior,
    )


@compiled
def locate(
    recalled: Recalled,
    slot: int,
    parameters: ErrorMemoryParameters,
    user_vector: npt.NDArray[np.float32],
    item_vector: npt.NDArray[np.float32],
    user_key: int,
    item_key: int,
    totals: npt.NDArray[np.float32],
) -> None:
    """Write the buckets of an impression in each memory's arrays.

    The vectors [d] of user and item together are its representation; `totals` [K * L] is scratch.
    """
    arrays = recalled.bucket.shape[2]
    clear(totals)
    project(parameters.projection, user_vector, 0, totals)
    project(parameters.projection, item_vector, user_vector.shape[0], totals)
    mask = uint64((1 << parameters.bits) - 1)
    for k in range(arrays):
        bits = int64(0)
        for bit in range(parameters.bits):
            bits |= int64(totals[k * parameters.bits + bit] > 0.0) << bit
        recalled.bucket[slot, REPRESENTATION, k] = bits
        recalled.bucket[slot, USER_KEYED, k] = np.int32(mix(user_key, k) & mask)
        recalled.bucket[slot, ITEM_KEYED, k] = np.int32(mix(item_key, k) & mask)


@compiled
def read_error(
    memory: ErrorMemory, recalled: Recalled, slot: int, now_ms: int, parameters: ErrorMemoryParameters
) -> float:
    """Return how far the base score is expected to be off, and keep each memory's estimate with the impression."""
    total = 0.0
    arrays = recalled.bucket.shape[2]
    decayed = max(half_life_factor(now_ms - memory.scale_at_ms[0], parameters.half_life_ms), 1e-30)
    prior = parameters.prior * memory.scale[0] / decayed
    for which in range(memory.buckets.shape[0]):
        error = 0.0
        count = 0.0
        for k in range(arrays):
            bucket = memory.buckets[which, k, recalled.bucket[slot, which, k]]
            error += float(bucket[LABELS]) - float(bucket[PREDICTIONS])
            count += float(bucket[COUNT])
        estimate = error / (count + prior * arrays) if count > 0.0 else 0.0
        recalled.estimate[slot, which] = estimate
        total += memory.trust[which] * estimate
    return total


@compiled
def write_error(
    memory: ErrorMemory,
    recalled: Recalled,
    slot: int,
    label: float,
    prediction: float,
    now_ms: int,
    parameters: ErrorMemoryParameters,
) -> None:
    """Remember a label and what was predicted for it, and learn how far the estimates are to be believed."""
    _grow_scale(memory, now_ms, parameters)
    weight = float32(memory.scale[0])
    for which in range(memory.buckets.shape[0]):
        for k in range(recalled.bucket.shape[2]):
            bucket = memory.buckets[which, k, recalled.bucket[slot, which, k]]
            bucket[COUNT] += weight
            bucket[LABELS] += weight * float32(label)
            bucket[PREDICTIONS] += weight * float32(prediction)
    _learn_trust(memory, recalled.estimate[slot], label - prediction, now_ms, parameters)


@compiled
def amend_label(
    memory: ErrorMemory,
    recalled: Recalled,
    slot: int,
    difference: float,
    now_ms: int,
    parameters: ErrorMemoryParameters,
) -> None:
    """Add `difference` to the label of an impression that is remembered already."""
    _grow_scale(memory, now_ms, parameters)
    weight = float32(memory.scale[0])
    for which in range(memory.buckets.shape[0]):
        for k in range(recalled.bucket.shape[2]):
            memory.buckets[which, k, recalled.bucket[slot, which, k], LABELS] += weight * float32(difference)
    estimate = recalled.estimate[slot]
    for i in range(estimate.shape[0]):
        memory.residuals[i] += estimate[i] * difference


@compiled
def _grow_scale(memory: ErrorMemory, now_ms: int, parameters: ErrorMemoryParameters) -> None:
    """Let one event weigh more as time goes by, which is what decay means; bring all back to 1 before it overflows."""
    if memory.scale_at_ms[0] == 0:
        memory.scale_at_ms[0] = now_ms
    memory.scale[0] /= max(half_life_factor(now_ms - memory.scale_at_ms[0], parameters.half_life_ms), 1e-30)
    memory.scale_at_ms[0] = now_ms
    if memory.scale[0] > SCALE_MAX:
        factor = float32(1.0 / memory.scale[0])
        flat = memory.buckets.reshape(memory.buckets.size)
        for i in range(flat.shape[0]):
            flat[i] *= factor
        memory.scale[0] = 1.0


@compiled
def _learn_trust(
    memory: ErrorMemory,
    estimate: npt.NDArray[np.float64],
    residual: float,
    now_ms: int,
    parameters: ErrorMemoryParameters,
) -> None:
    """Add to the least squares and improve lambda by one round of Gauss-Seidel, each within 0 and `lambda_max`."""
    size = estimate.shape[0]
    if memory.squares_at_ms[0] == 0:
        memory.squares_at_ms[0] = now_ms
    factor = half_life_factor(now_ms - memory.squares_at_ms[0], parameters.lambda_half_life_ms)
    memory.squares_at_ms[0] = now_ms
    for i in range(size):
        memory.residuals[i] = memory.residuals[i] * factor + estimate[i] * residual
        for j in range(size):
            memory.products[i, j] = memory.products[i, j] * factor + estimate[i] * estimate[j]
    ridge = parameters.lambda_prior * 1e-4  # a foreseen error of .01 of each pseudo-impression
    for i in range(size):
        rest = memory.residuals[i]
        for j in range(size):
            if j != i:
                rest -= memory.products[i, j] * memory.trust[j]
        solved = rest / (memory.products[i, i] + ridge)
        memory.trust[i] = min(max(solved, 0.0), parameters.lambda_max)


def memory_bytes(configuration: ErrorMemoryConfiguration) -> int:
    """Return the size of the buckets."""
    return math.prod((len(MEMORIES), configuration.arrays, 1 << configuration.bits, 3, 4))

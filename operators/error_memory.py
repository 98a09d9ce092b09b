"""ReLoop2's error memory: what the base model got wrong near here lately, read and written in constant time.

Zhu et al., ReLoop2: Building Self-Adaptive Recommendation Models via Responsive Error Compensation Loop (2023). Buckets
hold (count, sum of labels, sum of predictions). Near means the same bucket: by sign projections of the scored
representation, K arrays of 2**L buckets as in the paper, or by a key: nothing (all impressions), the score's log-odds,
a field's value, two values together. The keyed memories share one array of buckets by hash.

The memories stand one behind the other, coarse before fine. Each takes the probability p as those before it have
corrected it, and estimates how far it is off near here in log-odds,

    error = log-odds of (sum y + m b) / (count + m)  -  log-odds of (sum q + m b) / (count + m),
    q     = (1 - gamma) p' + gamma p,

with p' what was predicted for the remembered ones at this place, b the base's probability and m pseudo-impressions of
it without an error: gamma 0 is the residual form, gamma 1 the paper's, which sets the labels near here against this
prediction. How far each memory is believed (the paper's lambda) is learned by logistic regression with per-coordinate
rates: on a stream whose errors can't be foreseen the estimates are near zero, behind a frozen model they are not.
docs/adr/0019 has the figures.
"""

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from thalweg.operators import sdim
from thalweg.operators.features import ITEM
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64, numbered, uint64
from thalweg.operators.machine.declare import Float32, Float64, Int32, made, per
from thalweg.operators.machine.hashing import cross, mix
from thalweg.operators.machine.lanes import LANES
from thalweg.operators.machine.numerics import half_life_factor, log_odds, log_of_ratio, rough_sigmoid, sigmoid
from thalweg.operators.machine.prefetch import prefetch
from thalweg.schemas.bounds import FACTOR_MAX, MS_MAX, PSEUDO_COUNT_MAX, RATE_MIN, SHARE_MIN, check, within

SUMS = 3  # of a bucket
SCALE_MAX = 1_048_576.0
SCALE_MIN = 1e-30
HALF_LIFE_MAX = MS_MAX  # a River face counts milliseconds where its time is a moment
Base = Literal["model", "base_score"]
Crossed = Literal["user", "item"]
CROSSED: tuple[Crossed, ...] = get_args(Crossed)
KEYED_BITS, STANDING_KEYED_BITS = 18, 20
SCORE_STEPS = 4.0  # buckets of the score, a unit of log-odds
MIDDLE = 1 << 10  # makes their numbers positive
MEMORIES_REMEMBERED = 16  # lists of memories, not their contents
VISITS = 2  # how long the user was away, how often shown anything


@numbered
class Keyed(IntEnum):
    """What keys a memory besides the value of a field."""

    ALL = -1
    SCORE = -2
    REPRESENTATION = -3
    NOTHING = -4


@numbered
class Near(IntEnum):
    """What the scratch has of each memory; the first three are a bucket's sums."""

    COUNT = 0
    LABELS = 1
    PREDICTIONS = 2
    POSITIVE = 3
    NEGATIVE = 4
    LOGITS = 5
    BUCKETS = 6


SCRATCH = len(Near)


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorMemoryConfiguration:
    """How errors are remembered (`[error_memory]`).

    `arrays` and `bits`: K arrays of 2**L buckets by the representation. `keyed_bits`: 2**keyed_bits buckets for all
    keyed memories together, 12 bytes each; by default 20 where the base that is corrected stands still
    (`correction.base` is "base_score", or `learner.frozen_from_ms` is set), else 18. `crosses`: which of user and item
    are seen together with every other field, the item also with the items acted on last. `gamma`: 0, the residual form,
    to 1, the paper's. `half_life_impressions`: so many later impressions halve what is remembered of one, at whatever
    pace they come. `prior`: pseudo-impressions without an error.
    """

    arrays: Annotated[int, within(1, 256)] = 4
    bits: Annotated[int, within(1, 20)] = 12
    keyed_bits: Annotated[int, within(1, 24)] | None = None
    crosses: tuple[Crossed, ...] = CROSSED
    gamma: Annotated[float, within(0.0, 1.0)] = 0.0
    half_life_impressions: Annotated[int, within(1, HALF_LIFE_MAX)] = 32_000
    prior: Annotated[float, within(SHARE_MIN, PSEUDO_COUNT_MAX)] = 30.0

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or a cross is named twice."""
        check(self)
        if len(set(self.crosses)) != len(self.crosses):
            raise ValueError("crosses must name each once")

    def cells(self, stands_still: bool) -> int:
        """Return how many buckets the keyed memories share, behind a base that stands still or one that learns."""
        return 1 << (self.keyed_bits or (STANDING_KEYED_BITS if stands_still else KEYED_BITS))


@dataclass(frozen=True, kw_only=True, slots=True)
class CorrectionConfiguration:
    """What the error memory corrects (`[correction]`).

    `base`: "model", or "base_score" of the event where it has one. `lambda_max`: how far the estimates are believed at
    most; 0 switches the correction off. `lambda_initial`: how far at first. `lambda_alpha`: how fast that is learned.
    """

    base: Base = "model"
    lambda_max: Annotated[float, within(0.0, 4.0)] = 2.0
    lambda_initial: Annotated[float, within(0.0, 4.0)] = 0.2
    lambda_alpha: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.1

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds."""
        check(self)


class Memories(NamedTuple):
    """Which memories there are, in their order: `first`, `second` int64 [memories], the places of what keys each.

    A place is that of a field. Behind the fields come the items acted on lately, the user's gap, and the user's
    exposures. It may also be `ALL`, `SCORE` or `REPRESENTATION`.
    `second` is `Keyed.NOTHING` where one value alone is the key. `varies` uint8 [memories]: it may differ between
    candidates that differ in the item alone.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    varies: npt.NDArray[np.uint8]


class ErrorMemory(NamedTuple):
    """What was got wrong, in units that grow with each impression instead of decaying in place."""

    buckets: Annotated[Float32, per("arrays near 3", "by the representation: count, sum of labels, sum of predictions")]
    keyed: Annotated[Float32, per("cells 3", "the same by key", dense=True)]
    scale: Annotated[Float64, per("1", "what one event weighs now", start=1.0)]
    trust: Annotated[Float64, per("memories", "lambda of each", start="trust")]
    squares: Annotated[Float64, per("memories", "sum of the squares of its gradients")]


class ErrorMemoryParameters(NamedTuple):
    """The configuration as the compiled code takes it; `projection` float32 [2 d, K * L]."""

    projection: npt.NDArray[np.float32]
    memories: Memories
    bits: int
    half_life: float
    prior: float
    gamma: float
    corrects_base_score: bool
    lambda_max: float
    lambda_alpha: float


class MemoryReads(NamedTuple):
    """What each waiting impression read of the memories."""

    near: Annotated[Int32, per("slots arrays", "its buckets by the representation", below="near", over="scored")]
    keyed: Annotated[Int32, per("slots memories", "its bucket by key + 1, or 0", upto="cells", over="scored")]
    before: Annotated[
        Float32, per("slots behind", "the probability as those before each had corrected it, and all", over="scored")
    ]
    estimate: Annotated[Float32, per("slots memories", "the error that each foresaw", over="scored")]


@lru_cache(MEMORIES_REMEMBERED)
def memories_of(fields: int, recent_items: int, crosses: tuple[str, ...], stands_still: bool) -> Memories:
    """Return the memories over `fields` fields, user and item the first of them: coarse before fine.

    A base that learns knows each field and the user's exposures. One that stands still may not know them any more, nor
    how they interact with its score and with each other, nor the overall rate. The last memories keep the sum of the
    others' corrections calibrated. The same arrays are returned again, so they are not to be written to.

    >>> memories_of(4, 1, (), False).first.tolist()  # item, user, representation, score, all
    [1, 0, -3, -2, -1]
    >>> found = memories_of(3, 1, ("item",), True)
    >>> [pair for pair in zip(found.first.tolist(), found.second.tolist()) if pair[1] != Keyed.NOTHING]
    [(2, -2), (4, 2), (5, 2), (1, 2), (1, 3)]
    """
    context = range(2, fields)
    found: list[tuple[int, int]] = []
    if stands_still:
        found += [(Keyed.ALL, Keyed.NOTHING), (Keyed.SCORE, Keyed.NOTHING)]
        visits = range(fields + recent_items, fields + recent_items + VISITS)
        found += [(place, Keyed.NOTHING) for place in visits]
        found += [(place, Keyed.NOTHING) for place in context] + [(place, Keyed.SCORE) for place in context]
        found += [(visit, place) for visit in visits for place in context]
    found += [(1, Keyed.NOTHING), (0, Keyed.NOTHING), (Keyed.REPRESENTATION, Keyed.NOTHING)]
    for name in crosses:
        found += [(CROSSED.index(name), place) for place in context]
    if "item" in crosses:
        found += [(1, fields + back) for back in range(recent_items)]
    found += [(Keyed.SCORE, Keyed.NOTHING), (Keyed.ALL, Keyed.NOTHING)]
    first, second = np.array(found, np.int64).T
    varies = np.isin(np.array(found), (ITEM, Keyed.SCORE, Keyed.REPRESENTATION)).any(axis=1)
    return Memories(first.copy(), second.copy(), np.array(varies, np.uint8))


def error_memory_sizes(
    memory: ErrorMemoryConfiguration, correction: CorrectionConfiguration, memories: int, cells: int
) -> dict[str, Any]:
    """Return the sizes of so many memories' arrays, the keyed ones in `cells` buckets, and their trust at first."""
    trust = min(correction.lambda_initial, correction.lambda_max)
    counts = {"arrays": memory.arrays, "near": 1 << memory.bits, "cells": cells}
    return counts | {"memories": memories, "behind": memories + 1, "trust": trust}


def new_error_memory(
    memory: ErrorMemoryConfiguration, correction: CorrectionConfiguration, count: int, cells: int
) -> ErrorMemory:
    """Return `count` memories of no errors, the keyed ones in `cells` buckets."""
    return made(ErrorMemory, **error_memory_sizes(memory, correction, count, cells))


def new_memory_reads(slots: int, arrays: int, memories: int) -> MemoryReads:
    """Return room for what `slots` impressions read."""
    return made(MemoryReads, slots=slots, arrays=arrays, memories=memories, behind=memories + 1)


class ErrorMemoryScratch(NamedTuple):
    """Scratch of one impression.

    `bits` float32 [2, K * L], the user's part of its projections, and these; `near` float64 [7, memories], what each
    memory has near it: count, labels and predictions, the pseudo-impressions positive and negative, the log-odds as
    corrected so far, and how many buckets it reads. `which` int64 [memories]: those that a request's candidates read,
    and `size` int64 [1], how many these are.
    """

    bits: npt.NDArray[np.float32]
    near: npt.NDArray[np.float64]
    which: npt.NDArray[np.int64]
    size: npt.NDArray[np.int64]


def new_error_memory_scratch(configuration: ErrorMemoryConfiguration, memories: int) -> ErrorMemoryScratch:
    """Return scratch for one impression, beside so many memories."""
    bits = configuration.arrays * configuration.bits
    which, size = np.zeros(memories, np.int64), np.zeros(1, np.int64)
    return ErrorMemoryScratch(np.zeros((2, bits), np.float32), np.zeros((SCRATCH, memories)), which, size)


def error_memory_parameters(
    memory: ErrorMemoryConfiguration,
    correction: CorrectionConfiguration,
    projection: npt.NDArray[np.float32],
    memories: Memories,
) -> ErrorMemoryParameters:
    """Return what the compiled code needs of the configuration; `projection` float32 [2 d, K * L]."""
    return ErrorMemoryParameters(
        projection,
        memories,
        memory.bits,
        float(memory.half_life_impressions),
        memory.prior,
        memory.gamma,
        correction.base == "base_score",
        correction.lambda_max,
        correction.lambda_alpha,
    )


@compiled
def prefetch_errors(memory: ErrorMemory, reads: MemoryReads, slot: int) -> None:
    """Ask for the buckets of an impression in the keyed memories, which lie anywhere."""
    for which in range(reads.keyed.shape[1]):
        place = reads.keyed[slot, which]
        if place > 0:
            prefetch(memory.keyed, place - 1)


@compiled
def project_user(
    parameters: ErrorMemoryParameters, vectors: npt.NDArray[np.float32], sums: npt.NDArray[np.float32]
) -> None:
    """Write the user's part of a representation's projections to `sums` [2, K * L], for any item: see `locate`."""
    clear(sums[0])
    sdim.project(parameters.projection, vectors[0], int64(0), sums[0])


@compiled
def locate(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    parameters: ErrorMemoryParameters,
    vectors: npt.NDArray[np.float32],
    keys: npt.NDArray[np.uint64],
    base: float,
    sums: npt.NDArray[np.float32],
) -> None:
    """Write the buckets of an impression, scored `base`, in each memory, and ask for those of the keyed ones.

    The first two of `vectors` [2 or more, d], user's and item's, are its representation; `keys` uint64 [places], 0
    where there is no value; `sums` [2, K * L] is as `project_user` wrote it.
    """
    locate_near(reads, slot, parameters, vectors, sums)
    locate_keyed(memory, reads, slot, parameters, keys, log_odds(base), False)


@compiled
def locate_near(
    reads: MemoryReads,
    slot: int,
    parameters: ErrorMemoryParameters,
    vectors: npt.NDArray[np.float32],
    sums: npt.NDArray[np.float32],
) -> None:
    """Write the buckets of an impression by its representation; the arguments are those of `locate`."""
    half, totals = sums[0], sums[1]
    for i in range(totals.shape[0]):
        totals[i] = half[i]
    sdim.project(parameters.projection, vectors[1], int64(vectors.shape[1]), totals)
    signs, known, at, mask = int64(0), int64(0), int64(0), (int64(1) << parameters.bits) - 1
    for k in range(reads.near.shape[1]):
        while known < parameters.bits:  # eight at a time, as they were written
            count = min(int64(LANES), totals.shape[0] - at)
            signs |= sdim.sign_bits(totals, at, count) << known
            at, known = at + count, known + count
        reads.near[slot, k] = signs & mask
        signs, known = signs >> parameters.bits, known - parameters.bits


@compiled
def locate_keyed(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    parameters: ErrorMemoryParameters,
    keys: npt.NDArray[np.uint64],
    logit: float,
    is_alike: bool,
) -> None:
    """Write the buckets of an impression in the keyed memories; the arguments are those of `locate`.

    `logit` is that of its score. It `is_alike` if what was located in the slot before differs in the item alone.
    """
    memories = parameters.memories
    score_key = uint64(MIDDLE + int64(math.floor(logit * SCORE_STEPS)))
    for which in range(memories.first.shape[0]):
        if is_alike and memories.varies[which] == 0:
            continue
        reads.keyed[slot, which] = 0
        first = _key_at(keys, memories.first[which], score_key)
        if first == uint64(0) or memories.first[which] == Keyed.REPRESENTATION:
            continue
        key = first
        if memories.second[which] != Keyed.NOTHING:
            second = _key_at(keys, memories.second[which], score_key)
            if second == uint64(0):
                continue
            key = cross(first, second, uint64(which))
        place = int64(mix(key, which) & uint64(memory.keyed.shape[0] - 1))
        prefetch(memory.keyed, place)
        reads.keyed[slot, which] = place + 1


@compiled
def _key_at(keys: npt.NDArray[np.uint64], place: int, score_key: int) -> int:
    if place >= 0:
        return keys[place]  # type: ignore[no-any-return]
    return uint64(score_key) if place == Keyed.SCORE else uint64(1)


@compiled
def read_error(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    base: float,
    elapsed: float,
    parameters: ErrorMemoryParameters,
    scratch: npt.NDArray[np.float64],
) -> float:
    """Return the base score as the memories correct it, `elapsed` behind the last error: `read_error_by`."""
    prior = scaled_prior(memory, parameters) / max(half_life_factor(elapsed, parameters.half_life), SCALE_MIN)
    return read_error_by(memory, reads, slot, base, prior, parameters, scratch)


@compiled
def scaled_prior(memory: ErrorMemory, parameters: ErrorMemoryParameters) -> float:
    """Return the pseudo-impressions at the scale of the sums."""
    return parameters.prior * memory.scale[0]  # type: ignore[no-any-return]


@compiled
def read_error_by(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    base: float,
    prior: float,
    parameters: ErrorMemoryParameters,
    scratch: npt.NDArray[np.float64],
) -> float:
    """Return the base score as the memories correct it, and keep what each foresaw with the impression.

    `prior` is `scaled_prior`; `scratch` is `ErrorMemoryScratch.near`. Loops over the memories are apart, so
    that a processor works at several at once.
    """
    logit = log_odds(base)
    probability = sigmoid(logit)
    count, labels, predictions = scratch[Near.COUNT], scratch[Near.LABELS], scratch[Near.PREDICTIONS]
    positive, negative, logits = scratch[Near.POSITIVE], scratch[Near.NEGATIVE], scratch[Near.LOGITS]
    for which in range(count.shape[0]):
        gather(memory, reads, slot, which, parameters, which, scratch)
        positive[which] = scratch[Near.BUCKETS, which] * (prior * probability)
        negative[which] = scratch[Near.BUCKETS, which] * (prior * (1.0 - probability))
    estimates = reads.estimate[slot]
    for which in range(count.shape[0]):
        promised = predictions[which]
        estimates[which] = estimate(count[which], labels[which], promised, positive[which], negative[which])
    before = probability
    for which in range(count.shape[0]):
        if parameters.gamma > 0.0:  # only then does a memory wait for those before it
            promised = predictions[which] + parameters.gamma * (count[which] * before - predictions[which])
            estimates[which] = estimate(count[which], labels[which], promised, positive[which], negative[which])
            before = rough_sigmoid(logit + memory.trust[which] * float64(estimates[which]))
        logit += memory.trust[which] * float64(estimates[which])
        logits[which] = logit
    reads.before[slot, 0] = probability
    behind = reads.before[slot, 1:]
    for which in range(count.shape[0]):
        behind[which] = rough_sigmoid(logits[which])
    return sigmoid(logit)


@compiled
def gather(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    which: int,
    parameters: ErrorMemoryParameters,
    at: int,
    scratch: npt.NDArray[np.float64],
) -> None:
    """Write what a memory has of an impression to the scratch, `at` its place there: sums, and of how many buckets."""
    buckets = int64(1)
    place = reads.keyed[slot, which]
    if place > 0:
        for part in range(SUMS):
            scratch[part, at] = memory.keyed[place - 1, part]
    else:
        for part in range(SUMS):
            scratch[part, at] = 0.0
        if parameters.memories.first[which] == Keyed.REPRESENTATION:
            buckets = int64(reads.near.shape[1])
            for k in range(buckets):
                for part in range(SUMS):
                    scratch[part, at] += memory.buckets[k, reads.near[slot, k], part]
    scratch[Near.BUCKETS, at] = buckets


@compiled
def estimate(count: float, labels: float, promised: float, positive: float, negative: float) -> float:
    """Return how far what came of `count` impressions is, in log-odds, from what was promised; 0 where there are none.

    `positive` and `negative` are the pseudo-impressions.
    """
    return log_of_ratio(
        (max(labels, 0.0) + positive) * (max(count - promised, 0.0) + negative),
        (max(count - labels, 0.0) + negative) * (max(promised, 0.0) + positive),
    )


@compiled
def write_error(
    memory: ErrorMemory, reads: MemoryReads, slot: int, label: float, elapsed: float, parameters: ErrorMemoryParameters
) -> None:
    """Remember a label and what was predicted for it, `elapsed` behind the last one, in the unit of the half-life.

    The base has not learned since.
    """
    _grow_scale(memory, elapsed, parameters)
    _write(memory, reads, slot, label, 0.0, 1.0, parameters)


@compiled
def write_moved_error(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    label: float,
    moved: float,
    parameters: ErrorMemoryParameters,
    impressions: float,
) -> None:
    """Remember a label and what is predicted for it now, `moved` above what was, as of so many `impressions`."""
    _grow_scale(memory, impressions, parameters)
    _write(memory, reads, slot, label, moved, impressions, parameters)


@compiled
def _write(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    label: float,
    moved: float,
    impressions: float,
    parameters: ErrorMemoryParameters,
) -> None:
    """Remember a label, and learn how far to trust.

    That is learned from the error behind each memory as it was served: delayed gradients, which cost no logarithm.
    """
    weight = float32(impressions * memory.scale[0])
    _add(memory, reads, slot, weight, weight * float32(label), weight, float32(moved), parameters)
    for which in range(reads.keyed.shape[1]):
        foreseen = float64(reads.estimate[slot, which])
        if foreseen != 0.0:
            error = float64(reads.before[slot, which + 1]) - label
            _learn_trust(memory, which, error * foreseen, parameters)


@compiled
def amend_label(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    difference: float,
    parameters: ErrorMemoryParameters,
    impressions: float,
) -> None:
    """Add `difference` to the label of an impression that is remembered already, and stands for so many."""
    labels = float32(memory.scale[0]) * float32(impressions * difference)
    _add(memory, reads, slot, float32(0.0), labels, float32(0.0), float32(0.0), parameters)
    for which in range(reads.keyed.shape[1]):
        foreseen = float64(reads.estimate[slot, which])
        if foreseen != 0.0:
            _learn_trust(memory, which, -difference * foreseen, parameters)


@compiled
def amend_weight(
    memory: ErrorMemory, reads: MemoryReads, slot: int, difference: float, parameters: ErrorMemoryParameters
) -> None:
    """Let an impression that is remembered already stand for so many more."""
    weight = float32(memory.scale[0]) * float32(difference)
    _add(memory, reads, slot, weight, float32(0.0), weight, float32(0.0), parameters)


@compiled
def _add(
    memory: ErrorMemory,
    reads: MemoryReads,
    slot: int,
    count: float,
    labels: float,
    weight: float,
    moved: float,
    parameters: ErrorMemoryParameters,
) -> None:
    """Add to an impression's bucket in each memory; `weight` times what was predicted there goes to the predictions.

    The base has `moved` since, by what it has learned: an error that it no longer makes is not to be corrected.
    """
    for which in range(reads.keyed.shape[1]):
        predictions = weight * min(max(reads.before[slot, which] + moved, float32(0.0)), float32(1.0))
        place = reads.keyed[slot, which]
        if place > 0:
            _add_to(memory.keyed[place - 1], count, labels, predictions)
        elif parameters.memories.first[which] == Keyed.REPRESENTATION:
            for k in range(reads.near.shape[1]):
                _add_to(memory.buckets[k, reads.near[slot, k]], count, labels, predictions)


@compiled
def _add_to(bucket: npt.NDArray[np.float32], count: float, labels: float, predictions: float) -> None:
    bucket[Near.COUNT] += count
    bucket[Near.LABELS] += labels
    bucket[Near.PREDICTIONS] += predictions


@compiled
def _grow_scale(memory: ErrorMemory, elapsed: float, parameters: ErrorMemoryParameters) -> None:
    """Let one impression weigh more than those before, which is what decay means; back to 1 before it overflows."""
    memory.scale[0] /= max(half_life_factor(elapsed, parameters.half_life), SCALE_MIN)
    if memory.scale[0] > SCALE_MAX:
        factor = float32(1.0 / memory.scale[0])
        for flat in (memory.buckets.reshape(memory.buckets.size), memory.keyed.reshape(memory.keyed.size)):
            for i in range(flat.shape[0]):
                flat[i] *= factor
        memory.scale[0] = 1.0


@compiled
def _learn_trust(memory: ErrorMemory, which: int, gradient: float, parameters: ErrorMemoryParameters) -> None:
    """Step a memory's lambda against a gradient, within 0 and `lambda_max`."""
    memory.squares[which] += gradient * gradient
    step = parameters.lambda_alpha * gradient / (1.0 + math.sqrt(memory.squares[which]))
    memory.trust[which] = min(max(memory.trust[which] - step, 0.0), parameters.lambda_max)


def memory_bytes(configuration: ErrorMemoryConfiguration, stands_still: bool) -> int:
    """Return the size of the buckets."""
    return 12 * (configuration.arrays * (1 << configuration.bits) + configuration.cells(stands_still))

"""Lessons: what one learning step used, for other partitions to learn as well.

A partition makes one for each learning step that it takes by itself, and numbers them densely from 1 on. It learns
those of others where its log names them, up to the number that the log names (`fold.merging`). Here is what both need:
the settings, how far the partition is with each source, and the bytes of a lesson. Little-endian:

| bytes | what |
|---|---|
| 2 | its length, these included |
| 1 | `Flag` |
| 1 | p, how many private values it has |
| 2 | n, how many others |
| 8 | stream time, ms |
| 4 | how far the user heard last is ahead of it, ms, signed |
| 4, 4 | float32: the label, and the one learned before or -1 |
| 4 | float32: how many impressions it stands for |
| 4, 4 | float32: the probability that the model served, and the base score or nan |
| 4 K | buckets of the error memory by the representation as served |
| m | a bit for each memory: whether it is in use here and no user's |
| 2 a bit | halves: the error that each of them foresaw |
| 2 each | halves: 1024 times the probability before and behind each of them, each place once |
| p (1 + 2 s) | private values: the place of the field, s halves: weight, vector, the network's weight and embedding |
| 9 n | other values: the field's place and the key |
| b | a bit for each eight inputs: whether any of them is not 0 |
| 16 a bit | these eight inputs as halves |

A positive that comes in time makes one more, with `Flag.HEARD`: the delays of all partitions are known by it before any
label is learned. In place of the label it has 4 bytes, how long the positive took in ms, and nothing behind them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64, uint64
from thalweg.operators.machine.declare import Int64, UInt64, per
from thalweg.operators.machine.lanes import LANES
from thalweg.operators.machine.numerics import bits_of, float_of
from thalweg.schemas.bounds import MS_MAX, SHARE_MIN, check, within
from thalweg.schemas.events import SOURCE_MAX

FIXED_BYTES = 38
VALUE_BYTES = 9
HALF_BYTES = 2
MAGIC, VERSION, NAME_BYTES = 0x4C54, 1, 4
"""Of a batch, as `schemas.lessons` has them: compiled code takes no number from there."""
UNKNOWN = 255
"""The place of a field that a partition has not met."""
SCALE = 2.0**1008  # between a half's exponent and a float64's
PROBABILITY_SCALE = 1024.0  # so that a half holds a probability from 6e-8 on
HALF_LEAST, HALF_MOST = 2.0**-14, 65_504.0
HALF_SHIFT = 42  # a half has so many bits less of the mantissa
SIGN = 1 << 15
FLOAT_SHIFT = 29  # a float32 has so many less
FLOAT_SCALE = 2.0**896


class Flag(IntEnum):
    """The bits of a lesson's flags."""

    LATE = 1
    """A late positive: one more step."""
    LEARNED = 2
    """Weights move by it; without, it only counts, and its error is remembered."""
    HEARD = 4
    """A positive came: no step, but how long it took."""


class Head(IntEnum):
    """Where the numbers of a batch's header are (`schemas.lessons`)."""

    MAGIC = 0
    VERSION = 2
    NAMES = 3
    LENGTH = 4
    SOURCE = 8
    COUNT = 12
    FIRST = 16
    LAYOUT = 24
    END = 44


class At(IntEnum):
    """Where the fixed numbers of a lesson are."""

    LENGTH = 0
    FLAGS = 2
    PRIVATE = 3
    SHARED = 4
    TIME = 6
    AHEAD = 14
    LABEL = 18
    DELAY = 18
    HEARD_END = 22
    LEARNED = 22
    WEIGHT = 26
    MODEL = 30
    BASE = 34
    END = FIXED_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class LessonsConfiguration:
    """What partitions teach each other (`[lessons]`).

    `enabled`: whether they do; by default where the input has more than one partition. `merge_every_ms`: how often a
    worker lets its partitions learn what others taught. `negative_rate`: the share of impressions without a positive
    that makes lessons, which count for the others. `exclude`: partitions whose lessons are passed over.
    `sources_limit`: partitions that may teach at most.
    """

    enabled: bool | None = None
    merge_every_ms: Annotated[int, within(10, MS_MAX)] = 1_000
    negative_rate: Annotated[float, within(SHARE_MIN, 1.0)] = 1.0
    exclude: tuple[Annotated[int, within(0, SOURCE_MAX)], ...] = ()
    sources_limit: Annotated[int, within(1, SOURCE_MAX + 1)] = 256

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds."""
        check(self)


NO_RESULT = ("merge_every_ms", "exclude")
"""Settings of a worker that no result follows from, but by what it writes to the log."""


class Lessons(NamedTuple):
    """How far a partition is with lessons, its own and those of others."""

    made: Annotated[Int64, per("1", "lessons made so far: the number of the last one")]
    learned: Annotated[Int64, per("sources", "the number of the last one learned of each partition; 0: none")]
    begun: Annotated[Int64, per("1", "1 once a merge has come: only the first may name where to start", upto=1)]
    heard_ms: Annotated[Int64, per("sources", "the time of the user that each partition heard last; 0: none")]
    due_ms: Annotated[Int64, per("1", "until when provisional labels are due by most partitions, at the last merge")]
    key: Annotated[UInt64, per("slots taught", "of each value of an impression, where lessons are made", over="scored")]


class LessonsParameters(NamedTuple):
    """The configuration as the compiled code takes it.

    `is_made`: lessons are made; `is_ignored`: what others teach is passed over. `own`: the number of the partition.
    `private` uint8 [fields]: values of the field are a user's alone. `names` int64 [places]: hashes of the names of
    fields learned from the log, 0 for others; `declared`: how many places have other fields.
    """

    is_made: bool
    is_ignored: bool
    own: int
    negative_rate: float
    layout: int
    declared: int
    private: npt.NDArray[np.uint8]
    names: npt.NDArray[np.int64]


class LessonScratch(NamedTuple):
    """Scratch of one lesson.

    `places` int64 [fields]: the own place of each field of a lesson, or `UNKNOWN`; `inputs` float32 [inputs, padded]:
    as the lesson has them; `halves` float32 [1 + d + 9]: a private value's numbers. `memories` uint8 [memories]: which
    are in a lesson.
    """

    places: npt.NDArray[np.int64]
    inputs: npt.NDArray[np.float32]
    halves: npt.NDArray[np.float32]
    memories: npt.NDArray[np.uint8]


def new_lesson_scratch(fields: int, inputs: int, halves: int, memories: int) -> LessonScratch:
    """Return scratch for one lesson."""
    whole = -(-inputs // LANES) * LANES
    places, numbers = np.zeros(fields, np.int64), np.zeros(whole, np.float32)
    return LessonScratch(places, numbers, np.zeros(halves, np.float32), np.zeros(memories, np.uint8))


def lesson_bytes(values: int, inputs: int, halves: int, arrays: int, memories: int) -> int:
    """Return the most bytes that a lesson has."""
    recalled = -(-memories // 8) + HALF_BYTES * (2 * memories + 1)
    blocks = -(-inputs // LANES)
    private = values * (1 + HALF_BYTES * halves)
    return (
        FIXED_BYTES
        + 4 * arrays
        + recalled
        + private
        + VALUE_BYTES * values
        + -(-blocks // 8)
        + blocks * LANES * HALF_BYTES
    )


@compiled
def put(out: npt.NDArray[np.uint8], at: int, number: int, count: int) -> None:
    """Write the lowest `count` bytes of a number, the lowest first."""
    bits = uint64(number)
    for i in range(count):
        out[at + i] = np.uint8((bits >> uint64(8 * i)) & uint64(255))


@compiled
def take(source: npt.NDArray[np.uint8], at: int, count: int) -> int:
    """Return `count` bytes as one number, the lowest first; eight of them as an int64 has them."""
    return int64(take_key(source, at, count))


@compiled
def take_key(source: npt.NDArray[np.uint8], at: int, count: int) -> int:
    """Return `count` bytes as one uint64, the lowest first."""
    word = uint64(0)
    for i in range(count):
        word |= uint64(source[at + i]) << uint64(8 * i)
    return word


@compiled
def put_float(out: npt.NDArray[np.uint8], at: int, x: float) -> None:
    """Write a number as a float32, 0 where it is nearer to 0 than a normal one; nan is infinity."""
    bits = int64(0)
    magnitude = abs(float64(float32(x)))
    if not magnitude <= 3.0e38:
        bits = int64(255) << 23
    elif magnitude >= 2.0**-126:
        bits = bits_of(magnitude / FLOAT_SCALE) >> FLOAT_SHIFT
    put(out, at, bits | (int64(x < 0.0) << 31), 4)


@compiled
def take_float(source: npt.NDArray[np.uint8], at: int) -> float:
    """Return a number that `put_float` wrote."""
    bits = take(source, at, 4)
    magnitude = float_of((bits & ((1 << 31) - 1)) << FLOAT_SHIFT) * FLOAT_SCALE
    if magnitude >= 2.0**128:
        return np.nan
    return -magnitude if bits >> 31 else magnitude


@compiled
def half_of(x: float) -> int:
    """Return the bits of the half that is nearest to a number, even ones where two are; within its range.

    >>> [int(half_of(x)) for x in (0.0, 1.0, -2.0, 1e9)] == [0, 0x3C00, 0xC000, 0x7BFF]
    True
    """
    magnitude = min(abs(float64(x)), HALF_MOST)
    if not magnitude >= HALF_LEAST:
        return int64(0)
    bits = bits_of(magnitude / SCALE)
    rounded = (bits + ((1 << (HALF_SHIFT - 1)) - 1) + ((bits >> HALF_SHIFT) & 1)) >> HALF_SHIFT
    return int64(rounded | (SIGN if x < 0.0 else 0))


@compiled
def of_half(bits: int) -> float:
    """Return the number that a half is.

    >>> [float(of_half(half_of(x))) for x in (0.0, 1.0, -2.5, 0.1)]
    [0.0, 1.0, -2.5, 0.0999755859375]
    """
    magnitude = float_of((bits & (SIGN - 1)) << HALF_SHIFT) * SCALE
    return float32(-magnitude if bits & SIGN else magnitude)


@compiled
def put_halves(out: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[np.float32]) -> int:
    """Write numbers as halves and return where they end."""
    for i in range(numbers.shape[0]):
        put(out, at + HALF_BYTES * i, half_of(numbers[i]), HALF_BYTES)
    return at + HALF_BYTES * int64(numbers.shape[0])


@compiled
def take_halves(source: npt.NDArray[np.uint8], at: int, numbers: npt.NDArray[np.float32]) -> int:
    """Read numbers from halves and return where these end."""
    for i in range(numbers.shape[0]):
        numbers[i] = of_half(take(source, at + HALF_BYTES * i, HALF_BYTES))
    return at + HALF_BYTES * int64(numbers.shape[0])


@compiled
def put_memories(
    out: npt.NDArray[np.uint8],
    at: int,
    is_shared: npt.NDArray[np.uint8],
    before: npt.NDArray[np.float32],
    estimate: npt.NDArray[np.float32],
) -> int:
    """Write what an impression read of the memories that `is_shared` [memories] marks, and return where it ends."""
    count = is_shared.shape[0]
    end = at + (count + 7) // 8
    for place in range(at, end):
        out[place] = 0
    for which in range(count):
        if is_shared[which] != 0:
            out[at + which // 8] |= np.uint8(1 << (which % 8))
            put(out, end, half_of(estimate[which]), HALF_BYTES)
            end += HALF_BYTES
    for which in range(count + 1):
        if (which < count and is_shared[which] != 0) or (which > 0 and is_shared[which - 1] != 0):
            put(out, end, half_of(PROBABILITY_SCALE * float64(before[which])), HALF_BYTES)
            end += HALF_BYTES
    return int64(end)


@compiled
def take_memories(
    source: npt.NDArray[np.uint8],
    at: int,
    is_shared: npt.NDArray[np.uint8],
    before: npt.NDArray[np.float32],
    estimate: npt.NDArray[np.float32],
) -> int:
    """Read what `put_memories` wrote, the rest left as it is, and return where it ends."""
    count = is_shared.shape[0]
    end = at + (count + 7) // 8
    for which in range(count):
        is_shared[which] = (source[at + which // 8] >> np.uint8(which % 8)) & np.uint8(1)
        if is_shared[which] != 0:
            estimate[which] = of_half(take(source, end, HALF_BYTES))
            end += HALF_BYTES
    for which in range(count + 1):
        if (which < count and is_shared[which] != 0) or (which > 0 and is_shared[which - 1] != 0):
            before[which] = of_half(take(source, end, HALF_BYTES)) / float32(PROBABILITY_SCALE)
            end += HALF_BYTES
    return int64(end)


@compiled
def length_of_memories(source: npt.NDArray[np.uint8], at: int, count: int) -> int:
    """Return the length of what `put_memories` wrote of so many memories, the bits included."""
    length = int64((count + 7) // 8)
    was_shared = False
    for which in range(count + 1):
        bit = which < count and (source[at + which // 8] >> np.uint8(which % 8)) & np.uint8(1) != 0
        length += HALF_BYTES * (int64(bit) + int64(bit or was_shared))
        was_shared = bit
    return length


@compiled
def put_inputs(out: npt.NDArray[np.uint8], at: int, inputs: npt.NDArray[np.float32]) -> int:
    """Write the inputs of an impression, eights that are 0 left out, and return where they end."""
    count = inputs.shape[0]
    blocks = (count + LANES - 1) // LANES
    end = at + (blocks + 7) // 8
    for place in range(at, end):
        out[place] = 0
    for block in range(blocks):
        last = min((block + 1) * LANES, count)
        is_any = False
        for i in range(block * LANES, last):
            is_any |= inputs[i] != 0.0
        if is_any:
            out[at + block // 8] |= np.uint8(1 << (block % 8))
            for i in range(block * LANES, (block + 1) * LANES):
                put(out, end, half_of(inputs[i]) if i < last else int64(0), HALF_BYTES)
                end += HALF_BYTES
    return int64(end)


@compiled
def take_inputs(source: npt.NDArray[np.uint8], at: int, inputs: npt.NDArray[np.float32]) -> int:
    """Read the inputs of an impression [padded], as `put_inputs` wrote them, and return where they end."""
    clear(inputs)
    blocks = inputs.shape[0] // LANES
    end = at + (blocks + 7) // 8
    for block in range(blocks):
        if (source[at + block // 8] >> np.uint8(block % 8)) & np.uint8(1):
            for i in range(block * LANES, (block + 1) * LANES):
                inputs[i] = of_half(take(source, end, HALF_BYTES))
                end += HALF_BYTES
    return int64(end)

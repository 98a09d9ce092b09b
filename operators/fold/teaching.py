"""A learning step becomes a lesson: what other partitions need to take the same step (`operators.lessons`)."""

import numpy as np
import numpy.typing as npt
from thalweg.operators import clock, cross, features, ftrl, joiner, lessons
from thalweg.operators.error_memory import Keyed, Memories
from thalweg.operators.features import Given
from thalweg.operators.fold import learning
from thalweg.operators.fold.emitted import Emitted, Made
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score
from thalweg.operators.lessons import At, Flag
from thalweg.operators.machine.compiled import compiled, float64, int64
from thalweg.operators.machine.hashing import uniform
from thalweg.operators.machine.lanes import LANES

PROVISIONAL, FINAL, LATE = range(3)
"""What a label is: learned before the window closes, when it closes, or a positive that came after it."""
LESSON_SALT = 0x1E
INT32_MAX = (1 << 31) - 1


@compiled
def keep_keys(state: State, given: Given, slot: int) -> None:
    """Remember the keys of an impression's values, where lessons are made."""
    keys = state.lessons.key[slot]
    if keys.shape[0] > 0:
        for value in range(state.features_seen.counts[slot]):
            keys[value] = given.resolved[value]


@compiled
def teach(
    state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, slot: int, label: float, kind: int
) -> None:
    """Make a lesson of the step that an impression's label is about to be, if it is one and lessons are made."""
    p = parameters.lessons
    if not p.is_made:
        return
    learned, weight = float64(state.waiting.learned[slot]), 1.0
    if kind != LATE and learned == label:
        return
    if p.negative_rate < 1.0 and label < 1.0:
        if uniform(state.waiting.key[slot], LESSON_SALT) >= p.negative_rate:
            return
        weight = 1.0 / p.negative_rate
    out = emitted.lesson_text[emitted.counts[Made.LESSON_BYTES] :]
    write_fixed(state, parameters, slot, out, kind)
    lessons.put_float(out, At.LABEL, label)
    lessons.put_float(out, At.LEARNED, joiner.UNLEARNED if kind == LATE else learned)
    lessons.put_float(out, At.WEIGHT, weight)
    end = write_values(state, parameters, scratch, slot, out)
    end = lessons.put_inputs(out, end, state.features_seen.inputs[slot])
    emit(state, emitted, end)


@compiled
def tell_delay(state: State, parameters: Parameters, emitted: Emitted, delay_ms: int) -> None:
    """Make a lesson of how long a positive took that came in time, where lessons are made."""
    if parameters.lessons.is_made:
        out = emitted.lesson_text[emitted.counts[Made.LESSON_BYTES] :]
        lessons.put(out, At.FLAGS, Flag.HEARD, 1)
        lessons.put(out, At.PRIVATE, 0, 1)
        lessons.put(out, At.SHARED, 0, 2)
        lessons.put(out, At.DELAY, min(max(delay_ms, 0), INT32_MAX), 4)
        write_time(state, out)
        emit(state, emitted, int64(At.HEARD_END))


@compiled
def write_time(state: State, out: npt.NDArray[np.uint8]) -> None:
    """Write stream time, and how far the user heard last is ahead of it."""
    now_ms = state.clock.stream_time_ms[0]
    ahead_ms = min(max(clock.heard_last_ms(state.clock) - now_ms, -INT32_MAX), INT32_MAX)
    lessons.put(out, At.TIME, now_ms, 8)
    lessons.put(out, At.AHEAD, ahead_ms, 4)


@compiled
def emit(state: State, emitted: Emitted, length: int) -> None:
    """Number a lesson of this length, which lies behind those that were made before."""
    end = emitted.counts[Made.LESSON_BYTES] + length
    lessons.put(emitted.lesson_text[emitted.counts[Made.LESSON_BYTES] :], At.LENGTH, length, 2)
    state.lessons.made[0] += 1
    each = emitted.lesson[emitted.counts[Made.LESSONS]]
    each[0], each[1] = state.clock.offset[0], state.clock.ordinals[clock.Ordinal.LESSONS]
    each[2], each[3] = state.lessons.made[0], end
    state.clock.ordinals[clock.Ordinal.LESSONS] += 1
    emitted.counts[Made.LESSONS] += 1
    emitted.counts[Made.LESSON_BYTES] = end


@compiled
def write_fixed(state: State, parameters: Parameters, slot: int, out: npt.NDArray[np.uint8], kind: int) -> None:
    """Write what every lesson has in the same place, but for the label's numbers."""
    flags = int64(Flag.LATE) if kind == LATE else int64(0)
    if learning.is_sampled(state, parameters, slot):
        flags |= int64(Flag.LEARNED)
    lessons.put(out, At.FLAGS, flags, 1)
    write_time(state, out)
    lessons.put_float(out, At.MODEL, state.waiting.scores[slot, Score.MODEL])
    lessons.put_float(out, At.BASE, state.waiting.scores[slot, Score.BASE])


@compiled
def write_values(state: State, parameters: Parameters, scratch: Scratch, slot: int, out: npt.NDArray[np.uint8]) -> int:
    """Write what the error memory read, and an impression's values: private ones as numbers, others by their keys.

    Return where they end.
    """
    seen, reads = state.features_seen, state.memory_reads
    at = int64(At.END)
    for k in range(reads.near.shape[1]):
        lessons.put(out, at, reads.near[slot, k], 4)
        at += 4
    is_shared = scratch.lessons.memories
    mark_shared(parameters.memory.memories, reads.keyed[slot], is_shared)
    at = lessons.put_memories(out, at, is_shared, reads.before[slot], reads.estimate[slot])
    private, shared = int64(0), int64(0)
    for value in range(seen.counts[slot]):
        row = int64(seen.row[slot, value])
        is_private = parameters.lessons.private[seen.field[slot, value]] != 0
        if is_private and row >= 0:
            lessons.put(out, at, seen.field[slot, value], 1)
            write_private(state, scratch.lessons.halves, row)
            at = lessons.put_halves(out, at + 1, scratch.lessons.halves)
            private += 1
    for value in range(seen.counts[slot]):
        if parameters.lessons.private[seen.field[slot, value]] == 0:
            lessons.put(out, at, seen.field[slot, value], 1)
            lessons.put(out, at + 1, state.lessons.key[slot, value], 8)
            at += lessons.VALUE_BYTES
            shared += 1
    lessons.put(out, At.PRIVATE, private, 1)
    lessons.put(out, At.SHARED, shared, 2)
    return at


@compiled
def mark_shared(memories: Memories, keyed: npt.NDArray[np.int32], out: npt.NDArray[np.uint8]) -> None:
    """Mark the memories that an impression is in and that no user keys [memories]."""
    for which in range(out.shape[0]):
        first, second = memories.first[which], memories.second[which]
        is_in = keyed[which] > 0 or first == Keyed.REPRESENTATION
        out[which] = np.uint8(is_in and first != features.USER and second != features.USER)


@compiled
def write_private(state: State, numbers: npt.NDArray[np.float32], row: int) -> None:
    """Write what a private value is to a step: its weight and latent vector, the network's weight and embedding."""
    weights = state.learner.features[row, ftrl.Part.WEIGHT]
    size = weights.shape[0]
    for i in range(size):
        numbers[i] = weights[i]
    if cross.is_on(state.cross):
        parts = state.cross.embedded.parts[row]
        numbers[size] = parts[cross.LIN]
        for i in range(LANES):
            numbers[size + 1 + i] = parts[i]

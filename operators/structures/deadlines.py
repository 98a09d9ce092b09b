"""What is due next: a binary heap of slots in the order of (deadline, arrival, key).

The key decides between the rows of one page, which arrive as one.
"""

from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int32, Int64, made, per, side_by_side

Keys = npt.NDArray[np.uint64]


@side_by_side()
class Deadlines(NamedTuple):
    """A heap of slots."""

    heap: Annotated[Int32, per("slots", "slots, the next due first", digest=False, keeps=True, apart=True)]
    size: Annotated[Int64, per("1", "slots in the heap", digest=False)]
    place: Annotated[Int32, per("slots", "where the slot is in the heap + 1", digest=False)]
    deadline_ms: Annotated[Int64, per("slots", "when it is due, stream time")]
    arrival: Annotated[Int64, per("slots", "what orders slots of one deadline, before their keys")]


def new_deadlines(slots: int) -> Deadlines:
    """Return an empty heap over `slots` slots."""
    return made(Deadlines, slots=slots)


@compiled
def _before(deadlines: Deadlines, keys: Keys, a: int, b: int) -> bool:
    if deadlines.deadline_ms[a] != deadlines.deadline_ms[b]:
        return bool(deadlines.deadline_ms[a] < deadlines.deadline_ms[b])
    if deadlines.arrival[a] != deadlines.arrival[b]:
        return bool(deadlines.arrival[a] < deadlines.arrival[b])
    return bool(keys[a] < keys[b])


@compiled
def _set(deadlines: Deadlines, place: int, slot: int) -> None:
    deadlines.heap[place] = slot
    deadlines.place[slot] = place + 1


@compiled
def _rise(deadlines: Deadlines, keys: Keys, place: int, slot: int) -> None:
    while place > 0:
        parent = (place - 1) // 2
        above = deadlines.heap[parent]
        if not _before(deadlines, keys, slot, above):
            break
        _set(deadlines, place, above)
        place = parent
    _set(deadlines, place, slot)


@compiled
def _sink(deadlines: Deadlines, keys: Keys, place: int, slot: int) -> None:
    size = deadlines.size[0]
    while 2 * place + 1 < size:
        child = 2 * place + 1
        if child + 1 < size and _before(deadlines, keys, deadlines.heap[child + 1], deadlines.heap[child]):
            child += 1
        if not _before(deadlines, keys, deadlines.heap[child], slot):
            break
        _set(deadlines, place, deadlines.heap[child])
        place = child
    _set(deadlines, place, slot)


@compiled
def push_deadline(deadlines: Deadlines, keys: Keys, slot: int, deadline_ms: int, arrival: int) -> None:
    """Let a slot wait for its deadline; `keys` [slots] decide between those that came together."""
    deadlines.deadline_ms[slot] = deadline_ms
    deadlines.arrival[slot] = arrival
    place = deadlines.size[0]
    deadlines.size[0] += 1
    _rise(deadlines, keys, place, slot)


@compiled
def next_due(deadlines: Deadlines) -> int:
    """Return the slot with the smallest (deadline, arrival, key), or -1."""
    return int64(deadlines.heap[0]) if deadlines.size[0] > 0 else int64(-1)


@compiled
def over_ms(deadlines: Deadlines, slot: int) -> int:
    """Return the first millisecond at which the deadline of a slot that waits is over."""
    return int64(deadlines.deadline_ms[slot]) + 1


@compiled
def remove_deadline(deadlines: Deadlines, keys: Keys, slot: int) -> None:
    """Let a slot wait no longer."""
    place = int64(deadlines.place[slot]) - 1
    if place < 0:
        return
    deadlines.place[slot] = 0
    deadlines.size[0] -= 1
    last = int64(deadlines.heap[deadlines.size[0]])
    deadlines.heap[deadlines.size[0]] = 0
    if last == slot:
        return
    if place > 0 and _before(deadlines, keys, last, deadlines.heap[(place - 1) // 2]):
        _rise(deadlines, keys, place, last)
    else:
        _sink(deadlines, keys, place, last)


@compiled
def move_deadline(deadlines: Deadlines, keys: Keys, slot: int, by_ms: int) -> None:
    """Let a slot wait so much longer, or shorter, if it waits at all."""
    if deadlines.place[slot] != 0:
        remove_deadline(deadlines, keys, slot)
        push_deadline(deadlines, keys, slot, deadlines.deadline_ms[slot] + by_ms, deadlines.arrival[slot])


@compiled
def last_deadline(deadlines: Deadlines) -> int:
    """Return the largest deadline that anything waits for, or -1."""
    last = int64(-1)
    for place in range(deadlines.size[0]):
        last = max(last, deadlines.deadline_ms[deadlines.heap[place]])
    return last

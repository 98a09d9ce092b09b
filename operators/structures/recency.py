"""The order in which members were last put at its end: a doubly linked list in arrays, any place of it found at once.

`older`, `newer` int32 [members]: neighbours (number + 1; 0 is none). `ends` int32 [2]: the oldest and the newest.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64

Neighbours = npt.NDArray[np.int32]


class End(IntEnum):
    """The two ends of the order."""

    OLDEST = 0
    NEWEST = 1


@compiled
def oldest(ends: Neighbours) -> int:
    """Return what was put at the end before all others, or -1 where there is nothing."""
    return int64(ends[End.OLDEST]) - 1


@compiled
def link(older: Neighbours, newer: Neighbours, ends: Neighbours, number: int) -> None:
    """Put something that is in no order at the newest end."""
    newest = ends[End.NEWEST]
    older[number] = newest
    newer[number] = 0
    if newest != 0:
        newer[newest - 1] = number + 1
    else:
        ends[End.OLDEST] = number + 1
    ends[End.NEWEST] = number + 1


@compiled
def unlink(older: Neighbours, newer: Neighbours, ends: Neighbours, number: int) -> None:
    """Take something out of the order; it keeps no neighbours."""
    before, after = older[number], newer[number]
    if before != 0:
        newer[before - 1] = after
    else:
        ends[End.OLDEST] = after
    if after != 0:
        older[after - 1] = before
    else:
        ends[End.NEWEST] = before
    older[number] = 0
    newer[number] = 0

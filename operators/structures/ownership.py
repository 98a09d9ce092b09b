"""Lists of what belongs to an owner, threaded through the things themselves: joining and leaving are O(1)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.reserve import reserve_rows


class Owned(NamedTuple):
    """Who owns what (row + 1 everywhere, 0 is none).

    `first`, `last` int32 [owners]: an owner's newest thing and the oldest; `held` int32 [owners]: how many there are;
    `owner`, `next`, `previous` int32 [things].
    """

    first: npt.NDArray[np.int32]
    last: npt.NDArray[np.int32]
    held: npt.NDArray[np.int32]
    owner: npt.NDArray[np.int32]
    next: npt.NDArray[np.int32]
    previous: npt.NDArray[np.int32]


def new_owned(owners: int, things: int) -> Owned:
    """Return a world without property."""
    of_owners = reserve_rows(owners, first=np.int32, last=np.int32, held=np.int32)
    return Owned(**of_owners, **reserve_rows(things, owner=np.int32, next=np.int32, previous=np.int32))


@compiled
def attach(owned: Owned, owner: int, thing: int) -> None:
    """Make a thing that nobody owns the owner's first."""
    first = owned.first[owner]
    owned.owner[thing] = owner + 1
    owned.next[thing] = first
    owned.previous[thing] = 0
    if first != 0:
        owned.previous[first - 1] = thing + 1
    else:
        owned.last[owner] = thing + 1
    owned.first[owner] = thing + 1
    owned.held[owner] += 1


@compiled
def detach(owned: Owned, thing: int) -> None:
    """Take a thing from its owner, if it has one."""
    owner = owned.owner[thing]
    if owner == 0:
        return
    following = owned.next[thing]
    previous = owned.previous[thing]
    if previous != 0:
        owned.next[previous - 1] = following
    else:
        owned.first[owner - 1] = following
    if following != 0:
        owned.previous[following - 1] = previous
    else:
        owned.last[owner - 1] = previous
    owned.held[owner - 1] -= 1
    owned.owner[thing] = 0
    owned.next[thing] = 0
    owned.previous[thing] = 0


@compiled
def first_of(owned: Owned, owner: int) -> int:
    """Return an owner's first thing, the newest, or -1."""
    return int64(owned.first[owner]) - 1


@compiled
def last_of(owned: Owned, owner: int) -> int:
    """Return an owner's last thing, the oldest, or -1."""
    return int64(owned.last[owner]) - 1

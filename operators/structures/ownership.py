"""Lists of what belongs to an owner, threaded through the members themselves: joining and leaving are O(1)."""

from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int32, made, per, side_by_side
from thalweg.operators.machine.prefetch import prefetch


@side_by_side(is_dense=True)
class Owned(NamedTuple):
    """Who owns what (row + 1 everywhere, 0 is none)."""

    first: Annotated[Int32, per("owners", "an owner's newest member", digest=False)]
    last: Annotated[Int32, per("owners", "an owner's oldest member", digest=False)]
    held: Annotated[Int32, per("owners", "how many members there are", digest=False)]
    owner: Annotated[Int32, per("members", digest=False)]
    next: Annotated[Int32, per("members", "the owner's next older member", digest=False)]
    previous: Annotated[Int32, per("members", "the owner's next newer member", digest=False)]


def new_owned(owners: int, members: int) -> Owned:
    """Return a world without property."""
    return made(Owned, owners=owners, members=members)


@compiled
def prefetch_owner(owned: Owned, owner: int) -> None:
    """Ask for what is read of an owner when a member joins."""
    prefetch(owned.first, owner)


@compiled
def prefetch_newest(owned: Owned, owner: int) -> None:
    """Ask for what is written of an owner's newest member when another joins."""
    if owned.first[owner] != 0:
        prefetch(owned.owner, int64(owned.first[owner]) - 1)


@compiled
def attach(owned: Owned, owner: int, member: int) -> None:
    """Make a member that has no owner the owner's first."""
    first = owned.first[owner]
    owned.owner[member] = owner + 1
    owned.next[member] = first
    owned.previous[member] = 0
    if first != 0:
        owned.previous[first - 1] = member + 1
    else:
        owned.last[owner] = member + 1
    owned.first[owner] = member + 1
    owned.held[owner] += 1


@compiled
def detach(owned: Owned, member: int) -> None:
    """Take a member from its owner, if it has one."""
    owner = owned.owner[member]
    if owner == 0:
        return
    following = owned.next[member]
    previous = owned.previous[member]
    if previous != 0:
        owned.next[previous - 1] = following
    else:
        owned.first[owner - 1] = following
    if following != 0:
        owned.previous[following - 1] = previous
    else:
        owned.last[owner - 1] = previous
    owned.held[owner - 1] -= 1
    owned.owner[member] = 0
    owned.next[member] = 0
    owned.previous[member] = 0


@compiled
def first_of(owned: Owned, owner: int) -> int:
    """Return an owner's first member, the newest, or -1."""
    return int64(owned.first[owner]) - 1


@compiled
def last_of(owned: Owned, owner: int) -> int:
    """Return an owner's last member, the oldest, or -1."""
    return int64(owned.last[owner]) - 1

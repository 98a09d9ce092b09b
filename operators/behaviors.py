"""What each user did: the last behaviours exactly, everything older in SDIM's buckets.

A behaviour names an item's row and its generation, so that it reads the item's vector as it is today; where the row has
gone to another item it reads zero. When the ring is full its oldest behaviour moves to the long history, with the
vector that it has at that moment. A user with a short history keeps no buckets: exact attention is cheaper and better
there.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from thalweg.operators import attention, sdim
from thalweg.operators.attention import Gathered
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int32, Int64, UInt32, made, part, per, side_by_side, wiper
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.sdim import Histories, SdimConfiguration, SdimParameters
from thalweg.operators.seen import words_of
from thalweg.operators.structures import pool, recency, table
from thalweg.operators.structures.table import Table
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, check, within

Kind = Literal["acted", "skipped"]
KINDS = get_args(Kind)
DAY_MS = 86_400_000
NEVER_MS = 36_500 * DAY_MS
COUNT_MAX = 1 << 62


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviorsConfiguration:
    """What is kept of each user (`[behaviors]`).

    `kinds`: which behaviours make a sequence each: "acted" (any feedback) and "skipped" (an impression whose window
    closed without a positive); empty: no sequences, no interests. `short_length`: behaviours of a kind kept exactly.
    `seen_length`: different items that a request with `seen = "drop"` knows of each user, at least, besides these.
    `users_limit`: users known at most; the least recently seen one is evicted for the next.
    `expire_time_ms`: a user is forgotten after so long; by default a hundred years, which is never: no user is
    forgotten before memory is short.
    """

    kinds: tuple[Kind, ...] = ("acted",)
    short_length: Annotated[int, within(1, 1024)] = 32
    seen_length: Annotated[int, within(0, 4096)] = 64
    users_limit: Annotated[int, within(1, ROWS_MAX)] = 1 << 21
    expire_time_ms: Annotated[int, within(1, MS_MAX)] = NEVER_MS

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or a kind is named twice."""
        check(self)
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds must name each kind once")

    def sizes(self) -> dict[str, int]:
        """Return the sizes of users' arrays.

        Without a kind there is one that stays empty: compiled code sees another type in arrays of no elements.
        """
        users = {
            "users": self.users_limit + 1,
            "users_limit": self.users_limit,
        }  # one more stands for those who did nothing
        users |= {"kinds": max(1, len(self.kinds)), "short": self.short_length}
        return users | {"seen_words": words_of(self.seen_length), "seen_length": self.seen_length}


@side_by_side(is_dense=True)
class Behaviors(NamedTuple):
    """What each user did: sequences by kind, rings of the last ones."""

    counts: Annotated[Int64, per("users kinds", "behaviours ever", upto=COUNT_MAX)]
    row: Annotated[Int32, per("users kinds short", "items' rows", refers="values", where=lambda users: in_ring(users))]
    ts_ms: Annotated[Int64, per("users kinds short", "when it was", where=lambda users: in_ring(users))]
    generation: Annotated[UInt32, per("users kinds short", "of the items' rows", digest=False)]
    history: Annotated[Int32, per("users kinds", "the long history + 1", seen_as=lambda users: users.history > 0)]
    histories: Annotated[Histories, part()]


class Behavior(NamedTuple):
    """What a user did: the `user`'s row, the place of the `kind`, the `item`'s row, and when."""

    user: int
    kind: int
    item: int
    ts_ms: int


wipe_user = wiper(Behaviors, "users")


def in_ring(users: Any) -> npt.NDArray[np.bool_]:
    """Return which places of users' rings are filled [users, kinds, short_length]."""
    found: npt.NDArray[np.bool_] = np.arange(users.row.shape[2]) < users.counts[:, :, None]
    return found


def new_behaviors(configuration: BehaviorsConfiguration, long: SdimConfiguration, size: int) -> Behaviors:
    """Return behaviours without users, over item vectors of `size` coordinates."""
    return made(Behaviors, d=size, **configuration.sizes(), **long.sizes())


@compiled
def prefetch_user(behaviors: Behaviors, user: int) -> None:
    """Ask for what will be read of a user."""
    prefetch(behaviors.counts, user)  # and what else there is one of
    prefetch(behaviors.row, user)
    prefetch(behaviors.generation, user)


@compiled
def _drop_history(behaviors: Behaviors, history: int) -> None:
    """Free a long history, wiped, and take it from its user."""
    histories = behaviors.histories
    kinds = behaviors.history.shape[1]
    owner = int64(histories.owner[history]) - 1
    behaviors.history[owner // kinds, owner % kinds] = 0
    recency.unlink(histories.older, histories.newer, histories.ends, history)
    sdim.wipe_history(histories, history)
    pool.give(histories.pool, history)


@compiled
def _history_of(behaviors: Behaviors, user: int, kind: int) -> int:
    """Return a user's long history, made where it has none; at the limit the one extended least recently makes room."""
    histories = behaviors.histories
    history = int64(behaviors.history[user, kind]) - 1
    if history >= 0:
        recency.unlink(histories.older, histories.newer, histories.ends, history)
    else:
        if pool.available(histories.pool) == 0:
            _drop_history(behaviors, recency.oldest(histories.ends))
        history = pool.take(histories.pool)
        histories.owner[history] = user * behaviors.history.shape[1] + kind + 1
        behaviors.history[user, kind] = history + 1
    recency.link(histories.older, histories.newer, histories.ends, history)
    return history


@compiled
def extend_sequence(
    behaviors: Behaviors,
    items: Table,
    vectors: npt.NDArray[np.float32],
    parameters: SdimParameters,
    signs: npt.NDArray[np.float32],
    behavior: Behavior,
    gone_ms: int,
) -> None:
    """Append a behaviour to a user's sequence; one that leaves the full ring moves to the long history.

    It does not if its item is gone, as for `gather_recent`. `signs` [m] is scratch.
    """
    user, kind = behavior.user, behavior.kind
    length = behaviors.row.shape[2]
    place = behaviors.counts[user, kind] % length
    if behaviors.counts[user, kind] >= length:
        leaving = behaviors.row[user, kind, place]
        if table.is_there(items, leaving, behaviors.generation[user, kind, place], gone_ms):
            history = _history_of(behaviors, user, kind)
            bits = sdim.signature(parameters.projection, vectors[leaving], signs)
            left_ms = behaviors.ts_ms[user, kind, place]
            sdim.add_behavior(behaviors.histories, history, bits, vectors[leaving], left_ms, parameters.window)
    append_behavior(behaviors, items, behavior)


@compiled
def append_behavior(behaviors: Behaviors, items: Table, behavior: Behavior) -> None:
    """Put a behaviour into a user's ring; what it takes the place of in a full one is forgotten."""
    user, kind = behavior.user, behavior.kind
    place = behaviors.counts[user, kind] % behaviors.row.shape[2]
    behaviors.row[user, kind, place] = behavior.item
    behaviors.generation[user, kind, place] = items.generation[behavior.item]
    behaviors.ts_ms[user, kind, place] = behavior.ts_ms
    behaviors.counts[user, kind] += 1


@compiled
def forget_histories(behaviors: Behaviors, user: int) -> None:
    """Free a user's long histories."""
    for kind in range(behaviors.counts.shape[1]):
        history = find_history(behaviors, user, kind)
        if history >= 0:
            _drop_history(behaviors, history)


@compiled
def forget_sequences(behaviors: Behaviors, user: int) -> None:
    """Leave nothing of a user."""
    forget_histories(behaviors, user)
    wipe_user(behaviors, user)


@compiled
def gather_recent(
    behaviors: Behaviors, items: Table, vectors: npt.NDArray[np.float32], user: int, gone_ms: int, gathered: Gathered
) -> None:
    """Gather the vectors of a user's rings, as they are today; items that are gone are left out.

    These are all whose rows were freed, and all that were updated at `gone_ms` or before.
    """
    for kind in range(behaviors.counts.shape[1]):
        attention.forget(gathered, kind)
        for place in range(min(behaviors.counts[user, kind], behaviors.row.shape[2])):
            row = behaviors.row[user, kind, place]
            if table.is_there(items, row, behaviors.generation[user, kind, place], gone_ms):
                attention.gather(gathered, kind, vectors[row])


@compiled
def find_history(behaviors: Behaviors, user: int, kind: int) -> int:
    """Return a user's long history, or -1."""
    return int64(behaviors.history[user, kind]) - 1

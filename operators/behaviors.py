"""What each user did: the last behaviours exactly, everything older in SDIM's buckets.

A behaviour names an item's row and its generation, so that it reads the item's vector as it is today; where the row has
gone to another item it reads zero. When the ring is full its oldest behaviour moves to the long history, with the
vector that it has at that moment. A user with a short history keeps no buckets: exact attention is cheaper and better
there.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.machine.reserve import reserve_rows
from thalweg.operators.sdim import (
    Histories,
    SdimConfiguration,
    Window,
    add_behavior,
    kernel,
    new_histories,
    read_interest,
    signature,
    wipe_history,
)
from thalweg.operators.structures.pool import available, give, take
from thalweg.operators.structures.recency import link, oldest, unlink
from thalweg.operators.structures.table import Table, is_current
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, check, within

Kind = Literal["acted", "skipped"]
KINDS = get_args(Kind)
DAY_MS = 86_400_000
NEVER_MS = 36_500 * DAY_MS


@dataclass(frozen=True, kw_only=True, slots=True)
class BehaviorsConfiguration:
    """What is kept of each user (`[behaviors]`).

    `kinds`: which behaviours make a sequence each: "acted" (any feedback) and "skipped" (an impression whose window
    closed without a positive); empty: no sequences, no interests. `short_length`: behaviours of a kind kept exactly.
    `users_limit`: users known at most; the one that was not seen for longest is forgotten for the next.
    `expire_time_ms`: a user is forgotten after so long; by default a hundred years, which is never: nobody is forgotten
    before memory is short.
    """

    kinds: tuple[Kind, ...] = ("acted",)
    short_length: Annotated[int, within(1, 1024)] = 32
    users_limit: Annotated[int, within(1, ROWS_MAX)] = 1 << 21
    expire_time_ms: Annotated[int, within(1, MS_MAX)] = NEVER_MS

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or a kind is named twice."""
        check(self)
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError("kinds must name each kind once")


class Behaviors(NamedTuple):
    """Sequences of each user's row and kind.

    `row` int32, `generation` uint32, `ts_ms` int64: [users, kinds, short_length], a ring; `counts` int64 [users,
    kinds], behaviours ever; `history` int32 [users, kinds], the long history + 1; `shown`, `shown_ms` int64 [users],
    impressions ever and when the last was; `histories`: the long histories.
    """

    row: npt.NDArray[np.int32]
    generation: npt.NDArray[np.uint32]
    ts_ms: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    history: npt.NDArray[np.int32]
    shown: npt.NDArray[np.int64]
    shown_ms: npt.NDArray[np.int64]
    histories: Histories


def new_behaviors(configuration: BehaviorsConfiguration, sdim: SdimConfiguration, size: int) -> Behaviors:
    """Return behaviours of nobody, over item vectors of `size` coordinates."""
    users, kinds = configuration.users_limit, len(configuration.kinds)
    ring = (kinds, configuration.short_length)
    of_users = reserve_rows(
        users,
        is_dense=True,
        row=(np.int32, ring),
        generation=(np.uint32, ring),
        ts_ms=(np.int64, ring),
        counts=(np.int64, (kinds,)),
        history=(np.int32, (kinds,)),
        shown=np.int64,
        shown_ms=np.int64,
    )
    return Behaviors(**of_users, histories=new_histories(sdim, size))


@compiled
def look_ahead_at_user(behaviors: Behaviors, user: int) -> None:
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
    unlink(histories.older, histories.newer, histories.ends, history)
    wipe_history(histories, history)
    histories.owner[history] = 0
    give(histories.pool, history)


@compiled
def _history_of(behaviors: Behaviors, user: int, kind: int) -> int:
    """Return a user's long history, made where it has none; at the limit the one extended least recently makes room."""
    histories = behaviors.histories
    history = int64(behaviors.history[user, kind]) - 1
    if history >= 0:
        unlink(histories.older, histories.newer, histories.ends, history)
    else:
        if available(histories.pool) == 0:
            _drop_history(behaviors, oldest(histories.ends))
        history = take(histories.pool)
        histories.owner[history] = user * behaviors.history.shape[1] + kind + 1
        behaviors.history[user, kind] = history + 1
    link(histories.older, histories.newer, histories.ends, history)
    return history


@compiled
def extend_sequence(
    behaviors: Behaviors,
    items: Table,
    vectors: npt.NDArray[np.float32],
    projection: npt.NDArray[np.float32],
    totals: npt.NDArray[np.float32],
    window: Window,
    user: int,
    kind: int,
    item: int,
    ts_ms: int,
) -> None:
    """Append an item's row to a user's sequence; a behaviour that leaves the full ring moves to the long history."""
    length = behaviors.row.shape[2]
    place = behaviors.counts[user, kind] % length
    if behaviors.counts[user, kind] >= length:
        leaving = behaviors.row[user, kind, place]
        if is_current(items, leaving, behaviors.generation[user, kind, place]):
            history = _history_of(behaviors, user, kind)
            bits = signature(projection, vectors[leaving], totals)
            left_ms = behaviors.ts_ms[user, kind, place]
            add_behavior(behaviors.histories, history, bits, vectors[leaving], left_ms, window)
    append_behavior(behaviors, items, user, kind, item, ts_ms)


@compiled
def append_behavior(behaviors: Behaviors, items: Table, user: int, kind: int, item: int, ts_ms: int) -> None:
    """Put an item's row into a user's ring; what it takes the place of in a full one is forgotten."""
    place = behaviors.counts[user, kind] % behaviors.row.shape[2]
    behaviors.row[user, kind, place] = item
    behaviors.generation[user, kind, place] = items.generation[item]
    behaviors.ts_ms[user, kind, place] = ts_ms
    behaviors.counts[user, kind] += 1


@compiled
def forget_sequences(behaviors: Behaviors, user: int) -> None:
    """Wipe a user's sequences."""
    for kind in range(behaviors.counts.shape[1]):
        history = int64(behaviors.history[user, kind]) - 1
        if history >= 0:
            _drop_history(behaviors, history)
        behaviors.counts[user, kind] = 0
        behaviors.row[user, kind] = 0
        behaviors.generation[user, kind] = 0
        behaviors.ts_ms[user, kind] = 0
    behaviors.shown[user] = 0
    behaviors.shown_ms[user] = 0


@compiled
def read_short_interest(
    behaviors: Behaviors,
    items: Table,
    vectors: npt.NDArray[np.float32],
    user: int,
    kind: int,
    candidate: int,
    tau: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the exact attention of a candidate's row over the ring to `out` [d], normalised to length 1 (or zero).

    The weight of a behaviour is SDIM's collision probability, so that both ends of a history speak of the same thing.
    """
    clear(out)
    size = out.shape[0]
    q = vectors[candidate]
    q_square = 0.0
    for i in range(size):
        q_square += float64(q[i]) * float64(q[i])
    if q_square == 0.0:
        return
    for place in range(min(behaviors.counts[user, kind], behaviors.row.shape[2])):
        row = behaviors.row[user, kind, place]
        if not is_current(items, row, behaviors.generation[user, kind, place]):
            continue
        s = vectors[row]
        dot = 0.0
        s_square = 0.0
        for i in range(size):
            dot += float64(q[i]) * float64(s[i])
            s_square += float64(s[i]) * float64(s[i])
        if s_square == 0.0:
            continue
        weight = float32(kernel(dot / math.sqrt(q_square * s_square), tau))
        for i in range(size):
            out[i] += weight * s[i]
    normalize(out)


@compiled
def read_long_interest(
    behaviors: Behaviors,
    vectors: npt.NDArray[np.float32],
    projection: npt.NDArray[np.float32],
    totals: npt.NDArray[np.float32],
    total: npt.NDArray[np.float64],
    user: int,
    kind: int,
    candidate: int,
    oldest_ms: int,
    out: npt.NDArray[np.float32],
) -> None:
    """Write SDIM's interest of a candidate's row in the user's long history to `out` [d]; zero where there is none.

    Of a windowed history count the generations that began after `oldest_ms`. `totals` [m] and `total` [d] are scratch.
    """
    history = int64(behaviors.history[user, kind]) - 1
    if history < 0:
        clear(out)
        return
    bits = signature(projection, vectors[candidate], totals)
    read_interest(behaviors.histories, history, bits, oldest_ms, total, out)


@compiled
def normalize(vector: npt.NDArray[np.float32]) -> None:
    """Divide a vector by its Euclidean norm; zero stays zero."""
    square = 0.0
    for i in range(vector.shape[0]):
        square += float64(vector[i]) * float64(vector[i])
    if square > 0.0:
        factor = float32(1.0 / math.sqrt(square))
        for i in range(vector.shape[0]):
            vector[i] *= factor

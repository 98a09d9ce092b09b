"""What requests asked for, and what their users acted on after it: what figures of rankings are computed from."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.fold.columns import Kind
from thalweg.operators.fold.emitted import Emitted, Ranked
from thalweg.operators.fold.fates import Fate

CANDIDATES_MAX = 1 << 22
RANKED_BY = (Ranked.SCORE, Ranked.MODEL)

LEFT_OUT = "asked_left_out"

Arrays = dict[str, npt.NDArray[Any]]


class Rows(NamedTuple):
    """Requests and positive actions as rows.

    `requests` int64 [r, 4]: offset, the bits of the user's key, ts, number of candidates. `items` int64 [c], the bits
    of their keys, and `scores` float64 [c, 2], final and model's, of all candidates in the order of the requests.
    `acted` int64 [a, 5]: offset, user, item, ts, and the window of the action in ms.
    """

    requests: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    acted: npt.NDArray[np.int64]


class AskedTally:
    """Requests with their candidates, up to `limit` candidates, and positive actions since the first one.

    `left_out` counts the requests beyond: from the first of them on none is kept.
    """

    def __init__(self, limit: int = CANDIDATES_MAX) -> None:
        """Keep at most so many candidates, 24 bytes each; later requests are not looked at."""
        self._limit = limit
        self._candidates = 0
        self._parts: list[Rows] = []
        self.left_out = 0

    def add(self, block: Block, emitted: Emitted, first: int, last: int) -> None:
        """Take the requests and positive actions among a block's events `first` to `last`."""
        if block.asked or self._parts:
            self.add_rows(rows_of(block, emitted, first, last))

    def add_rows(self, rows: Rows) -> None:
        """Take rows, the requests of which are dropped from where there is no more room on."""
        if self.left_out or self._candidates + len(rows.items) > self._limit:
            self.left_out += len(rows.requests)
            rows = rows._replace(requests=rows.requests[:0], items=rows.items[:0], scores=rows.scores[:0])
        if len(rows.requests) or (self._parts and len(rows.acted)):
            self._candidates += len(rows.items)
            self._parts.append(rows)

    def rows(self) -> Rows | None:
        """Return all of it, None where nothing was asked."""
        if not self._parts:
            return None
        return Rows(*(np.concatenate(parts) for parts in zip(*self._parts, strict=True)))

    def snapshot(self) -> Arrays:
        """Return all of it as arrays by name, none where nothing was asked."""
        rows = self.rows()
        if rows is None:
            return {}
        return _named(rows) | {LEFT_OUT: np.array([self.left_out])}

    def restore(self, arrays: Arrays) -> None:
        """Take what a snapshot had. Raises ValueError where it is none."""
        if not arrays:
            return
        empty = Rows(np.zeros((0, 4), np.int64), np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 5), np.int64))
        expected = {name: (array.dtype.type, array.shape[1:]) for name, array in _named(empty).items()}
        expected[LEFT_OUT] = (np.int64, ())
        if {name: (array.dtype.type, array.shape[1:]) for name, array in arrays.items()} != expected:
            raise ValueError("the checkpoint's tally is of another form")
        rows = Rows(*(arrays[name].copy() for name in _named(empty)))
        if int(rows.requests[:, 3].sum()) != len(rows.items) or len(rows.items) != len(rows.scores):
            raise ValueError("the checkpoint's tally contradicts itself")
        self._parts, self._candidates, self.left_out = [rows], len(rows.items), int(arrays[LEFT_OUT].sum())


def _named(rows: Rows) -> Arrays:
    """Return rows as arrays by the names that a checkpoint has."""
    return {f"asked_{name}": array for name, array in rows._asdict().items()}


def rows_of(block: Block, emitted: Emitted, first: int, last: int) -> Rows:
    """Return the requests and positive actions among a block's events `first` to `last`."""
    columns = block.columns
    fate, kind = emitted.fate[first:last], columns.kind[first:last]
    asked = first + np.flatnonzero(fate == Fate.RANKED)
    starts, ends = columns.candidate_start[asked] + 1, columns.candidate_start[asked + 1]
    entries = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)] or [starts])
    is_positive = (kind == Kind.FEEDBACK) & (columns.positive[first:last] & 1 == 1) & (fate != Fate.DEAD_LETTERED)
    acted = first + np.flatnonzero(is_positive)
    users, items = columns.user.view(np.int64), columns.item.view(np.int64)
    offsets, ts_ms = columns.offset, columns.ts_ms
    return Rows(
        np.stack((offsets[asked], users[asked], ts_ms[asked], ends - starts), axis=1),
        columns.candidate_item.view(np.int64)[entries],
        emitted.ranked[entries][:, RANKED_BY],
        np.stack((offsets[acted], users[acted], items[acted], ts_ms[acted], columns.window_ms[acted]), axis=1),
    )

"""Monolith's embedding table without its values: which key owns which row, since when, and until when.

Two different keys never share a row. Rows of a list stand in the order of their last update, so that expiry and, at the
limit, eviction take the one that was not updated for longest. A freed row's generation moves on: whoever remembers
(row, generation) reads zero from then on. A row costs 36 bytes here and at most 14.2 in the index, besides its values.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, wrapping
from thalweg.operators.machine.reserve import reserve, reserve_rows
from thalweg.operators.structures.index import Index, find, insert, new_index, remove
from thalweg.operators.structures.pool import EVER_USED, Pool, available, give, new_pool, take
from thalweg.operators.structures.recency import link, oldest, unlink

NONE = -1
EVICTED, EXPIRED, REFUSED = range(3)
TOUCHED_CHECKPOINT, TOUCHED_MERGE = np.uint8(1), np.uint8(2)
TOUCHED = np.uint8(3)


class Table(NamedTuple):
    """Who owns each row, [rows] unless said otherwise.

    `key` uint64 (0 is free); `list_of` uint8, the list (a field) whose expiry the row follows; `generation` uint32;
    `updated_ms` int64 of stream time; `older`, `newer` int32, neighbours in the order of updates (row + 1, 0 is none);
    `ends` int32 [lists, 2], the oldest and newest row of each list (row + 1); `linked` uint8, whether the row stands in
    its list (a pinned one does not); `touched` uint8, bit 1 since the last checkpoint, bit 2 since the last merge;
    `pool`, which rows are free; `counts` int64 [3]: rows evicted, expired, and keys that the index refused.
    """

    lookup: Index
    key: npt.NDArray[np.uint64]
    list_of: npt.NDArray[np.uint8]
    generation: npt.NDArray[np.uint32]
    updated_ms: npt.NDArray[np.int64]
    older: npt.NDArray[np.int32]
    newer: npt.NDArray[np.int32]
    linked: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int32]
    touched: npt.NDArray[np.uint8]
    pool: Pool
    counts: npt.NDArray[np.int64]


def new_table(limit: int, lists: int) -> Table:
    """Return an empty table of at most `limit` rows in `lists` lists."""
    rows = reserve_rows(
        limit,
        is_dense=True,
        key=np.uint64,
        list_of=np.uint8,
        generation=np.uint32,
        updated_ms=np.int64,
        older=np.int32,
        newer=np.int32,
        linked=np.uint8,
        touched=np.uint8,
    )
    return Table(
        new_index(limit), **rows, ends=reserve((lists, 2), np.int32), pool=new_pool(limit), counts=reserve(3, np.int64)
    )


@compiled
def find_row(table: Table, key: int, now_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> int:
    """Return the row of a key, or -1 where it has none or its time is over, whether or not a sweep has come by."""
    row = find(table.lookup, key)
    if row >= 0 and is_expired(table, row, now_ms, expire_time_ms):
        return NONE
    return row


@compiled
def is_expired(table: Table, row: int, now_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> bool:
    """Return whether a row was not updated for its list's expire time; a pinned row never is."""
    return table.linked[row] == 1 and now_ms - table.updated_ms[row] >= expire_time_ms[table.list_of[row]]  # type: ignore[no-any-return]


@compiled
def is_current(table: Table, row: int, generation: int) -> bool:
    """Return whether a remembered row still belongs to the key that it belonged to then."""
    return row >= 0 and table.generation[row] == generation


@compiled
def pin_row(table: Table, row: int) -> None:
    """Take a row out of the order of updates: it neither expires nor is evicted."""
    if table.linked[row] == 1:
        unlink(table.older, table.newer, table.ends[table.list_of[row]], row)
        table.linked[row] = 0


@compiled
def _link_row(table: Table, row: int) -> None:
    """Put a row at the newest end of its list."""
    link(table.older, table.newer, table.ends[table.list_of[row]], row)
    table.linked[row] = 1


@compiled
def update_row(table: Table, row: int, now_ms: int) -> None:
    """Say that a row is updated at `now_ms` of stream time."""
    pin_row(table, row)
    _link_row(table, row)
    table.updated_ms[row] = now_ms
    table.touched[row] |= TOUCHED


@compiled
def is_full(table: Table) -> bool:
    """Return whether a new key needs another's row."""
    return available(table.pool) == 0


@compiled
def claim_row(table: Table, key: int, list_of: int, now_ms: int) -> int:
    """Give an absent key a free row, or return -1 where none is free or the index refuses the key.

    The caller makes room first (`oldest_row`, `release_row`) and starts the values that go with the row.
    """
    if is_full(table):
        return NONE
    row = take(table.pool)
    if not insert(table.lookup, key, row):
        table.counts[REFUSED] += 1
        give(table.pool, row)
        return NONE
    table.key[row] = key
    table.list_of[row] = list_of
    table.updated_ms[row] = now_ms
    table.touched[row] |= TOUCHED
    _link_row(table, row)
    return row


@wrapping
def release_row(table: Table, row: int) -> None:
    """Free a row: its key is forgotten and its generation moves on. The caller wipes the values that go with it."""
    pin_row(table, row)
    remove(table.lookup, table.key[row])
    table.key[row] = 0
    table.list_of[row] = 0
    table.updated_ms[row] = 0
    table.generation[row] += np.uint32(1)
    table.touched[row] |= TOUCHED
    give(table.pool, row)


@compiled
def oldest_row(table: Table) -> int:
    """Return the row of any list that was not updated for longest, or -1; ties go to the lowest list."""
    found = NONE
    for ends in table.ends:
        row = oldest(ends)
        if row >= 0 and (found < 0 or table.updated_ms[row] < table.updated_ms[found]):
            found = row
    return found


@compiled
def expired_row(table: Table, now_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> int:
    """Return a row whose time is over, the oldest of the first list that has one, or -1."""
    for ends in table.ends:
        row = oldest(ends)
        if row >= 0 and is_expired(table, row, now_ms, expire_time_ms):
            return row
    return NONE


def rows_by_key(table: Table) -> npt.NDArray[np.int64]:
    """Return the owned rows in the order of their keys: the one order that does not depend on where rows lie."""
    owned = np.flatnonzero(table.key[: int(table.pool.counts[EVER_USED])])
    return owned[np.argsort(table.key[owned], kind="stable")]

"""Monolith's embedding table without its values: which key owns which row, since when, and until when.

Two different keys never share a row. A list keeps its rows in the order of their last update. So expiry and, at the
limit, eviction take the least recently updated one. A freed row's generation increases: an operator that remembers
(row, generation) reads zero from then on. A row costs 32 bytes here and at most 14.2 in the index, besides its values.

The rows of a page (`pages`) may come in any order. So those that one page updated last are evicted together.

Arrays may have rows beyond the limit. No key gets one: they show what a new row would hold (`spare_row`).
"""

from enum import IntEnum
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64, wrapping
from thalweg.operators.machine.declare import (
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    made,
    part,
    per,
    side_by_side,
    wiper,
)
from thalweg.operators.structures import index, pool, recency
from thalweg.operators.structures.index import Index
from thalweg.operators.structures.pool import Pool

NONE = -1
TAGS = 65_535


class Loss(IntEnum):
    """The numbers of `Table.counts`: how keys lost their row, or got none."""

    EVICTED = 0
    EXPIRED = 1
    REFUSED = 2


@side_by_side(is_dense=True)
class Table(NamedTuple):
    """Who owns each row."""

    lookup: Annotated[Index, part(buckets=(index.buckets_of, "rows_limit"))]
    key: Annotated[UInt64, per("rows", "0: free")]
    list_of: Annotated[UInt8, per("rows", "the list, a field, whose expiry the row follows", below="lists")]
    updated_ms: Annotated[Int64, per("rows", "stream time of the last update")]
    page: Annotated[UInt16, per("rows", "`tag_of` the page that updated it last; 0: what did is no page's row")]
    linked: Annotated[UInt8, per("rows", "whether it is in its list: a pinned row is not", below=2)]
    counts: Annotated[Int64, per("3", "`Loss`")]
    generation: Annotated[UInt32, per("rows", "how often the row was freed", digest=False, keeps=True)]
    older: Annotated[Int32, per("rows", "its neighbour in its list + 1", digest=False)]
    newer: Annotated[Int32, per("rows", "its neighbour in its list + 1", digest=False)]
    ends: Annotated[Int32, per("lists 2", "oldest and newest row + 1", digest=False)]
    pool: Annotated[Pool, part(limit="rows_limit")]


wipe_row = wiper(Table, "rows")


def new_table(limit: int, lists: int) -> Table:
    """Return an empty table of at most `limit` rows in `lists` lists."""
    return made(Table, rows=limit, rows_limit=limit, lists=lists)


@compiled
def find_row(table: Table, key: int, now_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> int:
    """Return the row of a key, or -1 where it has none or its time is over, whether or not a sweep has come by."""
    row = index.find(table.lookup, key)
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
def is_there(table: Table, row: int, generation: int, gone_ms: int) -> bool:
    """Return whether a remembered row is its key's still, and was updated behind `gone_ms`: else its time is over."""
    return row >= 0 and table.generation[row] == generation and table.updated_ms[row] > gone_ms


@compiled
def is_alive(table: Table, row: int, generation: int, at_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> bool:
    """Return whether a remembered row is its key's still, and its time is not over at `at_ms`."""
    return is_current(table, row, generation) and not is_expired(table, row, at_ms, expire_time_ms)


@compiled
def pin_row(table: Table, row: int) -> None:
    """Take a row out of the order of updates: it neither expires nor is evicted."""
    if table.linked[row] == 1:
        recency.unlink(table.older, table.newer, table.ends[table.list_of[row]], row)
        table.linked[row] = 0


@compiled
def _link_row(table: Table, row: int) -> None:
    """Put a row at the newest end of its list."""
    recency.link(table.older, table.newer, table.ends[table.list_of[row]], row)
    table.linked[row] = 1


@compiled
def update_row(table: Table, row: int, now_ms: int) -> None:
    """Mark a row as updated at `now_ms` of stream time."""
    pin_row(table, row)
    _link_row(table, row)
    table.updated_ms[row] = now_ms
    table.page[row] = 0


@compiled
def spare_row(table: Table, number: int) -> int:
    """Return a row beyond the limit: it holds zeros, and a caller that writes to it empties it."""
    return int64(table.pool.freed.shape[0]) + number


@compiled
def is_full(table: Table) -> bool:
    """Return whether a new key needs another's row."""
    return pool.available(table.pool) == 0


@compiled
def claim_row(table: Table, key: int, list_of: int, now_ms: int) -> int:
    """Give an absent key a free row, or return -1 where none is free or the index refuses the key.

    The caller makes room first (`oldest_row`, `release_row`) and starts the values that go with the row.
    """
    if is_full(table):
        return NONE
    row = pool.take(table.pool)
    if not index.insert(table.lookup, key, row):
        table.counts[Loss.REFUSED] += 1
        pool.give(table.pool, row)
        return NONE
    table.key[row] = key
    table.list_of[row] = list_of
    table.updated_ms[row] = now_ms
    _link_row(table, row)
    return row


@wrapping
def release_row(table: Table, row: int) -> None:
    """Free a row: its key is forgotten and its generation moves on. The caller wipes the values that go with it."""
    pin_row(table, row)
    index.remove(table.lookup, table.key[row])
    wipe_row(table, row)
    table.generation[row] += np.uint32(1)
    pool.give(table.pool, row)


@compiled
def oldest_row(table: Table) -> int:
    """Return the row of any list that was not updated for longest, or -1; ties go to the lowest list."""
    found = NONE
    for ends in table.ends:
        row = recency.oldest(ends)
        if row >= 0 and (found < 0 or table.updated_ms[row] < table.updated_ms[found]):
            found = row
    return found


@compiled
def tag_of(page: int) -> int:
    """Return what tells the rows of a page from those of the pages around it, in 16 bits."""
    return page % TAGS + 1


@compiled
def next_of_page(table: Table, list_of: int, page: int) -> int:
    """Return the oldest row of a list if the page, which updated one that was just freed, updated it too; else -1."""
    row = recency.oldest(table.ends[list_of])
    return row if row >= 0 and page != 0 and table.page[row] == page else int64(NONE)


@compiled
def expired_row(table: Table, now_ms: int, expire_time_ms: npt.NDArray[np.int64]) -> int:
    """Return a row whose time is over, the oldest of the first list that has one, or -1."""
    for ends in table.ends:
        row = recency.oldest(ends)
        if row >= 0 and is_expired(table, row, now_ms, expire_time_ms):
            return row
    return NONE


def rows_by_key(table: Table) -> npt.NDArray[np.int64]:
    """Return the owned rows in the order of their keys: the one order that does not depend on where rows lie."""
    owned = np.flatnonzero(table.key[: int(table.pool.counts[pool.Stock.EVER_USED])])
    return owned[np.argsort(table.key[owned], kind="stable")]

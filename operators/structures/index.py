"""A collisionless hash index from 64-bit keys to rows: bucketed cuckoo hashing that grows one bucket at a time.

Every key has two buckets of 5 cells (Monolith, section 2.2.1, keeps two tables; buckets raise the load factor that two
choices can reach from .5 to above .95). A bucket's keys and rows are one cache line. A look-up reads at most two of
them and, where anything lies there, the stash. Growth is linear hashing: as soon as the load passes `LOAD_FACTOR` the
next bucket is split in two. So growth is part of each insertion, and no event waits for it. It touches no more of the
reserved arrays than is needed.

Buckets not split yet have nearly twice as many keys as the others. So at a high load many insertions move other keys.
An index that most events insert into is better sparse (`make_sparse`).
"""

from enum import IntEnum
from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled, int64, numbered, uint64
from thalweg.operators.machine.declare import Int32, Int64, UInt64, made, per, side_by_side
from thalweg.operators.machine.prefetch import prefetch

BUCKET_CELLS = 5
LOAD_FACTOR, SPARSE_LOAD_FACTOR = 0.87, 0.65
FIRST_BUCKETS = 64
STASH_CELLS = 64
KICKS = 128
AHEAD = 4
TURNS = 4
FILLED, FILLED_SPARSE = round(100 * LOAD_FACTOR), round(100 * SPARSE_LOAD_FACTOR)


@numbered
class Size(IntEnum):
    """The numbers of `Index.size`; `FILLED`, in percent, is the load from which on the next bucket is split."""

    COUNT = 0
    BUCKETS = 1
    BASE = 2
    STASHED = 3
    FILLED = 4


@side_by_side(is_dense=True)
class Index(NamedTuple):
    """Where each key's row is; the stash has the keys whose two buckets could not take them."""

    keys: Annotated[UInt64, per("buckets 5", "0: an empty cell", digest=False, used=("size", Size.BUCKETS))]
    rows: Annotated[Int32, per("buckets 5", "row + 1", digest=False, used=("size", Size.BUCKETS))]
    stash_keys: Annotated[UInt64, per("64", digest=False)]
    stash_rows: Annotated[Int32, per("64", "row + 1", digest=False)]
    size: Annotated[Int64, per("5", "`Size`", start=(0, FIRST_BUCKETS, FIRST_BUCKETS, 0, FILLED), digest=False)]
    path: Annotated[Int64, per("128", "cells of an insertion's moves, scratch", digest=False)]


def buckets_of(limit: int) -> int:
    """Return how many buckets an index of at most `limit` keys has at most."""
    return max(FIRST_BUCKETS, int(limit / (BUCKET_CELLS * SPARSE_LOAD_FACTOR)) + 2)


def new_index(limit: int) -> Index:
    """Return an empty index that can hold `limit` keys."""
    return made(Index, buckets=buckets_of(limit))


def make_sparse(index: Index) -> None:
    """Let an empty index fill no more than `SPARSE_LOAD_FACTOR` of its cells: insertions are then quicker."""
    index.size[Size.FILLED] = FILLED_SPARSE


@compiled
def _bucket(index: Index, hashed: int) -> int:
    """Return the bucket of 32 hashed bits: those already split look one bit further."""
    base = index.size[Size.BASE]
    bucket = hashed & (2 * base - 1)
    return bucket if bucket < index.size[Size.BUCKETS] else bucket - base  # type: ignore[no-any-return]


@compiled
def _first(index: Index, key: int) -> int:
    return _bucket(index, int64(uint64(key) & uint64(0xFFFFFFFF)))


@compiled
def _second(index: Index, key: int) -> int:
    return _bucket(index, int64(uint64(key) >> uint64(32)))


@compiled
def _cell(index: Index, bucket: int, key: int) -> int:
    """Return the cell of a key in a bucket, or -1; key 0 finds an empty cell."""
    wanted = uint64(key)  # compared with a signed integer, it would be as a float
    keys = index.keys[bucket]
    found = int64(-1)
    for cell in range(BUCKET_CELLS):  # without an early exit all cells are compared at once
        found = max(found, cell if keys[cell] == wanted else -1)
    return found


@compiled
def _located(index: Index, key: int) -> tuple[int, int]:
    """Return the bucket and the cell of a key; the cell is -1 where it is in neither of its buckets."""
    bucket = _first(index, key)
    cell = _cell(index, bucket, key)
    if cell < 0:
        bucket = _second(index, key)
        cell = _cell(index, bucket, key)
    return bucket, cell


@compiled
def find(index: Index, key: int) -> int:
    """Return the row of a key, or -1."""
    bucket, cell = _located(index, key)
    if cell >= 0:
        return index.rows[bucket, cell] - 1  # type: ignore[no-any-return]
    for place in range(index.size[Size.STASHED]):
        if index.stash_keys[place] == uint64(key):
            return index.stash_rows[place] - 1  # type: ignore[no-any-return]
    return -1


@compiled
def prefetch_key(index: Index, key: int) -> None:
    """Ask for the memory in which `find` will look for a key."""
    prefetch(index.keys, _first(index, key))
    prefetch(index.keys, _second(index, key))


@compiled
def _put(index: Index, bucket: int, key: int, row: int) -> bool:
    cell = _cell(index, bucket, uint64(0))
    if cell < 0:
        return False
    index.keys[bucket, cell] = key
    index.rows[bucket, cell] = row + 1
    return True


@compiled
def _place(index: Index, key: int, row: int) -> bool:
    """Put a key into one of its buckets, moving others to theirs, else into the stash; False where that is full."""
    first = _first(index, key)
    if _put(index, first, key, row) or _put(index, _second(index, key), key, row):
        return True
    for turn in range(TURNS):
        bucket = first if turn % 2 == 0 else _second(index, key)
        is_placed, moving_key, moving_row = _move_others(index, bucket, key, row, turn)
        if is_placed:
            return True
        place = index.size[Size.STASHED]
        if place < STASH_CELLS:
            index.stash_keys[place] = moving_key
            index.stash_rows[place] = moving_row + 1
            index.size[Size.STASHED] += 1
            return True
        for kick in range(KICKS - 1, -1, -1):  # nobody else may lose a place to a key that finds none
            bucket = index.path[kick] // BUCKET_CELLS
            cell = index.path[kick] % BUCKET_CELLS
            moving_key, moving_row = _swap(index, bucket, cell, moving_key, moving_row)
    return False


@compiled
def _move_others(index: Index, bucket: int, key: int, row: int, turn: int) -> tuple[bool, int, int]:
    """Put a key into a full bucket and what was there elsewhere, and so on; return whether all found a place.

    Also the key and the row that found none. Keys that fill both of their buckets let none out: another `turn` goes
    another way.
    """
    moving_key = uint64(key)
    moving_row = row
    for kick in range(KICKS):
        cell = (int64(moving_key >> uint64(17)) + kick + turn) % BUCKET_CELLS
        index.path[kick] = bucket * BUCKET_CELLS + cell
        moving_key, moving_row = _swap(index, bucket, cell, moving_key, moving_row)
        other = _first(index, moving_key)
        bucket = _second(index, moving_key) if other == bucket else other
        if _put(index, bucket, moving_key, moving_row):
            return True, moving_key, moving_row
    return False, moving_key, moving_row


@compiled
def _swap(index: Index, bucket: int, cell: int, key: int, row: int) -> tuple[int, int]:
    """Put a key into a cell and return what was there."""
    moved_key = index.keys[bucket, cell]
    moved_row = int64(index.rows[bucket, cell]) - 1
    index.keys[bucket, cell] = key
    index.rows[bucket, cell] = row + 1
    return moved_key, moved_row


@compiled
def _split(index: Index) -> None:
    """Split the next bucket in two, moving the keys that now belong to the new one."""
    base = index.size[Size.BASE]
    old = index.size[Size.BUCKETS] - base
    new = index.size[Size.BUCKETS]
    prefetch(index.keys, min(old + AHEAD, new))  # what splits a few insertions from now
    index.size[Size.BUCKETS] += 1
    for cell in range(BUCKET_CELLS):
        key = index.keys[old, cell]
        if key != 0 and _first(index, key) != old and _second(index, key) != old:
            _put(index, new, key, index.rows[old, cell] - 1)
            index.keys[old, cell] = 0
            index.rows[old, cell] = 0
    if index.size[Size.BUCKETS] == 2 * base:
        index.size[Size.BASE] = 2 * base


@compiled
def _unstash(index: Index) -> None:
    """Try once more to place what is in the stash."""
    waiting = index.size[Size.STASHED]
    place = 0
    while place < waiting:
        key = index.stash_keys[place]
        row = index.stash_rows[place] - 1
        if _put(index, _first(index, key), key, row) or _put(index, _second(index, key), key, row):
            waiting -= 1
            index.stash_keys[place] = index.stash_keys[waiting]
            index.stash_rows[place] = index.stash_rows[waiting]
            index.stash_keys[waiting] = 0
            index.stash_rows[waiting] = 0
        else:
            place += 1
    index.size[Size.STASHED] = waiting
    if waiting > 0:  # one of the others may find a way by moving keys; which one, goes round
        key = index.stash_keys[0]
        row = index.stash_rows[0] - 1
        index.stash_keys[0] = index.stash_keys[waiting - 1]
        index.stash_rows[0] = index.stash_rows[waiting - 1]
        index.stash_keys[waiting - 1] = 0
        index.stash_rows[waiting - 1] = 0
        index.size[Size.STASHED] = waiting - 1
        _place(index, key, row)


@compiled
def insert(index: Index, key: int, row: int) -> bool:
    """Add a key that is absent; False where crafted keys fill its buckets and the stash: it then gets no row."""
    if 100 * (index.size[Size.COUNT] + 1) > index.size[Size.FILLED] * BUCKET_CELLS * index.size[Size.BUCKETS]:
        if index.size[Size.BUCKETS] < index.keys.shape[0]:
            _split(index)
        if index.size[Size.STASHED] > 0:
            _unstash(index)
    if not _place(index, uint64(key), row):
        return False
    index.size[Size.COUNT] += 1
    return True


@compiled
def remove(index: Index, key: int) -> None:
    """Take a key out; nothing happens where it is absent."""
    bucket, cell = _located(index, key)
    if cell >= 0:
        index.keys[bucket, cell] = 0
        index.rows[bucket, cell] = 0
        index.size[Size.COUNT] -= 1
        return
    for place in range(index.size[Size.STASHED]):
        if index.stash_keys[place] == uint64(key):
            last = index.size[Size.STASHED] - 1
            index.stash_keys[place] = index.stash_keys[last]
            index.stash_rows[place] = index.stash_rows[last]
            index.stash_keys[last] = 0
            index.stash_rows[last] = 0
            index.size[Size.STASHED] = last
            index.size[Size.COUNT] -= 1
            return

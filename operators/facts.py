"""Facts about items and users: values for the fields that an impression or a candidate does not bring.

The facts of one item, or of one user, are kept packed: one entry a field, in the order of the fields' places,

    place uint8, count uint16, length uint32, count keys uint64, length bytes of text

with numbers in little-endian order. The keys are what the learner needs. The text, `"author":"a3"`, is what examples
need. An event's facts come packed the same way, and a count of `REMOVED` there removes a field's fact.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import features
from thalweg.operators.features import Given
from thalweg.operators.machine.compiled import compiled, int64, uint64
from thalweg.operators.machine.declare import Int32, part, per, side_by_side
from thalweg.operators.machine.lanes import copy_bytes
from thalweg.operators.pages import Moment
from thalweg.operators.structures import index, recency, table, texts
from thalweg.operators.structures.table import Table
from thalweg.operators.structures.texts import BLOCK_BYTES, Texts
from thalweg.schemas.bounds import ROWS_MAX, check, within

HEAD = struct.Struct("<BHI")
HEAD_BYTES, KEY_BYTES = HEAD.size, 8
REMOVED = 0xFFFF
TOO_MANY, NO_ROW = -1, -2
COMMA, BRACE = ord(","), ord("{")
PLACES = 64  # of fields, as `features.fields_limit` has them: one bit each


@dataclass(frozen=True, kw_only=True, slots=True)
class FactsConfiguration:
    """Facts about items and users (`[facts]`).

    `items_limit`: items with facts at most; at the limit those of the item whose facts were not used for longest make
    room. `owner_bytes`: what the facts of one item, or of one user, may take; a fact event beyond it is dead-lettered.
    `items_bytes`, `users_bytes`: what the facts of all items, and of all users, may take; at the limit those that were
    not used for longest make room.
    """

    items_limit: Annotated[int, within(2, ROWS_MAX)] = 1 << 20
    owner_bytes: Annotated[int, within(BLOCK_BYTES, 1 << 16)] = 2_048
    items_bytes: Annotated[int, within(1 << 16, ROWS_MAX * BLOCK_BYTES)] = 1 << 29
    users_bytes: Annotated[int, within(1 << 16, ROWS_MAX * BLOCK_BYTES)] = 1 << 29

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds."""
        check(self)

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the facts' arrays."""
        return {
            "fact_items": self.items_limit,
            "owner_bytes": self.owner_bytes,
            "item_fact_blocks": self.items_bytes // BLOCK_BYTES,
            "user_fact_blocks": self.users_bytes // BLOCK_BYTES,
        }


@side_by_side()
class Held(NamedTuple):
    """The packed facts of each owner."""

    length: Annotated[Int32, per("owners", "bytes of its facts", text="text", upto="owner_bytes")]
    text: Annotated[Int32, per("owners", "first block + 1 of its facts", digest=False)]
    texts: Annotated[Texts, part()]


class Facts(NamedTuple):
    """What is known of items and users, besides what the log's events say."""

    items: Annotated[Table, part(rows="fact_items", rows_limit="fact_items", lists=1)]
    of_items: Annotated[Held, part(owners="fact_items", blocks="item_fact_blocks")]
    of_users: Annotated[Held, part(owners="users", blocks="user_fact_blocks")]
    older: Annotated[Int32, per("users", "its neighbour by last use of its facts + 1", digest=False)]
    newer: Annotated[Int32, per("users", "its neighbour by last use of its facts + 1", digest=False)]
    ends: Annotated[Int32, per("2", "users whose facts were used first and last, + 1", digest=False)]


class Size(IntEnum):
    """The numbers of `Filling.sizes`.

    Bytes of the facts' text; bytes of it that there is room for; facts left out; bytes of the whole text, 0 where no
    fact fills in; values that there is room for.
    """

    TEXT = 0
    ROOM = 1
    LEFT_OUT = 2
    WHOLE = 3
    VALUES_LIMIT = 4


class Filling(NamedTuple):
    """What facts add to the values of one impression or candidate, scratch.

    `brought` uint64 [1]: a bit for each field that is there, be it as an empty list. `sizes` int64: `Size`. `pieces`,
    `text` uint8: the text of the facts, a comma before each, and the whole text that is kept. `old`, `merged` uint8
    [owner_bytes].
    """

    brought: npt.NDArray[np.uint64]
    sizes: npt.NDArray[np.int64]
    pieces: npt.NDArray[np.uint8]
    text: npt.NDArray[np.uint8]
    old: npt.NDArray[np.uint8]
    merged: npt.NDArray[np.uint8]


def new_filling(values_limit: int, kept_bytes: int, owner_bytes: int) -> Filling:
    """Return scratch for at most `values_limit` values and `kept_bytes` of text."""
    sizes = np.zeros(len(Size), np.int64)
    sizes[Size.VALUES_LIMIT] = values_limit
    return Filling(
        np.zeros(1, np.uint64),
        sizes,
        np.zeros(2 * owner_bytes, np.uint8),
        np.zeros(kept_bytes, np.uint8),
        np.zeros(owner_bytes, np.uint8),
        np.zeros(owner_bytes, np.uint8),
    )


# Entries


@compiled
def count_at(packed: npt.NDArray[np.uint8], at: int) -> int:
    """Return how many keys the entry at a place has, or `REMOVED`."""
    return int64(packed[at + 1]) | int64(packed[at + 2]) << 8


@compiled
def length_at(packed: npt.NDArray[np.uint8], at: int) -> int:
    """Return how many bytes of text the entry at a place has."""
    length = int64(0)
    for i in range(4):
        length |= int64(packed[at + 3 + i]) << (8 * i)
    return length


@compiled
def key_at(packed: npt.NDArray[np.uint8], at: int) -> int:
    """Return the key whose eight bytes begin at a place."""
    key = uint64(0)
    for i in range(KEY_BYTES):
        key |= uint64(packed[at + i]) << uint64(8 * i)
    return key


@compiled
def entry_bytes(packed: npt.NDArray[np.uint8], at: int) -> int:
    """Return how long the entry at a place is."""
    count = count_at(packed, at)
    keys = 0 if count == REMOVED else count
    return HEAD_BYTES + KEY_BYTES * keys + length_at(packed, at)


@compiled
def merge(
    old: npt.NDArray[np.uint8],
    old_end: int,
    new: npt.NDArray[np.uint8],
    start: int,
    end: int,
    out: npt.NDArray[np.uint8],
) -> int:
    """Write old entries to `out`, those of `new[start:end]` in their places, and return their bytes, or `TOO_MANY`."""
    at, size = int64(0), int64(0)
    while at < old_end or start < end:
        if start >= end or (at < old_end and old[at] < new[start]):
            length = entry_bytes(old, at)
            if size + length > out.shape[0]:
                return TOO_MANY
            copy_bytes(out, size, old, at, length)
            size += length
            at += length
            continue
        if at < old_end and old[at] == new[start]:
            at += entry_bytes(old, at)
        length = entry_bytes(new, start)
        if count_at(new, start) != REMOVED:
            if size + length > out.shape[0]:
                return TOO_MANY
            copy_bytes(out, size, new, start, length)
            size += length
        start += length
    return size


@compiled
def is_packed(packed: npt.NDArray[np.uint8], at: int, end: int, places: int) -> bool:
    """Return whether `packed[at:end]` is whole entries of fields below `places`, in their order."""
    before = int64(-1)
    while at < end:
        if at + HEAD_BYTES > end or int64(packed[at]) <= before or int64(packed[at]) >= places:
            return False
        if count_at(packed, at) == REMOVED:
            return False
        before = int64(packed[at])
        at += entry_bytes(packed, at)
    return bool(at == end)


@compiled
def are_packed(packed: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int32], places: int) -> bool:
    """Return whether `packed` is the packed facts of owners, one behind the other, of these `lengths`."""
    at = int64(0)
    for i in range(lengths.shape[0]):
        if not is_packed(packed, at, at + int64(lengths[i]), places):
            return False
        at += int64(lengths[i])
    return True


# Writing


@compiled
def drop(held: Held, owner: int) -> None:
    """Forget what is kept of an owner, and leave no byte of it."""
    texts.release_text(held.texts, int64(held.text[owner]))
    held.text[owner] = 0
    held.length[owner] = 0


@compiled
def merge_into(held: Held, owner: int, new: npt.NDArray[np.uint8], start: int, end: int, filling: Filling) -> int:
    """Write what an owner, -1 for a new one, has after `new[start:end]` to `filling.merged`; return its bytes."""
    length = int64(0)
    if owner >= 0:
        length = int64(held.length[owner])
        texts.read_text(held.texts, int64(held.text[owner]), length, filling.old, 0)
    return merge(filling.old, length, new, start, end, filling.merged)


@compiled
def keep(held: Held, owner: int, packed: npt.NDArray[np.uint8], size: int) -> None:
    """Keep `packed[:size]`, for which there is room, of an owner of whom nothing is kept."""
    held.text[owner] = texts.write_text(held.texts, packed, 0, size)
    held.length[owner] = size


@compiled
def write_item(
    facts: Facts, key: int, new: npt.NDArray[np.uint8], start: int, end: int, filling: Filling, now_ms: int
) -> tuple[int, int]:
    """Take facts about the item of a key; return their bytes, and of how many items room was made.

    Bytes are `TOO_MANY` beyond the limit of an item, and `NO_ROW` where crafted keys fill the index.
    """
    item = index.find(facts.items.lookup, key)
    size = merge_into(facts.of_items, item, new, start, end, filling)
    evicted = int64(0)
    if size < 0:
        return size, evicted
    if item >= 0:
        drop(facts.of_items, item)
        table.update_row(facts.items, item, now_ms)
        if size == 0:
            table.release_row(facts.items, item)
    if size == 0:
        return size, evicted
    if item < 0:
        if table.is_full(facts.items):
            evicted += evict_items(facts)
        item = table.claim_row(facts.items, key, 0, now_ms)
        if item < 0:
            return NO_ROW, evicted
    while not texts.has_room(facts.of_items.texts, size):
        evicted += evict_items(facts)
    keep(facts.of_items, item, filling.merged, size)
    return size, evicted


@compiled
def evict_items(facts: Facts) -> int:
    """Forget the facts that were not used for longest, with those that the same page used last; return of how many."""
    evicted = int64(0)
    item = table.oldest_row(facts.items)
    page = facts.items.page[item]
    while item >= 0:
        forget_item(facts, item)
        evicted += 1
        item = table.next_of_page(facts.items, 0, page)
    return evicted


@compiled
def forget_item(facts: Facts, item: int) -> None:
    """Forget the facts about an item."""
    drop(facts.of_items, item)
    table.release_row(facts.items, item)


@compiled
def write_user(
    facts: Facts, user: int, new: npt.NDArray[np.uint8], start: int, end: int, filling: Filling
) -> tuple[int, int]:
    """Take facts about a user; return their bytes, or `TOO_MANY`, and of how many users room was made."""
    size = merge_into(facts.of_users, user, new, start, end, filling)
    evicted = int64(0)
    if size < 0:
        return size, evicted
    forget_user(facts, user)
    if size > 0:
        while not texts.has_room(facts.of_users.texts, size):
            forget_user(facts, recency.oldest(facts.ends))
            evicted += 1
        keep(facts.of_users, user, filling.merged, size)
        recency.link(facts.older, facts.newer, facts.ends, user)
    return size, evicted


@compiled
def forget_user(facts: Facts, user: int) -> None:
    """Forget the facts about a user."""
    if facts.of_users.length[user] > 0:
        recency.unlink(facts.older, facts.newer, facts.ends, user)
        drop(facts.of_users, user)


# Reading


@compiled
def begin(filling: Filling, brought: int, length: int) -> None:
    """Start with what an event brings itself: the bits of its fields, and a text of `length` bytes."""
    sizes = filling.sizes
    filling.brought[0] = brought
    sizes[Size.TEXT], sizes[Size.LEFT_OUT], sizes[Size.WHOLE] = 0, 0, 0
    sizes[Size.ROOM] = filling.text.shape[0] - length


@compiled
def find_item(facts: Facts, key: int) -> int:
    """Return the row of the facts about the item of a key, or -1."""
    return index.find(facts.items.lookup, key)


@compiled
def fill(facts: Facts, filling: Filling, given: Given, user: int, item: int) -> None:
    """Add to the values given the facts about a user, then about an item, for fields that are not there.

    `item` is the row that `find_item` found; -1 is none of either. Nothing of the state is changed.
    """
    if user >= 0 and facts.of_users.length[user] > 0:
        fill_from(facts.of_users, user, filling, given)
    if item >= 0:
        fill_from(facts.of_items, item, filling, given)


@compiled
def mark_used(facts: Facts, user: int, item: int, moment: Moment) -> None:
    """Mark the facts about a user and an item as used on a page; -1 is none of either."""
    if user >= 0 and facts.of_users.length[user] > 0:
        recency.unlink(facts.older, facts.newer, facts.ends, user)
        recency.link(facts.older, facts.newer, facts.ends, user)
    if item >= 0:
        table.update_row(facts.items, item, moment.now_ms)
        facts.items.page[item] = table.tag_of(moment.page)


@compiled
def bit_of(place: int) -> int:
    """Return the bit of a field's place."""
    return uint64(1) << uint64(place)


@compiled
def fill_from(held: Held, owner: int, filling: Filling, given: Given) -> None:
    """Add what is kept of an owner for fields that are not there; a fact that has no room is left out."""
    end = int64(held.length[owner])
    texts.read_text(held.texts, int64(held.text[owner]), end, filling.old, 0)
    at = int64(0)
    while at < end:
        if filling.brought[0] & bit_of(int64(filling.old[at])) == uint64(0):
            add_entry(filling, given, at)
        at += entry_bytes(filling.old, at)


@compiled
def add_entry(filling: Filling, given: Given, at: int) -> None:
    """Add the fact at a place of `filling.old`."""
    sizes, packed = filling.sizes, filling.old
    place, count, length = int64(packed[at]), count_at(packed, at), length_at(packed, at)
    if given.size[0] + count > sizes[Size.VALUES_LIMIT] or sizes[Size.TEXT] + 1 + length > sizes[Size.ROOM]:
        sizes[Size.LEFT_OUT] += 1
        return
    filling.brought[0] |= bit_of(place)
    for i in range(count):
        features.give(given, place, key_at(packed, at + HEAD_BYTES + KEY_BYTES * i))
    filling.pieces[sizes[Size.TEXT]] = COMMA
    copy_bytes(filling.pieces, sizes[Size.TEXT] + 1, packed, at + HEAD_BYTES + KEY_BYTES * count, length)
    sizes[Size.TEXT] += 1 + length


@compiled
def write_whole_text(filling: Filling, text: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Write an event's own text, which has room, and the facts' behind it to `filling.text`; return its bytes."""
    own = end - start
    copy_bytes(filling.text, 0, text, start, own)
    first = 1 if own > 0 and text[end - 1] == BRACE else 0  # no comma behind an opening brace
    pieces = max(filling.sizes[Size.TEXT] - first, 0)
    copy_bytes(filling.text, own, filling.pieces, first, pieces)
    filling.sizes[Size.WHOLE] = own + pieces
    return own + pieces  # type: ignore[no-any-return]

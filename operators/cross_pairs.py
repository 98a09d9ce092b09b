"""The pairs that the cross network counts: of user and item with the values of other fields, by their own keys.

A pair has a row of a table, as values have. At the limit the one that was not shown for longest makes room, with those
that its page was the last to show.
"""

import numpy as np
import numpy.typing as npt
from thalweg.operators.cross import Cross, CrossScratch, paired_of, recent_of
from thalweg.operators.features import ITEM, USER
from thalweg.operators.machine.compiled import compiled, int64, uint64
from thalweg.operators.machine.declare import wiper
from thalweg.operators.machine.hashing import cross as cross_key
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.pages import Moment
from thalweg.operators.structures import index, ownership, table

PAIR_SALT = 0xC506

wipe_pair = wiper(Cross, "cross_pairs", but=("pairs", "owners"))


@compiled
def forget_pair(cross: Cross, pair: int) -> None:
    """Free a pair."""
    ownership.detach(cross.owners, pair)
    table.release_row(cross.pairs, pair)
    wipe_pair(cross, pair)


@compiled
def forget_pairs(cross: Cross, user: int) -> None:
    """Free all pairs that are a user's alone."""
    while True:
        pair = ownership.first_of(cross.owners, user)
        if pair < 0:
            return
        forget_pair(cross, pair)


@compiled
def evict_pairs(cross: Cross) -> None:
    """Free the pair that was not shown for longest, with those that its page was the last to show."""
    pair = table.oldest_row(cross.pairs)
    page = cross.pairs.page[pair]
    while pair >= 0:
        forget_pair(cross, pair)
        cross.pairs.counts[table.Loss.EVICTED] += 1
        pair = table.next_of_page(cross.pairs, 0, page)


@compiled
def _resolve_pair(cross: Cross, key: int, owner: int, moment: Moment, is_kept: bool) -> int:
    """Return a pair's row, made where it is new and kept; `owner` is the user whose alone it is, or -1."""
    pair = index.find(cross.pairs.lookup, key)
    if pair >= 0 or not is_kept:
        return pair
    if table.is_full(cross.pairs):
        evict_pairs(cross)
    pair = table.claim_row(cross.pairs, key, 0, moment.now_ms)
    if pair < 0:
        return pair
    cross.pairs.page[pair] = table.tag_of(moment.page)
    if owner >= 0:
        ownership.attach(cross.owners, owner, pair)
    return pair


@compiled
def resolve_pairs(
    cross: Cross,
    scratch: CrossScratch,
    slot: int,
    rows: npt.NDArray[np.int32],
    keys: npt.NDArray[np.uint64],
    user: int,
    moment: Moment,
    is_kept: bool,
) -> None:
    """Resolve the pairs of an impression to rows, and remember them in its slot; one that is not kept makes none.

    `rows` [values]: user and item first; `keys` [fields or more], the first value of each field or 0.
    """
    for which in range(2):
        _write_keys(cross, scratch, which, rows, keys)
    for place in range(cross.pairs_seen.row.shape[1]):
        _put_pair(cross, scratch, slot, place, user if place % 2 == USER else int64(-1), moment, is_kept)


@compiled
def resolve_shared_pairs(
    cross: Cross,
    scratch: CrossScratch,
    slot: int,
    rows: npt.NDArray[np.int32],
    keys: npt.NDArray[np.uint64],
    moment: Moment,
    is_kept: bool,
) -> None:
    """Resolve the pairs of an impression's item, the user's left as they are; those that are not kept make none."""
    _write_keys(cross, scratch, ITEM, rows, keys)
    for place in range(ITEM, cross.pairs_seen.row.shape[1], 2):
        _put_pair(cross, scratch, slot, place, int64(-1), moment, is_kept)


@compiled
def _write_keys(
    cross: Cross, scratch: CrossScratch, which: int, rows: npt.NDArray[np.int32], keys: npt.NDArray[np.uint64]
) -> None:
    """Write the keys of the pairs of the user or the item, and ask for where they are."""
    recent = recent_of(scratch.values)
    for field in range(2, paired_of(scratch)):
        key = uint64(0)
        if rows[which] >= 0 and (which == ITEM or field < recent):
            key = pair_key(which, keys[which], keys[field])
        if key != uint64(0):
            index.prefetch_key(cross.pairs.lookup, key)
        scratch.keys[2 * (field - 2) + which] = key


@compiled
def pair_key(which: int, key: int, other: int) -> int:
    """Return the key of the pair of the user or the item with another value; 0 where this is none."""
    return uint64(0) if other == uint64(0) else cross_key(key, other, uint64(PAIR_SALT + which))


@compiled
def _put_pair(
    cross: Cross, scratch: CrossScratch, slot: int, place: int, owner: int, moment: Moment, is_kept: bool
) -> None:
    """Resolve one pair, and remember it in an impression's slot."""
    seen = cross.pairs_seen
    pair = int64(-1)
    if scratch.keys[place] != uint64(0):
        pair = int64(_resolve_pair(cross, scratch.keys[place], owner, moment, is_kept))
        prefetch_pair(cross, pair)
    seen.row[slot, place] = pair
    seen.generation[slot, place] = cross.pairs.generation[pair] if pair >= 0 else np.uint32(0)


@compiled
def see_no_pairs(cross: Cross, slot: int) -> None:
    """Note that a slot has no pairs."""
    seen = cross.pairs_seen
    for place in range(seen.row.shape[1]):
        seen.row[slot, place] = -1


@compiled
def prefetch_pair(cross: Cross, pair: int) -> None:
    """Ask for what is read of a pair; -1 is none."""
    if pair >= 0:
        prefetch(cross.counted.page, pair)
        prefetch(cross.pairs.key, pair)  # and what else the table has of it
        if cross.of_heads.shape[1] > 0:
            prefetch(cross.of_heads, pair)


@compiled
def prefetch_pairs(cross: Cross, slot: int) -> None:
    """Ask for the pairs of a waiting impression."""
    for place in range(cross.pairs_seen.row.shape[1]):
        prefetch_pair(cross, int64(cross.pairs_seen.row[slot, place]))

"""Whether arrays are a state that the fold could have left: asked once of every checkpoint, before compiled code runs.

Compiled code checks no bounds. It keeps within its arrays because what it left there before is consistent: row numbers
lie below what was ever used, every chain ends, nothing is owned twice, what is free is nowhere remembered as current. A
crafted file breaks that at will, so all of it is verified here, over whole arrays; numbers that index nothing may be
anything.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import field_names
from thalweg.operators.joiner import CLOSED, EARLY, FREE, WAITING, Waiting, list_feedback
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.sdim import UNIT_MAX
from thalweg.operators.structures.deadlines import Deadlines
from thalweg.operators.structures.index import FIRST_BUCKETS, STASH_CELLS, Index
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.pool import EVER_USED, FREED, Pool
from thalweg.operators.structures.table import Table
from thalweg.operators.structures.texts import BLOCK_BYTES

Array = npt.NDArray[Any]


class InconsistentError(ValueError):
    """Arrays that no fold could have left."""


def require(holds: Any, what: str) -> None:
    """Raise InconsistentError where something does not hold."""
    if not holds:
        raise InconsistentError(f"{what} contradict each other")


def within(array: Array, low: int, high: int) -> bool:
    """Tell whether all numbers lie within low to high, both included."""
    return not array.size or (int(array.min()) >= low and int(array.max()) <= high)


def equal(left: Array, right: Array) -> bool:
    """Tell whether two arrays have the same shape and numbers, which costs small ones less than `np.array_equal`."""
    return left.shape == right.shape and bool((left == right).all())


@compiled
def walk(following: npt.NDArray[np.int32], first: int, seen: npt.NDArray[np.uint8]) -> int:
    """Follow a chain (row + 1, 0 ends it), mark each row seen and return how many there are.

    -1 where the chain leaves the array or comes to a row that was seen before.
    """
    count = int64(0)
    row = int64(first)
    while row != 0:
        if row < 0 or row > seen.shape[0] or seen[row - 1] != 0:
            return -1
        seen[row - 1] = 1
        count += 1
        row = int64(following[row - 1])
    return count


@compiled
def walk_all(
    following: npt.NDArray[np.int32],
    first: npt.NDArray[np.int32],
    lengths: npt.NDArray[np.int64],
    seen: npt.NDArray[np.uint8],
) -> bool:
    """Follow a chain from each `first` [n] and tell whether each has the length of `lengths` [n] and none meet."""
    whole = True
    for i in range(first.shape[0]):
        whole = whole and walk(following, int64(first[i]), seen) == lengths[i]
    return whole


def refuse_sizes(state: Any) -> None:
    """Raise InconsistentError where counts of what was used do not fit the arrays: `used` cuts by them."""
    histories, waiting = state.behaviors.histories, state.waiting
    pools = {
        "features": state.features.pool,
        "users": state.users.pool,
        "histories": histories.pool,
        "waiting": waiting.pool,
        "feedbacks": waiting.feedbacks.pool,
        "texts": waiting.texts.pool,
    }
    for name, pool in pools.items():
        ever, freed = int(pool.counts[EVER_USED]), int(pool.counts[FREED])
        require(0 <= freed <= ever <= len(pool.freed), f"counts of {name}")
        require(within(pool.freed[:freed], 0, ever - 1), f"freed rows of {name}")
    for name, index in (("features", state.features), ("users", state.users), ("waiting", waiting)):
        count, buckets, base, stashed = (int(size) for size in index.lookup.size)
        rounds = base // FIRST_BUCKETS
        require(
            base >= FIRST_BUCKETS
            and base == rounds * FIRST_BUCKETS
            and rounds & (rounds - 1) == 0
            and base <= buckets < 2 * base
            and buckets <= len(index.lookup.keys)
            and 0 <= stashed <= STASH_CELLS
            and count >= 0,
            f"sizes of the index of {name}",
        )


def refuse_inconsistent(state: Any, configuration: Configuration) -> None:
    """Raise InconsistentError where a state is none that the fold could have left; `refuse_sizes` comes before."""
    declared = configuration.features.declared_fields()
    require(tuple(field_names(state.names)[: len(declared)]) == declared, "the names of fields")
    require(within(state.clock.suspects, 0, len(state.clock.suspect_users)), "the clock's suspects")
    waiting, features, users = state.waiting, state.features, state.users
    slots = int(waiting.pool.counts[EVER_USED])
    refuse_table("features", features)
    refuse_table("users", users)
    in_use = waiting.status[:slots] != FREE
    require(within(waiting.status[:slots], FREE, CLOSED), "states of waiting impressions")
    refuse_pool("waiting", waiting.pool, in_use)
    refuse_index("waiting", waiting.lookup, waiting.key[:slots], in_use)
    refuse_owned("rows", state.private, users, owned_of(features))
    refuse_owned("impressions", waiting.users, users, in_use)
    require(equal(waiting.users.owner[:slots] != 0, in_use), "owners of impressions")
    refuse_links(features, owned_of(features))
    known = owned_of(users)
    refuse_links(users, known & (waiting.users.first[: len(known)] == 0))
    due = (waiting.status[:slots] == EARLY) | (waiting.status[:slots] == WAITING)
    refuse_deadlines("deadlines", waiting.deadlines, np.flatnonzero(due), slots)
    provisional = waiting.provisional.place[:slots] > 0
    require(not np.any(provisional & (waiting.status[:slots] != WAITING)), "provisional deadlines")
    refuse_deadlines("provisional deadlines", waiting.provisional, np.flatnonzero(provisional), slots)
    closed = waiting.status[:slots] == CLOSED
    refuse_order("closed impressions", waiting.older, waiting.newer, waiting.ends, closed, slots)
    refuse_kept(waiting, configuration, slots)
    refuse_held(waiting, in_use, len(known))
    refuse_behaviors(state)
    refuse_seen(state, configuration, slots)


def owned_of(table: Table) -> Array:
    """Return which of the rows ever used have a key."""
    owned: Array = table.key[: int(table.pool.counts[EVER_USED])] != 0
    return owned


def refuse_pool(name: str, pool: Pool, in_use: Array) -> None:
    """Raise InconsistentError where the free rows are not exactly those that are not in use [ever used]."""
    freed = pool.freed[: int(pool.counts[FREED])]
    marked = np.zeros(len(in_use), bool)
    marked[freed] = True
    require(np.count_nonzero(marked) == len(freed) and equal(marked, ~in_use), f"free and used {name}")


def refuse_table(name: str, table: Table) -> None:
    """Raise InconsistentError where keys, rows and index of a table do not belong together."""
    ever = int(table.pool.counts[EVER_USED])
    in_use = owned_of(table)
    refuse_pool(name, table.pool, in_use)
    refuse_index(name, table.lookup, table.key[:ever], in_use)
    require(within(table.list_of[:ever], 0, len(table.ends) - 1), f"lists of {name}")
    require(within(table.linked[:ever], 0, 1), f"pinned {name}")


def refuse_index(name: str, index: Index, key: Array, in_use: Array) -> None:
    """Raise InconsistentError where an index does not lead from each key in use, and no other, to its row."""
    count, buckets, base, stashed = (int(size) for size in index.size)
    what = f"index and keys of {name}"
    cells = np.flatnonzero(index.keys[:buckets])
    bucket = cells // index.keys.shape[1]
    keys = np.concatenate([index.keys[:buckets].ravel()[cells], index.stash_keys[:stashed]])
    rows = np.concatenate([index.rows[:buckets].ravel()[cells], index.stash_rows[:stashed]]).astype(np.int64) - 1
    require(len(keys) == count == np.count_nonzero(in_use), what)
    require(within(rows, 0, len(key) - 1), what)
    require(equal(key[rows], keys) and keys.all() and in_use[rows].all(), what)
    marked = np.zeros(len(key), bool)
    marked[rows] = True
    ordered = np.sort(keys)
    require(equal(marked, in_use) and (ordered[1:] != ordered[:-1]).all(), what)
    placed = keys[: len(cells)]
    halves = (placed & np.uint64(0xFFFFFFFF), placed >> np.uint64(32))
    first, second = (places_of(half.astype(np.int64), base, buckets) for half in halves)
    require(np.all((first == bucket) | (second == bucket)), what)


def places_of(hashed: Array, base: int, buckets: int) -> Array:
    """Return the buckets of hashed bits, as the index finds them."""
    bucket = hashed & (2 * base - 1)
    return np.where(bucket < buckets, bucket, bucket - base)


def refuse_links(table: Table, linked: Array) -> None:
    """Raise InconsistentError where a table's lists are not chains of exactly the rows that are to be linked."""
    ever = int(table.pool.counts[EVER_USED])
    require(equal(table.linked[:ever] == 1, linked), "linked and pinned rows")
    lists = table.list_of[:ever]
    filled = np.bincount(lists[linked], minlength=len(table.ends)) > 0
    require(not table.ends[~filled].any(), "ends of lists that are empty")
    for list_of in np.flatnonzero(filled).tolist():
        members = linked & (lists == list_of)
        refuse_order(f"rows of list {list_of}", table.older, table.newer, table.ends[list_of], members, ever)


def refuse_order(what: str, older: Array, newer: Array, ends: Array, members: Array, count: int) -> None:
    """Raise InconsistentError where a doubly linked list from `ends` is not made of exactly its members [count]."""
    require(within(ends, 0, count), f"the ends of {what}")
    for following, first, last in ((newer, ends[0], ends[1]), (older, ends[1], ends[0])):
        seen = np.zeros(count, np.uint8)
        walked = walk(following[:count], int(first), seen)
        require(walked == np.count_nonzero(members) and equal(seen != 0, members), f"the order of {what}")
        require(walked == 0 or following[int(last) - 1] == 0, f"the ends of {what}")
    rows = np.flatnonzero(members)
    after = rows[newer[rows] != 0]
    require(equal(older[newer[after] - 1], after + 1), f"neighbours of {what}")


def refuse_owned(what: str, owned: Owned, owners: Table, things: Array) -> None:
    """Raise InconsistentError where the lists of owners do not hold exactly the things [ever used] that are theirs."""
    has_owner = owned_of(owners)
    count, people = len(things), len(has_owner)
    owner = owned.owner[:count].astype(np.int64)
    first = owned.first[:people].astype(np.int64)
    require(within(owner, 0, people) and within(first, 0, count), f"owners of {what}")
    theirs = np.flatnonzero(owner)
    require(things[theirs].all() and has_owner[owner[theirs] - 1].all(), f"owners of {what}")
    require(np.all(has_owner[np.flatnonzero(first)]), f"owners of {what}")
    seen = np.zeros(count, np.uint8)
    lengths = np.bincount(owner[theirs] - 1, minlength=people).astype(np.int64)
    require(walk_all(owned.next[:count], owned.first[:people], lengths, seen), f"lists of owned {what}")
    require(equal(owned.held[:people], lengths), f"counts of owned {what}")
    require(within(owned.last[:people], 0, count), f"lists of owned {what}")
    require(equal(owned.last[:people] == 0, first == 0), f"lists of owned {what}")
    heads = np.flatnonzero(first)
    require(np.all(owned.previous[first[heads] - 1] == 0), f"lists of owned {what}")
    require(equal(owner[first[heads] - 1], heads + 1), f"lists of owned {what}")
    ends = owned.last[heads].astype(np.int64) - 1
    require(np.all(owned.next[ends] == 0) and equal(owner[ends], heads + 1), f"lists of owned {what}")
    linked = theirs[owned.next[theirs] != 0]
    after = owned.next[linked].astype(np.int64) - 1
    require(within(after, 0, count - 1), f"lists of owned {what}")
    require(
        equal(owned.previous[after], linked + 1) and equal(owner[after], owner[linked]),
        f"lists of owned {what}",
    )


def refuse_deadlines(what: str, deadlines: Deadlines, due: Array, slots: int) -> None:
    """Raise InconsistentError where the heap is not one of exactly the impressions that are due."""
    size = int(deadlines.size[0])
    require(size == len(due), what)
    heap = deadlines.heap[:size].astype(np.int64)
    require(within(heap, 0, slots - 1) and equal(np.sort(heap), due), what)
    place = np.zeros(slots, np.int64)
    place[heap] = np.arange(1, size + 1)
    require(equal(deadlines.place[:slots], place), f"places of {what}")
    children = np.arange(1, size)
    child, parent = heap[children], heap[(children - 1) // 2]
    ms, arrival = deadlines.deadline_ms, deadlines.arrival
    later = (ms[child] > ms[parent]) | ((ms[child] == ms[parent]) & (arrival[child] >= arrival[parent]))
    require(np.all(later), f"the order of {what}")


def refuse_kept(waiting: Waiting, configuration: Configuration, slots: int) -> None:
    """Raise InconsistentError where feedback or texts of impressions are not chains of their own, of their length."""
    feedbacks, texts = waiting.feedbacks, waiting.texts
    in_use = np.flatnonzero(waiting.status[:slots] != FREE)
    require(within(waiting.label[in_use], 0, 1), "labels")
    counts = waiting.feedback_count[in_use].astype(np.int64)
    require(within(counts, 0, configuration.joiner.feedbacks_per_impression), "counts of feedback")
    nodes = int(feedbacks.pool.counts[EVER_USED])
    seen = np.zeros(nodes, np.uint8)
    require(walk_all(feedbacks.next[:nodes], waiting.feedback[in_use], counts, seen), "feedback of impressions")
    refuse_pool("feedback", feedbacks.pool, seen != 0)
    known = np.flatnonzero(seen)
    heads = np.concatenate([waiting.text[in_use], feedbacks.text[known]])
    lengths = np.concatenate([waiting.length[in_use], feedbacks.length[known]]).astype(np.int64)
    require(within(lengths, 0, configuration.limits.kept_bytes), "lengths of texts")
    blocks = int(texts.pool.counts[EVER_USED])
    seen = np.zeros(blocks, np.uint8)
    require(walk_all(texts.next[:blocks], heads, (lengths + BLOCK_BYTES - 1) // BLOCK_BYTES, seen), "texts")
    refuse_pool("blocks of text", texts.pool, seen != 0)


def refuse_held(waiting: Waiting, in_use: Array, people: int) -> None:
    """Raise InconsistentError where what each of the users ever used is said to hold is not what the slots in use hold.

    `refuse_kept` comes before.
    """
    feedbacks, slots = waiting.feedbacks, np.flatnonzero(in_use)
    owner, counts = waiting.users.owner[slots].astype(np.int64) - 1, waiting.feedback_count[slots].astype(np.int64)
    nodes = np.zeros(int(counts.sum()), np.int64)
    list_feedback(feedbacks, waiting.feedback[slots], nodes)
    lengths = np.concatenate([waiting.length[slots], feedbacks.length[nodes]]).astype(np.int64)
    owners = np.concatenate([owner, np.repeat(owner, counts)])
    blocks = np.bincount(owners, weights=(lengths + BLOCK_BYTES - 1) // BLOCK_BYTES, minlength=people)
    require(equal(waiting.held_blocks[:people], blocks), "texts that users hold")
    feedback = np.bincount(owner, weights=counts, minlength=people)
    require(equal(waiting.held_feedbacks[:people], feedback), "feedback that users hold")


def refuse_behaviors(state: Any) -> None:
    """Raise InconsistentError where sequences name rows that are none, or histories are not their users'."""
    behaviors, histories = state.behaviors, state.behaviors.histories
    people = int(state.users.pool.counts[EVER_USED])
    items = len(state.features.key)
    require(within(behaviors.row[:people], -1, items - 1), "sequences of users")
    require(not behaviors.counts[:people].size or int(behaviors.counts[:people].min()) >= 0, "lengths of sequences")
    ever = int(histories.pool.counts[EVER_USED])
    history = behaviors.history[:people].ravel().astype(np.int64)
    require(within(history, 0, ever), "histories of users")
    having = np.flatnonzero(history)
    in_use = np.zeros(ever, bool)
    in_use[history[having] - 1] = True
    require(np.count_nonzero(in_use) == len(having), "histories of users")
    refuse_pool("histories", histories.pool, in_use)
    require(equal(histories.owner[history[having] - 1], having + 1), "owners of histories")
    kinds = max(1, behaviors.history.shape[1])
    require(np.all(owned_of(state.users)[having // kinds]), "owners of histories")
    require(within(histories.unit[:ever], 0, UNIT_MAX), "units of histories")
    require(within(histories.current[:ever], 0, histories.lengths.shape[1] - 1), "generations of histories")
    refuse_order("histories", histories.older, histories.newer, histories.ends, in_use, ever)


def refuse_seen(state: Any, configuration: Configuration, slots: int) -> None:
    """Raise InconsistentError where what impressions were scored with lies outside, or is free and yet current."""
    seen, features = state.seen, state.features
    items, values = len(features.key), seen.row.shape[1]
    require(within(seen.counts[:slots], 0, values), "counts of values")
    require(within(seen.field[:slots], 0, len(state.learner.pairs) - 1), "fields of values")
    require(within(seen.row[:slots], -1, items - 1), "rows of values")
    memory = configuration.error_memory
    require(within(state.recalled.near[:slots], 0, (1 << memory.bits) - 1), "buckets of errors")
    require(within(state.recalled.keyed[:slots], 0, len(state.memory.keyed)), "keyed buckets of errors")
    scored = np.flatnonzero(state.waiting.status[:slots] >= WAITING)
    row = seen.row[scored].astype(np.int64)
    known = (row >= 0) & (np.arange(values) < seen.counts[scored][:, None])
    at, generation = row[known], seen.generation[scored][known]
    ahead = generation > features.generation[at]
    free = (generation == features.generation[at]) & (features.key[at] == 0)
    require(not np.any(ahead | free), "generations of values")

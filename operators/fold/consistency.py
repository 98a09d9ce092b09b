"""Whether arrays are a state that the fold could have left: asked once of every checkpoint, before compiled code runs.

Compiled code checks no bounds. It keeps within its arrays because what it left there before is consistent: row numbers
lie below what was ever used, every chain ends, nothing is owned twice, what is free is nowhere remembered as current. A
crafted file breaks that at will, so all of it is verified here, over whole arrays; numbers that index nothing may be
anything.
"""

from typing import Any

import numpy as np
from thalweg.operators.clock import Clock
from thalweg.operators.configuration import Configuration
from thalweg.operators.facts import Held, are_packed
from thalweg.operators.fold.state import State, sizes_of
from thalweg.operators.joiner import Status, Waiting, list_feedback
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Array, Int64, UInt8, walk
from thalweg.operators.structures.deadlines import Deadlines
from thalweg.operators.structures.index import FILLED, FILLED_SPARSE, FIRST_BUCKETS, STASH_CELLS, Index, Size
from thalweg.operators.structures.names import field_names
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.pool import Pool
from thalweg.operators.structures.table import Table
from thalweg.operators.structures.texts import BLOCK_BYTES, read_texts

OWNERS_AT_ONCE = 4_096


class InconsistentError(ValueError):
    """Arrays that no fold could have left."""


def require(holds: Any, what: str) -> None:
    """Raise InconsistentError where something does not hold."""
    if not holds:
        raise InconsistentError(f"{what} contradict each other")


def within(array: Array, low: int, high: int) -> bool:
    """Return whether all numbers lie within low to high, both included."""
    return not array.size or (int(array.min()) >= low and int(array.max()) <= high)


def equal(left: Array, right: Array) -> bool:
    """Return whether two arrays have the same shape and numbers, which costs small ones less than `np.array_equal`."""
    return left.shape == right.shape and bool((left == right).all())


@compiled
def follow_chains(following: Int64, first: Int64, lengths: Int64, seen: UInt8) -> bool:
    """Follow a chain (row + 1, 0 ends it) from each `first` [n]. Return whether each has its length and none meet.

    `seen` [rows] is zeros at first, and 1 at the rows of chains then.
    """
    for i in range(first.shape[0]):
        count = 0
        row = first[i]
        while row != 0:
            if row < 0 or row > seen.shape[0] or seen[row - 1] != 0:
                return False
            seen[row - 1] = 1
            count += 1
            row = following[row - 1]
        if count != lengths[i]:
            return False
    return True


@compiled
def follow_lists(first: Int64, last: Int64, following: Int64, previous: Int64, members: Int64) -> int:
    """Return how many rows are in doubly linked lists from `first` to `last` [lists]; -1 where one is not whole.

    `following` and `previous` [rows] are neighbours; `members` [rows]: the list that each row is in. All are + 1, and 0
    is none.
    """
    count = int64(0)
    for number in range(first.shape[0]):
        before = int64(0)
        row = first[number]
        while row != 0:
            if row < 0 or row > members.shape[0] or members[row - 1] != number + 1 or previous[row - 1] != before:
                return -1
            count += 1
            before = row
            row = following[row - 1]
        if last[number] != before:
            return -1
    return count


def refuse_lists(what: str, ends: tuple[Array, Array], neighbours: tuple[Array, Array], members: Array) -> None:
    """Raise InconsistentError where lists, as `follow_lists` has them, are not made of exactly their members."""
    arrays = (np.ascontiguousarray(array, np.int64) for array in (*ends, *neighbours, members))
    require(follow_lists(*arrays) == np.count_nonzero(members), f"lists of {what}")


def refuse_sizes(state: State) -> None:
    """Raise InconsistentError where counts of what was used do not fit the arrays: `used` cuts by them."""
    for each in walk(state):
        name = each.path.split(".")[-3:][0]
        if isinstance(each.owner, Pool) and each.field.used:
            ever, freed = (int(count) for count in each.owner.counts)
            require(0 <= freed <= ever <= len(each.array), f"counts of {name}")
            require(within(each.array[:freed], 0, ever - 1), f"freed rows of {name}")
        elif isinstance(each.owner, Index) and each.field.used:
            count, buckets, base, stashed = (int(size) for size in each.owner.size[: Size.FILLED])
            rounds = base // FIRST_BUCKETS
            is_base = base >= FIRST_BUCKETS and base == rounds * FIRST_BUCKETS and rounds & (rounds - 1) == 0
            is_within = base <= buckets < 2 * base and buckets <= len(each.array) and 0 <= stashed <= STASH_CELLS
            require(is_base and is_within and count >= 0, f"sizes of the index of {name}")


def refuse_ranges(state: State, sizes: dict[Any, Any]) -> None:
    """Raise InconsistentError where numbers are outside of what is declared of them."""
    for path, field, _, array in walk(state):
        low, high = 0, None
        if field.refers:
            low, high = -1, sizes[field.refers] - 1
        elif field.below is not None:
            high = sizes.get(field.below, field.below) - 1
        elif field.upto is not None:
            high = sizes.get(field.upto, field.upto)
        if high is not None and not within(array, low, high):
            raise InconsistentError(f"{path} has numbers outside of {low} to {high}")


def refuse_witnesses(clock: Clock) -> None:
    """Raise InconsistentError where the clock's witnesses are not different users in the order of falling times."""
    count = int(clock.witnesses[0])
    times, turns = clock.witness_ts_ms, clock.witness_turn
    require(len(np.unique(clock.witness[:count])) == count, "the clock's witnesses")
    require(np.all(np.diff(times[:count]) <= 0), "times of the clock's witnesses")
    require(within(turns[:count], 1, int(clock.turns[0])), "turns of the clock's witnesses")
    require(not any(part[count:].any() for part in (clock.witness, times, turns)), "places of no witness")


def refuse_inconsistent(state: State, configuration: Configuration) -> None:
    """Raise InconsistentError where the used part of a state is none that the fold could have left.

    `refuse_sizes` comes before.
    """
    declared = configuration.features.declared_fields()
    require(tuple(field_names(state.names)[: len(declared)]) == declared, "the names of fields")
    refuse_ranges(state, sizes_of(configuration))
    waiting, features, users = state.waiting, state.features, state.users
    in_use, known = waiting.status != Status.FREE, users.key != 0
    refuse_table("features", features, features.key != 0)
    pairs = state.cross.pairs
    refuse_table("pairs", pairs, pairs.key != 0)
    refuse_owned("pairs", state.cross.owners, known, pairs.key != 0)
    refuse_table("users", users, known & (waiting.users.first == 0))
    refuse_facts(state)
    refuse_pool("waiting", waiting.pool, in_use)
    refuse_index("waiting", waiting.lookup, waiting.key, in_use)
    refuse_owned("rows", state.user_rows, known, features.key != 0)
    refuse_owned("impressions", waiting.users, known, in_use)
    require(equal(waiting.users.owner != 0, in_use), "owners of impressions")
    due = (waiting.status == Status.EARLY) | (waiting.status == Status.WAITING)
    refuse_deadlines("deadlines", waiting.deadlines, waiting.key, np.flatnonzero(due))
    provisional = waiting.provisional.place > 0
    require(not np.any(provisional & (waiting.status != Status.WAITING)), "provisional deadlines")
    refuse_owned("pending labels", waiting.pending, known, provisional)
    refuse_deadlines("provisional deadlines", waiting.provisional, waiting.key, np.flatnonzero(provisional))
    closed, ends = waiting.status == Status.CLOSED, waiting.ends
    refuse_lists("closed impressions", (ends[:1], ends[1:]), (waiting.newer, waiting.older), closed)
    doubted, ends = waiting.doubted_turn != 0, waiting.doubted
    require(not np.any(doubted & (waiting.status != Status.WAITING)), "doubted impressions")
    refuse_lists("doubted impressions", (ends[:1], ends[1:]), (waiting.newer, waiting.older), doubted)
    refuse_witnesses(state.clock)
    refuse_kept(waiting, np.flatnonzero(in_use), len(known))
    refuse_histories(state)
    seen = state.features_seen
    filled = np.arange(seen.row.shape[1]) < seen.counts[:, None]
    refuse_generations("values", state, features, seen, filled)
    refuse_generations("pairs", state, pairs, state.cross.pairs_seen, np.ones((1, 1), bool))


def refuse_pool(name: str, pool: Pool, in_use: Array) -> None:
    """Raise InconsistentError where the free rows are not exactly those that are not in use [ever used]."""
    marked = np.zeros(len(in_use), bool)
    marked[pool.freed] = True
    require(np.count_nonzero(marked) == len(pool.freed) and equal(marked, ~in_use), f"free and used {name}")


def refuse_table(name: str, table: Table, linked: Array) -> None:
    """Raise InconsistentError where keys, rows and index disagree, or lists do not hold the rows to be `linked`."""
    in_use = table.key != 0
    refuse_pool(name, table.pool, in_use)
    refuse_index(name, table.lookup, table.key, in_use)
    require(equal(table.linked == 1, linked), "linked and pinned rows")
    list_of = np.where(linked, table.list_of.astype(np.int64) + 1, 0)
    refuse_lists(name, (table.ends[:, 0], table.ends[:, 1]), (table.newer, table.older), list_of)


def refuse_index(name: str, index: Index, key: Array, in_use: Array) -> None:
    """Raise InconsistentError where an index does not lead from each key in use, and no other, to its row."""
    count, buckets, base, stashed, filled = (int(size) for size in index.size)
    what = f"index and keys of {name}"
    require(filled in {FILLED, FILLED_SPARSE}, what)
    cells = np.flatnonzero(index.keys)
    bucket = cells // index.keys.shape[1]
    keys = np.concatenate([index.keys.ravel()[cells], index.stash_keys[:stashed]])
    rows = np.concatenate([index.rows.ravel()[cells], index.stash_rows[:stashed]]).astype(np.int64) - 1
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


def refuse_owned(what: str, owned: Owned, has_owner: Array, members: Array) -> None:
    """Raise InconsistentError where the lists of owners do not hold exactly the members that are theirs."""
    owner = owned.owner.astype(np.int64)
    theirs = np.flatnonzero(owner)
    require(within(owner, 0, len(has_owner)), f"owners of {what}")
    require(members[theirs].all() and has_owner[owner[theirs] - 1].all(), f"owners of {what}")
    refuse_lists(f"owned {what}", (owned.first, owned.last), (owned.next, owned.previous), owner)
    require(equal(owned.held, np.bincount(owner[theirs] - 1, minlength=len(has_owner))), f"counts of owned {what}")


def refuse_deadlines(what: str, deadlines: Deadlines, key: Array, due: Array) -> None:
    """Raise InconsistentError where the heap is not one of exactly the impressions that are due."""
    size, slots = int(deadlines.size[0]), len(deadlines.place)
    require(size == len(due), what)
    heap = deadlines.heap[:size].astype(np.int64)
    require(within(heap, 0, slots - 1) and equal(np.sort(heap), due), what)
    place = np.zeros(slots, np.int64)
    place[heap] = np.arange(1, size + 1)
    require(equal(deadlines.place, place), f"places of {what}")
    children = np.arange(1, size)
    child, parent = heap[children], heap[(children - 1) // 2]
    ms, arrival = deadlines.deadline_ms, deadlines.arrival
    later = np.where(arrival[child] == arrival[parent], key[child] > key[parent], arrival[child] > arrival[parent])
    later = np.where(ms[child] == ms[parent], later, ms[child] > ms[parent])
    require(np.all(later), f"the order of {what}")


def refuse_kept(waiting: Waiting, slots: Array, people: int) -> None:
    """Raise InconsistentError where feedback or texts of the slots in use are not separate chains, or miscounted.

    `people` users were ever used; they hold what their slots do.
    """
    feedbacks, texts = waiting.feedbacks, waiting.texts
    counts = waiting.feedback_count[slots].astype(np.int64)
    seen, heads = np.zeros(len(feedbacks.key), np.uint8), waiting.feedback[slots].astype(np.int64)
    require(follow_chains(feedbacks.next.astype(np.int64), heads, counts, seen), "feedback of impressions")
    refuse_pool("feedback", feedbacks.pool, seen != 0)
    nodes = np.zeros(int(counts.sum()), np.int64)
    list_feedback(feedbacks, waiting.feedback[slots], nodes)
    heads = np.concatenate([waiting.text[slots], feedbacks.text[nodes]]).astype(np.int64)
    lengths = np.concatenate([waiting.length[slots], feedbacks.length[nodes]]).astype(np.int64)
    blocks = (lengths + BLOCK_BYTES - 1) // BLOCK_BYTES
    seen = np.zeros(len(texts.next), np.uint8)
    require(follow_chains(texts.next.astype(np.int64), heads, blocks, seen), "texts")
    refuse_pool("blocks of text", texts.pool, seen != 0)
    owner = waiting.users.owner[slots].astype(np.int64) - 1
    owners = np.concatenate([owner, np.repeat(owner, counts)])
    held = np.bincount(owners, weights=blocks, minlength=people)
    require(equal(waiting.held_blocks, held), "texts that users hold")
    held = np.bincount(owner, weights=counts, minlength=people)
    require(equal(waiting.held_feedbacks, held), "feedback that users hold")


def refuse_facts(state: State) -> None:
    """Raise InconsistentError where facts are not kept of exactly the items and users that have some."""
    facts = state.facts
    refuse_table("facts", facts.items, facts.items.key != 0)
    refuse_held("items", facts.of_items, facts.items.key != 0, len(state.names))
    having = facts.of_users.length > 0
    require(not np.any(having & (state.users.key == 0)), "users with facts")
    refuse_held("users", facts.of_users, having, len(state.names))
    ends = facts.ends
    refuse_lists("users with facts", (ends[:1], ends[1:]), (facts.newer, facts.older), having)


def refuse_held(what: str, held: Held, having: Array, places: int) -> None:
    """Raise InconsistentError where the owners `having` facts, and no others, do not have whole ones."""
    require(equal(held.length > 0, having), f"facts of {what}")
    owners = np.flatnonzero(having)
    blocks = (held.length[owners].astype(np.int64) + BLOCK_BYTES - 1) // BLOCK_BYTES
    seen = np.zeros(len(held.texts.next), np.uint8)
    heads = held.text[owners].astype(np.int64)
    require(follow_chains(held.texts.next.astype(np.int64), heads, blocks, seen), f"texts of facts of {what}")
    refuse_pool(f"blocks of facts of {what}", held.texts.pool, seen != 0)
    for first in range(0, len(owners), OWNERS_AT_ONCE):
        some = owners[first : first + OWNERS_AT_ONCE]
        head, length = held.text[some], held.length[some]
        packed = np.zeros(int(length.sum()), np.uint8)
        read_texts(held.texts, head, length, packed)
        require(are_packed(packed, length, places), f"packed facts of {what}")


def refuse_histories(state: State) -> None:
    """Raise InconsistentError where long histories are not their users'."""
    behaviors, histories = state.behaviors, state.behaviors.histories
    ever, history = len(histories.owner), behaviors.history.ravel().astype(np.int64)
    require(within(history, 0, ever), "histories of users")
    having = np.flatnonzero(history)
    in_use = np.zeros(ever, bool)
    in_use[history[having] - 1] = True
    require(np.count_nonzero(in_use) == len(having), "histories of users")
    refuse_pool("histories", histories.pool, in_use)
    require(equal(histories.owner[history[having] - 1], having + 1), "owners of histories")
    kinds = max(1, behaviors.history.shape[1])
    require(np.all(state.users.key[having // kinds] != 0), "owners of histories")
    ends = histories.ends
    refuse_lists("histories", (ends[:1], ends[1:]), (histories.newer, histories.older), in_use)


def refuse_generations(what: str, state: State, members: Table, seen: Any, filled: Array) -> None:
    """Raise InconsistentError where a row that an impression was scored with is of the future, or free and current.

    `seen` has row and generation [slots, places], of which those that are `filled` count.
    """
    known = (state.waiting.status >= Status.WAITING)[:, None] & filled & (seen.row >= 0)
    at, generation = seen.row[known].astype(np.int64), seen.generation[known]
    require(within(at, 0, len(members.key) - 1), f"generations of {what}")
    ahead = generation > members.generation[at]
    free = (generation == members.generation[at]) & (members.key[at] == 0)
    require(not np.any(ahead | free), f"generations of {what}")

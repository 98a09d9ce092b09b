"""The collisionless table against a dictionary: claims, updates, expiry, reuse, eviction, pinning, generations."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thalweg.operators.machine.reference import held
from thalweg.operators.structures.table import (
    NONE,
    Table,
    claim_row,
    expired_row,
    find_row,
    is_current,
    is_expired,
    is_full,
    new_table,
    oldest_row,
    pin_row,
    release_row,
    rows_by_key,
    update_row,
)

LISTS = 3
LIMIT = 7
EXPIRE_TIME_MS = np.array([50, 100, 1_000], np.int64)
KEYS = [7, 8, 9, 2**32, 2**32 + 7, 2**63, 2**63 + 8, 2**64 - 1, 2**64 - 2, 5 << 40, 6 << 40, 11]


@dataclass
class Owner:
    """A row as the model knows it; `order` counts updates."""

    row: int
    list_of: int
    updated_ms: int
    order: int
    pinned: bool = False


@dataclass
class Model:
    """Who owns what, and who remembers which row under which generation."""

    owners: dict[int, Owner] = field(default_factory=dict)
    order: int = 0

    def next_order(self) -> int:
        self.order += 1
        return self.order

    def oldest(self) -> int:
        free = [o for o in self.owners.values() if not o.pinned]
        return min(free, key=lambda o: (o.updated_ms, o.list_of, o.order)).row if free else NONE

    def expired(self, now_ms: int) -> list[Owner]:
        def is_over(o: Owner) -> bool:
            return not o.pinned and now_ms - o.updated_ms >= EXPIRE_TIME_MS[o.list_of]

        return sorted((o for o in self.owners.values() if is_over(o)), key=lambda o: (o.list_of, o.order))


class TableAgainstDictionary(RuleBasedStateMachine):
    """Seven rows, twelve keys, three lists with expire times of their own; stream time only rises."""

    @initialize()
    def start(self) -> None:
        self.table = held(new_table(LIMIT, LISTS))
        self.model = Model()
        self.now_ms = 1_000_000
        self.remembered: list[tuple[int, int, int]] = []

    def release(self, row: int) -> None:
        key = int(self.table.key[row])
        self.remembered.append((row, int(self.table.generation[row]), key))
        release_row(self.table, row)
        del self.model.owners[key]

    @rule(key=st.sampled_from(KEYS), list_of=st.integers(0, LISTS - 1))
    def claim(self, key: int, list_of: int) -> None:
        """As the fold does it: an expired owner goes first, at the limit the oldest row makes room."""
        owner = self.model.owners.get(key)
        if owner is not None:
            if not is_expired(self.table, owner.row, self.now_ms, EXPIRE_TIME_MS):
                return
            self.release(owner.row)
        if is_full(self.table):
            row = oldest_row(self.table)
            assert row == self.model.oldest()
            if row == NONE:
                assert claim_row(self.table, np.uint64(key), list_of, self.now_ms) == NONE
                return
            self.release(row)
        row = claim_row(self.table, np.uint64(key), list_of, self.now_ms)
        assert 0 <= row < LIMIT
        assert row not in {o.row for o in self.model.owners.values()}
        self.model.owners[key] = Owner(row, list_of, self.now_ms, self.model.next_order())

    @precondition(lambda self: self.model.owners)
    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        """An update makes the row the newest of its list, pinned before or not."""
        owner = self.model.owners[data.draw(st.sampled_from(sorted(self.model.owners)))]
        update_row(self.table, owner.row, self.now_ms)
        owner.updated_ms, owner.order, owner.pinned = self.now_ms, self.model.next_order(), False

    @precondition(lambda self: self.model.owners)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        owner = self.model.owners[data.draw(st.sampled_from(sorted(self.model.owners)))]
        pin_row(self.table, owner.row)
        owner.pinned = True

    @precondition(lambda self: self.model.owners)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        self.release(self.model.owners[data.draw(st.sampled_from(sorted(self.model.owners)))].row)

    @rule(ms=st.sampled_from([0, 1, 49, 50, 51, 100, 999, 1_000]))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def sweep(self) -> None:
        """One step of the sweep takes the oldest of the first list that has an expired row."""
        expected = self.model.expired(self.now_ms)
        row = expired_row(self.table, self.now_ms, EXPIRE_TIME_MS)
        assert row == (expected[0].row if expected else NONE)
        if row != NONE:
            self.release(row)

    @invariant()
    def every_key_finds_its_own_row_until_exactly_its_time(self) -> None:
        for key in KEYS:
            owner = self.model.owners.get(key)
            found = find_row(self.table, np.uint64(key), self.now_ms, EXPIRE_TIME_MS)
            if owner is None or owner in self.model.expired(self.now_ms):
                assert found == NONE
            else:
                assert found == owner.row

    @invariant()
    def order_of_updates_and_rows_agree(self) -> None:
        owners = self.model.owners
        assert rows_by_key(self.table).tolist() == [owners[key].row for key in sorted(owners)]
        assert is_full(self.table) == (len(owners) == LIMIT)
        assert oldest_row(self.table) == self.model.oldest()
        for list_of in range(LISTS):
            linked = [o for o in owners.values() if o.list_of == list_of and not o.pinned]
            assert listed(self.table, list_of) == [o.row for o in sorted(linked, key=lambda o: o.order)]

    @invariant()
    def whoever_remembers_a_freed_row_is_told(self) -> None:
        for row, generation, _ in self.remembered:
            assert not is_current(self.table, row, np.uint32(generation))
        for owner in self.model.owners.values():
            assert is_current(self.table, owner.row, self.table.generation[owner.row])
        assert not is_current(self.table, NONE, np.uint32(0))


def listed(table: Table, list_of: int) -> list[int]:
    """The rows of a list from the oldest to the newest, and the same backwards."""
    forwards, row = [], int(table.ends[list_of, 0])
    while row:
        forwards.append(row - 1)
        row = int(table.newer[row - 1])
    backwards, row = [], int(table.ends[list_of, 1])
    while row:
        backwards.append(row - 1)
        row = int(table.older[row - 1])
    assert forwards == backwards[::-1]
    return forwards


TestTableAgainstDictionary = TableAgainstDictionary.TestCase
TestTableAgainstDictionary.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_expiry_is_at_exactly_the_expire_time() -> None:
    """A row is there one millisecond before its list's expire time is over and gone at it, without any sweep."""
    table = new_table(10, LISTS)
    for list_of, expire_ms in enumerate(EXPIRE_TIME_MS.tolist()):
        row = claim_row(table, np.uint64(list_of + 1), list_of, 5_000)
        assert find_row(table, np.uint64(list_of + 1), 5_000 + expire_ms - 1, EXPIRE_TIME_MS) == row
        assert find_row(table, np.uint64(list_of + 1), 5_000 + expire_ms, EXPIRE_TIME_MS) == NONE


def test_ever_new_ids_use_no_more_rows_than_the_limit() -> None:
    """A hundred times as many ids as rows leave the index and the rows as large as the limit asks."""
    table = new_table(50, 1)
    for key in range(1, 5_001):
        if is_full(table):
            release_row(table, oldest_row(table))
        assert claim_row(table, np.uint64(key * 0x9E3779B97F4A7C15 & (2**64 - 1)), 0, key) != NONE
    assert len(rows_by_key(table)) == 50
    assert int(table.lookup.size[0]) == 50
    assert int(table.pool.counts[0]) == 50
    assert sorted(table.updated_ms.tolist()) == list(range(4_951, 5_001))


def test_a_generation_wraps_around_without_an_error() -> None:
    """After 2**32 owners a row's generation starts again."""
    table = new_table(1, 1)
    row = claim_row(table, np.uint64(1), 0, 1)
    table.generation[row] = 2**32 - 1
    release_row(table, row)
    assert table.generation[row] == 0


def test_a_key_that_the_index_refuses_takes_no_row() -> None:
    """A refused key is counted, and its row goes back to the pool."""
    table = new_table(500, 1)
    for number in range(300):
        key = np.uint64(0x54321_00012345 | number << 20 | number << 52)
        claim_row(table, key, 0, 1)
    assert len(rows_by_key(table)) == 74
    assert int(table.counts[2]) == 226
    assert int(table.pool.counts[0] - table.pool.counts[1]) == 74

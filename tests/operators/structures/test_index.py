"""No two keys share a row, none is lost, absent ones find nothing, at every size and against crafted keys."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.structures.index import BUCKET_CELLS, STASH_CELLS, Index, Size, find, insert, new_index, remove

from tests.soak import sized

KEYS = sized(2_000_000, 10_000_000)
Keys = npt.NDArray[np.uint64]
SMALLEST_MEASURED = 1_000


@compiled
def _insert_all(index: Index, keys: Keys, first_row: int, out: npt.NDArray[np.uint8]) -> float:
    """Insert keys for rows `first_row`, …; say which were taken, and the lowest load factor from 1 000 keys on."""
    lowest = 1.0
    for i in range(keys.shape[0]):
        out[i] = insert(index, keys[i], first_row + i)
        if index.size[Size.COUNT] >= SMALLEST_MEASURED:
            lowest = min(lowest, index.size[Size.COUNT] / (BUCKET_CELLS * index.size[Size.BUCKETS]))
    return lowest


@compiled
def _find_all(index: Index, keys: Keys, out: npt.NDArray[np.int64]) -> None:
    for i in range(keys.shape[0]):
        out[i] = find(index, keys[i])


@compiled
def _remove_all(index: Index, keys: Keys) -> None:
    for i in range(keys.shape[0]):
        remove(index, keys[i])


@compiled
def _most_split(index: Index, keys: Keys) -> int:
    """Insert keys and return how many buckets one insertion added at most."""
    most = 0
    for i in range(keys.shape[0]):
        before = index.size[Size.BUCKETS]
        insert(index, keys[i], i)
        most = max(most, index.size[Size.BUCKETS] - before)
    return most


def insert_all(index: Index, keys: Keys, first_row: int = 0) -> npt.NDArray[np.bool_]:
    taken = np.zeros(len(keys), np.uint8)
    _insert_all(index, keys, first_row, taken)
    return taken == 1


def find_all(index: Index, keys: Keys) -> npt.NDArray[np.int64]:
    out = np.zeros(len(keys), np.int64)
    _find_all(index, keys, out)
    return out


def random_keys(count: int, seed: int) -> Keys:
    """Different random keys, in random order; those of two seeds are as good as never the same."""
    rng = np.random.default_rng(seed)
    keys = np.unique(rng.integers(1, 2**64, count, dtype=np.uint64))
    assert len(keys) == count
    return rng.permutation(keys)


def distinct_keys(first: int, count: int) -> Keys:
    """Different keys without a sort: SplitMix64's mixing of counters, which is one to one."""
    keys = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ keys >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ keys >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return keys ^ keys >> np.uint64(31)


def crafted_keys(count: int, seed: int) -> Keys:
    """Keys that share both their buckets in every index of less than a million buckets."""
    rng = np.random.default_rng(seed)
    low, high = rng.integers(0, 1 << 12, (2, 2 * count), dtype=np.uint64)
    keys = np.uint64(0x54321_00012345) | low << np.uint64(20) | high << np.uint64(52)
    assert len(np.unique(keys)) >= count
    return np.unique(keys)[:count]


class IndexAgainstDictionary(RuleBasedStateMachine):
    """Batches of keys come and go; a dictionary knows what must be there."""

    @initialize(limit=st.sampled_from([10, 435, 3_000, 20_000]), seed=st.integers(0, 2**32))
    def start(self, limit: int, seed: int) -> None:
        self.index = new_index(limit)
        self.limit = limit
        self.rng = np.random.default_rng(seed)
        self.model: dict[int, int] = {}
        self.row = 0

    @rule(share=st.floats(0.0, 1.0))
    def insert_some(self, share: float) -> None:
        count = int((self.limit - len(self.model)) * share)
        keys = np.unique(self.rng.integers(1, 2**64, count, dtype=np.uint64))
        assert insert_all(self.index, keys, self.row).all()
        self.model.update(zip(keys.tolist(), range(self.row, self.row + len(keys)), strict=True))
        self.row += len(keys)

    @rule(share=st.floats(0.0, 1.0))
    def remove_some(self, share: float) -> None:
        known = np.array(list(self.model), np.uint64)
        gone = self.rng.permutation(known)[: int(len(known) * share)]
        _remove_all(self.index, gone)
        for key in gone.tolist():
            del self.model[key]

    @rule()
    def remove_absent(self) -> None:
        _remove_all(self.index, self.rng.integers(1, 2**64, 10, dtype=np.uint64))

    @invariant()
    def the_index_is_the_dictionary(self) -> None:
        known = np.array(list(self.model), np.uint64)
        assert find_all(self.index, known).tolist() == list(self.model.values())
        assert (find_all(self.index, self.rng.integers(1, 2**64, 50, dtype=np.uint64)) == -1).all()
        assert self.index.size[Size.COUNT] == len(self.model)
        assert np.count_nonzero(self.index.keys) + self.index.size[Size.STASHED] == len(self.model)
        assert np.array_equal(self.index.keys != 0, self.index.rows != 0)


TestIndexAgainstDictionary = IndexAgainstDictionary.TestCase
pytest.mark.large(TestIndexAgainstDictionary)
TestIndexAgainstDictionary.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)


@pytest.mark.large
@pytest.mark.soak(KEYS, 10_000_000, "keys")
def test_ten_million_keys_none_lost_none_shared_absent_ones_find_nothing() -> None:
    """Ten million keys keep their own rows through all growth and removal, and as many absent ones find nothing."""
    count = KEYS
    keys, absent = distinct_keys(0, count), distinct_keys(count, count)
    index = new_index(count)
    assert insert_all(index, keys).all()
    assert np.array_equal(find_all(index, keys), np.arange(count))
    assert (find_all(index, absent) == -1).all()
    assert index.size[Size.STASHED] <= STASH_CELLS // 8  # a few wait there until one of their buckets is split
    _remove_all(index, keys[::2])
    found = find_all(index, keys)
    assert (found[::2] == -1).all()
    assert np.array_equal(found[1::2], np.arange(1, count, 2))
    assert insert_all(index, absent[: count // 2], count).all()
    assert np.array_equal(find_all(index, absent[: count // 2]), np.arange(count, count + count // 2))
    assert np.array_equal(find_all(index, keys), found)
    assert index.size[Size.COUNT] == count


@pytest.mark.large
def test_neighbours_of_a_million_keys_find_nothing() -> None:
    """A key that differs from one that is there in its lowest bits must find nothing."""
    keys = random_keys(1_000_000, 1)
    index = new_index(len(keys))
    assert insert_all(index, keys).all()
    assert (find_all(index, np.setdiff1d(keys + np.uint64(1), keys)) == -1).all()


@pytest.mark.large
def test_no_insertion_splits_more_than_one_bucket() -> None:
    """While a million keys come none may make the index more than one bucket larger: growth is part of insertions."""
    assert _most_split(new_index(1_000_000), random_keys(1_000_000, 2)) == 1


def test_keys_that_are_counters_are_found_too() -> None:
    """Keys with an empty upper half all share one second bucket, and still none is lost while the stash has room."""
    keys = np.arange(1, 400, dtype=np.uint64)
    index = new_index(1_000)
    taken = insert_all(index, keys)
    assert taken.all()
    assert np.array_equal(find_all(index, keys), np.arange(len(keys)))


@pytest.mark.large
def test_the_load_factor_is_at_least_85_percent_from_a_thousand_keys_on() -> None:
    """At every size from 1 000 keys to a million, at least 85% of the cells that were ever touched are taken."""
    keys = random_keys(1_000_000, 3)
    assert _insert_all(new_index(len(keys)), keys, 0, np.zeros(len(keys), np.uint8)) >= 0.85


@pytest.mark.large
def test_growth_touches_no_more_than_it_needs() -> None:
    """Buckets beyond those that the load asks for stay untouched, though the arrays are reserved at the limit."""
    keys = random_keys(300_000, 4)
    index = new_index(10 * len(keys))
    insert_all(index, keys)
    assert index.size[Size.COUNT] >= 0.85 * BUCKET_CELLS * index.size[Size.BUCKETS]
    assert np.count_nonzero(index.keys[index.size[Size.BUCKETS] :]) == 0


@pytest.mark.large
def test_reserved_memory_suffices_for_the_limit() -> None:
    """An index of any limit takes that many random keys, full and refilled again and again."""
    for limit in (1, 8, 434, 435, 436, 1_000, 7_777, 60_000):
        keys = random_keys(limit * 3, limit)
        index = new_index(limit)
        for part in (keys[:limit], keys[limit : 2 * limit], keys[2 * limit :]):
            assert insert_all(index, part).all()
            _remove_all(index, part)
        assert index.size[Size.COUNT] == 0
        assert not index.keys.any()


def test_crafted_keys_are_refused_once_the_stash_is_full() -> None:
    """Of keys that share both buckets those are taken that fit the buckets and the stash, and these are found."""
    index = new_index(20_000)
    crafted = crafted_keys(400, 1)
    taken = insert_all(index, crafted)
    assert np.count_nonzero(taken) == 2 * BUCKET_CELLS + STASH_CELLS
    found = find_all(index, crafted)
    assert np.array_equal(found[taken], np.flatnonzero(taken))
    assert (found[~taken] == -1).all()
    assert index.size[Size.COUNT] == np.count_nonzero(taken)


def test_crafted_keys_lose_nobody_who_was_there() -> None:
    """Keys that were there before the crafted ones are all found afterwards."""
    honest = random_keys(5_000, 5)
    index = new_index(20_000)
    assert insert_all(index, honest).all()
    insert_all(index, crafted_keys(1_000, 2), 10_000)
    assert np.array_equal(find_all(index, honest), np.arange(len(honest)))
    _remove_all(index, crafted_keys(1_000, 2))
    assert np.array_equal(find_all(index, honest), np.arange(len(honest)))
    assert index.size[Size.STASHED] == 0
    assert index.size[Size.COUNT] == len(honest)


@pytest.mark.large
def test_crafted_keys_keep_nobody_out_who_comes_later() -> None:
    """A stash filled by crafted keys doesn't keep other keys from getting their rows."""
    index = new_index(20_000)
    early, late = np.split(random_keys(15_000, 6), [5_000])
    assert insert_all(index, early).all()
    insert_all(index, crafted_keys(400, 3), 20_000)
    assert index.size[Size.STASHED] == STASH_CELLS
    assert insert_all(index, late, 5_000).all()


@pytest.mark.large
def test_growth_empties_the_stash() -> None:
    """Keys in the stash go to their buckets as soon as growth has made room."""
    index = new_index(200_000)
    # They differ in the bits that a larger index looks at.
    number = np.arange(1, 60, dtype=np.uint64)
    crowded = np.uint64(0x5_00000003) | number << np.uint64(8) | number << np.uint64(40)
    assert insert_all(index, crowded).all()
    assert index.size[Size.STASHED] > 0
    assert insert_all(index, random_keys(100_000, 8), 1_000).all()
    assert index.size[Size.STASHED] == 0
    assert np.array_equal(find_all(index, crowded), np.arange(len(crowded)))


def test_keys_leave_the_stash_by_moving_others() -> None:
    """While the index grows, what lies in the stash must find its place though both its buckets stay full."""
    keys = random_keys(4_440, 14)
    index = new_index(20_000)
    assert insert_all(index, keys[:4_000]).all()
    index.stash_keys[:40] = keys[4_000:4_040]
    index.stash_rows[:40] = np.arange(4_001, 4_041)
    index.size[[Size.COUNT, Size.STASHED]] += 40
    assert insert_all(index, keys[4_040:], 4_040).all()
    assert index.size[Size.STASHED] == 0
    assert np.array_equal(find_all(index, keys), np.arange(len(keys)))


@pytest.mark.large
def test_the_same_operations_leave_the_same_bytes() -> None:
    """The index is a function of the operations alone."""
    keys = random_keys(30_000, 9)
    both = [new_index(len(keys)), new_index(len(keys))]
    for index in both:
        insert_all(index, keys)
        _remove_all(index, keys[:10_000])
    assert all(np.array_equal(a, b) for a, b in zip(*both, strict=True))

"""A user's sequence: the ring exactly, everything older in buckets, and nothing of rows that have gone to others."""

import math
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.attention import attend, new_gathered, normalize
from thalweg.operators.behaviors import (
    Behavior,
    Behaviors,
    BehaviorsConfiguration,
    extend_sequence,
    find_history,
    forget_sequences,
    gather_recent,
    new_behaviors,
)
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.sdim import (
    LONG_AGO_MS,
    SdimConfiguration,
    SdimParameters,
    new_sdim_scratch,
    projections,
    read_interest,
    signature,
    window_of,
)
from thalweg.operators.structures.table import Table, claim_row, new_table, release_row, update_row

Vectors = npt.NDArray[np.float32]
GROUPS, TAU, SIZE = 16, 3, 8
ITEMS = 200
PROJECTION = np.ascontiguousarray(projections(GROUPS * TAU, SIZE, 1).T)


@compiled
def _extend_all(
    behaviors: Behaviors,
    items: Table,
    vectors: Vectors,
    parameters: SdimParameters,
    signs: Vectors,
    user: int,
    sequence: npt.NDArray[np.int64],
    gone_ms: int,
) -> None:
    for i in range(sequence.shape[0]):
        extend_sequence(behaviors, items, vectors, parameters, signs, Behavior(user, 0, sequence[i], i), gone_ms)


class World:
    """Items with vectors, users with sequences, and the same in Python's own lists."""

    def __init__(self, short_length: int = 32, users: int = 4, histories: int = 4, seed: int = 0) -> None:
        configuration = BehaviorsConfiguration(short_length=short_length, users_limit=users)
        sdim = SdimConfiguration(groups=GROUPS, tau=TAU, histories_limit=histories)
        self.behaviors = new_behaviors(configuration, sdim, SIZE)
        self.items = new_table(ITEMS, 1)
        for key in range(ITEMS):
            assert claim_row(self.items, np.uint64(key * 0x9E3779B97F4A7C15 + 1 & 2**64 - 1), 0, 1) == key
        self.vectors = np.random.default_rng(seed).normal(size=(ITEMS, SIZE)).astype(np.float32)
        self.parameters = SdimParameters(PROJECTION, TAU, window_of(sdim))
        self.scratch = new_sdim_scratch(sdim, SIZE)
        self.gathered = new_gathered(1, configuration.short_length, SIZE)

    def extend(self, user: int, sequence: npt.NDArray[np.int64], gone_ms: int = -1) -> None:
        signs = self.scratch.signs
        _extend_all(self.behaviors, self.items, self.vectors, self.parameters, signs, user, sequence, gone_ms)

    def short(self, user: int, candidate: int, gone_ms: int = -1) -> npt.NDArray[np.float64]:
        out = np.full(SIZE, 9, np.float32)
        gather_recent(self.behaviors, self.items, self.vectors, user, gone_ms, self.gathered)
        attend(self.gathered, 0, self.vectors[candidate], TAU, out)
        return out.astype(float)

    def long(self, user: int, candidate: int) -> npt.NDArray[np.float64]:
        out = np.full(SIZE, 9, np.float32)
        history = find_history(self.behaviors, user, 0)
        if history < 0:
            return np.zeros(SIZE)
        bits = signature(PROJECTION, self.vectors[candidate], self.scratch.signs)
        read_interest(self.behaviors.histories, history, bits, LONG_AGO_MS, self.scratch.total, out)
        return out.astype(float)


def exact_short(ring: Vectors, candidate: Vectors) -> npt.NDArray[np.float64]:
    """Sum over the ring of (1 - angle / pi) ** tau times the vector, normalised, in float64."""
    total = np.zeros(SIZE)
    q = candidate.astype(float)
    for s in ring.astype(float):
        norms = np.linalg.norm(q) * np.linalg.norm(s)
        if norms > 0:
            total += (1 - math.acos(min(max(q @ s / norms, -1), 1)) / math.pi) ** TAU * s
    norm = np.linalg.norm(total)
    return total / norm if norm > 0 else total


def exact_long(older: Vectors, candidate: Vectors) -> npt.NDArray[np.float64]:
    """The paper's Attn(q, S) in float64, from scratch."""
    powers = 1 << np.arange(TAU)

    def buckets(vectors: Vectors) -> npt.NDArray[np.int64]:
        return ((vectors.astype(float) @ PROJECTION.astype(float) > 0).reshape(-1, GROUPS, TAU) * powers).sum(axis=2)

    total = np.zeros(SIZE)
    mine, theirs = buckets(candidate[None])[0], buckets(older)
    for group in range(GROUPS):
        summed = older.astype(float)[theirs[:, group] == mine[group]].sum(axis=0)
        norm = np.linalg.norm(summed)
        total += summed / norm / GROUPS if norm > 0 else 0
    return total


@pytest.mark.large
def test_a_user_walks_from_one_behaviour_to_a_hundred_thousand() -> None:
    """Through the switch from ring to buckets and far beyond, both interests are those of the user's whole sequence."""
    world = World()
    sequence = np.random.default_rng(1).integers(0, ITEMS, 100_000)
    done = 0
    for length in (1, 2, 3, 16, 31, 32, 33, 34, 64, 100, 1_000, 10_000, 100_000):
        world.extend(1, sequence[done:length])
        done = length
        ring, older = sequence[max(0, length - 32) : length], sequence[: max(0, length - 32)]
        assert world.behaviors.counts[1, 0] == length
        history = int(world.behaviors.history[1, 0]) - 1
        assert (history >= 0) == (length > 32)
        if history >= 0:
            assert int(world.behaviors.histories.lengths[history].sum()) == length - 32
        for candidate in (0, 7, 50):
            q = world.vectors[candidate]
            np.testing.assert_allclose(world.short(1, candidate), exact_short(world.vectors[ring], q), atol=2e-6)
            np.testing.assert_allclose(world.long(1, candidate), exact_long(world.vectors[older], q), atol=1e-5)
    assert not world.behaviors.counts[[0, 2, 3]].any()
    assert int(world.behaviors.histories.pool.counts[0]) == 1


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 20), st.integers(0, 99)
)
def test_the_short_interest_is_exact_attention_over_the_ring(
    sequence: list[int], short_length: int, candidate: int, seed: int
) -> None:
    """Whatever the ring's length, the short interest is the formula over the last behaviours."""
    world = World(short_length, seed=seed)
    world.extend(0, np.array(sequence))
    ring = world.vectors[sequence[-short_length:]]
    np.testing.assert_allclose(world.short(0, candidate), exact_short(ring, world.vectors[candidate]), atol=2e-6)


def test_a_stale_generation_reads_zero_and_never_reaches_the_buckets() -> None:
    """A behaviour whose item's row went to another item counts nowhere: not in the ring, not when it leaves it."""
    world = World(short_length=4)
    world.extend(0, np.array([5, 6, 5, 7]))
    release_row(world.items, 5)
    assert claim_row(world.items, np.uint64(12345), 0, 2) == 5
    world.vectors[5] = 100.0
    expected = exact_short(world.vectors[[6, 7]], world.vectors[9])
    np.testing.assert_allclose(world.short(0, 9), expected, atol=2e-6)
    world.extend(0, np.array([8, 8, 8, 8]))
    np.testing.assert_allclose(world.long(0, 9), exact_long(world.vectors[[6, 7]], world.vectors[9]), atol=1e-5)
    assert int(world.behaviors.histories.lengths[0].sum()) == 2
    world.extend(0, np.array([5, 8, 8, 8, 8]))
    assert int(world.behaviors.histories.lengths[0].sum()) == 7


def test_an_item_whose_time_is_over_reads_zero_before_its_row_is_freed() -> None:
    """Items that were updated at that time or before are left out of the ring, whether a sweep has come by or not."""
    world = World(short_length=4)
    world.extend(0, np.array([5, 6, 7, 8]))
    update_row(world.items, 6, 40)
    update_row(world.items, 8, 41)
    expected = exact_short(world.vectors[[8]], world.vectors[9])
    np.testing.assert_allclose(world.short(0, 9, 40), expected, atol=2e-6)


def test_an_item_whose_time_is_over_does_not_move_to_the_history() -> None:
    """Of the items that leave the ring, only those that were updated later move on, whether freed already or not."""
    world = World(short_length=2)
    world.extend(0, np.array([5, 6]))
    update_row(world.items, 5, 40)
    update_row(world.items, 6, 41)
    world.extend(0, np.array([7, 8]), 40)
    assert int(world.behaviors.histories.lengths[0].sum()) == 1
    np.testing.assert_allclose(world.long(0, 9), exact_long(world.vectors[[6]], world.vectors[9]), atol=1e-5)


def test_a_user_of_stale_behaviours_only_reads_zero() -> None:
    """Where every item of the ring is gone, the interest is exactly zero, and no history is made."""
    world = World(short_length=2)
    world.extend(0, np.array([5, 6]))
    release_row(world.items, 5)
    release_row(world.items, 6)
    assert not world.short(0, 9).any()
    world.extend(0, np.array([7, 8]))
    assert world.behaviors.history[0, 0] == 0
    assert not world.long(0, 9).any()


def test_moved_vectors_are_read_as_they_are_today_in_the_ring() -> None:
    """The ring names rows: an item whose vector moved is attended to where it is now."""
    world = World()
    world.extend(0, np.array([5, 6]))
    world.vectors[5] *= -1.0
    np.testing.assert_allclose(world.short(0, 9), exact_short(world.vectors[[5, 6]], world.vectors[9]), atol=2e-6)


def test_moved_vectors_stay_in_the_long_history_as_they_left_the_ring() -> None:
    """A behaviour's bucket and value are those of the moment in which it left the ring; the candidate is read today."""
    world = World(short_length=2)
    world.extend(0, np.arange(10))
    left = world.vectors[:8].copy()
    world.vectors[:] = np.random.default_rng(9).normal(size=world.vectors.shape)
    for candidate in (0, 5, 50):
        np.testing.assert_allclose(world.long(0, candidate), exact_long(left, world.vectors[candidate]), atol=1e-6)
        expected = exact_short(world.vectors[[8, 9]], world.vectors[candidate])
        np.testing.assert_allclose(world.short(0, candidate), expected, atol=2e-6)


def test_a_candidate_or_a_history_of_zeros_reads_zero() -> None:
    """An item that has learned nothing has no direction, as candidate and as behaviour."""
    world = World()
    world.vectors[[3, 4]] = 0.0
    world.extend(0, np.array([4, 4]))
    world.extend(1, np.array([5]))
    assert not world.short(0, 9).any()
    assert not world.short(1, 3).any()
    assert not world.short(2, 9).any()
    assert not world.long(2, 9).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=60))
def test_the_history_extended_least_recently_makes_room(limit: int, steps: list[tuple[int, bool]]) -> None:
    """At `histories_limit` the long history that was not extended for longest goes; a forgotten user's goes at once."""
    world = World(short_length=1, users=8, histories=limit)
    extended: OrderedDict[int, int] = OrderedDict()
    seen = [0] * 8
    for user, forgets in steps:
        if forgets:
            forget_sequences(world.behaviors, user)
            extended.pop(user, None)
            seen[user] = 0
            continue
        world.extend(user, np.array([user]))
        seen[user] += 1
        if seen[user] > 1:
            length = extended.pop(user, 0)
            if len(extended) == limit:
                extended.popitem(last=False)
            extended[user] = length + 1
    for user in range(8):
        history = int(world.behaviors.history[user, 0]) - 1
        assert (history >= 0) == (user in extended)
        if history >= 0:
            assert int(world.behaviors.histories.lengths[history].sum()) == extended[user]
            assert int(world.behaviors.histories.owner[history]) == user + 1
    pool = world.behaviors.histories.pool
    assert int(pool.counts[0] - pool.counts[1]) == len(extended)
    histories = world.behaviors.histories
    assert int(histories.lengths.sum()) == sum(extended.values())


def test_a_forgotten_user_leaves_nothing() -> None:
    """After forgetting, all that was ever written of the user is zero."""
    world = World(short_length=2)
    world.extend(1, np.arange(50))
    forget_sequences(world.behaviors, 1)
    behaviors = world.behaviors
    for array in (behaviors.row, behaviors.generation, behaviors.ts_ms, behaviors.counts, behaviors.history):
        assert not array.any()
    for array in (behaviors.histories.sums, behaviors.histories.unit, behaviors.histories.lengths):
        assert not array.any()
    assert not behaviors.histories.ends.any()


def test_normalize_gives_length_one_or_zero() -> None:
    """A vector is divided by its norm; zero stays zero."""
    vector = np.array([3, 4, 0], np.float32)
    normalize(vector)
    np.testing.assert_allclose(vector, [0.6, 0.8, 0], rtol=1e-6)
    zero = np.zeros(3, np.float32)
    normalize(zero)
    assert not zero.any()


@pytest.mark.parametrize(
    "wrong",
    [{"kinds": ("acted", "acted")}, {"kinds": ("liked",)}, {"short_length": 0}, {"users_limit": 0}],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """Kinds are known and named once, lengths and limits are at least one."""
    with pytest.raises(ValueError, match=r"kinds must|must lie within 1 and"):
        BehaviorsConfiguration(**wrong)  # type: ignore[arg-type]

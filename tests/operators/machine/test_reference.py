"""A named tuple passed by reference is the named tuple: the same values are read, and writes are seen."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.reference import by_reference


class Same(NamedTuple):
    """Homogeneous: numba has another type for these."""

    first: npt.NDArray[np.float64]
    second: npt.NDArray[np.float64]


class Numbers(NamedTuple):
    """Homogeneous scalars."""

    one: float
    two: float


class Inner(NamedTuple):
    """Arrays of several types, and an inner homogeneous tuple."""

    keys: npt.NDArray[np.uint64]
    same: Same
    weight: float
    rows: npt.NDArray[np.int32]


class Outer(NamedTuple):
    """Three levels."""

    flag: bool
    inner: Inner
    table: npt.NDArray[np.float32]
    numbers: Numbers
    count: int


@compiled
def _work(outer: Outer, at: int) -> float:
    """Read every leaf and write every array, without knowing how the tuple came."""
    inner = outer.inner
    total = inner.weight + outer.numbers.one * 10.0 + outer.numbers.two * 100.0 + outer.count
    total += float(inner.keys[at]) + inner.same.first[at] * 3.0 + inner.same.second[at] * 5.0
    total += inner.rows[at] + outer.table[at, 1]
    if outer.flag:
        total = -total
    inner.keys[at] += np.uint64(7)
    inner.same.first[at] = total
    inner.same.second[at] -= 1.0
    inner.rows[at] = at
    for i in range(outer.table.shape[1]):
        outer.table[at, i] += np.float32(0.5)
    return total


@compiled
def _deeper(same: Same, at: int) -> float:
    return same.first[at] - same.second[at]


@compiled
def _by_value(outer: Outer, at: int) -> float:
    return _work(outer, at)


@compiled
def _by_reference(outer: Outer, at: int) -> float:
    return _work(by_reference(outer), at)


@compiled
def _inner_by_value(outer: Outer, at: int) -> float:
    return _deeper(outer.inner.same, at)


@compiled
def _inner_by_reference(outer: Outer, at: int) -> float:
    return _deeper(by_reference(outer).inner.same, at)


@compiled
def _same_by_reference(same: Same, at: int) -> float:
    reference = by_reference(same)
    reference.second[at] += 2.0
    return _deeper(reference, at)


def new_outer(flag: bool) -> Outer:
    rng = np.random.default_rng(5)
    same = Same(rng.normal(size=6), rng.normal(size=6))
    inner = Inner(rng.integers(0, 1_000, 6, dtype=np.uint64), same, 0.25, rng.integers(0, 9, 6).astype(np.int32))
    return Outer(flag, inner, rng.normal(size=(6, 3)).astype(np.float32), Numbers(1.5, 2.5), 42)


def leaves(outer: Outer) -> list[bytes]:
    inner = outer.inner
    return [a.tobytes() for a in (inner.keys, inner.same.first, inner.same.second, inner.rows, outer.table)]


def test_by_reference_gives_the_results_of_by_value() -> None:
    """Every leaf at every depth reads the same, homogeneous tuples of arrays and of numbers included."""
    for flag in (False, True):
        for at in range(6):
            value, reference = new_outer(flag), new_outer(flag)
            assert _by_value(value, at) == _by_reference(reference, at)
            assert leaves(value) == leaves(reference)


def test_writes_through_a_reference_are_seen() -> None:
    """What compiled code writes through a reference stands in the caller's arrays."""
    outer = new_outer(False)
    before = new_outer(False)
    total = _by_reference(outer, 2)
    assert outer.inner.same.first[2] == total
    assert outer.inner.keys[2] == before.inner.keys[2] + np.uint64(7)
    assert outer.inner.rows[2] == 2
    assert np.array_equal(outer.table[2], before.table[2] + np.float32(0.5))
    assert np.array_equal(np.delete(outer.table, 2, 0), np.delete(before.table, 2, 0))


def test_an_inner_tuple_of_a_reference_is_a_reference_to_it() -> None:
    """A function written for the inner tuple takes the reference's attribute as it stands."""
    for at in range(6):
        assert _inner_by_value(new_outer(False), at) == _inner_by_reference(new_outer(False), at)


def test_a_homogeneous_tuple_can_be_the_outermost() -> None:
    """A named tuple of equal members can be referred to itself."""
    same = new_outer(False).inner.same
    expected = same.first[3] - (same.second[3] + 2.0)
    assert _same_by_reference(same, 3) == expected

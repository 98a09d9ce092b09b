"""Named tuples that are unpacked once: compiled code sees and writes the same arrays as Python."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.emitted import Emitted, new_emitted
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import Parameters, parameters_of
from thalweg.operators.machine.compiled import INTERPRETED, compiled
from thalweg.operators.machine.reference import held

ACTED = 1_234_567
C = Configuration()


def emitted() -> Emitted:
    """Return room with arrays of one and two dimensions, of small and large numbers."""
    return new_emitted(C, 3, input_count(C))


@compiled
def add(parameters: Parameters, made: Emitted, number: int) -> float:
    """Write into a tuple's arrays, and return something of members and of a tuple within the tuple."""
    made.counts[1] += number
    made.scores[2, 4] = number
    made.fate[1] = number
    total = 0.0
    for each in made.letter_offset:
        total += each
    return total + parameters.acted + parameters.derived.recent_items + parameters.skipped


def test_compiled_code_reads_and_writes_the_tuples_own_arrays() -> None:
    """Each member has its value, and what is written is in Python's arrays, call after call."""
    parameters = parameters_of(C, [])._replace(acted=ACTED)
    made = emitted()
    made.letter_offset[0] = 40
    kept = held(made)
    made.letter_offset[1] = 2  # written behind it, and seen by it
    expected = 42.0 + ACTED + parameters.derived.recent_items + parameters.skipped
    assert [add(held(parameters), kept, 5), add(held(parameters), kept, 2)] == [expected] * 2
    assert (made.counts[1], made.counts.sum()) == (7, 7)
    assert made.scores[2].tolist() == [0.0, 0.0, 0.0, 0.0, 2.0]
    assert made.fate.tolist() == [0, 2, 0]


def test_two_of_them_do_not_mix() -> None:
    """Each keeps its own arrays, and reads like its tuple in Python."""
    parameters, first, second = held(parameters_of(C, [])), held(emitted()), held(emitted())
    add(parameters, first, 3)
    add(parameters, second, 4)
    assert (first.counts[1], first.counts.sum()) == (3, 3)
    assert (second.counts[1], second.counts.sum()) == (4, 4)
    assert first.scores.shape == (3, 5)


class Inner(NamedTuple):
    """Members that do not begin where others end: a byte before words."""

    is_on: bool
    cube: npt.NDArray[np.float32]
    share: float


class Outer(NamedTuple):
    """A tuple that ends with a byte."""

    is_first: bool
    inner: Inner
    count: int
    columns: npt.NDArray[np.uint8]
    is_last: bool


@compiled
def read(outer: Outer) -> float:
    """Return a number in which each member has digits of its own."""
    cube = outer.inner.cube
    total = cube[1, 2, 3] + 100.0 * cube.shape[0] + 1_000.0 * outer.columns[2, 0] + 10_000.0 * outer.inner.share
    flags = outer.is_first + 2 * outer.inner.is_on + 4 * outer.is_last
    return float(total + 1e6 * outer.count + 1e8 * flags)


@pytest.mark.parametrize("flags", [(True, False, True), (False, True, False), (True, True, False)])
def test_members_of_all_kinds_are_where_compiled_code_looks(flags: tuple[bool, bool, bool]) -> None:
    """Truth values, numbers, arrays that are not in one piece, tuples in tuples."""
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    columns = np.arange(12, dtype=np.uint8).reshape(3, 4)[:, 1::2]
    outer = Outer(flags[0], Inner(flags[1], cube, 0.5), 7, columns, flags[2])
    expected = 23 + 200 + 9_000 + 5_000 + 7e6 + 1e8 * (flags[0] + 2 * flags[1] + 4 * flags[2])
    assert read(held(outer)) == expected


@pytest.mark.skipif(INTERPRETED, reason="Python takes everything")
def test_what_compiled_code_cannot_take_is_refused() -> None:
    """A member that is neither an array nor a number nor a tuple of them."""

    class Named(NamedTuple):
        name: str

    with pytest.raises(TypeError, match="arrays, numbers and named tuples"):
        held(Named("x"))

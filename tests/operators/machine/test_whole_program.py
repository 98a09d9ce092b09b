"""Whole programs link what they call in an order that leaves nothing out."""

from itertools import permutations
from typing import Any

import pytest
from thalweg.operators.machine.compiled import INTERPRETED

if not INTERPRETED:
    from thalweg.operators.machine.whole_program import _Library


def library(*callees: Any, is_outermost: bool = False) -> Any:
    """Return the library of a function that calls these, without any code."""
    made: Any = object.__new__(_Library)
    made._linking_libraries, made._is_outermost = dict.fromkeys(callees), is_outermost
    return made


@pytest.mark.skipif(INTERPRETED, reason="nothing is linked")
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_function_is_linked_behind_all_that_call_it(order: tuple[int, ...]) -> None:
    """Whichever caller comes first: one may name a function in a branch that is never taken, and need none of it."""
    shared = library()
    callers = [library(shared), library(library(shared)), library(shared, library())]
    root = library(*(callers[place] for place in order), is_outermost=True)
    found = root._callees()
    assert len(found) == len(set(found)) == 6
    assert root not in found
    for caller in found:
        assert all(found.index(caller) < found.index(callee) for callee in caller._linking_libraries)


@pytest.mark.skipif(INTERPRETED, reason="nothing is linked")
def test_what_another_whole_program_calls_is_its_own() -> None:
    """What it calls is part of its machine code already."""
    inside = library()
    other = library(inside, is_outermost=True)
    assert library(other, is_outermost=True)._callees() == [other]

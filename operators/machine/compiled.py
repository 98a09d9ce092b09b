"""The one way in which functions are compiled, or left as they are: `THALWEG_INTERPRETED=1` runs plain Python.

Interpreted, an edit compiles nothing, a debugger stops anywhere, and coverage sees each line. Outputs and states are
the compiled ones to the last bit: numbers are numpy's scalars, which widen as numba's do, and where they would not the
code says by a cast what is meant. numba is not even imported then.
"""

import os
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

Function = TypeVar("Function", bound=Callable[..., object])
Enum = TypeVar("Enum", bound=type[IntEnum])

INTERPRETED = os.environ.get("THALWEG_INTERPRETED") == "1"
WORD = (1 << 64) - 1


def compiled(function: Function) -> Function:
    """Compile a function on its first call, with IEEE arithmetic in the order written; interpreted, it stays itself.

    No fastmath and no parallel loops: the same log must give the same bits on every machine.
    """
    if INTERPRETED:
        return function
    from thalweg.operators.machine.jit import jit

    return jit(function)


def wrapping(function: Function) -> Function:
    """Compile a function whose unsigned numbers may wrap around, of which numpy would warn when interpreted."""
    return np.errstate(over="ignore")(function) if INTERPRETED else compiled(function)


if INTERPRETED and not TYPE_CHECKING:
    int64, float32, float64 = np.int64, np.float32, np.float64  # called so often that a function around them is felt

    def uint64(x: Any) -> int:
        """Return x as a uint64, as keys are, negative numbers modulo 2**64 as compiled code takes them."""
        return x if type(x) is np.uint64 else np.uint64(int(x) & WORD)

else:

    @compiled
    def int64(x: Any) -> int:
        """Return x as an int64: what compiled code takes for a whole number."""
        return np.int64(x)  # type: ignore[return-value]

    @compiled
    def float32(x: Any) -> float:
        """Return x as a float32, as weights are."""
        return np.float32(x)  # type: ignore[return-value]

    @compiled
    def float64(x: Any) -> float:
        """Return x as a float64; `float` leaves a float32 one when compiled, and interpreted gives way to a float32."""
        return np.float64(x)

    @compiled
    def uint64(x: Any) -> int:
        """Return x as a uint64, as keys are; compared with an int64 it would become a float."""
        return np.uint64(x)  # type: ignore[return-value]


def numbered(kind: Enum) -> Enum:
    """Decorate an enum whose members compiled code takes as numbers: interpreted, their names stand for plain ones.

    To find a member, and to compare one with numpy's numbers, took a sixth of the interpreted fold's time.
    """
    if INTERPRETED:
        for name, member in cast(Any, kind).__members__.items():
            type.__setattr__(kind, name, int(member))
    return kind


@compiled
def clear(array: Any) -> None:
    """Set an array [n] to zero: a loop written out is several times as fast as an assignment to a slice."""
    for i in range(array.shape[0]):
        array[i] = 0

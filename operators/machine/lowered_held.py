# mypy: disable-error-code="no-untyped-call, untyped-decorator, override"
"""Named tuples that are unpacked once and passed to compiled code many times.

numba unpacks a named tuple at each call: for a state of 150 arrays that takes 40 microseconds, as long as folding ten
events. It also compiles code for it, as long as a fifth of the fold takes. `held` writes the tuple once, from Python,
as compiled code keeps it, and what it returns is passed as one pointer. Compiled functions see the reference that
`by_reference` makes.
"""

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.core.extending import NativeValue, unbox
from numba.core.registry import cpu_target
from thalweg.operators.machine.lowered_reference import Reference

Target = TypeVar("Target")

ARRAY_WORDS = 5
"""Words of an array before its shape and strides: two for its owner, its length, its item's bytes, its address."""


class Held:
    """A named tuple whose arrays are unpacked; its members read as the tuple's own.

    The arrays stay where they are: writing into them is seen on both sides, and none may be put in another's place.
    """

    def __init__(self, target: Any) -> None:
        """Unpack a named tuple of arrays, numbers and such tuples."""
        self.target = target
        reference = _reference_to(target)
        self._numba_type_ = reference  # numba looks for this name first
        self._words = np.zeros(-(-_size_of(reference.target) // 8), np.int64)
        self.address = self._words.ctypes.data
        _layout_of(reference.target).pack_into(self._words.data, 0, *_values_of(target))
        self.__dict__.update(zip(target._fields, target, strict=True))

    def _replace(self, **members: Any) -> Any:
        return self.target._replace(**members)


def held(target: Target) -> Target:
    """Return a named tuple as compiled code takes it fastest; to Python it reads like the tuple itself."""
    return cast(Target, Held(target))


_REFERENCES: dict[Any, Reference] = {}
"""The types of named tuples so far, by what `_sort_of` returns."""


def _reference_to(target: Any) -> Reference:
    """Return numba's type of a reference to a named tuple; numba takes milliseconds to find it, so it is kept."""
    sort = _sort_of(target)
    found = _REFERENCES.get(sort)
    if found is None:
        found = _REFERENCES[sort] = Reference(cast(Any, numba).typeof(target))
    return found


def _sort_of(value: Any) -> Any:
    """Return all of a value that its numba type follows from."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.ndim, value.flags.num
    if isinstance(value, tuple):
        return type(value), *map(_sort_of, value)
    return (int, value.bit_length() > 63) if type(value) is int else type(value)


class _Place(NamedTuple):
    """Where a member of a tuple begins, in bytes, how long it is and what it is aligned to."""

    start: int
    size: int
    alignment: int


@cache
def _size_of(kind: Any) -> int:
    """Return the bytes of a named tuple as LLVM lays it out. Raises TypeError where that is not where members go."""
    size = _place_of(kind, 0).size
    context = cpu_target.target_context
    if size != context.get_abi_sizeof(context.get_value_type(kind)):
        raise TypeError(f"{kind.instance_class.__name__}: its members are laid out in another way than here")
    return size


def _place_of(kind: Any, end: int) -> _Place:
    """Return the place of a member behind one that ends at `end`: each begins at a multiple of its alignment."""
    if isinstance(kind, types.BaseNamedTuple):
        places = _places_of(kind)
        alignment = max((place.alignment for place in places), default=1)
        inner = places[-1].start + places[-1].size if places else 0
        size = -(-inner // alignment) * alignment
    elif isinstance(kind, types.Array):
        size, alignment = 8 * (ARRAY_WORDS + 2 * kind.ndim), 8
    elif isinstance(kind, types.Boolean):
        size = alignment = 1
    elif isinstance(kind, (types.Integer, types.Float)):
        size = alignment = cast(Any, kind).bitwidth // 8
    else:
        raise TypeError(f"compiled code takes arrays, numbers and named tuples of them, not {kind}")
    return _Place(-(-end // alignment) * alignment, size, alignment)


@cache
def _places_of(kind: Any) -> tuple[_Place, ...]:
    """Return the places of a named tuple's members."""
    places: list[_Place] = []
    for member in kind.types:
        places.append(_place_of(member, places[-1].start + places[-1].size if places else 0))
    return tuple(places)


@cache
def _layout_of(kind: Any) -> struct.Struct:
    """Return how what `_values_of` yields of such a named tuple is written, the bytes between members included."""
    return struct.Struct(f"={_format_of(kind)}")


def _format_of(kind: Any) -> str:
    """Return the format of a member, as `struct` has it."""
    if isinstance(kind, types.Array):
        return f"{ARRAY_WORDS + 2 * kind.ndim}q"
    if isinstance(kind, types.Boolean):
        return "?"
    if isinstance(kind, types.Float):
        return {32: "f", 64: "d"}[kind.bitwidth]
    if isinstance(kind, types.Integer):
        code = {8: "b", 16: "h", 32: "i", 64: "q"}[cast(Any, kind).bitwidth]
        return code if cast(Any, kind).signed else code.upper()
    found, end = "", 0
    for place, member in zip(_places_of(kind), kind.types, strict=True):
        found += f"{place.start - end}x{_format_of(member)}"
        end = place.start + place.size
    return f"{found}{_place_of(kind, 0).size - end}x"


def _values_of(target: Any) -> Iterator[Any]:
    """Yield the numbers that compiled code keeps of a named tuple, member by member."""
    for value in target:
        if isinstance(value, np.ndarray):
            # without an owner: no references are counted, and the tuple keeps its arrays
            yield from (0, 0, value.size, value.itemsize, value.__array_interface__["data"][0])
            yield from value.shape
            yield from value.strides
        elif isinstance(value, tuple):
            yield from _values_of(value)
        else:
            yield value


@unbox(Reference)
def _unbox(reference: Reference, value: Any, context: Any) -> Any:
    number = context.pyapi.object_getattr_string(value, "address")
    address = context.pyapi.long_as_longlong(number)
    context.pyapi.decref(number)
    pointer = context.builder.inttoptr(address, context.context.get_value_type(reference))
    return NativeValue(pointer)

# mypy: disable-error-code="no-untyped-call, untyped-decorator, override"
"""Named tuples that are unpacked once and passed to compiled code many times.

numba unpacks a named tuple at each call: for a state of 150 arrays that takes 40 microseconds, as long as folding ten
events. `held` unpacks it once, and what it returns is passed as one pointer. Compiled functions see the reference that
`by_reference` makes.
"""

from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.extending import NativeValue, intrinsic, unbox
from numba.core.types import int64
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.lowered_reference import Reference

Target = TypeVar("Target")


class Held:
    """A named tuple whose arrays are unpacked; its members read as the tuple's own.

    The arrays stay where they are: writing into them is seen on both sides, and none may be put in another's place.
    """

    def __init__(self, target: Any) -> None:
        """Unpack a named tuple of arrays, numbers and such tuples."""
        self.target = target
        self._numba_type_ = Reference(cast(Any, numba).typeof(target))  # numba looks for this name first
        self._words = np.zeros(_words_of(target), np.int64)
        self.address = self._words.ctypes.data
        _write(target, self.address)
        self.__dict__.update(zip(target._fields, target, strict=True))

    def _replace(self, **members: Any) -> Any:
        return self.target._replace(**members)


def held(target: Target) -> Target:
    """Return a named tuple as compiled code takes it fastest; to Python it reads like the tuple itself."""
    return cast(Target, Held(target))


@intrinsic
def _size_of(context: Any, target: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = context.get_abi_sizeof(context.get_value_type(signature.args[0]))
        return context.get_constant(int64, size)

    return int64(target), lower


@intrinsic
def _store(context: Any, target: Any, address: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, number = arguments
        builder.store(value, builder.inttoptr(number, value.type.as_pointer()))
        return context.get_constant(int64, 0)

    return int64(target, int64), lower


@compiled
def _words_of(target: Any) -> int:
    return (_size_of(target) + 7) // 8  # type: ignore[call-arg]


@compiled
def _write(target: Any, address: int) -> int:
    return _store(target, address)  # type: ignore[call-arg]


@unbox(Reference)
def _unbox(reference: Reference, value: Any, context: Any) -> Any:
    number = context.pyapi.object_getattr_string(value, "address")
    address = context.pyapi.long_as_longlong(number)
    context.pyapi.decref(number)
    pointer = context.builder.inttoptr(address, context.context.get_value_type(reference))
    return NativeValue(pointer)

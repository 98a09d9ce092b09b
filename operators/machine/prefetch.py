# mypy: disable-error-code="no-untyped-call"
"""Asking for memory before it is needed: rows of large tables lie anywhere, and each one waited for takes as long as
hundreds of operations.
"""

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

_READ, _KEPT, _DATA = 0, 3, 1


def _prefetch(context: Any, array: Any, row: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, row = arguments
        made = context.make_array(signature.args[0])(context, builder, array)
        stride = builder.extract_value(made.strides, 0)
        start = builder.bitcast(made.data, cgutils.voidptr_t)
        whole = ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, whole, whole, whole])
        hint = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        place = builder.gep(start, [builder.mul(row, stride)])
        builder.call(hint, [place, *(ir.Constant(whole, each) for each in (_READ, _KEPT, _DATA))])
        return context.get_dummy_value()

    return types.void(array, types.int64), lower


prefetch = cast(Callable[[Any, int], None], intrinsic(_prefetch))
"""Ask for the first cache line of an array's row; a hint that changes nothing."""

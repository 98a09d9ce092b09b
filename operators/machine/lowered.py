# mypy: disable-error-code="no-untyped-call"
"""The intrinsics as LLVM's instructions: what numba has no words for. `interpreted` has what each of them means.

Of eight float32 at a time a compiler makes a vector only where a loop goes round many more times than it is long. Each
lane does the same IEEE operations in the same order as a loop would. So the results are the loop's bits on every
machine. A processor with narrower vectors does them in parts. Rows are contiguous, and nothing is checked:
the caller leaves eight elements from where it points.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic
from thalweg.operators.machine.interpreted import LANES

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_ALIGNMENT = 4
RANKS_AT_ONCE = 8
_READ, _KEPT, _DATA = 0, 3, 1


def _bits_of(context: Any, x: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), lower


def _float_of(context: Any, bits: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), lower


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


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    """Point to eight elements of an array, from the element `at` on."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _VECTOR.as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    loaded = builder.load(pointer)
    loaded.align = _ALIGNMENT
    return loaded


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = _ALIGNMENT


def _all(builder: Any, scalar: Any) -> Any:
    """Return a scalar in all lanes."""
    lanes = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(lanes, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, lanes, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _sum_of(builder: Any, products: Any) -> Any:
    """Return the sum of the lanes, k and k + 4 added first."""
    four = ir.VectorType(ir.IntType(32), LANES // 2)
    low = builder.shuffle_vector(products, products, ir.Constant(four, [0, 1, 2, 3]))
    high = builder.shuffle_vector(products, products, ir.Constant(four, [4, 5, 6, 7]))
    lanes = builder.fadd(low, high)
    lane = [builder.extract_element(lanes, ir.Constant(ir.IntType(32), number)) for number in range(4)]
    return builder.fadd(builder.fadd(lane[0], lane[1]), builder.fadd(lane[2], lane[3]))


def _add_scaled(context: Any, out: Any, start: Any, scale: Any, x: Any, x_start: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, scale, x, x_start = arguments
        target = _pointer(context, builder, signature.args[0], out, start)
        source = _pointer(context, builder, signature.args[3], x, x_start)
        product = builder.fmul(_all(builder, scale), _load(builder, source))
        _store(builder, builder.fadd(_load(builder, target), product), target)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.float32, x, types.int64), lower


def _multiply(context: Any, a: Any, start: Any, b: Any, b_start: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, start, b, b_start = arguments
        first = _load(builder, _pointer(context, builder, signature.args[0], a, start))
        second = _load(builder, _pointer(context, builder, signature.args[2], b, b_start))
        return _sum_of(builder, builder.fmul(first, second))

    return types.float32(a, types.int64, b, types.int64), lower


def _element(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.load(builder.gep(context.make_array(array_type)(context, builder, array).data, [at]))


def _positive(context: Any, x: Any, start: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, start = arguments
        numbers = _load(builder, _pointer(context, builder, signature.args[0], x, start))
        above = builder.fcmp_ordered(">", numbers, ir.Constant(_VECTOR, [0.0] * LANES))
        return builder.zext(builder.bitcast(above, ir.IntType(LANES)), ir.IntType(64))

    return types.int64(x, types.int64), lower


def _score_pairs(
    context: Any,
    vectors: Any,
    size: Any,
    chunk: Any,
    present: Any,
    a: Any,
    first: Any,
    end: Any,
    weights: Any,
    before: Any,
) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, size, chunk, present, a, first, end, weights, before = arguments

        def place_of(number: Any) -> tuple[Any, Any]:
            place = builder.sext(_element(context, builder, signature.args[3], present, number), ir.IntType(64))
            at = builder.add(builder.mul(place, size), chunk)
            return place, _pointer(context, builder, signature.args[0], vectors, at)

        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))
        builder.store(_load(builder, _pointer(context, builder, signature.args[8], before, chunk)), total)
        one = ir.Constant(ir.IntType(64), 1)
        with cgutils.for_range_slice(builder, first, end, one) as (b, _):
            place, other = place_of(b)
            weight = _all(builder, _element(context, builder, signature.args[7], weights, place))
            builder.store(builder.fadd(builder.load(total), builder.fmul(weight, _load(builder, other))), total)
        return _sum_of(builder, builder.fmul(_load(builder, place_of(a)[1]), builder.load(total)))

    whole = types.int64
    return types.float32(vectors, whole, whole, present, whole, whole, whole, weights, before), lower


def _learn_pairs(
    context: Any,
    vectors: Any,
    gradients: Any,
    size: Any,
    chunk: Any,
    present: Any,
    a: Any,
    end: Any,
    weights: Any,
    dots: Any,
) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors, gradients, size, chunk, present, a, end, weights, dots = arguments

        def places_of(number: Any) -> tuple[Any, Any, Any]:
            place = builder.sext(_element(context, builder, signature.args[4], present, number), ir.IntType(64))
            at = builder.add(builder.mul(place, size), chunk)
            vector = _pointer(context, builder, signature.args[0], vectors, at)
            return place, vector, _pointer(context, builder, signature.args[1], gradients, at)

        _, own, own_gradient = places_of(a)
        vector = _load(builder, own)
        total = cgutils.alloca_once_value(builder, _load(builder, own_gradient))
        one = ir.Constant(ir.IntType(64), 1)
        with cgutils.for_range_slice(builder, builder.add(a, one), end, one) as (b, _):
            place, other, other_gradient = places_of(b)
            weight = _all(builder, _element(context, builder, signature.args[7], weights, place))
            theirs = _load(builder, other)
            builder.store(builder.fadd(builder.load(total), builder.fmul(weight, theirs)), total)
            moved = builder.fadd(_load(builder, other_gradient), builder.fmul(weight, vector))
            _store(builder, moved, other_gradient)
            slot = builder.gep(context.make_array(signature.args[8])(context, builder, dots).data, [place])
            builder.store(builder.fadd(builder.load(slot), _sum_of(builder, builder.fmul(vector, theirs))), slot)
        _store(builder, builder.load(total), own_gradient)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(vectors, gradients, whole, whole, present, whole, whole, weights, dots), lower


def _stepped(builder: Any, parts: Sequence[Any], g: Any, alpha: Any, l1: Any, floor: Any) -> Iterator[Any]:
    """Yield the weight, z, n and D behind `ftrl`'s step against g, of numbers or of vectors of them."""
    weight, initial, z, n, d = parts
    suffix = f"v{LANES}f32" if g.type == _VECTOR else "f32"
    root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(g.type, [g.type]), f"llvm.sqrt.{suffix}")
    squares = builder.fadd(n, builder.fmul(g, g))
    sigma = builder.fdiv(builder.fsub(builder.call(root, [squares]), builder.call(root, [n])), alpha)
    moved = builder.fadd(z, builder.fsub(g, builder.fmul(sigma, builder.fsub(weight, initial))))
    slowed = builder.fadd(d, sigma)
    zero = ir.Constant(g.type, [0.0] * LANES if g.type == _VECTOR else 0.0)
    below, above = builder.fsub(moved, l1), builder.fadd(moved, l1)
    positive = builder.select(builder.fcmp_ordered(">", below, zero), below, zero)
    negative = builder.select(builder.fcmp_ordered("<", above, zero), above, zero)
    yield builder.fsub(initial, builder.fdiv(builder.fadd(positive, negative), builder.fadd(floor, slowed)))
    yield from (moved, squares, slowed)


def _columns(builder: Any, size: Any, column: Any) -> list[Any]:
    """Return where the five parts of a coordinate are in its row."""
    return [builder.add(builder.mul(size, ir.Constant(ir.IntType(64), part)), column) for part in range(5)]


def _descend(
    context: Any,
    row: Any,
    size: Any,
    column: Any,
    gradient: Any,
    start: Any,
    scale: Any,
    alpha: Any,
    l1: Any,
    floor: Any,
) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, size, column, gradient, start, scale, alpha, l1, floor = arguments
        places = [_pointer(context, builder, signature.args[0], row, at) for at in _columns(builder, size, column)]
        parts = [_load(builder, place) for place in places]
        steps = _load(builder, _pointer(context, builder, signature.args[3], gradient, start))
        alpha, l1, floor = (_all(builder, each) for each in (alpha, l1, floor))
        stepped = _stepped(builder, parts, builder.fmul(steps, _all(builder, scale)), alpha, l1, floor)
        for value, place in zip(stepped, (places[0], *places[2:]), strict=True):
            _store(builder, value, place)
        return context.get_dummy_value()

    rest = (types.float32,) * 4
    return types.void(row, types.int64, types.int64, gradient, types.int64, *rest), lower


def _descend_one(context: Any, row: Any, size: Any, column: Any, g: Any, alpha: Any, l1: Any, floor: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, size, column, g, alpha, l1, floor = arguments
        data = context.make_array(signature.args[0])(context, builder, row).data
        places = [builder.gep(data, [at]) for at in _columns(builder, size, column)]
        parts = [builder.load(place) for place in places]
        for value, place in zip(_stepped(builder, parts, g, alpha, l1, floor), (places[0], *places[2:]), strict=True):
            builder.store(value, place)
        return context.get_dummy_value()

    return types.void(row, types.int64, types.int64, *(types.float32,) * 4), lower


def _copy_bytes(context: Any, out: Any, start: Any, source: Any, source_start: Any, count: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, source, source_start, count = arguments
        target = context.make_array(signature.args[0])(context, builder, out).data
        origin = context.make_array(signature.args[2])(context, builder, source).data
        cgutils.raw_memcpy(builder, builder.gep(target, [start]), builder.gep(origin, [source_start]), count, 1)
        return context.get_dummy_value()

    return types.void(out, types.int64, source, types.int64, types.int64), lower


def _gather(context: Any, out: Any, matrix: Any, x: Any, present: Any, blocks: Any, ranks: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, matrix, x, present, blocks, ranks = arguments
        whole = ir.IntType(64)
        eight = ir.Constant(whole, LANES)

        def sums(first: Any, width: int) -> None:
            """Gather so many ranks at once: their sums stay in registers, and none waits for another."""
            nothing = ir.Constant(_VECTOR, [0.0] * LANES)
            totals = [cgutils.alloca_once_value(builder, nothing) for _ in range(width)]
            for total in totals:
                builder.store(nothing, total)
            with cgutils.for_range(builder, blocks) as loop:
                block = builder.sext(_element(context, builder, signature.args[3], present, loop.index), whole)
                at = builder.mul(builder.add(builder.mul(block, ranks), first), eight)
                values = _load(builder, _pointer(context, builder, signature.args[2], x, builder.mul(block, eight)))
                for place, total in enumerate(totals):
                    lane = builder.add(at, ir.Constant(whole, place * LANES))
                    weights = _load(builder, _pointer(context, builder, signature.args[1], matrix, lane))
                    builder.store(builder.fadd(builder.load(total), builder.fmul(weights, values)), total)
            made = context.make_array(signature.args[0])(context, builder, out)
            for place, total in enumerate(totals):
                target = builder.gep(made.data, [builder.add(first, ir.Constant(whole, place))])
                builder.store(_sum_of(builder, builder.load(total)), target)

        groups = builder.sdiv(ranks, ir.Constant(whole, RANKS_AT_ONCE))
        with cgutils.for_range(builder, groups) as loop:
            sums(builder.mul(loop.index, ir.Constant(whole, RANKS_AT_ONCE)), RANKS_AT_ONCE)
        done = builder.mul(groups, ir.Constant(whole, RANKS_AT_ONCE))
        with cgutils.for_range(builder, builder.sub(ranks, done)) as loop:
            sums(builder.add(done, loop.index), 1)
        return context.get_dummy_value()

    return types.void(out, matrix, x, present, types.int64, types.int64), lower


def _project(context: Any, out: Any, start: Any, matrix: Any, at: Any, stride: Any, x: Any, count: Any) -> Any:
    number = ir.DoubleType() if out.dtype == types.float64 else _FLOAT
    vector = ir.VectorType(number, LANES)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, matrix, at, stride, x, count = arguments

        def eight(place: int, array: Any, first: Any) -> Any:
            data = context.make_array(signature.args[place])(context, builder, array).data
            return builder.bitcast(builder.gep(data, [first]), vector.as_pointer())

        target = eight(0, out, start)
        total = cgutils.alloca_once(builder, vector)
        builder.store(_load(builder, target), total)
        with cgutils.for_range(builder, count) as loop:
            row = _load(builder, eight(2, matrix, builder.add(at, builder.mul(loop.index, stride))))
            scale = _element(context, builder, signature.args[5], x, loop.index)
            scale = scale if scale.type == number else builder.fpext(scale, number)
            lanes = builder.insert_element(ir.Constant(vector, ir.Undefined), scale, ir.Constant(ir.IntType(32), 0))
            zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            product = builder.fmul(row, builder.shuffle_vector(lanes, lanes, zeros))
            builder.store(builder.fadd(builder.load(total), product), total)
        _store(builder, builder.load(total), target)
        return context.get_dummy_value()

    whole = types.int64
    return types.void(out, whole, matrix, whole, whole, x, whole), lower


def _spread(context: Any, out: Any, start: Any, matrix: Any, at: Any, hidden: Any, ranks: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, start, matrix, at, hidden, ranks = arguments
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))
        with cgutils.for_range(builder, ranks) as loop:
            lane = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            weights = _load(builder, _pointer(context, builder, signature.args[2], matrix, builder.add(at, lane)))
            scale = _all(builder, _element(context, builder, signature.args[4], hidden, loop.index))
            builder.store(builder.fadd(builder.load(total), builder.fmul(weights, scale)), total)
        _store(builder, builder.load(total), _pointer(context, builder, signature.args[0], out, start))
        return context.get_dummy_value()

    return types.void(out, types.int64, matrix, types.int64, hidden, types.int64), lower


def _move(context: Any, matrix: Any, at: Any, step: Any, start: Any, hidden: Any, ranks: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix, at, step, start, hidden, ranks = arguments
        steps = _load(builder, _pointer(context, builder, signature.args[2], step, start))
        with cgutils.for_range(builder, ranks) as loop:
            lane = builder.mul(loop.index, ir.Constant(ir.IntType(64), LANES))
            place = _pointer(context, builder, signature.args[0], matrix, builder.add(at, lane))
            scale = _all(builder, _element(context, builder, signature.args[4], hidden, loop.index))
            _store(builder, builder.fsub(_load(builder, place), builder.fmul(steps, scale)), place)
        return context.get_dummy_value()

    return types.void(matrix, types.int64, step, types.int64, hidden, types.int64), lower


def _weigh(context: Any, squares: Any, at: Any, gradient: Any, start: Any, weight: Any, floor: Any, step: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        squares, at, gradient, start, weight, floor, step = arguments
        place = _pointer(context, builder, signature.args[0], squares, at)
        g = _load(builder, _pointer(context, builder, signature.args[2], gradient, start))
        grown = builder.fmul(builder.fmul(g, g), _all(builder, weight))
        total = builder.fadd(_load(builder, place), grown)
        _store(builder, total, place)
        size = _root(builder, builder.fadd(total, _all(builder, floor)))
        steps = builder.fdiv(g, size)
        _store(builder, steps, _pointer(context, builder, signature.args[6], step, at))
        return _sum_of(builder, builder.fmul(g, steps))

    whole, real = types.int64, types.float32
    return types.float32(squares, whole, gradient, whole, real, real, step), lower


def _root(builder: Any, squares: Any) -> Any:
    function = ir.FunctionType(_VECTOR, [_VECTOR])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.sqrt.v{LANES}f32"), [squares])


def _descend_row(context: Any, row: Any, gradient: Any, start: Any, scale: Any, rate: Any, floor: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        row, gradient, start, scale, rate, floor = arguments
        whole = ir.IntType(64)
        weights = _pointer(context, builder, signature.args[0], row, ir.Constant(whole, 0))
        squares = _pointer(context, builder, signature.args[0], row, ir.Constant(whole, LANES))
        g = _load(builder, _pointer(context, builder, signature.args[1], gradient, start))
        g = builder.fmul(_all(builder, scale), g)
        total = builder.fadd(_load(builder, squares), builder.fmul(g, g))
        _store(builder, total, squares)
        root = _root(builder, builder.fadd(_all(builder, floor), total))
        step = builder.fdiv(builder.fmul(_all(builder, rate), g), root)
        _store(builder, builder.fsub(_load(builder, weights), step), weights)
        return context.get_dummy_value()

    real = types.float32
    return types.void(row, gradient, types.int64, real, real, real), lower


def _multiply_add(context: Any, out: Any, at: Any, a: Any, b: Any, c: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, *rest = arguments
        a, b, c = (
            _load(builder, _pointer(context, builder, signature.args[place], array, at))
            for place, array in enumerate(rest, 2)
        )
        total = builder.fadd(builder.fmul(a, b), c)
        _store(builder, total, _pointer(context, builder, signature.args[0], out, at))
        return context.get_dummy_value()

    return types.void(out, types.int64, a, b, c), lower


def _add_crossed(context: Any, out: Any, at: Any, a: Any, b: Any, c: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, *rest = arguments
        target = _pointer(context, builder, signature.args[0], out, at)
        a, b, c = (
            _load(builder, _pointer(context, builder, signature.args[place], array, at))
            for place, array in enumerate(rest, 2)
        )
        product = builder.fmul(b, builder.fadd(c, ir.Constant(_VECTOR, [1.0] * LANES)))
        _store(builder, builder.fadd(_load(builder, target), builder.fadd(a, product)), target)
        return context.get_dummy_value()

    return types.void(out, types.int64, a, b, c), lower


def _clear(context: Any, out: Any, at: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at = arguments
        _store(builder, ir.Constant(_VECTOR, [0.0] * LANES), _pointer(context, builder, signature.args[0], out, at))
        return context.get_dummy_value()

    return types.void(out, types.int64), lower


def _product(context: Any, out: Any, at: Any, a: Any, b: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, at, *rest = arguments
        a, b = (
            _load(builder, _pointer(context, builder, signature.args[place], array, at))
            for place, array in enumerate(rest, 2)
        )
        _store(builder, builder.fmul(a, b), _pointer(context, builder, signature.args[0], out, at))
        return context.get_dummy_value()

    return types.void(out, types.int64, a, b), lower


bits_of = intrinsic(_bits_of)
float_of = intrinsic(_float_of)
prefetch = intrinsic(_prefetch)
add_scaled_lanes = intrinsic(_add_scaled)
dot_lanes = intrinsic(_multiply)
positive_lanes = intrinsic(_positive)
score_pairs_lanes = intrinsic(_score_pairs)
learn_pairs_lanes = intrinsic(_learn_pairs)
descend_lanes = intrinsic(_descend)
descend_lane = intrinsic(_descend_one)
copy_bytes = intrinsic(_copy_bytes)
gather_lanes = intrinsic(_gather)
project_lanes = intrinsic(_project)
spread_lanes = intrinsic(_spread)
move_lanes = intrinsic(_move)
weigh_lanes = intrinsic(_weigh)
descend_row_lanes = intrinsic(_descend_row)
multiply_add_lanes = intrinsic(_multiply_add)
product_lanes = intrinsic(_product)
add_crossed_lanes = intrinsic(_add_crossed)
clear_lanes = intrinsic(_clear)

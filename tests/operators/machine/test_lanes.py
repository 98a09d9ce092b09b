"""Eight lanes at once are, bit for bit, what numpy's float32 gives one by one."""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from thalweg.operators.ftrl import PARTS, new_coordinates, rate
from thalweg.operators.ftrl import descend as descend_one
from thalweg.operators.machine.compiled import compiled, float32
from thalweg.operators.machine.lanes import (
    LANES,
    add_crossed_lanes,
    add_scaled_lanes,
    clear_lanes,
    copy_bytes,
    descend_lanes,
    descend_row_lanes,
    dot_lanes,
    gather_lanes,
    learn_pairs_lanes,
    move_lanes,
    multiply_add_lanes,
    positive_lanes,
    product_lanes,
    project_lanes,
    score_pairs_lanes,
    spread_lanes,
    weigh_lanes,
)

FINITE = st.floats(-8, 8, width=32)
Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]
F = np.float32


def rows(count: int, size: int) -> st.SearchStrategy[Floats]:
    return arrays(F, (count, size), elements=FINITE)


@compiled
def _add_scaled(out: Floats, start: int, scale: float, x: Floats, x_start: int) -> None:
    add_scaled_lanes(out, start, scale, x, x_start)


@compiled
def _dot(a: Floats, start: int, b: Floats, b_start: int) -> float:
    return dot_lanes(a, start, b, b_start)


@compiled
def _score_pairs(
    vectors: Floats, chunk: int, present: npt.NDArray[np.int32], first: int, weights: Floats, before: Floats
) -> float:
    return score_pairs_lanes(vectors, vectors.shape[1], chunk, present, 0, first, present.shape[0], weights, before)


@compiled
def _project(out: Floats, start: int, matrix: Floats, at: int, stride: int, x: Floats, count: int) -> None:
    project_lanes(out, start, matrix, at, stride, x, count)


@compiled
def _positive(x: Floats, start: int) -> int:
    return positive_lanes(x, start)


@compiled
def _learn_pairs(
    vectors: Floats,
    gradients: Floats,
    chunk: int,
    present: npt.NDArray[np.int32],
    a: int,
    weights: Floats,
    dots: Floats,
) -> None:
    learn_pairs_lanes(vectors, gradients, vectors.shape[1], chunk, present, a, present.shape[0], weights, dots)


@compiled
def _descend(row: Floats, column: int, gradient: Floats, scale: float, alpha: float, l1: float, floor: float) -> None:
    descend_lanes(row, row.shape[1], column, gradient, 0, scale, alpha, l1, floor)


@compiled
def _copy(out: npt.NDArray[np.uint8], at: int, source: npt.NDArray[np.uint8], start: int, count: int) -> None:
    copy_bytes(out, at, source, start, count)


@compiled
def _gather(out: Floats, matrix: Floats, x: Floats, present: Places, blocks: int, ranks: int) -> None:
    gather_lanes(out, matrix, x, present, blocks, ranks)


@compiled
def _spread(out: Floats, start: int, matrix: Floats, at: int, hidden: Floats, ranks: int) -> None:
    spread_lanes(out, start, matrix, at, hidden, ranks)


@compiled
def _move(matrix: Floats, at: int, step: Floats, start: int, hidden: Floats, ranks: int) -> None:
    move_lanes(matrix, at, step, start, hidden, ranks)


@compiled
def _weigh(squares: Floats, at: int, gradient: Floats, start: int, weight: float, floor: float, step: Floats) -> float:
    return weigh_lanes(squares, at, gradient, start, weight, floor, step)


@compiled
def _descend_row(row: Floats, gradient: Floats, start: int, scale: float, rate: float, floor: float) -> None:
    descend_row_lanes(row, gradient, start, scale, rate, floor)


@compiled
def _elementwise(out: Floats, at: int, a: Floats, b: Floats, c: Floats) -> None:
    multiply_add_lanes(out[0], at, a, b, c)
    product_lanes(out[1], at, a, b)
    add_crossed_lanes(out[2], at, a, b, c)
    clear_lanes(out[3], at)


def sum_of(products: Floats) -> np.float32:
    lanes = products[:4] + products[4:]
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])


@given(rows(1, 12), rows(1, 12), FINITE, st.integers(0, 4), st.integers(0, 4))
def test_scaled_sums_and_dots(out: Floats, x: Floats, scale: float, start: int, x_start: int) -> None:
    """Eight elements from where each row is pointed at, and no other."""
    expected = out[0].copy()
    expected[start : start + LANES] += F(scale) * x[0, x_start : x_start + LANES]
    products = out[0, start : start + LANES] * x[0, x_start : x_start + LANES]
    assert F(_dot(out[0], start, x[0], x_start)) == sum_of(products)
    _add_scaled(out[0], start, F(scale), x[0], x_start)
    assert out[0].tobytes() == expected.tobytes()


@given(rows(5, 16), rows(5, 16), rows(1, 5), st.sampled_from([0, 8]), st.permutations(range(5)), st.integers(2, 5))
def test_pairs(vectors: Floats, gradients: Floats, weights: Floats, chunk: int, order: list[int], count: int) -> None:
    """Of a field with those behind it: the sum of products, the gradients of both, and each pair's product."""
    present = np.array(order[:count], np.int32)
    part = slice(chunk, chunk + LANES)
    nothing, total = np.zeros(16, F), np.zeros(LANES, F)
    expected, dots, expected_dots = gradients.copy(), np.ones(5, F), np.ones(5, F)
    own = present[0]
    for other in present[1:]:
        total += weights[0, other] * vectors[other, part]
        expected[own, part] += weights[0, other] * vectors[other, part]
        expected[other, part] += weights[0, other] * vectors[own, part]
        expected_dots[other] += sum_of(vectors[own, part] * vectors[other, part])
    assert F(_score_pairs(vectors, chunk, present, 1, weights[0], nothing)) == sum_of(vectors[own, part] * total)
    first, before = weights[0, present[1]] * vectors[present[1]], nothing  # what comes first may be summed before
    assert F(_score_pairs(vectors, chunk, present, 2, weights[0], before + first)) == sum_of(vectors[own, part] * total)
    _learn_pairs(vectors, gradients, chunk, present, 0, weights[0], dots)
    assert gradients.tobytes() == expected.tobytes()
    assert dots.tobytes() == expected_dots.tobytes()


@given(st.lists(arrays(F, LANES, elements=FINITE), min_size=1, max_size=6), FINITE, st.sampled_from([0.0, 0.25, 2.0]))
def test_steps_are_those_of_single_coordinates(gradients: list[Floats], scale: float, l1: float) -> None:
    """Steps of eight coordinates leave the bits that steps of one leave, exact zeros of the l1 bound included."""
    one, eight = new_coordinates(1, 1 + LANES, 0.5), new_coordinates(1, 1 + LANES, 0.5)
    how = rate(0.1, l1=l1, l2=0.125)
    for gradient in gradients:
        _descend(eight[0], 1, gradient, F(scale), how.alpha, how.l1, F(how.beta / how.alpha) + how.l2)
        for lane in range(LANES):
            descend_one(one, 0, 1 + lane, gradient[lane] * F(scale), how)
    assert eight.shape[1] == PARTS
    np.testing.assert_array_equal(eight, one)


@given(rows(2, 48), rows(3, 24), st.sampled_from([0, 8, 16]), st.integers(1, 4))
def test_a_block_of_a_low_rank_matrix(made: Floats, others: Floats, at: int, ranks: int) -> None:
    """Products with a block of eight coordinates, either way, and a step of it, rank by rank in their order."""
    matrix, expected = made[0], made[0].copy()
    x, hidden = others[0], others[2, :4]
    blocks = [matrix[at + LANES * k : at + LANES * k + LANES] for k in range(ranks)]
    total = np.zeros(LANES, F)
    for k, block in enumerate(blocks):
        total += block * hidden[k]
        expected[at + LANES * k : at + LANES * k + LANES] -= x[16:24] * hidden[k]
    out = np.zeros(24, F)
    _spread(out, 8, matrix, at, hidden, ranks)
    assert out[8:16].tobytes() == total.tobytes()
    assert not out[:8].any()
    assert not out[16:].any()
    _move(matrix, at, x, 16, hidden, ranks)
    assert matrix.tobytes() == expected.tobytes()


@given(rows(1, 240), rows(1, 24), st.permutations(range(3)), st.integers(0, 3), st.integers(1, 10))
def test_products_with_blocks_of_a_low_rank_matrix(
    made: Floats, x: Floats, order: list[int], blocks: int, ranks: int
) -> None:
    """Of the blocks that are present, in their order, whatever the number of ranks; no more is written."""
    matrix, present, out = made[0], np.array(order, np.int32), np.full(12, 7, F)
    expected = out.copy()
    for k in range(ranks):
        total = np.zeros(LANES, F)
        for block in order[:blocks]:
            at = LANES * (ranks * block + k)
            total += matrix[at : at + LANES] * x[0, LANES * block : LANES * block + LANES]
        expected[k] = sum_of(total)
    _gather(out, matrix, x[0], present, blocks, ranks)
    assert out.tobytes() == expected.tobytes()


@given(rows(3, 24), st.floats(0, 4, width=32))
def test_steps_by_the_sum_of_squares(made: Floats, weight: float) -> None:
    """Squares grow by the weighted gradient's, and the step is the gradient over their root."""
    squares, gradient, step = np.abs(made[0]), made[1], made[2]
    grown = squares[8:16] + gradient[16:24] * gradient[16:24] * F(weight)
    steps = gradient[16:24] / np.sqrt(grown + F(10.0))
    found = _weigh(squares, 8, gradient, 16, F(weight), F(10.0), step)
    assert F(found) == sum_of(gradient[16:24] * steps)
    assert squares[8:16].tobytes() == grown.tobytes()
    assert step[8:16].tobytes() == steps.tobytes()


@given(st.binary(min_size=30, max_size=30), st.integers(0, 10), st.integers(0, 10), st.integers(0, 20))
def test_bytes_are_copied(data: bytes, at: int, start: int, count: int) -> None:
    """So many bytes from here to there, none at all among them."""
    out, source = np.zeros(30, np.uint8), np.frombuffer(bytearray(data), np.uint8)
    expected = bytearray(30)
    expected[at : at + count] = data[start : start + count]
    _copy(out, at, source, start, count)
    assert bytes(out) == bytes(expected)


def test_float32_is_what_all_of_it_is_made_of() -> None:
    """A float64 among the operands would be another operation."""
    assert float32(0.1) == F(0.1)


@given(rows(1, 16), st.sampled_from([0, 3, 8]))
def test_which_are_positive(x: Floats, start: int) -> None:
    """A bit for each of eight numbers that is above 0."""
    x[0, start] = 0.0
    x[0, start + 1] = np.nan
    assert _positive(x[0], start) == sum(1 << k for k in range(LANES) if x[0, start + k] > 0.0)


@given(rows(1, 16), rows(3, 24), rows(1, 3), st.sampled_from([0, 8]), st.booleans())
def test_projections(out: Floats, matrix: Floats, x: Floats, start: int, is_double: bool) -> None:
    """Eight columns of a matrix by a vector, added to what was there, in the order of the rows."""
    precision: type = np.float64 if is_double else F
    out, matrix = out.astype(precision), matrix.astype(precision)
    expected = out[0].copy()
    for j in range(3):
        expected[start : start + LANES] += matrix[j, start : start + LANES] * x[0, j]
    _project(out[0], start, matrix, start, 24, x[0], 3)
    assert out[0].tobytes() == expected.tobytes()


@given(rows(4, 24), rows(3, 24), st.integers(0, 16))
def test_one_result_a_coordinate(out: Floats, made: Floats, at: int) -> None:
    """Eight sums and products from where the rows are pointed at, each operation rounded, and no other is written."""
    a, b, c = made
    part, expected = slice(at, at + LANES), out.copy()
    expected[0, part] = a[part] * b[part] + c[part]
    expected[1, part] = a[part] * b[part]
    expected[2, part] += a[part] + b[part] * (c[part] + F(1.0))
    expected[3, part] = 0.0
    _elementwise(out, at, a, b, c)
    assert out.tobytes() == expected.tobytes()


@given(rows(2, 24), FINITE, st.integers(0, 16))
def test_steps_of_a_row_by_its_own_squares(made: Floats, scale: float, start: int) -> None:
    """The second eight of a row have the sums of squares that the first eight's steps are divided by."""
    row, gradient = np.abs(made[0]), made[1]
    expected = row.copy()
    g = F(scale) * gradient[start : start + LANES]
    expected[LANES : 2 * LANES] += g * g
    expected[:LANES] -= F(0.5) * g / np.sqrt(F(2.0) + expected[LANES : 2 * LANES])
    _descend_row(row, gradient, start, F(scale), F(0.5), F(2.0))
    assert row.tobytes() == expected.tobytes()

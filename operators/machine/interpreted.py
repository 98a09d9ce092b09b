"""What each intrinsic does, in plain Python: the meaning of `lowered`, and what runs where nothing is compiled."""

import struct
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

LANES = 8
WORD = (1 << 64) - 1

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int32]
Target = TypeVar("Target")
_FLOAT64, _UINT64, _INT64 = struct.Struct("<d"), struct.Struct("<Q"), struct.Struct("<q")


def bits_of(x: float) -> int:
    """Return the bits of a float64 as an int64."""
    return _INT64.unpack(_FLOAT64.pack(x))[0]  # type: ignore[no-any-return]


def float_of(bits: int) -> float:
    """Return the float64 with the bits of an int64."""
    return _FLOAT64.unpack(_UINT64.pack(int(bits) & WORD))[0]  # type: ignore[no-any-return]


def by_reference(target: Target) -> Target:
    """Return a reference to a named tuple, valid until the calling function returns."""
    return target


def held(target: Target) -> Target:
    """Return a named tuple as compiled code takes it fastest; to Python it reads like the tuple itself."""
    return target


def prefetch(array: Any, row: int) -> None:
    """Ask for the first cache line of an array's row; a hint that changes nothing."""


def _sum_of(products: Floats) -> float:
    """Return the sum of eight lanes, k and k + 4 added first."""
    low = products[:4] + products[4:]
    return (low[0] + low[1]) + (low[2] + low[3])  # type: ignore[no-any-return]


def _eight(row: Floats, start: int) -> Floats:
    """Return eight elements of an array from `start` on, counted in the order of memory."""
    return row.reshape(-1)[start : start + LANES]


def _rows(array: Floats, start: int, count: int) -> Floats:
    """Return `count` times eight elements of an array from `start` on [count, 8]."""
    return array.reshape(-1)[start : start + LANES * count].reshape(count, LANES)


def add_scaled_lanes(out: Floats, start: int, scale: float, x: Floats, x_start: int) -> None:
    """Add `scale * x[x_start + k]` to `out[start + k]` for k below 8."""
    target = _eight(out, start)
    target += np.float32(scale) * _eight(x, x_start)


def dot_lanes(a: Floats, start: int, b: Floats, b_start: int) -> float:
    """Return the sum of a[start + k] * b[b_start + k] for k below 8: lanes k and k + 4 are added first."""
    return _sum_of(_eight(a, start) * _eight(b, b_start))


def positive_lanes(x: Floats, start: int) -> int:
    """Return the bits of which of x[start + k] are above 0, bit k for each k below 8."""
    return np.int64(np.packbits(_eight(x, start) > 0.0, bitorder="little")[0])  # type: ignore[return-value]


def score_pairs_lanes(
    vectors: Floats,
    size: int,
    chunk: int,
    present: npt.NDArray[np.int32],
    a: int,
    first: int,
    end: int,
    weights: Floats,
    before: Floats,
) -> float:
    """Return the part of <v_a, s + sum_b weights[b] v_b>, b over `present[first:end]`, of eight of the coordinates.

    `vectors` [places, size]; the eight begin at `chunk`, in `before` [size] too, which is s.
    """
    part = vectors[:, chunk : chunk + LANES]
    total = before[chunk : chunk + LANES].copy()
    for b in range(first, end):
        total += weights[present[b]] * part[present[b]]
    return _sum_of(part[present[a]] * total)


def learn_pairs_lanes(
    vectors: Floats,
    gradients: Floats,
    size: int,
    chunk: int,
    present: npt.NDArray[np.int32],
    a: int,
    end: int,
    weights: Floats,
    dots: Floats,
) -> None:
    """Add the pairs (a, b) to gradients and dots, for each b of `present[a + 1 : end]` and eight of the coordinates.

    Add `weights[b] v_b` to the gradient of a, `weights[b] v_a` to that of b, and `<v_a, v_b>` to `dots[b]`.
    `vectors` [places, size]; the eight begin at `chunk`.
    """
    part, gradient = vectors[:, chunk : chunk + LANES], gradients[:, chunk : chunk + LANES]
    own = present[a]
    total = gradient[own].copy()
    for b in range(a + 1, end):
        other = present[b]
        total += weights[other] * part[other]
        gradient[other] += weights[other] * part[own]
        dots[other] += _sum_of(part[own] * part[other])
    gradient[own] = total


def descend_lanes(
    row: Floats,
    size: int,
    column: int,
    gradient: Floats,
    start: int,
    scale: float,
    alpha: float,
    l1: float,
    floor: float,
) -> None:
    """Take `ftrl.descend`'s step of eight coordinates of a row [5, size], from `column` on.

    `gradient` is read from `start` on and multiplied by `scale`; `alpha`, `l1` of the rate, and `floor`, its
    beta / alpha + l2.
    """
    _descend(row[:, column : column + LANES], gradient[start : start + LANES] * np.float32(scale), alpha, l1, floor)


def descend_lane(row: Floats, size: int, column: int, gradient: float, alpha: float, l1: float, floor: float) -> None:
    """Take `ftrl.descend`'s step of one coordinate of a row [5, size] against `gradient`; the rest as above."""
    _descend(row[:, column : column + 1], np.full(1, gradient, np.float32), alpha, l1, floor)


def _descend(parts: Floats, g: Floats, alpha: float, l1: float, floor: float) -> None:
    """Take the step of coordinates [5, n] against g [n]."""
    weight, initial, z, n, d = parts
    squares = n + g * g
    sigma = (np.sqrt(squares) - np.sqrt(n)) / np.float32(alpha)
    z += g - sigma * (weight - initial)
    n[:] = squares
    d += sigma
    zero, bound = np.float32(0.0), np.float32(l1)
    below, above = z - bound, z + bound
    shrunk = np.where(below > zero, below, zero) + np.where(above < zero, above, zero)
    weight[:] = initial - shrunk / (np.float32(floor) + d)


def gather_lanes(out: Floats, matrix: Floats, x: Floats, present: Places, blocks: int, ranks: int) -> None:
    """Write the sums of matrix[8 (ranks b + k) + i] * x[8 b + i] to out[k], for each k below `ranks`.

    Over all b among the first `blocks` of `present` in their order, and then over i below 8.
    """
    totals = np.zeros((ranks, LANES), np.float32)
    for block in present[:blocks]:
        totals += _rows(matrix, LANES * ranks * int(block), ranks) * _eight(x, LANES * int(block))
    low = totals[:, :4] + totals[:, 4:]
    out[:ranks] = (low[:, 0] + low[:, 1]) + (low[:, 2] + low[:, 3])


def project_lanes(
    out: npt.NDArray[Any],
    start: int,
    matrix: npt.NDArray[Any],
    at: int,
    stride: int,
    x: npt.NDArray[Any],
    count: int,
) -> None:
    """Add the sum over j below `count` of matrix[at + stride j + k] * x[j] to out[start + k], for k below 8.

    From the first j on, in the precision of `out` and `matrix`, float32 or float64.
    """
    total, numbers = out[start : start + LANES], matrix.reshape(-1)
    for j in range(count):
        total += numbers[at + stride * j : at + stride * j + LANES] * x[j]


def spread_lanes(out: Floats, start: int, matrix: Floats, at: int, hidden: Floats, ranks: int) -> None:
    """Write the sum over k below `ranks` of matrix[at + 8 k + i] * hidden[k] to out[start + i], for i below 8."""
    products = _rows(matrix, at, ranks) * hidden[:ranks, np.newaxis]
    _eight(out, start)[:] = np.add.reduce(products, axis=0, initial=np.float32(0.0))  # row by row, from the first on


def move_lanes(matrix: Floats, at: int, step: Floats, start: int, hidden: Floats, ranks: int) -> None:
    """Subtract step[start + i] * hidden[k] from matrix[at + 8 k + i], for k below `ranks` and i below 8."""
    target = _rows(matrix, at, ranks)
    target -= _eight(step, start) * hidden[:ranks, np.newaxis]


def weigh_lanes(
    squares: Floats, at: int, gradient: Floats, start: int, weight: float, floor: float, step: Floats
) -> float:
    """Write gradient[start + i] / sqrt(floor + squares[at + i]) to step[at + i], and return the sum of gradient * step.

    For each i below 8, weight * gradient[start + i] ** 2 is added to squares[at + i] before.
    """
    g, total = _eight(gradient, start), _eight(squares, at)
    total += g * g * np.float32(weight)
    steps = g / np.sqrt(total + np.float32(floor))
    _eight(step, at)[:] = steps
    return _sum_of(g * steps)


def descend_row_lanes(row: Floats, gradient: Floats, start: int, scale: float, rate: float, floor: float) -> None:
    """Take AdaGrad's step of row[i] against g = scale * gradient[start + i]; row[8 + i] has the sum of their squares.

    For each i below 8, g ** 2 is added to that sum, and then rate * g / sqrt(floor + the sum) subtracted from row[i].
    """
    g, squares, weights = np.float32(scale) * _eight(gradient, start), _eight(row, LANES), _eight(row, 0)
    squares += g * g
    weights -= np.float32(rate) * g / np.sqrt(np.float32(floor) + squares)


def multiply_add_lanes(out: Floats, at: int, a: Floats, b: Floats, c: Floats) -> None:
    """Write a[at + i] * b[at + i] + c[at + i] to out[at + i], rounded twice, for i below 8."""
    _eight(out, at)[:] = _eight(a, at) * _eight(b, at) + _eight(c, at)


def add_crossed_lanes(out: Floats, at: int, a: Floats, b: Floats, c: Floats) -> None:
    """Add a + b * (c + 1), each from the element `at` on, to out[at + i] for i below 8."""
    target = _eight(out, at)
    target += _eight(a, at) + _eight(b, at) * (_eight(c, at) + np.float32(1.0))


def clear_lanes(out: Floats, at: int) -> None:
    """Write 0 to out[at + i] for i below 8: to clear so few with a loop calls another function."""
    _eight(out, at)[:] = 0.0


def product_lanes(out: Floats, at: int, a: Floats, b: Floats) -> None:
    """Write a[at + i] * b[at + i] to out[at + i] for i below 8."""
    _eight(out, at)[:] = _eight(a, at) * _eight(b, at)


def copy_bytes(
    out: npt.NDArray[np.uint8], start: int, source: npt.NDArray[np.uint8], source_start: int, count: int
) -> None:
    """Copy `count` bytes from `source[source_start:]` to `out[start:]`."""
    out[start : start + count] = source[source_start : source_start + count]

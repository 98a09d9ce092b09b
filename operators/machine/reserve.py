"""Arrays reserved at their limit: an untouched page costs nothing.

`np.zeros` promises that only for the first large arrays of a process: later ones may get recycled memory that has to be
cleared. Large ones ask for huge pages, so a touched byte costs 2 MiB. `reserve` asks for huge pages only where rows are
used from the first on and read in any order. Without them each such read would look up another page.
"""

import contextlib
import math
import mmap
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

MAPPED_BYTES_MIN = 1 << 16

LINE_BYTES = 64  # of a cache

LAYOUTS_MAX = 64  # remembered

_measured: ContextVar[list[int] | None] = ContextVar("measured", default=None)


def reserve(
    shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64, *, is_dense: bool = False
) -> npt.NDArray[Any]:
    """Return an array of zeros whose pages become resident when they are first written; huge ones if `is_dense`."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize * (shape if isinstance(shape, int) else math.prod(shape))
    measured = _measured.get()
    if measured is not None:
        measured.append(size)
        rows, *rest = (shape,) if isinstance(shape, int) else shape
        return np.zeros((min(rows, 1), *rest), dtype)
    if size < MAPPED_BYTES_MIN:
        return np.zeros(shape, dtype)
    made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if is_dense and sys.platform == "linux":
        with contextlib.suppress(OSError):  # a kernel without them
            made.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(made, dtype).reshape(shape)


def bytes_reserved(make: Callable[[], object]) -> int:
    """Return how many bytes `make` would reserve; of each array one row at most is made meanwhile.

    >>> bytes_reserved(lambda: reserve((1 << 50, 2), np.uint32))
    9007199254740992
    """
    sizes: list[int] = []
    token = _measured.set(sizes)
    try:
        make()
    finally:
        _measured.reset(token)
    return sum(sizes)


def reserve_rows(rows: int, /, *, is_dense: bool = False, **columns: Any) -> dict[str, npt.NDArray[Any]]:
    """Return arrays [rows, ...] of zeros by their names, a row of all of them side by side in memory.

    What is read of one row is then in one cache line, or in as few as its bytes allow; each array by itself would
    cost one. A column is a dtype, or a dtype and the shape of what a row has of it; `is_dense` as for `reserve`.

    >>> made = reserve_rows(3, key=np.uint64, sums=(np.float64, (5,)), linked=np.uint8)
    >>> {name: (array.shape, array.strides) for name, array in made.items()}
    {'key': ((3,), (64,)), 'sums': ((3, 5), (64, 8)), 'linked': ((3,), (64,))}
    """
    made = reserve(rows, _row(tuple(columns.items())), is_dense=is_dense)
    return {name: made[name] for name in columns}


@lru_cache(LAYOUTS_MAX)
def _row(columns: tuple[tuple[str, Any], ...]) -> np.dtype[np.void]:
    types = {name: np.dtype(column) for name, column in columns}
    names = sorted(types, key=lambda name: -types[name].base.itemsize)  # each then starts at a multiple of its size
    ends = np.cumsum([types[name].itemsize for name in names])
    formats = [types[name] for name in names]
    offsets = [end - dtype.itemsize for end, dtype in zip(ends, formats, strict=True)]
    size = int(ends[-1])
    if len(columns) == 1:
        size += 1  # never contiguous: of whatever size a row is, compiled code sees one type of array
    whole = -(-size // LINE_BYTES) * LINE_BYTES if size > LINE_BYTES else 1 << (size - 1).bit_length()
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": whole})


def reserved_bytes(arrays: list[npt.NDArray[Any]]) -> int:
    """Return the bytes of arrays, of those that lie side by side with what fills their rows up.

    >>> made = reserve_rows(3, key=np.uint64, sums=(np.float64, (5,)), linked=np.uint8)
    >>> reserved_bytes([*made.values(), np.zeros(3)])
    216
    """
    rows: dict[int, int] = {}
    for array in arrays:
        if array.size and array.strides[0] != array.nbytes // len(array):
            rows[id(array.base)] = len(array) * array.strides[0]
    apart = sum(array.nbytes for array in arrays if id(array.base) not in rows)
    return apart + sum(rows.values())

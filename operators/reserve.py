"""Arrays reserved at their limit: an untouched page costs nothing.

`np.zeros` promises that only for the first large arrays of a process: later ones may lie in recycled memory that has to
be cleared, and large ones ask for huge pages, which makes a touched byte cost 2 MiB.
"""

import math
import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

MAPPED_BYTES_MIN = 1 << 16


def reserve(shape: int | tuple[int, ...], dtype: npt.DTypeLike = np.float64) -> npt.NDArray[Any]:
    """Return an array of zeros whose pages become resident when they are first written."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize * (shape if isinstance(shape, int) else math.prod(shape))
    if size < MAPPED_BYTES_MIN:
        return np.zeros(shape, dtype)
    return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)

"""Reserved arrays are zeros that cost memory only where they are written."""

import mmap
import re
from pathlib import Path

import numpy as np
import pytest
from thalweg.operators.machine.reserve import MAPPED_BYTES_MIN, reserve


def resident_kib() -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8, np.uint64])
@pytest.mark.parametrize("shape", [1, (3, 2), MAPPED_BYTES_MIN, (5, MAPPED_BYTES_MIN)])
def test_a_reserved_array_is_an_array_of_zeros(shape: int | tuple[int, ...], dtype: type) -> None:
    """Small or mapped, it has the shape and type asked for, is zero, lies in one piece and can be written."""
    array = reserve(shape, dtype)
    expected = np.zeros(shape, dtype)
    assert np.array_equal(array, expected)
    assert array.dtype == expected.dtype
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[-1] = 1
    assert np.count_nonzero(array) == np.count_nonzero(array[-1]) > 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_untouched_pages_cost_nothing() -> None:
    """A gibibyte reserved is not resident, and one byte written makes one page so, not a huge one."""
    before = resident_kib()
    array = reserve(1 << 30, np.uint8)
    assert resident_kib() - before < 1_024
    array[:: 1 << 26] = 1
    assert resident_kib() - before < 1_024 + 64 * mmap.PAGESIZE // 1_024

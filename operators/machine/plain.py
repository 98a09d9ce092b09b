"""Which records are plain, seen from their bytes alone, a block at a time: these need no measuring once decoded."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled
from thalweg.schemas.decode import Plain


@compiled
def _find_plain(
    data: npt.NDArray[np.uint8],
    ends: npt.NDArray[np.int64],
    record_bytes: int,
    commas: int,
    brackets: int,
    out: npt.NDArray[np.bool_],
) -> None:
    start = 0
    for number in range(ends.shape[0]):
        end = ends[number]
        high = comma = bracket = 0
        if end - start <= record_bytes:
            for at in range(start, end):
                byte = data[at]
                high += byte >= 128
                comma += byte == 44
                bracket += (byte | 32) == 123  # `[` and `{`
        out[number] = 0 < end - start <= record_bytes and high == 0 and comma <= commas and bracket <= brackets
        start = end


def is_plain(value: bytes, limits: Plain) -> bool:
    """Return whether one record's value is plain: for a few this is faster."""
    return (
        0 < len(value) <= limits.record_bytes
        and value.isascii()
        and value.count(b",") <= limits.commas
        and value.count(b"[") + value.count(b"{") <= limits.brackets
    )


def find_plain(values: Sequence[bytes], limits: Plain) -> list[bool]:
    """Tell of each record's value whether it is plain.

    >>> find_plain([b'{"type":"erase"}', '"ü"'.encode(), b"[[[", b""], Plain(20, commas=2, brackets=2))
    [True, False, False, False]
    """
    out = np.zeros(len(values), np.bool_)
    ends = np.fromiter(map(len, values), np.int64, len(values)).cumsum()
    _find_plain(np.frombuffer(b"".join(values) + b"\0", np.uint8), ends, *limits, out)
    return out.tolist()

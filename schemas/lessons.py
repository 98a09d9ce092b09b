"""What partitions teach each other: batches of lessons as they are on the topic `lessons` and in its files.

A batch is binary, little-endian, and knows its length, so that batches one behind the other are a file. It has

| bytes | what |
|---|---|
| 2 | `TL` |
| 1 | version, 1 |
| 1 | n, how many names of fields follow |
| 4 | its length in bytes, these included |
| 4 | source: the partition whose lessons they are |
| 4 | how many lessons there are |
| 8 | number of the first; numbers are dense by source, from 1 on |
| 8 | layout: a digest of all that a lesson's bytes follow from |
| 8, 4 | cause: offset and ordinal of the first |
| 4 n | hashes of the names of fields that were learned from the log, in their places |

and then the lessons, as docs/wire.md states them: each begins with its length in two bytes.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from thalweg.schemas.records import Cause

MAGIC = b"TL"
VERSION = 1
HEADER = struct.Struct("<2sBBIIIqQqI")
HEADER_BYTES = HEADER.size
NAME_BYTES = 4


class BadLessonsError(ValueError):
    """Bytes that are no batch of lessons."""


class Batch(NamedTuple):
    """The header of a batch, its `length` in bytes and the hashes of its `names` included."""

    version: int
    length: int
    source: int
    lessons: int
    first: int
    layout: int
    cause: Cause
    names: tuple[int, ...]

    @property
    def last(self) -> int:
        """Number of its last lesson."""
        return self.first + self.lessons - 1


def encode_batch(
    source: int, first: int, layout: int, cause: Cause, names: Sequence[int], count: int, lessons: bytes
) -> bytes:
    """Return so many lessons, one behind the other, as one batch.

    >>> batch = encode_batch(3, 98, 7, Cause(4711, 0), [], 2, b"abc")
    >>> read_batch(batch).source, read_batch(batch).last, batch[HEADER_BYTES:]
    (3, 99, b'abc')
    """
    length = HEADER_BYTES + NAME_BYTES * len(names) + len(lessons)
    head = HEADER.pack(MAGIC, VERSION, len(names), length, source, count, first, layout, cause.offset, cause.ordinal)
    return head + struct.pack(f"<{len(names)}I", *names) + lessons


def read_batch(value: bytes | memoryview, start: int = 0) -> Batch:
    """Return the header of the batch that begins at `start`.

    Raises BadLessonsError where none does, or it is not whole.
    """
    if len(value) - start < HEADER_BYTES:
        raise BadLessonsError(f"no batch of lessons at byte {start}: it ends at {len(value)}")
    magic, version, names, length, source, count, first, layout, offset, ordinal = HEADER.unpack_from(value, start)
    if magic != MAGIC:
        raise BadLessonsError(f"no batch of lessons at byte {start}")
    if version != VERSION:
        raise BadLessonsError(f"lessons of version {version}, this version of thalweg reads {VERSION}")
    if length < HEADER_BYTES + NAME_BYTES * names or start + length > len(value) or count < 1:
        raise BadLessonsError(f"the batch of lessons at byte {start} is not whole")
    hashes = struct.unpack_from(f"<{names}I", value, start + HEADER_BYTES) if names else ()
    return Batch(version, length, source, count, first, layout, Cause(offset, ordinal), hashes)


def read_batches(value: bytes | memoryview) -> Iterator[tuple[int, Batch]]:
    """Yield where each batch of many begins, and its header. Raises BadLessonsError as `read_batch` does."""
    start = 0
    while start < len(value):
        batch = read_batch(value, start)
        yield start, batch
        start += batch.length

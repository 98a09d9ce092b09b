"""Lessons in a worker's memory, the newest of each source, and where on the topic older ones are."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from thalweg.schemas.lessons import Batch
from thalweg.streams.partition.lessons import AT_ONCE_BYTES

SCAN_RECORDS = 256
"""So many records may be read in vain before the one that is looked for."""
MARKS_MAX = 1_024


class Batches(NamedTuple):
    """Batches of one source, none missing in between: the number of the last lesson of each, and its bytes."""

    lasts: list[int]
    values: list[bytes]


class Held(NamedTuple):
    """A batch in memory: the numbers of its first and its last lesson."""

    first: int
    last: int
    value: bytes


class Marks:
    """Where on the topic some of a source's lessons are: numbers rise, and their offsets with them."""

    def __init__(self) -> None:
        """Know no place."""
        self._numbers: list[int] = []
        self._offsets: list[int] = []

    def add(self, number: int, offset: int) -> None:
        """Note where a batch that begins with this number is, unless a place near it is known."""
        at = bisect_right(self._numbers, number)
        before, after = self._offsets[at - 1 : at], self._offsets[at : at + 1]
        if (at and offset < before[0] + SCAN_RECORDS) or (after and offset > after[0] - SCAN_RECORDS):
            return
        self._numbers.insert(at, number)
        self._offsets.insert(at, offset)
        if len(self._numbers) > MARKS_MAX:
            del self._numbers[1::2], self._offsets[1::2]

    def around(self, number: int, begin: int, end: int) -> tuple[int, int]:
        """Return the offsets, between `begin` and `end`, between which a lesson is."""
        at = bisect_right(self._numbers, number)
        low = self._offsets[at - 1] if at else begin
        high = self._offsets[at] if at < len(self._offsets) else end
        return max(begin, low), max(begin, min(end, high))


class Row:
    """The batches of one source in memory, none missing in between; what was taken off is not counted any more."""

    def __init__(self, first: int) -> None:
        """Start empty, with this lesson as the next one."""
        self.first = first
        self._lasts: list[int] = []
        self._values: list[bytes] = []
        self._ends: list[int] = []
        """Bytes of all batches up to and with each, since the row was begun."""
        self._off = 0

    def add(self, last: int, value: bytes) -> None:
        """Put a batch behind the others."""
        self._ends.append((self._ends[-1] if self._ends else 0) + len(value))
        self._lasts.append(last)
        self._values.append(value)

    def take_off(self) -> int:
        """Remove the oldest batch and return its bytes; 0 where there is none."""
        if self._off == len(self._lasts):
            return 0
        size = len(self._values[self._off])
        self._values[self._off] = b""
        self.first = self._lasts[self._off] + 1
        self._off += 1
        if 2 * self._off > len(self._lasts) > SCAN_RECORDS:
            del self._lasts[: self._off], self._values[: self._off], self._ends[: self._off]
            self._off = 0
        return size

    def since(self, first: int, upto: int) -> Batches:
        """Return batches as `Shelf.since` does."""
        begin = bisect_left(self._lasts, first, self._off)
        if first < self.first or begin == len(self._lasts):
            return Batches([], [])
        before = self._ends[begin] - len(self._values[begin])
        last = min(bisect_left(self._lasts, upto, begin), bisect_left(self._ends, before + AT_ONCE_BYTES, begin))
        return Batches(self._lasts[begin : last + 1], self._values[begin : last + 1])


class Shelf:
    """The newest batches of each source, as many as a limit of bytes has room for, in memory."""

    def __init__(self, bytes_max: int) -> None:
        """Start empty."""
        self._bytes_max = bytes_max
        self._rows: dict[int, Row] = {}
        self._lasts: dict[int, int] = {}
        self._order: deque[Row] = deque()
        self.bytes = 0

    def last(self, source: int) -> int:
        """Return the number of a source's last lesson, 0 where none was read."""
        return self._lasts.get(source, 0)

    def first(self, source: int) -> int:
        """Return the number of the first lesson in memory; where there is none, the one that comes next."""
        return self._rows[source].first if source in self._rows else 1

    def add(self, batch: Batch, value: bytes) -> None:
        """Add a batch behind the last of its source; one that leaves lessons out is the first again."""
        source, last = batch.source, self.last(batch.source)
        if batch.last <= last:
            return
        row = self._rows.get(source)
        if row is None or batch.first > last + 1:
            while row is not None and (size := row.take_off()):
                self.bytes -= size
            row = self._rows[source] = Row(batch.first)
        row.add(batch.last, value)
        self._lasts[source] = batch.last
        self._order.append(row)
        self.bytes += len(value)
        while self.bytes > self._bytes_max:
            self.bytes -= self._order.popleft().take_off()

    def since(self, source: int, first: int, upto: int) -> Batches:
        """Return batches from the one with lesson `first` on, about a megabyte; none where it is not in memory."""
        return self._rows[source].since(first, upto) if source in self._rows else Batches([], [])


class Run(NamedTuple):
    """Batches of one source that were looked up on the topic, and the offset from which what follows is read."""

    batches: list[Held]
    following: int

    @property
    def next(self) -> int:
        """Number of the lesson behind them."""
        return self.batches[-1].last + 1


def since(batches: Iterable[Held], first: int, upto: int) -> Batches:
    """Return those from the one with lesson `first` on, up to `upto`, about a megabyte; none where that is not there.

    None is missing in between.
    """
    found = Batches([], [])
    size = 0
    for begins, ends, value in batches:
        if begins > upto or size >= AT_ONCE_BYTES or (not found.lasts and begins > first):
            break
        if ends >= first:
            found.lasts.append(ends)
            found.values.append(value)
            size += len(value)
    return found

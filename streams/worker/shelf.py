"""Lessons in a worker's memory, the newest of each source, and where on the topic older ones are."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from thalweg.schemas.lessons import Batch
from thalweg.streams.partition.lessons import AT_ONCE_BYTES

SCAN_RECORDS = 256
"""So many records may be read in vain before the one that is looked for."""
MARKS_MAX = 1_024


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


class Shelf:
    """The newest batches of each source, as many as a limit of bytes has room for, in memory."""

    def __init__(self, bytes_max: int) -> None:
        """Start empty."""
        self._bytes_max = bytes_max
        self._batches: dict[int, deque[Held]] = {}
        self._lasts: dict[int, int] = {}
        self._order: deque[int] = deque()
        self.bytes = 0

    def last(self, source: int) -> int:
        """Return the number of a source's last lesson, 0 where none was read."""
        return self._lasts.get(source, 0)

    def first(self, source: int) -> int:
        """Return the number of the first lesson in memory; where there is none, the one that comes next."""
        batches = self._batches.get(source)
        return batches[0].first if batches else self.last(source) + 1

    def add(self, batch: Batch, value: bytes) -> None:
        """Add a batch behind the last of its source; one that leaves lessons out is the first again."""
        source, last = batch.source, self.last(batch.source)
        if batch.last <= last:
            return
        batches = self._batches.setdefault(source, deque())
        if batch.first > last + 1:
            self.bytes -= sum(len(each) for *_, each in batches)
            batches.clear()
        batches.append(Held(batch.first, batch.last, value))
        self._lasts[source] = batch.last
        self._order.append(source)
        self.bytes += len(value)
        while self.bytes > self._bytes_max:
            oldest = self._batches[self._order.popleft()]
            if oldest:
                self.bytes -= len(oldest.popleft().value)

    def since(self, source: int, first: int, upto: int) -> list[bytes]:
        """Return batches from the one with lesson `first` on, about a megabyte; none where it is not in memory."""
        return since(self._batches.get(source, ()), first, upto)


class Run(NamedTuple):
    """Batches of one source that were looked up on the topic, and the offset from which what follows is read."""

    batches: list[Held]
    following: int

    @property
    def next(self) -> int:
        """Number of the lesson behind them."""
        return self.batches[-1].last + 1


def since(batches: Iterable[Held], first: int, upto: int) -> list[bytes]:
    """Return those from the one with lesson `first` on, up to `upto`, about a megabyte; none where that is not there.

    None is missing in between.
    """
    found: list[bytes] = []
    size = 0
    for begins, ends, value in batches:
        if begins > upto or size >= AT_ONCE_BYTES or (not found and begins > first):
            break
        if ends >= first:
            found.append(value)
            size += len(value)
    return found

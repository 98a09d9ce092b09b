"""Several logs through as many partitions that teach each other every so many events, in one process."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import Output, Outputs, Record
from thalweg.streams.partition.lessons import LessonBook
from thalweg.streams.partition.partition import Partition


class _Timed(msgspec.Struct, gc=False):
    ts: int = 0


_timed = msgspec.json.Decoder(_Timed).decode


class Partitions:
    """Partitions that learn from each other's lessons.

    Parameters
    ----------
    configuration
        The fold's, the same for all.
    count
        How many there are.
    options
        What each `Partition` is made with besides.

    """

    def __init__(self, configuration: Configuration, count: int, **options: Any) -> None:
        """Make them; the parameters are the class's."""
        self.lessons = LessonBook()
        self.all = [
            Partition(configuration, partition=number, lessons=self.lessons, **options) for number in range(count)
        ]

    def process(self, records: Sequence[Sequence[Record]]) -> list[Outputs]:
        """Fold each partition's records, then let each learn what the others have taught; return what each made."""
        made = [partition.process(each) for partition, each in zip(self.all, records, strict=True)]
        self.merge(outputs.lessons for outputs in made)
        return made

    def merge(self, taught: Iterable[Sequence[Output]]) -> None:
        """Take lessons, and let each partition learn all that the others have taught so far."""
        for lessons in taught:
            self.lessons.add(output.value or b"" for output in lessons)
        upto = {number: self.lessons.last(number) for number in range(len(self.all))}
        for partition in self.all:
            partition.merge(upto)


def interleaved(logs: Sequence[Iterable[Sequence[Record]]], events: int) -> Iterator[list[list[Record]]]:
    """Yield the records of several logs, so many of all logs at a time, in the order of their times.

    A record's time is the latest `ts` of its log up to it; of equal ones the first log's comes first.
    """
    streams = [_with_times(log) for log in logs]
    heads = [next(stream, None) for stream in streams]
    taken: list[list[Record]] = [[] for _ in logs]
    count = 0
    while any(head is not None for head in heads):
        which = min((head[0], place) for place, head in enumerate(heads) if head is not None)[1]
        head = heads[which]
        assert head is not None
        taken[which].append(head[1])
        heads[which] = next(streams[which], None)
        count += 1
        if count == events:
            yield taken
            taken, count = [[] for _ in logs], 0
    if count:
        yield taken


def _with_times(log: Iterable[Sequence[Record]]) -> Iterator[tuple[int, Record]]:
    """Yield each record of a log with its time."""
    latest = 0
    for block in log:
        for record in block:
            with suppress(msgspec.MsgspecError):
                latest = max(latest, _timed(record.value or b"").ts)
            yield latest, record

"""Several logs through as many partitions that teach each other every so many events, in one process."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import Output, Outputs, Record
from thalweg.streams.partition.lessons import LessonBook
from thalweg.streams.partition.partition import BLOCK_EVENTS, Partition
from thalweg.streams.partition.tally import Quality, Tally, quality
from thalweg.streams.replay.replay import Sinks
from thalweg.streams.replay.summary import Summary, summarize


class _Timed(msgspec.Struct, gc=False):
    ts: int = 0


_timed = msgspec.json.Decoder(_Timed).decode


class Partitions:
    """Partitions that learn from each other's lessons.

    Parameters
    ----------
    configuration
        The fold's, the same for all.
    options
        What each `Partition` is made with besides.

    """

    def __init__(self, configuration: Configuration, options: Iterable[dict[str, Any]]) -> None:
        """Make them; the parameters are the class's."""
        self.lessons = LessonBook()
        self.all = [
            Partition(configuration, partition=number, lessons=self.lessons, **each)
            for number, each in enumerate(options)
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


class PartitionsReplay:
    """Several logs, each a partition, from an empty state on.

    Parameters
    ----------
    configuration
        The fold's.
    count
        How many logs there are.
    merge_every
        Events of all logs after which the partitions learn what the others taught.
    examples, block_events, topic
        As `Replay` has them.

    """

    def __init__(
        self,
        configuration: Configuration,
        count: int,
        merge_every: int,
        *,
        examples: bool = True,
        block_events: int = BLOCK_EVENTS,
        topic: str = "interactions",
    ) -> None:
        """Make the partitions; the parameters are the class's."""
        self.tallies = [Tally() for _ in range(count)]
        options = {"examples": examples, "block_events": block_events, "topic": topic}
        self.partitions = Partitions(configuration, [{"tally": tally} | options for tally in self.tallies])
        self.events = 0
        self.seconds = 0.0
        self._merge_every = merge_every

    def run(
        self,
        logs: Sequence[Iterable[Sequence[Record]]],
        sinks: Sequence[Sinks],
        on_block: Callable[[int], object] = lambda events: None,
    ) -> None:
        """Fold all logs, and write what each partition made to its sinks; `on_block` gets the events folded so far.

        Raises LogReadError where a log can't be read, and LogWriteError where an output can't be written.
        """
        started = time.perf_counter()
        for records in interleaved(logs, self._merge_every):
            for sink, outputs in zip(sinks, self.partitions.process(records), strict=True):
                sink.write(outputs)
            self.events += sum(map(len, records))
            on_block(self.events)
        self.seconds += time.perf_counter() - started

    def close_windows(self, sinks: Sequence[Sinks]) -> None:
        """Close every window that is open, as the logs' end."""
        for sink, partition in zip(sinks, self.partitions.all, strict=True):
            sink.write(partition.close_all())

    def summaries(self, letters: str) -> list[Summary]:
        """Return what each partition came to; `letters` is where dead letters can be seen."""
        both = zip(self.partitions.all, self.tallies, strict=True)
        return [
            summarize(partition, tally, events_now=0, seconds=self.seconds, letters=letters)
            for partition, tally in both
        ]

    def quality(self) -> Quality:
        """Return the quality of all partitions' final scores together."""
        arrays = [tally.arrays() for tally in self.tallies]
        labels, scores = (np.concatenate(part) for part in zip(*arrays, strict=True))
        return quality(labels, scores[:, 0])


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

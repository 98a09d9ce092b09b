"""A partition that is away for long, and one that joins late, beside a partition that was there all the time.

Users go to 4 partitions by Kafka's murmur2, which teach each other every 1 000 events of the whole stream. Away: the
last partition folds nothing during 100 000 events, then all of its records that waited, and merges again. Late: its
log begins half way, so nothing is known of its users. Figures are of its impressions alone.
"""

import gc
from collections.abc import Sequence
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.records import LogRecord, Output
from thalweg.streams.partition.partition import Partition
from thalweg.streams.replay.partitions import Partitions

from benchmarks.quality.partitions import Collected, split
from benchmarks.quality.replays import BLOCK, Figures
from benchmarks.quality.tables import HEADER, Options, row
from benchmarks.real_logs import RealLog

COUNT = 4
LAST = COUNT - 1
EVERY = 1_000
AWAY_EVENTS = 100_000
FIRST_OWN_EVENTS = 2_000


class Lives:
    """Partitions over one stream, of which the last is not always there.

    `parts`: offsets of the last one's log between which its impressions count together.
    """

    def __init__(self, configuration: Configuration, records: Sequence[LogRecord], parts: Sequence[int]) -> None:
        """Split the stream by users; nothing is folded yet."""
        self.logs, self._places, self.of = split(records, COUNT)
        self.partitions = Partitions(configuration, [{}] * COUNT)
        self._done = [0] * COUNT
        self._parts = parts
        self._found = [Collected() for _ in parts]

    def run(self, begin: int, end: int, *, is_there: bool = True) -> None:
        """Fold events of the whole stream; while the last partition is not there, it folds and learns nothing."""
        for first in range(begin, end, EVERY):
            ends = np.bincount(self.of[: min(first + EVERY, end)], minlength=COUNT).tolist()
            there = self.partitions.all if is_there else self.partitions.all[:LAST]
            taught = []
            for number, partition in enumerate(there):
                made = partition.process(self.logs[number][self._done[number] : ends[number]])
                self._done[number] = max(ends[number], self._done[number])
                taught.append(made.lessons)
                if number == LAST:
                    self._collect(made.scores, made.examples)
            book = self.partitions.lessons
            for lessons in taught:
                book.add(output.value or b"" for output in lessons)
            for partition in there:
                partition.merge(self.upto())
            gc.collect()

    def upto(self) -> dict[int, int]:
        """Return by partition the number of its last lesson."""
        return {number: self.partitions.lessons.last(number) for number in range(COUNT)}

    def skip(self, events: int) -> int:
        """Let the last partition's log begin behind so many events of the whole stream, and return that offset."""
        self._done[LAST] = own_events(self.of, events)
        return self._done[LAST]

    def merge(self, **more: Any) -> None:
        """Let the last partition fold a merge that names all lessons, before the rest of its log."""
        value = encode_event(Merge("first", self.upto(), **more))
        self.partitions.all[LAST].process([LogRecord(self._done[LAST] - 1, value)])

    def figures(self) -> list[Figures]:
        """Return those of each part of the last partition's log, all windows closed."""
        examples = self.partitions.all[LAST].close_all().examples
        self._collect([], examples)
        return [found.figures() for found in self._found]

    def _collect(self, scores: Sequence[Output], examples: Sequence[Output]) -> None:
        ends = [*self._parts[1:], len(self.logs[LAST])]
        for found, begin, end in zip(self._found, self._parts, ends, strict=True):
            own = [output for output in scores if begin <= output.cause.offset < end]
            found.add(own, examples, self._places[LAST])


def own_events(of: Any, events: int) -> int:
    """Return how many of so many events of the whole stream are the last partition's."""
    return int(np.count_nonzero(of[:events] == LAST))


def away(log: RealLog, records: Sequence[LogRecord]) -> list[str]:
    """Return rows of a partition that is there all the time, and of one that is away for a third of the stream."""
    begin, end = len(records) // 3, len(records) // 3 + AWAY_EVENTS
    of = split(records, COUNT)[2]
    parts = [own_events(of, begin), own_events(of, end), own_events(of, end) + FIRST_OWN_EVENTS]
    names = ("what waited", f"its next {FIRST_OWN_EVENTS:,} events", "all behind")
    rows = []
    for told, is_there in (("there", True), ("away", False)):
        lives = Lives(log.configuration(), records, parts)
        lives.run(0, begin)
        lives.run(begin, end, is_there=is_there)
        lives.run(end, len(records))
        rows += [row(f"{told}: {name}", found) for name, found in zip(names, lives.figures(), strict=True)]
    return rows


def late(log: RealLog, records: Sequence[LogRecord]) -> list[str]:
    """Return rows of a partition whose log begins half way, by what it begins with."""
    half = len(records) // 2
    of = split(records, COUNT)[2]
    parts = [own_events(of, half), own_events(of, half) + FIRST_OWN_EVENTS]
    names = (f"its first {FIRST_OWN_EVENTS:,} events", "all behind")
    rows = []
    for told in ("learned with all others from the beginning", "begins with another's shared part", "begins empty"):
        lives = Lives(log.configuration(), records, parts)
        lives.skip(half)
        lives.run(0, half, is_there=told.startswith("learned"))
        if told.endswith("part"):
            lives.partitions.lessons.states["interactions-0-0"] = lives.partitions.all[0].snapshot()
            lives.merge(start="interactions-0-0")
        elif told.endswith("empty"):
            lives.merge(exclude=list(range(LAST)))
        lives.run(half, len(records))
        rows += [row(f"{told}: {name}", found) for name, found in zip(names, lives.figures(), strict=True)]
    found = in_one(log.configuration(), records, of, half)
    return [*rows, row(f"one partition with the same events: {names[-1]}", found)]


def in_one(configuration: Configuration, records: Sequence[LogRecord], of: Any, half: int) -> Figures:
    """Return the same figures where one partition folds all: what the others have, and the last one's from half way."""
    kept = [place for place in range(len(records)) if place >= half or of[place] != LAST]
    own = [place for place in kept if of[place] == LAST][FIRST_OWN_EVENTS:]
    counted, collected, partition = set(own), Collected(), Partition(configuration)
    for first in range(0, len(kept), BLOCK):
        block = kept[first : first + BLOCK]
        made = partition.process([LogRecord(first + n, records[place].value) for n, place in enumerate(block)])
        scores = [output for output in made.scores if kept[output.cause.offset] in counted]
        collected.add(scores, made.examples, kept)
    collected.add([], partition.close_all().examples, kept)
    return collected.figures()


def tables(options: Options) -> str:
    """Return two tables for each log but Globo, of which a third is less than such an absence."""
    lines: list[str] = []
    for log in options.logs():
        if log.name != "Globo":
            records = log.records()
            lines += [f"### {log.name}, away for {AWAY_EVENTS:,} events", "", HEADER, *away(log, records), ""]
            lines += [f"### {log.name}, from half way on", "", HEADER, *late(log, records), ""]
    return "\n".join(lines)

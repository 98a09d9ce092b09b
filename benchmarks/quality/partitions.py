"""Users over several partitions: what it costs to learn apart, and how much lessons bring back.

Users go to partitions by Kafka's murmur2. The partitions teach each other every so many events of the whole stream.
"""

import gc
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from thalweg.operators.machine.hashing import partitions_of
from thalweg.schemas.records import LogRecord, Output
from thalweg.streams.partition.partition import Partition
from thalweg.streams.replay.partitions import Partitions

from benchmarks.quality.replays import BLOCK, Figures, Moment, figures
from benchmarks.quality.tables import HEADER, Options, row
from benchmarks.real_logs import RealLog

DELAYS_MS = (1_000, 590_000)
COUNTS = (4, 16)
EVERY = (1_000, 10_000)
EVENTS = {"Globo": 250_000}
"""Events of a log that is not taken whole."""


class _Scored(msgspec.Struct, gc=False):
    id: str
    user: str
    ts: int
    score: float


class _Labelled(msgspec.Struct, gc=False):
    id: str
    label: int
    revision: int = 0


class _Owned(msgspec.Struct, gc=False):
    user: str


_scored = msgspec.json.Decoder(_Scored).decode
_labelled = msgspec.json.Decoder(_Labelled).decode
_owned = msgspec.json.Decoder(_Owned).decode


class Collected:
    """Scores in the order of the whole stream, with their labels."""

    def __init__(self) -> None:
        """Begin with none."""
        self._scores: list[tuple[int, str, float, Moment]] = []
        self._labels: dict[str, int] = {}

    def add(self, scores: Iterable[Output], examples: Iterable[Output], places: Sequence[int]) -> None:
        """Take what a partition made; `places`: where in the whole stream its record of each offset is."""
        for output in scores:
            each = _scored(output.value or b"")
            self._scores.append((places[output.cause.offset], each.id, each.score, (each.user, each.ts)))
        for output in examples:
            example = _labelled(output.value or b"")
            if not example.revision:
                self._labels[example.id] = example.label

    def figures(self) -> Figures:
        """Return the figures over all of them."""
        self._scores.sort()
        labels = np.array([self._labels[each[1]] for each in self._scores])
        return figures(labels, np.array([each[2] for each in self._scores]), [each[3] for each in self._scores])


def split(records: Sequence[LogRecord], count: int) -> tuple[list[list[LogRecord]], list[list[int]], Any]:
    """Return the records of each partition, the place of each in the whole, and the partition of each place."""
    users = [_owned(record.value or b"").user.encode() for record in records]
    of = partitions_of(users, count)
    logs: list[list[LogRecord]] = [[] for _ in range(count)]
    places: list[list[int]] = [[] for _ in range(count)]
    for place, (record, number) in enumerate(zip(records, of.tolist(), strict=True)):
        logs[number].append(LogRecord(len(logs[number]), record.value))
        places[number].append(place)
    return logs, places, of


def merged(
    log: RealLog, records: Sequence[LogRecord], count: int, every: int | None, flags: Sequence[str] = ()
) -> Figures:
    """Return the figures of so many partitions that merge every so many events; None: never."""
    configuration = log.configuration(*flags)
    logs, places, of = split(records, count)
    collected = Collected()
    if every is None:
        for number, own in enumerate(logs):
            partition = Partition(configuration, partition=number)
            for first in range(0, len(own), BLOCK):
                made = partition.process(own[first : first + BLOCK])
                collected.add(made.scores, made.examples, places[number])
            collected.add([], partition.close_all().examples, places[number])
            gc.collect()
        return collected.figures()
    partitions = Partitions(configuration, [{}] * count)
    done = [0] * count
    for first in range(0, len(records), every):
        ends = [
            has + int(n) for has, n in zip(done, np.bincount(of[first : first + every], minlength=count), strict=True)
        ]
        made_by = partitions.process([own[a:b] for own, a, b in zip(logs, done, ends, strict=True)])
        for number, made in enumerate(made_by):
            collected.add(made.scores, made.examples, places[number])
        done = ends
    for number, partition in enumerate(partitions.all):
        collected.add([], partition.close_all().examples, places[number])
    return collected.figures()


def tables(options: Options) -> str:
    """Return a table for each log and delay."""
    lines: list[str] = []
    for delay_ms in DELAYS_MS:
        for log in options.logs(delay_ms):
            records = log.records()[: EVENTS.get(log.name)]
            rows = [row("one partition", merged(log, records, 1, None))]
            for count in COUNTS:
                for every in EVERY:
                    rows.append(row(f"{count}, merging every {every:,} events", merged(log, records, count, every)))
                    gc.collect()
                rows.append(row(f"{count}, never merging", merged(log, records, count, None)))
            lines += [f"### {log.name}, feedback after {delay_ms // 1_000} s", "", HEADER, *rows, ""]
    return "\n".join(lines)

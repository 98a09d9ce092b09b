"""One partition of an output topic in memory: records, whose transaction they belong to, and what is decided of it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from thalweg.schemas.records import Cause, Headers
from thalweg.streams.kafka.consume import cause_of


class SimulatedRecord(NamedTuple):
    """A record of the input or of an output, with what Kafka's clients tell of one."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int = 0

    @property
    def serialized_key_size(self) -> int:
        """Bytes of the key."""
        return len(self.key or b"")

    @property
    def serialized_value_size(self) -> int:
        """Bytes of the value."""
        return len(self.value or b"")


class Part(NamedTuple):
    """A transaction's part of a log: from which offset on, and whether it counts; None: not decided yet."""

    first_offset: int
    is_committed: bool | None = None


class Log:
    """Records with their causes and parts; `epochs`: the newest epoch of each producer that wrote in transactions."""

    def __init__(self) -> None:
        """Start empty."""
        self.records: list[SimulatedRecord] = []
        self.causes: list[Cause] = []
        self.end = 0
        self.epochs: dict[int, int] = {}
        self.parts: list[Part] = []
        self._part_of: list[int | None] = []
        self._open: dict[int, int] = {}

    def copied(self) -> "Log":
        """Return a separate log that holds the same."""
        copied = Log()
        copied.records, copied.causes, copied.end = list(self.records), list(self.causes), self.end
        copied.epochs, copied.parts = dict(self.epochs), list(self.parts)
        copied._part_of, copied._open = list(self._part_of), dict(self._open)
        return copied

    @property
    def key(self) -> tuple[Any, ...]:
        """All that it holds, to be compared."""
        return (tuple(self.records), self.end, *map(tuple, (self.epochs.items(), self.parts, self._part_of)))

    @property
    def stable_end(self) -> int:
        """The offset below which all is decided."""
        return min((self.parts[part].first_offset for part in self._open.values()), default=self.end)

    def is_open(self, producer: int) -> bool:
        """Whether a producer has a transaction here that is not decided."""
        return producer in self._open

    def append(self, partition: int, records: Sequence[Any], hole: int, producer: int | None = None) -> int:
        """Append a batch behind a hole of so many offsets, and return the offset of its first record.

        `producer`: in whose transaction; none is begun where it has one already.
        """
        first = self.end + hole
        part = None
        if producer is not None:
            part = self._open.setdefault(producer, len(self.parts))
            if part == len(self.parts):
                self.parts.append(Part(first))
        for number, (value, key, headers) in enumerate(records):
            record = SimulatedRecord(first + number, value, key, headers, partition)
            found = cause_of(record)
            assert found is not None
            self.records.append(record)
            self.causes.append(found[1])
            self._part_of.append(part)
        self.end = first + len(records)
        return first

    def mark(self, producer: int, epoch: int, is_committed: bool) -> None:
        """Write a marker, which takes an offset: what the producer has open is decided."""
        self.epochs[producer] = max(epoch, self.epochs.get(producer, 0))
        part = self._open.pop(producer, None)
        if part is not None:
            self.parts[part] = self.parts[part]._replace(is_committed=is_committed)
        self.end += 1

    def committed(self, from_offset: int = 0) -> Iterator[tuple[SimulatedRecord, Cause]]:
        """Yield what a `read_committed` reader gets, with its cause."""
        end = self.stable_end
        for record, cause, part in zip(self.records, self.causes, self._part_of, strict=True):
            if from_offset <= record.offset < end and (part is None or self.parts[part].is_committed):
                yield record, cause

    def highest_cause(self, from_offset: int) -> Cause | None:
        """Return the highest cause of what counts, from an offset on."""
        return max((cause for _, cause in self.committed(from_offset)), default=None)

"""The test driver: a partition without a broker, a thread or a clock, for tests of one's own configuration.

    driver = Driver(Configuration())
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.feedback("1", user="ann", item="film", ts=START_MS + 5_000)
    driver.scores[0].score, driver.fates["joined"]

What is piped in goes through the same `Partition` that a log file and Kafka go through. The driver keeps the log, so
that a test can let it crash anywhere: `driver.pipe(*events, SNAPSHOT, *more, CRASH, *rest)`.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from thalweg.operators.behaviors import KINDS
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES, TALLIES
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.structures.names import field_names
from thalweg.operators.structures.table import Table, rows_by_key
from thalweg.schemas.events import Context, Erase, Event, Facts, Feedback, Impression, Request, User, encode_event
from thalweg.schemas.events import Item as ItemFacts
from thalweg.schemas.outputs import (
    DeadLetter,
    Example,
    Ranking,
    Score,
    decode_dead_letter,
    decode_example,
    decode_ranking,
    decode_score,
)
from thalweg.schemas.records import Cause, LogRecord, Output, Outputs, no_outputs
from thalweg.streams.logs.sinks import dead_letter_line
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.seal import Seal
from thalweg.streams.replay.summary import waiting_count

START_MS = 1_700_000_000_000
"""A time to start a test's log at."""


class Mark(Enum):
    """What can stand between the events of a test's log."""

    SNAPSHOT = "snapshot"
    CRASH = "crash"


SNAPSHOT, CRASH = Mark.SNAPSHOT, Mark.CRASH

Item = Event | Mapping[str, Any] | bytes | LogRecord | Mark


class Piped(NamedTuple):
    """What a reader of the output topics sees, decoded."""

    scores: list[Score]
    examples: list[Example]
    dead_letters: list[DeadLetter]
    rankings: list[Ranking]


class Value(NamedTuple):
    """What is kept of a field's value: its row, since when in stream time, and its weight and latent vector [1 + d]."""

    row: int
    updated_ms: int
    coordinates: npt.NDArray[np.float32]


class Driver:
    """Pipe records in, read outputs, look into the state, let it crash.

    Parameters
    ----------
    configuration
        The fold's; `load(path, environment={}, flags=[]).configuration` of `streams/configuration/loading.py` reads
        one's own file.
    topic, partition
        What origins are called after.
    partitions
        The topic's partitions; 0: no record is in the wrong one.

    Attributes
    ----------
    scores, examples, dead_letters, rankings
        All outputs so far, decoded, each once.

    """

    def __init__(
        self,
        configuration: Configuration | None = None,
        *,
        topic: str = "interactions",
        partition: int = 0,
        partitions: int = 0,
    ) -> None:
        """Start an empty partition; the parameters are the class's."""
        self.configuration = configuration or Configuration()
        self._seal = Seal(b"its snapshots never leave a driver")
        self._where = {"topic": topic, "partition": partition, "partitions": partitions}
        self._log: list[LogRecord] = []
        self._saved: tuple[int, dict[str, npt.NDArray[Any]] | None] = (0, None)
        self._last: list[Cause | None] = [None] * len(Outputs._fields)
        self._ids = 0
        self.scores: list[Score] = []
        self.examples: list[Example] = []
        self.dead_letters: list[DeadLetter] = []
        self.rankings: list[Ranking] = []
        self.bytes = no_outputs()
        """The same as they are on the wire."""
        self._partition: Partition | None = self._new_partition(None)

    def pipe(self, *items: Item) -> Piped:
        """Append records to the log, process them, and return what came out.

        An event, a dict of its fields or the bytes of a record gets the next offset; a `LogRecord` brings its own.
        `CRASH` drops what happened since the last snapshot and restores it from the log; `SNAPSHOT` takes one.

        Raises RuntimeError after `crash()` without `restore()`, ValueError where offsets do not rise.
        """
        before = [len(outputs) for outputs in (self.scores, self.examples, self.dead_letters, self.rankings)]
        for item in items:
            if item is SNAPSHOT:
                self.snapshot()
            elif item is CRASH:
                self.crash()
                self.restore()
            else:
                self._append(self._record(item))
        return Piped(
            self.scores[before[0] :],
            self.examples[before[1] :],
            self.dead_letters[before[2] :],
            self.rankings[before[3] :],
        )

    def impression(
        self,
        id: str,  # noqa: A002  (the field's name)
        *,
        user: str,
        item: str,
        ts: int,
        context: Context | None = None,
        base_score: float | None = None,
    ) -> Piped:
        """Pipe an impression in."""
        return self.pipe(Impression(id, user, item, ts, context or {}, base_score))

    def feedback(
        self,
        impression: str | None,
        *,
        user: str,
        item: str,
        ts: int,
        action: str = "click",
        id: str | None = None,  # noqa: A002
    ) -> Piped:
        """Pipe a feedback in; its id is `IMPRESSION:ACTION` unless given, and a number without an impression."""
        self._ids += 1
        id = id or (f"{action}-{self._ids}" if impression is None else f"{impression}:{action}")  # noqa: A001
        return self.pipe(Feedback.of(id, impression, user, item, ts, action))

    def item(self, item: str, fields: Facts, *, ts: int) -> Piped:
        """Pipe facts about an item in; None as a value removes one."""
        self._ids += 1
        return self.pipe(ItemFacts(f"item-{self._ids}", item, ts, fields))

    def user(self, user: str, fields: Facts, *, ts: int) -> Piped:
        """Pipe facts about a user in; None as a value removes one."""
        self._ids += 1
        return self.pipe(User(f"user-{self._ids}", user, ts, fields))

    def erase(self, user: str, *, ts: int) -> Piped:
        """Pipe an erase in."""
        self._ids += 1
        return self.pipe(Erase(f"erase-{self._ids}", user, ts))

    def request(
        self, user: str, candidates: list[Any], *, ts: int, context: Context | None = None, **options: Any
    ) -> Piped:
        """Pipe a request in; a candidate is an item or a dict, `options` are the further fields of `Request`."""
        self._ids += 1
        return self.pipe(Request(f"request-{self._ids}", user, candidates, ts, context or {}, **options))

    def close_windows(self) -> Piped:
        """Close every window, as at the end of a log; the examples are returned only."""
        outputs = self.partition.close_all()
        return Piped([], [decode_example(o.value or b"") for o in outputs.examples], [], [])

    def snapshot(self) -> None:
        """Take a snapshot, to which the next crash falls back."""
        self._saved = (len(self._log), self.partition.snapshot())

    def crash(self) -> None:
        """Drop the state."""
        self._partition = None

    def restore(self) -> None:
        """Go back to the last snapshot and replay the log since; outputs that are out already are not emitted again."""
        processed, arrays = self._saved
        self._partition = self._new_partition(arrays)
        self._emit(self._partition.process(self._log[processed:]))

    @property
    def partition(self) -> Partition:
        """The partition. Raises RuntimeError after `crash()` without `restore()`."""
        if self._partition is None:
            raise RuntimeError("the driver has crashed: call restore()")
        return self._partition

    @property
    def log(self) -> list[LogRecord]:
        """All records so far."""
        return list(self._log)

    @property
    def fates(self) -> dict[str, int]:
        """How many records had which fate; they sum to the records so far."""
        return dict(zip(FATES, self.partition.state.fates.tolist(), strict=True))

    @property
    def counts(self) -> dict[str, int]:
        """Other counts: labels, positives, late positives, impressions closed unlearned."""
        return dict(zip(TALLIES, self.partition.state.tallies.tolist(), strict=True))

    @property
    def stream_time_ms(self) -> int:
        """Stream time, what most of the users heard last have reached; 0 before the first event."""
        return int(self.partition.state.clock.stream_time_ms[0])

    @property
    def waiting(self) -> int:
        """How many impressions wait for their outcome."""
        return waiting_count(self.partition.state)

    @property
    def digest(self) -> str:
        """The SHA-256 of the state's logical content."""
        return self.partition.digest()

    def sequence(self, user: str, kind: str = "acted") -> list[str | None]:
        """Return the items of a user's recent behaviours, the oldest first; None: the item has no row, or not any more.

        Raises KeyError where the configuration keeps no such behaviours.
        """
        kinds = self.configuration.behaviors.kinds
        if kind not in kinds:
            raise KeyError(f"behaviours {kind!r} are not kept: of {', '.join(KINDS)}, behaviors.kinds has {kinds}")
        state = self.partition.state
        behaviors = state.behaviors
        owner = row_of(state.users, self._key("user", user))
        if owner is None:
            return []
        which = kinds.index(kind)
        count, length = int(behaviors.counts[owner, which]), behaviors.row.shape[2]
        items = {self._key("item", item): item for item in self._items()}
        names: list[str | None] = []
        for number in range(max(0, count - length), count):
            row = int(behaviors.row[owner, which, number % length])
            known = row >= 0 and state.features.generation[row] == behaviors.generation[owner, which, number % length]
            names.append(items.get(int(state.features.key[row])) if known else None)
        return names

    def value(self, field: str, value: str) -> Value | None:
        """Return what is kept of a field's value, None where it has no row (yet, or any more).

        Fields are `user`, `item` and those of the context; `value` is the text, for a number as JSON has it.
        """
        state = self.partition.state
        row = row_of(state.features, self._key(field, value))
        if row is None:
            return None
        return Value(row, int(state.features.updated_ms[row]), state.learner.features[row, 0].copy())

    @property
    def fields(self) -> list[str]:
        """The fields that an impression is scored by."""
        return field_names(self.partition.state.names)

    def knows(self, user: str) -> bool:
        """Return whether anything is kept of a user."""
        return row_of(self.partition.state.users, self._key("user", user)) is not None

    def _new_partition(self, arrays: dict[str, npt.NDArray[Any]] | None) -> Partition:
        return Partition(self.configuration, arrays=arrays, seal=self._seal, **self._where)  # type: ignore[arg-type]

    def _record(self, item: Item) -> LogRecord:
        if isinstance(item, LogRecord):
            if self._log and item.offset <= self._log[-1].offset:
                raise ValueError(f"offset {item.offset} is not above {self._log[-1].offset}")
            return item
        offset = self._log[-1].offset + 1 if self._log else 0
        if isinstance(item, bytes):
            return LogRecord(offset, item)
        value = msgspec.json.encode(item) if isinstance(item, Mapping) else encode_event(item)  # type: ignore[arg-type]
        return LogRecord(offset, value)

    def _append(self, record: LogRecord) -> None:
        partition = self.partition
        self._log.append(record)
        self._emit(partition.process([record]))

    def _emit(self, outputs: Outputs) -> None:
        fresh = Outputs(*(self._unseen(which, outputs[which]) for which in range(len(outputs))))
        for which, kind in enumerate(fresh):
            self.bytes[which].extend(kind)
        self.scores += [decode_score(output.value or b"") for output in fresh.scores]
        self.examples += [decode_example(output.value or b"") for output in fresh.examples]
        letters = [dead_letter_line(output).value or b"" for output in fresh.dead_letters]
        self.dead_letters += [decode_dead_letter(letter) for letter in letters]
        self.rankings += [decode_ranking(output.value or b"") for output in fresh.rankings]

    def _unseen(self, which: int, outputs: list[Output]) -> list[Output]:
        last = self._last[which]
        unseen = outputs if last is None else [output for output in outputs if output.cause > last]
        if unseen:
            self._last[which] = unseen[-1].cause
        return unseen

    def _key(self, field: str, value: str) -> int:
        return key_of(value, field_seed(field, self.configuration.seed))

    def _items(self) -> set[str]:
        items = set()
        for record in self._log:
            try:
                items.add(_decode_with_item(record.value or b"").item)
            except msgspec.MsgspecError:
                continue
        return items


class _WithItem(msgspec.Struct):
    item: str


_decode_with_item = msgspec.json.Decoder(_WithItem).decode


def row_of(table: Table, key: int) -> int | None:
    """Return the row of a key, None where it has none."""
    rows = rows_by_key(table)
    place = int(np.searchsorted(table.key[rows], np.uint64(key)))
    return int(rows[place]) if place < len(rows) and int(table.key[rows[place]]) == key else None

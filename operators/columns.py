"""Records to columns and columns to outputs: bytes -> columns -> fold -> columns -> bytes is the only way through.

Reading a record in Python and the hash of its values are the only loops outside the compiled fold.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from operators.configuration import Configuration
from operators.features import HOUR_OF_DAY, ITEM, USER
from operators.hashing import Keys, hasher, partitions_of
from schemas.decode import decoder
from schemas.events import Erase, Event, Feedback, Impression
from schemas.kept import encode_kept, pack_record
from schemas.reasons import Reason, Unusable
from schemas.records import Record

IMPRESSION, FEEDBACK, REQUEST, ERASE, UNUSABLE = range(5)
HOUR_MS = 3_600_000
NAME_BYTES = 256

Field = tuple[int, Keys, tuple[float, ...] | None]
"""A field's place, its keys, and the edges of its buckets."""


class Columns(NamedTuple):
    """A block of n events as the fold reads it, [n] unless said otherwise.

    `kind` uint8; `reason` uint8, why the record cannot be used (0: it can); `offset`, `ts_ms` int64; `key` uint64 of
    the event's id (of the impression it scores or the feedback it is); `impression`, `user`, `item` uint64 keys;
    `positive` uint8; `base_score` float64 (nan is none); `value_start` int64 [n + 1] into `value_field` uint8 and
    `value_key` uint64, an impression's values; `text_start` int64 [n + 1] into `text` uint8, what is kept of an event
    that waits.
    """

    kind: npt.NDArray[np.uint8]
    reason: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    impression: npt.NDArray[np.uint64]
    user: npt.NDArray[np.uint64]
    item: npt.NDArray[np.uint64]
    positive: npt.NDArray[np.uint8]
    base_score: npt.NDArray[np.float64]
    value_start: npt.NDArray[np.int64]
    value_field: npt.NDArray[np.uint8]
    value_key: npt.NDArray[np.uint64]
    text_start: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]


class Block(NamedTuple):
    """A block of records with their events (None where unusable), why they are, and their columns."""

    records: Sequence[Record]
    events: list[Event | None]
    details: dict[int, str]
    columns: Columns


class _Rows:
    """Columns under construction: a tuple an event, and what has no fixed length beside it."""

    def __init__(self) -> None:
        self.events: list[tuple[int, int, int, int, int, int, int, bool, float]] = []
        self.value_start: list[int] = [0]
        self.value_field: list[int] = []
        self.value_key: list[int] = []
        self.text: list[bytes] = []

    def append(
        self,
        kind: int,
        reason: int,
        ts_ms: int,
        key: int,
        impression: int,
        user: int,
        item: int,
        positive: bool = False,
        base_score: float = np.nan,
        text: bytes = b"",
    ) -> None:
        """Add an event; the values of an impression are added before."""
        self.events.append((kind, reason, ts_ms, key, impression, user, item, positive, base_score))
        self.value_start.append(len(self.value_key))
        self.text.append(text)

    def columns(self, offsets: npt.NDArray[np.int64]) -> Columns:
        """Return the events as columns."""
        columns = zip(*self.events, strict=True) if self.events else ((),) * 9
        kind, reason, ts_ms, key, impression, user, item, positive, base_score = columns
        text_start = np.zeros(len(self.text) + 1, np.int64)
        np.cumsum([len(text) for text in self.text], out=text_start[1:])
        return Columns(
            kind=np.array(kind, np.uint8),
            reason=np.array(reason, np.uint8),
            offset=offsets,
            ts_ms=np.array(ts_ms, np.int64),
            key=np.array(key, np.uint64),
            impression=np.array(impression, np.uint64),
            user=np.array(user, np.uint64),
            item=np.array(item, np.uint64),
            positive=np.array(positive, np.uint8),
            base_score=np.array(base_score, np.float64),
            value_start=np.array(self.value_start, np.int64),
            value_field=np.array(self.value_field, np.uint8),
            value_key=np.array(self.value_key, np.uint64),
            text_start=text_start,
            text=np.frombuffer(bytearray(b"".join(self.text)), np.uint8),
        )


class Columnizer:
    """Turns records into columns under one configuration; what fields there are is part of the partition's state.

    `names` uint8 [fields, 256] holds the fields' names in their places, each ended by a zero. With no
    `features.context` configured, each context field gets the next free place when it first appears in the log.
    """

    def __init__(
        self, configuration: Configuration, names: npt.NDArray[np.uint8], partition: int, partitions: int
    ) -> None:
        """Read fields under `configuration`; `partitions` 0 means that no record can lie in the wrong one."""
        features = configuration.features
        self._decode = decoder(configuration.limits)
        self._names = names
        self._seed = configuration.seed
        self._takes_all = not features.context
        self._exclude = frozenset(features.exclude)
        self._edges = features.buckets
        self._hour_shift_ms = features.utc_offset_ms
        self._values_limit = features.values_limit - len(features.crosses)
        self._positive_actions = frozenset(configuration.joiner.positive_actions)
        self._partition = partition
        self._partitions = partitions
        self._impression_key = hasher("impression", self._seed)
        self._feedback_key = hasher("feedback", self._seed)
        self._user_keys = Keys("user", self._seed)
        self._item_keys = Keys("item", self._seed)
        self._fields: dict[str, Field] = {}
        for place, name in enumerate(field_names(names)):
            if place > ITEM and not any(name == "*".join(pair) for pair in features.crosses):
                self._add_field(name, place)
        self._places = len(field_names(names))
        self._hour = self._fields.get(HOUR_OF_DAY) if features.hour_of_day else None

    def _add_field(self, name: str, place: int) -> Field:
        field = self._fields[name] = (place, Keys(name, self._seed), self._edges.get(name))
        return field

    def _new_field(self, name: str) -> Field | None:
        """Give a context field that appears for the first time its place, if it is to have one."""
        if not self._takes_all or name in self._exclude or self._places == len(self._names):
            return None
        write_name(self._names, self._places, name)
        self._places += 1
        return self._add_field(name, self._places - 1)

    def columns(self, records: Sequence[Record]) -> Block:
        """Return a block of records as columns; a record that cannot be used has its reason instead of values."""
        rows = _Rows()
        events: list[Event | None] = []
        details: dict[int, str] = {}
        decode = self._decode
        for number, record in enumerate(records):
            try:
                event = decode(record.value)
                if type(event) is Impression:
                    self._add_impression(rows, event)
                elif type(event) is Feedback:
                    self._add_feedback(rows, event, record)
                else:
                    kind = ERASE if type(event) is Erase else REQUEST
                    rows.append(kind, 0, event.ts, self._feedback_key(event.id), 0, self._user_keys[event.user], 0)
            except Unusable as unusable:
                rows.append(UNUSABLE, unusable.reason.code, 0, 0, 0, 0, 0)
                details[number] = unusable.detail
                events.append(None)
            else:
                events.append(event)
        columns = rows.columns(np.fromiter((record.offset for record in records), np.int64, len(records)))
        if self._partitions:
            self._refuse_wrong_partition(records, events, columns, details)
        return Block(records, events, details, columns)

    def _add_impression(self, rows: _Rows, event: Impression) -> None:
        """Add an impression with the values of its fields.

        Raises Unusable where there are more of them than the limit.
        """
        user, item = self._user_keys[event.user], self._item_keys[event.item]
        places, keys = [USER, ITEM], [user, item]
        features = event.context
        is_whole = True
        fields = self._fields
        for name, value in features.items():
            field = fields.get(name) or self._new_field(name)
            if field is None:
                is_whole = False
                continue
            place, memo, edges = field
            if isinstance(value, list):
                keys += [memo[text] for text in value]
                places += [place] * len(value)
                continue
            if edges is not None and not isinstance(value, str):
                keys.append(memo[bisect_right(edges, value)])
            elif isinstance(value, float):
                keys.append(memo[repr(value)])  # 1.0 and 1 are equal, but not the same category
            else:
                keys.append(memo[value])
            places.append(place)
        if not is_whole:
            features = {name: value for name, value in features.items() if name in fields}
        if self._hour is not None:
            hour = (event.ts + self._hour_shift_ms) // HOUR_MS % 24
            places.append(self._hour[0])
            keys.append(self._hour[1][hour])
            features[HOUR_OF_DAY] = hour  # the event is ours alone, and read no further
        if len(keys) > self._values_limit:
            raise Unusable(Reason.TOO_MANY_VALUES, f"{len(keys)} values in all fields, at most {self._values_limit}")
        rows.value_key += keys
        rows.value_field += places
        base_score = np.nan if event.base_score is None else event.base_score
        key, text = self._impression_key(event.id), encode_kept(event, features)
        rows.events.append((IMPRESSION, 0, event.ts, key, 0, user, item, False, base_score))
        rows.value_start.append(len(rows.value_key))
        rows.text.append(text)

    def _add_feedback(self, rows: _Rows, event: Feedback, record: Record) -> None:
        rows.append(
            FEEDBACK,
            0,
            event.ts,
            self._feedback_key(event.id),
            self._impression_key(event.impression),
            self._user_keys[event.user],
            self._item_keys[event.item],
            event.action in self._positive_actions,
            # An early feedback may have to be dead-lettered long after its record has passed.
            text=pack_record(record.value, record.key, tuple(record.headers)),
        )

    def _refuse_wrong_partition(
        self, records: Sequence[Record], events: list[Event | None], columns: Columns, details: dict[int, str]
    ) -> None:
        """Mark usable records whose key, or user where the record has no key, hashes to another partition."""
        keys = [
            record.key if record.key is not None else (event.user.encode() if event is not None else b"")
            for record, event in zip(records, events, strict=True)
        ]
        places = partitions_of(keys, self._partitions)
        for number in np.flatnonzero((places != self._partition) & (columns.reason == 0)):
            columns.reason[number] = Reason.WRONG_PARTITION.code
            details[int(number)] = f"its key belongs to partition {places[number]} of {self._partitions}"


def field_names(names: npt.NDArray[np.uint8]) -> list[str]:
    """Return the fields' names in their places, up to the first place without one."""
    texts = [bytes(row).split(b"\0", 1)[0].decode() for row in names]
    return texts[: texts.index("")] if "" in texts else texts


def write_name(names: npt.NDArray[np.uint8], place: int, name: str) -> None:
    """Write a field's name to its place."""
    raw = name.encode()
    names[place, : len(raw)] = np.frombuffer(raw, np.uint8)

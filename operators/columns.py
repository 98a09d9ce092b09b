"""Records to columns and columns to outputs: bytes -> columns -> fold -> columns -> bytes is the only way through.

Reading a record in Python and the hash of its values are the only loops outside the compiled fold.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from operators.configuration import Configuration
from operators.features import HOUR_OF_DAY, ITEM, USER
from operators.hashing import Keys, hasher, partitions_of
from schemas.decode import decoder
from schemas.events import Erase, Event, Feedback, Impression, Request
from schemas.kept import encode_kept_all, pack_record
from schemas.reasons import Reason, Unusable
from schemas.records import Record

IMPRESSION, FEEDBACK, REQUEST, ERASE, UNUSABLE = range(5)
KINDS = {Impression: IMPRESSION, Feedback: FEEDBACK, Request: REQUEST, Erase: ERASE, type(None): UNUSABLE}
HOUR_MS = 3_600_000
NAME_BYTES = 256

Field = tuple[int, Keys, tuple[float, ...] | None]
"""A field's place, its keys, and the edges of its buckets."""


class Columns(NamedTuple):
    """A block of n events as the fold reads it, [n] unless said otherwise.

    `kind` uint8; `reason` uint8, why the record cannot be used (0: it can); `offset`, `ts_ms` int64; `key` uint64 of
    the event's id (of the impression it scores or the feedback it is); `impression`, `user`, `item` uint64 keys;
    `positive` uint8; `base_score` float64 (nan is none); `value_start` int64 [n + 1] into `value_field` uint8 and
    `value_key` uint64, an impression's values; `text_start`, `text_end` int64 into `text` uint8, what is kept of an
    event that waits.
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
    text_end: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]


class Block(NamedTuple):
    """A block of records with their events (None where unusable), why they are, and their columns."""

    records: Sequence[Record]
    events: list[Event | None]
    details: dict[int, str]
    columns: Columns


class Values(NamedTuple):
    """One field's values in a group of impressions: `counts` int64 [group], or 1 each; `keys` uint64, in order."""

    place: int
    counts: npt.NDArray[np.int64] | int
    keys: npt.NDArray[np.uint64]


class Group(NamedTuple):
    """Impressions with the same context fields: their numbers among the block's impressions, and their values."""

    names: tuple[str, ...]
    members: npt.NDArray[np.int64]
    values: list[Values]


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
        self._impression_keys = hasher("impression", self._seed)
        self._feedback_keys = hasher("feedback", self._seed)
        self._user_keys = hasher("user", self._seed)
        self._item_keys = hasher("item", self._seed)
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
        events: list[Event | None] = []
        refused: dict[int, Unusable] = {}
        decode = self._decode
        for number, record in enumerate(records):
            try:
                events.append(decode(record.value))
            except Unusable as unusable:
                events.append(None)
                refused[number] = unusable
        columns = new_columns(len(records))
        columns.offset[:] = [record.offset for record in records]
        columns.kind[:] = [KINDS[type(event)] for event in events]
        columns = self._with_impressions(columns, events, refused)
        columns = self._with_feedback(columns, events, records)
        self._write_others(columns, events)
        for number, why in refused.items():
            events[number] = None
            columns.kind[number], columns.reason[number] = UNUSABLE, why.reason.code
        details = {number: why.detail for number, why in refused.items()}
        if self._partitions:
            self._refuse_wrong_partition(records, events, columns, details)
        return Block(records, events, details, columns)

    def _with_impressions(self, columns: Columns, events: list[Event | None], refused: dict[int, Unusable]) -> Columns:
        """Write the block's impressions; one that has more values than the limit is `refused`."""
        at = np.flatnonzero(columns.kind == IMPRESSION)
        impressions: list[Any] = [event for event in events if type(event) is Impression]
        groups = self._groups(impressions)
        counts = np.full(len(at), 2 + (self._hour is not None))
        for _, members, values in groups:
            for each in values:
                counts[members] += each.counts
        fit = counts <= self._values_limit
        if not fit.all():
            for number in np.flatnonzero(~fit).tolist():
                text = f"{counts[number]} values in all fields, at most {self._values_limit}"
                refused[int(at[number])] = Unusable(Reason.TOO_MANY_VALUES, text)
            columns.kind[at[~fit]] = UNUSABLE
            rest = [event if columns.kind[number] != UNUSABLE else None for number, event in enumerate(events)]
            return self._with_impressions(columns, rest, refused)
        ts_ms = np.fromiter((event.ts for event in impressions), np.int64, len(at))
        user = self._user_keys([event.user for event in impressions])
        item = self._item_keys([event.item for event in impressions])
        columns.ts_ms[at], columns.user[at], columns.item[at] = ts_ms, user, item
        columns.key[at] = self._impression_keys([event.id for event in impressions])
        columns.base_score[at] = [event.base_score for event in impressions]
        columns.value_start[at + 1] = counts
        np.cumsum(columns.value_start, out=columns.value_start)
        columns = columns._replace(
            value_field=np.empty(columns.value_start[-1], np.uint8),
            value_key=np.empty(columns.value_start[-1], np.uint64),
        )
        # Where the next value of each impression goes: fields come in the order of the event.
        free = columns.value_start[at]
        everyone = np.arange(len(at))
        self._write_values(columns, free, everyone, Values(USER, 1, user))
        self._write_values(columns, free, everyone, Values(ITEM, 1, item))
        for _, members, values in groups:
            for each in values:
                self._write_values(columns, free, members, each)
        if self._hour is not None:
            hours = ((ts_ms + self._hour_shift_ms) // HOUR_MS % 24).tolist()
            keys = np.fromiter(map(self._hour[1].__getitem__, hours), np.uint64, len(hours))
            self._write_values(columns, free, everyone, Values(self._hour[0], 1, keys))
            for event, hour in zip(impressions, hours, strict=True):
                event.context[HOUR_OF_DAY] = hour  # the event is ours alone, and read no further
        return self._with_kept(columns, at, impressions, groups)

    def _groups(self, impressions: list[Any]) -> list[Group]:
        """Return the impressions by the names in their contexts: most blocks have one such set of names."""
        names = [tuple(event.context) for event in impressions]
        groups = []
        for shape in dict.fromkeys(names):
            is_only = names.count(shape) == len(names)
            members = (
                np.arange(len(names)) if is_only else np.array([i for i, each in enumerate(names) if each == shape])
            )
            rows = [impressions[number].context.values() for number in members.tolist()]
            fields = [self._fields.get(name) or self._new_field(name) for name in shape]
            chosen = zip(fields, zip(*rows, strict=True), strict=True)
            values = [values_of(field, values) for field, values in chosen if field is not None]
            groups.append(Group(shape, members, values))
        return groups

    def _write_values(
        self, columns: Columns, free: npt.NDArray[np.int64], members: npt.NDArray[np.int64], values: Values
    ) -> None:
        """Write a field's values where the impressions' next ones go."""
        first = free[members]
        counts = values.counts
        if isinstance(counts, int):
            at = first
        else:
            ends = np.cumsum(counts)
            at = np.repeat(first - ends + counts, counts) + np.arange(len(values.keys))
        columns.value_field[at] = values.place
        columns.value_key[at] = values.keys
        free[members] = first + counts

    def _with_kept(
        self, columns: Columns, at: npt.NDArray[np.int64], impressions: list[Any], groups: list[Group]
    ) -> Columns:
        """Add what is kept of the impressions: the beginning of their examples."""
        fields = self._fields
        contexts = [event.context for event in impressions]
        if not all(fields.keys() >= set(group.names) for group in groups):
            contexts = [{name: value for name, value in each.items() if name in fields} for each in contexts]
        text, columns.text_start[at], columns.text_end[at] = encode_kept_all(impressions, contexts)
        return columns._replace(text=text)

    def _with_feedback(self, columns: Columns, events: list[Event | None], records: Sequence[Record]) -> Columns:
        """Write the block's feedback, and keep its records: an early one may be dead-lettered long after."""
        at = np.flatnonzero(columns.kind == FEEDBACK)
        if not len(at):
            return columns
        feedback: list[Any] = [events[number] for number in at.tolist()]
        columns.ts_ms[at] = [event.ts for event in feedback]
        columns.key[at] = self._feedback_keys([event.id for event in feedback])
        columns.impression[at] = self._impression_keys([event.impression for event in feedback])
        columns.user[at] = self._user_keys([event.user for event in feedback])
        columns.item[at] = self._item_keys([event.item for event in feedback])
        columns.positive[at] = [event.action in self._positive_actions for event in feedback]
        kept = [
            pack_record(each.value, each.key, tuple(each.headers)) for each in map(records.__getitem__, at.tolist())
        ]
        ends = len(columns.text) + np.cumsum([len(each) for each in kept])
        columns.text_end[at] = ends
        columns.text_start[at[0]], columns.text_start[at[1:]] = len(columns.text), ends[:-1]
        return columns._replace(text=np.concatenate((columns.text, np.frombuffer(b"".join(kept), np.uint8))))

    def _write_others(self, columns: Columns, events: list[Event | None]) -> None:
        for number in np.flatnonzero((columns.kind == ERASE) | (columns.kind == REQUEST)).tolist():
            event: Any = events[number]
            columns.ts_ms[number] = event.ts
            columns.key[number] = self._feedback_keys([event.id])[0]
            columns.user[number] = self._user_keys([event.user])[0]

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


def new_columns(events: int) -> Columns:
    """Return columns of `events` events that say nothing yet."""
    return Columns(
        kind=np.zeros(events, np.uint8),
        reason=np.zeros(events, np.uint8),
        offset=np.zeros(events, np.int64),
        ts_ms=np.zeros(events, np.int64),
        key=np.zeros(events, np.uint64),
        impression=np.zeros(events, np.uint64),
        user=np.zeros(events, np.uint64),
        item=np.zeros(events, np.uint64),
        positive=np.zeros(events, np.uint8),
        base_score=np.full(events, np.nan),
        value_start=np.zeros(events + 1, np.int64),
        value_field=np.zeros(0, np.uint8),
        value_key=np.zeros(0, np.uint64),
        text_start=np.zeros(events, np.int64),
        text_end=np.zeros(events, np.int64),
        text=np.zeros(0, np.uint8),
    )


def pack(record: Record) -> bytes:
    """Return the whole of a record as one text."""
    return pack_record(record.value, record.key, tuple(record.headers))


def values_of(field: Field, values: Sequence[Any]) -> Values:
    """Return the values that some impressions have of a field: strings, numbers, or lists of strings."""
    place, memo, edges = field
    types = set(map(type, values))
    counts: npt.NDArray[np.int64] | int = 1
    if list in types:
        lists = [value if type(value) is list else (value,) for value in values]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        values = list(chain.from_iterable(lists))
    if edges is not None:
        values = [value if type(value) is str else bisect_right(edges, value) for value in values]
    elif float in types:
        # 1.0 and 1 are equal, but not the same category
        values = [repr(value) if type(value) is float else value for value in values]
    return Values(place, counts, np.fromiter(map(memo.__getitem__, values), np.uint64, len(values)))


def field_names(names: npt.NDArray[np.uint8]) -> list[str]:
    """Return the fields' names in their places, up to the first place without one."""
    texts = [bytes(row).split(b"\0", 1)[0].decode() for row in names]
    return texts[: texts.index("")] if "" in texts else texts


def write_name(names: npt.NDArray[np.uint8], place: int, name: str) -> None:
    """Write a field's name to its place."""
    raw = name.encode()
    names[place, : len(raw)] = np.frombuffer(raw, np.uint8)

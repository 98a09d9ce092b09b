"""Records to columns and columns to outputs: bytes -> columns -> fold -> columns -> bytes is the only way through.

Reading a record in Python and the hash of its values are the only loops outside the compiled fold.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import Fields, Values, keys_of
from thalweg.operators.edges.fact_columns import ABOUT, FactColumns, names_of
from thalweg.operators.edges.few import Few, impression_of, is_few, negative_value
from thalweg.operators.edges.requests import Asked, Requests
from thalweg.operators.features import HOUR_MS, HOUR_OF_DAY, ITEM, USER
from thalweg.operators.fold.columns import Columns, Kind, new_columns
from thalweg.operators.machine.hashing import hasher, partitions_of
from thalweg.operators.machine.plain import find_plain, is_plain
from thalweg.operators.objectives import actions_of
from thalweg.schemas.decode import UNDECODABLE, are_names_over, decode_plain, decoder, is_over, plain
from thalweg.schemas.events import Context, Erase, Event, Feedback, Impression, Item, Merge, Request, User, shown_id
from thalweg.schemas.kept import KEPT_CLOSING, encode_kept, pack_record
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.records import Record

KINDS = {
    Impression: Kind.IMPRESSION.value,
    Feedback: Kind.FEEDBACK.value,
    Request: Kind.REQUEST.value,
    Erase: Kind.ERASE.value,
    Item: Kind.ITEM.value,
    User: Kind.USER.value,
    Merge: Kind.MERGE.value,
    type(None): Kind.UNUSABLE.value,
}
Read = Callable[[Record], Event | None]
"""From a foreign record to its event, None for one that is ignored; raises Unusable."""


class Block(NamedTuple):
    """A block of records with their events (None where unusable), why they are, their columns, and what is asked.

    `has_impressions`: whether any record is one.
    """

    records: Sequence[Record]
    events: list[Event | None]
    details: dict[int, str]
    columns: Columns
    asked: dict[int, Asked]
    has_impressions: bool


class Columnizer:
    """Turns records into columns under one configuration; `names` is the state's, as `contexts.Fields` reads it."""

    def __init__(
        self,
        configuration: Configuration,
        names: npt.NDArray[np.uint8],
        partition: int,
        partitions: int,
        read: Read | None = None,
    ) -> None:
        """Read fields under `configuration`; `partitions` 0 means that no record can be in the wrong one.

        `read` makes events of foreign records; without it records are our own events in JSON.
        """
        self._read = read
        features = configuration.features
        self._limits = configuration.limits
        self._decode = decoder(configuration.limits)
        self._plain = plain(configuration.limits)
        self._hour_shift_ms = features.utc_offset_ms
        self._values_limit = features.values_limit - len(features.crosses)
        self._actions = actions_of(configuration.joiner, configuration.objectives)
        self._is_weighed = configuration.objectives.is_weighed
        self._partition = partition
        self._partitions = partitions
        self._impression_keys = hasher("impression", configuration.seed)
        self._feedback_keys = hasher("feedback", configuration.seed)
        self._user_keys = hasher("user", configuration.seed)
        self._item_keys = hasher("item", configuration.seed)
        self._fields = Fields(configuration, names)
        self._hour = self._fields.get(HOUR_OF_DAY) if features.hour_of_day else None
        self._facts = FactColumns(configuration, self._fields)
        self._requests = Requests(configuration.limits, self._fields, self._values_limit, configuration.objectives)
        self._few = Few(configuration, self._fields)

    def columns(self, records: Sequence[Record]) -> Block:
        """Return a block of records as columns; a record that cannot be used has its reason instead of values."""
        refused: dict[int, Unusable] = {}
        if self._read is None:
            events = self._decoded([record.value for record in records], refused)
        else:
            events = self._foreign(self._read, records, refused)
        types = set(map(type, events))
        has_facts = not types.isdisjoint(ABOUT)
        if has_facts or (Request in types and any(type(event) is Request and event.shown for event in events)):
            self._fields.add_names(names_of(events, self._limits))
        columns = new_columns(len(records))
        columns.offset[:] = [record.offset for record in records]
        columns.kind[:] = [KINDS[type(event)] for event in events]
        if self._read is not None:
            ignored = [number for number, event in enumerate(events) if event is None and number not in refused]
            columns.kind[ignored] = Kind.IGNORED
        if is_few(len(records)):
            columns = self._few.write(columns, events, records, refused)
        else:
            columns = self._with_impressions(columns, events, refused)
            columns = self._with_feedback(columns, events, records, refused)
            self._write_others(columns, events)
        if has_facts:
            columns = self._facts.write(columns, events, refused)
        if Merge in types:
            columns = with_merges(columns, events)
        asked: dict[int, Asked] = {}
        if Request in types:
            columns, asked = self._requests.columns(columns, events, self._hours_of_requests(columns), self._item_keys)
        for number, unusable in sorted(refused.items()):
            columns.reason[number] = unusable.reason.code
        details = {number: unusable.detail for number, unusable in refused.items()}
        if self._partitions > 1:
            self._refuse_wrong_partition(records, events, columns, details)
        return Block(records, events, details, columns, asked, Impression in types)

    def shown(self, offset: int, impressions: list[Impression]) -> Columns:
        """Return the columns of impressions that the request at an offset takes as shown; its names have places."""
        columns = new_columns(len(impressions))
        columns.offset[:] = offset
        columns.kind[:] = Kind.IMPRESSION.value
        events: list[Event | None] = [*impressions]
        return (
            self._few.write(columns, events, (), {})
            if is_few(len(events))
            else self._with_impressions(columns, events, {})
        )

    def _decoded(self, values: Sequence[bytes | None], refused: dict[int, Unusable]) -> list[Event | None]:
        """Return the events of records, None for those that are `refused`."""
        if is_few(len(values)):
            return [self._decoded_one(number, value, refused) for number, value in enumerate(values)]
        whole = [value or b"" for value in values]
        events: list[Event | None] = []
        for number, (value, has_short_way) in enumerate(zip(whole, find_plain(whole, self._plain), strict=True)):
            try:
                event = decode_plain(value) if has_short_way else None
            except UNDECODABLE:
                event = None
            events.append(event or self._measured(number, values[number], refused))
        for number in self._over_limits(events):
            events[number] = self._measured(number, values[number], refused)
        return events

    def _decoded_one(self, number: int, value: bytes | None, refused: dict[int, Unusable]) -> Event | None:
        if value is not None and is_plain(value, self._plain):
            try:
                event = decode_plain(value)
            except UNDECODABLE:
                return self._measured(number, value, refused)
            if not is_over(event, self._limits):
                return event
        return self._measured(number, value, refused)

    def _foreign(self, read: Read, records: Sequence[Record], refused: dict[int, Unusable]) -> list[Event | None]:
        """Return the events of foreign records, None for those that are `refused` or ignored."""
        events: list[Event | None] = []
        for number, record in enumerate(records):
            try:
                events.append(read(record))
            except Unusable as unusable:
                refused[number] = unusable
                events.append(None)
        return events

    def _measured(self, number: int, value: bytes | None, refused: dict[int, Unusable]) -> Event | None:
        """Decode a record with everything measured, and note why it is refused, if it is."""
        try:
            return self._decode(value)
        except Unusable as unusable:
            refused[number] = unusable
            return None

    def _over_limits(self, events: Sequence[Event | None]) -> list[int]:
        """Return which events have a name that is too long, or show too much: no plain record is measured for that."""
        shows_too_much = any(type(event) is Request and (event.shown or 0) > self._limits.shown for event in events)
        names = set[str]().union(*(event.context for event in events if isinstance(event, Impression | Request)))
        names.update(*(event.fields for event in events if isinstance(event, Item | User)))
        names.update(event.action for event in events if type(event) is Feedback)
        if not shows_too_much and not are_names_over(names, self._limits):
            return []
        return [number for number, event in enumerate(events) if event is not None and is_over(event, self._limits)]

    def _with_impressions(self, columns: Columns, events: list[Event | None], refused: dict[int, Unusable]) -> Columns:
        """Write the block's impressions with the values of their fields; one that has too many is `refused`."""
        at = np.flatnonzero(columns.kind == Kind.IMPRESSION.value)
        impressions: list[Any] = [event for event in events if type(event) is Impression]
        contexts: Sequence[Context] = [event.context for event in impressions]
        values, brought = self._fields.values(contexts)
        counts = np.full(len(at), 2 if self._hour is None else 3)
        for each in values:
            counts[each.members] += each.counts
        if (counts > self._values_limit).any():
            for number in np.flatnonzero(counts > self._values_limit).tolist():
                detail = f"{counts[number]} values in all fields, at most {self._values_limit}"
                refused[int(at[number])] = Unusable(Reason.TOO_MANY_VALUES, detail)
                columns.kind[at[number]] = Kind.UNUSABLE
                events[at[number]] = None
            return self._with_impressions(columns, events, refused)
        ts_ms = np.fromiter((event.ts for event in impressions), np.int64, len(at))
        user = self._user_keys([event.user for event in impressions])
        item = self._item_keys([event.item for event in impressions])
        columns.ts_ms[at], columns.user[at], columns.item[at] = ts_ms, user, item
        columns.key[at] = self._impression_keys([event.id for event in impressions])
        columns.base_score[at] = [event.base_score for event in impressions]
        answering = np.flatnonzero([event.request is not None for event in impressions])
        if len(answering):
            answers = [impressions[number] for number in answering.tolist()]
            columns.request[at[answering]] = self._feedback_keys([event.request for event in answers])
            columns.impression[at[answering]] = self._impression_keys(
                [shown_id(event.request, event.item) for event in answers]
            )
        contexts = self._fields.known(contexts)
        everyone = np.arange(len(at))
        values = [Values(everyone, 1, USER, user), Values(everyone, 1, ITEM, item), *values]
        if self._hour is not None:
            hours = ((ts_ms + self._hour_shift_ms) // HOUR_MS % 24).tolist()
            values.append(Values(everyone, 1, self._hour.place, keys_of(self._hour, hours)[1]))
            for context, hour in zip(contexts, hours, strict=True):
                context[HOUR_OF_DAY] = hour  # the event is ours alone, and read no further
        columns.brought[at] = brought
        columns = with_values(columns, at, counts, values)
        text = np.frombuffer(bytearray(encode_kept(impressions, contexts)), np.uint8)
        after = np.flatnonzero(text == KEPT_CLOSING[-1]) + 1
        columns.text_end[at] = after - len(KEPT_CLOSING)
        columns.text_start[at[1:]] = after[:-1]
        return columns._replace(text=text)

    def _with_feedback(
        self, columns: Columns, events: list[Event | None], records: Sequence[Record], refused: dict[int, Unusable]
    ) -> Columns:
        """Write the block's feedback, and keep its records: an early one may be dead-lettered long after."""
        at = np.flatnonzero(columns.kind == Kind.FEEDBACK.value)
        if not len(at):
            return columns
        feedback: list[Any] = [events[number] for number in at.tolist()]
        columns.ts_ms[at] = [event.ts for event in feedback]
        columns.key[at] = self._feedback_keys([event.id for event in feedback])
        named = [impression_of(event) for event in feedback]
        columns.impression[at] = self._impression_keys([each or "" for each in named])
        columns.impression[at[[each is None for each in named]]] = 0
        columns.user[at] = self._user_keys([event.user for event in feedback])
        columns.item[at] = self._item_keys([event.item for event in feedback])
        acted = [self._actions[event.action] for event in feedback]
        columns.positive[at] = [each.objectives for each in acted]
        columns.window_ms[at] = [each.window_ms for each in acted]
        for number, event, its in zip(at.tolist(), feedback, acted, strict=True) if self._is_weighed else ():
            if its.weighs and event.value is not None:
                columns.value[number] = event.value
                if event.value < 0.0:
                    refused[number] = negative_value(event)
                    columns.kind[number] = Kind.UNUSABLE
                    events[number] = None
        kept = [
            pack_record(each.value, each.key, tuple(each.headers)) for each in map(records.__getitem__, at.tolist())
        ]
        kept_bytes = self._limits.kept_bytes
        for number, each in zip(at.tolist(), kept, strict=True):
            if len(each) > kept_bytes:
                detail = f"{len(each)} bytes with its key and headers, at most {kept_bytes}"
                refused[number] = Unusable(Reason.TOO_LARGE, detail)
                columns.kind[number] = Kind.UNUSABLE
                events[number] = None
        ends = len(columns.text) + np.cumsum([len(each) for each in kept])
        columns.text_end[at] = ends
        columns.text_start[at[0]], columns.text_start[at[1:]] = len(columns.text), ends[:-1]
        return columns._replace(text=np.concatenate((columns.text, np.frombuffer(b"".join(kept), np.uint8))))

    def _write_others(self, columns: Columns, events: list[Event | None]) -> None:
        at = np.flatnonzero((columns.kind == Kind.ERASE.value) | (columns.kind == Kind.REQUEST.value))
        if not len(at):
            return
        others: list[Any] = [events[number] for number in at.tolist()]
        columns.ts_ms[at] = [event.ts for event in others]
        columns.key[at] = self._feedback_keys([event.id for event in others])
        columns.user[at] = self._user_keys([event.user for event in others])

    def _hours_of_requests(self, columns: Columns) -> dict[int, tuple[tuple[int, int], ...]]:
        """Return place and key of the hour of each request, where the hour is a field."""
        if self._hour is None:
            return {}
        at = np.flatnonzero(columns.kind == Kind.REQUEST.value)
        hours = ((columns.ts_ms[at] + self._hour_shift_ms) // HOUR_MS % 24).tolist()
        keys = keys_of(self._hour, hours)[1].tolist()
        return {int(number): ((self._hour.place, key),) for number, key in zip(at, keys, strict=True)}

    def _refuse_wrong_partition(
        self, records: Sequence[Record], events: list[Event | None], columns: Columns, details: dict[int, str]
    ) -> None:
        """Mark usable records whose key, or user where the record has no key, hashes to another partition."""
        keys = [
            record.key
            if record.key is not None
            else (event.user.encode() if event is not None and not isinstance(event, Item | Merge) else b"")
            for record, event in zip(records, events, strict=True)
        ]
        places = partitions_of(keys, self._partitions)
        to_all = (columns.kind == Kind.ITEM.value) | (columns.kind == Kind.MERGE.value)  # no user is in them
        is_elsewhere = (places != self._partition) & ~to_all
        for number in np.flatnonzero(is_elsewhere & (columns.reason == 0)):
            columns.reason[number] = Reason.WRONG_PARTITION.code
            details[int(number)] = f"its key belongs to partition {places[number]} of {self._partitions}"


def with_merges(columns: Columns, events: Sequence[Event | None]) -> Columns:
    """Return columns with what the merges among a block's events name, in the order of partitions."""
    counts = [len(event.upto) if isinstance(event, Merge) else 0 for event in events]
    named = [(event, *each) for event in events if isinstance(event, Merge) for each in sorted(event.upto.items())]
    np.cumsum(counts, out=columns.merge_start[1:])
    return columns._replace(
        merge_source=np.array([source for _, source, _ in named], np.int64),
        merge_upto=np.array([upto for _, _, upto in named], np.int64),
        merge_passed=np.array([source in event.exclude for event, source, _ in named], np.uint8),
        merge_begins=np.array([isinstance(event, Merge) and event.start is not None for event in events], np.uint8),
    )


def with_values(
    columns: Columns, at: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], values: Sequence[Values]
) -> Columns:
    """Return columns with the values of the impressions, which lie `at` these events and have so many each."""
    columns.value_start[at + 1] = counts
    np.cumsum(columns.value_start, out=columns.value_start)
    field = np.empty(columns.value_start[-1], np.uint8)
    key = np.empty(columns.value_start[-1], np.uint64)
    free = columns.value_start[at]  # where the next value of each impression goes
    for each in values:
        first = free[each.members]
        places = first
        if not isinstance(each.counts, int):
            ends = np.cumsum(each.counts)
            places = np.repeat(first - ends + each.counts, each.counts) + np.arange(len(each.keys))
        field[places] = each.places
        key[places] = each.keys
        free[each.members] = first + each.counts
    return columns._replace(value_field=field, value_key=key)

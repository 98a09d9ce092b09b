"""Columns of a few events, one event after the other: numpy takes as long for one event as for fifty.

A worker that keeps up with a trickle gets most events in blocks of one. What is written here is, bit for bit, what
`columnizer` writes of blocks that are worth whole arrays; a test compares the two.
"""

from collections.abc import Sequence

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import Fields
from thalweg.operators.features import HOUR_MS, HOUR_OF_DAY, ITEM, USER
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.objectives import actions_of
from thalweg.schemas.events import Erase, Event, Feedback, Impression, Request, shown_id
from thalweg.schemas.kept import begin_example, pack_record
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.records import Record

FEW = 8
"""A block of fewer events is written event by event."""


def is_few(events: int) -> bool:
    """Return whether a block of so many events is written event by event; an empty one loads what large ones need."""
    return 0 < events < FEW


def impression_of(feedback: Feedback) -> str | None:
    """Return the id of the impression that a feedback names, by itself or by its request; None where it names none."""
    if feedback.impression is None and feedback.request is not None:
        return shown_id(feedback.request, feedback.item)
    return feedback.impression


def negative_value(event: Feedback) -> Unusable:
    """Return why a feedback whose value weighs cannot be used where that is negative."""
    return Unusable(Reason.BAD_VALUE, f"value is {event.value:g}: it weighs what was done, so it must be 0 or more")


class Few:
    """Writes the columns of a few events under one configuration; `fields` is the columnizer's."""

    def __init__(self, configuration: Configuration, fields: Fields) -> None:
        """Hash ids under the configuration's seed."""
        features, seed = configuration.features, configuration.seed
        self._fields = fields
        self._hour = fields.get(HOUR_OF_DAY) if features.hour_of_day else None
        self._hour_shift_ms = features.utc_offset_ms
        self._values_limit = features.values_limit - len(features.crosses)
        self._kept_bytes = configuration.limits.kept_bytes
        self._actions = actions_of(configuration.joiner, configuration.objectives)
        self._impression_salt, self._feedback_salt = field_seed("impression", seed), field_seed("feedback", seed)
        self._user_salt, self._item_salt = field_seed("user", seed), field_seed("item", seed)

    def write(
        self, columns: Columns, events: list[Event | None], records: Sequence[Record], refused: dict[int, Unusable]
    ) -> Columns:
        """Return the columns with all that the events say; `refused` are those that have or keep too much."""
        fields: list[int] = []
        keys: list[int] = []
        text = bytearray()
        for number, event in enumerate(events):
            try:
                if type(event) is Impression:
                    kept = self._write_impression(columns, number, event, fields, keys)
                elif type(event) is Feedback:
                    kept = self._write_feedback(columns, number, event, records[number])
                else:
                    kept = b""
                    if type(event) is Erase or type(event) is Request:
                        columns.ts_ms[number] = event.ts
                        columns.key[number] = key_of(event.id, self._feedback_salt)
                        columns.user[number] = key_of(event.user, self._user_salt)
            except Unusable as unusable:
                refused[number] = unusable
                columns.kind[number] = Kind.UNUSABLE.value
                events[number] = None
                kept = b""
            columns.value_start[number + 1] = len(keys)
            columns.text_start[number] = len(text)
            text += kept
            columns.text_end[number] = len(text)
        if keys:
            columns = columns._replace(value_field=np.array(fields, np.uint8), value_key=np.array(keys, np.uint64))
        return columns._replace(text=np.frombuffer(text, np.uint8)) if text else columns

    def _write_impression(
        self, columns: Columns, number: int, event: Impression, fields: list[int], keys: list[int]
    ) -> bytes:
        """Write an impression, add its values to `fields` and `keys`, and return what is kept of it.

        Raises Unusable where it has too many values.
        """
        user, item = key_of(event.user, self._user_salt), key_of(event.item, self._item_salt)
        context = event.context
        places, values = [USER, ITEM], [user, item]
        self._fields.add_values(context, places, values)
        columns.brought[number] = self._fields.bits(context)
        if self._hour is not None:
            hour = (event.ts + self._hour_shift_ms) // HOUR_MS % 24
            places.append(self._hour.place)
            values.append(self._hour.keys[hour])
        if len(values) > self._values_limit:
            detail = f"{len(values)} values in all fields, at most {self._values_limit}"
            raise Unusable(Reason.TOO_MANY_VALUES, detail)
        (context,) = self._fields.known((context,))
        if self._hour is not None:
            context[HOUR_OF_DAY] = hour  # the event is ours alone, and read no further
        fields += places
        keys += values
        columns.ts_ms[number] = event.ts
        columns.key[number] = key_of(event.id, self._impression_salt)
        columns.user[number], columns.item[number] = user, item
        if event.request is not None:
            columns.request[number] = key_of(event.request, self._feedback_salt)
            columns.impression[number] = key_of(shown_id(event.request, event.item), self._impression_salt)
        if event.base_score is not None:
            columns.base_score[number] = event.base_score
        return begin_example(event, context)

    def _write_feedback(self, columns: Columns, number: int, event: Feedback, record: Record) -> bytes:
        """Write a feedback and return its record, which is kept: an early one may be dead-lettered long after.

        Raises Unusable where the record is too large to be kept, or its value cannot weigh.
        """
        kept = pack_record(record.value, record.key, tuple(record.headers))
        if len(kept) > self._kept_bytes:
            detail = f"{len(kept)} bytes with its key and headers, at most {self._kept_bytes}"
            raise Unusable(Reason.TOO_LARGE, detail)
        columns.ts_ms[number] = event.ts
        columns.key[number] = key_of(event.id, self._feedback_salt)
        if (impression := impression_of(event)) is not None:
            columns.impression[number] = key_of(impression, self._impression_salt)
        columns.user[number] = key_of(event.user, self._user_salt)
        columns.item[number] = key_of(event.item, self._item_salt)
        acted = self._actions[event.action]
        columns.positive[number], columns.window_ms[number] = acted.objectives, acted.window_ms
        if acted.weighs and event.value is not None:
            if event.value < 0.0:
                raise negative_value(event)
            columns.value[number] = event.value
        return kept

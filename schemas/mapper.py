"""A foreign record to our event, as `[mapping]` says: pure, and the same for every source of records."""

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from thalweg.schemas.decode import is_over
from thalweg.schemas.events import (
    EARLIEST_TS_MS,
    END_TS_MS,
    Context,
    Erase,
    Event,
    Feedback,
    Impression,
    Item,
    Request,
    User,
    Value,
)
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.mapping import CATEGORY, LEAVE_OUT, REST, MappingConfiguration
from thalweg.schemas.paths import getter, parse
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.refusal import check_positive, check_record, kind, shown

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
TICKS_PER_MS = {"us": 1_000, "ns": 1_000_000}
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FLATTENED_DEPTH = 8
# What Python's reader does not take: a space before the zone, and the zone's name.
_ZONE = re.compile(r"(?: ?(UTC|GMT)| +([-+]\d\d(?::?\d\d)?))$")

Mapped = Impression | Feedback | Request | Item | User | Erase
"""What a foreign record may be."""
Make = Callable[[Any, str, int | None], Event | None]


class Mapper:
    """Makes events of foreign records.

    Parameters
    ----------
    configuration
        Where our fields are.
    limits
        What an event may be.

    """

    def __init__(self, configuration: MappingConfiguration, limits: LimitsConfiguration) -> None:
        """Compile the paths; the parameters are the class's."""
        self._limits = limits
        self._configuration = configuration
        c = configuration
        self._type = getter(c.type) if c.type else None
        self._kinds: dict[str, Make] = dict.fromkeys(c.impressions, self._impression)
        self._kinds |= dict.fromkeys(c.requests, self._request) | dict.fromkeys(c.erase, self._erase)
        self._kinds |= dict.fromkeys(c.facts, self._facts) | dict.fromkeys(c.ignore, _ignored)
        self._kinds |= {value: self._feedback_of(action) for value, action in c.feedback.items()}
        self._others = self._kinds.pop(REST, None)
        self._id = self._ids("id", c.id) if c.id else None
        self.user, self._item = self._ids("user", c.user), self._ids("item", c.item)
        """Returns the user's id of a record, or raises Unusable where it has none."""
        self._has_user = getter(c.user) if c.user else _nothing
        self._has_item = getter(c.item) if c.item else _nothing
        self._of_impression = self._ids("impression", c.impression) if c.impression else None
        self._names_impression = getter(c.impression) if c.impression else _nothing
        self._of_request = self._ids("request", c.request) if c.request else None
        self._names_request = getter(c.request) if c.request else _nothing
        self._shown = getter(c.shown) if c.shown else _nothing
        self._candidates = getter(c.candidates) if c.candidates else None
        self._time = getter(c.time) if c.time else None
        self._milliseconds = milliseconds_of(c.time, c.time_unit)
        self._fields = [(name, path, getter(path)) for name, path in c.named_context()]
        self._takes_rest = REST in c.context
        used = [*c.paths(), *c.context_except, *(path for _, path in c.named_context())]
        self._used = {".".join(part.name for part in parts) for path in used for parts in parse(path)}
        self._base_score = getter(c.base_score) if c.base_score else None
        self._value = getter(c.value) if c.value else None

    def event(self, record: Any, origin: str, timestamp_ms: int | None) -> Event | None:
        """Return a record's event, None for one that is to be ignored.

        `origin` becomes the id where the mapping names none, `timestamp_ms` the time.

        Raises Unusable where the record has no such event.
        """
        if type(record) is not dict:
            raise Unusable(Reason.NOT_AN_OBJECT, f"the record is {kind(record)}")
        if self._type is None:
            return self._impression(record, origin, timestamp_ms)
        value = self._type(record)
        make = self._kinds.get(value if type(value) is str else _word(value), self._others)
        if make is None:
            if value is None:
                raise Unusable(Reason.MISSING_FIELD, f"type is missing: nothing is at {self._configuration.type}")
            raise Unusable(Reason.UNKNOWN_TYPE, f"mapping does not name the type {shown(_word(value))}")
        return make(record, origin, timestamp_ms)

    def _impression(self, record: Any, origin: str, timestamp_ms: int | None) -> Event:
        if self._of_impression is not None and self._names_impression(record) is not None:
            id_ = self._of_impression(record)
        else:
            id_ = origin if self._id is None else self._id(record)
        ts = self._ts(record, timestamp_ms)
        base_score = None if self._base_score is None else _number("base_score", self._base_score(record))
        context, request = self._context(record), self._request_of(record)
        event = Impression(id_, self.user(record), self._item(record), ts, context, base_score, request)
        if not event.item or (base_score is not None and not 0.0 <= base_score <= 1.0):
            raise self._refused(event)
        return self._checked(event)

    def _feedback_of(self, action: str) -> Make:
        def make(record: Any, origin: str, timestamp_ms: int | None) -> Event:
            id_ = origin if self._id is None else self._id(record)
            user, item = self.user(record), self._item(record)
            impression = None
            if self._of_impression is not None and self._names_impression(record) is not None:
                impression = self._of_impression(record)
            value = None if self._value is None else _number("value", self._value(record))
            event = Feedback(
                id=id_,
                impression=impression,
                request=self._request_of(record),
                user=user,
                item=item,
                ts=self._ts(record, timestamp_ms),
                action=action,
                value=value,
            )
            if not item or impression == "" or (value is not None and not math.isfinite(value)):
                raise self._refused(event)
            return self._checked(event)

        return make

    def _request(self, record: Any, origin: str, timestamp_ms: int | None) -> Event:
        id_ = origin if self._id is None else self._id(record)
        found = None if self._candidates is None else self._candidates(record)
        if type(found) is not list:
            raise Unusable(Reason.WRONG_TYPE, f"candidates is {kind(found)}, not a list")
        candidates = [str(each) if type(each) is int else each for each in found]  # a bad one is refused by itself
        event = Request(
            id_,
            self.user(record),
            candidates,
            self._ts(record, timestamp_ms),
            self._context(record),
            shown=_count("shown", self._shown(record)),
        )
        return self._checked(event)

    def _request_of(self, record: Any) -> str | None:
        """Return the id of the request that a record names, None where it names none."""
        if self._of_request is None or self._names_request(record) is None:
            return None
        request = self._of_request(record)
        if not request:
            raise Unusable(Reason.ID_EMPTY, "request is empty")
        return request

    def _erase(self, record: Any, origin: str, timestamp_ms: int | None) -> Event:
        id_ = origin if self._id is None else self._id(record)
        return self._checked(Erase(id_, self.user(record), self._ts(record, timestamp_ms)))

    def _facts(self, record: Any, origin: str, timestamp_ms: int | None) -> Event:
        id_ = origin if self._id is None else self._id(record)
        ts = self._ts(record, timestamp_ms)
        if self._has_item_alone(record):
            return self._checked(Item(id_, self._item(record), ts, dict(self._context(record))))
        return self._checked(User(id_, self.user(record), ts, dict(self._context(record))))

    def is_of_item(self, record: Any) -> bool:
        """Return whether a record has facts about an item, which go to every partition."""
        if type(record) is not dict or self._type is None:
            return False
        value = self._type(record)
        make = self._kinds.get(value if type(value) is str else _word(value), self._others)
        return make == self._facts and self._has_item_alone(record)

    def _has_item_alone(self, record: Any) -> bool:
        return self._has_user(record) is None and self._has_item(record) is not None

    def _checked(self, event: Mapped) -> Event:
        """Return an event that is within every limit."""
        owner = event.item if isinstance(event, Item) else event.user
        if not event.id or not owner or not EARLIEST_TS_MS <= event.ts < END_TS_MS or is_over(event, self._limits):
            raise self._refused(event)
        return event

    def _refused(self, event: Event) -> Unusable:
        """Return what is wrong with an event that was made of a record."""
        fields: dict[str, Any] = {name: getattr(event, name) for name in event.__struct_fields__}
        try:
            check_record(fields | {"type": str(event.__struct_config__.tag)}, self._limits)
        except Unusable as found:
            return found.with_traceback(None)
        return Unusable(Reason.WRONG_TYPE, "the record has no such event")

    def _ids(self, name: str, path: str) -> Callable[[Any], str]:
        if not path:
            return lambda record: ""
        get = getter(path)

        def read(record: Any) -> str:
            value = get(record)
            return value if type(value) is str else _id_text(name, path, value)

        return read

    def _ts(self, record: Any, timestamp_ms: int | None) -> int:
        if self._time is not None:
            return self._milliseconds(self._time(record))
        if timestamp_ms is None or timestamp_ms < 0:
            raise Unusable(Reason.MISSING_FIELD, "ts is missing: the record has no timestamp of its own")
        return timestamp_ms

    def _context(self, record: Any) -> Context:
        context: dict[str, Value] = {}
        for name, path, get in self._fields:
            value = get(record)
            if type(value) is not str:
                value = self._value_of(path, value)
                if value is None:
                    continue
            context[name] = value
        if self._takes_rest:
            for name, value in self._rest(record, "", FLATTENED_DEPTH):
                context.setdefault(name, value)
        return context

    def _value_of(self, path: str, value: Any) -> Value | None:
        """Return a value as a context may have it, None where it is left out."""
        found = type(value)
        if found is str:
            return value  # type: ignore[no-any-return]
        if value is None or value != value:  # NaN, of a codec that has it
            return "null" if self._configuration.nulls == CATEGORY else None
        if found is bool:
            if self._configuration.booleans == CATEGORY:
                return "true" if value else "false"
            return None if self._configuration.booleans == LEAVE_OUT else int(value)
        if found is int:
            return value if INT64_MIN <= value <= INT64_MAX else str(value)
        if found is float:
            if not math.isfinite(value):
                raise Unusable(Reason.NOT_FINITE, f"context at {path} is not finite")
            return value  # type: ignore[no-any-return]
        if found is list:
            return [_word(each, path) for each in value if each is not None]
        raise Unusable(Reason.WRONG_TYPE, f"context at {path} is {kind(value)}, not a text, a number or a list of them")

    def _rest(self, record: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Value]]:
        """Give what no other key names, objects within objects by their paths; lists of objects are left out."""
        for name, value in record.items():
            path = f"{prefix}{name}"
            if path in self._used:
                continue
            if type(value) is dict:
                if depth > 1:
                    yield from self._rest(value, f"{path}.", depth - 1)
                continue
            if type(value) is bytes or (
                type(value) is list and any(type(each) in (dict, list, bytes) for each in value)
            ):
                continue
            if (found := self._value_of(path, value)) is not None:
                yield path, found


def _nothing(record: Any) -> None:
    return None


def _ignored(record: Any, origin: str, timestamp_ms: int | None) -> None:
    return None


def _word(value: Any, path: str = "type") -> str:
    """Return a scalar as a text."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) in (int, float):
        return str(value)
    if value is None:
        return ""
    raise Unusable(Reason.WRONG_TYPE, f"{path} is {kind(value)}, not a text or a number")


def _id_text(name: str, path: str, value: Any) -> str:
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    if value is None:
        raise Unusable(Reason.MISSING_FIELD, f"{name} is missing: nothing is at {path}")
    raise Unusable(Reason.WRONG_TYPE, f"{name} at {path} is {kind(value)}, not a text or an integer")


def _number(name: str, value: Any) -> float | None:
    """Return a number, which may be written as a text; None where there is none."""
    if value is None or value == "":
        return None
    if type(value) in (int, float, str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind(value)} that is no number")


def _count(name: str, value: Any) -> int | None:
    """Return a count from 1 on, which may be written as a text; None where there is none."""
    if value is None or value == "":
        return None
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 32:
        value = int(value)
    if type(value) is not int:
        raise Unusable(Reason.WRONG_TYPE, f"{name} is {kind(value)} that is no count")
    check_positive(name, value)
    return value


def milliseconds_of(path: str, unit: str) -> Callable[[Any], int]:
    """Return what reads a time of a unit as whole milliseconds: numbers of less than one are cut down."""

    def read_number(value: Any) -> int:
        if type(value) is str:
            try:
                value = int(value) if value.lstrip("-").isdigit() and len(value) < 32 else float(value)
            except ValueError:
                raise Unusable(Reason.WRONG_TYPE, f"ts at {path} is a string that is no number of {unit}") from None
        if type(value) is int:
            return value * 1_000 if unit == "s" else value if unit == "ms" else value // TICKS_PER_MS[unit]
        if type(value) is float:
            in_ms = value * 1_000 if unit == "s" else value if unit == "ms" else value / TICKS_PER_MS[unit]
            if math.isfinite(in_ms):
                return round(in_ms)
        raise _no_time(path, value)

    def read_iso(value: Any) -> int:
        text = value.strip() if type(value) is str else ""
        if text[4:5] != "-":
            raise _no_time(path, value)
        try:
            moment = datetime.fromisoformat(_ZONE.sub(_zone, text))
        except ValueError:
            raise Unusable(Reason.WRONG_TYPE, f"ts at {path} is a string that is no ISO 8601 time") from None
        return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - EPOCH) // MILLISECOND

    return read_iso if unit == "iso" else read_number


def _zone(found: re.Match[str]) -> str:
    return found[2] or ""


def _no_time(path: str, value: Any) -> Unusable:
    if value is None:
        return Unusable(Reason.MISSING_FIELD, f"ts is missing: nothing is at {path}")
    return Unusable(Reason.WRONG_TYPE, f"ts at {path} is {kind(value)} that is no time")

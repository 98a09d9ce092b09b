"""The rules for records told again, plainly: why a record is refused, what the clock does, what joins what.

Written from docs and docstrings, not from the code: nothing of it is imported but the defaults of the limits.
"""

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from thalweg.schemas.limits import LimitsConfiguration

from tests.fold.plain.clock import Doubts, PlainClock

LIMITS = LimitsConfiguration()
FIELDS = {
    "impression": ["id", "user", "item", "ts", "context", "base_score", "request", "position", "propensity"],
    "feedback": ["id", "impression", "request", "user", "item", "ts", "action", "value"],
    "request": [
        *("id", "user", "candidates", "ts", "context", "top", "exclude", "seen", "at_most", "explain"),
        *("policy", "epsilon", "temperature", "deviation", "floor", "shown"),
    ],
    "item": ["id", "item", "ts", "fields"],
    "user": ["id", "user", "ts", "fields"],
    "erase": ["id", "user", "ts"],
    "merge": ["id", "upto", "exclude", "start"],
}
BETWEEN = {"epsilon": (0, 1), "temperature": (0.05, 100), "deviation": (0.01, 100), "floor": (0, 1)}
NULLABLE = ("base_score", "value", "impression", "request", "position", "propensity", "start", "top", "shown", "policy")
NULLABLE += tuple(BETWEEN)
CHOICES = {"explain": (), "seen": ("keep", "drop"), "policy": ("none", "epsilon", "gumbel", "thompson")}
OPTIONAL = (*NULLABLE, "exclude", "seen", "at_most", "explain")
EARLIEST_MS, END_MS = 315_532_800_000, 4_102_444_800_000


class Refused(Exception):  # noqa: N818
    """A reason."""


class Pairs(list[tuple[str, Any]]):
    """An object as it was written, names that occur twice included."""

    def get(self, name: str) -> Any:
        """Return the last value of a name."""
        return dict(self)[name]


def reason_of(raw: bytes | None) -> tuple[set[str], Any]:
    """Return the reasons that fit a record's refusal, none where it can be used, and its fields."""
    try:
        record = read(raw)
        check(record, lengths=True)
    except Refused as refused:
        reasons = set(refused.args)
        if reasons == {"not_json"} and raw is not None and depth_of(raw) > LIMITS.depth:
            reasons.add("too_deep")  # what is not JSON has no depth to speak of
        return reasons, None
    # Each occurrence of a name must be valid by itself, lengths aside.
    try:
        for number in range(len(record)):
            check(Pairs([*record, record[number]]), lengths=False)
            name, value = record[number]
            if name in ("context", "fields", "upto", "at_most") and name in FIELDS[record.get("type")]:
                check_field(record.get("type"), name, value, lengths=False)
        types = {value for name, value in record if name == "type"}
    except Refused:
        return {"duplicate_key"}, None
    is_refused = len(types) > 1 or has_surrogates(record)
    return ({"duplicate_key"}, None) if is_refused else (set(), dict(record))


def read(raw: bytes | None) -> Pairs:
    """Return a record's fields."""
    if not raw:
        raise Refused("empty")
    if len(raw) > LIMITS.record_bytes:
        raise Refused("too_large")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Refused("not_utf8") from None
    try:
        record = json.loads(text, object_pairs_hook=Pairs, parse_int=integer, parse_constant=constant)
    except RecursionError:
        raise Refused("too_deep") from None
    except ValueError:
        raise Refused("not_json") from None
    finally:
        too_deep = depth_of(raw) > LIMITS.depth
    if too_deep:
        raise Refused("too_deep")
    if has_surrogates(last_of(record)):
        raise Refused("lone_surrogate")
    if not isinstance(record, Pairs):
        raise Refused("not_an_object")
    return record


def depth_of(raw: bytes) -> int:
    """Return how deep brackets nest, strings left out."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in raw:
        if in_string:
            in_string = escaped or byte != 34
            escaped = not escaped and byte == 92
        elif byte == 34:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def integer(digits: str) -> int:
    """Read a whole number; one of very many digits is beyond everything."""
    return int(digits) if len(digits) < 1_000 else 10**1_000


def constant(name: str) -> None:
    """Refuse NaN and Infinity."""
    raise Refused("not_finite")


def has_surrogates(value: Any) -> bool:
    """Tell whether any string within has half of a surrogate pair."""
    if isinstance(value, str):
        return any(0xD800 <= ord(character) < 0xE000 for character in value)
    if isinstance(value, dict | Pairs):
        pairs = value.items() if isinstance(value, dict) else value
        return any(has_surrogates(name) or has_surrogates(inner) for name, inner in pairs)
    return isinstance(value, list) and any(map(has_surrogates, value))


def last_of(value: Any) -> Any:
    """Return a value with the last of equal names only."""
    if isinstance(value, Pairs):
        return {name: last_of(inner) for name, inner in value}
    return [last_of(inner) for inner in value] if isinstance(value, list) else value


def is_integer(value: Any) -> bool:
    """Tell whether a value was written as a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def check(record: Pairs, *, lengths: bool) -> None:
    """Raise Refused for the first thing wrong with a record's fields, the type first, then as the schema has them."""
    fields = dict(record)
    if "type" not in fields:
        raise Refused("missing_field")
    if not isinstance(fields["type"], str):
        raise Refused("wrong_type")
    if fields["type"] not in FIELDS:
        raise Refused("unknown_type")
    for name in FIELDS[fields["type"]]:
        if name in fields:
            check_field(fields["type"], name, fields[name], lengths=lengths)
        elif name not in OPTIONAL:
            raise Refused("missing_field")


def check_field(kind: str, name: str, value: Any, *, lengths: bool) -> None:
    """Raise Refused for the first thing wrong with one field of a type."""
    if name in NULLABLE and value is None:
        return
    if name == "ts":
        if not is_integer(value):
            raise Refused("wrong_type")
        if not EARLIEST_MS <= value < END_MS:
            raise Refused("time_out_of_range")
    elif name in ("base_score", "value", "propensity", *BETWEEN):
        check_number(name, value)
    elif name in ("position", "top", "shown"):
        check_whole(value, 1, 2**31 - 1, "bad_option")
        if lengths and name == "shown" and value > LIMITS.shown:
            raise Refused("bad_option")
    elif name in ("context", "fields"):
        check_context(value, lengths=lengths, is_fact=name == "fields")
    elif name in ("candidates", "exclude"):
        check_list(value)
        if name == "exclude" and kind == "merge":
            for source in value:
                check_whole(source, 0, 999_999, "integer_out_of_range")
            return
        if lengths and len(value) > LIMITS.candidates:
            raise Refused("too_many_candidates")
        for item in value if name == "exclude" else ():  # a bad candidate is refused in the answer
            check_text(item, "", "id_too_long", LIMITS.id_bytes, lengths=lengths)
    elif name in CHOICES:
        check_choice(value, CHOICES[name])
    elif name == "at_most":
        check_caps(value, lengths=lengths)
    elif name == "upto":
        check_upto(value, lengths=lengths)
    elif name == "action":
        check_text(value, "name_empty", "name_too_long", LIMITS.name_bytes, lengths=lengths)
    else:
        check_text(value, "id_empty", "id_too_long", LIMITS.id_bytes, lengths=lengths)


def check_number(name: str, value: Any) -> None:
    """Raise Refused unless a value is a number that float64 holds, and a probability where it has to be."""
    if not (is_integer(value) or isinstance(value, float)):
        raise Refused("wrong_type")
    if name == "base_score" and not 0 <= value <= 1:
        raise Refused("bad_base_score")
    if abs(value) > 1.7976931348623157e308:
        raise Refused("not_finite")
    if name == "propensity" and not 0 < value <= 1:
        raise Refused("bad_option")
    if name in BETWEEN and not BETWEEN[name][0] <= value <= BETWEEN[name][1]:
        raise Refused("bad_option")


def check_whole(value: Any, least: int, most: int, reason: str) -> None:
    """Raise Refused unless a value is a whole number from the least to the most."""
    if not is_integer(value):
        raise Refused("wrong_type")
    if not least <= value <= most:
        raise Refused(reason)


def check_choice(value: Any, choices: Sequence[str]) -> None:
    """Raise Refused unless a value is one of the choices, or true or false where there are none."""
    if not isinstance(value, str if choices else bool):
        raise Refused("wrong_type")
    if choices and value not in choices:
        raise Refused("bad_option")


def check_caps(value: Any, *, lengths: bool) -> None:
    """Raise Refused unless a value says how many of one value of a field; without `lengths`, in every occurrence."""
    if not isinstance(value, Pairs):
        raise Refused("wrong_type")
    pairs = list(dict(value).items()) if lengths else value
    if lengths and len(pairs) > 4:
        raise Refused("bad_option")
    for name, count in pairs:
        check_text(name, "name_empty", "name_too_long", LIMITS.name_bytes, lengths=lengths)
        check_whole(count, 1, 2**31 - 1, "bad_option")


def check_upto(value: Any, *, lengths: bool) -> None:
    """Raise Refused unless a value says of partitions up to which number; without `lengths`, in every occurrence."""
    if not isinstance(value, Pairs):
        raise Refused("wrong_type")
    for source, number in dict(value).items() if lengths else value:
        digits = source.removeprefix("-") if source == "-0" else source
        if not (digits.isascii() and digits.isdecimal()) or (digits != "0" and digits[0] == "0"):
            raise Refused("wrong_type")
        check_whole(int(digits), 0, 999_999, "integer_out_of_range")
        check_whole(number, 0, 2**63 - 1, "integer_out_of_range")


def check_text(value: Any, empty: str, too_long: str, limit: int, *, lengths: bool) -> None:
    """Raise Refused unless a value is a string within its limit, and not empty."""
    if not isinstance(value, str):
        raise Refused("wrong_type")
    if not value and empty:
        raise Refused(empty)
    if lengths and len(value.encode()) > limit:
        raise Refused(too_long)


def check_list(value: Any) -> None:
    """Raise Refused unless a value is a list."""
    if isinstance(value, Pairs) or not isinstance(value, list):
        raise Refused("wrong_type")


def check_context(context: Any, *, lengths: bool, is_fact: bool) -> None:
    """Raise Refused for the first thing wrong with a context; without `lengths`, of every occurrence of its names.

    In facts, null removes one.
    """
    if not isinstance(context, Pairs):
        raise Refused("wrong_type")
    pairs = list(dict(context).items()) if lengths else context
    if lengths and len(pairs) > LIMITS.context_fields:
        raise Refused("too_many_context_fields")
    for name, value in pairs:
        check_text(name, "name_empty", "name_too_long", LIMITS.name_bytes, lengths=lengths)
        if value is None and is_fact:
            continue
        if isinstance(value, str):
            check_text(value, "", "value_too_long", LIMITS.value_bytes, lengths=lengths)
        elif is_integer(value):
            if not -(2**63) <= value < 2**63:
                raise Refused("integer_out_of_range")
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise Refused("not_finite")
        else:
            check_list(value)
            if lengths and len(value) > LIMITS.list_length:
                raise Refused("list_too_long")
            for each in value:
                check_text(each, "", "value_too_long", LIMITS.value_bytes, lengths=lengths)


class Rules:
    """What a partition without configured context fields refuses of usable records, whatever waits in it."""

    def __init__(self, fields: int, values: int) -> None:
        """Start with the two fields that there always are, of at most `fields`, and at most `values` values."""
        self._fields, self._values = fields, values
        self._names: list[str] = []

    def reason_of(self, record: dict[str, Any]) -> str | None:
        """Return why the next usable record is refused for its values; None: it is not."""
        fields = record.get("context" if record["type"] == "impression" else "fields", {})
        if record["type"] in ("impression", "item", "user"):
            count = 2
            for name, value in dict(fields).items():
                if name not in self._names and len(self._names) + 2 < self._fields and self._is_field(name):
                    self._names.append(name)
                if name in self._names and value is not None:
                    count += len(value) if isinstance(value, list) else 1
            if count > self._values:
                return "too_many_values"
        return None

    @staticmethod
    def _is_field(name: str) -> bool:
        return name not in ("user", "item") and "\0" not in name


class Joined:
    """What a plain joiner knows of an impression: when it is `due` or was closed; `ts` is None while it is early."""

    def __init__(self, user: str, due: tuple[int, int]) -> None:
        """Start with what feedback and impression both say."""
        self.user, self.due = user, due
        self.ts: int | None = None
        self.label = 0
        self.closed_ms: int | None = None
        self.feedback: dict[str, dict[str, Any]] = {}


class Joiner:
    """Fates and examples of impressions and feedback in any order, without limits: docs/wire.md told again."""

    def __init__(self, windows_ms: dict[str, int], late_window_ms: int) -> None:
        """Join under the window of each positive action."""
        self._windows_ms, self._late_ms = windows_ms, late_window_ms
        self._longest_ms = max(windows_ms.values())
        self._clock = PlainClock()
        self._doubts = Doubts(self._clock)
        self._known: dict[str, Joined] = {}
        self._closed: list[str] = []
        self.fates: Counter[str] = Counter()
        self.examples: list[tuple[str, int, int, int]] = []
        """Impression, label, revision, and which event released it."""

    def take(self, number: int, record: dict[str, Any]) -> None:
        """Take the next event."""
        self._clock.advance(record["ts"], record["user"])
        for name in self._doubts.decided():
            of = self._known[name]
            of.due = (self._clock.apparent_ms + self._longest_ms, of.due[1])
        self._release(number)
        if record["type"] == "impression":
            self._impression(number, record)
        else:
            self._feedback(number, record)

    def _release(self, number: int) -> None:
        waiting = [(of.due, name) for name, of in self._known.items() if of.closed_ms is None]
        for (deadline_ms, _), name in sorted(waiting):
            of = self._known[name]
            if deadline_ms >= self._clock.stream_ms:
                break
            if of.ts is None:
                self.fates["early"] -= len(of.feedback)
                self.fates["orphaned"] += len(of.feedback)
                del self._known[name]
                continue
            if self._doubts.is_restarted(name):
                of.due = (self._clock.apparent_ms + self._longest_ms, of.due[1])
                continue
            of.closed_ms = self._clock.stream_ms
            self._closed.append(name)
            self._doubts.forget(name)
            self.examples.append((name, of.label, 0, number))
            for each in of.feedback.values():
                self._late_positive(number, name, each)
        while self._closed and self._clock.stream_ms - (self._known[self._closed[0]].closed_ms or 0) >= self._late_ms:
            del self._known[self._closed.pop(0)]

    def _impression(self, number: int, record: dict[str, Any]) -> None:
        of = self._known.get(record["id"])
        if of is not None and of.ts is not None:
            self.fates["duplicate"] += 1
            return
        early = [] if of is None else list(of.feedback.values())
        self.fates["early"] -= len(early)
        begins_ms = self._doubts.begin(record["id"], record["ts"])
        new = Joined(record["user"], (begins_ms + self._longest_ms, number))
        new.ts = record["ts"]
        self._known[record["id"]] = new
        self.fates["scored"] += 1
        if of is not None and of.user != new.user:
            self.fates["dead_lettered"] += len(early)
            return
        for each in early:
            self._join(number, record["id"], each)

    def _feedback(self, number: int, record: dict[str, Any]) -> None:
        of = self._known.get(record["impression"])
        if of is not None and of.user != record["user"]:
            self.fates["dead_lettered"] += 1
        elif of is not None and record["id"] in of.feedback:
            self.fates["duplicate"] += 1
        elif of is None or of.ts is None:
            due = (self._clock.stream_ms + self._longest_ms, number)
            of = self._known.setdefault(record["impression"], Joined(record["user"], due))
            of.feedback[record["id"]] = record
            self.fates["early"] += 1
        else:
            self._join(number, record["impression"], record)

    def _join(self, number: int, name: str, record: dict[str, Any]) -> None:
        of = self._known[name]
        of.feedback[record["id"]] = record
        if of.closed_ms is not None:
            self.fates["late"] += 1
            self._late_positive(number, name, record)
        elif self._lateness_ms(of, record) > 0:
            self.fates["late"] += 1
        else:
            self.fates["joined"] += 1
            of.label = max(of.label, int(record["action"] in self._windows_ms))

    def _lateness_ms(self, of: Joined, record: dict[str, Any]) -> int:
        window_ms = self._windows_ms.get(record["action"], self._longest_ms)
        return int(record["ts"] - (of.ts or 0) - window_ms)

    def _late_positive(self, number: int, name: str, record: dict[str, Any]) -> None:
        of = self._known[name]
        is_positive = record["action"] in self._windows_ms
        if is_positive and of.label == 0 and self._lateness_ms(of, record) <= self._late_ms:
            of.label = 1
            self.examples.append((name, 1, 1, number))

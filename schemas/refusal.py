"""Why a record was refused: found by reading it a second time, slowly, with the standard library.

The fast decoder reports only that a record is wrong, in words that change between its versions. Dead letters must be a
function of the log. So this module finds the reason and its detail, in a fixed order: the text, then the type, then
field by field in the order of the schema.
"""

import json
import math
import re
from typing import Any, NoReturn

from thalweg.schemas.events import (
    CAPS_MAX,
    DEVIATION_MAX,
    DEVIATION_MIN,
    EARLIEST_TS_MS,
    END_TS_MS,
    POLICY_NAMES,
    SOURCE_MAX,
    TEMPERATURE_MAX,
    TEMPERATURE_MIN,
    Candidate,
)
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable

FIELDS = {
    "impression": ("id", "user", "item", "ts", "context", "base_score", "request", "position", "propensity"),
    "feedback": ("id", "impression", "request", "user", "item", "ts", "action", "value"),
    "request": (
        *("id", "user", "candidates", "ts", "context", "top", "exclude", "seen", "at_most", "explain"),
        *("policy", "epsilon", "temperature", "deviation", "floor", "shown"),
    ),
    "item": ("id", "item", "ts", "fields"),
    "user": ("id", "user", "ts", "fields"),
    "erase": ("id", "user", "ts"),
    "merge": ("id", "upto", "exclude", "start"),
}
OPTIONAL = frozenset({"base_score", "value"})
ANSWERS = frozenset({"request", "position", "propensity"})
"""What an impression, or `request` of it a feedback, brings of the request that it answers."""
BETWEEN = {
    "epsilon": (0.0, 1.0),
    "temperature": (TEMPERATURE_MIN, TEMPERATURE_MAX),
    "deviation": (DEVIATION_MIN, DEVIATION_MAX),
    "floor": (0.0, 1.0),
}
MERGED = frozenset({"exclude", "start"})
"""What a merge may bring besides how far to go."""
OPTIONS = frozenset({"top", "exclude", "seen", "at_most", "explain", "policy", "shown", *BETWEEN})
COUNT_MAX = 2**31 - 1
WHOLE = re.compile(r"[1-9][0-9]*|-?0")

# Longer literals lie beyond float64, and Python refuses to read more than 4 300 digits.
LONGEST_INTEGER = 400
BEYOND_EVERYTHING = 1 << 2_000
ONE_KIND_OF_BRACKET = bytes.maketrans(b"{}", b"[]")
NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def refusal(raw: bytes, limits: LimitsConfiguration) -> Unusable:
    """Return what is wrong with a record of valid UTF-8 and bounded size and depth that cannot be used."""
    try:
        check_record(parse(raw.decode()), limits)
    except Unusable as found:
        return found.with_traceback(None)
    # The slow reader keeps the last of two equal names and the fast one looks at both: nothing else tells them apart.
    return Unusable(Reason.DUPLICATE_KEY, "a name occurs twice, first with a value that cannot be used")


def is_deeper(raw: bytes, depth: int) -> bool:
    """Return whether objects and arrays nest deeper than `depth`, brackets inside strings left out.

    Innermost pairs are taken away `depth` times over, so that no text costs more than a few passes over its bytes.
    What never closes may count as shallow; it is not JSON either way.
    """
    outside_strings = b"".join(raw.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside_strings.translate(ONE_KIND_OF_BRACKET, NOT_BRACKETS)
    for _ in range(depth):
        brackets = brackets.replace(b"[]", b"")
    return b"[]" in brackets or brackets.count(b"[") > depth


def parse(text: str) -> Any:
    """Return the JSON value.

    Raises Unusable where the text is not JSON, has a number that is none, or a string that UTF-8 cannot hold.
    """
    try:
        value = json.loads(text, parse_int=as_integer, parse_constant=refuse_constant)
    except json.JSONDecodeError as error:
        position = first_wrong(text, error.pos)
        raise Unusable(Reason.NOT_JSON, f"not JSON from character {position} of {len(text)}") from None
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Unusable(Reason.LONE_SURROGATE, "a string has half of a surrogate pair") from None
    return value


def as_integer(digits: str) -> int:
    """Read an integer literal, or return one that is out of every range for a literal of thousands of digits."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else BEYOND_EVERYTHING


def refuse_constant(name: str) -> NoReturn:
    """Raise Unusable for NaN, Infinity and -Infinity, which JSON does not have."""
    raise Unusable(Reason.NOT_FINITE, f"{name} is not a JSON number")


def first_wrong(text: str, position: int) -> int:
    """Return where the text stops being JSON, at the comma if one trails: Python's versions differ there."""
    before = text[:position].rstrip(" \t\r\n")
    return len(before) - 1 if before.endswith(",") and text[position : position + 1] in ("]", "}") else position


def check_record(record: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable for the first fault of a JSON value as an event."""
    if not isinstance(record, dict):
        raise Unusable(Reason.NOT_AN_OBJECT, f"the record is {kind(record)}")
    if "type" not in record:
        raise Unusable(Reason.MISSING_FIELD, "type is missing")
    expect(isinstance(record["type"], str), "type", record["type"], "a string")
    if record["type"] not in FIELDS:
        raise Unusable(Reason.UNKNOWN_TYPE, f"no event has the type {shown(record['type'])}")
    for name in FIELDS[record["type"]]:
        if name in record:
            check_field(name, record[name], limits, is_merge=record["type"] == "merge")
        elif name not in OPTIONAL | OPTIONS | ANSWERS | MERGED | {"impression"}:
            raise Unusable(Reason.MISSING_FIELD, f"{name} is missing")


def check_field(name: str, value: Any, limits: LimitsConfiguration, *, is_merge: bool = False) -> None:
    """Raise Unusable for the first fault of one field of an event."""
    if name == "ts":
        expect(type(value) is int, name, value, "an integer")
        if not EARLIEST_TS_MS <= value < END_TS_MS:
            raise Unusable(Reason.TIME_OUT_OF_RANGE, "ts is not in the years 1980 to 2099 in milliseconds")
    elif name in OPTIONAL:
        if value is not None:
            check_number(name, value)
    elif name == "impression":
        if value is not None:
            check_id(name, value, limits)
    elif name in ("context", "fields"):
        check_context(name, value, limits)
    elif name == "candidates":
        expect(isinstance(value, list), name, value, "a list")
        check_count(name, value, limits)
        if is_beyond(value):
            raise Unusable(Reason.NOT_FINITE, "a number in candidates is beyond float64")
    elif name in OPTIONS and not (name == "exclude" and is_merge):
        check_option(name, value, limits)
    elif name == "upto" or name in MERGED:
        check_merge(name, value, limits)
    elif name in ANSWERS:
        if value is not None:
            check_answer(name, value, limits)
    elif name == "action":
        expect(isinstance(value, str), name, value, "a string")
        check_name(name, value, limits)
    else:
        check_id(name, value, limits)


def check_number(name: str, value: Any) -> None:
    """Raise Unusable unless the value is a finite float64, and a probability if it is the `base_score`."""
    expect(type(value) in (int, float), name, value, "a number")
    if name == "base_score" and not 0 <= value <= 1:
        raise Unusable(Reason.BAD_BASE_SCORE, "base_score is not in 0 to 1")
    try:
        is_finite = math.isfinite(float(value))
    except OverflowError:
        is_finite = False
    if not is_finite:
        raise Unusable(Reason.NOT_FINITE, f"{name} is beyond float64")


def check_id(path: str, value: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable unless the value is a non-empty string within `id_bytes`."""
    expect(isinstance(value, str), path, value, "a string")
    if not value:
        raise Unusable(Reason.ID_EMPTY, f"{path} is empty")
    check_length(Reason.ID_TOO_LONG, path, value, limits.id_bytes)


def check_name(path: str, name: str, limits: LimitsConfiguration) -> None:
    """Raise Unusable unless the name is non-empty and within `name_bytes`."""
    if not name:
        raise Unusable(Reason.NAME_EMPTY, f"{path} is empty")
    check_length(Reason.NAME_TOO_LONG, path, name, limits.name_bytes)


def check_count(name: str, items: list[Any], limits: LimitsConfiguration) -> None:
    """Raise Unusable where a request names more items than `limits.candidates`."""
    if len(items) > limits.candidates:
        what = name if name == "candidates" else f"items in {name}"
        raise Unusable(Reason.TOO_MANY_CANDIDATES, f"{len(items)} {what}, at most {limits.candidates}")


def is_beyond(value: Any) -> bool:
    """Return whether a number anywhere in a JSON value is beyond float64: no decoder takes that."""
    if isinstance(value, dict):
        return any(map(is_beyond, value.values()))
    if isinstance(value, list):
        return any(map(is_beyond, value))
    return isinstance(value, float) and not math.isfinite(value)


def check_option(name: str, value: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable for the first fault of what a request asks for besides its candidates."""
    if name == "explain":
        expect(isinstance(value, bool), name, value, "a boolean")
    elif name == "seen":
        if value not in ("keep", "drop"):
            expect(isinstance(value, str), name, value, "a string")
            raise Unusable(Reason.BAD_OPTION, f'seen is {shown(value)}, not "keep" or "drop"')
    elif name == "exclude":
        expect(isinstance(value, list), name, value, "a list of strings")
        check_count(name, value, limits)
        for position, item in enumerate(value):
            expect(isinstance(item, str), f"exclude[{position}]", item, "a string")
            check_length(Reason.ID_TOO_LONG, f"exclude[{position}]", item, limits.id_bytes)
    elif name == "at_most":
        expect(isinstance(value, dict), name, value, "an object")
        if len(value) > CAPS_MAX:
            raise Unusable(Reason.BAD_OPTION, f"at_most has {len(value)} fields, at most {CAPS_MAX}")
        for field, count in value.items():
            check_name("a name in at_most", field, limits)
            check_positive(f"at_most {shown(field)}", count)
    elif name == "policy":
        if value is not None and value not in POLICY_NAMES:
            expect(isinstance(value, str), name, value, "a string")
            raise Unusable(Reason.BAD_OPTION, f"policy is {shown(value)}, not one of {', '.join(POLICY_NAMES)}")
    elif name in BETWEEN:
        if value is not None:
            check_number(name, value)
            least, most = BETWEEN[name]
            if not least <= value <= most:
                raise Unusable(Reason.BAD_OPTION, f"{name} is not in {least:g} to {most:g}")
    elif value is not None:
        check_positive(name, value)
        if name == "shown" and value > limits.shown:
            raise Unusable(Reason.BAD_OPTION, f"shown is {value}, at most {limits.shown}")


def check_answer(name: str, value: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable for the first fault of what an impression brings of its request."""
    if name == "request":
        check_id(name, value, limits)
    elif name == "position":
        check_positive(name, value)
    else:
        check_number(name, value)
        if not 0 < value <= 1:
            raise Unusable(Reason.BAD_OPTION, "propensity is not above 0 and at most 1")


def check_merge(name: str, value: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable for the first fault of what a merge names."""
    if name == "start":
        if value is not None:
            check_id(name, value, limits)
    elif name == "exclude":
        expect(isinstance(value, list), name, value, "a list of integers")
        for position, source in enumerate(value):
            check_whole(f"exclude[{position}]", source, SOURCE_MAX)
    else:
        expect(isinstance(value, dict), name, value, "an object")
        for source, number in value.items():
            if not WHOLE.fullmatch(source):
                raise Unusable(Reason.WRONG_TYPE, f"upto names {shown(source)}, which is no partition's number")
            check_whole("a name in upto", as_integer(source), SOURCE_MAX)
            check_whole(f"upto {shown(source)}", number, 2**63 - 1)


def check_whole(path: str, value: Any, most: int) -> None:
    """Raise Unusable unless the value is a whole number from 0 on, and not above the most."""
    expect(type(value) is int, path, value, "an integer")
    if not 0 <= value <= most:
        raise Unusable(Reason.INTEGER_OUT_OF_RANGE, f"{path} is not in 0 to {most}")


def check_positive(path: str, value: Any) -> None:
    """Raise Unusable unless the value is a whole number from 1 on."""
    expect(type(value) is int, path, value, "an integer")
    if not 1 <= value <= COUNT_MAX:
        raise Unusable(Reason.BAD_OPTION, f"{path} is {value}, not in 1 to {COUNT_MAX}")


def candidate_of(position: int, value: Any, limits: LimitsConfiguration) -> Candidate:
    """Return one candidate of a request as an item with its own context.

    Raises Unusable where it is none: that refuses this candidate, not the request.
    """
    path = f"candidates[{position}]"
    if isinstance(value, str):
        check_id(path, value, limits)
        return Candidate(value)
    expect(isinstance(value, dict), path, value, "a string or an object")
    if "item" not in value:
        raise Unusable(Reason.MISSING_FIELD, f"{path}.item is missing")
    check_id(f"{path}.item", value["item"], limits)
    context = value.get("context", {})
    check_context("context", context, limits)
    return Candidate(value["item"], context)


def check_context(part: str, context: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable for the first fault of a context or, if so the `part` is called, of the `fields` of facts."""
    expect(isinstance(context, dict), part, context, "an object")
    if len(context) > limits.context_fields:
        raise Unusable(Reason.TOO_MANY_CONTEXT_FIELDS, f"{len(context)} fields, at most {limits.context_fields}")
    for name, value in context.items():
        check_name(f"a name in {part}", name, limits)
        if value is not None or part != "fields":  # null removes a fact
            check_value(f"{part} {shown(name)}", value, limits)


def check_value(path: str, value: Any, limits: LimitsConfiguration) -> None:
    """Raise Unusable unless the value is a string, a number or a list of strings, within its limits."""
    expect(type(value) in (str, int, float, list), path, value, "a string, a number or a list of strings")
    if isinstance(value, str):
        check_length(Reason.VALUE_TOO_LONG, path, value, limits.value_bytes)
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise Unusable(Reason.INTEGER_OUT_OF_RANGE, f"{path} does not fit 64 bits")
    elif isinstance(value, float):
        check_number(path, value)
    else:
        if len(value) > limits.list_length:
            raise Unusable(Reason.LIST_TOO_LONG, f"{path} has {len(value)} strings, at most {limits.list_length}")
        for position, text in enumerate(value):
            expect(isinstance(text, str), f"{path}[{position}]", text, "a string")
            check_length(Reason.VALUE_TOO_LONG, f"{path}[{position}]", text, limits.value_bytes)


def check_length(reason: Reason, path: str, text: str, limit_bytes: int) -> None:
    """Raise Unusable for this reason where the text takes more bytes of UTF-8 than the limit."""
    size = len(text.encode())
    if size > limit_bytes:
        raise Unusable(reason, f"{path} has {size} bytes, at most {limit_bytes}")


def expect(is_right: bool, path: str, value: Any, expected: str) -> None:
    """Raise Unusable for a value of the wrong type."""
    if not is_right:
        raise Unusable(Reason.WRONG_TYPE, f"{path} is {kind(value)}, not {expected}")


def kind(value: Any) -> str:
    """Name the type of a value in words of JSON, with its article."""
    names = {type(None): "null", bool: "a boolean", int: "an integer", float: "a fraction", str: "a string"}
    names[bytes] = "bytes"  # from a codec that has them
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")


def shown(text: str) -> str:
    """Quote the beginning of a text in ASCII: what Python finds printable depends on its version."""
    return json.dumps(text if len(text) <= 40 else text[:40] + "...")

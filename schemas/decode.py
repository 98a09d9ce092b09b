"""From a record's bytes to an event, or to the reason why there is none: the first step of the hot path.

What a record may be, where JSON itself leaves it open:

- The value is UTF-8 without a byte order mark, one JSON object, white space around it allowed, nothing after it.
- Unknown fields are skipped: they must be JSON within the limits of size and depth, nothing more.
- A name that occurs twice: the last one holds, as in most JSON readers, but each must be valid by itself.
- `ts` is a JSON integer. `1.0e12`, `1000000000000.0`, `"1000000000000"` and `true` are refused.
- Integers in a context are exact and must fit int64; other numbers are float64, and a literal beyond it (`1e999`) is
  refused like NaN. An integer literal for `base_score` or `value` is read as float64.
- null is the same as absent for a field that may be left out and has no default. It removes a fact, and is refused
  everywhere else.
- A string that cannot be written as UTF-8 (half a surrogate pair in escapes) is refused, in unknown fields too.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from msgspec import MsgspecError
from msgspec.json import Decoder
from thalweg.schemas.events import Event, Feedback, Impression, Item, Merge, Request, User, Value
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.refusal import is_deeper, refusal

Decode = Callable[[bytes | None], Event]

SHORTEST = b'{"type":"erase","id":"","user":"","ts":315532800000}'


def decoder(limits: LimitsConfiguration) -> Decode:
    """Return a function from a record's value to its event, which raises Unusable for what cannot be used.

    >>> decode = decoder(LimitsConfiguration())
    >>> decode(b'{"type":"erase","id":"1","user":"u","ts":1700000000000,"colour":"unknown fields are skipped"}')
    Erase(id='1', user='u', ts=1700000000000)
    >>> decode(b'{"type":"erase","id":"1","user":"","ts":1700000000000}')
    Traceback (most recent call last):
    thalweg.schemas.reasons.Unusable: id_empty: user is empty
    """

    def decode(value: bytes | None) -> Event:
        raw = measured(value, limits)
        try:
            event = decode_plain(raw)
        except UNDECODABLE:
            raise refusal(raw, limits) from None
        if is_over(event, limits):
            raise refusal(raw, limits)
        return event

    return decode


def measured(raw: bytes | None, limits: LimitsConfiguration) -> bytes:
    """Return a record's value, of valid UTF-8 and bounded size and depth, whatever it says.

    Raises Unusable where it is not.
    """
    if not raw:
        raise Unusable(Reason.EMPTY, "the record has no value (a tombstone)" if raw is None else "0 bytes")
    size = len(raw)
    if size > limits.record_bytes:
        raise Unusable(Reason.TOO_LARGE, f"{size} bytes, at most {limits.record_bytes}")
    if not raw.isascii():
        try:  # The JSON decoder does not look into what it skips.
            raw.decode()
        except UnicodeDecodeError as error:
            raise Unusable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8") from None
    # Brackets are counted first: only a record with more of them than the depth allows can be too deep.
    if raw.count(b"{") + raw.count(b"[") > limits.depth and is_deeper(raw, limits.depth):
        raise Unusable(Reason.TOO_DEEP, f"nested deeper than {limits.depth}")
    return raw


class Plain(NamedTuple):
    """What makes a record plain: ASCII, at most `record_bytes` long, with at most so many commas and brackets.

    A plain record that the JSON decoder takes is within every limit but those of names (`are_names_over`) and of what a
    request takes as shown: nothing else of it has to be measured.
    """

    record_bytes: int
    commas: int
    brackets: int


def plain(limits: LimitsConfiguration) -> Plain:
    """Return what makes a record plain under these limits."""
    # A string is never longer than its text in the record, since every escape is longer than what it stands for; and
    # around it the record has all its other fields.
    record_bytes = min(limits.id_bytes, limits.value_bytes) + len(SHORTEST)
    # What separates fields of a context or facts, a list's strings and candidates are commas.
    commas = min(limits.context_fields, limits.list_length, limits.candidates) - 1
    return Plain(min(record_bytes, limits.record_bytes), commas, limits.depth)


decode_plain: Callable[[bytes], Event] = Decoder(Event).decode
"""From a plain record's value to its event, raising one of `UNDECODABLE`: `decoder` then tells the reason."""
UNDECODABLE = (MsgspecError, UnicodeDecodeError)


def are_names_over(names: Iterable[str], limits: LimitsConfiguration) -> bool:
    """Return whether any name, of a context's field or an action, is beyond the limit on names."""
    return any(is_longer(name, limits.name_bytes) for name in names)


def is_over(event: Event, limits: LimitsConfiguration) -> bool:
    """Return whether a decoded event is beyond a limit on lengths or counts."""
    id_bytes = limits.id_bytes
    if is_longer(event.id, id_bytes):
        return True
    if isinstance(event, Item):
        return is_longer(event.item, id_bytes) or is_context_over(event.fields, limits)
    if isinstance(event, Merge):
        return event.start is not None and is_longer(event.start, id_bytes)
    if is_longer(event.user, id_bytes):
        return True
    if isinstance(event, User):
        return is_context_over(event.fields, limits)
    if isinstance(event, Impression):
        return (
            is_longer(event.item, id_bytes)
            or (event.request is not None and is_longer(event.request, id_bytes))
            or is_context_over(event.context, limits)
        )
    if isinstance(event, Feedback):
        return (
            is_longer(event.item, id_bytes)
            or (event.impression is not None and is_longer(event.impression, id_bytes))
            or (event.request is not None and is_longer(event.request, id_bytes))
            or is_longer(event.action, limits.name_bytes)
        )
    if isinstance(event, Request):
        return (
            len(event.candidates) > limits.candidates
            or len(event.exclude) > limits.candidates
            or (event.shown or 0) > limits.shown
            or any(is_longer(item, id_bytes) for item in event.exclude)
            or any(is_longer(name, limits.name_bytes) for name in event.at_most)
            or is_context_over(event.context, limits)
        )
    return False


def is_context_over(context: Mapping[str, Value | None], limits: LimitsConfiguration) -> bool:
    """Return whether a context, or facts, are beyond a limit on lengths or counts."""
    if len(context) > limits.context_fields:
        return True
    name_bytes, value_bytes = limits.name_bytes, limits.value_bytes
    name_characters, value_characters = name_bytes // 4, value_bytes // 4
    for name, value in context.items():
        if len(name) > name_characters and is_longer(name, name_bytes):
            return True
        if isinstance(value, str):
            if len(value) > value_characters and is_longer(value, value_bytes):
                return True
        elif isinstance(value, list) and (
            len(value) > limits.list_length or any(is_longer(text, value_bytes) for text in value)
        ):
            return True
    return False


def is_longer(text: str, limit_bytes: int) -> bool:
    """Return whether a text takes more bytes of UTF-8; nothing is encoded where four bytes a character would fit."""
    return len(text) * 4 > limit_bytes and len(text.encode()) > limit_bytes

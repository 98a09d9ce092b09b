"""The Kafka key of a record: where in the input topic it goes."""

from enum import Enum

import msgspec

ITEM = "item"


class Everywhere(Enum):
    """Where facts about an item go: to every partition, without a key."""

    EVERYWHERE = 1


EVERYWHERE = Everywhere.EVERYWHERE
Key = bytes | Everywhere | None
"""Of a record: its user's id in UTF-8, that it goes everywhere, or None where it names no user."""


class _Keyed(msgspec.Struct):
    type: str = ""
    user: str | None = None


_keyed = msgspec.json.Decoder(_Keyed)


def key_of(line: bytes) -> Key:
    """Return the key of an event.

    >>> key_of(b'{"user": "u1", "item": "i7"}')
    b'u1'
    >>> key_of(b'{"type":"item","id":"1","item":"i7","ts":1700000000000,"fields":{"author":"a3"}}').name
    'EVERYWHERE'
    >>> key_of(b"not an event") is None
    True
    """
    try:
        keyed = _keyed.decode(line)
        if keyed.type == ITEM:
            return EVERYWHERE
        return None if keyed.user is None else keyed.user.encode()
    except (msgspec.DecodeError, UnicodeError):
        return None

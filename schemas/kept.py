"""What a partition keeps of a record that waits: the text of an example up to its context, or the whole raw record.

An example repeats the strings of its impression as they came in. They are encoded once, when it arrives, and
the numbers are appended when its outcome is decided.
"""

from collections.abc import Sequence
from itertools import repeat

import msgspec
from thalweg.schemas.events import Impression, Value
from thalweg.schemas.records import Headers


class Kept(msgspec.Struct, gc=False):
    """The beginning of an impression's example."""

    id: str
    user: str
    item: str
    ts: int
    features: dict[str, Value]


class Outcome(msgspec.Struct, gc=False, omit_defaults=True, kw_only=True):
    """The end of an example, as of `schemas.outputs.Example`."""

    score: float
    base_score: float | None = None
    label: int
    scores: dict[str, float] | None = None
    labels: dict[str, int] | None = None
    revision: int = 0
    origin: str
    cause: str


class _Owner(msgspec.Struct, gc=False):
    user: str


class _Features(msgspec.Struct, gc=False):
    features: msgspec.Raw


_ENCODE = msgspec.json.Encoder().encode
_ENCODE_LINES = msgspec.json.Encoder().encode_lines
_DECODE_OWNER = msgspec.json.Decoder(_Owner)
_DECODE_FEATURES = msgspec.json.Decoder(_Features).decode
_DECODE_KEPT = msgspec.json.Decoder(Kept).decode
_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(tuple[bytes | None, bytes | None, Headers]).decode
_CLOSING = b"}}"
KEPT_CLOSING = _CLOSING + b"\n"
"""No line feed occurs elsewhere: within JSON strings it is escaped."""


def encode_kept(impressions: Sequence[Impression], features: Sequence[dict[str, Value]]) -> bytes:
    """Return the beginnings of impressions' examples, each closed by `KEPT_CLOSING`, which is not to be kept.

    >>> encode_kept([Impression("7", "u1", "v9", 1_700_000_000_000, {})], [{"tab": 2}])
    b'{"id":"7","user":"u1","item":"v9","ts":1700000000000,"features":{"tab":2}}\\n'
    """
    return _ENCODE_LINES(
        [Kept(each.id, each.user, each.item, each.ts, its) for each, its in zip(impressions, features, strict=True)]
    )


def begin_example(impression: Impression, features: dict[str, Value]) -> bytes:
    """Return the beginning of one impression's example, not closed.

    >>> begin_example(Impression("7", "u1", "v9", 1_700_000_000_000, {}), {"tab": 2})
    b'{"id":"7","user":"u1","item":"v9","ts":1700000000000,"features":{"tab":2'
    """
    kept = Kept(impression.id, impression.user, impression.item, impression.ts, features)
    return _ENCODE(kept)[: -len(_CLOSING)]


def encode_fact(name: str, value: Value) -> bytes:
    """Return a fact as it is within the features of what is kept of an impression.

    >>> encode_fact("tags", ["new", "red"])
    b'"tags":["new","red"]'
    """
    return _ENCODE({name: value})[1:-1]


def encode_name(name: str) -> bytes:
    """Return a feature's name as it is in JSON.

    >>> encode_name("machine_logit")
    b'"machine_logit"'
    """
    return _ENCODE(name)


def complete_examples(kept: Sequence[bytes], numbers: Sequence[bytes], outcomes: Sequence[Outcome]) -> list[bytes]:
    """Return examples: of each what was kept, more members of its features, and what follows them.

    >>> outcome = Outcome(score=0.1, label=1, origin="interactions-0-4", cause="interactions-0-9:2")
    >>> complete_examples([b'{"id":"7","features":{"tab":2'], [b'"machine_logit":0.5'], [outcome])
    [b'{"id":"7","features":{"tab":2,"machine_logit":0.5},"score":0.1,"label":1,"origin":"interactions-0-4",\
"cause":"interactions-0-9:2"}']
    """
    endings = _ENCODE_LINES(outcomes)[1:-1].split(b"\n{")
    return list(map(b"".join, zip(kept, map(_separator, kept), numbers, repeat(b"},"), endings, strict=False)))


def _separator(kept: bytes) -> bytes:
    """Return what stands between the features that were kept and more of them."""
    return b"" if kept.endswith(b"{") else b","


def decode_kept(kept: bytes) -> Kept:
    """Return what was kept of an impression."""
    return _DECODE_KEPT(kept + _CLOSING)


def kept_features(kept: bytes, numbers: bytes) -> msgspec.Raw:
    """Return the features of what was kept, with more members, as they are in JSON.

    >>> bytes(kept_features(b'{"id":"7","user":"u1","item":"v9","ts":1700000000000,"features":{"tab":2', b'"rate":0.5'))
    b'{"tab":2,"rate":0.5}'
    """
    return _DECODE_FEATURES(b"".join((kept, _separator(kept), numbers, _CLOSING))).features


def kept_users(kept: Sequence[bytes]) -> list[str]:
    """Return the user of each that was kept."""
    return [each.user for each in _DECODE_OWNER.decode_lines(b"".join([each + KEPT_CLOSING for each in kept]))]


def pack_record(value: bytes | None, key: bytes | None, headers: Headers) -> bytes:
    """Return a record's bytes as one text, from which `unpack_record` gets them back untouched."""
    return _PACK((value, key, headers))


def unpack_record(packed: bytes) -> tuple[bytes | None, bytes | None, Headers]:
    """Return value, key and headers of a packed record.

    >>> unpack_record(pack_record(b"?", None, (("trace", b"1"), ("empty", None))))
    (b'?', None, (('trace', b'1'), ('empty', None)))
    """
    return _UNPACK(packed)

"""From a foreign record's bytes to our event: a codec, then the mapping. Every source of records comes through here."""

from collections.abc import Callable
from typing import Any

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Read
from thalweg.schemas.decode import UNDECODABLE, decode_plain, decoder, is_over, measured
from thalweg.schemas.events import Event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.mapper import Mapper
from thalweg.schemas.mapping import MappingConfiguration
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.records import Record
from thalweg.schemas.refusal import parse
from thalweg.streams.mapping.cloudevents import cloud_event
from thalweg.streams.mapping.keys import EVERYWHERE, Key, key_of

OWN_BEGINNING = b'{"type":"'
"""How our own encoders begin an event."""

Decode = Callable[[Record], Any]
"""From a record to what its bytes hold: objects, lists, texts, numbers; raises Unusable."""

_DECODE = msgspec.json.Decoder().decode
_ENCODE = msgspec.json.Encoder().encode


def reader(configuration: Configuration, topic: str, partition: int) -> Read | None:
    """Return what makes events of the records of a partition; None where they are our own events in JSON.

    `topic` and `partition` are part of a record's origin, which stands for an id that it does not have.
    """
    mapping, limits = configuration.mapping, configuration.limits
    if not mapping.is_on:
        return None
    decode = _decode_of(mapping, limits)
    prefix = f"{topic}-{partition}-"
    if not mapping.user:
        own = decoder(limits)
        return lambda record: _own_event(record.value, limits) or own(_encoded(decode(record)))
    event_of = Mapper(mapping, limits).event

    def read(record: Record) -> Event | None:
        own = _own_event(record.value, limits)
        if own is not None:
            return own
        return event_of(decode(record), f"{prefix}{record.offset}", getattr(record, "timestamp", None))

    return read


def _encoded(found: Any) -> bytes:
    """Return what a codec read as JSON."""
    try:
        return _ENCODE(found)
    except (TypeError, ValueError, UnicodeError):
        raise Unusable(Reason.WRONG_TYPE, "the record holds what JSON does not have") from None


def _own_event(value: bytes | None, limits: LimitsConfiguration) -> Event | None:
    """Return what is our own event already: `erase` and what import wrote are taken under every mapping."""
    if value is None or not value.startswith(OWN_BEGINNING):
        return None
    try:
        event = decode_plain(measured(value, limits))
    except UNDECODABLE:
        return None
    return None if is_over(event, limits) else event


def key_reader(configuration: Configuration) -> Callable[[bytes], Key] | None:
    """Return what returns the Kafka key of a foreign record's value; None: no mapping is on.

    The value is JSON; other codecs have no lines.
    """
    mapping, limits = configuration.mapping, configuration.limits
    if not mapping.user:
        return None
    mapper = Mapper(mapping, limits)

    def key(value: bytes) -> Key:
        own = _own_event(value, limits)
        if own is not None:
            return key_of(value)
        try:
            record = from_json(value, limits)
            return EVERYWHERE if mapper.is_of_item(record) else mapper.user(record).encode() or None
        except Unusable:
            return None

    return key


def _decode_of(mapping: MappingConfiguration, limits: LimitsConfiguration) -> Decode:
    if mapping.codec == "avro":
        from thalweg.streams.mapping.avro import Registry, from_avro

        registry = Registry(mapping.registry)
        return lambda record: from_avro(record.value, registry, limits)
    if mapping.codec == "cloudevents":
        return lambda record: cloud_event(record, lambda value: from_json(value, limits))
    return lambda record: from_json(record.value, limits)


def from_json(value: bytes | None, limits: LimitsConfiguration) -> Any:
    """Return what JSON holds.

    Raises Unusable where it is none, too large, too deep, or has a text that UTF-8 can't hold.
    """
    raw = measured(value, limits)
    try:
        return _DECODE(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        parse(raw.decode())  # finds out what is wrong, slowly, and in the same words whatever the version
        raise Unusable(Reason.NOT_FINITE, "a number is beyond float64") from None

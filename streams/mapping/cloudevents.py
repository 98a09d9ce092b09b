"""CloudEvents 1.0 over Kafka: attributes in headers (binary mode) or all in one JSON object (structured mode)."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.records import Record

PREFIX = "ce_"
CONTENT_TYPE = "content-type"
STRUCTURED = b"application/cloudevents+json"
BATCH = b"application/cloudevents-batch"


def cloud_event(record: Record, from_json: Callable[[bytes | None], Any]) -> dict[str, Any]:
    """Return a record as an object of its attributes (`id`, `type`, `time`, …) with its payload in `data`.

    In binary mode the attributes are headers `ce_…` and the value is the payload; without such headers the value is the
    whole event. `from_json` reads a value and raises Unusable.

    Raises Unusable where a record is no such event.
    """
    headers = {name.lower(): value for name, value in record.headers}
    content_type = (headers.get(CONTENT_TYPE) or b"").lower()
    if content_type.startswith(BATCH):
        raise Unusable(Reason.WRONG_TYPE, "the record is a batch of events: send one event a record")
    if f"{PREFIX}specversion" in headers and not content_type.startswith(STRUCTURED):
        attributes: dict[str, Any] = {
            name.removeprefix(PREFIX): _text(name, value)
            for name, value in headers.items()
            if name.startswith(PREFIX) and value is not None
        }
        return attributes | {"data": from_json(record.value)}
    found = from_json(record.value)
    if type(found) is not dict or "specversion" not in found:
        raise Unusable(Reason.MISSING_FIELD, "specversion is missing: the record is no CloudEvent")
    if "data_base64" in found:
        found["data"] = from_json(_unpacked(found["data_base64"]))
    return found


def _text(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Unusable(Reason.NOT_UTF8, f"the header {name} is not UTF-8") from None


def _unpacked(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Unusable(Reason.WRONG_TYPE, "data_base64 is no base64") from None

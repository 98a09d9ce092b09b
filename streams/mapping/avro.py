"""Avro in Confluent's wire format: a zero, the id of a schema in four bytes, then the record under that schema."""

import io
import json
import os
import time
import urllib.error
import urllib.request
from base64 import b64encode
from decimal import Decimal
from typing import Any

import fastavro
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.streams.refusal import Refusal

MAGIC = 0
HEAD_BYTES = 5
TIMEOUT_S = 10.0
TRIES = 3
DIGITS_MAX = 300  # before the point of a decimal: a larger one is no float, and no integer that Python prints
PAUSE_S = 1.0
USERNAME, PASSWORD = "THALWEG_REGISTRY_USERNAME", "THALWEG_REGISTRY_PASSWORD"


class Registry:
    """The schemas of a registry, each asked for once.

    Parameters
    ----------
    url
        Where the registry answers, without a password: that is in `THALWEG_REGISTRY_USERNAME` and
        `THALWEG_REGISTRY_PASSWORD`.

    """

    def __init__(self, url: str) -> None:
        """Ask for nothing yet; the parameters are the class's."""
        self._url = url.rstrip("/")
        self._schemas: dict[int, Any] = {}

    def schema(self, number: int) -> Any:
        """Return a schema by its id.

        Raises Unusable where the registry has none, Refusal where it does not answer.
        """
        if number not in self._schemas:
            self._schemas[number] = self._fetched(number)
        found = self._schemas[number]
        if found is None:
            raise Unusable(Reason.NOT_AVRO, f"the registry has no schema {number}")
        return found

    def _fetched(self, number: int) -> Any:
        try:
            answer = json.loads(self._answer(f"/schemas/ids/{number}"))
            if answer.get("schemaType", "AVRO") != "AVRO":
                raise Refusal(f"schema {number} of {self._url} is {answer['schemaType']}: only Avro is read")
            if answer.get("references"):
                raise Refusal(f"schema {number} of {self._url} refers to others, which is not supported: inline them")
            return fastavro.parse_schema(without_logical_types(json.loads(answer["schema"])))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise Refusal(f"the schema registry at {self._url} refuses: {error.code} {error.reason}") from None
        except (OSError, ValueError, KeyError, AttributeError, fastavro.schema.SchemaParseException) as error:
            told = str(getattr(error, "reason", error)).splitlines()
            raise Refusal(
                f"the schema registry at {self._url} gives no schema {number} ({told[0] if told else 'no reason'}): "
                "see that it runs, and what mapping.registry is"
            ) from None

    def _answer(self, path: str) -> bytes:
        """Return what the registry answers; one that does not is asked again."""
        request = urllib.request.Request(f"{self._url}{path}", headers={"Accept": "application/json"})
        if name := os.environ.get(USERNAME):
            packed = b64encode(f"{name}:{os.environ.get(PASSWORD, '')}".encode()).decode()
            request.add_header("Authorization", f"Basic {packed}")
        for tries_left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                    found: bytes = answer.read()
                    return found
            except urllib.error.HTTPError as error:
                if error.code < 500 or not tries_left:
                    raise
            except OSError:
                if not tries_left:
                    raise
            time.sleep(PAUSE_S)
        raise AssertionError


def without_logical_types(schema: Any) -> Any:
    """Return a schema whose values are what lies on the wire, so that times stay numbers, for the mapping to read.

    Decimals keep theirs: their bytes mean nothing to a mapping.

    >>> without_logical_types({"type": "long", "logicalType": "timestamp-micros"})
    {'type': 'long'}
    """
    if isinstance(schema, dict):
        found = {name: without_logical_types(value) for name, value in schema.items() if name != "logicalType"}
        return found | {"logicalType": schema["logicalType"]} if _is_decimal(schema) else found
    return [without_logical_types(each) for each in schema] if isinstance(schema, list) else schema


def _is_decimal(schema: dict[str, Any]) -> bool:
    """Return whether a schema is of decimals; one with a wrong precision is bytes, as Avro says."""
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    return (
        schema.get("logicalType") == "decimal"
        and schema.get("type") in ("bytes", "fixed")
        and type(precision) is int
        and type(scale) is int
        and 0 <= scale <= precision
        and precision > 0
    )


def _plain(value: Any) -> Any:
    """Return a value with decimals as integers or floats, or as texts where a float would be another number."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, Decimal):
        if value.adjusted() > DIGITS_MAX:
            return str(value)
        near = float(value)
        whole = value == value.to_integral_value()
        return int(value) if whole else near if Decimal(repr(near)) == value else str(value)
    return value


def from_avro(value: bytes | None, registry: Registry, limits: LimitsConfiguration) -> Any:
    """Return what a record in Confluent's wire format holds.

    Raises Unusable where it is none, Refusal where the registry does not answer.
    """
    if not value:
        raise Unusable(Reason.EMPTY, "the record has no value (a tombstone)" if value is None else "0 bytes")
    if len(value) > limits.record_bytes:
        raise Unusable(Reason.TOO_LARGE, f"{len(value)} bytes, at most {limits.record_bytes}")
    if len(value) < HEAD_BYTES or value[0] != MAGIC:
        raise Unusable(Reason.NOT_AVRO, "the record does not begin with a zero and the id of a schema")
    schema = registry.schema(int.from_bytes(value[1:HEAD_BYTES], "big"))
    stream = io.BytesIO(value[HEAD_BYTES:])
    try:
        found = fastavro.schemaless_reader(stream, schema, None)
    except RecursionError:
        raise Unusable(Reason.TOO_DEEP, "nested deeper than can be read") from None
    except (EOFError, ValueError, IndexError, KeyError, TypeError, ArithmeticError, MemoryError):
        raise Unusable(Reason.NOT_AVRO, "the record is not of its schema") from None
    if stream.read(1):
        raise Unusable(Reason.NOT_AVRO, "bytes follow the record")
    return _plain(found)

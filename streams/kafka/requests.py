"""The two requests that every block needs, written and read without a walk through their schemas.

aiokafka encodes and decodes field by field, by objects that describe them: 350 calls of functions for a fetch and a
produce request of one record, a fifth of what a worker does for a single event. `Fetch` and `Produce` are aiokafka's
requests with the same bytes, packed at once, in the versions named here; against brokers that have others they are
aiokafka's.
"""

from collections.abc import Callable
from io import BytesIO
from struct import Struct
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7

HEADER = Struct(">hhih")
INT16, INT32 = Struct(">h"), Struct(">i")
FETCH = Struct(">iiiibiii")
"""Replica, wait, least and most bytes, isolation, session and its epoch; how many topics."""
FETCHED_PARTITION = Struct(">iiqqi")
"""Partition, leader epoch, offset, first offset of the log, most bytes."""
FETCH_END = Struct(">ih")
"""How many topics are forgotten, and the length of the rack's name."""
FETCH_ANSWER = Struct(">ihii")
"""Throttle time, error, session; how many topics."""
PARTITION_ANSWER = Struct(">ihqqqi")
"""Partition, error, end, last stable offset, first offset; how many transactions were aborted."""
ABORTED = Struct(">qq")
"""Producer, first offset."""
REPLICA_SIZE = Struct(">ii")
"""Preferred replica, and how many bytes of records follow."""
PRODUCE = Struct(">hii")
"""Acknowledgements, timeout; how many topics."""
PRODUCED_PARTITION = Struct(">ii")
"""Partition, and how many bytes of records follow."""
PRODUCE_ANSWER = Struct(">ihqqq")
"""Partition, error, offset, time, first offset of the log."""


class _Bytes:
    """What has been encoded already."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def encode(self) -> bytes:
        return self._value


class _AnswerHeader:
    __slots__ = ("correlation_id",)

    def __init__(self, correlation_id: int) -> None:
        self.correlation_id = correlation_id


class _Quick:
    """A header without a schema, for requests of versions that have no tags."""

    API_KEY: int
    API_VERSION: int

    def build_request_header(self, correlation_id: int, client_id: str) -> _Bytes:
        name = client_id.encode()
        return _Bytes(HEADER.pack(self.API_KEY, self.API_VERSION, correlation_id, len(name)) + name)

    def parse_response_header(self, read_buffer: BytesIO) -> _AnswerHeader:
        return _AnswerHeader(INT32.unpack(read_buffer.read(4))[0])


def _is_newest(version: int, request: type[Any]) -> bool:
    """Whether aiokafka knows no newer version of a request, which it would choose."""
    return not any(version < each.API_VERSION for each in request._CLASSES)


class FetchAnswer(FetchResponse_v11):  # type: ignore[misc]
    """The answer to a fetch."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> "FetchAnswer":
        """Read it."""
        value = data if isinstance(data, bytes) else data.read()
        throttle_time_ms, error_code, session_id, count = FETCH_ANSWER.unpack_from(value)
        at = FETCH_ANSWER.size
        topics = []
        for _ in range(count):
            name, at = _text(value, at)
            (partitions,) = INT32.unpack_from(value, at)
            at += INT32.size
            found = []
            for _ in range(partitions):
                *numbers, transactions = PARTITION_ANSWER.unpack_from(value, at)
                at += PARTITION_ANSWER.size
                end = at + max(transactions, 0) * ABORTED.size
                aborted = None if transactions < 0 else list(ABORTED.iter_unpack(value[at:end]))
                at = end
                replica, size = REPLICA_SIZE.unpack_from(value, at)
                at += REPLICA_SIZE.size
                end = at + max(size, 0)
                found.append((*numbers, aborted, replica, None if size < 0 else value[at:end]))
                at = end
            topics.append((name, found))
        return cls(throttle_time_ms, error_code, session_id, topics)


class _QuickFetch(_Quick, FetchRequest_v11):  # type: ignore[misc]
    RESPONSE_TYPE = FetchAnswer
    IS_NEWEST = _is_newest(FetchRequest_v11.API_VERSION, FetchRequest)

    def encode(self) -> bytes:
        return b"".join(_fetch_parts(self.__dict__))


class Fetch(FetchRequest):  # type: ignore[misc]
    """A fetch of partitions of topics."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """Return it in the highest version that both sides have."""
        return _prepared(self, versions, _QuickFetch, super().prepare)


class ProduceAnswer(ProduceResponse_v7):  # type: ignore[misc]
    """The answer to a produce request."""

    @classmethod
    def decode(cls, data: BytesIO | bytes) -> "ProduceAnswer":
        """Read it."""
        value = data if isinstance(data, bytes) else data.read()
        (count,), at = INT32.unpack_from(value), INT32.size
        topics = []
        for _ in range(count):
            name, at = _text(value, at)
            (partitions,) = INT32.unpack_from(value, at)
            at += INT32.size
            end = at + partitions * PRODUCE_ANSWER.size
            topics.append((name, list(PRODUCE_ANSWER.iter_unpack(value[at:end]))))
            at = end
        return cls(topics, INT32.unpack_from(value, at)[0])


class _QuickProduce(_Quick, ProduceRequest_v7):  # type: ignore[misc]
    RESPONSE_TYPE = ProduceAnswer
    IS_NEWEST = _is_newest(ProduceRequest_v7.API_VERSION, ProduceRequest)

    def encode(self) -> bytes:
        return b"".join(_produce_parts(self.__dict__))


class Produce(ProduceRequest):  # type: ignore[misc]
    """A request that appends batches of records to partitions."""

    def prepare(self, versions: dict[int, tuple[int, int]]) -> Any:
        """Return it in the highest version that both sides have."""
        return _prepared(self, versions, _QuickProduce, super().prepare)


def quicken(producer: Any) -> None:
    """Have aiokafka's producer send its requests as `Produce`; one that a test puts in its place stays as it is."""
    if not isinstance(producer, AIOKafkaProducer):
        return
    client = producer.client
    send = client.send

    def quick(node_id: Any, request: Any, **named: Any) -> Any:
        if type(request) is ProduceRequest:
            request = Produce(request._transactional_id, request._required_acks, request._timeout, request._topics)
        return send(node_id, request, **named)

    client.send = quick


def _prepared(
    request: Any, versions: dict[int, tuple[int, int]], kind: type[Any], otherwise: Callable[[Any], Any]
) -> Any:
    least, most = versions.get(kind.API_KEY, (0, -1))
    return request.build(kind) if kind.IS_NEWEST and least <= kind.API_VERSION <= most else otherwise(versions)


def _fetch_parts(fields: dict[str, Any]) -> list[bytes]:
    topics, forgotten, rack = fields["topics"], fields["forgotten_topics_data"], fields["rack_id"].encode()
    assert not forgotten, "nothing is forgotten without a session"
    names = ("replica_id", "max_wait_time", "min_bytes", "max_bytes", "isolation_level", "session_id", "session_epoch")
    parts = [FETCH.pack(*(fields[name] for name in names), len(topics))]
    for topic, partitions in topics:
        parts += (_encoded(topic), INT32.pack(len(partitions)))
        parts += (FETCHED_PARTITION.pack(*partition) for partition in partitions)
    parts += (FETCH_END.pack(0, len(rack)), rack)
    return parts


def _produce_parts(fields: dict[str, Any]) -> list[bytes]:
    topics = fields["topics"]
    parts = [_encoded(fields["transactional_id"])]
    parts.append(PRODUCE.pack(fields["required_acks"], fields["timeout"], len(topics)))
    for topic, partitions in topics:
        parts += (_encoded(topic), INT32.pack(len(partitions)))
        for partition, records in partitions:
            parts += (PRODUCED_PARTITION.pack(partition, len(records)), records)
    return parts


def _encoded(text: str | None) -> bytes:
    if text is None:
        return INT16.pack(-1)
    encoded = text.encode()
    return INT16.pack(len(encoded)) + encoded


def _text(value: bytes, at: int) -> tuple[str, int]:
    (size,) = INT16.unpack_from(value, at)
    begin = at + INT16.size
    return value[begin : begin + size].decode(), begin + size

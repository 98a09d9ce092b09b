"""Requests that are packed at once are, to the byte, what aiokafka makes of them, and their answers what it reads."""

import asyncio
from io import BytesIO
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v4, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st
from thalweg.streams.kafka.requests import Fetch, FetchAnswer, Produce, ProduceAnswer, quicken

VERSIONS = {0: (0, 13), 1: (4, 17)}
int16, int32, int64 = (st.integers(-(2**bits), 2**bits - 1) for bits in (15, 31, 63))
topic = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable())


def many(partition: Any) -> Any:
    return st.lists(st.tuples(topic, st.lists(partition, max_size=3)), max_size=3)


def sent(request: Any) -> tuple[bytes, bytes]:
    """Return header and body of a request."""
    prepared = request.prepare(VERSIONS)
    return prepared.build_request_header(7, "client ü").encode(), prepared.encode()


@given(
    wait_ms=int32, isolation=st.integers(0, 1), topics=many(st.tuples(int32, int64, int32)), rack=st.text(max_size=5)
)
def test_a_fetch_has_the_bytes_of_aiokafkas(wait_ms: int, isolation: int, topics: Any, rack: str) -> None:
    """Whatever is fetched, header and body are the same."""
    arguments = (wait_ms, 1, 1 << 20, isolation, topics, rack)
    assert sent(Fetch(*arguments)) == sent(FetchRequest(*arguments))


@given(name=st.none() | topic, topics=many(st.tuples(int32, st.binary(max_size=30))))
def test_a_produce_request_has_the_bytes_of_aiokafkas(name: str | None, topics: Any) -> None:
    """With and without a transaction, header and body are the same."""
    arguments = (name, -1, 60_000, topics)
    assert sent(Produce(*arguments)) == sent(ProduceRequest(*arguments))


aborted = st.none() | st.lists(st.tuples(int64, int64), max_size=3)
fetched = st.tuples(int32, int16, int64, int64, int64, aborted, int32, st.none() | st.binary(max_size=30))


@given(head=st.tuples(int32, int16, int32), topics=many(fetched), is_file=st.booleans())
def test_the_answer_to_a_fetch_is_read_as_aiokafka_reads_it(head: Any, topics: Any, is_file: bool) -> None:
    """Errors, aborted transactions and records, of all partitions."""
    value = FetchResponse_v11(*head, topics).encode()
    read, expected = FetchAnswer.decode(BytesIO(value) if is_file else value), FetchResponse_v11.decode(value)
    assert read.__dict__ == expected.__dict__
    assert read.API_VERSION == 11


@given(topics=many(st.tuples(int32, int16, int64, int64, int64)), throttle_ms=int32)
def test_the_answer_to_a_produce_request_is_read_as_aiokafka_reads_it(topics: Any, throttle_ms: int) -> None:
    """Errors and offsets of all partitions."""
    value = ProduceResponse_v7(topics, throttle_ms).encode()
    assert ProduceAnswer.decode(value).__dict__ == ProduceResponse_v7.decode(value).__dict__


def test_older_brokers_get_aiokafkas_requests() -> None:
    """Where a version is not there on both sides, aiokafka's choice stands."""
    assert type(Fetch(1, 1, 1, 1, [], "").prepare({1: (0, 4)})) is FetchRequest_v4
    assert Produce(None, -1, 1, []).prepare({0: (0, 3)}).API_VERSION == 3


def test_a_header_tells_which_request_is_answered() -> None:
    """The answer's number is read from its first four bytes, and the rest is left."""
    answer = BytesIO(b"\x00\x00\x01\x02rest")
    assert Fetch(1, 1, 1, 1, [], "").prepare(VERSIONS).parse_response_header(answer).correlation_id == 258
    assert answer.read() == b"rest"


def test_a_producer_sends_its_requests_so() -> None:
    """Its client gets `Produce` for what it sends; other requests, and what is no producer of aiokafka's, are left."""
    got: list[tuple[Any, Any]] = []

    async def play() -> None:
        producer = AIOKafkaProducer()
        producer.client.send = lambda node, request, **named: got.append((request, named))
        quicken(producer)
        producer.client.send(1, FetchRequest(1, 1, 1, 1, []))
        producer.client.send(1, ProduceRequest("name", -1, 5, [("t", [(0, b"records")])]), group=2)
        await producer.stop()

    asyncio.run(play())
    assert [(type(request), named) for request, named in got] == [(FetchRequest, {}), (Produce, {"group": 2})]
    assert sent(got[1][0]) == sent(ProduceRequest("name", -1, 5, [("t", [(0, b"records")])]))
    quicken(object())

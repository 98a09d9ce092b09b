"""Outputs: in order, confirmed, and found again after a crash."""

import asyncio
import json
from collections.abc import Callable

import pytest
from thalweg.schemas.records import Cause, Output, Outputs
from thalweg.streams.kafka.consume import CAUSE_HEADER
from thalweg.streams.kafka.delivery import Delivery, DeliveryError, OutputsLostError, Tail, tail
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection, create

from tests.kafka.broker import Broker
from tests.kafka.fleet import end_offsets, log_of, send

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]


@pytest.fixture
def kafka(broker: str) -> KafkaSection:
    return KafkaSection(bootstrap_servers=broker)


def made_topics(kafka: KafkaSection, unique: Unique, partitions: int = 1) -> TopicsSection:
    names = {
        name: unique(name) for name in ("interactions", "scores", "examples", "dead_letters", "rankings", "lessons")
    }
    topics = TopicsSection(**names, partitions=partitions)  # type: ignore[arg-type]
    create(kafka, topics)
    return topics


def outputs(topics: TopicsSection, offsets: range, *, size: int = 0) -> Outputs:
    scores, examples, dead_letters = [], [], []
    for offset in offsets:
        origin = f"{topics.interactions}-0-{offset}"
        value = json.dumps({"id": f"i{offset}", "cause": f"{origin}:0", "pad": "x" * size}).encode()
        scores.append(Output(Cause(offset, 0), value, b"u1"))
        if offset % 3 == 0:
            examples += [
                Output(Cause(offset, n), b'{"n": %d, "cause": "%b:%d"}' % (n, origin.encode(), n)) for n in (1, 2)
            ]
        if offset % 10 == 0:
            dead_letters.append(Output(Cause(offset, 3), b"\x00bad", None, ((CAUSE_HEADER, f"{origin}:3".encode()),)))
    return Outputs(scores, examples, dead_letters, [], [])


async def send_and_flush(delivery: Delivery, made: Outputs, partition: int = 0) -> None:
    await delivery.send(partition, made)
    await delivery.flush(partition)


def test_outputs_arrive_in_order(kafka: KafkaSection, unique: Unique) -> None:
    """Every output lies once in its partition, in the order it was sent, and flush tells the partition's end."""
    topics = made_topics(kafka, unique, partitions=3)

    async def deliver() -> dict[str, int]:
        async with Delivery(kafka, topics) as delivery:
            for start in range(0, 3000, 100):
                await delivery.send(2, outputs(topics, range(start, start + 100), size=200))
            ends = await delivery.flush(2)
            assert await delivery.flush(2) == ends
            assert await delivery.flush(0) == {}
            return ends

    ends = asyncio.run(deliver())
    assert ends == {topics.scores: 3000, topics.examples: 2000, topics.dead_letters: 300}
    scores = log_of(kafka.bootstrap_servers, topics.scores, 2)
    assert [json.loads(value)["id"] for _, value in scores] == [f"i{n}" for n in range(3000)]
    for name, end in ends.items():
        assert end_offsets(kafka.bootstrap_servers, name, 3) == {0: 0, 1: 0, 2: end}


def test_tail_finds_our_highest_cause(kafka: KafkaSection, unique: Unique) -> None:
    """From an offset on the highest cause of our own input counts, in fields and headers, whatever others write."""
    topics = made_topics(kafka, unique)
    servers = kafka.bootstrap_servers

    async def deliver() -> None:
        async with Delivery(kafka, topics) as delivery:
            await delivery.send(0, outputs(topics, range(101)))
            # a paused worker woke up and wrote old ones once more
            await delivery.send(0, outputs(topics, range(50, 60)))
            await delivery.flush(0)

    asyncio.run(deliver())
    send(servers, topics.scores, {0: [b'{"cause": "others-0-900:0"}', b"no json", b'{"cause": 7}', b'{"cause": "x"}']})
    found = {name: asyncio.run(tail(kafka, name, 0, 0, topics.interactions)) for name in topics.outputs}
    assert found == {
        topics.scores: Tail(115, Cause(100, 0)),
        topics.examples: Tail(74, Cause(99, 2)),
        topics.dead_letters: Tail(12, Cause(100, 3)),
        topics.rankings: Tail(0, None),
        topics.lessons: Tail(0, None),
    }
    assert asyncio.run(tail(kafka, topics.scores, 0, 103, topics.interactions)) == Tail(115, Cause(59, 0))
    assert asyncio.run(tail(kafka, topics.scores, 0, 115, topics.interactions)) == Tail(115, None)


def test_an_end_that_went_backwards_is_refused(kafka: KafkaSection, unique: Unique) -> None:
    """A checkpoint that saw more outputs than the topic has does not go on."""
    topics = made_topics(kafka, unique)
    with pytest.raises(OutputsLostError, match="ends at offset 0, but 5 was reached before"):
        asyncio.run(tail(kafka, topics.scores, 0, 5, topics.interactions))


def test_an_output_the_brokers_refuse_ends_the_partition(kafka: KafkaSection, unique: Unique) -> None:
    """An output that is too large fails the flush, and nothing can be sent to that partition afterwards."""
    topics = made_topics(kafka, unique, partitions=2)

    async def deliver() -> None:
        async with Delivery(kafka, topics) as delivery:
            with pytest.raises(DeliveryError, match="1 outputs refused: MessageSizeTooLargeError"):
                await send_and_flush(delivery, outputs(topics, range(1), size=1_500_000))
            with pytest.raises(DeliveryError, match="MessageSizeTooLargeError"):
                await delivery.send(0, outputs(topics, range(1, 2)))
            await delivery.send(1, outputs(topics, range(1)))
            assert (await delivery.flush(1))[topics.scores] == 1

    asyncio.run(deliver())


def test_nothing_passes_an_output_that_was_refused(kafka: KafkaSection, unique: Unique) -> None:
    """What a topic holds is always a beginning: behind a refused batch, the first of all or not, none is taken."""
    topics = made_topics(kafka, unique, partitions=2)
    small, large = outputs(topics, range(5_000), size=300).scores, outputs(topics, range(1), size=1_500_000).scores

    async def deliver() -> None:
        async with Delivery(kafka, topics) as delivery:
            with pytest.raises(DeliveryError, match="MessageSizeTooLargeError"):
                await send_and_flush(delivery, Outputs(large + small, [], [], [], []), 0)
            await delivery.send(1, Outputs(small[:10], [], [], [], []))
            with pytest.raises(DeliveryError, match="MessageSizeTooLargeError"):
                await send_and_flush(delivery, Outputs(large + small, [], [], [], []), 1)

    asyncio.run(deliver())
    assert end_offsets(kafka.bootstrap_servers, topics.scores, 2) == {0: 0, 1: 10}


def test_a_large_dead_letter_is_delivered(kafka: KafkaSection, unique: Unique) -> None:
    """The largest record that the input takes fits among the dead letters with its headers."""
    topics = made_topics(kafka, unique)
    letter = Output(Cause(0, 0), b"x" * 1_048_000, b"u1", ((CAUSE_HEADER, b"interactions-0-0:0"), ("why", b"y" * 500)))

    async def deliver() -> dict[str, int]:
        async with Delivery(kafka, topics) as delivery:
            await delivery.send(0, Outputs([], [], [letter], [], []))
            return await delivery.flush(0)

    assert asyncio.run(deliver()) == {topics.dead_letters: 1}


def test_brokers_that_are_gone_fail_the_delivery(own_broker: Broker, unique: Unique) -> None:
    """Outputs that stay unconfirmed raise within the time-out instead of being retried for ever."""
    kafka = KafkaSection(bootstrap_servers=own_broker.bootstrap_servers)
    topics = made_topics(kafka, unique)

    async def deliver() -> None:
        async with Delivery(kafka, topics, delivery_timeout_ms=6_000) as delivery:
            await delivery.send(0, outputs(topics, range(10)))
            assert (await delivery.flush(0))[topics.scores] == 10
            own_broker.kill()
            await delivery.send(0, outputs(topics, range(10, 20)))
            with pytest.raises(DeliveryError, match="unconfirmed for too long"):
                await delivery.flush(0)

    try:
        asyncio.run(deliver())
    finally:
        own_broker.restart()
    assert [json.loads(value)["id"] for _, value in log_of(kafka.bootstrap_servers, topics.scores, 0)][:10] == [
        f"i{n}" for n in range(10)
    ]

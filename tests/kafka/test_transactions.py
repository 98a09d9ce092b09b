"""Outputs and offset as one transaction: all of it or nothing, once, and nothing from whoever was taken over."""

import asyncio
import json
from collections.abc import Callable, Sequence

import pytest
from thalweg.schemas.records import Cause, Outputs
from thalweg.streams.kafka.consume import consume
from thalweg.streams.kafka.delivery import DeliveryError, OpenTransactionError, Tail, tail
from thalweg.streams.kafka.partition_run import TakenOverError
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection
from thalweg.streams.kafka.transactions import TransactionalDelivery, committed_offset, transactional_id_of
from thalweg.streams.refusal import Refusal

from tests.kafka.broker import Broker
from tests.kafka.fleet import end_offsets, log_of, wait_until, within
from tests.kafka.test_delivery import made_topics, outputs

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
GROUP = "group"


@pytest.fixture
def kafka(broker: str) -> KafkaSection:
    return KafkaSection(bootstrap_servers=broker)


@pytest.fixture
def topics(kafka: KafkaSection, unique: Unique) -> TopicsSection:
    return made_topics(kafka, unique, partitions=2)


def seen(kafka: KafkaSection, topic: str, partition: int = 0) -> list[str]:
    """What a `read_committed` reader gets, by id."""
    return [json.loads(value)["id"] for _, value in log_of(kafka.bootstrap_servers, topic, partition)]


def ids(offsets: Sequence[int]) -> list[str]:
    return [f"i{offset}" for offset in offsets]


def test_outputs_and_offset_are_one(kafka: KafkaSection, topics: TopicsSection) -> None:
    """Readers see nothing of a transaction before it is committed, then all of it, and the offset with it."""

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP, interval_ms=0) as delivery:
            assert await delivery.open(0) is None
            assert not delivery.is_due(0)
            for start in range(0, 300, 100):
                await delivery.send(0, outputs(topics, range(start, start + 100)))
            await delivery.flush(0)
            assert delivery.is_due(0)
            assert await asyncio.to_thread(seen, kafka, topics.scores) == []
            await delivery.commit(0, 300)
            assert not delivery.is_due(0)
            ends = await delivery.flush(0)
            assert ends[topics.scores] == 300
            await delivery.commit(0, 340)  # forty records that made no output

    asyncio.run(deliver())
    assert seen(kafka, topics.scores) == ids(range(300))
    assert len(log_of(kafka.bootstrap_servers, topics.examples, 0)) == 200
    assert len(log_of(kafka.bootstrap_servers, topics.dead_letters, 0)) == 30
    assert committed_offset(kafka, GROUP, topics.interactions, 0) == 340
    assert committed_offset(kafka, GROUP, topics.interactions, 1) is None


def test_whoever_opens_takes_over(kafka: KafkaSection, topics: TopicsSection) -> None:
    """What the last owner had not committed is gone, and nothing that it still does reaches a reader or the offset."""

    async def deliver() -> None:
        first, second = (TransactionalDelivery(kafka, topics, GROUP) for _ in range(2))
        await first.open(0)
        await first.send(0, outputs(topics, range(10)))
        await first.commit(0, 10)
        await first.send(0, outputs(topics, range(10, 20)))
        await first.flush(0)
        assert await second.open(0) == 10
        with pytest.raises(TakenOverError, match="another worker took the partition over"):
            await first.commit(0, 20)
        with pytest.raises(TakenOverError):
            await first.send(0, outputs(topics, range(20, 30)))
        await second.send(0, outputs(topics, range(10, 15)))
        await second.commit(0, 15)
        # between transactions it is told just as well, and the other partition is nobody else's
        await first.open(1)
        assert await first.open(0) == 15
        with pytest.raises(TakenOverError):
            await (await sent(second, outputs(topics, range(15, 20)))).commit(0, 20)
        await first.stop()
        await second.stop()

    async def sent(delivery: TransactionalDelivery, made: Outputs) -> TransactionalDelivery:
        await delivery.send(0, made)
        return delivery

    asyncio.run(deliver())
    assert seen(kafka, topics.scores) == ids(range(15))
    assert committed_offset(kafka, GROUP, topics.interactions, 0) == 15
    consumed = within(60, "consuming", lambda: [record.value for record in consume(kafka, topics.scores, partition=0)])
    assert [json.loads(value)["id"] for value in consumed] == ids(range(15))


def test_a_commit_under_way_is_decided_before_it_is_taken_over(kafka: KafkaSection, topics: TopicsSection) -> None:
    """Whoever opens while a commit is on its way is told an offset that fits, to the record, what readers see."""

    async def deliver(wait_s: float, start: int) -> int:
        first, second = (TransactionalDelivery(kafka, topics, GROUP) for _ in range(2))
        found = await first.open(0)
        assert (found or 0) == start
        await first.send(0, outputs(topics, range(start, start + 10)))
        committing = asyncio.ensure_future(first.commit(0, start + 10))
        await asyncio.sleep(wait_s)
        found = await second.open(0) or 0
        assert await asyncio.to_thread(seen, kafka, topics.scores) == ids(range(found))
        await asyncio.gather(committing, return_exceptions=True)
        assert await asyncio.to_thread(seen, kafka, topics.scores) == ids(range(found))
        await first.stop()
        await second.stop()
        return found

    start = 0
    for attempt in range(12):
        start = asyncio.run(deliver(attempt * 0.003, start))
    assert start > 0, "no commit was ever in time"


def test_a_refused_output_takes_the_whole_transaction_along(kafka: KafkaSection, topics: TopicsSection) -> None:
    """Where one output is too large nothing of its transaction is seen, and the offset stays."""

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP) as delivery:
            await delivery.open(0)
            await delivery.send(0, outputs(topics, range(5)))
            await delivery.commit(0, 5)
            await delivery.send(0, outputs(topics, range(5, 10)))
            large = outputs(topics, range(10, 11), size=1_500_000).scores
            await delivery.send(0, Outputs(large, [], [], [], []))
            for _ in range(2):
                with pytest.raises(DeliveryError, match="1 outputs refused: MessageSizeTooLargeError"):
                    await delivery.commit(0, 11)

    asyncio.run(deliver())
    assert seen(kafka, topics.scores) == ids(range(5))
    assert committed_offset(kafka, GROUP, topics.interactions, 0) == 5


def test_a_transaction_open_for_too_long_is_over(kafka: KafkaSection, topics: TopicsSection) -> None:
    """What the brokers aborted for its age can't be committed; the partition can be opened again."""

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP, transaction_timeout_ms=1000) as delivery:
            await delivery.open(0)
            await delivery.send(0, outputs(topics, range(5)))
            await delivery.flush(0)
            stable = lambda: end_offsets(kafka.bootstrap_servers, topics.scores, 1, "read_committed")[0]  # noqa: E731
            await asyncio.to_thread(wait_until, lambda: stable() > 0, "the brokers abort it")
            with pytest.raises(TakenOverError, match="or the transaction was open too long"):
                await delivery.commit(0, 5)
            assert await delivery.open(0) is None
            await delivery.send(0, outputs(topics, range(5)))
            await delivery.commit(0, 5)

    asyncio.run(deliver())
    assert seen(kafka, topics.scores) == ids(range(5))


def test_a_timeout_that_the_brokers_do_not_allow_is_refused(kafka: KafkaSection, topics: TopicsSection) -> None:
    """The refusal names the setting on both sides."""

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP, transaction_timeout_ms=3_600_000) as delivery:
            with pytest.raises(Refusal, match=r"InvalidTransactionTimeout.*transaction\.max\.timeout\.ms"):
                await delivery.open(0)

    asyncio.run(deliver())


def test_a_transaction_outlives_its_broker(own_broker: Broker, unique: Unique) -> None:
    """A broker that dies and comes back within the limits costs nothing: the transaction is committed then."""
    kafka = KafkaSection(bootstrap_servers=own_broker.bootstrap_servers)
    topics = made_topics(kafka, unique)

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP) as delivery:
            await delivery.open(0)
            await delivery.send(0, outputs(topics, range(10)))
            await delivery.flush(0)
            await delivery.send(0, outputs(topics, range(10, 20)))
            own_broker.kill()
            committing = asyncio.ensure_future(delivery.commit(0, 20))
            await asyncio.to_thread(own_broker.restart)
            await committing

    asyncio.run(deliver())
    # a broker that comes back has its high watermark to find first
    wait_until(lambda: seen(kafka, topics.scores) == ids(range(20)), "all is there, once")
    assert committed_offset(kafka, GROUP, topics.interactions, 0) == 20


def test_brokers_that_are_gone_fail_the_commit(own_broker: Broker, unique: Unique) -> None:
    """Where they stay away it raises within its limit; what was not committed nobody sees, after they are back."""
    kafka = KafkaSection(bootstrap_servers=own_broker.bootstrap_servers)
    topics = made_topics(kafka, unique)

    def are_there() -> bool:
        return seen(kafka, topics.scores) == ids(range(10))

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP) as before:
            await before.open(0)  # the brokers' first transaction of all takes them seconds
        async with TransactionalDelivery(kafka, topics, GROUP, delivery_timeout_ms=12_000) as delivery:
            await delivery.open(0)
            await delivery.send(0, outputs(topics, range(10)))
            await delivery.commit(0, 10)
            # a commit is answered before its markers are written, and brokers killed in between may take minutes to
            await asyncio.to_thread(wait_until, are_there, "what was committed is seen")
            own_broker.kill()
            with pytest.raises(DeliveryError):
                await (await sent(delivery)).commit(0, 20)

    async def sent(delivery: TransactionalDelivery) -> TransactionalDelivery:
        await delivery.send(0, outputs(topics, range(10, 20)))
        return delivery

    try:
        asyncio.run(deliver())
    finally:
        own_broker.restart()
    # a broker that comes back has its high watermark to find first
    wait_until(are_there, "what was committed is there again, and no more")


def test_the_tail_is_what_is_committed(kafka: KafkaSection, topics: TopicsSection) -> None:
    """Outputs that were aborted are not taken for written, and those of an open transaction are waited for."""

    async def found(from_offset: int = 0, wait_ms: int = 60_000) -> Tail:
        return await tail(kafka, topics.scores, 0, from_offset, topics.interactions, wait_ms=wait_ms)

    async def deliver() -> None:
        async with TransactionalDelivery(kafka, topics, GROUP) as delivery:
            await delivery.open(0)
            await delivery.send(0, outputs(topics, range(10)))
            await delivery.commit(0, 10)
            assert (await found()).cause == Cause(9, 0)
            await delivery.send(0, outputs(topics, range(10, 20)))
            await delivery.flush(0)
            with pytest.raises(OpenTransactionError, match="is open since offset 11"):
                await found(wait_ms=300)
            looking = asyncio.ensure_future(found())
            await asyncio.sleep(0)
            await TransactionalDelivery(kafka, topics, GROUP).fence(0)
            assert (await looking).cause == (await found()).cause == Cause(9, 0)
            assert (await found(11)).cause is None

    asyncio.run(deliver())


def test_no_two_partitions_share_an_id() -> None:
    """Names that run together would fence each other."""
    assert transactional_id_of("a:b", "c", 0) != transactional_id_of("a", "b.c", 0)
    assert transactional_id_of("a-b", "c", 0) != transactional_id_of("a", "b-c", 0)
    assert transactional_id_of("a", "b-1", 2) != transactional_id_of("a", "b", 12)

"""The output side in the mode `transactional`: outputs and the input's next offset are one transaction.

Each partition has one producer, whose transactional id names group, topic and partition. A worker that opens a
partition takes that id over: the brokers abort the last owner's open transaction, and fence that owner. What the group
has committed after that is exactly what was emitted: `open` returns it.

`send` begins a transaction where none is open, `commit` adds the offset and commits all of it. A `read_committed`
reader never sees a part of one, nor a duplicate. Every wait has a limit. The first failure raises, and so does each
later call.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing, suppress
from types import TracebackType
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    InvalidProducerIdMapping,
    InvalidTxnState,
    KafkaError,
    ProducerFenced,
)
from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPythonPartition
from thalweg.schemas.records import Output, Outputs
from thalweg.streams.kafka.delivery import BATCH_BYTES, STOP_TIMEOUT_S, DeliveryError, Lane, fill, now, too_large
from thalweg.streams.kafka.partition_run import TakenOverError
from thalweg.streams.kafka.refusals import explained, one_line, refusing
from thalweg.streams.kafka.security import KafkaSection, aiokafka_arguments, kafka_python_arguments
from thalweg.streams.kafka.topics import TopicsSection
from thalweg.streams.refusal import Refusal

FENCING = (ProducerFenced, InvalidProducerEpoch, InvalidProducerIdMapping, InvalidTxnState)
"""What the brokers answer where the transactional id was taken over, or timed out."""


class TransactionalDelivery:
    """Sends each partition's outputs in transactions, with the offset of the input that they cover.

    A transaction that is open for longer than `transaction_timeout_ms` the brokers abort by themselves; `interval_ms`
    is how long one is meant to be. `delivery_timeout_ms` bounds how long anything may stay unconfirmed.
    """

    commits_offsets = True

    def __init__(
        self,
        kafka: KafkaSection,
        topics: TopicsSection,
        group: str,
        *,
        interval_ms: int = 100,
        transaction_timeout_ms: int = 60_000,
        delivery_timeout_ms: int = 60_000,
        in_flight_batches_max: int = 64,
        new_producer: Callable[..., Any] = AIOKafkaProducer,
        offset_of: Callable[[int], Awaitable[int | None]] | None = None,
    ) -> None:
        """Make it; `open` connects. Of each partition at most `in_flight_batches_max` of 128 KiB are unconfirmed."""
        self._kafka, self._topics, self._group = kafka, topics, group
        self._interval_s = interval_ms / 1000
        self._transaction_timeout_ms = transaction_timeout_ms
        self._delivery_timeout_s = delivery_timeout_ms / 1000
        self._in_flight_batches_max = in_flight_batches_max
        self._new_producer = new_producer
        self._offset_of = offset_of or self._ask_offset
        self._partitions: dict[int, _Transactions] = {}

    async def __aenter__(self) -> "TransactionalDelivery":
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Do nothing: what is shared by all partitions connects to nothing."""

    async def open(self, partition: int) -> int | None:
        """Take over the partition's outputs from their last owner; return the next offset as the group has it.

        None where the group has none. Raises Refusal where the brokers do not answer or refuse it.
        """
        await self.close(partition)
        made = self._transactions(partition)
        self._partitions[partition] = made
        try:
            await made.fence()
        except Refusal:
            await self.close(partition)
            raise
        made.committed = await self._offset_of(partition)
        return made.committed

    async def fence(self, partition: int) -> None:
        """End what anybody has open under the partition's transactional id, without opening the partition."""
        await self.close(partition)
        made = self._transactions(partition)
        try:
            await made.fence()
        finally:
            await made.close()

    async def send(self, partition: int, outputs: Outputs) -> None:
        """Hand over what a block made, each topic's in its order, within the open transaction or a new one.

        Raises DeliveryError if any delivery failed so far, TakenOverError where another worker has the partition.
        """
        transactions = self._partitions[partition]
        for topic, records in zip(self._topics.outputs, outputs, strict=True):
            if records:
                await transactions.send(topic, records, self._in_flight_batches_max)

    def is_due(self, partition: int) -> bool:
        """Whether outputs wait in a transaction that is as old as one is meant to get."""
        began_at = self._partitions[partition].began_at
        return began_at is not None and now() - began_at >= self._interval_s

    async def commit(self, partition: int, next_offset: int) -> None:
        """Commit what was sent, and that the input below `next_offset` is done with, as one.

        Below what is committed already, where the input is only folded again, there is nothing to commit.
        Raises TakenOverError where another worker has the partition. Raises DeliveryError if any delivery failed, or
        stayed unconfirmed too long; then the next `open` finds out whether it is committed.
        """
        transactions = self._partitions[partition]
        await transactions.lane.confirm_done()
        if transactions.began_at is None and (transactions.committed or 0) >= next_offset:
            return
        place = TopicPartition(self._topics.interactions, partition)
        await transactions.commit(place, next_offset, self._group)

    async def flush(self, partition: int) -> dict[str, int]:
        """Wait until all that was sent is confirmed; return the end offset in each topic that something went to."""
        lane = self._partitions[partition].lane
        await lane.confirm(leave=0)
        return dict(lane.end_offsets)

    def committed(self, partition: int) -> int | None:
        """Return the next offset of the last transaction that was committed."""
        transactions = self._partitions.get(partition)
        return None if transactions is None else transactions.committed

    async def close(self, partition: int) -> None:
        """Give a partition up: what is not committed is aborted."""
        transactions = self._partitions.pop(partition, None)
        if transactions is not None:
            await transactions.close()

    async def stop(self) -> None:
        """Give all partitions up."""
        await asyncio.gather(*(self.close(partition) for partition in list(self._partitions)))

    async def _ask_offset(self, partition: int) -> int | None:
        source = self._topics.interactions
        return await asyncio.to_thread(committed_offset, self._kafka, self._group, source, partition)

    def _transactions(self, partition: int) -> "_Transactions":
        name = transactional_id_of(self._group, self._topics.interactions, partition)
        producer = self._new_producer(
            **aiokafka_arguments(self._kafka),
            acks="all",
            transactional_id=name,
            transaction_timeout_ms=self._transaction_timeout_ms,
            # the client's own limit, of 40 s, would come first where brokers are away
            request_timeout_ms=int(self._delivery_timeout_s * 1000),
            max_batch_size=BATCH_BYTES,
        )
        return _Transactions(producer, name, partition, self._delivery_timeout_s)


class _Transactions:
    """One partition's producer, and the transaction that is open."""

    def __init__(self, producer: Any, name: str, partition: int, delivery_timeout_s: float) -> None:
        self._producer, self._name, self._partition = producer, name, partition
        self._timeout_s = delivery_timeout_s
        self.lane = Lane(partition, delivery_timeout_s, failure_of)
        self.began_at: float | None = None
        self.committed: int | None = None

    async def fence(self) -> None:
        """Take the transactional id over, which ends the transaction that its last owner left open. Raises Refusal."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.start()
                # start may return before the brokers have given us the id; whoever begins waits for it
                await self._producer.begin_transaction()
                await self._producer.abort_transaction()
        except (KafkaError, TimeoutError) as error:
            raise Refusal(
                f"transactional id {self._name!r} is not available ({explained(error)}): check the brokers, the right "
                "to write with it, and delivery.transaction_timeout_ms against their transaction.max.timeout.ms"
            ) from error

    async def send(self, topic: str, records: Sequence[Output], in_flight_batches_max: int) -> None:
        await self._begin()
        sent = 0
        while sent < len(records):
            batch = self._producer.create_batch()
            count = fill(batch, records, sent)
            if count == 0:
                self.lane.fail(*too_large(topic, self._partition))
            await self.lane.confirm(leave=in_flight_batches_max - 1)
            try:
                # the client's own limit for it is `timeout_s` too
                delivered = await self._producer.send_batch(batch, topic, partition=self._partition)
            except KafkaError as error:
                self.lane.fail(f"{topic}-{self._partition} takes no outputs: {explained(error)}", error)
            self.lane.add(topic, count, delivered)
            sent += count

    async def commit(self, place: TopicPartition, next_offset: int, group: str) -> None:
        await self._begin()
        # aiokafka commits what arrived, also where a batch failed
        await self.lane.confirm(leave=0)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._producer.send_offsets_to_transaction({place: next_offset}, group)
                await self._producer.commit_transaction()
        except (KafkaError, TimeoutError) as error:
            self.lane.fail(
                f"a transaction of {place.topic}-{place.partition} can't be committed: {explained(error)}", error
            )
        self.began_at, self.committed = None, next_offset

    async def close(self) -> None:
        """Abort what is open, if that can be, and disconnect."""
        self.lane.abandon()
        with suppress(KafkaError, AssertionError, TimeoutError):
            if self.began_at is not None and not self.lane.failed:
                await asyncio.wait_for(self._producer.abort_transaction(), STOP_TIMEOUT_S)
        self._ignore_outcome()
        # the client would go on trying to send what brokers that are gone did not take
        with suppress(KafkaError, TimeoutError):
            await asyncio.wait_for(self._producer.stop(), 1.0 if self.lane.failed else STOP_TIMEOUT_S)

    async def _begin(self) -> None:
        await self.lane.confirm_done()
        if self.began_at is None:
            try:
                await asyncio.wait_for(self._producer.begin_transaction(), self._timeout_s)
            except (KafkaError, TimeoutError, AssertionError) as error:
                # what aiokafka asserts is that its producer has not failed for good before
                self.lane.fail(f"no transaction can be begun for {self._partition}: {one_line(error)}", error)
            self.began_at = now()

    def _ignore_outcome(self) -> None:
        """Ask for the outcome of a transaction that failed: asyncio would warn otherwise."""
        manager = getattr(self._producer, "_txn_manager", None)
        ended = getattr(manager, "_transaction_waiter", None)
        if ended is not None and ended.done() and not ended.cancelled():
            ended.exception()


def failure_of(told: str, error: BaseException) -> Refusal:
    """Return what a failure is raised as: another worker has the partition, or the delivery failed."""
    if isinstance(error, FENCING) or isinstance(error.__cause__, FENCING):
        return TakenOverError(f"{told}: another worker took the partition over, or the transaction was open too long")
    return DeliveryError(told)


def transactional_id_of(group: str, topic: str, partition: int) -> str:
    """Return a partition's transactional id: no topic has a colon in its name, so that no two share one."""
    return f"{group}:{topic}:{partition}"


def committed_offset(kafka: KafkaSection, group: str, topic: str, partition: int) -> int | None:
    """Return the next offset that a group has committed, None where it has none, transactions that are being ended
    waited for.

    Raises Refusal where the brokers do not tell in time.
    """
    with refusing(kafka):
        consumer = KafkaConsumer(
            **kafka_python_arguments(kafka),
            group_id=group,
            enable_auto_commit=False,
            # what a transaction has pending is not there yet: the brokers say so, and the client asks again
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        with closing(consumer):
            found: int | None = consumer.committed(
                KafkaPythonPartition(topic, partition), timeout_ms=kafka.connect_timeout_ms
            )
            return found

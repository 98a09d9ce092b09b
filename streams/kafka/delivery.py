"""The output side: every output to its topic, in the partition of its input, in order, and confirmed.

One idempotent producer serves all partitions. `send` hands outputs over and returns; `flush` waits until the brokers
have every one of them, which must be before a checkpoint is written. The first delivery of a partition that fails
raises, and so does each later call: no output passes it.

After a crash some outputs are behind the last checkpoint's end offsets already. `tail` reads them and returns the
highest cause, below which no output is sent again.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Literal, NamedTuple, NoReturn

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from thalweg.schemas.records import Cause, Output, Outputs
from thalweg.streams.kafka.consume import cause_of
from thalweg.streams.kafka.refusals import explained, one_line, refusal_of, unreadable_batch
from thalweg.streams.kafka.security import KafkaSection, aiokafka_arguments
from thalweg.streams.kafka.topics import TopicsSection
from thalweg.streams.refusal import Refusal

BATCH_BYTES = 128 * 1024
STOP_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
OPEN_TRANSACTION_PAUSE_S = 0.05
FETCH_PAUSE_MS = 20

Isolation = Literal["read_uncommitted", "read_committed"]


class DeliveryError(Refusal):
    """An output was not delivered; the partition must stop, and resume from its checkpoint."""


class OutputsLostError(Refusal):
    """An output topic ends below what a checkpoint saw written to it."""


class OpenTransactionError(Refusal):
    """An output topic holds outputs of which it is not decided yet whether they count."""


class Tail(NamedTuple):
    """What is in an output partition from some offset on: where it ends, and our highest cause in it."""

    end_offset: int
    cause: Cause | None


class Delivery:
    """Sends outputs and knows, per output partition, up to which offset they are confirmed.

    An idempotent client would retry for ever against brokers that are gone, so `delivery_timeout_ms` bounds how long
    an output may stay unconfirmed.
    """

    commits_offsets = False

    def __init__(
        self,
        kafka: KafkaSection,
        topics: TopicsSection,
        *,
        delivery_timeout_ms: int = 60_000,
        in_flight_batches_max: int = 64,
        compression_type: Literal["gzip"] | None = None,
        new_producer: Callable[..., Any] = AIOKafkaProducer,
    ) -> None:
        """Make it; `start` connects. Of each partition at most `in_flight_batches_max` of 128 KiB are unconfirmed."""
        self._kafka, self._topics = kafka, topics
        self._delivery_timeout_s = delivery_timeout_ms / 1000
        self._in_flight_batches_max = in_flight_batches_max
        self._compression_type = compression_type
        self._lanes: dict[int, Lane] = {}
        self._starting = asyncio.Lock()
        self._new_producer = new_producer
        self._producer: Any = None

    async def __aenter__(self) -> "Delivery":
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Connect, unless it is connected. Raises Refusal where no broker answers or a secret is missing."""
        async with self._starting:
            if self._producer is not None:
                return
            producer = self._new_producer(
                **aiokafka_arguments(self._kafka),
                acks="all",
                enable_idempotence=True,
                # the client's own limit, of 40 s, would come first where brokers are away
                request_timeout_ms=int(self._delivery_timeout_s * 1000),
                max_batch_size=BATCH_BYTES,
                compression_type=self._compression_type,
            )
            try:
                await producer.start()
            except KafkaError as error:
                refusal = await asyncio.to_thread(refusal_of, error, self._kafka)
                raise refusal or Refusal(one_line(error)) from error
            self._producer = producer

    async def open(self, partition: int) -> int | None:
        """Return None: what was emitted before only the topics tell."""
        return None

    def is_due(self, partition: int) -> bool:
        """Return False: readers see what is sent at once."""
        return False

    async def commit(self, partition: int, next_offset: int) -> None:
        """Do nothing: there are no transactions."""

    def committed(self, partition: int) -> int | None:
        """Return None: it commits no offsets."""
        return None

    async def stop(self) -> None:
        """Disconnect, if it is connected; what is unconfirmed may or may not arrive. Call `flush` first."""
        if self._producer is None:
            return
        failed = any(lane.failed for lane in self._lanes.values())
        for lane in self._lanes.values():
            lane.abandon()
        # the client would go on trying to send what brokers that are gone did not take
        with suppress(TimeoutError):
            await asyncio.wait_for(self._producer.stop(), 1.0 if failed else STOP_TIMEOUT_S)

    async def send(self, partition: int, outputs: Outputs) -> None:
        """Hand over what a block made, each topic's in its order. Raises DeliveryError if anything failed so far."""
        lane = self._lane(partition)
        for topic, records in zip(self._topics.outputs, outputs, strict=True):
            if records:
                await self._send(lane, topic, partition, records)

    async def flush(self, partition: int) -> dict[str, int]:
        """Wait until all that was sent is confirmed; return the end offset in each topic that something went to.

        Raises DeliveryError if anything failed, or stayed unconfirmed too long.
        """
        lane = self._lane(partition)
        await lane.confirm(leave=0)
        return dict(lane.end_offsets)

    async def close(self, partition: int) -> None:
        """Drop what is known of a partition, when it is given up."""
        lane = self._lanes.pop(partition, None)
        if lane is not None:
            lane.abandon()

    async def _send(self, lane: "Lane", topic: str, partition: int, records: Sequence[Output]) -> None:
        sent = 0
        while sent < len(records):
            batch = self._producer.create_batch()
            count = fill(batch, records, sent)
            if count == 0:
                lane.fail(*too_large(topic, partition))
            await lane.confirm(leave=self._in_flight_batches_max - 1)
            try:
                # the client's own limit for it is `delivery_timeout_s` too
                delivered = await self._producer.send_batch(batch, topic, partition=partition)
            except KafkaError as error:
                lane.fail(f"{topic}-{partition} takes no outputs: {explained(error)}", error)
            is_first = topic not in lane.end_offsets
            lane.add(topic, count, delivered)
            sent += count
            if is_first:
                # The brokers take any sequence number from a producer that they don't know: were this batch refused,
                # the one behind it would pass. Later ones must go on where those before ended.
                await lane.confirm(leave=0)

    def _lane(self, partition: int) -> "Lane":
        if partition not in self._lanes:
            self._lanes[partition] = Lane(partition, self._delivery_timeout_s)
        return self._lanes[partition]


class Lane:
    """The batches of one partition that are on their way, oldest first."""

    def __init__(
        self,
        partition: int,
        delivery_timeout_s: float,
        failure_of: Callable[[str, BaseException], Refusal] = lambda told, error: DeliveryError(told),
    ) -> None:
        """Make an empty one; `failure_of` returns the exception of a failure, given its line and its cause."""
        self._partition, self._delivery_timeout_s = partition, delivery_timeout_s
        self._failure_of = failure_of
        self._in_flight: deque[tuple[str, int, float, asyncio.Future[Any]]] = deque()
        self._failure: Refusal | None = None
        self.end_offsets: dict[str, int] = {}

    @property
    def failed(self) -> bool:
        """Whether a delivery failed, after which nothing more is taken."""
        return self._failure is not None

    def add(self, topic: str, count: int, delivered: asyncio.Future[Any]) -> None:
        """Note a batch that was handed over."""
        self._in_flight.append((topic, count, now() + self._delivery_timeout_s, delivered))

    async def confirm(self, leave: int) -> None:
        """Wait for the oldest batches until at most `leave` are on their way; look at all that are done already."""
        if self._failure is not None:
            raise self._failure
        while self._in_flight and (len(self._in_flight) > leave or self._in_flight[0][3].done()):
            topic, count, deadline, delivered = self._in_flight[0]
            try:
                if not delivered.done():
                    await asyncio.wait_for(delivered, max(0.0, deadline - now()))
                metadata = delivered.result()
            except TimeoutError as error:
                self.fail(f"{topic}-{self._partition}: {count} outputs unconfirmed for too long", error)
            except KafkaError as error:
                self.fail(f"{topic}-{self._partition}: {count} outputs refused: {explained(error)}", error)
            self._in_flight.popleft()
            self.end_offsets[topic] = metadata.offset + count

    async def confirm_done(self) -> None:
        """Look at all that are done already, without waiting."""
        await self.confirm(leave=len(self._in_flight))

    def fail(self, told: str, error: BaseException) -> NoReturn:
        """Raise a failure now and at every later call."""
        self._failure = self._failure_of(told, error)
        self.abandon()
        raise self._failure from error

    def abandon(self) -> None:
        """Stop waiting. Failures that no caller awaits cause no warning."""
        for *_, delivered in self._in_flight:
            delivered.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._in_flight.clear()


def too_large(topic: str, partition: int) -> tuple[str, BaseException]:
    """Return the failure of an output that the client puts into no batch."""
    return f"an output for {topic}-{partition} fits in no batch", MessageSizeTooLargeError()


def now() -> float:
    """Return the running event loop's time in seconds."""
    return asyncio.get_running_loop().time()


def fill(batch: Any, records: Sequence[Output], start: int) -> int:
    """Append records until the batch is full; return how many it took."""
    append = batch.append
    for count in range(len(records) - start):
        _, value, key, headers = records[start + count]
        if append(timestamp=None, key=key, value=value, headers=list(headers)) is None:
            return count
    return len(records) - start


async def tail(
    kafka: KafkaSection, topic: str, partition: int, from_offset: int, source: str, *, wait_ms: int = 60_000
) -> Tail:
    """Read what is committed of an output partition, from an offset to its end.

    Causes of other input topics than `source` do not count. What transactions that are open hold is not decided yet:
    it waits for their end. Raises OutputsLostError where the partition ends below `from_offset`, OpenTransactionError
    where a transaction is open for longer than `wait_ms`, Refusal where the brokers do not answer.
    """
    async with _reading(kafka, topic, partition, "read_uncommitted") as (consumer, place):
        end = (await consumer.end_offsets([place]))[place]
    if end < from_offset:
        raise OutputsLostError(
            f"{topic}-{partition} ends at offset {end}, but {from_offset} was reached before: the topic was "
            "created again or lost records; restore it, or start with an empty checkpoint folder and new topics"
        )
    async with _reading(kafka, topic, partition, "read_committed") as (consumer, place):
        deadline = now() + wait_ms / 1000
        while (decided := (await consumer.end_offsets([place]))[place]) < end:
            if now() > deadline:
                raise OpenTransactionError(
                    f"{topic}-{partition} holds a transaction that is open since offset {decided}: have its "
                    "producer end it, or wait until the brokers abort it"
                )
            await asyncio.sleep(OPEN_TRANSACTION_PAUSE_S)
        begin = (await consumer.beginning_offsets([place]))[place]
        consumer.seek(place, max(begin, from_offset))
        return Tail(end, await _highest_cause(consumer, place, end, source))


async def end_of(kafka: KafkaSection, topic: str, partition: int) -> int:
    """Return a partition's end offset, of what is committed. Raises Refusal where the brokers do not answer."""
    async with _reading(kafka, topic, partition, "read_committed") as (consumer, place):
        end: int = (await consumer.end_offsets([place]))[place]
        return end


async def record_at(kafka: KafkaSection, topic: str, partition: int, offset: int) -> bytes | None:
    """Return the value of the record at an offset, None where there is no record or it has no value.

    Raises Refusal where the brokers do not answer.
    """
    async with _reading(kafka, topic, partition, "read_committed") as (consumer, place):
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, offset)
        while await consumer.position(place) < min(offset + 1, end):
            for record in await _fetch(consumer, place, max_records=1):
                return record.value if record.offset == offset else None
        return None


@asynccontextmanager
async def _reading(
    kafka: KafkaSection, topic: str, partition: int, isolation_level: Isolation
) -> AsyncIterator[tuple[Any, Any]]:
    """Give a consumer of one partition. Raises Refusal for what Kafka raises."""
    place = TopicPartition(topic, partition)
    consumer = AIOKafkaConsumer(
        **aiokafka_arguments(kafka),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level=isolation_level,
    )
    try:
        await consumer.start()
        try:
            consumer.assign([place])
            yield consumer, place
        finally:
            await consumer.stop()
    except Refusal:
        raise
    except Exception as error:
        if (unreadable := unreadable_batch(error)) is not None:
            raise unreadable from error
        if not isinstance(error, KafkaError | TimeoutError):
            raise
        raise Refusal(f"{topic}-{partition} can't be read: {explained(error)}") from error


async def _highest_cause(consumer: Any, place: TopicPartition, end: int, source: str) -> Cause | None:
    highest: Cause | None = None
    while await consumer.position(place) < end:
        for record in await _fetch(consumer, place):
            found = cause_of(record)
            if found is not None and found[0] == source and (highest is None or found[1] > highest):
                highest = found[1]
    return highest


async def _fetch(consumer: Any, place: TopicPartition, max_records: int | None = None) -> Sequence[Any]:
    """Fetch until there are records or the position moved. Raises TimeoutError where neither happens for long.

    It looks often: the client does not report that the position moved past the marker of a transaction, and a
    topic of committed outputs ends with one.
    """
    before = await consumer.position(place)
    deadline = now() + READ_TIMEOUT_S
    while now() < deadline:
        found = await consumer.getmany(place, timeout_ms=FETCH_PAUSE_MS, max_records=max_records)
        fetched: Sequence[Any] = found.get(place, ())
        if fetched or await consumer.position(place) > before:
            return fetched
    raise TimeoutError(f"nothing came for {READ_TIMEOUT_S:g} s")

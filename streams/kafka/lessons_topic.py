"""The topic `lessons` as a worker reads it, outside of its group, and its way into the input for merges.

Two consumers: one follows all sources for as long as the worker runs, the other looks up what is older. Both read what
is committed.
"""

import asyncio
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from thalweg.streams.kafka.refusals import explained, one_line, unreadable_batch
from thalweg.streams.kafka.security import KafkaSection, aiokafka_arguments
from thalweg.streams.kafka.topics import TopicsSection
from thalweg.streams.refusal import Refusal

NEWEST_RECORDS = 200
"""So many offsets before its end a source is followed from."""
APPEND_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0
FETCH_PAUSE_MS = 20


class Placed(NamedTuple):
    """A record of the topic `lessons`, by its offset."""

    offset: int
    value: bytes


class KafkaLessons:
    """The topic on the brokers of a configuration."""

    def __init__(self, kafka: KafkaSection, topics: TopicsSection) -> None:
        """Name them; `follow` connects."""
        self._kafka, self._topic, self._input = kafka, topics.lessons, topics.interactions
        self._following: Any = None
        self._looking: Any = None
        self._producer: Any = None
        self._lock = asyncio.Lock()

    async def follow(self, sources: int) -> None:
        """Connect, and read near the end of each source on. Raises Refusal where no broker answers."""
        try:
            self._following, self._looking = await self._consumer(), await self._consumer()
            places = [TopicPartition(self._topic, source) for source in range(sources)]
            self._following.assign(places)
            begins = await self._following.beginning_offsets(places)
            ends = await self._following.end_offsets(places)
            for place in places:
                self._following.seek(place, max(begins[place], ends[place] - NEWEST_RECORDS))
        except (KafkaError, TimeoutError) as error:
            raise self._refusal(error) from error

    async def poll(self, wait_s: float) -> dict[int, list[Placed]]:
        """Return what came since the last time, by source."""
        try:
            found = await self._following.getmany(timeout_ms=int(wait_s * 1000))
        except Exception as error:
            raise self._refusal(error) from error
        return {place.partition: placed(records) for place, records in found.items()}

    async def bounds(self, source: int) -> tuple[int, int]:
        """Return the first offset of a source that is there, and its end."""
        place = TopicPartition(self._topic, source)
        try:
            begin = (await self._looking.beginning_offsets([place]))[place]
            return begin, (await self._looking.end_offsets([place]))[place]
        except (KafkaError, TimeoutError) as error:
            raise self._refusal(error) from error

    async def read(self, source: int, offset: int) -> tuple[list[Placed], int]:
        """Return some records from an offset on, and where to read on; that is `offset` again at the end."""
        place = TopicPartition(self._topic, source)
        async with self._lock:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    if place not in self._looking.assignment():
                        self._looking.assign([place])
                    end = (await self._looking.end_offsets([place]))[place]
                    if offset >= end:
                        return [], offset
                    self._looking.seek(place, offset)
                    while (following := await self._looking.position(place)) < end:
                        found = await self._looking.getmany(place, timeout_ms=FETCH_PAUSE_MS)
                        if records := found.get(place):
                            return placed(records), records[-1].offset + 1
                    return [], following
            except Exception as error:
                raise self._refusal(error) from error

    async def append(self, partition: int, value: bytes) -> None:
        """Append a record to the input's partition. Raises OSError where the brokers do not take it."""
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                if self._producer is None:
                    arguments = aiokafka_arguments(self._kafka)
                    producer = AIOKafkaProducer(**arguments, acks="all", enable_idempotence=True)
                    await producer.start()
                    self._producer = producer
                await self._producer.send_and_wait(self._input, value, partition=partition)
        except (KafkaError, TimeoutError) as error:
            raise OSError(one_line(error)) from error

    async def stop(self) -> None:
        """Disconnect."""
        for client in (self._following, self._looking, self._producer):
            if client is not None:
                await client.stop()

    async def _consumer(self) -> Any:
        consumer = AIOKafkaConsumer(
            **aiokafka_arguments(self._kafka),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
        )
        await consumer.start()
        return consumer

    def _refusal(self, error: Exception) -> Exception:
        """Return what an error is raised as: a refusal, if it is a client's."""
        if (unreadable := unreadable_batch(error)) is not None:
            return unreadable
        if isinstance(error, KafkaError | TimeoutError):
            return Refusal(f"{self._topic} can't be read: {explained(error)}")
        return error


def placed(records: list[Any]) -> list[Placed]:
    """Return consumed records as what is needed of them."""
    return [Placed(record.offset, record.value or b"") for record in records]

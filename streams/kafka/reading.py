"""Reads partitions of a topic from the brokers that lead them, on the event loop that folds.

Faust's consumer fetches in another thread. A record that comes alone then passes two threads and some twenty turns
of two event loops, which cost more than its fold. Here one task for each broker asks for all partitions that it leads
and that have room, and hands what comes to them: five turns of one loop. Requests, answers, batches of records and
aborted transactions are aiokafka's; only what is committed is read.

What a fetch brings after its partition was given up is dropped: a partition that comes back is another `Place`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from logging import getLogger
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import KafkaError, NoError, OffsetOutOfRangeError, TopicAuthorizationFailedError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

FETCH_WAIT_MS = 500
"""How long a broker keeps a fetch for which there is nothing: so long a partition that is opened meanwhile waits."""
FULL_FETCH_WAIT_MS = 50
"""The same where a partition has no room: it may have some soon."""
FETCH_BYTES_MAX = 50 << 20
RETRY_S = 0.1
LOOK_S = 1.0
AT_ONCE_BYTES = 64 << 10
"""So many bytes of records are read on the event loop; more of them in a thread, as they take milliseconds."""
SMALL_FETCH_RECORDS = 200
"""Below so many records a fetch costs more than what it brings; a pause behind it lets more records come together."""

log = getLogger(__name__)


class Place:
    """Where a partition is read, from one opening to its end."""

    __slots__ = ("begin", "end", "has_room", "offset", "partition", "take")

    def __init__(
        self,
        partition: int,
        offset: int,
        *,
        has_room: Callable[[], bool],
        take: Callable[[list[Any]], Awaitable[None]],
        begin: Callable[[], Awaitable[int]],
    ) -> None:
        """Read a partition from an offset on, while it `has_room`; `begin` returns the first offset that is there."""
        self.partition, self.offset = partition, offset
        self.has_room, self.take, self.begin = has_room, take, begin
        self.end: int | None = None
        """The log's end, as of the last fetch."""


class Reading:
    """What is read of one topic."""

    def __init__(
        self,
        topic: str,
        new_client: Callable[[], AIOKafkaClient],
        *,
        partition_bytes_max: int,
        pause_ms: float,
        heard: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Make it; it connects when there is something to read.

        A fetch that brought little, and soon, is followed by a pause of `pause_ms`. `heard` is called when brokers
        answer, `fail` once, with what ended the reading.
        """
        self._topic, self._new_client = topic, new_client
        self._partition_bytes_max, self._pause_s = partition_bytes_max, pause_ms / 1000
        self._heard, self._fail = heard, fail
        self._places: dict[int, Place] = {}
        self._changed, self._room = asyncio.Event(), asyncio.Event()
        self._client: AIOKafkaClient | None = None
        self._readers: dict[int, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, place: Place) -> None:
        """Read a partition from now on, and no longer what was read of it before."""
        self._places[place.partition] = place
        self._changed.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"reading {self._topic}")

    def remove(self, partition: int) -> None:
        """Read a partition no longer."""
        self._places.pop(partition, None)

    def end(self, partition: int) -> int | None:
        """Return a partition's end, as of the last fetch."""
        place = self._places.get(partition)
        return None if place is None else place.end

    def made_room(self) -> None:
        """Note that a partition may have become fit to be fetched."""
        self._room.set()

    async def stop(self) -> None:
        """Read nothing more, and disconnect."""
        self._places.clear()
        tasks = [*self._readers.values(), *([] if self._task is None else [self._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            with suppress(KafkaError, OSError):
                await self._client.close()

    async def _run(self) -> None:
        """Keep a reader for each broker that leads a partition."""
        try:
            await self._connect()
            while True:
                self._changed.clear()
                for node, reader in list(self._readers.items()):
                    if reader.done():
                        del self._readers[node]
                        reader.result()
                leaders = {self._leader(place) for place in self._places.values()}
                if is_one_unknown := None in leaders:
                    self._look_for_leaders()
                for leader in leaders:
                    if leader is not None and leader not in self._readers:
                        self._readers[leader] = asyncio.get_running_loop().create_task(self._read(leader))
                with suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if is_one_unknown else LOOK_S):
                        await self._changed.wait()
        except Exception as error:
            self._fail(error)

    async def _connect(self) -> None:
        client = self._new_client()
        while True:
            try:
                await client.bootstrap()
                break
            except KafkaError as error:
                log.warning("%s can't be read yet: %s", self._topic, error)
                await asyncio.sleep(RETRY_S)
        self._client = client
        await client.set_topics([self._topic])

    async def _read(self, node: int) -> None:
        """Read what a broker leads, as long as it leads something."""
        assert self._client is not None
        now = asyncio.get_running_loop().time
        try:
            while places := [place for place in self._places.values() if self._leader(place) == node]:
                ready = [place for place in places if place.has_room()]
                if not ready:
                    self._room.clear()
                    # a closing or opening partition wakes nobody, so look again soon
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_S):
                            await self._room.wait()
                    continue
                asked_at = now()
                count = await self._fetch(node, ready, is_partial=len(ready) < len(places))
                # where the broker had to wait for a record, no other is to be expected at once
                if 0 < count < SMALL_FETCH_RECORDS and now() - asked_at < 2 * self._pause_s:
                    await asyncio.sleep(self._pause_s)
        finally:
            self._changed.set()

    async def _fetch(self, node: int, ready: Sequence[Place], *, is_partial: bool) -> int:
        """Fetch once; return how many records came."""
        assert self._client is not None
        asked = {place.partition: (place, place.offset) for place in ready}
        topics = [(self._topic, [(place.partition, place.offset, self._partition_bytes_max) for place in ready])]
        wait_ms = FULL_FETCH_WAIT_MS if is_partial else FETCH_WAIT_MS
        try:
            answer = await self._client.send(node, FetchRequest(wait_ms, 1, FETCH_BYTES_MAX, READ_COMMITTED, topics))
        except KafkaError as error:
            log.warning("%s can't be fetched from broker %s: %s", self._topic, node, error)
            self._look_for_leaders()
            await asyncio.sleep(RETRY_S)
            return 0
        self._heard()
        count = 0
        for _, partitions in answer.topics:
            for partition, code, end, *others in partitions:
                place, offset = asked[partition]
                if place is not self._places.get(partition) or place.offset != offset:
                    continue
                if (kind := for_code(code)) is not NoError:
                    await self._bear(place, kind)
                    continue
                place.end = end
                # in front of the records are, last, the transactions that were aborted; a preferred replica from 11 on
                aborted = others[-2] if answer.API_VERSION < 11 else others[-3]
                count += await self._take(place, aborted, others[-1])
        return count

    async def _take(self, place: Place, aborted: Any, value: bytes) -> int:
        """Hand over the records that a fetch brought; return how many."""
        if not value:
            return 0
        found = PartitionRecords(
            TopicPartition(self._topic, place.partition),
            MemoryRecords(value),
            aborted,
            place.offset,
            None,
            None,
            True,
            READ_COMMITTED,
        )
        records = list(found) if len(value) <= AT_ONCE_BYTES else await asyncio.to_thread(list, found)
        place.offset = found.next_fetch_offset
        if records and place is self._places.get(place.partition):
            await place.take(records)
        return len(records)

    async def _bear(self, place: Place, kind: type[KafkaError]) -> None:
        """Do what an error of one partition needs. Raises it where nothing helps."""
        if kind is TopicAuthorizationFailedError:
            raise kind(self._topic)
        if kind is OffsetOutOfRangeError:
            # what comes from there does not follow what came before, and is refused
            place.offset = await place.begin()
            return
        log.info("%s-%d can't be fetched yet: %s", self._topic, place.partition, kind.__name__)
        self._look_for_leaders()
        await asyncio.sleep(RETRY_S)

    def _leader(self, place: Place) -> int | None:
        """Return the broker that leads a partition, None where that is not known."""
        assert self._client is not None
        leader: int | None = self._client.cluster.leader_for_partition(TopicPartition(self._topic, place.partition))
        return None if leader is None or leader < 0 else leader

    def _look_for_leaders(self) -> None:
        if self._client is not None:
            self._client.force_metadata_update()

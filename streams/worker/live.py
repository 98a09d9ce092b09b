"""The worker as a service of questions sees it: its open partitions, the other workers, and the way into the input."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.security import aiokafka_arguments
from thalweg.streams.partition.partition import Partition
from thalweg.streams.worker.worker import Scoring

APPEND_TIMEOUT_S = 3.0


class LiveWorker:
    """A worker's state for those who ask; its methods are called in the thread of the service."""

    def __init__(
        self, loaded: Loaded, scoring: Scoring, distribution: Callable[[], Mapping[str, Mapping[str, Any]]]
    ) -> None:
        """Look into a worker's handler; `distribution`: the group's partitions by URL and topic."""
        self._loaded, self._scoring, self._distribution = loaded, scoring, distribution
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self.partitions = 0
        """How many partitions the input has; 0 until the topics were looked at."""
        self.url = ""
        """By which other workers reach this one."""

    def opened(self) -> dict[int, Partition]:
        """Return the partitions that this worker has open."""
        return {number: each.fold for number, each in self._scoring.partitions.copy().items()}

    def url_of(self, partition: int) -> str | None:
        """Return the URL of the other worker that the group gave a partition; None where there is none."""
        topic = self._loaded.topics.interactions
        for url, topics in dict(self._distribution()).items():
            if partition in topics.get(topic, ()) and url.rstrip("/") != self.url:
                return url
        return None

    async def append(self, partition: int, key: bytes, record: bytes) -> int:
        """Append a record to the input and return its offset. Raises OSError where the brokers do not take it."""
        try:
            async with asyncio.timeout(APPEND_TIMEOUT_S):
                producer = await self._started()
                sent = await producer.send_and_wait(
                    self._loaded.topics.interactions, record, key=key, partition=partition
                )
        except (KafkaError, TimeoutError) as error:
            raise OSError(f"the input does not take the request: {type(error).__name__}") from error
        return int(sent.offset)

    async def close(self) -> None:
        """Disconnect from the brokers."""
        if self._producer is not None:
            await self._producer.stop()

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                arguments = aiokafka_arguments(self._loaded.kafka)
                producer = AIOKafkaProducer(**arguments, acks="all", enable_idempotence=True)
                await producer.start()
                self._producer = producer
            return self._producer

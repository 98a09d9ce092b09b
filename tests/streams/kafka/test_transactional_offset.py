"""The group's offset tells what was emitted: input that is only folded again does not set it back."""

import asyncio
from typing import Any

from thalweg.schemas.records import Outputs
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection
from thalweg.streams.kafka.transactions import TransactionalDelivery


class Producer:
    """Notes what is committed; everything succeeds at once."""

    def __init__(self, **named: Any) -> None:
        self.committed: list[int] = []

    async def nothing(self) -> None:
        """Succeed."""

    start = stop = begin_transaction = abort_transaction = commit_transaction = nothing

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        self.committed += offsets.values()


def test_no_offset_below_the_groups_is_committed() -> None:
    """A checkpoint that is due over input below it commits nothing; what comes behind it is committed again."""

    async def deliver() -> list[int]:
        producer = Producer()

        async def offset_of(partition: int) -> int:
            return 20

        delivery = TransactionalDelivery(
            KafkaSection(), TopicsSection(), "group", new_producer=lambda **named: producer, offset_of=offset_of
        )
        assert await delivery.open(0) == 20
        for next_offset in (5, 20, 25):
            await delivery.send(0, Outputs([], [], [], [], []))
            await delivery.commit(0, next_offset)
        await delivery.close(0)
        return producer.committed

    assert asyncio.run(deliver()) == [25]

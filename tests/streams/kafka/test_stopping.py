"""A worker that is about to end, and whose group rebalances meanwhile."""

import asyncio
from typing import Any, cast

from faust.types import TP
from thalweg.streams.kafka.blocks import block_app
from thalweg.streams.kafka.security import KafkaSection


def test_a_rebalance_of_a_stopping_worker_does_not_disconnect_it() -> None:
    """What it still has to commit, and its leave, need the consumer: its end would wait for brokers in vain."""

    async def play() -> list[str]:
        app: Any = block_app("group", kafka=KafkaSection(), source="in", handler=cast(Any, None))
        closed: list[str] = []

        class Consumer:
            def close(self) -> None:
                closed.append("closed")

        app._consumer = Consumer()
        app._stopped.set()
        assert app.should_stop
        await app._on_partitions_revoked({TP("in", 0)})
        await app._on_partitions_assigned({TP("in", 0)})
        return closed

    assert asyncio.run(play()) == []

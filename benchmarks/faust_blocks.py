"""Events a second through Faust: an agent for every event, against whole blocks; both parse and re-emit each event.

    python -m benchmarks.faust_blocks

Everything runs in one go on a broker of its own, with 1 and with 4 partitions. Compare the ratios: absolutes depend on
the machine. Neither side folds anything; blocks are acknowledged every 100 000 events, after all outputs are confirmed.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import faust
import msgspec
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table
from thalweg.schemas.records import Cause, Output, Outputs, Record
from thalweg.streams.kafka.blocks import BlockApp, LogBounds, block_app
from thalweg.streams.kafka.delivery import Delivery
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection, create

from tests.kafka.broker import Broker

EVENTS = {"agent": 30_000, "blocks": 600_000}
ACKNOWLEDGE_EVERY = 100_000


class Event(msgspec.Struct):
    id: str
    user: str
    item: str
    ts: int


class Score(msgspec.Struct):
    id: str
    score: float
    cause: str


_decode = msgspec.json.Decoder(Event).decode
_encode = msgspec.json.Encoder().encode


def event(number: int) -> bytes:
    return (
        b'{"type":"impression","id":"i%09d","user":"u%06d","item":"v%06d","ts":%d,'
        b'"context":{"device":"phone","tab":"home","hour":"%02d","page":%d,"country":"de","app":"7.12"}}'
        % (number, number % 99_991, number % 9_973, 1_700_000_000_000 + number, number % 24, number % 7)
    )


def rescored(value: bytes, offset: int) -> bytes:
    parsed = _decode(value)
    return _encode(Score(parsed.id, 0.5, f"interactions-0-{offset}:0"))


def agent_app(topics: TopicsSection, servers: str) -> faust.App:
    app = faust.App(
        "bench-agent",
        broker=f"kafka://{servers}",
        topic_allow_declare=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    source = app.topic(topics.interactions, value_serializer="raw", key_serializer="raw")
    target = app.topic(topics.scores, value_serializer="raw", key_serializer="raw")

    @app.agent(source, concurrency=1)
    async def score(events: Any) -> None:
        async for each in events.events():
            await target.send(value=rescored(each.value, each.message.offset), partition=each.message.partition)

    return app


class Rescoring:
    """Parses and re-emits; no state."""

    def __init__(self, kafka: KafkaSection, topics: TopicsSection) -> None:
        self.delivery = Delivery(kafka, topics)
        self.started: asyncio.Task[None] | None = None
        self.unacknowledged: dict[int, int] = {}
        self.next: dict[int, int] = {}

    async def open(self, partition: int, log: LogBounds) -> int:
        if self.started is None:
            self.started = asyncio.ensure_future(self.delivery.start())
        await asyncio.shield(self.started)
        self.unacknowledged[partition], self.next[partition] = 0, log.begin
        return log.begin

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        await self.delivery.send(partition, await asyncio.to_thread(self.rescore, records))
        self.next[partition] = records[-1].offset + 1
        self.unacknowledged[partition] += len(records)
        return await self.idle(partition) if self.unacknowledged[partition] >= ACKNOWLEDGE_EVERY else None

    async def idle(self, partition: int) -> int | None:
        if not self.unacknowledged[partition]:
            return None
        await self.delivery.flush(partition)
        self.unacknowledged[partition] = 0
        return self.next[partition]

    async def close(self, partition: int) -> int | None:
        return await self.idle(partition)

    @staticmethod
    def rescore(records: Sequence[Record]) -> Outputs:
        outputs = [
            Output(Cause(each.offset, 0), rescored(each.value, each.offset))
            for each in records
            if each.value is not None
        ]
        return Outputs(outputs, [], [], [], [])


def blocks_app(topics: TopicsSection, servers: str) -> BlockApp:
    kafka = KafkaSection(bootstrap_servers=servers)
    handler = Rescoring(kafka, topics)
    app = block_app("bench-blocks", kafka=kafka, source=topics.interactions, handler=handler)

    @app.on_before_shutdown.connect
    async def stop(sender: Any, **_: Any) -> None:
        await handler.delivery.stop()

    return app


async def fill(servers: str, topic: str, partitions: int, count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=512 * 1024) as producer:
        for partition in range(partitions):
            numbers = range(partition, count, partitions)
            await send_all(producer, topic, partition, ((None, event(number)) for number in numbers))


async def send_all(
    producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes]]
) -> None:
    """Send keys and values to one partition in full batches, and wait for their deliveries."""
    deliveries = []
    each = iter(records)
    record = next(each, None)
    while record is not None:
        batch = producer.create_batch()
        while record is not None and batch.append(timestamp=None, key=record[0], value=record[1]) is not None:
            record = next(each, None)
        deliveries.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*deliveries)


def measure(design: str, partitions: int, servers: str) -> float:
    """Return events a second between the first outputs and the last."""
    count = EVENTS[design]
    names = [f"{design}-{partitions}-{name}" for name in ("in", "scores", "examples", "dlq", "rankings", "lessons")]
    topics = TopicsSection(
        **dict(zip(("interactions", "scores", "examples", "dead_letters", "rankings", "lessons"), names, strict=True)),
        partitions=partitions,
    )
    create(KafkaSection(bootstrap_servers=servers), topics)
    asyncio.run(fill(servers, topics.interactions, partitions, count))
    variables = {"BENCH_DESIGN": design, "BENCH_TOPICS": msgspec.json.encode(topics).decode(), "BENCH_SERVERS": servers}
    with tempfile.TemporaryDirectory() as folder, closing(KafkaConsumer(bootstrap_servers=servers)) as consumer:
        command = [sys.executable, "-m", "faust", "--datadir", folder, "-A", "benchmarks.faust_blocks"]
        worker = subprocess.Popen(
            [*command, "worker", "-l", "error", "--without-web"],
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
        )
        places = [TopicPartition(topics.scores, number) for number in range(partitions)]
        first: tuple[float, int] | None = None
        try:
            while True:
                done, now = sum(consumer.end_offsets(places).values()), time.monotonic()
                if done and first is None:
                    first = (now, done)
                if first is not None and done >= count:
                    return (done - first[1]) / (now - first[0])
                if worker.poll() is not None:
                    raise SystemExit(f"the worker ended with status {worker.returncode}")
                time.sleep(0.02)
        finally:
            worker.terminate()
            worker.wait(30)


def main() -> None:
    table = Table("partitions", "agent per event, events/s", "blocks, events/s", "ratio")
    with Broker(memory="512m") as broker:
        for partitions in (1, 4):
            agent, blocks = (measure(design, partitions, broker.bootstrap_servers) for design in ("agent", "blocks"))
            table.add_row(str(partitions), f"{agent:,.0f}", f"{blocks:,.0f}", f"{blocks / agent:.1f}")
    Console().print(table)


if "BENCH_DESIGN" in os.environ:
    _topics = msgspec.json.decode(os.environ["BENCH_TOPICS"], type=TopicsSection)
    _make = {"agent": agent_app, "blocks": blocks_app}[os.environ["BENCH_DESIGN"]]
    app = _make(_topics, os.environ["BENCH_SERVERS"])
elif __name__ == "__main__":
    main()

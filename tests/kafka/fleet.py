"""Workers in processes of their own, and what the brokers and the workers' folder say of them."""

import asyncio
import json
import os
import signal
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AiokafkaPartition
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import RetriableError

from tests.kafka.nursery import Worker, nursery

Answer = TypeVar("Answer")

READ_TIMEOUT_S = 180.0
LOOK_EVERY_S_MAX = 0.5
CALL_TIMEOUT_S = 60.0
"""What one question to the brokers may take; a client that hangs must not hang the suite."""


def within(seconds: float, what: str, call: Callable[[], Answer]) -> Answer:
    """Return what a call returns, or raise what it raises; fail with `what`, and leave it behind, after so long."""
    outcome: list[Callable[[], Answer]] = []

    def run() -> None:
        try:
            answer = call()
        except BaseException as error:
            raised = error

            def fail() -> Answer:
                raise raised

            outcome.append(fail)
        else:
            outcome.append(lambda: answer)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"waited {seconds:g} s in vain: {what}"
    return outcome[0]()


def wait_until(what: Callable[[], Any], why: str, seconds: float = 90.0) -> None:
    """Wait for something to become true; fail with `why` if it does not.

    Looking takes a quarter of the time at most: it makes clients anew, and what is waited for needs the processor.
    """
    deadline = time.monotonic() + seconds
    began = time.monotonic()
    while not what():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {why}"
        time.sleep(min(max(0.05, 3 * (time.monotonic() - began)), LOOK_EVERY_S_MAX))
        began = time.monotonic()


def administered(servers: str, what: str, call: Callable[[Any], Answer]) -> Answer:
    """Ask the brokers something through an admin client of its own, again while they say so, within a limit."""

    def ask() -> Answer:
        while True:
            try:
                with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
                    return call(admin)
            except RetriableError:  # a new broker makes the topic of the groups' offsets when it is first asked
                time.sleep(0.2)

    return within(CALL_TIMEOUT_S, what, ask)


def make_topic(servers: str, name: str, partitions: int, configs: Mapping[str, str] | None = None) -> None:
    options = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
    administered(servers, f"making {name}", lambda admin: admin.create_topics({name: options}, wait_for_metadata=True))


def delete_records(servers: str, topic: str, partition: int, below: int) -> None:
    places = {TopicPartition(topic, partition): below}
    administered(servers, f"deleting records of {topic}", lambda admin: admin.delete_records(places))


def committed(servers: str, group: str, topic: str) -> dict[int, int]:
    """Offsets that the group has committed, by partition."""
    found = administered(
        servers, f"the offsets of {group}", lambda admin: admin.list_group_offsets({group: None})[group]
    )
    return {place.partition: each.offset for place, each in found.items() if place.topic == topic}


def end_offsets(servers: str, topic: str, partitions: int, isolation_level: str = "read_uncommitted") -> dict[int, int]:
    """End offsets by partition; with `read_committed`, where the first transaction that is open begins."""
    places = [TopicPartition(topic, number) for number in range(partitions)]

    def ask() -> dict[int, int]:
        with closing(KafkaConsumer(bootstrap_servers=servers, isolation_level=isolation_level)) as consumer:
            return {place.partition: offset for place, offset in consumer.end_offsets(places).items()}

    return within(CALL_TIMEOUT_S, f"the ends of {topic}", ask)


def send(servers: str, topic: str, values: Mapping[int, Sequence[bytes]], **settings: Any) -> None:
    """Send values to their partitions and wait for all deliveries."""
    defaults = {"linger_ms": 20, "batch_size": 131_072, "compression_type": "gzip"}

    def deliver() -> None:
        with closing(KafkaProducer(bootstrap_servers=servers, **(defaults | settings))) as producer:
            futures = [
                producer.send(topic, value=value, partition=number) for number, each in values.items() for value in each
            ]
            producer.flush()
            assert all(future.succeeded() for future in futures)

    within(CALL_TIMEOUT_S, f"sending to {topic}", deliver)


def records_of(servers: str, topic: str, partition: int, isolation_level: str = "read_uncommitted") -> list[Any]:
    """Every record of a partition up to the end that there is now, in order; fails where they do not come."""
    place = AiokafkaPartition(topic, partition)
    deadline = time.monotonic() + READ_TIMEOUT_S

    async def read() -> list[Any]:
        options = {"isolation_level": isolation_level, "auto_offset_reset": "earliest", "enable_auto_commit": False}
        async with AIOKafkaConsumer(bootstrap_servers=servers, **options) as consumer:
            consumer.assign([place])
            end = (await consumer.end_offsets([place]))[place]
            records: list[Any] = []
            while (at := await consumer.position(place)) < end:
                for batch in (await consumer.getmany(place, timeout_ms=500)).values():
                    records += batch
                assert time.monotonic() < deadline, f"{topic}-{partition} was read up to {at} only, not to {end}"
            return records

    return within(READ_TIMEOUT_S + 5, f"reading {topic}-{partition}", lambda: asyncio.run(read()))


def log_of(servers: str, topic: str, partition: int) -> list[tuple[int, bytes]]:
    """Offset and value of every committed record of a partition."""
    return [(record.offset, record.value) for record in records_of(servers, topic, partition, "read_committed")]


def expected_state(log: Sequence[tuple[int, bytes]]) -> dict[str, int]:
    """What `block_worker` must have counted after this log."""
    checksum = 0
    for offset, value in log:
        checksum = zlib.crc32(b"%d %b" % (offset, value), checksum)
    return {"next": log[-1][0] + 1, "count": len(log), "checksum": checksum}


class Fleet:
    """Workers of one group over one topic, with one folder of checkpoints; at the end it kills what is left."""

    def __init__(self, servers: str, source: str, folder: Path, **options: Any) -> None:
        self.servers, self.source, self.folder, self.group = servers, source, folder, f"{source}-group"
        self.options = {
            "KAFKA": json.dumps({"bootstrap_servers": servers}),
            "CHECKPOINT_RECORDS": 1_000,
            "SECONDS_PER_BLOCK": 0,
            "FAIL_AT": -1,
            "PENDING_BYTES_MAX": 8 << 20,
        } | {name.upper(): value for name, value in options.items()}
        self.workers: list[Worker] = []

    def __enter__(self) -> "Fleet":
        self.folder.mkdir(exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()

    def start(self, **environ: str) -> Worker:
        options = self.options | {"FOLDER": self.folder, "GROUP": self.group, "SOURCE": self.source}
        variables = {f"THALWEG_TEST_{name}": str(value) for name, value in options.items()}
        arguments = ["-A", "tests.kafka.block_worker", "worker", "-l", "info", "--without-web"]
        log = self.folder / f"log-{len(self.workers)}"
        worker = nursery().start("faust", arguments, os.environ | variables | environ, log)
        self.workers.append(worker)
        return worker

    def stop(self, worker: Worker, number: signal.Signals = signal.SIGTERM) -> int:
        worker.send_signal(number)
        return worker.wait(90)

    def log(self, worker: Worker) -> str:
        return (self.folder / f"log-{self.workers.index(worker)}").read_text()

    def journal(self, what: str) -> list[tuple[int, int, int]]:
        """Process, partition and offset of every line of this kind, oldest first."""
        path = self.folder / "journal"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(pid), int(partition), int(offset)) for pid, kind, partition, offset in lines if kind == what]

    def states(self) -> dict[int, dict[str, int]]:
        """The newest checkpoint of every partition."""
        return {int(path.stem): json.loads(path.read_text()) for path in self.folder.glob("?.json")}

    def folded(self) -> int:
        return sum(state["count"] for state in self.states().values())

"""The worker with its real fold, against a Faust agent that only parses and re-emits each event; and its latency.

    python -m benchmarks.worker [--events N] [--rates 100,500,1000:0] [--seconds N]

Everything runs on a broker of its own, over the made-up log of `examples/live`. A backlog is folded with 1 and with 4
partitions; then events are sent one at a time at each rate to one partition. The worker runs in a process of its own
at the default configuration: it scores, learns, writes examples, and acknowledges at checkpoints. The first 3 seconds
of a rate are not counted. The sender's client waits 5 ms for more events, as clients do by default; `1000:0` is a rate
at which it does not. The worker's processor time without events is taken first. All default rates take ten minutes; so
do they, in three, with `--seconds 20`. Compare the ratios: absolutes depend on the machine.
"""

import argparse
import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2
from rich.console import Console
from rich.table import Table
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.encoder import Encoder
from thalweg.schemas.records import LogRecord
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection, create
from thalweg.streams.partition.partition import Partition

from benchmarks.faust_blocks import measure as measure_agent
from benchmarks.faust_blocks import send_all
from benchmarks.trickle import WARM_UP_S, Trickled, measure, processor_s
from examples.live.events import events
from tests.kafka.broker import Broker

THALWEG = [sys.executable, "-c", "from thalweg.streams.commands import main; main()"]
DEFAULT_LINGER_MS = 5.0
IDLE_S = 10
COLUMNS = (
    "events/s",
    "linger, ms",
    "reached",
    "median",
    "p99",
    "worst",
    "median, first / last 10 s",
    "p99, first / last 10 s",
    "missing",
    "worker, of a core",
    "µs an event",
    "less what idleness takes",
    "sender, of a core",
    "broker, of a core",
    "reader, of a core",
)


class Logged(NamedTuple):
    """A log, cut into partitions by its users' keys: pairs of key and value."""

    partitions: list[list[tuple[bytes, bytes]]]
    events: int
    impressions: int


class Shares(NamedTuple):
    """Microseconds an event, in one thread and without Kafka."""

    decode: float
    fold: float
    encode: float

    @property
    def all(self) -> float:
        return sum(self)


class _Keyed(msgspec.Struct):
    user: str
    type: str


def logged(count: int, partitions: int) -> Logged:
    decode = msgspec.json.Decoder(_Keyed).decode
    places: dict[str, int] = {}
    log = Logged([[] for _ in range(partitions)], count, 0)
    impressions = 0
    for line in islice(events(2 * count), count):
        event = decode(line)
        place = places.get(event.user)
        if place is None:
            place = places[event.user] = (murmur2(event.user.encode()) & 0x7FFFFFFF) % partitions
        log.partitions[place].append((event.user.encode(), line.rstrip(b"\n")))
        impressions += event.type == "impression"
    return log._replace(impressions=impressions)


async def send(servers: str, topic: str, log: Logged) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=512 * 1024) as producer:
        for number, records in enumerate(log.partitions):
            await send_all(producer, topic, number, records)


class Working(NamedTuple):
    """A worker's process, and what reads its log."""

    process: subprocess.Popen[bytes]
    told: Callable[[], str]


@contextmanager
def worker(servers: str, topics: TopicsSection) -> Iterator[Working]:
    """Run a worker that has its partitions."""
    with workers(servers, topics, 1) as [only]:
        yield only


@contextmanager
def workers(servers: str, topics: TopicsSection, count: int, **settings: str) -> Iterator[list[Working]]:
    """Run workers of one group, with one folder of checkpoints; one that is taken out of the list is not ended."""
    with tempfile.TemporaryDirectory() as folder:
        environ = {"THALWEG_KAFKA__BOOTSTRAP_SERVERS": servers, "THALWEG_METRICS__PORT": "0", "THALWEG_HTTP__PORT": "0"}
        environ["THALWEG_CHECKPOINT__DIRECTORY"] = f"{folder}/checkpoints"
        environ["THALWEG_WORKER__GROUP"] = f"{topics.interactions}-group"
        environ |= {
            f"THALWEG_TOPICS__{name.upper()}": str(value) for name, value in msgspec.structs.asdict(topics).items()
        }
        running: list[Working] = []
        for number in range(count):
            log = Path(folder) / f"log-{number}"
            with log.open("wb") as told:
                process = subprocess.Popen(
                    [*THALWEG, "worker"], env=os.environ | environ | settings, stdout=told, stderr=told
                )
            running.append(Working(process, log.read_text))
        started = running.copy()
        try:
            yield running
            for process, _ in running:
                process.terminate()
            for process, told_by in running:
                assert process.wait(60) == 0, told_by()
        finally:
            for process, _ in started:
                process.kill()
                process.wait()


def throughput(servers: str, log: Logged) -> float:
    """Return a worker's events a second between the first scores and the last."""
    partitions = len(log.partitions)
    topics = made_topics(servers, f"worker-{partitions}", partitions)
    asyncio.run(send(servers, topics.interactions, log))
    with worker(servers, topics) as only:
        return rate_of(servers, topics, log, [only])


def rate_of(servers: str, topics: TopicsSection, log: Logged, running: list[Working]) -> float:
    """Return the events a second of workers that fold what was sent, between the first scores and the last."""
    first: tuple[float, int] | None = None
    with closing(KafkaConsumer(bootstrap_servers=servers)) as consumer:
        while True:
            done, now = records_in(consumer, topics.scores, len(log.partitions)), time.monotonic()
            if done and first is None:
                first = (now, done)
            if first is not None and done >= log.impressions:
                return (done - first[1]) / (now - first[0]) * log.events / log.impressions
            for process, told in running:
                if process.poll() is not None:
                    raise SystemExit(told())
            time.sleep(0.05)


def records_in(consumer: KafkaConsumer, topic: str, partitions: int) -> int:
    """Return how many records a new topic has by now."""
    return sum(consumer.end_offsets([TopicPartition(topic, number) for number in range(partitions)]).values())


def made_topics(servers: str, name: str, partitions: int) -> TopicsSection:
    kinds = {"interactions": "in", "scores": "scores", "examples": "examples", "dead_letters": "dlq"}
    kinds |= {"rankings": "rankings", "lessons": "lessons"}
    topics = TopicsSection(partitions=partitions, **{key: f"{name}-{kind}" for key, kind in kinds.items()})
    create(KafkaSection(bootstrap_servers=servers), topics)
    return topics


def shares(log: Logged) -> Shares:
    """Take the fold's parts apart over the first partition's log, in blocks as a worker gets them."""
    partition = Partition(Configuration())
    partition.warm_up()
    records = [LogRecord(n, value, key) for n, (key, value) in enumerate(log.partitions[0])]
    with timed(Columnizer, "columns") as decode, timed(Encoder, "scores", "dead_letters", "examples") as encode:
        started = time.perf_counter()
        for start in range(0, len(records), 1000):
            partition.process(records[start : start + 1000])
        whole = time.perf_counter() - started
    each = 1e6 / len(records)
    return Shares(decode[0] * each, (whole - decode[0] - encode[0]) * each, encode[0] * each)


@contextmanager
def timed(owner: Any, *names: str) -> Iterator[list[float]]:
    """Add up the seconds that methods of a class take."""
    taken = [0.0]
    originals = {name: getattr(owner, name) for name in names}

    def timing(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                taken[0] += time.perf_counter() - started

        return call

    for name, function in originals.items():
        setattr(owner, name, timing(function))
    try:
        yield taken
    finally:
        for name, function in originals.items():
            setattr(owner, name, function)


def until_open(told: Callable[[], str]) -> None:
    """Wait until a worker has opened its partition."""
    while not re.search(r"resumes at offset", told()):
        time.sleep(0.2)


class Rate(NamedTuple):
    """So many events a second, and how long the sender's client waits for more."""

    events: int
    linger_ms: float

    @classmethod
    def of(cls, text: str) -> "Rate":
        """Read `1000` or `1000:0`."""
        events, _, linger_ms = text.partition(":")
        return cls(int(events), float(linger_ms or DEFAULT_LINGER_MS))


def trickled(broker: Broker, rates: Sequence[Rate], seconds: int) -> Iterator[tuple[Trickled, float]]:
    """Give what comes of each rate, with one worker, and that worker's share of a core without events."""
    servers = broker.bootstrap_servers
    topics = made_topics(servers, "trickle", 1)
    lines = events(sum(rate.events for rate in rates) * (seconds + WARM_UP_S) + 1)
    with worker(servers, topics) as (process, told):
        until_open(told)
        time.sleep(WARM_UP_S)
        used_s = processor_s(process.pid)
        time.sleep(IDLE_S)
        idle_cores = (processor_s(process.pid) - used_s) / IDLE_S
        for rate in rates:
            names, processes = (topics.interactions, topics.scores), (process.pid, broker.pid)
            yield measure(servers, names, processes, lines, rate.events, seconds, rate.linger_ms), idle_cores


def row_of(each: Trickled, idle_cores: float) -> list[str]:
    """Return the cells of one rate."""
    pairs = [f"{each.first(p):.1f} / {each.last(p):.1f}" for p in (50, 99)]
    per_event, idle_per_event = map(each.us_per_event, (each.worker_cores, idle_cores))
    return [
        f"{each.rate:,}",
        f"{each.linger_ms:g}",
        f"{each.events_per_s:,.0f}",
        *(f"{each.percentile(p):.1f}" for p in (50, 99, 100)),
        *pairs,
        str(each.missing),
        f"{each.worker_cores:.0%}",
        f"{per_event:.0f}",
        f"{per_event - idle_per_event:.0f}",
        f"{each.sender_cores:.0%}",
        f"{each.broker_cores:.0%}",
        f"{each.reader_cores:.0%}",
    ]


def compare(console: Console, servers: str, count: int) -> None:
    """Print throughput beside the agent's, and where the worker's time goes."""
    compared = Table("partitions", "agent per event, events/s", "worker, events/s", "ratio")
    spent = Table("partitions", "decode", "fold", "encode", "Kafka and the rest", title="µs an event, and its share")
    for partitions in (1, 4):
        log = logged(count, partitions)
        parts = shares(log)
        agent, ours = measure_agent("agent", partitions, servers), throughput(servers, log)
        compared.add_row(str(partitions), f"{agent:,.0f}", f"{ours:,.0f}", f"{ours / agent:.1f}")
        whole = 1e6 / ours
        cells = [*parts, whole - parts.all]
        spent.add_row(str(partitions), *(f"{cell:.1f} ({cell / whole:.0%})" for cell in cells))
    console.print(compared)
    console.print(spent)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=600_000, help="events of the backlog; 0: leave it out")
    parser.add_argument(
        "--rates",
        default="100,500,1000,5000,20000,100:0,1000:0,5000:0",
        help="events a second, each handed over by itself; :0 with no linger",
    )
    parser.add_argument("--seconds", type=int, default=60, help="how long each rate is measured")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    rates = [Rate.of(rate) for rate in options.rates.split(",") if rate]
    with Broker(memory="512m") as broker:
        if options.events:
            compare(console, broker.bootstrap_servers, options.events)
        late = Table(*COLUMNS, title="ms from sending an event to its score's arrival")
        for each, idle_cores in trickled(broker, rates, options.seconds) if rates else ():
            late.add_row(*row_of(each, idle_cores))
            console.print(f"{each.rate:,} events/s, linger {each.linger_ms:g} ms: median {each.percentile(50):.1f} ms")
        console.print(late)


if __name__ == "__main__":
    main()

"""Several workers that share a model: throughput with and without lessons, how late others learn, and a kill.

    python -m benchmarks.scaling [--events N] [--seconds N]

Everything runs on a broker of its own with 4 partitions, over the made-up log of `examples/live`. A backlog is folded
by one worker without lessons, then with lessons by 1, 2 and 4 workers. Then events are sent at 500 a second to two
workers, of which one is killed: the lag is that of the partitions it had. How late others learn is the time from a
lesson's record to that of the first merge in another partition that names it. Compare the ratios: workers share their
cores with the broker.
"""

import argparse
import asyncio
import json
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from rich.console import Console
from rich.table import Table
from thalweg.schemas.lessons import read_batch
from thalweg.streams.kafka.topics import TopicsSection

from benchmarks.worker import Logged, logged, made_topics, rate_of, records_in, send, workers
from tests.kafka.broker import Broker

PARTITIONS = 4
RATE = 500
LOOK_S = 0.1


class Folded(NamedTuple):
    """What came of a backlog: events a second, and milliseconds until others learn a lesson (none without lessons)."""

    events_per_s: float
    late_ms: "np.typing.NDArray[np.float64]"


def fold_backlog(servers: str, log: Logged, count: int, *, teach: bool) -> Folded:
    """Return what workers make of a backlog, from the first scores to the last."""
    topics = made_topics(servers, f"scaling-{count}-{teach}".lower(), PARTITIONS)
    asyncio.run(send(servers, topics.interactions, log))
    with workers(servers, topics, count, THALWEG_LESSONS__ENABLED=json.dumps(teach)) as running:
        rate = rate_of(servers, topics, log, running)
        if teach:
            time.sleep(3)  # the last merges
    return Folded(rate, lateness_ms(servers, topics) if teach else np.zeros(0))


def records_of(consumer: KafkaConsumer, topic: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield partition, timestamp in milliseconds and value of all records of a topic."""
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    left = {place for place, end in consumer.end_offsets(places).items() if end}
    limits = consumer.end_offsets(places)
    while left:
        for place, records in consumer.poll(1_000).items():
            for record in records:
                yield place.partition, record.timestamp, record.value or b""
        left = {place for place in left if consumer.position(place) < limits[place]}


def lateness_ms(servers: str, topics: TopicsSection) -> "np.typing.NDArray[np.float64]":
    """Return how long after a batch of lessons each other partition had a merge that names it."""
    named: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
    with closing(KafkaConsumer(bootstrap_servers=servers, fetch_max_bytes=1 << 24)) as consumer:
        for partition, timestamp, value in records_of(consumer, topics.interactions):
            if value.startswith(b'{"type":"merge"'):
                for source, upto in json.loads(value)["upto"].items():
                    numbers, times = named.setdefault((partition, int(source)), ([], []))
                    numbers.append(upto)
                    times.append(timestamp)
        late = []
        for source, timestamp, value in records_of(consumer, topics.lessons):
            last = read_batch(value).last
            for partition in range(PARTITIONS):
                numbers, times = named.get((partition, source), ([], []))
                at = bisect_left(numbers, last)
                if at < len(numbers):
                    late.append(times[at] - timestamp)
    return np.array(late, np.float64)


def lag_through_a_kill(servers: str, seconds: int) -> tuple[list[int], "np.typing.NDArray[np.float64]"]:
    """Return scores that were missing each tenth of a second, one of two workers killed half way, and lateness."""
    topics = made_topics(servers, "scaling-kill", PARTITIONS)
    log = logged(RATE * seconds, 1).partitions[0]
    lags: list[int] = []
    with (
        closing(KafkaConsumer(bootstrap_servers=servers)) as consumer,
        closing(KafkaProducer(bootstrap_servers=servers, linger_ms=5)) as producer,
        workers(servers, topics, 2) as running,  # which teach each other: the input has several partitions
    ):
        time.sleep(15)  # both have their partitions
        started, impressions, is_killed = time.monotonic(), 0, False
        looked = started
        for number, (key, value) in enumerate(log):
            while (early := started + number / RATE - time.monotonic()) > 0:
                time.sleep(early)
            producer.send(topics.interactions, value, key)
            impressions += b'"type":"impression"' in value
            if not is_killed and number > len(log) // 2:
                process, _ = running.pop(0)
                process.kill()
                process.wait()
                is_killed = True
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                lags.append(impressions - records_in(consumer, topics.scores, PARTITIONS))
        producer.flush()
    return lags, lateness_ms(servers, topics)


def longest_above(lags: Sequence[int], limit: int) -> float:
    """Return for how many seconds the lag was above a limit at most, without a break."""
    longest = at = 0
    for lag in lags:
        at = at + 1 if lag > limit else 0
        longest = max(longest, at)
    return longest * LOOK_S


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300_000, help="events of the backlog")
    parser.add_argument("--seconds", type=int, default=60, help="how long events are sent around the kill")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table("workers", "lessons", "events/s", "ratio", "p50 until others learn, ms", "p95")
    with Broker(memory="512m") as broker:
        servers, log = broker.bootstrap_servers, logged(options.events, PARTITIONS)
        plain = 0.0
        for count, teach in ((1, False), (1, True), (2, True), (4, True)):
            found = fold_backlog(servers, log, count, teach=teach)
            plain = plain or found.events_per_s
            late = [f"{np.percentile(found.late_ms, p):.0f}" if teach else "-" for p in (50, 95)]
            ratio = f"{found.events_per_s / plain:.2f}"
            table.add_row(str(count), "yes" if teach else "no", f"{found.events_per_s:,.0f}", ratio, *late)
        console.print(table)
        lags, late_ms = lag_through_a_kill(servers, options.seconds)
        p50, p95 = np.percentile(late_ms, (50, 95))
        console.print(
            f"{RATE} events/s, one of two workers killed: scores missing at most {max(lags):,}, more than {RATE // 10} "
            f"for {longest_above(lags, RATE // 10):.1f} s; others learn after {p50:.0f} ms (p50), {p95:.0f} ms (p95)"
        )


if __name__ == "__main__":
    main()

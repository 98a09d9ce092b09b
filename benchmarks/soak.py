"""An hour's worth of events at full speed: memory flat, nothing unacknowledged, lag back at zero.

    python -m benchmarks.soak [--events N] [--partitions N]

An hour at 2 000 events a second is 7.2 million. They are produced as fast as the machine allows while one worker scores
them, with limits that a few hundred thousand events fill, so that memory can be seen to stay where it is; its figures
come from its own `/metrics`. Topics keep a quarter of an hour.
"""

import argparse
import asyncio
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.request
from itertools import islice
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaProducer
from kafka.partitioner.default import murmur2
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topics import TopicsSection, create

from benchmarks.faust_blocks import send_all
from benchmarks.worker import THALWEG, _Keyed
from examples.live.events import events
from tests.kafka.broker import Broker

CHUNK = 20_000
AHEAD_EVENTS = 500_000
LIMITS = {"TABLE__ROWS_LIMIT": 8192, "JOINER__WAITING_LIMIT": 65_536, "BEHAVIORS__USERS_LIMIT": 131_072}


async def produce(
    servers: str, topic: str, partitions: int, count: int, produced: list[int], folded: list[int]
) -> None:
    """Send the log in chunks, never more than AHEAD_EVENTS ahead of what is folded."""
    decode = msgspec.json.Decoder(_Keyed).decode
    places: dict[str, int] = {}
    log = islice(events(2 * count, users=20_000, items=20_000), count)
    async with AIOKafkaProducer(bootstrap_servers=servers, max_batch_size=512 * 1024) as producer:
        while chunk := list(islice(log, CHUNK)):
            cut: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
            for line in chunk:
                user = decode(line).user
                place = places.setdefault(user, (murmur2(user.encode()) & 0x7FFFFFFF) % partitions)
                cut[place].append((user.encode(), line.rstrip(b"\n")))
            for number, records in enumerate(cut):
                await send_all(producer, topic, number, records)
            produced[0] += len(chunk)
            while produced[0] - folded[0] > AHEAD_EVENTS:
                await asyncio.sleep(0.1)


def figures(address: str) -> dict[str, float]:
    """Sum every metric of a worker over its labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=7_200_000)
    parser.add_argument("--partitions", type=int, default=1)
    options = parser.parse_args()
    console = Console()
    table = Table("events folded", "resident, MiB", "state, MiB", "lag", "not in a checkpoint", "events/s")
    with Broker(memory="512m") as broker, tempfile.TemporaryDirectory() as folder:
        servers = broker.bootstrap_servers
        topics = TopicsSection(partitions=options.partitions, retention_ms=900_000)
        create(KafkaSection(bootstrap_servers=servers), topics)
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": servers,
            "TOPICS__PARTITIONS": options.partitions,
            "METRICS__PORT": 0,
            "HTTP__PORT": 0,
        }
        own |= LIMITS | {"CHECKPOINT__DIRECTORY": f"{folder}/checkpoints"}
        environ = os.environ | {f"THALWEG_{name}": str(value) for name, value in own.items()}
        log = Path(folder) / "log"
        with log.open("wb") as told:
            worker = subprocess.Popen([*THALWEG, "worker"], env=environ, stdout=told, stderr=told)
        try:
            while (address := re.search(r"metrics at http://([\d.:]+)/", log.read_text())) is None:
                assert worker.poll() is None, log.read_text()
                time.sleep(0.5)
            produced, folded = [0], [0]
            work = produce(servers, topics.interactions, options.partitions, options.events, produced, folded)
            threading.Thread(target=lambda: asyncio.run(work), daemon=True).start()
            started, row = time.monotonic(), 0
            while True:
                now = figures(address[1])
                folded[0] = int(now.get("thalweg_events_total", 0))
                pending = int(now.get("thalweg_checkpoint_pending_events", 0))
                done = folded[0] >= options.events and not pending
                if folded[0] >= row * options.events / 10 or done:
                    row += 1
                    rate = folded[0] / (time.monotonic() - started)
                    sizes = [
                        now[name] / (1 << 20)
                        for name in ("process_resident_memory_bytes", "thalweg_state_bytes")
                        if name in now
                    ]
                    lag = int(now.get("thalweg_lag_records", 0))
                    table.add_row(
                        f"{folded[0]:,}", *(f"{size:,.0f}" for size in sizes), str(lag), str(pending), f"{rate:,.0f}"
                    )
                if done:
                    break
                assert worker.poll() is None, log.read_text()
                time.sleep(1)
            time.sleep(5)
            acknowledged = int(figures(address[1])["thalweg_acknowledged_offset"])
            worker.terminate()
            status = worker.wait(60)
        finally:
            worker.kill()
            worker.wait()
    console.print(table)
    console.print(f"acknowledged {acknowledged:,} of {options.events:,}; the worker ended with status {status}")


if __name__ == "__main__":
    main()

"""Real faults on a real Kafka, by the hundred: what readers lost, got twice or got different, and how long they waited.

    python -m benchmarks.faults [--kills N] [--broker-kills N] [--rebalances N] [--full-disks N] [--restarts N]

Each kind is done in both delivery modes, in rounds of at most ten faults; a round has topics of its own, and is
compared with the fold over each partition's log at its end. Events come at 2 500 a second all the while. A wait is from
the fault until scores of every partition move again, as a `read_committed` reader sees it; that of a broker, from when
it serves again. A session is 6 s. Ends with status 1 where a reader lost anything, got it twice or different.
"""

import argparse
import logging
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.kafka.broker import Broker
from tests.kafka.faults import (
    RATE,
    SESSION_S,
    SETTINGS,
    Difference,
    Scenario,
    broker_kills,
    difference,
    full_disks,
    kills,
    rebalances,
    restarts,
)
from tests.kafka.scoring import Workers

MODES = ("suppress", "transactional")
ROUND = 10
LIMIT_S = SESSION_S + 3


def rounds(count: int) -> Iterator[int]:
    """Cut a number of faults into rounds."""
    for done in range(0, count, ROUND):
        yield min(ROUND, count - done)


def run(broker: Broker, scenario: Scenario, mode: str, partitions: int, count: int) -> tuple[Difference, list[float]]:
    """Run all rounds of one kind in one mode; return what readers got wrong, and each wait in seconds."""
    total, waits = Difference(), []
    for faults in rounds(count):
        suffix = uuid.uuid4().hex[:8]
        with (
            tempfile.TemporaryDirectory(prefix="thalweg-faults-") as folder,
            Workers(
                broker.bootstrap_servers,
                lambda name, suffix=suffix: f"{name}-{suffix}",
                Path(folder) / "workers",
                partitions=partitions,
                DELIVERY__MODE=mode,
                **SETTINGS,
            ) as workers,
        ):
            waits += scenario(workers, faults)
            total = Difference(*map(sum, zip(total, difference(workers), strict=True)))
    return total, waits


def main() -> int:
    """Run the kinds that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker-kills", type=int, default=20)
    parser.add_argument("--rebalances", type=int, default=20, help="1 -> 2 -> 3 -> 1 workers, with a zombie each time")
    parser.add_argument("--full-disks", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=10)
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    console = Console()
    table = Table("fault", "mode", "times", "lost", "twice", "different", "wait p50, s", "p95, s", "minutes")
    failed = False
    with Broker(memory="512m") as broker:
        kinds: list[tuple[str, Scenario, int, int]] = [
            ("kill -9", kills, 2, options.kills),
            ("broker killed", partial(broker_kills, broker=broker), 2, options.broker_kills),
            ("1 -> 2 -> 3 -> 1, a zombie", rebalances, 4, options.rebalances),
            ("disk full", full_disks, 2, options.full_disks),
            ("SIGTERM", restarts, 2, options.restarts),
        ]
        for name, scenario, partitions, count in kinds:
            for mode in MODES if count else ():
                started = time.monotonic()
                try:
                    found, waits = run(broker, scenario, mode, partitions, count)
                except AssertionError as error:
                    failed = True
                    console.print(f"{name}, {mode}: {error}", markup=False)
                    continue
                failed |= any(found)
                ranked = sorted(waits)
                figures = (statistics.median(ranked), ranked[-(-len(ranked) * 95 // 100) - 1])
                told = (str(len(waits)), *map(str, found), *(f"{each:.1f}" for each in figures))
                table.add_row(name, mode, *told, f"{(time.monotonic() - started) / 60:.1f}")
                console.print(name, mode, *told)
    console.print(table)
    console.print(f"{RATE} events a second; the session time-out is {SESSION_S} s, a wait is to be within {LIMIT_S} s.")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

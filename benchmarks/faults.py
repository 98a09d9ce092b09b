"""Real faults on a real Kafka, by the hundred: what readers lost, got twice or got different, and how long they waited.

    python -m benchmarks.faults [--kills N] [--broker-kills N] [--rebalances N] [--full-disks N] [--restarts N]
                                [--mode MODE]

Each kind is done in both delivery modes, or in one of them, in rounds of at most ten faults; a round has topics of its
own, and is compared with the fold over each partition's log at its end. Events come at 2 500 a second all the while;
the slowest round's are told. A wait is from
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
from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from thalweg.operators.configuration import Configuration
from thalweg.streams.partition.partition import Partition

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
console = Console(width=140)


def rounds(count: int) -> Iterator[int]:
    """Cut a number of faults into rounds."""
    for done in range(0, count, ROUND):
        yield min(ROUND, count - done)


class Outcome(NamedTuple):
    """What readers got wrong, each wait in seconds, and the events a second of each round."""

    difference: Difference
    waits: list[float]
    events_per_s: list[float]

    def row(self) -> list[str]:
        """Return the figures as a row of the table has them."""
        ranked = sorted(self.waits)
        waited = (statistics.median(ranked), ranked[-(-len(ranked) * 95 // 100) - 1], ranked[-1])
        times = f"{len(self.waits)}"
        return [times, *map(str, self.difference), *(f"{each:.1f}" for each in waited), f"{min(self.events_per_s):.0f}"]


def run(broker: Broker, kind: str, scenario: Scenario, mode: str, partitions: int, count: int) -> Outcome:
    """Run all rounds of one kind in one mode, and tell each as it ends."""
    total = Outcome(Difference(), [], [])
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
            waits = scenario(workers, faults)
            sums = map(sum, zip(total.difference, difference(workers), strict=True))
            total = Outcome(Difference(*sums), total.waits + waits, total.events_per_s + workers.events_per_s)
        console.print(f"{time.strftime('%H:%M:%S')} {kind}, {mode}:", *total.row(), markup=False)
    return total


def main() -> int:
    """Run the kinds that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--broker-kills", type=int, default=20)
    parser.add_argument("--rebalances", type=int, default=20, help="1 -> 2 -> 3 -> 1 workers, with a zombie each time")
    parser.add_argument("--full-disks", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--mode", choices=MODES, action="append", help="one delivery mode only")
    options = parser.parse_args()
    logging.disable(logging.ERROR)
    Partition(Configuration()).warm_up()  # whatever workers are waited for, it is not the compiler
    columns = ("times", "lost", "twice", "different", "wait p50, s", "p95, s", "max, s", "events/s", "minutes")
    table = Table("fault", "mode", *columns)
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
            for mode in (options.mode or MODES) if count else ():
                started = time.monotonic()
                try:
                    found = run(broker, name, scenario, mode, partitions, count)
                except AssertionError as error:
                    failed = True
                    console.print(f"{name}, {mode}: {error}", markup=False)
                    continue
                failed |= any(found.difference)
                table.add_row(name, mode, *found.row(), f"{(time.monotonic() - started) / 60:.1f}")
    console.print(table)
    console.print(f"{RATE} events a second; the session time-out is {SESSION_S} s, a wait is to be within {LIMIT_S} s.")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

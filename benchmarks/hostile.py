"""What an attack costs, at full size: events a second of hostile logs beside benign ones of the same kind.

    python -m benchmarks.hostile [--events N] [--attack NAME]

Both logs go through one partition each, block by block in turn, under the default limits but for those that would take
more events than there are to fill. CPU seconds of this process, all of the partition's work included. Memory is the
state's, and what is resident of the process.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from rich.console import Console
from rich.table import Table
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.schemas.events import Event, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.streams.attacks import Attack, attacks

BLOCK_EVENTS = 2_500
MIB = 1 << 20


def configuration() -> Configuration:
    """Return limits that a million events reach."""
    c = Configuration()
    return replace(
        c,
        table=replace(c.table, rows_limit=1 << 18),
        behaviors=replace(c.behaviors, users_limit=1 << 18),
        joiner=replace(c.joiner, waiting_limit=1 << 17, feedback_limit=1 << 17, text_bytes=1 << 28),
    )


def records(events: Iterator[Event], first: int) -> list[LogRecord]:
    """Return the next block of a log."""
    return [LogRecord(first + n, encode_event(event)) for n, event in enumerate(islice(events, BLOCK_EVENTS))]


def measure(attack: Attack, events: int) -> dict[str, float]:
    """Return CPU seconds of the hostile and of the benign log, the slowest tenth of it, and bytes of the state."""
    partitions = [Partition(configuration(), examples=False) for _ in range(2)]
    logs = [attack.hostile(), attack.benign()]
    seconds: list[list[float]] = [[], []]
    half = 0
    for first in range(0, events, BLOCK_EVENTS):
        for partition, log, spent in zip(partitions, logs, seconds, strict=True):
            block = records(log, first)
            started = time.thread_time()
            partition.process(block)
            spent.append(time.thread_time() - started)
        if first <= events // 2:
            half = state_bytes(partitions[0].state)
    hostile, benign = (sum(spent) for spent in seconds)
    tenth = max(1, len(seconds[0]) // 10)
    starts = range(0, len(seconds[0]), tenth)
    worst = max(sum(seconds[0][i : i + tenth]) / sum(seconds[1][i : i + tenth]) for i in starts)
    assert all(int(partition.state.fates.sum()) == events for partition in partitions)
    return {
        "hostile": events / hostile,
        "benign": events / benign,
        "worst": worst,
        "half": half / MIB,
        "state": state_bytes(partitions[0].state) / MIB,
    }


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--attack", action="append")
    given = parser.parse_args()
    table = Table("attack", "events/s", "benign", "ratio", "worst tenth", "state at half", "at the end, MiB")
    for name, attack in attacks().items():
        if given.attack and name not in given.attack:
            continue
        found = measure(attack, given.events // (10 if "widest" in name else 1))
        row = [f"{found['hostile']:,.0f}", f"{found['benign']:,.0f}", f"{found['hostile'] / found['benign']:.2f}"]
        row += [f"{1 / found['worst']:.2f}", f"{found['half']:.1f}", f"{found['state']:.1f}"]
        Console(stderr=True).print(name, *row)
        table.add_row(name, *row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

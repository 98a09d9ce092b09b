"""What a ranking costs, by candidate: folded alone, from bytes to bytes, as impressions, and with exact attention.

    python -m benchmarks.rank [--runs 60]

A user with 100 000 behaviours asks for 50 and for 1 000 of 20 000 items, under eight context fields. Processor time of
the thread, the best of the runs, in microseconds. Leaving operators out tells where the time goes.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from thalweg.operators.attention import attend, new_gathered
from thalweg.operators.behaviors import BehaviorsConfiguration, gather_recent, new_behaviors
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fold import fold
from thalweg.operators.sdim import SdimConfiguration
from thalweg.operators.structures.table import claim_row, new_table
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

ITEMS, USERS, FIELDS = 20_000, 2_000, 8
BEHAVIOURS, OTHERS = 100_000, 60_000
COUNTS = (50, 1_000)
BLOCK = 2_500
EXACT_CANDIDATES = 5
US = 1e6


def context(chance: random.Random) -> dict[str, Any]:
    """Return a context of eight fields."""
    return {f"field{place}": chance.randrange(4 << place) for place in range(FIELDS)}


def events(chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield the behaviours of one user, among impressions of others."""
    for number in range(BEHAVIOURS + OTHERS):
        is_own = number % (BEHAVIOURS + OTHERS) < BEHAVIOURS
        user = "heavy" if is_own else f"u{chance.randrange(USERS)}"
        item, ts = f"item-{int(ITEMS * chance.random() ** 2)}", START_MS + 50 * number
        event = {"type": "impression", "id": f"{number}", "user": user, "item": item, "ts": ts}
        yield event | {"context": context(chance)}
        if is_own or chance.random() < 0.2:
            acted = {"type": "feedback", "id": f"f{number}", "impression": f"{number}", "user": user}
            yield acted | {"item": item, "ts": ts, "action": "click"}


def filled(configuration: Configuration) -> tuple[Partition, int]:
    """Return a partition behind the log, and the offset that comes next."""
    partition = Partition(configuration, examples=False)
    block: list[LogRecord] = []
    offset = 0
    for event in events(random.Random(5)):
        block.append(LogRecord(offset, json.dumps(event).encode()))
        offset += 1
        if len(block) == BLOCK:
            partition.process(block)
            block = []
    partition.process(block)
    return partition, offset


def best(runs: int, call: Callable[[], object]) -> float:
    """Return the least processor time of a call, in microseconds."""
    times = []
    for _ in range(runs):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return min(times) * US


def request(chance: random.Random, offset: int, count: int) -> LogRecord:
    """Return a request of the user with the long history."""
    asked = {"type": "request", "id": f"r{offset}", "user": "heavy", "ts": START_MS, "context": context(chance)}
    wanted = [f"item-{number}" for number in chance.sample(range(ITEMS), count)]
    return LogRecord(offset, json.dumps(asked | {"candidates": wanted}).encode())


def measure(name: str, configuration: Configuration, runs: int) -> None:
    """Print what candidates cost under a configuration."""
    partition, offset = filled(configuration)
    chance = random.Random(6)
    for count in COUNTS:
        record = request(chance, offset, count)
        block = partition._columnizer.columns([record])
        emitted = partition._room(1, count + 1)
        arguments = (partition.state, partition._parameters, partition._scratch, block.columns, emitted, 0)
        folded = best(runs, lambda arguments=arguments: fold(*arguments))  # type: ignore[misc]
        whole = best(runs, lambda record=record: partition.process([record]))  # type: ignore[misc]
        told = f"fold {folded:8.0f} us, {folded / count:5.2f} a candidate; bytes to bytes {whole:8.0f} us"
        print(f"{name:24} {count:5} candidates: {told}", flush=True)
    shown = []
    for number in range(COUNTS[-1]):
        event = {"type": "impression", "id": f"x{number}", "user": f"u{number % USERS}", "item": f"item-{number}"}
        value = json.dumps(event | {"ts": START_MS, "context": context(chance)}).encode()
        shown.append(LogRecord(offset + 1 + number, value))
    started = time.thread_time()
    partition.process(shown)
    print(
        f"{name:24} {COUNTS[-1]:5} impressions instead, bytes to bytes: {(time.thread_time() - started) * US:8.0f} us"
    )


def exact(runs: int) -> float:
    """Return what one candidate's exact attention over the whole history costs, in microseconds."""
    size = 8
    behaviors = new_behaviors(BehaviorsConfiguration(users_limit=1, short_length=1 << 10), SdimConfiguration(), size)
    items = new_table(1 << 12, 1)
    vectors = np.random.default_rng(1).normal(size=(1 << 12, size)).astype(np.float32)
    for key in range(1, 1 << 12):
        claim_row(items, key, 0, START_MS)
    behaviors.row[0, 0] = np.arange(1 << 10)
    behaviors.counts[0, 0] = 1 << 10
    out = np.zeros(size, np.float32)
    gathered = new_gathered(1, 1 << 10, size)
    gather_recent(behaviors, items, vectors, 0, -1, gathered)
    one = best(runs, lambda: attend(gathered, 0, vectors[1_100], 3, out))
    return one * BEHAVIOURS / (1 << 10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=60)
    runs = parser.parse_args().runs
    c = Configuration()
    measure("defaults", c, runs)
    measure("cross_rank = 0", replace(c, learner=replace(c.learner, cross_rank=0)), runs)
    measure("and no interests", replace(c, learner=replace(c.learner, cross_rank=0, interests=False)), runs)
    measure(
        "and no crossed memories",
        replace(
            c,
            learner=replace(c.learner, cross_rank=0, interests=False),
            error_memory=replace(c.error_memory, crosses=()),
        ),
        runs,
    )
    print(f"exact attention over {BEHAVIOURS} behaviours: {exact(runs):8.0f} us a candidate")


if __name__ == "__main__":
    main()

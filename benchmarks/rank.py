"""What a ranking costs, by candidate: folded alone, from bytes to bytes, as impressions, and beside peers.

    python -m benchmarks.rank [--runs 40]

A user with 100 000 behaviours asks for 50 and for 1 000 of 20 000 items, under eight context fields. Processor time of
the thread, the best of the runs, in microseconds. Leaving operators out tells where the time goes. Beside them are
Vowpal Wabbit's `predict` of the same rows, as text and parsed before, and exact attention over the whole history.

It takes less than a minute where the fold is compiled already; `thalweg warm-up` compiles it.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec
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
from vowpalwabbit import Workspace

from benchmarks.vowpal_wabbit import FIXED, Lines

ITEMS, USERS, FIELDS = 20_000, 2_000, 8
BEHAVIOURS, OTHERS = 100_000, 60_000
COUNTS = (50, 1_000)
BLOCK = 40_000  # read at a time: one part of it is folded while the next is read
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


def log() -> list[LogRecord]:
    """Return the log that all configurations fold."""
    encode = msgspec.json.Encoder().encode
    return [LogRecord(offset, encode(event)) for offset, event in enumerate(events(random.Random(5)))]


def filled(configuration: Configuration, records: list[LogRecord]) -> Partition:
    """Return a partition behind a log."""
    partition = Partition(configuration, examples=False)
    for first in range(0, len(records), BLOCK):
        partition.process(records[first : first + BLOCK])
    return partition


def best(runs: int, call: Callable[[], object]) -> float:
    """Return the least processor time of a call, in microseconds."""
    times = []
    for _ in range(runs):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return min(times) * US


class Row(NamedTuple):
    """One user, one item and their context."""

    user: str
    item: str
    context: dict[str, Any]

    def impression(self, offset: int) -> LogRecord:
        """Return the impression of this row."""
        event = {"type": "impression", "id": f"x{offset}", "ts": START_MS}
        return LogRecord(offset, msgspec.json.encode(event | self._asdict()))


def asked(chance: random.Random, count: int) -> list[Row]:
    """Return what the user with the long history asks for."""
    fields = context(chance)
    return [Row("heavy", f"item-{number}", fields) for number in chance.sample(range(ITEMS), count)]


def shown(chance: random.Random, count: int) -> list[Row]:
    """Return so many rows of other users."""
    return [Row(f"u{number % USERS}", f"item-{number}", context(chance)) for number in range(count)]


def request(rows: list[Row], offset: int) -> LogRecord:
    """Return a request for rows of one user and context."""
    event = {"type": "request", "id": f"r{offset}", "user": rows[0].user, "ts": START_MS, "context": rows[0].context}
    return LogRecord(offset, msgspec.json.encode(event | {"candidates": [row.item for row in rows]}))


def measure(name: str, configuration: Configuration, records: list[LogRecord], runs: int) -> None:
    """Print what candidates cost under a configuration."""
    partition, offset = filled(configuration, records), len(records)
    chance = random.Random(6)
    for count in COUNTS:
        record = request(asked(chance, count), offset)
        block = partition._columnizer.columns([record])
        emitted = partition._room(1, count + 1)
        arguments = (partition._held_state, partition._parameters, partition._scratch, block.columns, emitted, 0)
        folded = best(runs, lambda arguments=arguments: fold(*arguments))  # type: ignore[misc]
        whole = best(runs, lambda record=record: partition.process([record]))  # type: ignore[misc]
        told = f"fold {folded:8.0f} us, {folded / count:5.2f} a candidate; bytes to bytes {whole:8.0f} us"
        print(f"{name:24} {count:5} candidates: {told}", flush=True)
    rows = shown(chance, COUNTS[-1])
    instead = [row.impression(offset + 1 + number) for number, row in enumerate(rows)]
    whole = best(1, lambda: partition.process(instead))
    print(f"{name:24} {COUNTS[-1]:5} impressions instead, bytes to bytes: {whole:8.0f} us", flush=True)


def print_vowpal_wabbit(runs: int) -> None:
    """Print what Vowpal Wabbit's `predict` of the rows of a request costs, learned once each."""
    chance, lines = random.Random(6), Lines(Configuration())
    for count in COUNTS:
        texts = [lines.line(row.user, row.item, START_MS, row.context) for row in asked(chance, count)]
        peer = Workspace(FIXED)
        for number, text in enumerate(texts):
            peer.learn(f"{1 - number % 2 * 2} {text}")
        of_text = best(runs, lambda peer=peer, texts=texts: [peer.predict(text) for text in texts])  # type: ignore[misc]
        examples = [peer.parse(text) for text in texts]
        parsed = best(runs, lambda peer=peer, given=examples: [peer.predict(each) for each in given])  # type: ignore[misc]
        told = f"{of_text / count:5.2f} us a candidate, {parsed / count:5.2f} parsed before"
        print(f"{'Vowpal Wabbit predicts':24} {count:5} candidates: {told}", flush=True)
        for example in examples:
            peer.finish_example(example)
        peer.finish()


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    runs = parser.parse_args().runs
    c, records = Configuration(), log()
    plain = replace(c, learner=replace(c.learner, cross_rank=0))
    short = replace(c, learner=replace(plain.learner, interests=False))
    measure("defaults", c, records, runs)
    measure("cross_rank = 0", plain, records, runs)
    measure("and no interests", short, records, runs)
    bare = replace(short, error_memory=replace(c.error_memory, crosses=()))
    measure("and no crossed memories", bare, records, runs)
    print_vowpal_wabbit(runs)
    print(f"exact attention over {BEHAVIOURS} behaviours: {exact(runs):8.0f} us a candidate")


if __name__ == "__main__":
    main()

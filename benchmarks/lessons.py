"""What lessons cost: a lesson's bytes, the time to make one, and the time that another partition takes to learn it.

python -m benchmarks.lessons [--runs N]
"""

import argparse
import time
from dataclasses import replace
from typing import NamedTuple

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.configuration.loading import load
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.partition.lessons import LessonBook
from thalweg.streams.partition.partition import Partition

from benchmarks.real_logs import ROOT

SAMPLE = ROOT / "examples" / "kuairand"
BLOCK = 2_500


class Cost(NamedTuple):
    """Of one lesson: bytes, those of its dense inputs, and microseconds of processor time to make and to learn it."""

    bytes: float
    dense_bytes: int
    make_us: float
    learn_us: float


def made(partition: Partition, records: list[LogRecord]) -> tuple[list[bytes], float]:
    """Return the lessons that a partition makes of a log, and the seconds that the log took."""
    started = time.process_time()
    lessons: list[bytes] = []
    for first in range(0, len(records), BLOCK):
        lessons += [output.value or b"" for output in partition.process(records[first : first + BLOCK]).lessons]
    return lessons, time.process_time() - started


def measured(configuration: Configuration, records: list[LogRecord], runs: int) -> Cost:
    """Return the least costs of so many runs."""
    Partition(configuration).warm_up()
    book = LessonBook()
    make_s = learn_s = float("inf")
    size = 0
    for _ in range(runs):
        lessons, with_s = made(Partition(configuration, lessons=book), records)
        _, without_s = made(Partition(configuration), records)
        make_s = min(make_s, with_s - without_s)
        book.add(lessons)
        size = sum(map(len, lessons))
        learner = Partition(configuration, partition=1, lessons=book)
        learner.merge({0: 1})
        started = time.process_time()
        learner.merge({0: book.last(0)})
        learn_s = min(learn_s, time.process_time() - started)
    count = book.last(0)
    dense = 2 * Partition(configuration).state.features_seen.inputs.shape[1]
    return Cost(size / count, dense, make_s / count * 1e6, learn_s / count * 1e6)


def main() -> None:
    """Print the costs with and without the cross network, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lessons", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with LogReader(SAMPLE / "kuairand_sample.jsonl.gz", block_lines=100_000) as reader:
        records = [record for block in reader for record in block]
    c = load(SAMPLE / "thalweg.toml", environment={}, flags=[]).configuration
    print("| | bytes | of them dense at most | us to make | us to learn |\n|---|---|---|---|---|")
    for name, configuration in (
        ("the sample's configuration", c),
        ("`cross_rank = 0`", replace(c, learner=replace(c.learner, cross_rank=0))),
    ):
        cost = measured(configuration, records, runs)
        print(f"| {name} | {cost.bytes:.0f} | {cost.dense_bytes} | {cost.make_us:.2f} | {cost.learn_us:.2f} |")


if __name__ == "__main__":
    main()

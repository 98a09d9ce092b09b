"""Three objectives beside one, over KuaiRand's actions: what they cost, and what each one's scores are worth.

    python -m benchmarks.objectives [--data FOLDER] [--runs 5]

Contestants take turns, in this process: one objective (clicks) and three (clicks, long views, likes), each from an
empty state over the same events. The first line has the median of the ratios of their CPU seconds, reading, folding
and writing included, and the least and largest ratio. The table has AUC and log loss of each objective, alone (its
action as the only positive one) and together.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Quality, Tally

from benchmarks.real_logs import DATA, KUAIRAND_ACTIONS, RealLog, kuairand_actions

BLOCK = 10_000


class Run(NamedTuple):
    """CPU seconds of a run, and the quality of each objective's scores, in the order of their names."""

    seconds: float
    qualities: list[Quality]


def together(log: RealLog) -> Configuration:
    """Return the configuration of all actions, clicks first."""
    return log.configuration(*(f"objectives.{action}.actions={action}" for action in KUAIRAND_ACTIONS))


def alone(log: RealLog, action: str) -> Configuration:
    """Return the configuration of one action."""
    return log.configuration(f"joiner.positive_actions={action}")


def run(configuration: Configuration, records: list[LogRecord]) -> Run:
    """Fold a log to the end of its windows."""
    tally = Tally()
    partition = Partition(configuration, block_events=BLOCK // 4, examples=False, tally=tally)
    partition.warm_up()
    started = time.process_time()
    for first in range(0, len(records), BLOCK):
        partition.process(records[first : first + BLOCK])
    seconds = time.process_time() - started
    partition.close_all()
    return Run(seconds, [each.qualities()[0] for each in (tally, *tally.others)])


def main() -> None:
    """Run all, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    log = kuairand_actions(arguments.data)
    if log is None:
        return
    records, ratios = log.records(), []
    one, three = alone(log, "click"), together(log)
    runs = [run(one, records)]  # the first run of all touches memory that later ones find
    for _ in range(arguments.runs):
        runs = [run(one, records), run(three, records)]
        ratios.append(runs[1].seconds / runs[0].seconds)
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"three objectives take {statistics.median(ratios):.2f} times the CPU time of one ({spread})\n")
    print("| objective | alone | together |\n|---|---|---|")
    for action, quality in zip(three.objectives.names, runs[1].qualities, strict=True):
        [before] = run(alone(log, action), records).qualities
        figures = (f"{each.auc:.4f} / {each.log_loss:.4f}" for each in (before, quality))
        print(f"| {action} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()

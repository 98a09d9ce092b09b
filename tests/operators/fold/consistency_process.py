"""Crafted states by the hundred, each restored and, where it is not refused, folded on: a process of its own, that may
die. It prints how many were refused and how many went on.

    python -m tests.operators.fold.consistency_process SEED COUNT
"""

import sys

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.operators.fold.test_consistency import crafted, crowded, crowded_log


def fold_on(configuration: Configuration, arrays: dict[str, np.ndarray], records: list[LogRecord]) -> str:
    """Restore arrays and fold on; the compiled code must stay within its arrays, whatever it makes of them."""
    try:
        partition = Partition(configuration, arrays=arrays)
    except ValueError:
        return "refused"
    try:
        partition.process(records)
        partition.close_all()
        partition.digest()
    except Exception as error:  # a text may be no JSON by now, which raises in Python and is safe
        return type(error).__name__
    return "went on"


def main(seed: int, count: int) -> None:
    configuration = crowded()
    records = crowded_log(6_000)
    partition = Partition(configuration)
    partition.process(records[:5_000])
    arrays = partition.snapshot()
    random = np.random.default_rng(seed)
    fates: dict[str, int] = {}
    for number in range(count):
        made = crafted(arrays, random)
        sys.stderr.write(f"{number} ")
        sys.stderr.flush()
        fate = fold_on(configuration, made, records[5_000:])
        fates[fate] = fates.get(fate, 0) + 1
    sys.stdout.write(f"{fates}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

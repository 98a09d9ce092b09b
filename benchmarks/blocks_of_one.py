"""What a block of one event costs: 2 000 blocks of one through `Partition.process`, of the shipped sample.

    python -m benchmarks.blocks_of_one

The events before them went through in large blocks, so that there are users, values and waiting impressions. Each block
is timed by itself: the least is what it costs where nothing interrupts, the median what it costs where others compute.
"""

import statistics
import time
from contextlib import closing
from itertools import islice
from pathlib import Path

from thalweg.operators.configuration import Configuration
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.partition.partition import Partition

SAMPLE = Path(__file__).parent.parent / "examples" / "kuairand" / "kuairand_sample.jsonl.gz"
BEFORE, TIMED = 20_000, 2_000


def main() -> None:
    """Print the microseconds of a block of one, by what the event is."""
    with closing(LogReader(str(SAMPLE), block_lines=1)) as reader:
        records = [record for block in islice(iter(reader), BEFORE + TIMED) for record in block]
    partition = Partition(Configuration())
    partition.process(records[:BEFORE])
    took_us: dict[str, list[float]] = {"all": [], "impressions": [], "feedback": []}
    for record in records[BEFORE:]:
        started = time.perf_counter_ns()
        partition.process([record])
        us = (time.perf_counter_ns() - started) / 1e3
        kind = "impressions" if b'"type":"impression"' in (record.value or b"") else "feedback"
        took_us["all"].append(us)
        took_us[kind].append(us)
    for kind, each in took_us.items():
        print(f"{kind}: {len(each)} blocks, least {min(each):.0f} µs, median {statistics.median(each):.0f} µs")


if __name__ == "__main__":
    main()

"""All logs with feedback after 1, 120 and 590 seconds, in a window of 10 minutes, and what each part brings.

With feedback after 590 seconds nothing can be learned before the window closes.
"""

import gc

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row, said
from benchmarks.real_logs import RealLog

DELAYS_MS = (1_000, 120_000, 590_000)
PARTS: list[tuple[str, list[str]]] = [
    ("the defaults", []),
    ("without the cross network", ["learner.cross_rank=0"]),
    ("without the error memory's correction", ["correction.lambda_max=0"]),
    ("without sequences", ["behaviors.kinds=[]"]),
]


def tables(options: Options) -> str:
    """Return a table for each log and delay."""
    return "\n".join(line for ms in DELAYS_MS for log in options.logs(ms) for line in with_parts(log, ms))


def with_parts(log: RealLog, delay_ms: int) -> list[str]:
    """Return a log's figures, with all parts and without each."""
    records = log.records()
    rows = []
    for name, flags in PARTS:
        rows.append(row(f"{name} {said(flags)}".strip(), replayed(log, records, flags).figures))
        gc.collect()
    return [f"### {log.name}, feedback after {delay_ms // 1_000} s", "", HEADER, *rows, ""]

"""River classifiers in the learner's place (`learner.model`), beside the built-in one."""

import sys
import time

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row
from benchmarks.real_logs import RealLog

CLASSIFIERS = ("linear_model.LogisticRegression", "preprocessing.StandardScaler | linear_model.LogisticRegression")


def tables(options: Options) -> str:
    """Return a table for KuaiRand; a classifier takes minutes."""
    return "\n".join(line for log in options.logs() if log.name == "KuaiRand" for line in on(log))


def on(log: RealLog) -> list[str]:
    """Return the table of one log."""
    records = log.records()
    rows = [row("built in", replayed(log, records).figures)]
    for name in CLASSIFIERS:
        started = time.monotonic()
        rows.append(
            row(f"`river:{name}`".replace("|", "\\|"), replayed(log, records, [f"learner.model=river:{name}"]).figures)
        )
        print(f"{len(records) / (time.monotonic() - started):.0f} events/s", file=sys.stderr)
    return [f"### {log.name}", "", HEADER, *rows, ""]

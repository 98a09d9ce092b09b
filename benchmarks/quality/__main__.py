"""Print the tables of docs/quality.md, or write them there.

python -m benchmarks.quality [--data FOLDER] [--log KuaiRand] [--only PART] [--write]
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.quality import (
    absences,
    delays,
    drift,
    frozen,
    late,
    monolith,
    objectives,
    own_model,
    pace,
    partitions,
    peers,
    river_model,
    sdim,
    settings,
    start,
    table,
)
from benchmarks.quality.tables import Options, write_part
from benchmarks.real_logs import DATA, GLOBO_CLICKS

PARTS = {
    "peers": peers.tables,
    "settings": settings.tables,
    "delays": delays.tables,
    "late": late.tables,
    "frozen": frozen.tables,
    "pace": pace.tables,
    "start": start.tables,
    "drift": drift.tables,
    "sdim": sdim.tables,
    "monolith": monolith.tables,
    "table": table.tables,
    "own_model": own_model.tables,
    "river_model": river_model.tables,
    "objectives": objectives.tables,
    "partitions": partitions.tables,
    "absences": absences.tables,
}


def main() -> int:
    """Make the tables of each part, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the logs' tables")
    parser.add_argument("--log", action="append", default=[], help="KuaiRand, MovieTweetings or Globo; all by default")
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="a part; all by default")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/quality.md")
    given = parser.parse_args()
    started = time.monotonic()
    options = Options(given.data, given.log)
    for name in given.only or PARTS:
        command = f"python -m benchmarks.quality --only {name}"
        text = f"<!-- {command}; Globo: sampled negatives, first {GLOBO_CLICKS} clicks -->\n\n{PARTS[name](options)}"
        if given.write:
            write_part(name, text)
        else:
            print(f"## {name}\n\n{text}")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

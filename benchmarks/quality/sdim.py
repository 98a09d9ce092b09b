"""SDIM beside exact attention over the whole history, and what interests bring at all."""

import gc

from benchmarks.quality import moving
from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row, said
from benchmarks.real_logs import RealLog

ROOM = ["behaviors.users_limit=1048577"]  # so that long rings of all users fit into addresses
SETTINGS: list[tuple[str, list[str]]] = [
    ("exact attention over the last 1 024", ["behaviors.short_length=1024"]),
    ("exact over the last 32, older ones in SDIM (the default)", ["behaviors.short_length=32"]),
    ("exact over the last 8, older ones in SDIM", ["behaviors.short_length=8"]),
    ("exact over the last 4, older ones in SDIM", ["behaviors.short_length=4"]),
    ("no interests, the same recent items", ["learner.interests=false"]),
]


def tables(options: Options) -> str:
    """Return a table for each log, and one of what moving vectors do to long histories."""
    exact = [line for log in options.logs() for line in beside_exact(log)]
    return "\n".join([*exact, moving.tables(options)])


def beside_exact(log: RealLog) -> list[str]:
    """Return a log's figures with rings of several lengths, and without interests."""
    records = log.records()
    rows = []
    for name, flags in SETTINGS:
        rows.append(row(f"{name} {said(flags)}", replayed(log, records, [*ROOM, *flags]).figures))
        gc.collect()
    return [f"### {log.name}", "", HEADER, *rows, ""]

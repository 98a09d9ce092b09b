"""Other windows, and later feedback: what waiting for the window costs, and what provisional labels give back.

A window of one second, in which all feedback of a second's delay comes, is learning at once.
"""

import random
from collections.abc import Sequence

import msgspec
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Feedback, encode_event
from thalweg.schemas.records import LogRecord

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, number, row, said
from benchmarks.real_logs import RealLog

WAITS = "joiner.provisional_share=1"
WINDOWS = [
    ("10 minutes", ["joiner.attribution_window_ms=600000"]),
    ("1 hour", ["joiner.attribution_window_ms=3600000"]),
    ("1 day", ["joiner.attribution_window_ms=86400000", "joiner.waiting_limit=2000000"]),
]
AT_ONCE = ["joiner.attribution_window_ms=1000", WAITS]
DELAY_MS, LATE_MS = 1_000, 599_000
MEANS = [("30 seconds", 30_000), ("2 minutes", 120_000)]
SEED = 7


def tables(options: Options) -> str:
    """Return a table of windows for each log, and one of delays."""
    out: list[str] = []
    for log in options.logs(DELAY_MS):
        out += [*windows(log), ""]
    out += ["### Later feedback, window 10 minutes", "", HEADER]
    for log in options.logs(DELAY_MS):
        records = log.records()
        for name, mean_ms in MEANS:
            out += both(log, f"exponential delays, mean {name}", delayed(records, mean_ms))
    for log in options.logs(LATE_MS):
        out += both(log, "feedback after 10 minutes", log.records())
    return "\n".join(out)


def windows(log: RealLog) -> list[str]:
    """Return a log's table of windows, and the share of the shortest one's cost that is back."""
    records = log.records()
    at_once = replayed(log, records, AT_ONCE).figures
    rows = [row(f"every label learned at once {said(AT_ONCE)}", at_once)]
    found = []
    for name, flags in WINDOWS:
        for label, more in (("each label learned when its window closes", [WAITS]), ("the default", [])):
            figures = replayed(log, records, [*flags, *more]).figures
            rows.append(row(f"window {name}: {label} {said([*flags, *more])}", figures))
            found.append(figures.auc)
    cost, back = at_once.auc - found[0], found[1] - found[0]
    said_back = f"Waiting for 10 minutes costs {number(cost)} AUC, of which {number(back)} come back."
    return [f"### {log.name}, feedback after 1 second", "", HEADER, *rows, "", said_back]


def both(log: RealLog, name: str, records: Sequence[LogRecord]) -> list[str]:
    """Return a log's lines without and with provisional labels."""
    waits = row(f"{log.name}, {name}: waits {said([WAITS])}", replayed(log, records, [WAITS]).figures)
    return [waits, row(f"{log.name}, {name}: the default", replayed(log, records).figures)]


def delayed(records: Sequence[LogRecord], mean_ms: int) -> list[LogRecord]:
    """Return records in the order of time, feedback that came after `DELAY_MS` moved to an exponential delay."""
    draw = random.Random(SEED)
    moved: list[tuple[int, bytes]] = []
    for record in records:
        event = decode_plain(record.value or b"")
        if isinstance(event, Feedback):
            event = msgspec.structs.replace(event, ts=event.ts - DELAY_MS + int(draw.expovariate(1.0 / mean_ms)))
        moved.append((event.ts, encode_event(event)))
    moved.sort(key=lambda pair: pair[0])
    return [record._replace(value=value) for record, (_, value) in zip(records, moved, strict=True)]

"""Thalweg with other windows, and with feedback that comes later."""

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row, said

WINDOWS = [
    ("10 minutes", ["joiner.attribution_window_ms=600000"]),
    ("1 hour", ["joiner.attribution_window_ms=3600000"]),
    ("1 day", ["joiner.attribution_window_ms=86400000", "joiner.waiting_limit=2000000"]),
]
DELAYS = [("1 second", 1_000), ("1 minute", 60_000), ("10 minutes", 599_000)]


def tables(options: Options) -> str:
    """Return a table of windows for each log, and one of delays."""
    out: list[str] = []
    for log in options.logs():
        records = log.records()
        rows = [row(f"window {name} {said(flags)}", replayed(log, records, flags).figures) for name, flags in WINDOWS]
        out += [f"### {log.name}, feedback after 1 second", "", HEADER, *rows, ""]
    out += ["### Later feedback, window 10 minutes", "", HEADER]
    for name, delay_ms in DELAYS[1:]:
        for log in options.logs(delay_ms):
            out += [row(f"{log.name}, feedback after {name}", replayed(log, log.records()).figures)]
    return "\n".join(out)

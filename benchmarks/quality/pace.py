"""Logs at a tenth and at ten times their pace: no half-life of the fold may fit one pace alone.

All times of a log are stretched about its first one. *All stretched*: the delays of feedback and the window with them,
so that all events come in the same order and what is known is the same at each. *Times alone*: impressions are
stretched, feedback still comes a second after its own, and the window is the default.
"""

from collections.abc import Sequence

import msgspec
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Feedback, encode_event
from thalweg.schemas.records import LogRecord

from benchmarks.quality.replays import replayed
from benchmarks.quality.tables import HEADER, Options, row
from benchmarks.real_logs import RealLog, time_of

DELAY_MS = 1_000
WINDOW_MS = 600_000
PACES = ((1, 10), (10, 1))
"""Times are multiplied by the first and divided by the second: ten times the pace, and a tenth of it."""


def tables(options: Options) -> str:
    """Return a table for each log."""
    return "\n".join(line for log in options.logs(DELAY_MS) for line in paced(log))


def paced(log: RealLog) -> list[str]:
    """Return a log's figures at its own pace, and stretched in both ways."""
    records = log.records()
    rows = [row("its own pace", replayed(log, records).figures)]
    for times, parts in PACES:
        name = f"times {times}" if parts == 1 else f"times 1/{parts}"
        window = f"joiner.attribution_window_ms={WINDOW_MS * times // parts}"
        rows.append(
            row(f"{name}, all stretched `{window}`", replayed(log, stretched(records, times, parts), [window]).figures)
        )
        rows.append(row(f"{name}, times alone", replayed(log, spread(records, times, parts)).figures))
    return [f"### {log.name}", "", HEADER, *rows, ""]


def stretched(records: Sequence[LogRecord], times: int, parts: int) -> list[LogRecord]:
    """Return records whose times are `times / parts` as far from the first one, in their order."""
    first_ms = time_of(records[0])
    return [_at(record, first_ms + (time_of(record) - first_ms) * times // parts) for record in records]


def spread(records: Sequence[LogRecord], times: int, parts: int) -> list[LogRecord]:
    """Return the same for impressions, and feedback `DELAY_MS` after its own, in the order of time."""
    first_ms = time_of(records[0])
    moved = []
    for record in records:
        is_feedback = isinstance(decode_plain(record.value or b""), Feedback)
        behind_ms = DELAY_MS if is_feedback else 0
        ts_ms = first_ms + (time_of(record) - behind_ms - first_ms) * times // parts + behind_ms
        moved.append((ts_ms, _at(record, ts_ms)))
    moved.sort(key=lambda pair: pair[0])
    return [record._replace(value=other.value) for record, (_, other) in zip(records, moved, strict=True)]


def _at(record: LogRecord, ts_ms: int) -> LogRecord:
    return record._replace(value=encode_event(msgspec.structs.replace(decode_plain(record.value or b""), ts=ts_ms)))

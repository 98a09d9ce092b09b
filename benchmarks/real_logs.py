"""The three real logs that benchmarks read, made from their tables once and kept below build/benchmarks.

KuaiRand: impressions of short videos with clicks. MovieTweetings: half a year of ratings, 8 and more are positive, user
and item alone. Globo: clicks on news, with sampled negatives (its own `make_ctr.py`), so say "sampled negatives" beside
every figure. Where a table is absent, a message says so and what needs it is skipped.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.configuration.loading import load
from thalweg.streams.logs.reader import LogReader

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
BUILD = ROOT / "build" / "benchmarks"
GLOBO_CLICKS = 400_000
KUAIRAND_ACTIONS = {"click": "is_click", "long_view": "long_view", "like": "is_like"}
GLOBO_CONTEXT = ["environment", "deviceGroup", "os", "country", "region", "referrer_type"]
THALWEG = [sys.executable, "-c", "from thalweg.streams.commands import main; main()"]


class RealLog(NamedTuple):
    """A log of events and the configuration that names its fields."""

    name: str
    path: Path
    config: Path | None

    def configuration(self, *flags: str) -> Configuration:
        """Return the shipped configuration with `section.key=value` over it."""
        return load(self.config, environment={}, flags=flags).configuration

    def records(self) -> list[LogRecord]:
        """Return every record of the log."""
        with closing(LogReader(str(self.path), block_lines=10_000)) as reader:
            return [record for block in reader for record in block]


class _Timed(msgspec.Struct, gc=False):
    ts: int


_timed = msgspec.json.Decoder(_Timed).decode


def time_of(record: LogRecord) -> int:
    """Return the `ts` of a record."""
    return _timed(record.value or b"").ts


def real_logs(data: Path, delay_ms: int = 1_000) -> list[RealLog]:
    """Return the logs whose tables are there; feedback comes `delay_ms` after its impression."""
    found = (kuairand(data, delay_ms), movietweetings(data, delay_ms), globo(data, delay_ms))
    return [log for log in found if log is not None]


def kuairand(data: Path, delay_ms: int = 1_000) -> RealLog | None:
    """Return KuaiRand's log, or None where its table is absent."""
    table = data / "kuairand14d" / "events.parquet"
    if not is_there(table):
        return None
    log = BUILD / f"kuairand-{delay_ms}.jsonl"
    fields = ["--time", "time_ms:ms", "--context", "tab,author,tag,duration_ms", "--split", "tag:,"]
    make_log(table, log, [*fields, "--feedback-delay-ms", str(delay_ms)])
    return RealLog("KuaiRand", log, ROOT / "examples" / "kuairand" / "thalweg.toml")


def kuairand_actions(data: Path, delay_ms: int = 1_000) -> RealLog | None:
    """Return KuaiRand's log with each of `KUAIRAND_ACTIONS` as a feedback, or None where a table is absent."""
    plain, table = kuairand(data, delay_ms), data / "kuairand14d" / "actions.parquet"
    if plain is None or not is_there(table):
        return None
    log = BUILD / f"kuairand-actions-{delay_ms}.jsonl"
    if not log.exists():
        import pyarrow.parquet

        columns = pyarrow.parquet.read_table(table, columns=list(KUAIRAND_ACTIONS.values()))
        outcomes = {action: columns[name].to_pylist() for action, name in KUAIRAND_ACTIONS.items()}
        rows: list[tuple[int, int, int, bytes]] = []
        shown = (
            event for record in plain.records() if isinstance(event := decode_plain(record.value or b""), Impression)
        )
        for row, event in enumerate(shown):
            rows.append((event.ts, 0, row, encode_event(event)))
            for number, (action, labels) in enumerate(outcomes.items(), 1):
                if labels[row]:
                    ts = event.ts + delay_ms
                    acted = Feedback.of(f"{event.id}:{action}", event.id, event.user, event.item, ts, action)
                    rows.append((ts, number, row, encode_event(acted)))
        part = log.with_suffix(".part.jsonl")
        part.write_bytes(b"".join(line + b"\n" for *_, line in sorted(rows)))
        part.rename(log)
    return RealLog("KuaiRand's actions", log, plain.config)


def movietweetings(data: Path, delay_ms: int = 1_000) -> RealLog | None:
    """Return MovieTweetings' log, a slow one of user and item alone, or None where its table is absent."""
    table = data / "movietweetings" / "events.parquet"
    if not is_there(table):
        return None
    log = BUILD / f"movietweetings-{delay_ms}.jsonl"
    make_log(table, log, ["--time", "ts:s", "--feedback-delay-ms", str(delay_ms)])
    return RealLog("MovieTweetings", log, None)


def globo(data: Path, delay_ms: int = 1_000) -> RealLog | None:
    """Return Globo's log with sampled negatives, or None where its table is absent."""
    table = data / "globo_dev" / "events.parquet"
    if not is_there(table):
        return None
    rows = BUILD / "globo.parquet"
    if not rows.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(table.parent / "make_ctr.py"), str(table), str(rows)]
        subprocess.run([*command, "--clicks", str(GLOBO_CLICKS)], check=True)
    log = BUILD / f"globo-{delay_ms}.jsonl"
    context = ",".join(f"click_{name}" for name in GLOBO_CONTEXT)
    make_log(rows, log, ["--time", "ts:s", "--context", context, "--feedback-delay-ms", str(delay_ms)])
    return RealLog("Globo", log, None)


def is_there(table: Path) -> bool:
    """Return whether a table is there, and the reader where it is not."""
    if not table.exists():
        print(f"skipped: no {table}", file=sys.stderr)
    return table.exists()


def make_log(table: Path, log: Path, arguments: Sequence[str]) -> None:
    """Import a table where that was not done before."""
    if log.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    part = log.with_suffix(".part.jsonl")
    columns = ["--user", "user", "--item", "item", "--label", "label"]
    subprocess.run([*THALWEG, "import", str(table), *columns, *arguments, "--out", str(part)], check=True, cwd=ROOT)
    part.rename(log)

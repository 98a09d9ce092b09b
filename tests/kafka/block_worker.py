"""A worker whose fold only counts: run by the tests in a process of its own, so that it can be killed.

Its state of a partition is the next offset, how many records it folded and a checksum of their offsets and values. It
takes a checkpoint every CHECKPOINT_RECORDS, on `idle` and on `close`, and appends what happens to `journal`.
"""

import asyncio
import json
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thalweg.schemas.records import Record
from thalweg.streams.kafka.blocks import BlockLimits, LogBounds, block_app
from thalweg.streams.kafka.security import KafkaSection


class Counting:
    """Counts records and keeps checkpoints in a folder that all workers share."""

    def __init__(self, folder: Path, checkpoint_records: int, seconds_per_block: float, fail_at: int) -> None:
        self.folder, self.checkpoint_records = folder, checkpoint_records
        self.seconds_per_block, self.fail_at = seconds_per_block, fail_at
        self.states: dict[int, dict[str, int]] = {}
        self.unsaved: dict[int, int] = {}

    async def open(self, partition: int, log: LogBounds) -> int:
        path = self.folder / f"{partition}.json"
        empty = {"next": log.begin, "count": 0, "checksum": 0}
        state = json.loads(path.read_text()) if path.exists() else empty
        self.states[partition], self.unsaved[partition] = state, 0
        self.note("open", partition, state["next"])
        return int(state["next"])

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        await asyncio.to_thread(self.count, partition, records)
        return self.save(partition) if self.unsaved[partition] >= self.checkpoint_records else None

    async def idle(self, partition: int) -> int | None:
        if not self.unsaved[partition]:
            return None
        saved = self.save(partition)
        self.note("idle", partition, saved)
        return saved

    async def close(self, partition: int) -> int | None:
        saved = self.save(partition)
        self.note("close", partition, saved)
        return saved

    def count(self, partition: int, records: Sequence[Record]) -> None:
        if self.seconds_per_block:
            time.sleep(self.seconds_per_block)
        state = self.states[partition]
        for record in records:
            assert record.offset >= state["next"], "a record came twice"
            if record.offset == self.fail_at:
                raise RuntimeError(f"the fold fails at {record.offset}")
            state["checksum"] = zlib.crc32(b"%d %b" % (record.offset, record.value), state["checksum"])
            state["count"] += 1
            state["next"] = record.offset + 1
        self.unsaved[partition] += len(records)

    def save(self, partition: int) -> int:
        state = self.states[partition]
        path = self.folder / f"{partition}.json"
        self.unsaved[partition] = 0
        if path.exists() and json.loads(path.read_text())["next"] > state["next"]:
            return state["next"]  # another worker took over while this one was paused, and is further
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(state))
        fresh.rename(path)
        return state["next"]

    def note(self, what: str, partition: int, offset: int) -> None:
        with (self.folder / "journal").open("a") as journal:
            journal.write(f"{os.getpid()} {what} {partition} {offset}\n")


def make(environ: dict[str, str]) -> Any:
    """Make the app from THALWEG_TEST_* variables."""
    given = {name.removeprefix("THALWEG_TEST_"): text for name, text in environ.items()}
    folder = Path(given["FOLDER"])
    kafka = KafkaSection(**json.loads(given["KAFKA"]))
    handler = Counting(
        folder, int(given["CHECKPOINT_RECORDS"]), float(given["SECONDS_PER_BLOCK"]), int(given["FAIL_AT"])
    )
    limits = BlockLimits(pending_bytes_max=int(given["PENDING_BYTES_MAX"]), idle_ms=300)
    made = block_app(
        given["GROUP"],
        kafka=kafka,
        source=given["SOURCE"],
        handler=handler,
        limits=limits,
        web_enabled=False,
        datadir=str(folder / f"faust-{os.getpid()}"),
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        broker_commit_interval=0.5,
    )

    @made.timer(0.05)
    async def note_progress() -> None:
        pending = handler.folder / "pending"
        most = max((each.pending_bytes for each in made.progress()), default=0)
        if most > (int(pending.read_text()) if pending.exists() else -1):
            pending.write_text(str(most))

    @made.on_before_shutdown.connect
    async def note_shutdown(sender: Any, **_: Any) -> None:
        handler.note("shutdown", 0, 0)

    return made


if "THALWEG_TEST_FOLDER" in os.environ:
    app = make(dict(os.environ))

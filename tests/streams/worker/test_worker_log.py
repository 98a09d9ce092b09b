"""What a worker's log says of its events: once each, at a checkpoint or when the partition is closed."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.checkpoints.disk import LocalDisk
from thalweg.streams.configuration.loading import load
from thalweg.streams.kafka.delivery import Tail
from thalweg.streams.kafka.partition_run import LogBounds
from thalweg.streams.worker.ports import Ports
from thalweg.streams.worker.worker import FIRST_RECORDS, Scoring

from tests.streams.partition.test_findings import feedback, impression

LOGGER = logging.getLogger("thalweg.test")


class Brokers:
    """Topics without anything in them but the input."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values

    async def partitions(self) -> int:
        return 1

    async def tail(self, topic: str, partition: int, from_offset: int) -> Tail:
        return Tail(from_offset, None)

    async def end(self, partition: int) -> int:
        return len(self.values)

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        return self.values[offset]


class Delivery:
    """Takes everything."""

    commits_offsets = False

    async def start(self) -> None:
        pass

    async def open(self, partition: int) -> int | None:
        return None

    async def send(self, partition: int, outputs: Outputs) -> None:
        pass

    def is_due(self, partition: int) -> bool:
        return False

    async def commit(self, partition: int, next_offset: int) -> None:
        pass

    def committed(self, partition: int) -> int | None:
        return None

    async def flush(self, partition: int) -> dict[str, int]:
        return {}

    async def close(self, partition: int) -> None:
        pass

    async def stop(self) -> None:
        pass


async def in_thread(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call it here."""
    return function(*arguments, **named)


def logged(folder: Path, lines: list[str], caplog: pytest.LogCaptureFixture, block: int) -> list[list[str]]:
    """Fold events in blocks, each followed by a checkpoint; return the warnings after each, and after the close."""
    values = [line.encode() for line in lines]
    environment = {
        "THALWEG_CHECKPOINT__DIRECTORY": str(folder),
        "THALWEG_CHECKPOINT__INTERVAL_EVENTS": "1",
        "THALWEG_TABLE__ROWS_LIMIT": "4096",
        "THALWEG_BEHAVIORS__USERS_LIMIT": "4097",
        "THALWEG_JOINER__WAITING_LIMIT": "4096",
    }
    ports = Ports(Brokers(values), Delivery(), LocalDisk(), time, in_thread)
    scoring = Scoring(load(None, environment=environment, flags=()), log=LOGGER, ports=ports)
    warnings: list[list[str]] = []

    def note() -> None:
        warnings.append([each.getMessage() for each in caplog.records if each.levelno == logging.WARNING])
        caplog.clear()

    async def run() -> None:
        first = await scoring.open(0, LogBounds(0, len(values)))
        for start in range(first, len(values), block):
            records = [LogRecord(start + n, value) for n, value in enumerate(values[start : start + block])]
            await scoring.fold(0, records)
            note()
        await scoring.close(0)
        note()

    asyncio.run(run())
    return warnings


def test_findings_are_in_the_log_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the first checkpoint behind the first records each finding is told, with its remedy, and then no more: one
    that comes later is told when it does."""
    lines = [impression(n) for n in range(700)] + [feedback(n, action="purchase") for n in range(700)] + ["{"] * 200
    first, second, third, closed = logged(tmp_path, lines, caplog, 600)
    assert (first, closed) == ([], [])
    positives = (
        "interactions-0: no feedback has an action in joiner.positive_actions (click), so nothing is learned; seen: "
        "purchase {}"
    )
    letters = "interactions-0: {} events are dead letters: not_json {}; `thalweg dead-letters show` prints them"
    assert second == [positives.format(500)]
    assert third == [letters.format("200 of 1,600", 200)]


def test_a_partition_that_closes_early_tells_what_it_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there are too few events for a checkpoint to judge, the close does."""
    lines = [impression(n) for n in range(20)] + ["{"] * 5
    folded, closed = logged(tmp_path, lines, caplog, FIRST_RECORDS)
    assert folded == []
    assert closed == [
        "interactions-0: 5 of 25 events are dead letters: not_json 5; `thalweg dead-letters show` prints them"
    ]

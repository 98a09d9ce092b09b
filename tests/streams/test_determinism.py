"""Same log, same configuration: same bytes and same state, however it is cut, wherever and as often as it is run."""

import json
import os
import random
import subprocess
import sys
from functools import cache

import msgspec
import pytest
from thalweg.schemas.events import Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.soak import sized
from tests.streams.fold_process import CONFIGURATIONS, folded
from tests.streams.logs_for_tests import ROOT, sample, shipped

WHOLE = 20_000
EVENTS = sized(8_000, WHOLE)
SNAPSHOT_EVENTS = 2_500


@cache
def expected(name: str) -> list[str]:
    """Return what batches of 1 000 give under a configuration."""
    return folded(sample(EVENTS), CONFIGURATIONS[name](), 1_000)


@pytest.mark.soak(EVENTS, WHOLE, "events")
@pytest.mark.parametrize("batch", [1, 7, EVENTS])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_batches_change_nothing(name: str, batch: int) -> None:
    """Batches of 1, of 7, of 1 000 and all at once must give equal output bytes and an equal state digest."""
    assert folded(sample(EVENTS), CONFIGURATIONS[name](), batch) == expected(name)


@pytest.mark.soak(EVENTS, WHOLE, "events")
@pytest.mark.parametrize("batch", [7, 1_000])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_snapshots_change_nothing(name: str, batch: int) -> None:
    """Going on from a snapshot at every 2 500th event must give equal output bytes and an equal state digest."""
    assert folded(sample(EVENTS), CONFIGURATIONS[name](), batch, SNAPSHOT_EVENTS) == expected(name)


@pytest.mark.soak(EVENTS, WHOLE, "events")
@pytest.mark.parametrize(
    ("name", "seed"), [("shipped", "0"), ("shipped", "1"), *((name, "random") for name in CONFIGURATIONS)]
)
def test_processes_change_nothing(name: str, seed: str) -> None:
    """Another process, whatever order it hashes strings in, must give equal output bytes and an equal state digest."""
    environment = os.environ | {"PYTHONHASHSEED": seed}
    arguments = [name, str(EVENTS), "333", str(SNAPSHOT_EVENTS if seed == "random" else 0)]
    command = [sys.executable, "-W", "error", "-m", "tests.streams.fold_process", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == expected(name)


def test_a_context_field_that_comes_late_changes_nothing_before() -> None:
    """Examples and scores before a context field first appears must not know it, however the log is cut."""
    records = [
        LogRecord(n, encode_event(Impression(f"{n}", f"u{n % 9}", f"i{n % 7}", START_MS + n * 60_000, context)))
        for n, context in enumerate([{"tab": 1}] * 40 + [{"tab": 1, "late": "x"}] * 40 + [{"later": "y"}] * 40)
    ]
    assert folded(records, CONFIGURATIONS["any_context"](), 1) == folded(
        records, CONFIGURATIONS["any_context"](), len(records)
    )


@pytest.mark.soak(EVENTS, WHOLE, "events")
@pytest.mark.parametrize("cut", [EVENTS // 10, EVENTS // 2])
def test_later_labels_change_no_earlier_score(cut: int) -> None:
    """Shuffling all labels after event k must leave the scores of event k and of all before it byte for byte."""
    records = list(sample(EVENTS))
    scores = [output.value for output in Partition(shipped()).process(records[: cut + 1]).scores]
    shuffled = Partition(shipped()).process(shuffle_labels(records, cut))
    assert [output.value for output in shuffled.scores[: len(scores)]] == scores
    assert [output.value for output in Partition(shipped()).process(records).scores] != [
        output.value for output in shuffled.scores
    ]


def shuffle_labels(records: list[LogRecord], cut: int) -> list[LogRecord]:
    """Give the feedback behind `cut` to other impressions, each to one whose outcome lies behind `cut` too."""
    decode = msgspec.json.Decoder(Impression | Feedback).decode
    events = [decode(record.value or b"") for record in records]
    before = {event.impression for event in events[: cut + 1] if isinstance(event, Feedback)}
    open_impressions = [event for event in events if isinstance(event, Impression) and event.id not in before]
    chosen = random.Random(5).sample(open_impressions, len(open_impressions))
    for number in range(cut + 1, len(events)):
        event = events[number]
        if isinstance(event, Feedback):
            other = chosen.pop()
            changes = {"id": f"{other.id}:click", "impression": other.id, "user": other.user, "item": other.item}
            events[number] = msgspec.structs.replace(event, **changes)
    return [LogRecord(number, encode_event(event)) for number, event in enumerate(events)]

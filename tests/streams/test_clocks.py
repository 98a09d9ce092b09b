"""Broken clocks: whatever some users' clocks show, what becomes of everybody else's impressions stays the same."""

import json
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from thalweg.operators.clock import ALONE_TURNS
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES
from thalweg.operators.joiner import Status
from thalweg.schemas.events import END_TS_MS
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import quality

from tests.streams.logs_for_tests import sample, shipped, small

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
WINDOW_MS = 600_000
WHOLE = 40_000

Event = dict[str, Any]
Clock = Callable[[int, int], int]
"""What the clock of a user's n-th event shows, instead of its true time."""


class Outcome(NamedTuple):
    """What became of a log: fates in all, labels and revisions of each impression, its score, all labels."""

    fates: dict[str, int]
    labels: dict[str, list[tuple[int, int]]]
    scores: dict[str, float]


@cache
def true_log(events: int) -> tuple[Event, ...]:
    """Return the sample's events in the order of their times, with feedback spread over the window."""
    chance, found = Random(1), []
    shown: dict[str, int] = {}
    for record in sample(events):
        event = json.loads(record.value or b"")
        if event["type"] == "impression":
            shown[event["id"]] = event["ts"]
        else:
            event["ts"] = shown[event["impression"]] + chance.randrange(1_000, WINDOW_MS - 10_000)
        found.append(event)
    return tuple(sorted(found, key=lambda event: event["ts"]))


def outcome(events: list[Event], configuration: Configuration) -> Outcome:
    """Fold a log, and close all of its windows."""
    partition = Partition(configuration)
    records = [LogRecord(number, json.dumps(event).encode()) for number, event in enumerate(events)]
    outputs = partition.process(records)
    fates = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
    examples = outputs.examples + partition.close_all().examples
    labels: dict[str, list[tuple[int, int]]] = {}
    for output in examples:
        made = json.loads(output.value or b"")
        labels.setdefault(made["id"], []).append((made["label"], made.get("revision", 0)))
    scores = {made["id"]: made["score"] for made in (json.loads(output.value or b"") for output in outputs.scores)}
    return Outcome(fates, labels, scores)


def broken(events: tuple[Event, ...], clocks: dict[str, Clock]) -> list[Event]:
    """Return the same records in the same order, with the times that the clocks of some users show."""
    counts: Counter[str] = Counter()
    found = []
    for event in events:
        user = event["user"]
        if user in clocks:
            ts_ms = clocks[user](counts[user], event["ts"])
            event = event | {"ts": min(max(ts_ms, 315_532_800_000), END_TS_MS - 1)}
        counts[user] += 1
        found.append(event)
    return found


@cache
def true_outcome(events: int) -> Outcome:
    """Return what becomes of `true_log`."""
    return outcome(list(true_log(events)), shipped())


def verify(count: int, clocks: dict[str, Clock], whole: bool) -> None:
    """Verify that others' labels stay, and nothing is dead-lettered; `whole`: nor do own labels or figures move."""
    events, true = true_log(count), true_outcome(count)
    found = outcome(broken(events, clocks), shipped())
    assert true.fates["late"] == true.fates["orphaned"] == found.fates["dead_lettered"] == 0
    assert found.fates["scored"] == true.fates["scored"]
    theirs = {event["id"] for event in events if event["type"] == "impression" and event["user"] not in clocks}
    assert {name: found.labels[name] for name in theirs} == {name: true.labels[name] for name in theirs}
    if whole:
        assert found.fates == true.fates
        assert found.labels == true.labels
        (area, calibration), (true_area, true_calibration) = figures(found, theirs), figures(true, theirs)
        assert area == pytest.approx(true_area, abs=0.002)
        assert calibration == pytest.approx(true_calibration, rel=0.01)


def figures(found: Outcome, names: set[str]) -> tuple[float, float]:
    """Return AUC and calibration, the mean score by the mean label, of some impressions."""
    chosen = sorted(names)
    labels = np.array([found.labels[name][0][0] for name in chosen], np.uint8)
    scores = np.array([found.scores[name] for name in chosen])
    area = quality(labels, scores).auc
    assert area is not None
    return area, float(scores.mean() / labels.mean())


def users_of(events: tuple[Event, ...]) -> list[str]:
    """Return the users, those with most events first."""
    return [user for user, _ in Counter(event["user"] for event in events).most_common()]


def shifted(by_ms: int) -> Clock:
    """Return a clock that is wrong by as much all the time."""
    return lambda _number, ts_ms: ts_ms + by_ms


CLOCKS: dict[str, Callable[[str, Random], Clock]] = {
    "nine hours ahead": lambda _user, _chance: shifted(9 * HOUR_MS),
    "three hours behind": lambda _user, _chance: shifted(-3 * HOUR_MS),
    "an offset of one's own": lambda _user, chance: shifted(chance.randrange(-12 * HOUR_MS, 14 * HOUR_MS)),
}


@pytest.mark.large
@pytest.mark.parametrize("name", CLOCKS)
def test_one_user_of_twenty_with_a_broken_clock_changes_no_outcome(name: str) -> None:
    """5% of the sample's users: all labels and fates stay, figures of the others move by .002 and 1% at most."""
    events, chance = true_log(WHOLE), Random(2)
    chosen = [user for user in users_of(events) if chance.random() < 0.05]
    verify(WHOLE, {user: CLOCKS[name](user, chance) for user in chosen}, whole=True)


@pytest.mark.large
@pytest.mark.parametrize("ahead", [1, 10, 100_000])
def test_one_user_a_day_ahead_changes_no_outcome(ahead: int) -> None:
    """One event, ten or all of the user who has most of them, 23 hours ahead."""
    events = true_log(12_000)

    def clock(number: int, ts_ms: int) -> int:
        return ts_ms + (23 * HOUR_MS if number < ahead else 0)

    verify(12_000, {users_of(events)[0]: clock}, whole=ahead > 10)
    verify(12_000, {events[0]["user"]: clock}, whole=ahead > 10)


@pytest.mark.large
@settings(deadline=None, max_examples=8)
@given(
    st.integers(0, 400),
    st.sampled_from(["ahead", "behind", "random", "stopped"]),
    st.integers(1, 5_000),
    st.integers(1, 400 * DAY_MS),
)
def test_one_user_with_any_clock_changes_nobody_elses_outcome(rank: int, how: str, number: int, by_ms: int) -> None:
    """Any user's first events, however many, wrong in any way: all labels of all others stay."""
    events = true_log(12_000)
    chance, began_ms = Random(by_ms), events[0]["ts"]
    clocks: dict[str, Clock] = {
        "ahead": lambda n, ts_ms: ts_ms + (by_ms if n < number else 0),
        "behind": lambda n, ts_ms: ts_ms - (by_ms if n < number else 0),
        "random": lambda n, ts_ms: ts_ms + (chance.randrange(-by_ms, by_ms) if n < number else 0),
        "stopped": lambda n, ts_ms: began_ms - by_ms if n < number else ts_ms,
    }
    users = users_of(events)
    verify(12_000, {users[rank % len(users)]: clocks[how]}, whole=False)


def slow_log(users: int, days: float, events: int) -> tuple[Event, ...]:
    """Return impressions of some users, exponential gaps of so many days between them, and feedback to half of them."""
    chance, found, now_ms = Random(users), list[Event](), 500_000_000_000
    for number in range(events):
        now_ms += int(chance.expovariate(1.0) * days * DAY_MS)
        user = f"u{chance.randrange(users)}"
        of = {"user": user, "item": f"i{chance.randrange(50)}"}
        found.append({"type": "impression", "id": f"{number}", "ts": now_ms, **of, "context": {}})
        if chance.random() < 0.5:
            ts_ms = now_ms + chance.randrange(1_000, WINDOW_MS)
            click = {"id": f"{number}:click", "impression": f"{number}", "ts": ts_ms, **of, "action": "click"}
            found.append({"type": "feedback", **click})
    return tuple(sorted(found, key=lambda event: event["ts"]))


def test_some_users_with_broken_clocks_in_a_sparse_log() -> None:
    """A log of minutes between events, as of ratings, and 5% of its users hours ahead or behind."""
    events, chance = slow_log(200, 160 / 86_400, 1_000), Random(3)
    for made in CLOCKS.values():
        chosen = {user: made(user, chance) for user in users_of(events) if chance.random() < 0.05}
        true, found = (
            outcome(log, small(users=4_096, waiting=2_048)) for log in (list(events), broken(events, chosen))
        )
        assert chosen
        assert found.fates["dead_lettered"] == 0
        theirs = {event["id"] for event in events if event["type"] == "impression" and event["user"] not in chosen}
        assert {name: found.labels[name] for name in theirs} == {name: true.labels[name] for name in theirs}


@pytest.mark.parametrize("users", [1, 2, 3, 30])
@pytest.mark.parametrize("days", [0.5, 30.0])
def test_a_log_of_days_between_events_is_scored_whole_and_promptly(users: int, days: float) -> None:
    """Nothing is dead-lettered, late or orphaned, and of what was shown before, all but the last dozen are closed."""
    events = slow_log(users, days, 150)
    partition = Partition(small())
    waiting = []
    for number, event in enumerate(events):
        partition.process([LogRecord(number, json.dumps(event).encode())])
        waiting.append(int((partition.state.waiting.status == Status.WAITING).sum()))
    fates = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
    assert fates["scored"] == 150
    assert fates["joined"] == len(events) - 150
    assert max(waiting) <= ALONE_TURNS + 4


@given(st.lists(st.integers(0, 2), min_size=10, max_size=60), st.integers(1, 3))
@settings(deadline=None, max_examples=10)
@example([0] * 20 + [1] * 20 + [0] * 20, 2)
def test_no_window_of_three_users_stays_open_for_long(turns: list[int], users: int) -> None:
    """In whatever order one, two or three users come, a day apart: at most as many wait as it takes to believe one."""
    partition = Partition(small())
    for number, turn in enumerate(turns):
        event = {"type": "impression", "id": f"{number}", "user": f"u{turn % users}", "item": "film", "context": {}}
        record = LogRecord(number, json.dumps(event | {"ts": 500_000_000_000 + number * DAY_MS}).encode())
        partition.process([record])
        assert (partition.state.waiting.status == Status.WAITING).sum() <= ALONE_TURNS + 2

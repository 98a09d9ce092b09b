"""Feedback without an impression belongs to the latest that waits for it, or is a behaviour by itself."""

from dataclasses import replace
from typing import Any

import numpy as np
from thalweg.operators.cross import SHOWN
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small

WINDOW_MS, LATE_MS = 60_000, 30_000


def driver(**joiner: Any) -> Driver:
    c = small(rows=1_024, users=300, waiting=128, histories=16)
    windows = {"attribution_window_ms": WINDOW_MS, "late_window_ms": LATE_MS, "provisional_share": 1.0}
    return Driver(replace(c, joiner=replace(c.joiner, **(windows | joiner))))


def act(log: Driver, at_ms: int, *, user: str = "u", item: str = "i", id: str = "f", action: str = "click") -> None:  # noqa: A002
    log.pipe({"type": "feedback", "id": id, "user": user, "item": item, "ts": START_MS + at_ms, "action": action})


def show(log: Driver, number: str, at_ms: int, *, user: str = "u", item: str = "i") -> None:
    log.impression(number, user=user, item=item, ts=START_MS + at_ms)


def labels(log: Driver) -> dict[str, int]:
    return {example.id: example.label for example in [*log.examples, *log.close_windows().examples]}


def fates(log: Driver) -> dict[str, int]:
    return {name: count for name, count in log.fates.items() if count}


def test_it_belongs_to_the_users_latest_waiting_impression_of_the_item() -> None:
    """Neither an earlier one of the item, nor another item's, nor another user's gets the label."""
    log = driver()
    show(log, "first", 0)
    show(log, "latest", 1_000)
    show(log, "other item", 2_000, item="j")
    show(log, "other user", 3_000, user="v")
    act(log, 4_000)
    assert fates(log) == {"scored": 4, "joined": 1}
    assert labels(log) == {"first": 0, "latest": 1, "other item": 0, "other user": 0}


def test_only_within_the_impressions_window() -> None:
    """A click whose window is over, though the impression waits for a longer action's, is a behaviour."""
    log = driver(positive_actions=("click", "buy"), attribution_window_ms_by_action={"click": 5_000})
    show(log, "1", 0)
    act(log, 6_000)
    act(log, 7_000, id="g", action="buy")
    assert fates(log) == {"scored": 1, "behaviour": 1, "joined": 1}
    assert labels(log) == {"1": 1}


def test_where_none_waits_it_is_a_behaviour_of_an_item_that_may_be_new() -> None:
    """It extends the user's sequence and counts as an exposure of the item, and changes no rate."""
    log = driver()
    act(log, 0, item="never shown", action="search")
    state = log.partition.state
    assert fates(log) == {"behaviour": 1}
    [user] = np.flatnonzero(state.users.key)
    assert state.behaviors.counts[user, 0] == 1
    row = state.behaviors.row[user, 0, 0]
    assert state.features.key[row] == key_of("never shown", field_seed("item", 0))
    assert state.cross.embedded.parts[row, SHOWN] == 1.0
    assert not state.learner.rates.sums[row].any()
    assert state.visits.shown[user] == 0
    assert log.close_windows().examples == []


def test_sent_twice_it_is_a_duplicate_while_it_is_remembered() -> None:
    """A behaviour is known until the late window is over, a joined action with its impression; others' ids differ."""
    log = driver()
    act(log, 0)
    act(log, 1_000)
    act(log, 1_000, user="v")
    assert fates(log) == {"behaviour": 2, "duplicate": 1}
    show(log, "1", 2_000)
    act(log, 3_000, id="g")
    show(log, "2", 4_000)
    act(log, 5_000, id="g")
    assert fates(log) == {"behaviour": 2, "duplicate": 2, "scored": 2, "joined": 1}
    show(log, "3", LATE_MS + 1_000, user="w")
    act(log, LATE_MS + 1_000, user="v")
    assert fates(log)["behaviour"] == 3


def test_one_users_behaviours_are_bounded() -> None:
    """Beyond the user's share the oldest make room; where all that is kept waits, an action is a dead letter."""
    log = driver(user_share=8 / 128)
    for number in range(30):
        act(log, number, id=f"f{number}", item=f"i{number}")
    assert fates(log) == {"behaviour": 30}
    assert np.count_nonzero(log.partition.state.waiting.status) == 8
    for number in range(8):
        show(log, f"{number}", 100, item=f"s{number}")
    act(log, 200, id="more", item="more")
    assert fates(log) == {"behaviour": 30, "scored": 8, "dead_lettered": 1}
    assert log.dead_letters[0].reason == "too_many_feedbacks"


def test_the_search_is_bounded() -> None:
    """Beyond `joiner.search_limit` of the user's latest, an impression is not found any more."""
    log = driver(search_limit=3)
    show(log, "wanted", 0)
    for number in range(3):
        show(log, f"{number}", 1_000 + number, item="j")
    act(log, 2_000)
    assert fates(log) == {"scored": 4, "behaviour": 1}


def test_erase_takes_behaviours_and_a_snapshot_keeps_them() -> None:
    """A restored state has the digest and knows the behaviour; an erased user's is forgotten."""
    log = driver()
    act(log, 0)
    again = Partition(log.configuration, arrays=log.partition.snapshot())
    assert again.digest() == log.partition.digest()
    sent = LogRecord(1, log.log[0].value)
    again.process([sent])
    assert again.state.fates.tolist()[3] == 1
    log.erase("u", ts=START_MS)
    assert not log.partition.state.waiting.status.any()
    act(log, 1_000)
    assert fates(log) == {"behaviour": 2, "erased": 1}

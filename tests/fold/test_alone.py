"""A user who is alone for a while is learned from by the user's own clock, and as the specification has it."""

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from thalweg.operators.joiner import UNLEARNED
from thalweg.schemas.events import Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS, Driver

from tests.fold.agreement import apart, of_the_fold, of_the_specification

STEP_MS, CLICK_MS, SESSION = 20_000, 1_000, 12


@cache
def sessions(count: int = 40) -> tuple[LogRecord, ...]:
    """One user after the other rates a dozen items in a row, 20 s apart; who likes one says so after a second."""
    chance = random.Random(3)
    events: list[Any] = []
    ts = START_MS
    for session in range(count):
        user = f"u{session % 15}"
        for _ in range(SESSION):
            ts += STEP_MS
            number = f"{len(events)}"
            events.append(Impression(number, user, f"i{chance.randrange(20)}", ts, {"tab": f"t{chance.randrange(3)}"}))
            if chance.random() < 0.4:
                events.append(Feedback.of(f"{number}:c", number, user, events[-1].item, ts + CLICK_MS, "click"))
        ts += 200_000
    return tuple(LogRecord(offset, encode_event(event)) for offset, event in enumerate(events))


@pytest.mark.parametrize("name", ["shipped", "negative sampling"])
def test_sessions_are_learned_as_the_specification_has_it(name: str) -> None:
    """In each score."""
    records = list(sessions())
    distance = apart(of_the_fold(records, name), of_the_specification(records, name))
    assert distance.max() < 1e-4
    assert np.median(distance) < 1e-5


def test_the_next_impression_makes_the_last_one_due() -> None:
    """Though time stands still: each but the last impression of a session is learned from within it."""
    driver = Driver()
    records = list(sessions())
    driver.pipe(*records)
    waiting = driver.partition.state.waiting
    before_ms = driver.stream_time_ms
    last_ms = START_MS + 10 * len(records) * STEP_MS
    for number in range(6):
        driver.impression(f"last-{number}", user="u14", item=f"i{number}", ts=last_ms + number * STEP_MS)
    assert driver.stream_time_ms == before_ms
    mine = np.flatnonzero(waiting.ts_ms >= last_ms)
    by_time = mine[np.argsort(waiting.ts_ms[mine])]
    assert len(by_time) == 6
    learned = waiting.learned[by_time]
    assert (learned[:-1] != UNLEARNED).all()
    assert (learned[:-1] < 0.1).all()  # what still may come after so long
    assert learned[-1] == UNLEARNED

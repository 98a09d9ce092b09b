"""Interests in the fold: what a window takes from them, and what is left where they are switched off."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.layout import INTERESTS, Interest, interests_start
from thalweg.schemas.events import Event, Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small

DAY_MS = 86_400_000
SHORT_LENGTH = 2


def configured(*, window_behaviors: int = 0, window_ms: int = 0, interests: bool = True) -> Configuration:
    c = small(histories=8)
    return replace(
        c,
        behaviors=replace(c.behaviors, short_length=SHORT_LENGTH),
        sdim=replace(c.sdim, window_behaviors=window_behaviors, window_ms=window_ms, window_generations=2),
        learner=replace(c.learner, interests=interests),
    )


def clicks(count: int) -> list[Event]:
    """A user who clicks an item a minute."""
    events: list[Event] = []
    for number in range(count):
        ts = START_MS + number * 60_000
        events.append(Impression(f"{number}", "u", f"i{number}", ts, {}))
        events.append(Feedback.of(f"{number}:click", f"{number}", "u", f"i{number}", ts + 1_000, "click"))
    return events


def folded(configuration: Configuration, events: Sequence[Event]) -> Partition:
    partition = Partition(configuration)
    partition.process([LogRecord(offset, encode_event(event)) for offset, event in enumerate(events)])
    return partition


def last_long_interest(partition: Partition, configuration: Configuration) -> np.ndarray:
    """The long interest that the last impression was scored with."""
    waiting = partition.state.waiting
    slot = int(waiting.offset.argmax())
    size = configuration.learner.latent_size
    interests = partition.state.features_seen.inputs[slot, interests_start(partition.state.learner) :]
    return interests[Interest.LONG * size : (Interest.LONG + 1) * size]


@pytest.mark.parametrize(("window_ms", "days", "is_read"), [(0, 2, True), (DAY_MS, 0, True), (DAY_MS, 2, False)])
def test_a_window_by_time_is_judged_when_it_is_read(window_ms: int, days: int, is_read: bool) -> None:
    """A user who comes back after the window's time has no long interest, whether or not anything was dropped."""
    configuration = configured(window_ms=window_ms)
    events = [*clicks(20), Impression("last", "u", "i0", START_MS + 30 * 60_000 + days * DAY_MS // 2, {})]
    events.append(Impression("again", "u", "i1", START_MS + 30 * 60_000 + days * DAY_MS, {}))
    partition = folded(configuration, events)
    assert last_long_interest(partition, configuration).any() == is_read


def test_a_window_by_count_bounds_what_is_long() -> None:
    """Of twenty clicks, two in the ring, a window of eight holds five to eight."""
    histories = folded(configured(window_behaviors=8), clicks(20)).state.behaviors.histories
    assert 4 < int(histories.lengths[0].sum()) <= 8
    assert int(folded(configured(), clicks(20)).state.behaviors.histories.lengths[0].sum()) == 20 - SHORT_LENGTH


def test_without_interests_no_long_history_is_kept() -> None:
    """The ring, which recent items are read from, stays as it is; there are no interests among the inputs."""
    one, other = (folded(configured(interests=interests), clicks(20)) for interests in (True, False))
    size = configured().learner.latent_size
    assert one.state.features_seen.inputs.shape[1] - other.state.features_seen.inputs.shape[1] == INTERESTS * size
    assert int(one.state.behaviors.histories.pool.counts[0]) == 1
    assert int(other.state.behaviors.histories.pool.counts[0]) == 0
    for name in ("row", "generation", "ts_ms", "counts"):
        assert np.array_equal(getattr(one.state.behaviors, name), getattr(other.state.behaviors, name))

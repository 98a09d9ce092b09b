"""Whether a row is there is a matter of time: gaps in the log and the sweep's progress change nothing of it."""

from dataclasses import replace

import pytest
from thalweg.operators.delay import Time
from thalweg.operators.rates import Sum
from thalweg.operators.structures.table import Loss
from thalweg.streams.driver import START_MS, Driver

from tests.streams.logs_for_tests import small

WINDOW_MS, ELAPSED_MS, LATE_MS = 600_000, 60_000, 900_000
SHOWN = {"user": "ann", "item": "film", "context": {"tab": ["a", "b", "c", "home"]}}
OTHER = {"user": "ann", "item": "song", "context": {"tab": "search"}}


def driver(expire_time_ms: int) -> Driver:
    """Return a driver whose values expire so soon."""
    c = small()
    joiner = replace(c.joiner, attribution_window_ms=WINDOW_MS, late_window_ms=LATE_MS)
    c = replace(c, features=replace(c.features, context=("tab",)), joiner=joiner)
    return Driver(replace(c, table=replace(c.table, expire_time_ms=expire_time_ms)))


def counted(log: Driver, tab: str = "home") -> list[float]:
    """Return exposures and positives that a tab counts; of several tabs the last one is freed last, behind the item."""
    value = log.value("tab", tab)
    return [] if value is None else log.partition.state.learner.rates.sums[value.row, : Sum.ACTED + 1].tolist()


@pytest.mark.parametrize("gap_ms", [1, WINDOW_MS, 100 * WINDOW_MS])
@pytest.mark.parametrize("is_provisional", [False, True])
@pytest.mark.parametrize(("more_ms", "learns"), [(1, False), (2, True)])
def test_a_row_learns_if_it_is_there_when_its_label_is_due(
    gap_ms: int, *, is_provisional: bool, more_ms: int, learns: bool
) -> None:
    """The first millisecond behind the due time decides to the millisecond, whenever the next event comes."""
    due_ms = ELAPSED_MS if is_provisional else WINDOW_MS
    log = driver(due_ms + more_ms)
    if is_provisional:
        delays = log.partition.state.delays
        delays.times_ms[Time.ELAPSED] = ELAPSED_MS
        delays.within[:] = 1.0
    log.impression("1", ts=START_MS, **SHOWN)
    log.impression("2", ts=START_MS + due_ms + gap_ms, **OTHER)
    value = log.value("tab", "home")
    assert value is not None, "the test needs a row that no sweep has come by"
    assert counted(log)[0] == learns
    assert (value.updated_ms == log.stream_time_ms) == learns
    assert value.coordinates.any(axis=-1).all() or not learns


@pytest.mark.parametrize(("before_ms", "acted"), [(0, 0.0), (1, 1.0)])
def test_a_late_positive_is_learned_by_the_rows_that_are_there(before_ms: int, acted: float) -> None:
    """Rows are judged when the feedback comes: they were updated last when the window closed."""
    expire_ms = WINDOW_MS + LATE_MS // 6
    log = driver(expire_ms)
    log.impression("1", ts=START_MS, **SHOWN)
    log.impression("2", ts=START_MS + WINDOW_MS + 1, **OTHER)
    assert counted(log) == [1.0, 0.0]
    clicked_ms = START_MS + WINDOW_MS + 1 + expire_ms - before_ms
    examples = log.feedback("1", user="ann", item="film", ts=clicked_ms, action="click").examples
    assert [(example.id, example.label, example.revision) for example in examples][-1] == ("1", 1, 1)
    assert counted(log) == [1.0, acted]


def test_the_sweep_frees_two_rows_an_event_and_two_for_each_further_row_of_the_page_before() -> None:
    """Rows whose time is over must not fill the table: all are freed, a few with each event, by no look-up."""
    expire_ms = WINDOW_MS // 2
    log = driver(expire_ms)
    for row in range(3):
        tabs = [f"{row}.{number}" for number in range(4)]
        log.impression(str(row), ts=START_MS, user="ann", item="film", context={"tab": tabs})
    values = log.partition.state.features
    owned = int((values.key != 0).sum())
    freed = []
    for number in range(owned):
        log.user("ann", {"age": number}, ts=START_MS + expire_ms)
        freed.append(int(values.counts[Loss.EXPIRED]))
    assert freed == [min(2 + 2 * further, owned) for further in range(2, 2 + owned)]
    assert not values.key.any()

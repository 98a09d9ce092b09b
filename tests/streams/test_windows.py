"""Several actions with windows of their own: labels, lateness and examples are those of the plain rules."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.joiner import JoinerConfiguration
from thalweg.schemas.origin import parse_cause
from thalweg.schemas.outputs import Example
from thalweg.streams.driver import START_MS, Driver

from tests.streams.logs_for_tests import small
from tests.streams.plain_rules import Joiner

MINUTE_MS = 60_000
DAY_MS = 1_440 * MINUTE_MS
WINDOWS_MS = {"click": 10, "like": 25, "purchase": 60}


def with_windows(late_window_ms: int, default_ms: int, own_ms: dict[str, int]) -> Configuration:
    c = small()
    joiner = replace(
        c.joiner,
        positive_actions=tuple(WINDOWS_MS),
        attribution_window_ms=default_ms,
        attribution_window_ms_by_action=own_ms,
        late_window_ms=late_window_ms,
    )
    return replace(c, joiner=joiner)


@pytest.fixture
def driver() -> Driver:
    """Clicks count for ten minutes, likes too, purchases for a day; the late window is ten minutes."""
    return Driver(with_windows(10 * MINUTE_MS, 10 * MINUTE_MS, {"purchase": DAY_MS}))


def act(driver: Driver, action: str, minutes: float) -> list[Example]:
    ts = START_MS + int(minutes * MINUTE_MS)
    return driver.feedback("1", user="ann", item="film", ts=ts, action=action, id=f"{action} {minutes}").examples


def outcomes(examples: list[Example]) -> list[tuple[int, int]]:
    return [(example.label, example.revision) for example in examples]


def close(driver: Driver) -> list[tuple[int, int]]:
    """Let a day and a millisecond pass, of which a second and a third user report."""
    found: list[Example] = []
    for user in ("bob", "cid"):
        found += driver.impression(f"of {user}", user=user, item="film", ts=START_MS + DAY_MS + 1).examples
    return outcomes(found)


def test_an_action_sets_the_label_until_exactly_the_end_of_its_own_window(driver: Driver) -> None:
    """A purchase after a day must still make a positive, when the longest window closes and not before."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert act(driver, "purchase", 24 * 60) == []
    assert driver.fates["joined"] == 1
    assert close(driver) == [(1, 0)]


@pytest.mark.parametrize("action", ["click", "like"])
def test_an_action_after_its_own_window_sets_no_label(driver: Driver, action: str) -> None:
    """A click long after its own window must be late though the impression waits, and teach nothing."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert act(driver, action, 20.001) == []
    assert driver.fates["late"] == 1
    assert driver.sequence("ann") == ["film"]
    assert close(driver) == [(0, 0)]


def test_a_late_positive_of_a_waiting_impression_is_learned_when_that_closes(driver: Driver) -> None:
    """A click within the late window behind its own must make the extra step once the negative is learned."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert act(driver, "click", 20) == []
    assert close(driver) == [(0, 0), (1, 1)]
    assert driver.counts["late_positives"] == 1


def test_a_late_positive_is_none_where_another_action_was_in_time(driver: Driver) -> None:
    """A purchase in time after a click too late must make one positive example and no more."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    act(driver, "click", 15)
    act(driver, "purchase", 16)
    assert close(driver) == [(1, 0)]
    assert driver.counts["late_positives"] == 0


def test_a_closed_impression_takes_late_positives_of_its_longest_window_only(driver: Driver) -> None:
    """After closing a purchase must still count for the late window, a click no more."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert close(driver) == [(0, 0)]
    assert act(driver, "click", 24 * 60 + 5) == []
    assert outcomes(act(driver, "purchase", 24 * 60 + 10)) == [(1, 1)]
    assert driver.fates["late"] == 2


def test_an_early_action_is_held_to_its_own_window(driver: Driver) -> None:
    """Of feedback before its impression a click behind its window must be late, a purchase in time joined."""
    act(driver, "click", 11)
    act(driver, "purchase", 12)
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert (driver.fates["early"], driver.fates["late"], driver.fates["joined"]) == (0, 1, 1)
    assert close(driver) == [(1, 0)]


def test_a_feedback_that_comes_out_of_order_counts_by_its_own_time(driver: Driver) -> None:
    """A click done in time must set the label though stream time is past its window, while the impression waits."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.impression("3", user="bob", item="film", ts=START_MS + 60 * MINUTE_MS)
    act(driver, "click", 9)
    assert driver.fates["joined"] == 1
    assert close(driver) == [(1, 0)]


events = st.lists(
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["impression", *WINDOWS_MS, "pause"]),
            "of": st.integers(0, 2),
            "user": st.sampled_from(["ann", "ann", "ann", "ann", "bob"]),
            "step": st.sampled_from([0, 0, 1, 4, 5, 10, 11, 15, 25, 60, 61]),
            "back": st.sampled_from([0, 0, 0, 1, 10, 30]),
            "again": st.integers(0, 3),
        }
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=200, deadline=None)
@given(events, st.sampled_from([0, 1, 10, 40]), st.booleans())
def test_any_order_of_impressions_and_actions_gives_the_examples_of_the_plain_rules(
    drawn: list[dict[str, Any]], late_window_ms: int, by_default: bool
) -> None:
    """Fates and examples (which, label, revision, cause, in this order) must be those of the plain joiner."""
    own_ms = {action: ms for action, ms in WINDOWS_MS.items() if not (by_default and action == "like")}
    driver = Driver(with_windows(late_window_ms, WINDOWS_MS["like"], own_ms))
    plain = Joiner(WINDOWS_MS, late_window_ms)
    now_ms = START_MS
    for number, each in enumerate(drawn):
        now_ms += each["step"]
        name, ts = str(each["of"]), max(START_MS, now_ms - each["back"])
        record = {"type": "impression", "id": name, "user": each["user"], "item": "film", "ts": ts, "context": {}}
        if each["kind"] != "impression":
            record = {
                "type": "feedback",
                "id": f"{each['kind']}{each['again']}",
                "impression": name,
                "action": each["kind"],
            }
            record |= {"user": each["user"], "item": "film", "ts": ts}
        driver.pipe(record)
        plain.take(number, record)
        assert {fate: count for fate, count in driver.fates.items() if count} == +plain.fates
    causes = [parse_cause(example.cause)[1].offset for example in driver.examples]
    found = [(e.id, e.label, e.revision, cause) for e, cause in zip(driver.examples, causes, strict=True)]
    assert found == plain.examples


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attribution_window_ms_by_action": {"purchase": 5}}, "positive_actions only, not 'purchase'"),
        ({"attribution_window_ms_by_action": {"click": 0}}, "must lie within 1 and 3,162,240,000,000, each"),
        ({"attribution_window_ms_by_action": {"click": 2**62}}, "must lie within"),
        ({"late_window_ms": 2**62}, "must lie within"),
    ],
)
def test_windows_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    """A window of an action that sets no label, an empty one and one beyond a hundred years must be refused."""
    with pytest.raises(ValueError, match=message):
        JoinerConfiguration(**wrong)

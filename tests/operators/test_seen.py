"""What each user acted on: the last items are always known, others rarely taken for one, in bounded room."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.behaviors import BehaviorsConfiguration
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.declare import made
from thalweg.operators.machine.hashing import mix
from thalweg.operators.seen import SeenItems, has_seen, remember, words_of
from thalweg.streams.driver import START_MS, Driver

BOUND = 0.0012


def new(length: int, users: int = 2) -> SeenItems:
    return made(SeenItems, users=users, seen_words=words_of(length), seen_length=length)


def key_of(number: int) -> np.uint64:
    return np.uint64(mix(number, 1))


@settings(deadline=None)
@given(st.integers(1, 9), st.lists(st.integers(0, 30), max_size=60))
def test_the_last_different_items_are_always_known(length: int, items: list[int]) -> None:
    """At least so many, whatever comes again in between, and none of another user."""
    seen = new(length)
    for item in items:
        remember(seen, 1, key_of(item), length)
    last = list(dict.fromkeys(reversed(items)))
    for item in last[:length]:
        assert has_seen(seen, 1, key_of(item))
    assert seen.used[1] <= length
    assert not any(has_seen(seen, 0, key_of(item)) for item in items)


def test_items_long_ago_are_forgotten_and_others_are_rarely_taken_for_one() -> None:
    """After many times the length: the share of wrong answers stays within the bound, at the default length too."""
    for length in (16, 64, 100):
        seen = new(length)
        for number in range(20 * length):
            remember(seen, 1, key_of(number), length)
        assert all(has_seen(seen, 1, key_of(number)) for number in range(19 * length, 20 * length))
        assert seen.used[1] == length  # both filters are full
        wrong = np.mean([has_seen(seen, 1, key_of(number)) for number in range(18 * length)])
        others = np.mean([has_seen(seen, 1, key_of(1_000_000 + number)) for number in range(6_000)])
        assert wrong < 0.01
        assert others < 1.5 * BOUND


def test_nothing_is_kept_at_length_zero() -> None:
    """Nor of a user who is not known."""
    seen = new(0)
    remember(seen, 1, key_of(1), 0)
    other = new(4)
    remember(other, -1, key_of(1), 4)
    assert not seen.bits.any()
    assert not other.bits.any()


@pytest.mark.parametrize("length", [0, 6])
def test_a_request_drops_what_was_acted_on_longer_ago(length: int) -> None:
    """Beyond the ring of two, six more items are known; an erase leaves nothing of them."""
    behaviors = BehaviorsConfiguration(short_length=2, seen_length=length)
    driver = Driver(Configuration(behaviors=behaviors))
    items = [f"item-{number}" for number in range(6)]
    for number, item in enumerate(items):
        driver.impression(f"{number}", user="ann", item=item, ts=START_MS + number)
        driver.feedback(f"{number}", user="ann", item=item, ts=START_MS + number, action="click")
    asked = {
        "type": "request",
        "user": "ann",
        "ts": START_MS + 10,
        "context": {},
        "candidates": [*items, "new"],
        "seen": "drop",
    }
    (ranking,) = driver.pipe(asked | {"id": "r1"}).rankings
    left = {each.item for each in ranking.items}
    assert left == ({"new"} if length else {*items[:4], "new"})
    driver.erase("ann", ts=START_MS + 11)
    (ranking,) = driver.pipe(asked | {"id": "r2"}).rankings
    assert {each.item for each in ranking.items} == {*items, "new"}
    assert not driver.partition.state.seen_items.bits.any()

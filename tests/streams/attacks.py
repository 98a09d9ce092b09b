"""Hostile logs, and beside each a benign one of the same kind: what the tests and the benchmark measure them by."""

from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from thalweg.schemas.events import Context, Erase, Event, Feedback, Impression
from thalweg.streams.driver import START_MS

from tests.streams.crafted import colliding_ids

DAY_MS = 86_400_000
CRAFTED = 400
CONTEXT_VALUES = 30
VALUE_BYTES = 256
Events = Callable[[], Iterator[Event]]


class Attack(NamedTuple):
    """Two endless logs."""

    hostile: Events
    benign: Events


def impressions(
    user: Callable[[int], str] = lambda n: f"user-{n % 1_000}",
    item: Callable[[int], str] = lambda n: f"item-{n % 500}",
    name: Callable[[int], str] = lambda n: f"shown-{n}",
    ts: Callable[[int], int] = lambda n: n * 10,
    context: Callable[[int], Context] = lambda n: {"tab": n % 3},
) -> Events:
    """Return a log of impressions."""

    def events() -> Iterator[Event]:
        n = 0
        while True:
            yield Impression(name(n), user(n), item(n), START_MS + ts(n), context(n))
            n += 1

    return events


def feedback(of: Callable[[int], str], name: Callable[[int], str] = lambda n: f"click-{n}") -> Events:
    """Return a log of impressions, each followed by a feedback of the same user."""
    shown = impressions()

    def events() -> Iterator[Event]:
        for n, event in enumerate(shown()):
            yield event
            yield Feedback.of(name(n), of(n), event.user, f"item-{n % 500}", event.ts, "click")

    return events


def erases(user: Callable[[int], str]) -> Events:
    """Return a log of impressions, each followed by an erase."""
    shown = impressions()

    def events() -> Iterator[Event]:
        for n, event in enumerate(shown()):
            yield event
            yield Erase(f"erase-{n}", user(n), event.ts)

    return events


@cache
def crafted_ids(field: str) -> tuple[str, ...]:
    """Return ids that collide, more than their bucket and the stash can hold; they take seconds to be found."""
    return tuple(colliding_ids(field, CRAFTED))


def crafted(field: str) -> Callable[[int], str]:
    """Return ids that collide, over and over."""
    return lambda n: crafted_ids(field)[n % CRAFTED]


def wide(value: Callable[[int, int], str]) -> Callable[[int], Context]:
    """Return contexts of as many values as there may be."""
    return lambda n: {"tags": [value(n, i) for i in range(CONTEXT_VALUES)]}


def long_value(n: int, i: int) -> str:
    """Return a value as long as may be, never seen before."""
    return f"{n}-{i}".ljust(VALUE_BYTES, "x")


def attacks() -> dict[str, Attack]:
    """Return every attack by its name."""
    plain = impressions()
    new_users = impressions(user=lambda n: f"new-{n}")
    joined = feedback(of=lambda n: f"shown-{n}")
    return {
        "user ids of one bucket": Attack(impressions(user=crafted("user")), new_users),
        "item ids of one bucket": Attack(impressions(item=crafted("item")), impressions(item=lambda n: f"new-{n}")),
        "impression ids of one bucket": Attack(impressions(name=crafted("impression")), plain),
        "one user": Attack(impressions(user=lambda n: "greedy"), plain),
        "ever new users in one second": Attack(
            impressions(user=lambda n: f"new-{n}", ts=lambda n: n % 1_000), new_users
        ),
        "clocks ahead, refused": Attack(impressions(ts=lambda n: n * 10 + (n % 2) * 400 * DAY_MS), plain),
        "clocks a day ahead, each": Attack(
            impressions(ts=lambda n: min(n * DAY_MS, 27_000 * DAY_MS), user=lambda n: f"user-{n % 1_000}"), plain
        ),
        "clocks behind": Attack(impressions(ts=lambda n: n * 10 - (n % 2) * 8_000 * DAY_MS), plain),
        "ever new context fields": Attack(impressions(context=lambda n: {f"field-{n}": n}), plain),
        "the widest contexts": Attack(
            impressions(context=wide(long_value)), impressions(context=wide(lambda n, i: f"{(n + i) % 500}"))
        ),
        "feedback on nothing": Attack(feedback(of=lambda n: f"never-{n}"), joined),
        "feedback on one impression": Attack(feedback(of=lambda n: f"shown-{n // 1_000 * 1_000}"), joined),
        "the same feedback": Attack(
            feedback(of=lambda n: f"shown-{n // 1_000 * 1_000}", name=lambda n: f"click-{n // 1_000}"), joined
        ),
        "the same impressions": Attack(impressions(name=lambda n: f"shown-{n % 2}"), plain),
        "erases of strangers": Attack(erases(user=lambda n: f"stranger-{n}"), joined),
        "erases of users": Attack(erases(user=lambda n: f"user-{(n - 500) % 1_000}"), joined),
    }

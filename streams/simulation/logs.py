"""Logs for the simulation: everything that a log may hold, under a state at its smallest limits."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from typing import Any

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.hashing import partition_of
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration
from thalweg.streams.driver import START_MS
from thalweg.streams.simulation.topic import SimulatedRecord

WINDOW_MS = 60_000
USERS = 6


@cache
def smallest() -> Configuration:
    """Return a configuration whose state is quickly made, saved and loaded, and soon at its limits."""
    c = Configuration()
    return replace(
        c,
        features=replace(c.features, fields_limit=6, values_limit=6),
        facts=replace(c.facts, items_limit=6, owner_bytes=128, items_bytes=1 << 16, users_bytes=1 << 16),
        table=replace(c.table, rows_limit=1_024, filter_cells=1_024),
        behaviors=replace(c.behaviors, users_limit=25, short_length=3),
        sdim=replace(c.sdim, groups=2, tau=2, histories_limit=4, window_behaviors=4, window_generations=2),
        joiner=replace(
            c.joiner,
            attribution_window_ms=WINDOW_MS,
            late_window_ms=WINDOW_MS,
            waiting_limit=24,
            feedback_limit=32,
            feedbacks_per_impression=4,
            text_bytes=1 << 18,
            user_share=0.5,
        ),
        learner=replace(c.learner, latent_size=2, recent_items=1),
        error_memory=replace(c.error_memory, arrays=1, bits=4, keyed_bits=4),
    )


@cache
def smallest_of_several() -> Configuration:
    """Return the same with two objectives, whose windows are not the same."""
    named = {
        "click": ObjectiveConfiguration(actions=("click",), window_ms=WINDOW_MS),
        "like": ObjectiveConfiguration(actions=("like",), window_ms=WINDOW_MS // 3),
    }
    return replace(smallest(), objectives=ObjectivesConfiguration(order="click - 2 * like", named=named))


@cache
def users_of(partition: int, partitions: int) -> tuple[str, ...]:
    """Return users whose key hashes to a partition."""
    names = (f"u{number}" for number in range(10_000))
    found = (name for name in names if partition_of(name.encode(), partitions) == partition)
    return tuple(name for name, _ in zip(found, range(USERS), strict=False))


def make_log(random: Random, partition: int, partitions: int, count: int, holes: float) -> list[SimulatedRecord]:
    """Return a partition's log: impressions, requests, facts, feedback in time or not, twice, erasures, bad records.

    `holes`: how likely offsets are missing between two records.
    """
    writer = _Writer(random, users_of(partition, partitions))
    records: list[SimulatedRecord] = []
    offset = 0
    for _ in range(count):
        offset += random.randint(1, 3) if random.random() < holes else 0
        key, value = writer.next()
        records.append(SimulatedRecord(offset, value, key, partition=partition))
        offset += 1
    return records


class _Writer:
    def __init__(self, random: Random, users: tuple[str, ...]) -> None:
        self._random, self._users = random, users
        self._ts_ms = START_MS
        self._number = 0
        self._shown: list[dict[str, Any]] = []
        self._coming: list[dict[str, Any]] = []
        self._written: list[tuple[bytes | None, bytes | None]] = [(None, b"")]
        self._kinds: list[tuple[float, Callable[[], dict[str, Any] | None]]] = [
            (0.44, self._impression),
            (0.71, self._feedback),
            (0.74, self._action),
            (0.77, self._early),
            (0.80, self._facts),
            (0.83, self._erase),
            (0.87, self._request),
            (0.91, lambda: None),
        ]

    def next(self) -> tuple[bytes | None, bytes | None]:
        """Return the next record's key and value."""
        self._number += 1
        self._ts_ms += self._random.choice((0, 500, 2_000, 5_000, 9_000, 9_000, WINDOW_MS + 1))
        drawn = self._random.random()
        for up_to, kind in self._kinds:
            if drawn < up_to:
                event = kind()
                made = self._random.choice(self._written) if event is None else self._record(event)
                break
        else:
            made = self._bad()
        self._written.append(made)
        return made

    def _record(self, event: dict[str, Any]) -> tuple[bytes | None, bytes]:
        return event["user"].encode() if "user" in event else None, msgspec.json.encode(event)

    def _impression(self) -> dict[str, Any]:
        if self._coming and self._random.random() < 0.5:
            event = self._coming.pop(0) | {"ts": self._ts_ms}
        else:
            event = self._new_impression()
        self._shown.append(event)
        return event

    def _new_impression(self) -> dict[str, Any]:
        random = self._random
        return {
            "type": "impression",
            "id": f"i{self._number}",
            "user": random.choice(self._users),
            "item": f"t{random.randint(0, 8)}",
            "ts": self._ts_ms - random.choice((0, 0, 0, 20_000)),
            "context": {name: random.randint(0, 2) for name in ("place", "hour", "new") if random.random() < 0.5},
        }

    def _feedback(self, of: dict[str, Any] | None = None) -> dict[str, Any]:
        random = self._random
        shown = of or random.choice(self._shown[-12:] or [self._new_impression()])
        user = random.choice(self._users) if random.random() < 0.05 else shown["user"]
        by = "request" if shown["type"] == "request" else "impression"
        return {
            "type": "feedback",
            "id": f"f{self._number if random.random() < 0.9 else self._number // 2}",
            by: shown["id"],
            "user": user,
            "item": shown["item"],
            "ts": self._ts_ms,
            "action": random.choice(("click", "click", "like")),
        }

    def _action(self) -> dict[str, Any]:
        """Return a feedback without an impression, of an item that was shown or not."""
        event = self._feedback() if self._random.random() < 0.6 else self._feedback(self._new_impression())
        return {name: value for name, value in event.items() if name not in ("impression", "request")}

    def _early(self) -> dict[str, Any]:
        self._coming.append(self._new_impression())
        return self._feedback(self._coming[-1])

    def _facts(self) -> dict[str, Any]:
        random = self._random
        of, owner = random.choice((("item", f"t{random.randint(0, 8)}"), ("user", random.choice(self._users))))
        fields = {
            name: random.choice((0, "x", ["x", "y"], None)) for name in ("place", "maker") if random.random() < 0.7
        }
        return {"type": of, "id": f"k{self._number}", of: owner, "ts": self._ts_ms, "fields": fields}

    def _erase(self) -> dict[str, Any]:
        return {"type": "erase", "id": f"e{self._number}", "user": self._random.choice(self._users), "ts": self._ts_ms}

    def _request(self) -> dict[str, Any]:
        """Return a request, which often shows some of its candidates: then feedback may name one, shown or not."""
        random = self._random
        wanted = [f"t{random.randint(0, 9)}" for _ in range(random.randint(0, 4))]
        shown = self._new_impression()
        request = {
            "type": "request",
            "id": f"r{self._number}",
            "user": shown["user"],
            "candidates": wanted,
            "ts": shown["ts"],
            "context": shown["context"],
        }
        more = Random(f"{self._number} {self._ts_ms}")
        if wanted and more.random() < 0.7:
            request |= {"shown": more.randint(1, 3)} | more.choice(({}, {}, {"policy": "gumbel"}, {"seen": "drop"}))
            self._shown.append(request | {"item": more.choice(wanted)})
        return request

    def _bad(self) -> tuple[bytes | None, bytes | None]:
        random = self._random
        key, value = self._record(self._new_impression())
        ahead = self._new_impression() | {"ts": self._ts_ms + 10 * 86_400_000}
        elsewhere = self._new_impression() | {"user": f"x{random.randint(0, 3)}"}
        bad: tuple[tuple[bytes | None, bytes | None], ...] = (
            (key, None),
            (key, b"not an event"),
            (None, value[:-9]),
            self._record(ahead),
            self._record(elsewhere),
            (key, value.replace(b'"item"', b'"things"')),
        )
        return random.choice(bad)

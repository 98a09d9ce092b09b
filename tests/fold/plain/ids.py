"""Keys, chance that repeats, and which values are known: admission, expiry by time, and what a user owns alone."""

import math
from collections import defaultdict

import numpy as np
from thalweg.operators.configuration import Configuration

from tests.fold.plain.learner import Coordinates

WORD = (1 << 64) - 1
RECENT, SHOWN, GAP, EXPOSURES = range(4)  # the derived fields, behind all others


def mix(key: int, salt: int) -> int:
    """MurmurHash3's finaliser of a key and a salt."""
    h = key ^ (salt * 0x9E3779B97F4A7C15 & WORD)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = (h ^ h >> 33) * factor & WORD
    return h ^ h >> 33


def cross(first: int, second: int, salt: int) -> int:
    """The key of two values seen together."""
    return mix((first + 0x9E3779B97F4A7C15 * second) & WORD, salt) or 1


def uniform(key: int, salt: int) -> float:
    """A number in [0, 1) that a key and a salt always give."""
    return (mix(key, salt) >> 11) / 2**53


class Value:
    """One value of a field: what is learned of it and counted of it."""

    def __init__(self, key: int, field: int, owner: int | None, now_ms: int, configuration: Configuration) -> None:
        c = configuration.learner
        self.key, self.field, self.owner, self.updated_ms = key, field, owner, now_ms
        start = [(2 * uniform(key, configuration.seed + 0x1A7 + i) - 1) * c.latent_initial
                 for i in range(1, 1 + c.latent_size)]  # fmt: skip
        self.weight = Coordinates(np.zeros(1), c.alpha_weight, c.l1, c.l2)
        self.latent = Coordinates(np.array(start), c.alpha_latent, c.l1, c.l2)
        self.sums, self.at_ms = np.zeros(5), now_ms


class Values:
    """All values with a row. No sweep frees any: whether one is there is a matter of time alone."""

    def __init__(self, configuration: Configuration, names: list[str]) -> None:
        self.configuration = configuration
        by_name = configuration.table.expire_time_ms_by_field
        self.expire_ms = {place: by_name[name] for place, name in enumerate(names) if name in by_name}
        self.sightings: dict[int, int] = defaultdict(int)
        self.on_page: set[int] = set()
        self.rows: dict[int, Value] = {}

    def find(self, key: int, now_ms: int) -> Value | None:
        """The value, unless it has no row or its time is over."""
        value = self.rows.get(key)
        return None if value is None or self.is_expired(value, now_ms) else value

    def is_there(self, value: Value, at_ms: int) -> bool:
        """Whether a value that was seen is the one with its row, its time not over."""
        return self.find(value.key, at_ms) is value

    def is_expired(self, value: Value, now_ms: int) -> bool:
        expire_ms = self.expire_ms.get(value.field, self.configuration.table.expire_time_ms)
        return now_ms - value.updated_ms >= expire_ms

    def resolve(self, key: int, field: int, owner: int | None, now_ms: int) -> Value | None:
        """The value as it is seen now: found, or admitted, or None."""
        value = self.find(key, now_ms)
        if value is None and self.is_admitted(key):
            value = Value(key, field, owner, now_ms, self.configuration)
            self.rows[key] = value
        return value

    def is_admitted(self, key: int) -> bool:
        """Count one sighting a page; whether the value gets its row with it. Its count is dropped then."""
        table = self.configuration.table
        threshold = table.occurrence_threshold
        if threshold <= 1:
            return True
        self.sightings[key] += key not in self.on_page
        self.on_page.add(key)
        seen, chance = self.sightings[key], uniform(key, 0xAD)
        geometric = 1 - math.exp(math.log(0.05) / threshold * seen)
        shares = {"count": seen >= threshold, "linear": seen / threshold, "geometric": geometric}
        is_in = shares[table.admission] > chance
        if is_in:
            del self.sightings[key]
        return is_in

    def forget(self, owner: int) -> None:
        """Free all that is one user's alone."""
        for value in [value for value in self.rows.values() if value.owner == owner]:
            del self.rows[value.key]

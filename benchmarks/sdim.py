"""What a long history costs: to extend, to read, and to keep, by its length, beside exact attention over all of it.

    python -m benchmarks.sdim [--size 16] [--runs 15]

Lengths take turns, so that they share whatever else the machine does; the best of the runs counts. Take the ratios.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from operators.behaviors import (
    Behaviors,
    BehaviorsConfiguration,
    extend_sequence,
    new_behaviors,
    read_long_interest,
    read_short_interest,
)
from operators.compiled import compiled
from operators.sdim import (
    LONG_AGO_MS,
    Histories,
    SdimConfiguration,
    Window,
    projections,
    read_interests,
    signature,
    window_of,
)
from operators.state import arrays_of
from operators.table import Table, claim_row, new_table

LENGTHS = (100, 1_000, 10_000, 100_000)
SHORT_LENGTH = 32
ITEMS = 4_096
CANDIDATES = 1_000
ADDED = 1_000
MS = 1e3
US = 1e6

Array = npt.NDArray[Any]


@compiled
def extend_all(
    behaviors: Behaviors,
    items: Table,
    vectors: Array,
    projection: Array,
    signs: Array,
    window: Window,
    user: int,
    sequence: Array,
) -> None:
    """Append a sequence of items' rows to a user's."""
    for i in range(sequence.shape[0]):
        extend_sequence(behaviors, items, vectors, projection, signs, window, user, 0, sequence[i], i)


@compiled
def read_each(
    behaviors: Behaviors,
    vectors: Array,
    projection: Array,
    signs: Array,
    total: Array,
    user: int,
    candidates: Array,
    out: Array,
) -> None:
    """Read the long interest of candidates one by one, as the fold does."""
    for i in range(candidates.shape[0]):
        read_long_interest(
            behaviors, vectors, projection, signs, total, user, 0, candidates[i], LONG_AGO_MS, out[i]
        )


@compiled
def read_exactly(
    behaviors: Behaviors, items: Table, vectors: Array, user: int, candidates: Array, tau: int, out: Array
) -> None:
    """Read the exact interest of candidates in a user's ring."""
    for i in range(candidates.shape[0]):
        read_short_interest(behaviors, items, vectors, user, 0, candidates[i], tau, out[i])


@compiled
def read_together(
    histories: Histories,
    history: int,
    vectors: Array,
    projection: Array,
    signs: Array,
    total: Array,
    candidates: Array,
    bits: Array,
    directions: Array,
    out: Array,
) -> None:
    """Read the long interest of all candidates of one user."""
    for i in range(candidates.shape[0]):
        bits[i] = signature(projection, vectors[candidates[i]], signs)
    read_interests(histories, history, bits, LONG_AGO_MS, total, directions, out)


class Bench:
    """One user a length, items with random vectors, and scratch."""

    def __init__(self, size: int, short_length: int, lengths: tuple[int, ...]) -> None:
        """Walk a user to each length, less what each run adds."""
        self.sdim = SdimConfiguration(histories_limit=len(lengths) + 1)
        kept = BehaviorsConfiguration(short_length=short_length, users_limit=len(lengths) + 1)
        self.behaviors = new_behaviors(kept, self.sdim, size)
        self.items = new_table(ITEMS, 1)
        for key in range(1, ITEMS + 1):
            claim_row(self.items, np.uint64(key * 0x9E3779B97F4A7C15 & 2**64 - 1), 0, 1)
        rng = np.random.default_rng(0)
        self.vectors = (0.1 * rng.normal(size=(ITEMS, size))).astype(np.float32)
        signs = self.sdim.groups * self.sdim.tau
        self.projection = np.ascontiguousarray(projections(size, signs, 1))
        self.signs, self.total = np.zeros(signs, np.float32), np.zeros(size)
        self.sequence = rng.integers(0, ITEMS, max(lengths))
        self.candidates = rng.integers(0, ITEMS, CANDIDATES)
        self.out = np.zeros((CANDIDATES, size), np.float32)
        self.bits = np.zeros(CANDIDATES, np.int64)
        self.directions = np.zeros((self.sdim.groups, 1 << self.sdim.tau, size), np.float32)
        for user, length in enumerate(lengths):
            self.extend(user, length)

    def extend(self, user: int, count: int) -> None:
        """Append behaviours to a user's sequence."""
        known = self.behaviors, self.items, self.vectors, self.projection, self.signs, window_of(self.sdim)
        extend_all(*known, user, self.sequence[:count])

    def read(self, user: int) -> None:
        """Read every candidate's long interest, one by one."""
        known = self.behaviors, self.vectors, self.projection, self.signs, self.total
        read_each(*known, user, self.candidates, self.out)

    def read_exactly(self, user: int) -> None:
        """Read every candidate's exact interest in the ring."""
        read_exactly(
            self.behaviors, self.items, self.vectors, user, self.candidates[:CANDIDATES], self.sdim.tau, self.out
        )

    def read_together(self, user: int) -> None:
        """Read every candidate's long interest, all at once."""
        history = int(self.behaviors.history[user, 0]) - 1
        known = self.behaviors.histories, history, self.vectors, self.projection, self.signs, self.total
        read_together(*known, self.candidates, self.bits, self.directions, self.out)


def best_of(runs: int, calls: list[Callable[[], None]]) -> list[float]:
    """Return the shortest time of each call in seconds; calls take turns."""
    best = [float("inf")] * len(calls)
    for call in calls:
        call()
    for _ in range(runs):
        for place, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[place] = min(best[place], time.perf_counter() - started)
    return best


def user_bytes(size: int, length: int, generations: int = 1) -> tuple[int, int]:
    """Return the bytes of a user's sequence, and of its long history, where it has one."""
    window = {"window_behaviors": 1 << 20, "window_generations": generations} if generations > 1 else {}
    made = new_behaviors(
        BehaviorsConfiguration(short_length=SHORT_LENGTH, users_limit=1), SdimConfiguration(histories_limit=1, **window), size
    )
    long = sum(array.nbytes for name, array in arrays_of(made) if name.startswith("histories.") and "ends" not in name)
    short = sum(array.nbytes for name, array in arrays_of(made) if not name.startswith("histories."))
    return short, long if length > SHORT_LENGTH else 0


def main() -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdim", description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="coordinates of a vector")
    parser.add_argument("--runs", type=int, default=15)
    given = parser.parse_args()
    bench = Bench(given.size, SHORT_LENGTH, LENGTHS)
    users = range(len(LENGTHS))
    spare = len(LENGTHS)  # what is added goes to a user of its own, which is as long as the others are short
    one = best_of(given.runs, [lambda user=user: bench.read(user) for user in users])  # type: ignore[misc]
    many = best_of(given.runs, [lambda user=user: bench.read_together(user) for user in users])  # type: ignore[misc]
    added = best_of(given.runs, [lambda user=user: bench.extend(user, ADDED) for user in users])  # type: ignore[misc]
    del spare
    print("| length | add, µs | a read, µs | 1 000 candidates, ms | add and read against the shortest |")
    print("|---|---|---|---|---|")
    for place, length in enumerate(LENGTHS):
        told = f"{added[place] / added[0]:.2f} / {one[place] / one[0]:.2f} / {many[place] / many[0]:.2f}"
        cost = f"{added[place] / ADDED * US:.2f} | {one[place] / CANDIDATES * US:.2f} | {many[place] * MS:.2f}"
        print(f"| {length:,} | {cost} | {told} |".replace(",", " "))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

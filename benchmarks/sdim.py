"""What a long history costs: to extend, to read, and to keep, by its length, beside exact attention over all of it.

    python -m benchmarks.sdim [--size 16] [--runs 40]

Lengths take turns, each the first of a round as often as the others; processor time of the thread, the best of the
runs. Take the ratios.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.attention import Gathered, attend, new_gathered
from thalweg.operators.behaviors import (
    Behavior,
    Behaviors,
    BehaviorsConfiguration,
    extend_sequence,
    find_history,
    gather_recent,
    new_behaviors,
)
from thalweg.operators.fold.snapshot import arrays_of
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.reserve import reserved_bytes
from thalweg.operators.sdim import (
    LONG_AGO_MS,
    Histories,
    SdimConfiguration,
    SdimParameters,
    projections,
    read_interest,
    read_interests,
    signature,
    window_of,
)
from thalweg.operators.structures.table import Table, claim_row, new_table

LENGTHS = (100, 1_000, 10_000, 100_000)
SHORT_LENGTH = 32
ITEMS = 4_096
CANDIDATES = 1_000
FEW = 10  # candidates of exact attention over everything
ADDED = 100
MS = 1e3
US = 1e6

Array = npt.NDArray[Any]


@compiled
def extend_all(
    behaviors: Behaviors,
    items: Table,
    vectors: Array,
    parameters: SdimParameters,
    signs: Array,
    user: int,
    sequence: Array,
) -> None:
    """Append a sequence of items' rows to a user's."""
    for i in range(sequence.shape[0]):
        extend_sequence(behaviors, items, vectors, parameters, signs, Behavior(user, 0, sequence[i], i))


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
        bits = signature(projection, vectors[candidates[i]], signs)
        history = find_history(behaviors, user, 0)
        read_interest(behaviors.histories, history, bits, LONG_AGO_MS, total, out[i])


@compiled
def read_exactly(
    behaviors: Behaviors,
    items: Table,
    vectors: Array,
    user: int,
    gathered: Gathered,
    candidates: Array,
    tau: int,
    out: Array,
) -> None:
    """Read the exact interest of candidates in a user's ring, which is gathered once, as for a request."""
    gather_recent(behaviors, items, vectors, user, -1, gathered)
    for i in range(candidates.shape[0]):
        attend(gathered, 0, vectors[candidates[i]], tau, out[i])


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
    """One user for each length, items with random vectors, and scratch."""

    def __init__(self, size: int, short_length: int, lengths: Sequence[int]) -> None:
        """Walk a user to each length."""
        self.sdim = SdimConfiguration(histories_limit=len(lengths))
        kept = BehaviorsConfiguration(short_length=short_length, users_limit=len(lengths))
        self.behaviors = new_behaviors(kept, self.sdim, size)
        self.items = new_table(ITEMS, 1)
        for key in range(1, ITEMS + 1):
            claim_row(self.items, np.uint64(key * 0x9E3779B97F4A7C15 & 2**64 - 1), 0, 1)
        rng = np.random.default_rng(0)
        self.vectors = (0.1 * rng.normal(size=(ITEMS, size))).astype(np.float32)
        signs = self.sdim.groups * self.sdim.tau
        self.projection = projections(size, signs, 1)
        self.signs, self.total = np.zeros(signs, np.float32), np.zeros(size)
        self.gathered = new_gathered(1, short_length, size)
        self.sequence = rng.integers(0, ITEMS, max(lengths))
        self.candidates = rng.integers(0, ITEMS, CANDIDATES)
        self.out = np.zeros((CANDIDATES, size), np.float32)
        self.bits = np.zeros(CANDIDATES, np.int64)
        self.directions = np.zeros((self.sdim.groups, 1 << self.sdim.tau, size), np.float32)
        for user, length in enumerate(lengths):
            self.extend(user, length)
        self._walked = [(array, array.copy()) for _, array in arrays_of(self.behaviors)]

    def restore(self) -> None:
        """Give every user the length of the beginning back."""
        for array, walked in self._walked:
            np.copyto(array, walked)

    def extend(self, user: int, count: int = ADDED) -> None:
        """Append behaviours to a user's sequence."""
        parameters = SdimParameters(self.projection, self.sdim.tau, window_of(self.sdim))
        known = self.behaviors, self.items, self.vectors, parameters, self.signs
        extend_all(*known, user, self.sequence[:count])

    def read(self, user: int) -> None:
        """Read every candidate's long interest, one by one."""
        known = self.behaviors, self.vectors, self.projection, self.signs, self.total
        read_each(*known, user, self.candidates, self.out)

    def read_exactly(self, user: int, count: int = CANDIDATES) -> None:
        """Read some candidates' exact interest in the ring."""
        known = self.behaviors, self.items, self.vectors, user, self.gathered
        read_exactly(*known, self.candidates[:count], self.sdim.tau, self.out)

    def read_together(self, user: int) -> None:
        """Read every candidate's long interest, all at once."""
        history = int(self.behaviors.history[user, 0]) - 1
        known = self.behaviors.histories, history, self.vectors, self.projection, self.signs, self.total
        read_together(*known, self.candidates, self.bits, self.directions, self.out)


def best_of(runs: int, calls: Sequence[Callable[[], None]], between: Sequence[Callable[[], None]]) -> list[float]:
    """Return the shortest processor time of each call in seconds; calls take turns, each after its own `between`."""
    best = [math.inf] * len(calls)
    for call in calls:  # which compiles
        call()
    for run in range(runs):
        for turn in range(len(calls)):
            place = (turn + run) % len(calls)
            between[place]()
            started = time.thread_time()
            calls[place]()
            best[place] = min(best[place], time.thread_time() - started)
    return best


def costs(size: int, runs: int) -> list[str]:
    """Return what extending and reading cost, by length.

    Each length has arrays of its own, restored before each call: of several users in the same arrays the caches hold
    the last one's rows better than the first one's.
    """
    benches = [Bench(size, SHORT_LENGTH, [length]) for length in LENGTHS]
    calls = [partial(call, each, 0) for call in (Bench.extend, Bench.read, Bench.read_together) for each in benches]
    best = best_of(runs, calls, [each.restore for each in benches] * 3)
    added, one, many = (best[first : first + len(LENGTHS)] for first in range(0, len(best), len(LENGTHS)))
    out = [
        "| length | an add, µs (ratio) | a read, µs (ratio) | 1 000 candidates at once, ms (ratio) |",
        "|---|---|---|---|",
    ]
    for place, length in enumerate(LENGTHS):
        cells = [
            f"{best[place] / count * unit:.2f} ({best[place] / best[0]:.2f})"
            for best, count, unit in ((added, ADDED, US), (one, CANDIDATES, US), (many, 1, MS))
        ]
        out.append(f"| {spaced(length)} | {' | '.join(cells)} |")
    (ring,) = best_of(runs, [partial(benches[0].read_exactly, 0)], [benches[0].restore])
    return [*out, "", f"Exact attention of 1 000 candidates over a ring of {SHORT_LENGTH}: {ring * MS:.2f} ms."]


def ratios(size: int, runs: int) -> list[str]:
    """Return what exact attention over all of a history costs beside SDIM."""
    bench = Bench(size, SHORT_LENGTH, LENGTHS)
    exact = [Bench(size, length, [length]) for length in LENGTHS]
    calls = [partial(each.read_exactly, 0, FEW) for each in exact]
    calls += [partial(call, user) for call in (bench.read, bench.read_together) for user in range(len(LENGTHS))]
    best = best_of(runs, calls, [bench.restore] * len(calls))
    out = [
        "| length | exact, µs a candidate | times a read of SDIM | times one of 1 000 at once |",
        "|---|---|---|---|",
    ]
    for place, length in enumerate(LENGTHS):
        took = best[place] / FEW
        one, many = (best[place + part * len(LENGTHS)] / CANDIDATES for part in (1, 2))
        out.append(f"| {spaced(length)} | {took * US:.1f} | {spaced(took / one)} | {spaced(took / many)} |")
    return out


def user_bytes(size: int, length: int, generations: int = 1) -> int:
    """Return the bytes of what is kept of a user's sequence of one kind."""
    window = SdimConfiguration(histories_limit=1, window_behaviors=LENGTHS[-1], window_generations=max(generations, 2))
    sdim = window if generations > 1 else SdimConfiguration(histories_limit=1)
    made = new_behaviors(BehaviorsConfiguration(short_length=SHORT_LENGTH, users_limit=1), sdim, size)
    shared = ("histories.ends", "histories.pool.counts")
    left_out = shared if length > SHORT_LENGTH else "histories."
    return reserved_bytes([array for name, array in arrays_of(made) if not name.startswith(left_out)])


def memory() -> list[str]:
    """Return the bytes of a user, by length."""
    out = ["| length | 8 coordinates | 16 coordinates | 16, a window in 4 generations |", "|---|---|---|---|"]
    for length in (1, SHORT_LENGTH, SHORT_LENGTH + 1, *LENGTHS):
        cells = [spaced(user_bytes(*of)) for of in ((8, length), (16, length), (16, length, 4))]
        out.append(f"| {spaced(length)} | {' | '.join(cells)} |")
    return out


def spaced(value: float) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,.0f}".replace(",", " ")


def main() -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdim", description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="coordinates of a vector")
    parser.add_argument("--runs", type=int, default=40)
    given = parser.parse_args()
    for title, lines in (
        ("Cost by length", costs(given.size, given.runs)),
        ("Beside exact attention", ratios(given.size, given.runs)),
        ("Bytes of a user", memory()),
    ):
        print(f"### {title}\n", *lines, "", sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

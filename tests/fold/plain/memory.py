"""The error memories, one behind the other: what was wrong near here lately, and how far that is believed."""

import math
from collections import defaultdict

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.state import base_stands_still
from thalweg.operators.sdim import projections

from tests.fold.plain.ids import cross, mix
from tests.fold.plain.learner import Vector, log_odds, sigmoid

Place = int | str
Recalled = tuple[list[list[tuple[int, int]]], list[float], list[float]]
"""Of each memory an impression's buckets, the probability before it (and in the end), and its estimate."""


def memories_of(configuration: Configuration) -> list[tuple[Place, Place | None]]:
    """What keys each memory, coarse before fine: places of values, or "all", "score", "representation"."""
    fields, recents = configuration.features.places(), configuration.learner.recent_items
    crosses, context = configuration.error_memory.crosses, range(2, fields)
    found: list[tuple[Place, Place | None]] = []
    if base_stands_still(configuration):
        visits = [fields + recents, fields + recents + 1]
        found += [("all", None), ("score", None), *((visit, None) for visit in visits)]
        found += [(place, None) for place in context] + [(place, "score") for place in context]
        found += [(visit, place) for visit in visits for place in context]
    found += [(1, None), (0, None), ("representation", None)]
    found += [(("user", "item").index(name), place) for name in crosses for place in context]
    found += [(1, fields + back) for back in range(recents)] if "item" in crosses else []
    return [*found, ("score", None), ("all", None)]


class Memory:
    """`sums` of (array, bucket): count, labels, predictions, in units that grow by impression instead of decaying."""

    def __init__(self, configuration: Configuration) -> None:
        c, correction = configuration.error_memory, configuration.correction
        self.c, self.correction = c, correction
        self.memories = memories_of(configuration)
        self.cells = c.cells(base_stands_still(configuration))
        size = configuration.learner.latent_size
        self.projection = projections(2 * size, c.arrays * c.bits, configuration.seed + 0xE44).astype(np.float64)
        self.sums: dict[tuple[int, int], Vector] = defaultdict(lambda: np.zeros(3))
        self.weight = 1.0  # of one impression now, beside the first
        self.trust = [min(correction.lambda_initial, correction.lambda_max)] * len(self.memories)
        self.squares = [0.0] * len(self.memories)

    def locate(self, keys: dict[int, int], base: float, user: Vector, item: Vector) -> list[list[tuple[int, int]]]:
        """Of each memory the buckets of an impression: none without a value, K by the representation, else one."""
        signs = (np.concatenate((user, item)) @ self.projection > 0).reshape(self.c.arrays, self.c.bits)
        near = [(k, int(bits)) for k, bits in enumerate(signs @ (1 << np.arange(self.c.bits)))]
        named: dict[Place, int] = {"all": 1, "score": 1024 + math.floor(log_odds(base) * 4)}
        found = []
        for which, (first, second) in enumerate(self.memories):
            key = named.get(first) or keys.get(first, 0) if first != "representation" else 0  # type: ignore[arg-type]
            if second is not None:
                other = named.get(second) or keys.get(second, 0)  # type: ignore[arg-type]
                key = cross(key, other, which) if key and other else 0
            found.append([(-1, mix(key, which) % self.cells)] if key else near if first == "representation" else [])
        return found

    def read(self, buckets: list[list[tuple[int, int]]], base: float) -> tuple[float, Recalled]:
        """The corrected probability, and what led to it."""
        logit = log_odds(base)
        before, estimates = [sigmoid(logit)], []
        for which, places in enumerate(buckets):
            n, y, q = sum((self.sums[place] for place in places), np.zeros(3))
            q += self.c.gamma * (n * before[-1] - q)
            m = self.c.prior * self.weight * (len(places) or 1)
            estimate = odds(n, y, m, before[0]) - odds(n, q, m, before[0])
            logit += self.trust[which] * estimate
            estimates.append(estimate)
            before.append(sigmoid(logit))
        score = min(max(sigmoid(logit), 0.1 * base, 1e-6), 1 - 0.1 * (1 - base), 1 - 1e-6)
        return score, (buckets, before, estimates)

    def amend(self, recalled: Recalled, difference: float, shown: float) -> None:
        """A label changed, and perhaps how many impressions it stands for."""
        buckets, before, _ = recalled
        self.write(recalled, difference, 0.0, 0.0)
        for which, places in enumerate(buckets):
            for place in places:
                self.sums[place] += self.weight * shown * np.array([1.0, 0.0, min(max(before[which], 0.0), 1.0)])

    def write(
        self, recalled: Recalled, label: float, learned: float | None, moved: float, impressions: float = 1
    ) -> None:
        """Remember a label and what is predicted, `moved` since, or how a label changed, and learn whom to believe."""
        self.weight *= 2 ** (impressions / self.c.half_life_impressions) if learned is None else 1
        weight = impressions * self.weight
        change = label if learned is None else label - learned
        buckets, before, estimates = recalled
        for which, (places, estimate) in enumerate(zip(buckets, estimates, strict=True)):
            for place in places:
                now = min(max(before[which] + moved, 0.0), 1.0)
                self.sums[place] += weight * np.array([learned is None, change, (learned is None) * now])
            if estimate != 0:
                gradient = ((before[which + 1] if learned is None else 0.0) - change) * estimate
                self.squares[which] += gradient**2
                step = self.correction.lambda_alpha * gradient / (1 + math.sqrt(self.squares[which]))
                self.trust[which] = min(max(self.trust[which] - step, 0.0), self.correction.lambda_max)


def odds(count: float, positives: float, m: float, base: float) -> float:
    """Log-odds of a rate with m pseudo-impressions of the base."""
    return math.log((max(positives, 0.0) + m * base) / (max(count - positives, 0.0) + m * (1 - base)))

"""The cross network: statistics of user, item and pairs, two crosses of low rank, and AdaGrad."""

import math
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration

from tests.fold.plain.ids import cross, uniform
from tests.fold.plain.learner import Vector, by_field
from tests.fold.plain.rates import odds

Statistics = tuple[Vector, list[Any]]
"""The statistics of an impression, and its pairs or None: of user and item with each field."""


class Member:
    """What the network has of a value: embedding and weight with their squares, a mean of labels, exposures."""

    def __init__(self, key: int, seed: int) -> None:
        start = [(2 * uniform(key, seed + 0xC505 + 1 + i) - 1) * 0.035 for i in range(8)]
        self.e, self.e_squares = np.array(start), np.zeros(8)
        self.lin = self.lin_squares = self.labels = self.pace = 0.0
        self.shown = self.first_ms = self.last_ms = 0


class Pair:
    """Two values seen together: exposures with a known outcome, positives, exposures."""

    def __init__(self, owner: int | None) -> None:
        self.owner, self.known, self.acted, self.shown = owner, 0.0, 0.0, 0
        self.is_alive = True
        self.of_heads: dict[int, tuple[float, float]] = {}  # of further objectives: known outcomes, positives


class Cross:
    """`fields` C: all but gap and exposures; coordinates are 8 of each field's embedding, then the statistics.

    `more`: statistics of further objectives, which are the last.
    """

    def __init__(self, configuration: Configuration, fields: int, more: int = 0) -> None:
        c = configuration
        self.fields, self.seed, self.rank, self.prior = fields, c.seed, c.learner.cross_rank, c.learner.rate_prior
        self.recent, self.paired = fields - 2, fields - 2 + min(c.learner.recent_items, 2)
        self.more, self.size = more, 16 + 8 * math.ceil((self.paired - 2) / 2) + more
        n, r = 8 * fields + self.size, self.rank
        bound = 0.5 / math.sqrt(0.8 * fields + self.size + 1) * math.sqrt(3)
        self.m = np.zeros((4, n, r))  # V1, U1, V2, U2
        for which in (0, 2):
            drawn = np.array([uniform(which * n * r + i + 1, self.seed + 0xC505) for i in range(n * r)])
            self.m[which] = (2 * drawn.reshape(n // 8, r, 8).transpose(0, 2, 1).reshape(n, r) - 1) * bound
        self.m_squares = np.zeros((4, n))
        self.w, self.w_squares = np.zeros(n), np.zeros(n)
        self.mean, self.variance, self.learned = np.zeros(self.size), np.ones(self.size), 0
        self.mix, self.mix_squares = np.full(2, 0.5), np.zeros(2)
        self.members: dict[Any, Member] = {}
        self.pairs: dict[int, Pair] = {}

    def of(self, value: Any) -> Member:
        return self.members.setdefault(value, Member(value.key, self.seed))

    def read(self, present: Any, keys: Any, owner: int, rates: Vector, overall: float, now_ms: int) -> Statistics:
        """What is known of user, item and pairs; `rates` are (rate, residual) of each field, `owner` is the user."""
        out, pairs = np.zeros(self.size), list[Any]()
        p = 1 / (1 + math.exp(-overall))
        for which, (_, value) in enumerate(present[:2]):
            if value is not None:
                of, at = self.of(value), 7 * which
                out[[at, at + 5, at + 1]] = *rates[2 * which : 2 * which + 2], of.labels
                if of.shown:
                    passed = [max(now_ms - ms, 0) / 1_000 for ms in (of.last_ms, of.first_ms)]
                    out[[at + 2, at + 3, at + 4, at + 6]] = *np.log1p([of.shown, *passed]), of.pace
        for place in range(2 * (self.paired - 2)):
            field, which = 2 + place // 2, place % 2
            pair = None
            if field in keys and present[which][1] is not None and (which or field < self.recent):
                key = cross(keys[which], keys[field], 0xC506 + which)
                pair = self.pairs.setdefault(key, Pair(owner if which == 0 else None))
                rate = odds(pair.known, pair.acted, p, self.prior) - overall
                out[16 + 2 * place : 18 + 2 * place] = rate, math.log(1 + pair.shown)
            pairs.append(pair)
        return out, pairs

    def pair(self, key: int, is_kept: bool) -> Pair | None:
        """A pair of the item, made where it is kept."""
        return self.pairs.setdefault(key, Pair(None)) if is_kept else self.pairs.get(key)

    def expose(self, present: Any, pairs: list[Any], now_ms: int, on_page: set[Member]) -> None:
        """Count an exposure; `on_page` are those that its page has counted already."""
        for _, value in present[:2]:
            if value is not None:
                of = self.of(value)
                if of.shown and of not in on_page:
                    of.pace += max(0.1, 1 / of.shown) * (math.log1p(max(now_ms - of.last_ms, 0) / 1_000) - of.pace)
                on_page.add(of)
                of.first_ms, of.last_ms, of.shown = of.first_ms if of.shown else now_ms, now_ms, of.shown + 1
        for pair in filter(None, pairs):
            pair.shown += 1

    def count(self, present: Any, pairs: list[Any], shown: float, acted: float, mean: float) -> None:
        """Count an outcome, or how it changed; `mean` is the overall rate."""
        for _, value in present[:2]:
            if value is not None:
                of = self.of(value)
                of.labels += 0.1 / (1 + 0.1 * max(shown - 1, 0)) * (acted - shown * (of.labels + mean))
        for pair in pairs:
            if pair is not None and pair.is_alive:
                pair.known, pair.acted = pair.known + shown, pair.acted + acted

    def forget(self, owner: int) -> None:
        for key in [key for key, pair in self.pairs.items() if pair.owner == owner]:
            self.pairs.pop(key).is_alive = False

    def inputs(self, present: Any, statistics: Vector) -> tuple[Vector, Vector]:
        """x0, and which of the statistics it takes."""
        x0, taken = np.zeros(8 * self.fields + self.size), np.zeros(self.size, bool)
        taken[:16] = taken[self.size - self.more :] = True
        for field, members in by_field(present).items():
            if field < self.fields:
                x0[8 * field : 8 * field + 8] = 4 * sum(self.of(value).e for value in members) / len(members)
                count = len(members) if field == self.recent else 1
                for paired in range(max(field, 2), min(field + count, self.paired) if field <= self.recent else 0):
                    taken[16 + 8 * (paired // 2 - 1) : 24 + 8 * (paired // 2 - 1)] = True
        standard = np.clip((statistics - self.mean) / np.sqrt(self.variance + 1e-4), -4, 4)
        x0[8 * self.fields :] = np.where(taken, standard, 0.0)
        x0[8 * self.fields + 15] = 1
        return x0, taken

    def score(self, present: Any, statistics: Vector) -> float:
        """w x0 + sum of lin + x0 (U2 V2' x1), with x1 = x0 * (U1 V1' x0) + x0."""
        x0, _ = self.inputs(present, statistics)
        v1, u1, v2, u2 = self.m
        x1 = x0 * (u1 @ (v1.T @ x0)) + x0
        groups = by_field(present).items()
        lin = sum(self.of(v).lin / len(members) for f, members in groups if f < self.fields for v in members)
        return float(np.clip(self.w @ x0 + lin + x0 @ (u2 @ (v2.T @ x1)), -22, 22))

    def learn(self, present: Any, statistics: Vector, error: float) -> None:
        """One step of all, each matrix's divided by 1 plus the change of the logit that it would cause."""
        x0, _ = self.inputs(present, statistics)
        v1, u1, v2, u2 = self.m
        h1 = v1.T @ x0
        z1 = u1 @ h1
        x1 = x0 * z1 + x0
        h2 = v2.T @ x1
        g2 = u2.T @ x0
        gx = v2 @ g2
        gz = gx * x0
        g1 = u1.T @ gz
        gradient = self.w + u2 @ h2 + gx * (z1 + 1) + v1 @ g1
        for which, (left, right) in enumerate(((x0, g1), (gz, h1), (x1, g2), (x0, h2))):
            self.m_squares[which] += (error * left) ** 2 * (right @ right)
            rate = 0.03 / np.sqrt(10 + self.m_squares[which])
            damped = error / (1 + (rate * left**2).sum() * (right @ right))
            self.m[which] -= damped * np.outer(rate * left, right)
        self.w_squares += (error * x0) ** 2
        rate = 0.03 / np.sqrt(10 + self.w_squares)
        self.w -= error * rate * x0 / (1 + (rate * x0**2).sum())
        for field, members in by_field(present).items():
            for value in members if field < self.fields else ():
                of, share = self.of(value), error / len(members)
                of.lin_squares += share**2
                of.lin -= 0.03 * share / math.sqrt(0.1 + of.lin_squares)
                g = 4 * share * gradient[8 * field : 8 * field + 8]
                of.e_squares += g**2
                of.e -= 0.03 * g / np.sqrt(0.1 + of.e_squares)

    def learn_moments(self, present: Any, statistics: Vector) -> None:
        _, taken = self.inputs(present, statistics)
        self.learned += 1
        share = 1 / min(self.learned + 1, 10_000)
        off = np.where(taken, statistics - self.mean, 0.0)
        self.mean = self.mean + share * off
        moved = share * (off**2 * (1 - share) - self.variance)
        self.variance = self.variance + np.where(taken, moved, 0.0)

    def learn_mix(self, parts: Vector, error: float) -> None:
        self.mix_squares += (error * parts) ** 2
        self.mix -= 0.05 * error * parts / np.sqrt(10 + self.mix_squares)

"""What each user did: the ring of the latest behaviours, SDIM's buckets behind it, and the interests read from both."""

import math
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.sdim import projections

from tests.fold.plain.learner import Vector


class History:
    """Generations of bucket sums [G, 2**tau, d], the newest last."""

    def __init__(self) -> None:
        self.newest_ms = 0
        self.generations: list[Any] = []  # [began, length, sums]


class Behaviours:
    """Rings and histories of (user, kind)."""

    def __init__(self, configuration: Configuration) -> None:
        c = self.sdim = configuration.sdim
        self.length, self.size = configuration.behaviors.short_length, configuration.learner.latent_size
        self.keeps_histories = configuration.learner.interests
        self.projection = projections(self.size, c.groups * c.tau, configuration.seed + 0x5D1).astype(np.float64)
        self.rings: dict[tuple[int, str], list[Any]] = {}
        self.histories: dict[tuple[int, str], History] = {}

    def extend(self, user: int, kind: str, item: Any, ts_ms: int, is_there: Any) -> None:
        """Append an item; what leaves the ring moves to the history, if it is there, with the vector that it has."""
        ring = self.rings.setdefault((user, kind), [])
        if len(ring) == self.length:
            left, left_ms = ring.pop(0)
            if is_there(left) and self.keeps_histories:
                self.remember(self.histories.setdefault((user, kind), History()), left.latent.w, left_ms)
        ring.append((item, ts_ms))

    def forget(self, user: int) -> None:
        for kept in (self.rings, self.histories):
            for place in [place for place in kept if place[0] == user]:
                del kept[place]

    def bucket(self, vector: Vector) -> list[int]:
        """Each group's bucket: tau sign bits of tau projections."""
        signs = (vector @ self.projection > 0).reshape(self.sdim.groups, self.sdim.tau)
        return (signs @ (1 << np.arange(self.sdim.tau))).tolist()  # type: ignore[no-any-return]

    def remember(self, history: History, vector: Vector, ts_ms: int) -> None:
        c, kept = self.sdim, history.generations
        ts_ms = history.newest_ms = max(ts_ms, history.newest_ms)
        parts = c.window_generations
        is_full = bool(kept) and 0 < c.window_behaviors // parts <= kept[-1][1]
        is_over = bool(kept) and 0 < c.window_ms // parts <= ts_ms - kept[-1][0]
        if not kept or is_full or is_over:
            kept.append([ts_ms, 0, np.zeros((c.groups, 1 << c.tau, self.size))])
            del kept[: -c.generations]
        kept[-1][1] += 1
        kept[-1][2][np.arange(c.groups), self.bucket(vector)] += vector

    def short(self, user: int, kind: str, candidate: Vector, is_there: Any) -> Vector:
        """Exact attention over the ring, of length 1: the weight of a behaviour is the chance that it would collide."""
        total = np.zeros(self.size)
        for item, _ in self.rings.get((user, kind), []):
            s = item.latent.w
            lengths = np.linalg.norm(s) * np.linalg.norm(candidate)
            if is_there(item) and lengths > 0:
                total += (1 - math.acos(min(max(s @ candidate / lengths, -1.0), 1.0)) / math.pi) ** self.sdim.tau * s
        return unit(total)

    def long(self, user: int, kind: str, candidate: Vector, now_ms: int) -> Vector:
        """SDIM: 1/G sum over the groups of the direction of the candidate's bucket."""
        c, total = self.sdim, np.zeros(self.size)
        history = self.histories.get((user, kind), History())
        live = [sums for began, _, sums in history.generations if c.window_ms == 0 or began > now_ms - c.window_ms]
        for group, bucket in enumerate(self.bucket(candidate)):
            total += unit(sum((sums[group, bucket] for sums in live), np.zeros(self.size))) / c.groups
        return total


def unit(vector: Vector) -> Vector:
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector

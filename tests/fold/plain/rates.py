"""Rates and residuals: what is counted of each value, and the two numbers that this becomes."""

import math
from typing import Any

import numpy as np
from thalweg.operators.configuration import Configuration

from tests.fold.plain.learner import Vector, by_field

SHOWN, ACTED, LATELY_SHOWN, LATELY_ACTED, LATELY_EXPECTED = range(5)


def odds(shown: float, acted: float, mean: float, m: float) -> float:
    """Log-odds of a rate that is smoothed by `m` pseudo-exposures."""
    return math.log((acted + m * mean) / (max(shown - acted, 0.0) + m * (1 - mean)))


class Rates:
    """`overall` counts all impressions as each value counts its own."""

    def __init__(self, configuration: Configuration) -> None:
        c = configuration.learner
        self.prior, self.half_life_ms = c.rate_prior, c.residual_half_life_ms
        self.sums, self.at_ms = np.zeros(5), 0

    def decayed(self, holder: Any, now_ms: int) -> Vector:
        """A holder's sums, what is called lately brought to now."""
        if now_ms > holder.at_ms:
            holder.sums[LATELY_SHOWN:] *= 2.0 ** (-(now_ms - holder.at_ms) / self.half_life_ms)
            holder.at_ms = now_ms
        return holder.sums  # type: ignore[no-any-return]

    def read(self, present: Any, fields: int, now_ms: int) -> tuple[Vector, float]:
        """(rate, residual) of each field one behind the other [2 F], and the overall log-odds."""
        shown, acted, lately_shown, lately_acted, _ = self.decayed(self, now_ms)
        mean = min((acted + 1) / (shown + 2), 0.98)
        lately = min((lately_acted + 1) / (lately_shown + 2), 0.98)
        numbers, m = np.zeros(2 * fields), self.prior
        for field, members in by_field(present).items():
            for member in members:
                n, y, lately_n, lately_y, expected = self.decayed(member, now_ms)
                if n > 0:
                    rate = odds(n, y, mean, m) - math.log(mean / (1 - mean))
                    residual = odds(lately_n, lately_y, lately, m) - odds(lately_n, expected, lately, m)
                    numbers[2 * field : 2 * field + 2] += np.array([rate, residual]) / len(members)
        return numbers, math.log(mean / (1 - mean))

    def overall(self) -> float:
        """The overall rate, as it is now."""
        return min((float(self.sums[ACTED]) + 1) / (float(self.sums[SHOWN]) + 2), 0.98)

    def count(self, present: Any, shown: float, acted: float, score: float, now_ms: int) -> None:
        """Count an outcome, or by how much it differs from the one counted before, beside the model's `score`."""
        for holder in (self, *(value for _, value in present if value is not None)):
            sums = self.decayed(holder, now_ms)
            lately = 2.0 ** (-(holder.at_ms - now_ms) / self.half_life_ms)  # below 1 for what is behind
            sums += np.array([shown, acted, lately * shown, lately * acted, lately * shown * score])

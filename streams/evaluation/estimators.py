"""Estimates of what a policy is worth from decisions that another one made, each with a bootstrap interval.

Of each of n decisions, r is the reward, and p the probability with which its item was chosen. The policy in question
would have chosen it with the probability e, and w = e / p. A model expects the reward q of an item, and v is the sum of
e q over all candidates.

- IPS, inverse propensity scores: the mean of w r (Horvitz and Thompson, 1952)
- SNIPS, self-normalised: the sum of w r over the sum of w (Swaminathan and Joachims, 2015)
- DR, doubly robust: the mean of v + w (r - q) (Dudik, Langford and Li, 2011)

IPS and DR are unbiased where the propensities are true. SNIPS has a bias that vanishes with n, and less variance. The
model of DR need not be right: the better it is, the narrower the interval. All need that whatever the policy may choose
was possible in the log. The formulas are those of the Open Bandit Pipeline (Saito et al., 2021).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

EFFECTIVE_MIN = 100.0
"""Effective decisions below which nothing is estimated: an interval from fewer covers the truth too rarely."""
CONFIDENCE = 0.95
SAMPLES_AT_ONCE = 1 << 22

Floats = npt.NDArray[np.float64]


class EvaluationError(ValueError):
    """A log does not allow an estimate; the message is one line with the reason and a remedy."""


class Decisions(NamedTuple):
    """n logged decisions, float64 [n] each.

    `reward`; `propensity`, above 0: the probability with which the item was chosen; `target`: with which the policy in
    question would have chosen it; `model`: the model's reward of it; `value`: the model's reward under the policy in
    question, over all candidates.
    """

    reward: Floats
    propensity: Floats
    target: Floats
    model: Floats
    value: Floats


class Estimate(NamedTuple):
    """An estimate, and the bounds of its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Estimates(NamedTuple):
    """What a policy is worth a decision: by three estimators, and what the logged decisions brought.

    `effective_sample_size`: (sum of w)**2 / sum of w**2, how many decisions under the policy itself these are worth.
    """

    decisions: int
    effective_sample_size: float
    logged: Estimate
    ips: Estimate
    snips: Estimate
    dr: Estimate


def effective_sample_size(weights: Floats) -> float:
    """Return how many decisions of equal weight weights [n] are worth (Kish).

    >>> effective_sample_size(np.array([1.0, 1.0, 1.0])), effective_sample_size(np.array([2.0, 0.0]))
    (3.0, 1.0)
    """
    squares = float((weights * weights).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def estimate(decisions: Decisions, *, samples: int = 1_000, seed: int = 0) -> Estimates:
    """Return all estimates; the interval is that of percentiles over `samples` bootstrap samples, drawn with `seed`.

    Raises EvaluationError where the decisions are worth less than `EFFECTIVE_MIN`.

    >>> one = np.ones(200)
    >>> found = estimate(Decisions(one, one, one, one, one))
    >>> found.ips.value, found.snips.value, found.dr.value, found.effective_sample_size
    (1.0, 1.0, 1.0, 200.0)
    """
    weights = decisions.target / decisions.propensity
    effective = effective_sample_size(weights)
    if effective < EFFECTIVE_MIN:
        raise EvaluationError(
            f"{len(weights)} decisions are worth {effective:.1f} under this policy, at least {EFFECTIVE_MIN:g} "
            "are needed: take a longer log, or a policy nearer to the one that made it"
        )
    columns = columns_of(decisions)
    sums = np.concatenate((columns.sum(axis=0)[None], resampled(columns, samples, seed)))
    count, reward, weight, weighted, robust = sums.T
    edge = 50.0 * (1.0 - CONFIDENCE)

    def with_interval(values: Floats) -> Estimate:
        low, high = np.percentile(values[1:], (edge, 100.0 - edge))
        return Estimate(float(values[0]), float(low), float(high))

    # A sample may miss every decision that the policy would have made: it says nothing then, and counts as 0.
    normalised = np.divide(weighted, weight, out=np.zeros_like(weighted), where=weight > 0)
    return Estimates(
        len(weights),
        effective,
        with_interval(reward / count),
        with_interval(weighted / count),
        with_interval(normalised),
        with_interval(robust / count),
    )


def columns_of(decisions: Decisions) -> Floats:
    """Return what all estimates are sums of, [n, 5]: 1, r, w, w r, and v + w (r - q)."""
    weights = decisions.target / decisions.propensity
    robust = decisions.value + weights * (decisions.reward - decisions.model)
    return np.stack((np.ones(len(weights)), decisions.reward, weights, weights * decisions.reward, robust), axis=1)


def resampled(columns: Floats, samples: int, seed: int) -> Floats:
    """Return the sums [samples, c] of columns [n, c] over samples of n rows, drawn with replacement."""
    chance = np.random.default_rng(seed)
    count = len(columns)
    sums = np.zeros((samples, columns.shape[1]))
    at_once = max(1, SAMPLES_AT_ONCE // count)
    for first in range(0, samples, at_once):
        size = min(at_once, samples - first)
        drawn = chance.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        counts = np.bincount(drawn.reshape(-1), minlength=size * count).reshape(size, count)
        sums[first : first + size] = counts @ columns
    return sums

"""Progressive rates: how often each value of each field was shown and acted on, and how often that was expected.

An exposure, its outcome and the score that it was given count together, once the outcome is known (or with a
provisional label, as a part of a positive): a rate that counted exposures before their outcome would count them as if
they had none (docs/adr/0007). Two numbers of a value enter the model as log-odds, both zero where nothing was counted:

    rate      (positives + m p) / (the others + m (1 - p)),    over all time, less the log-odds of p, the overall rate
    residual  the same with a half-life, less the log-odds of what the scores of these exposures had promised
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled
from thalweg.operators.machine.numerics import half_life_factor, log_of_ratio
from thalweg.operators.machine.reserve import reserve, reserve_rows

SHOWN, ACTED, LATELY_SHOWN, LATELY_ACTED, LATELY_EXPECTED = range(5)
SUMS = 5
NUMBERS = 2
RATE, RESIDUAL = range(NUMBERS)
RATE_MAX = 0.98


class Rates(NamedTuple):
    """`sums` float64 [rows, 5]: exposures and positives of all time, then exposures, positives and the sum of scores
    with a half-life; `at_ms` int64 [rows], until when the latter are decayed. `overall` and `overall_at_ms`: the same
    of all impressions together, in one row.
    """

    sums: npt.NDArray[np.float64]
    at_ms: npt.NDArray[np.int64]
    overall: npt.NDArray[np.float64]
    overall_at_ms: npt.NDArray[np.int64]


class RatesParameters(NamedTuple):
    """`half_life_ms` of what is called lately; `prior`, pseudo-exposures at the overall rate."""

    half_life_ms: float
    prior: float


class Prior(NamedTuple):
    """What is believed of a value never seen: its rate of all time and lately, worth `prior` pseudo-exposures."""

    prior: float
    mean: float
    lately: float


def new_rates(rows: int) -> Rates:
    """Return rates of nothing."""
    of_rows = reserve_rows(rows, is_dense=True, sums=(np.float64, (SUMS,)), at_ms=np.int64)
    return Rates(**of_rows, overall=reserve((1, SUMS)), overall_at_ms=reserve(1, np.int64))


@compiled
def wipe_rates(rates: Rates, row: int, now_ms: int) -> None:
    """Start a row's rates."""
    clear(rates.sums[row])
    rates.at_ms[row] = now_ms


@compiled
def decay(
    sums: npt.NDArray[np.float64], at_ms: npt.NDArray[np.int64], row: int, now_ms: int, parameters: RatesParameters
) -> None:
    """Bring a row of sums [rows, 5] to `now_ms`."""
    elapsed = now_ms - at_ms[row]
    if elapsed > 0:
        if sums[row, LATELY_SHOWN] > 0.0 or sums[row, LATELY_ACTED] > 0.0:
            factor = half_life_factor(elapsed, parameters.half_life_ms)
            sums[row, LATELY_SHOWN] *= factor
            sums[row, LATELY_ACTED] *= factor
            sums[row, LATELY_EXPECTED] *= factor
        at_ms[row] = now_ms


@compiled
def add_outcome(sums: npt.NDArray[np.float64], row: int, shown: float, acted: float, expected: float) -> None:
    """Count exposures, positives and what was expected of them in a row that is decayed until now."""
    sums[row, SHOWN] += shown
    sums[row, ACTED] += acted
    sums[row, LATELY_SHOWN] += shown
    sums[row, LATELY_ACTED] += acted
    sums[row, LATELY_EXPECTED] += expected


@compiled
def overall_prior(rates: Rates, parameters: RatesParameters) -> Prior:
    """Return the overall rates, which must be decayed until now, as what is believed of any value beforehand."""
    overall = rates.overall[0]
    mean = min((overall[ACTED] + 1.0) / (overall[SHOWN] + 2.0), RATE_MAX)
    lately = min((overall[LATELY_ACTED] + 1.0) / (overall[LATELY_SHOWN] + 2.0), RATE_MAX)
    return Prior(parameters.prior, mean, lately)


@compiled
def read_rate(shown: float, acted: float, prior: Prior) -> float:
    """Return the log-odds of a value's rate, of exposures and positives of all time, less those of the overall rate."""
    positive = prior.prior * prior.mean
    negative = prior.prior - positive
    return log_of_ratio((acted + positive) * negative, (max(shown - acted, 0.0) + negative) * positive)


@compiled
def read_residual(shown: float, acted: float, expected: float, prior: Prior) -> float:
    """Return the log-odds of a value's rate lately, less those of the rate that its scores had promised."""
    positive = prior.prior * prior.lately
    negative = prior.prior - positive
    numerator = (acted + positive) * (max(shown - expected, 0.0) + negative)
    return log_of_ratio(numerator, (max(shown - acted, 0.0) + negative) * (expected + positive))

"""Progressive rates: how often each value of each field was shown and acted on, and how often that was expected.

An exposure, its outcome and its score count together, once the outcome is known. With a provisional label they count as
a part of a positive. A rate that counted exposures before their outcome would count them as if they had none
(docs/adr/0007). Two numbers of a value enter the model as log-odds, both zero where nothing was counted:

- rate: `(positives + m p) / (the others + m (1 - p))`, over all time, less the log-odds of p, the overall rate
- residual: the same with a half-life, less the log-odds of what the scores of these exposures had promised
"""

from enum import IntEnum
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, numbered
from thalweg.operators.machine.declare import Float64, Int64, made, per, side_by_side
from thalweg.operators.machine.numerics import half_life_factor, log_of_ratio

RATE_MAX = 0.98


@numbered
class Sum(IntEnum):
    """The sums of a value: of all time, then with a half-life."""

    SHOWN = 0
    ACTED = 1
    LATELY_SHOWN = 2
    LATELY_ACTED = 3
    LATELY_EXPECTED = 4


@numbered
class Odds(IntEnum):
    """The numbers of a value that enter the model, as log-odds."""

    RATE = 0
    RESIDUAL = 1


SUMS = len(Sum)
NUMBERS = len(Odds)


@side_by_side(is_dense=True)
class Rates(NamedTuple):
    """What was seen of each value, and of all impressions together."""

    sums: Annotated[Float64, per("values 5", "`Sum`")]
    at_ms: Annotated[Int64, per("values", "until when those with a half-life are decayed")]
    overall: Annotated[Float64, per("1 5", "`Sum`, of all")]
    overall_at_ms: Annotated[Int64, per("1", "until when those with a half-life are decayed")]


class RatesParameters(NamedTuple):
    """`half_life_ms` of what is called lately; `prior`, pseudo-exposures at the overall rate."""

    half_life_ms: float
    prior: float


class RatesScratch(NamedTuple):
    """Scratch of one impression.

    `values` int32 [fields], how many each field has; `sums` float64 [5, values] and `odds` float64 [2, values], the
    rates of its values and what they amount to; `elapsed_ms` int64 and `factors` float64 [values], what such a time
    leaves of the sums with a half-life: the objectives of an impression mostly ask for the same.
    """

    values: npt.NDArray[np.int32]
    sums: npt.NDArray[np.float64]
    odds: npt.NDArray[np.float64]
    elapsed_ms: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float64]


class Prior(NamedTuple):
    """What is believed of a value never seen: its rate of all time and lately, worth `prior` pseudo-exposures."""

    prior: float
    mean: float
    lately: float


def new_rates(values: int) -> Rates:
    """Return rates of nothing."""
    return made(Rates, values=values)


def new_rates_scratch(fields: int, values: int) -> RatesScratch:
    """Return scratch for one impression of at most so many fields and values."""
    sums, odds = np.zeros((SUMS, values)), np.zeros((NUMBERS, values))
    return RatesScratch(np.zeros(fields, np.int32), sums, odds, np.zeros(values, np.int64), np.zeros(values))


@compiled
def decay(
    sums: npt.NDArray[np.float64], at_ms: npt.NDArray[np.int64], row: int, now_ms: int, parameters: RatesParameters
) -> float:
    """Bring a row of sums [rows, 5] to `now_ms`, and return what one impression of that time counts lately.

    That is 1, and less where the row is further on already, by a lesson of a partition that is ahead.
    """
    elapsed = now_ms - at_ms[row]
    if fades(sums, row, elapsed):
        _scale_lately(sums, row, half_life_factor(elapsed, parameters.half_life_ms))
    at_ms[row] = max(at_ms[row], now_ms)
    return half_life_factor(-elapsed, parameters.half_life_ms)


@compiled
def fades(sums: npt.NDArray[np.float64], row: int, elapsed_ms: int) -> bool:
    """Return whether so long a time leaves less of a row's sums with a half-life."""
    return bool(elapsed_ms > 0 and (sums[row, Sum.LATELY_SHOWN] > 0.0 or sums[row, Sum.LATELY_ACTED] > 0.0))


@compiled
def _scale_lately(sums: npt.NDArray[np.float64], row: int, factor: float) -> None:
    sums[row, Sum.LATELY_SHOWN] *= factor
    sums[row, Sum.LATELY_ACTED] *= factor
    sums[row, Sum.LATELY_EXPECTED] *= factor


@compiled
def lately_factor(
    sums: npt.NDArray[np.float64], at_ms: npt.NDArray[np.int64], row: int, now_ms: int, parameters: RatesParameters
) -> float:
    """Return what `decay` would multiply the sums with a half-life by; who reads them changes nothing."""
    elapsed = now_ms - at_ms[row]
    if fades(sums, row, elapsed):
        return half_life_factor(elapsed, parameters.half_life_ms)
    return 1.0


@compiled
def shared_factor(
    scratch: RatesScratch,
    value: int,
    sums: npt.NDArray[np.float64],
    at_ms: npt.NDArray[np.int64],
    row: int,
    now_ms: int,
    parameters: RatesParameters,
) -> float:
    """Return `lately_factor` of a value's row; the scratch keeps it for the next objective that asks for it."""
    elapsed = now_ms - at_ms[row]
    if not fades(sums, row, elapsed):
        return 1.0
    if scratch.elapsed_ms[value] != elapsed:
        scratch.elapsed_ms[value] = elapsed
        scratch.factors[value] = half_life_factor(elapsed, parameters.half_life_ms)
    return scratch.factors[value]  # type: ignore[no-any-return]


@compiled
def decay_shared(
    scratch: RatesScratch,
    value: int,
    sums: npt.NDArray[np.float64],
    at_ms: npt.NDArray[np.int64],
    row: int,
    now_ms: int,
    parameters: RatesParameters,
) -> None:
    """Bring a value's row to `now_ms` as `decay` does, by `shared_factor`."""
    _scale_lately(sums, row, shared_factor(scratch, value, sums, at_ms, row, now_ms, parameters))
    at_ms[row] = max(at_ms[row], now_ms)


@compiled
def add_outcome(
    sums: npt.NDArray[np.float64], row: int, shown: float, acted: float, expected: float, lately: float
) -> None:
    """Count exposures, positives and what was expected of them in a row; each counts so much `lately`."""
    sums[row, Sum.SHOWN] += shown
    sums[row, Sum.ACTED] += acted
    sums[row, Sum.LATELY_SHOWN] += lately * shown
    sums[row, Sum.LATELY_ACTED] += lately * acted
    sums[row, Sum.LATELY_EXPECTED] += lately * expected


@compiled
def overall_mean(overall: npt.NDArray[np.float64]) -> float:
    """Return the overall rate of all time, of the sums `overall` [1, 5]."""
    return min((overall[0, Sum.ACTED] + 1.0) / (overall[0, Sum.SHOWN] + 2.0), RATE_MAX)  # type: ignore[no-any-return]


@compiled
def overall_prior(rates: Rates, now_ms: int, parameters: RatesParameters) -> Prior:
    """Return the overall rates as they are now: what is believed of any value beforehand."""
    overall = rates.overall[0]
    factor = lately_factor(rates.overall, rates.overall_at_ms, 0, now_ms, parameters)
    lately = min((overall[Sum.LATELY_ACTED] * factor + 1.0) / (overall[Sum.LATELY_SHOWN] * factor + 2.0), RATE_MAX)
    return Prior(parameters.prior, overall_mean(rates.overall), lately)


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

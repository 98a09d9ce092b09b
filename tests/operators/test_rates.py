"""Counts of all time and decayed ones equal a from-scratch evaluation over all events."""

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.machine.declare import wiper
from thalweg.operators.rates import (
    RATE_MAX,
    Prior,
    Rates,
    RatesParameters,
    Sum,
    add_outcome,
    decay,
    new_rates,
    overall_prior,
    read_rate,
    read_residual,
)

HALF_LIFE_MS = 3_600_000
PARAMETERS = RatesParameters(float(HALF_LIFE_MS), 5.0)
START_MS = 1_700_000_000_000
counts = st.floats(0, 1e6)


def from_scratch(exposures: list[tuple[int, float]], positives: list[int], now_ms: int) -> npt.NDArray[np.float64]:
    """The five sums over all events, each decayed from its own time."""

    def left(at_ms: int) -> float:
        return 2.0 ** (-(now_ms - at_ms) / HALF_LIFE_MS)

    lately = [
        sum(left(at) for at, _ in exposures),
        sum(map(left, positives)),
        sum(left(at) * score for at, score in exposures),
    ]
    return np.array([len(exposures), len(positives), *lately])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 10_000_000), st.one_of(st.none(), st.floats(0, 1))), max_size=60))
def test_sums_equal_a_sum_over_all_events(events: list[tuple[int, float | None]]) -> None:
    """After any exposures (with their scores) and positives a row holds what a sum over all of them gives."""
    rates = new_rates(3)
    now_ms = START_MS
    exposures, positives = list[tuple[int, float]](), list[int]()
    rates.at_ms[1] = now_ms
    for elapsed_ms, score in events:
        now_ms += elapsed_ms
        decay(rates.sums, rates.at_ms, 1, now_ms, PARAMETERS)
        if score is None:
            add_outcome(rates.sums, 1, 0.0, 1.0, 0.0, 1.0)
            positives.append(now_ms)
        else:
            add_outcome(rates.sums, 1, 1.0, 0.0, score, 1.0)
            exposures.append((now_ms, score))
    np.testing.assert_allclose(rates.sums[1], from_scratch(exposures, positives, now_ms), rtol=1e-12, atol=1e-12)
    assert not rates.sums[[0, 2]].any()


def test_time_that_goes_back_decays_nothing() -> None:
    """A row is brought forward only."""
    rates = new_rates(1)
    rates.at_ms[0] = START_MS
    add_outcome(rates.sums, 0, 1.0, 0.0, 0.5, 1.0)
    decay(rates.sums, rates.at_ms, 0, START_MS - 1_000, PARAMETERS)
    assert rates.sums[0, Sum.LATELY_SHOWN] == 1.0
    assert rates.at_ms[0] == START_MS


def test_wiped_rates_are_those_of_a_new_row() -> None:
    """A row given to another value shows nothing of the value before."""
    rates = new_rates(1)
    add_outcome(rates.sums, 0, 1.0, 0.0, 0.5, 1.0)
    add_outcome(rates.sums, 0, 0.0, 1.0, 0.0, 1.0)
    rates.at_ms[0] = 7
    wiper(Rates, "values")(rates, 0)
    assert not rates.sums.any()
    assert not rates.at_ms.any()


@settings(deadline=None)
@given(st.floats(0.001, 0.98), st.floats(0.001, 0.98), st.floats(0.1, 100))
def test_a_value_never_seen_says_nothing(mean: float, lately: float, prior: float) -> None:
    """Without exposures both numbers are zero, up to the rounding of a quotient near one."""
    assert abs(read_rate(0.0, 0.0, Prior(prior, mean, lately))) < 1e-13
    assert abs(read_residual(0.0, 0.0, 0.0, Prior(prior, mean, lately))) < 1e-13


@settings(deadline=None)
@given(counts, counts, counts, st.floats(0.001, 0.98), st.floats(0.1, 100))
def test_rate_and_residual_are_their_formulas(shown: float, acted: float, promised: float, p: float, m: float) -> None:
    """Smoothed log-odds less those of the overall rate, or of what scores promised; finite whatever the counts."""
    odds = (acted + m * p) / (max(shown - acted, 0.0) + m * (1 - p))
    expected = (promised + m * p) / (max(shown - promised, 0.0) + m * (1 - p))
    prior = Prior(m, p, p)
    rate, residual = read_rate(shown, acted, prior), read_residual(shown, acted, promised, prior)
    assert math.isclose(rate, math.log(odds) - math.log(p / (1 - p)), rel_tol=1e-9, abs_tol=1e-11)
    assert math.isclose(residual, math.log(odds / expected), rel_tol=1e-9, abs_tol=1e-11)


def test_scores_that_keep_their_promise_leave_no_residual() -> None:
    """Where as many positives came as the scores had promised, the residual is zero though the rate is not."""
    rates = new_rates(1)
    for number in range(1_000):
        add_outcome(rates.sums, 0, 1.0, 0.0, 0.25, 1.0)
        if number % 4 == 0:
            add_outcome(rates.sums, 0, 0.0, 1.0, 0.0, 1.0)
    prior = Prior(5.0, 0.1, 0.1)
    assert math.isclose(rates.sums[0, Sum.LATELY_EXPECTED], 250.0)
    shown, acted, lately_shown, lately_acted, expected = rates.sums[0]
    assert abs(read_residual(lately_shown, lately_acted, expected, prior)) < 1e-12
    assert read_rate(shown, acted, prior) > 1.0


def test_the_overall_prior_is_smoothed_and_bounded() -> None:
    """The overall rates are smoothed by one positive in two, and stay below one."""
    rates = new_rates(1)
    assert overall_prior(rates, 0, PARAMETERS)[:] == (5.0, 0.5, 0.5)
    rates.overall[0, Sum.SHOWN], rates.overall[0, Sum.ACTED] = 98.0, 24.0
    assert overall_prior(rates, 0, PARAMETERS)[:] == (5.0, 0.25, 0.5)
    rates.overall[0, Sum.ACTED] = 500.0
    assert overall_prior(rates, 0, PARAMETERS).mean == RATE_MAX

"""The normal distribution must be that of the standard library, to almost its last bit."""

from math import erfc, sqrt
from statistics import NormalDist

from hypothesis import given
from hypothesis import strategies as st
from thalweg.operators.machine.normal import distribution, quantile


@given(st.floats(-9.0, 9.0))
def test_the_distribution_is_that_of_the_error_function(z: float) -> None:
    """Both tails must be right, and both forms where they meet."""
    exact = 0.5 * erfc(-z / sqrt(2.0))
    assert abs(distribution(z) - exact) <= 1e-15 + 1e-8 * min(exact, 1e-9)


@given(st.floats(1e-300, 1.0 - 1e-15))
def test_quantiles_are_those_of_the_standard_library(p: float) -> None:
    """Both use Wichura's algorithm; only the logarithm's last bit may differ."""
    exact = NormalDist().inv_cdf(p)
    assert abs(quantile(p) - exact) <= 1e-14 * max(1.0, abs(exact))

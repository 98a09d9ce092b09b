"""Our own exponential, logarithm and arc cosine are as accurate as they say, and are made of basic operations only."""

import math
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.machine.numerics import (
    arc_cosine,
    exp,
    half_life_factor,
    log,
    log_odds,
    log_of_ratio,
    rough_sigmoid,
    sigmoid,
)

ROOT = Path(__file__).parents[3]
finite = st.floats(allow_nan=False, allow_infinity=False)


def exact_exp(x: float) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return Decimal(x).exp()


def exact_log(x: float) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return Decimal(x).ln()


def ulps(value: float, exact: Decimal) -> float:
    """How many units in the last place of the exact result a value is off."""
    return float(abs(Fraction(value) - Fraction(exact)) / Fraction(math.ulp(float(exact)) or 5e-324))


@settings(deadline=None)
@given(st.floats(-708.0, 709.0))
def test_exp_is_within_two_units_in_the_last_place(x: float) -> None:
    """exp is at most 2 ulp off over its whole range."""
    assert ulps(exp(x), exact_exp(x)) <= 2.0


@settings(deadline=None)
@given(st.floats(-1e-3, 1e-3))
def test_exp_is_accurate_around_zero(x: float) -> None:
    """exp of a tiny number is at most 1 ulp off."""
    assert ulps(exp(x), exact_exp(x)) <= 1.0


@settings(deadline=None)
@given(finite)
def test_exp_saturates_at_its_limits(x: float) -> None:
    """exp is 0 below -708, e**709 above 709, and always finite and not negative."""
    if x < -708.0:
        assert exp(x) == 0.0
    elif x > 709.0:
        assert exp(x) == exp(709.0)
    assert 0.0 <= exp(x) < math.inf


@settings(deadline=None)
@given(st.floats(-708.0, 708.0), st.floats(1e-6, 1.0))
def test_exp_rises(x: float, step: float) -> None:
    """A larger argument has a larger exponential."""
    assert exp(x + step) >= exp(x)


@settings(deadline=None)
@given(st.floats(min_value=2.3e-308, allow_infinity=False, allow_nan=False))
def test_log_is_within_two_units_in_the_last_place(x: float) -> None:
    """Log is at most 2 ulp off for every positive, normal number."""
    assert ulps(log(x), exact_log(x)) <= 2.0 if x != 1.0 else log(x) == 0.0


@settings(deadline=None)
@given(st.floats(0.5, 2.0))
def test_log_is_accurate_around_one(x: float) -> None:
    """Log loses no relative accuracy where it passes through zero."""
    assert ulps(log(x), exact_log(x)) <= 2.0 if x != 1.0 else log(x) == 0.0


@settings(deadline=None)
@given(st.floats(-700.0, 700.0))
def test_log_undoes_exp(x: float) -> None:
    """Log of exp is the argument, up to the rounding of exp."""
    assert math.isclose(log(exp(x)), x, rel_tol=4e-16, abs_tol=4e-16)


@settings(deadline=None)
@given(finite)
def test_sigmoid_is_the_logistic_function_of_a_clamped_logit(logit: float) -> None:
    """Sigmoid is 1 / (1 + exp(-x)) within 4 ulp, x within 30 of zero, so it is never 0 or 1."""
    x = min(max(logit, -30.0), 30.0)
    with localcontext() as context:
        context.prec = 60
        exact = 1 / (1 + Decimal(-x).exp())
    assert ulps(sigmoid(logit), exact) <= 4.0
    assert 0.0 < sigmoid(logit) < 1.0


@settings(deadline=None)
@given(st.floats(-30.0, 30.0))
def test_sigmoid_of_both_signs_sums_to_one(logit: float) -> None:
    """The probabilities of a logit and of its negative are each other's rest."""
    assert math.isclose(sigmoid(logit) + sigmoid(-logit), 1.0, rel_tol=3e-16)


@given(st.floats(-60.0, 60.0))
def test_a_rough_sigmoid_is_right_to_a_float32(logit: float) -> None:
    """Within a billionth of the exact one, clamped alike."""
    assert rough_sigmoid(logit) == pytest.approx(sigmoid(logit), rel=1e-9)


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_the_logarithm_of_a_ratio_is_right_to_a_float32(numerator: float, denominator: float) -> None:
    """Also where the ratio itself would overflow."""
    exact = math.log(numerator) - math.log(denominator)
    assert log_of_ratio(numerator, denominator) == pytest.approx(exact, rel=1e-9, abs=1e-10)


@settings(deadline=None)
@given(st.floats(0.0, 1.0))
def test_log_odds_is_the_logit_of_a_clamped_probability(probability: float) -> None:
    """log_odds is ln(p / (1 - p)), finite at 0 and 1 too."""
    p = min(max(probability, 1e-9), 1.0 - 1e-9)
    expected = float(exact_log(float(Fraction(p) / (1 - Fraction(p)))))
    assert math.isclose(log_odds(probability), expected, rel_tol=1e-14, abs_tol=3e-16)
    assert math.isclose(sigmoid(log_odds(probability)), p, rel_tol=1e-13)


@settings(deadline=None)
@given(st.floats(-1.5, 1.5))
def test_arc_cosine_is_within_two_parts_in_a_hundred_million(x: float) -> None:
    """arc_cosine is within 2.2e-8 of acos, and takes what rounding puts outside [-1, 1] as its end."""
    assert abs(arc_cosine(x) - math.acos(min(max(x, -1.0), 1.0))) <= 2.2e-8


@settings(deadline=None)
@given(st.integers(-(10**6), 10**12), st.floats(1.0, 1e12))
def test_half_life_factor_halves_once_a_half_life(elapsed_ms: int, half_life_ms: float) -> None:
    """What is left after a time is 2 ** -(time / half life), all of it where no time went by."""
    left = half_life_factor(elapsed_ms, half_life_ms)
    halvings = max(elapsed_ms, 0) / half_life_ms
    if halvings < 1_000:
        assert math.isclose(left, 2.0**-halvings, rel_tol=1e-15 * (10.0 + halvings))
    else:
        assert 0.0 <= left < 1e-300


def test_half_life_factor_is_a_half_after_one_half_life() -> None:
    """After exactly one half-life exactly a half is left, up to one rounding."""
    assert math.isclose(half_life_factor(3_600_000, 3_600_000.0), 0.5, rel_tol=2.3e-16)


def test_exp_of_nan_is_nan() -> None:
    """A NaN is answered with a NaN and never becomes an index of a table."""
    assert math.isnan(exp(math.nan))


MACHINE_CODE = """
import math, re, sys
import numpy as np
from thalweg.operators.machine.compiled import compiled
from thalweg.operators import ftrl, sdim
from thalweg.operators.machine import numerics

LIBM = set("exp exp2 expf expm1 log log2 logf log1p pow powf acos acosf cos sin tanh fma fmaf".split())
FUSED = re.compile(r"\\bv?fn?m(?:add|sub|la|ls)(?:sub|add)?(?:\\d+)?[ps]?[sdh]?\\b")
CONTRACTED = re.compile(r"llvm\\.(?:fma|fmuladd|exp|log|pow)|= f\\w+ (?:fast|contract|reassoc|afn|arcp|nnan|ninf)")

def faults(dispatcher):
    found = set()
    for text in dispatcher.inspect_asm().values():
        found |= set(FUSED.findall(text))
        instructions = "\\n".join(line for line in text.splitlines() if not re.match(r"\\s*(?:[.#]|\\S+:)", line))
        found |= LIBM & set(re.findall(r"(?<![\\w.])[A-Za-z_][\\w.]*", instructions))
    for text in dispatcher.inspect_llvm().values():
        found |= set(CONTRACTED.findall(text))
        found |= LIBM & set(re.findall(r"declare [^@]*@\\"?([A-Za-z0-9_.]+)", text))
    return found

@compiled
def with_libm(x):
    return math.exp(x) * 2.0 + math.acos(x)

with_libm(0.5)
assert {"exp", "acos"} <= faults(with_libm), faults(with_libm)
assert FUSED.search("vfmadd213sd %xmm0") and FUSED.search("vfnmadd231ss") and FUSED.search("fmadd d0")

x = np.ones(4, np.float32)
for function in (numerics.exp, numerics.log, numerics.sigmoid, numerics.log_odds, numerics.arc_cosine):
    function(0.5)
numerics.half_life_factor(5, 7.0)
sdim.signature(np.ones((4, 4), np.float32), x, np.ones(4, np.float32))
sdim.kernel(0.5, 3)
coordinates = ftrl.new_coordinates(2, 4)
rate = ftrl.rate(0.1)
ftrl.descend(coordinates, 0, 0, 0.5, rate)
ftrl.descend_vector(coordinates, 0, 0, x, np.float32(0.5), rate)
numerics.log_of_ratio(2.0, 3.0)
numerics.rough_sigmoid(0.5)
checked = [numerics.exp, numerics.log, numerics.sigmoid, numerics.log_odds, numerics.arc_cosine,
           numerics.log_of_ratio, numerics.rough_sigmoid, numerics.half_life_factor,
           sdim.signature, sdim.kernel, ftrl.descend, ftrl.descend_vector]
for dispatcher in checked:
    assert dispatcher.inspect_asm(), dispatcher
    print(dispatcher.__name__, sorted(faults(dispatcher)))
"""


@pytest.mark.large
def test_machine_code_has_no_library_call_and_no_fused_operation(tmp_path: Path) -> None:
    """The fold's numerics call no exp, log, pow or acos of libm, and fuse no multiplication with an addition."""
    # A cache of its own: numba shows the machine code only of what it compiled itself.
    environment = {**os.environ, "THALWEG_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT), "THALWEG_INTERPRETED": ""}
    script = tmp_path / "machine_code.py"
    script.write_text(MACHINE_CODE)
    result = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 12
    assert [line for line in lines if not line.endswith(" []")] == []

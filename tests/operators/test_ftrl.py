"""FTRL in (z, n, D) is FTRL-Proximal, to the bit the float32 rule written down, and merges by addition."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.ftrl import PARTS, Coordinates, Part, Rate, descend, descend_vector, new_coordinates, rate
from thalweg.operators.machine.compiled import compiled

F = np.float32
gradients = st.lists(st.floats(-1.0, 1.0, width=32), min_size=1, max_size=60)
rates = st.builds(
    rate,
    alpha=st.floats(0.01, 1.0),
    beta=st.floats(0.1, 2.0),
    l1=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
    l2=st.sampled_from([0.0, 0.0, 0.5]),
)


@compiled
def _descend_all(coordinates: Coordinates, gradients: npt.NDArray[np.float32], rate: Rate) -> None:
    """Take the steps of row 0's column 1 one at a time."""
    for i in range(gradients.shape[0]):
        descend(coordinates, 0, 1, gradients[i], rate)


def paper(steps: Sequence[float], rate: Rate, initial: float) -> tuple[float, float, float]:
    """(weight, z, n) in float64 by McMahan's Algorithm 1, about the initial value."""
    alpha, beta, l1, l2 = (float(part) for part in rate)
    z = n = w = 0.0
    for g in steps:
        sigma = (math.sqrt(n + g * g) - math.sqrt(n)) / alpha
        z += g - sigma * w
        n += g * g
        w = 0.0 if abs(z) <= l1 else -(z - math.copysign(l1, z)) / ((beta + math.sqrt(n)) / alpha + l2)
    return initial + w, z, n


def bits(steps: Sequence[float], rate: Rate, initial: np.float32) -> npt.NDArray[np.float32]:
    """The five parts in float32, one operation at a time in the order written down."""
    w, z, n, d = initial, F(0), F(0), F(0)
    for step in steps:
        g = F(step)
        n_new = F(n + F(g * g))
        sigma = F(F(np.sqrt(n_new) - np.sqrt(n)) / rate.alpha)
        z = F(z + F(g - F(sigma * F(w - initial))))
        d = F(d + sigma)
        n = n_new
        shrunk = F(max(F(z - rate.l1), F(0)) + min(F(z + rate.l1), F(0)))
        floor = F(rate.beta / rate.alpha)
        below = F(F(floor + rate.l2) + d)
        w = F(initial - F(shrunk / below))
    return np.array([w, initial, z, n, d], np.float32)


@settings(deadline=None)
@given(gradients, rates, st.sampled_from([0.0, 0.5, -0.25]))
def test_descend_is_ftrl_proximal(steps: list[float], rate: Rate, initial: float) -> None:
    """Weight, z and n follow the paper's rule in float64 within the rounding of float32; D is sqrt(n) / alpha."""
    coordinates = new_coordinates(1, 3, initial)
    _descend_all(coordinates, np.array(steps, np.float32), rate)
    weight, z, n = paper(steps, rate, initial)
    c = coordinates[0, :, 1].astype(float)
    scale = 1.0 + sum(abs(g) for g in steps)
    assert math.isclose(c[Part.N], n, rel_tol=1e-5, abs_tol=1e-30)
    assert math.isclose(c[Part.D], math.sqrt(n) / float(rate.alpha), rel_tol=1e-4, abs_tol=1e-6)
    assert abs(c[Part.Z] - z) < 1e-4 * scale / float(rate.alpha)
    assert abs(c[Part.WEIGHT] - weight) < 1e-4 * scale


@settings(deadline=None)
@given(gradients, rates, st.sampled_from([0.0, 0.5, -0.25]))
def test_descend_is_the_float32_rule_to_the_bit(steps: list[float], rate: Rate, initial: float) -> None:
    """No operation is fused, reordered or widened; the neighbours stay as they were."""
    coordinates = new_coordinates(2, 3, initial)
    untouched = coordinates.copy()
    _descend_all(coordinates, np.array(steps, np.float32), rate)
    assert np.array_equal(coordinates[0, :, 1], bits(steps, rate, F(initial)))
    untouched[0, :, 1] = coordinates[0, :, 1]
    assert np.array_equal(coordinates, untouched)


@settings(deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-1, 1, width=32)] * 4), min_size=1, max_size=20), rates, st.floats(-2, 2, width=32)
)
def test_descend_vector_is_the_float32_rule_to_the_bit(
    steps: list[tuple[float, ...]], rate: Rate, scale: float
) -> None:
    """Coordinates that step together each take the step that they would take alone, against gradient times scale."""
    coordinates = new_coordinates(2, 6, 0.5)
    untouched = coordinates.copy()
    for step in steps:
        descend_vector(coordinates, 1, 2, np.array(step, np.float32), F(scale), rate)
    for place, alone in enumerate(zip(*steps, strict=True)):
        scaled = [F(F(g) * F(scale)) for g in alone]
        assert np.array_equal(coordinates[1, :, 2 + place], bits(scaled, rate, F(0.5)))
    untouched[1, :, 2:6] = coordinates[1, :, 2:6]
    assert np.array_equal(coordinates, untouched)


@settings(deadline=None)
@given(gradients)
def test_within_l1_the_weight_is_exactly_its_initial_value(steps: list[float]) -> None:
    """Whenever |z| is at most l1 the weight is exactly zero, or exactly the initial value it moves from."""
    for initial in (0.0, 0.3):
        coordinates = new_coordinates(1, 3, initial)
        for step in steps:
            _descend_all(coordinates, np.array([step], np.float32), rate(0.1, l1=1.0))
            w, w0, z, _, _ = coordinates[0, :, 1]
            assert w0 == F(initial)
            assert (w == w0) if abs(z) <= 1.0 else (w != w0 or abs(z) < 1.0 + 1e-5)


def test_a_weight_comes_back_to_exactly_zero() -> None:
    """A weight that left zero is zero again as soon as its gradients cancel: FTRL re-zeroes, sparse updates don't."""
    coordinates = new_coordinates(1, 2)
    seen = []
    for g in [1.0, 1.0, -1.0, -1.0, -1.0, 1.0]:
        _descend_all(coordinates, np.array([g], np.float32), rate(0.1, l1=1.5))
        seen.append(float(coordinates[0, Part.WEIGHT, 1]))
    assert seen[0] == 0.0
    assert seen[1] != 0.0
    assert 0.0 in seen[2:]


@pytest.mark.parametrize("shards", [2, 16])
def test_shards_merge_by_adding_z_n_and_d(shards: int) -> None:
    """The weight of summed (z, n, D) is w0 - z / (beta / alpha + D + l2), and lies among those of the shards."""
    rng = np.random.default_rng(shards)
    speed = rate(0.1, l2=0.25)
    parts = []
    for _ in range(shards):
        coordinates = new_coordinates(1, 2, 0.5)
        _descend_all(coordinates, rng.normal(0.3, 0.5, 500).astype(np.float32), speed)
        parts.append(coordinates[0, :, 1].astype(float))
    merged = new_coordinates(1, 2, 0.5)
    for part in (Part.Z, Part.N, Part.D):
        merged[0, part, 1] = sum(p[part] for p in parts)
    z, d = float(merged[0, Part.Z, 1]), float(merged[0, Part.D, 1])
    stated = 0.5 - z / (1.0 / float(F(0.1)) + d + 0.25)
    # One step against nothing makes the weight from the sums.
    _descend_all(merged, np.zeros(1, np.float32), speed)
    assert math.isclose(merged[0, Part.WEIGHT, 1], stated, rel_tol=1e-5)
    weights = [p[Part.WEIGHT] for p in parts]
    assert min(weights) - 0.1 < stated < max(weights) + 0.1
    overshot = 0.5 - z / (1.0 / 0.1 + math.sqrt(float(merged[0, Part.N, 1])) / 0.1 + 0.25)
    assert abs(overshot - 0.5) > 1.2 * abs(stated - 0.5)


def test_merging_does_not_depend_on_the_order_of_steps_within_a_shard() -> None:
    """With no curvature between them, two shards that saw the same steps merge to twice the sums."""
    one = new_coordinates(1, 2)
    _descend_all(one, np.array([0.5, -0.25, 0.75], np.float32), rate(0.1))
    two = one + one
    assert np.array_equal(two[0, Part.N], one[0, Part.N] * 2)
    assert np.array_equal(two[0, Part.D], one[0, Part.D] * 2)


def test_new_coordinates_have_learned_nothing() -> None:
    """Weights stand at their initial values, and all sums are zero."""
    coordinates = new_coordinates(3, 4, 0.25)
    assert coordinates.shape == (3, PARTS, 4)
    assert coordinates.dtype == np.float32
    assert (coordinates[:, [Part.WEIGHT, Part.INITIAL]] == 0.25).all()
    assert not coordinates[:, [Part.Z, Part.N, Part.D]].any()
    assert not new_coordinates(3, 4).any()

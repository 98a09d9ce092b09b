"""Policies: what takes each place, with which probability, and that chance repeats."""

from collections import Counter
from itertools import permutations
from math import nan, prod
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.policies import (
    Candidates,
    Parameters,
    Policy,
    RankingConfiguration,
    choose,
    expect_normal,
    logits_of,
    new_scratch,
    parameters_of,
)
from thalweg.schemas.events import Request

NO_CAPS = np.zeros(0, np.int64)
CASES, DRAWS = 1_000, 4_000
DEVIATIONS = 4.5


def parameters(policy: Policy, **given: Any) -> Parameters:
    """Return a policy, of which what is not given explores little."""
    return Parameters(policy, 0.0, 0.3, 1.0, 0.0, 0)._replace(**given)


def candidates(
    logits: list[float], *, exposures: list[float] | None = None, keys: list[int] | None = None, capped: Any = None
) -> Candidates:
    """Return candidates with these log-odds, never shown unless said otherwise."""
    count = len(logits)
    return Candidates(
        np.array(logits, float),
        np.zeros(count) if exposures is None else np.array(exposures, float),
        np.array(range(1, count + 1) if keys is None else keys, np.uint64),
        np.zeros(count, np.int64),
        np.zeros((count, 4), np.uint64) if capped is None else np.array(capped, np.uint64),
    )


logits = st.lists(st.floats(-13.0, 13.0), min_size=1, max_size=12)
policies = st.builds(
    parameters,
    st.sampled_from([Policy.EPSILON, Policy.GUMBEL, Policy.THOMPSON]),
    temperature=st.floats(0.05, 100.0),
    deviation=st.floats(0.01, 100.0),
    floor=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**32 - 1),
).map(lambda policy: policy._replace(epsilon=policy.floor if policy.policy == Policy.EPSILON else 0.0))


@settings(deadline=None)
@given(policies, logits, st.integers(1, 2**64 - 1), st.data())
def test_probabilities_sum_to_one_and_keep_the_floor(
    policy: Policy, logits: list[float], key: int, data: st.DataObject
) -> None:
    """The first place's probabilities must sum to 1, none below the floor, and each candidate have one place."""
    exposures = data.draw(st.lists(st.floats(0.0, 1e9), min_size=len(logits), max_size=len(logits)))
    chosen = choose(policy, key, candidates(logits, exposures=exposures), len(logits), NO_CAPS)
    assert chosen.first.sum() == pytest.approx(1.0, abs=1e-9)
    assert chosen.first.min() >= min(policy.floor, 1 / len(logits)) * (1 - 1e-9)
    assert sorted(chosen.candidate.tolist()) == list(range(len(logits)))
    if policy.policy != Policy.THOMPSON:
        assert chosen.propensity[0] == pytest.approx(chosen.first[chosen.candidate[0]], rel=1e-9)
        assert chosen.propensity[-1] == pytest.approx(1.0)


@settings(deadline=None)
@given(
    policies, st.lists(st.floats(-5.0, 5.0), min_size=2, max_size=9, unique=True), st.integers(1, 2**64 - 1), st.data()
)
def test_the_order_of_the_candidates_does_not_matter(
    policy: Policy, logits: list[float], key: int, data: st.DataObject
) -> None:
    """Chance must be that of the request and the item, wherever the item is in the list."""
    keys = list(range(7, 7 + len(logits)))
    moved = data.draw(st.permutations(range(len(logits))))
    found = choose(policy, key, candidates(logits, keys=keys), 99, NO_CAPS)
    other = choose(policy, key, candidates([logits[i] for i in moved], keys=[keys[i] for i in moved]), 99, NO_CAPS)
    assert [moved[place] for place in other.candidate] == found.candidate.tolist()
    np.testing.assert_allclose([found.first[i] for i in moved], other.first, atol=1e-4)


CLOSED_FORMS = {
    "epsilon": parameters(Policy.EPSILON, epsilon=0.3),
    "epsilon with a floor": parameters(Policy.EPSILON, epsilon=0.1, floor=0.08),
    "gumbel": parameters(Policy.GUMBEL, temperature=0.7),
    "gumbel with a floor": parameters(Policy.GUMBEL, temperature=0.2, floor=0.1),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("caps", [[], [1], [2]], ids=["free", "one of a value", "two of a value"])
def test_propensities_are_those_of_many_requests(name: str, caps: list[int]) -> None:
    """The product of the propensities must be how often this order comes, over all orders, with caps too."""
    of_four = candidates([-1.0, -1.4, -0.9, -2.0], capped=[[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0]])
    requests = 4_000
    counts: Counter[tuple[int, ...]] = Counter()
    expected: dict[tuple[int, ...], float] = {}
    for key in range(1, requests + 1):
        chosen = choose(CLOSED_FORMS[name], key, of_four, 4, np.array(caps, np.int64))
        size = int(chosen.size[0])
        order = tuple(chosen.candidate[:size].tolist())
        assert not caps or sum(candidate < 3 for candidate in order) == caps[0]
        counts[order] += 1
        product = prod(chosen.propensity[:size].tolist())
        assert expected.setdefault(order, product) == pytest.approx(product, rel=1e-12)
    within(np.array(list(expected.values())), np.array([counts[order] for order in expected]), requests)
    if not caps and len(expected) == len(list(permutations(range(4)))):
        assert sum(expected.values()) == pytest.approx(1.0)


def within(probabilities: Any, counts: Any, draws: int) -> None:
    """Compare counts of draws with their probabilities; four and a half deviations are a miss."""
    error = np.abs(counts / draws - probabilities)
    allowed = DEVIATIONS * np.sqrt(probabilities * (1 - probabilities) / draws) + 6.0 / draws
    assert (error <= allowed).all(), (error / allowed).max()


def test_quadrature_agrees_with_monte_carlo_over_a_thousand_cases() -> None:
    """Each normal number must be the largest as often as computed, narrow ones among wide ones too."""
    chance = np.random.default_rng(3)
    for _ in range(CASES):
        count = int(chance.integers(2, 9))
        means = chance.normal(-2.0, chance.uniform(0.0, 1.5), count)
        deviations = np.exp(chance.uniform(-6.0, 0.7, count))
        first = np.zeros(count)
        expect_normal(means, deviations, new_scratch(count, Policy.THOMPSON), first)
        assert first.sum() == pytest.approx(1.0, abs=1e-12)
        drawn = means + deviations * chance.standard_normal((DRAWS, count))
        within(first, np.bincount(drawn.argmax(axis=1), minlength=count), DRAWS)


def test_quadrature_is_exact_of_two() -> None:
    """Of two normal numbers, one is the larger with the probability that their difference is above 0."""
    means, deviations = np.array([0.0, 0.3]), np.array([0.5, 1.2])
    first = np.zeros(2)
    expect_normal(means, deviations, new_scratch(2, Policy.THOMPSON), first)
    assert first[1] == pytest.approx(NormalDist().cdf(0.3 / 1.3), abs=1e-9)


def test_thompson_draws_as_its_probabilities_say() -> None:
    """What takes the first place over many requests must agree with the quadrature, exposures and floor included."""
    of_five = candidates([-1.0, -1.2, -2.0, -3.0, -1.1], exposures=[5_000.0, 40.0, 0.0, 3.0, 1e7])
    policy = parameters(Policy.THOMPSON, floor=0.02)
    counts = np.zeros(5)
    for key in range(1, 3_001):
        chosen = choose(policy, key, of_five, 1, NO_CAPS)
        counts[chosen.candidate[0]] += 1
        assert chosen.size[0] == 1
    within(chosen.first, counts, 3_000)


def test_more_exposures_explore_less() -> None:
    """An item whose outcomes are known must vary less: a worse one then hardly ever comes first."""
    policy = parameters(Policy.THOMPSON)
    firsts = [
        choose(policy, 1, candidates([-1.0, -2.0], exposures=[1e6, shown]), 2, NO_CAPS).first[1]
        for shown in (0.0, 10.0, 100.0, 1e6)
    ]
    assert firsts == sorted(firsts, reverse=True)
    assert firsts[0] == pytest.approx(0.1587, abs=1e-3)  # a deviation of 1 away
    assert firsts[-1] < 1e-6


def test_what_a_request_brings_goes_before_the_configuration() -> None:
    """Each value of the policy must come from the request where it has one, and none explores without a policy."""
    c = RankingConfiguration(policy="epsilon", epsilon=0.25, floor=0.01, seed=7)
    plain = Request("r", "u", [], 1_700_000_000_000, {})
    assert parameters_of(c, plain) == Parameters(Policy.EPSILON, 0.25, 0.2, 0.5, 0.01, 7)
    asked = Request("r", "u", [], 1_700_000_000_000, {}, policy="gumbel", temperature=2.0, floor=0.5, deviation=3.0)
    assert parameters_of(c, asked) == Parameters(Policy.GUMBEL, 0.0, 2.0, 3.0, 0.5, 7)
    none = Request("r", "u", [], 1_700_000_000_000, {}, policy="none", epsilon=1.0, floor=1.0)
    assert parameters_of(c, none)[:2] == (Policy.NONE, 0.0)
    with pytest.raises(ValueError, match="epsilon must lie within 0 and 1"):
        RankingConfiguration(epsilon=1.5)


GOLDEN = {
    Policy.EPSILON: ([1, 0, 2], [0.625, 0.16666666666666666, 0.75], [0.125, 0.625, 0.125, 0.125]),
    Policy.GUMBEL: (
        [1, 0, 2],
        [0.6451376314330635, 0.27876013973846137, 0.9899113652459923],
        [0.1000103665688839, 0.6451376314330635, 0.24483076113129212, 0.010021240866760527],
    ),
    Policy.THOMPSON: (
        [1, 0, 2],
        [nan, nan, nan],
        [0.0950857521116858, 0.5246343000300318, 0.3691713216471003, 0.011108626211182186],
    ),
}


@pytest.mark.parametrize("policy", GOLDEN)
def test_chance_is_the_same_on_every_machine(policy: Policy) -> None:
    """Order, propensities and probabilities of one request must be these to the last bit."""
    of_four = candidates(
        logits_of(np.array([0.2, 0.31, 0.25, 0.02])).tolist(), exposures=[900.0, 3.0, 0.0, 1.0], keys=[11, 12, 13, 14]
    )
    chosen = choose(
        parameters(policy, epsilon=0.5 if policy == 1 else 0.0, floor=0.01, seed=5), 4_711, of_four, 3, NO_CAPS
    )
    found = chosen.candidate[:3].tolist(), chosen.propensity[:3].tolist(), chosen.first.tolist()
    assert repr(found) == repr(GOLDEN[policy])

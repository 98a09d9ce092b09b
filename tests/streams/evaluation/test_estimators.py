"""Off-policy estimates: the formulas of the Open Bandit Pipeline, intervals that cover, and what is refused."""

import numpy as np
import pytest
from thalweg.streams.evaluation.estimators import (
    Decisions,
    EvaluationError,
    columns_of,
    effective_sample_size,
    estimate,
    resampled,
)

# Four decisions among two items. Reward, propensity, target, model of the item that was shown, value under the target.
TABLE = Decisions(
    reward=np.array([1.0, 0.0, 1.0, 0.0]),
    propensity=np.array([0.5, 0.5, 0.25, 0.75]),
    target=np.array([0.8, 0.2, 0.5, 0.3]),
    model=np.array([0.6, 0.4, 0.5, 0.2]),
    value=np.array([0.56, 0.44, 0.40, 0.30]),
)


def test_the_formulas_are_those_of_the_open_bandit_pipeline() -> None:
    """By hand: w = 1.6, 0.4, 2, 0.4; IPS = mean(w r), SNIPS = sum(w r) / sum(w), DR = mean(v + w (r - q)).

    w r = 1.6, 0, 2, 0: IPS 3.6 / 4 and SNIPS 3.6 / 4.4, as obp's InverseProbabilityWeighting and its self-normalised
    one. The terms of DoublyRobust are .56 + 1.6 * .4 = 1.2, .44 - .4 * .4 = .28, .4 + 2 * .5 = 1.4 and .3 - .4 * .2 =
    .22.
    """
    many = Decisions(*(np.tile(column, 100) for column in TABLE))
    found = estimate(many)
    assert found.ips.value == pytest.approx(0.9)
    assert found.snips.value == pytest.approx(3.6 / 4.4)
    assert found.dr.value == pytest.approx((1.2 + 0.28 + 1.4 + 0.22) / 4)
    assert found.logged.value == pytest.approx(0.5)
    assert found.effective_sample_size == pytest.approx(100 * 4.4**2 / (1.6**2 + 0.4**2 + 2.0**2 + 0.4**2))
    for name in ("ips", "snips", "dr", "logged"):
        low, high = getattr(found, name)[1:]
        assert low < getattr(found, name).value < high


def test_few_effective_decisions_are_refused() -> None:
    """Below 100 nothing is estimated, and the message has how many they are and what helps."""
    assert effective_sample_size(TABLE.target / TABLE.propensity) == pytest.approx(4.4**2 / 6.88)
    with pytest.raises(
        EvaluationError, match=r"4 decisions are worth 2\.8 under this policy, at least 100 are needed: take"
    ):
        estimate(TABLE)
    nothing = Decisions(*(np.zeros(500) if name == "target" else np.ones(500) for name in Decisions._fields))
    with pytest.raises(EvaluationError, match=r"500 decisions are worth 0\.0"):
        estimate(nothing)


def test_a_bootstrap_sample_has_as_many_rows() -> None:
    """Each sample must have n rows of the table, repeat with its seed, and differ from the others."""
    columns = columns_of(Decisions(*(np.tile(column, 50) for column in TABLE)))
    sums = resampled(columns, 40, 7)
    np.testing.assert_array_equal(sums[:, 0], 200.0)
    np.testing.assert_array_equal(sums, resampled(columns, 40, 7))
    assert len(np.unique(sums[:, 3])) > 10
    assert sums[:, 3].mean() == pytest.approx(180.0, rel=0.05)


KINDS, ITEMS, ROWS = 40, 5, 2_000


def test_intervals_cover_the_truth_in_ninety_of_a_hundred_worlds() -> None:
    """In worlds with a known truth, each estimator's interval must hold it in at least 90 of 100 seeds."""
    covered = {"ips": 0, "snips": 0, "dr": 0}
    for seed in range(100):
        chance = np.random.default_rng(seed)
        rewards = 1.0 / (
            1.0 + np.exp(1.5 - chance.normal(0.0, 1.0, (KINDS, ITEMS)))
        )  # true, of each item for each kind
        logging = softmax(chance.normal(0.0, 0.7, (KINDS, ITEMS)))
        target = softmax(chance.normal(0.0, 0.7, (KINDS, ITEMS)))
        model = np.clip(rewards + chance.normal(0.0, 0.1, rewards.shape), 0.0, 1.0)
        kind = chance.integers(0, KINDS, ROWS)
        item = (chance.random((ROWS, 1)) > logging[kind].cumsum(axis=1)).sum(axis=1).clip(max=ITEMS - 1)
        found = estimate(
            Decisions(
                reward=(chance.random(ROWS) < rewards[kind, item]).astype(float),
                propensity=logging[kind, item],
                target=target[kind, item],
                model=model[kind, item],
                value=(target * model).sum(axis=1)[kind],
            ),
            samples=400,
            seed=seed,
        )
        truth = float((target * rewards).sum(axis=1).mean())
        for name in covered:
            low, high = getattr(found, name)[1:]
            covered[name] += low <= truth <= high
    assert min(covered.values()) >= 90, covered


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [kinds, items]."""
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)

"""The figures of a replay: those of scikit-learn up to the tally's limit, near them beyond it."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.streams.partition.tally import KEPT, Tally

Labels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


def drawn(count: int, seed: int = 3) -> tuple[Labels, Scores]:
    """Return labels and scores [n, 5] that know something of them; a quarter has no base score, many are tied."""
    random = np.random.default_rng(seed)
    scores = 1 / (1 + np.exp(-random.normal(-1, 1.5, (count, 5))))
    scores[:, 2] = np.round(scores[:, 2], 2)
    labels = (random.random(count) < scores.mean(axis=1)).astype(np.uint8)
    scores[::4, 0] = np.nan
    return labels, scores


def filled(limit: int, labels: Labels, scores: Scores) -> Tally:
    tally = Tally(limit)
    for first in range(0, len(labels), 700):
        tally.add(labels[first : first + 700], scores[first : first + 700])
    return tally


@pytest.mark.parametrize(("limit", "exact"), [(1 << 20, True), (5_000, False)])
def test_figures_are_those_of_scikit_learn(limit: int, exact: bool) -> None:
    """AUC and log loss of each score must be scikit-learn's; beyond the limit AUC to .0001."""
    labels, scores = drawn(20_000)
    tally = filled(limit, labels, scores)
    assert tally.is_exact is exact
    assert (tally.labelled, tally.positives) == (len(labels), int(labels.sum()))
    for quality, column in zip(tally.qualities(), KEPT, strict=True):
        known = ~np.isnan(scores[:, column])
        assert quality.log_loss == pytest.approx(log_loss(labels[known], scores[known, column]), rel=1e-12)
        assert quality.auc == pytest.approx(
            roc_auc_score(labels[known], scores[known, column]), abs=1e-12 if exact else 1e-4
        )
    assert tally.calibration() == pytest.approx(scores[:, KEPT[0]].mean() / labels.mean(), rel=1e-12)


@pytest.mark.parametrize("limit", [1 << 20, 100])
def test_a_snapshot_goes_on(limit: int) -> None:
    """Going on from a snapshot must give the same figures as never having stopped."""
    labels, scores = drawn(4_000)
    half = filled(limit, labels[:2_000], scores[:2_000])
    restored = Tally.restored(half.snapshot())
    restored.limit = limit
    whole = filled(limit, labels, scores)
    restored.add(labels[2_000:], scores[2_000:])
    assert restored.is_exact == whole.is_exact
    assert (restored.labelled, restored.positives) == (whole.labelled, whole.positives)
    assert np.allclose(np.array(restored.qualities()), np.array(whole.qualities()), rtol=1e-12)


def test_a_snapshot_of_another_form_is_refused() -> None:
    """Arrays that are no tally must be refused."""
    with pytest.raises(ValueError, match="tally"):
        Tally.restored({"labels": np.zeros(3)})


@pytest.mark.parametrize("limit", [1 << 20, 0])
def test_what_is_undefined_is_none(limit: int) -> None:
    """Nothing is defined without labels, only log loss with one kind of label, nothing of scores that never came."""
    tally = Tally(limit)
    assert tally.qualities() == ((None, None),) * 3
    assert tally.calibration() is None
    scores = np.full((3, 5), 0.25)
    scores[:, KEPT[2]] = np.nan
    tally.add(np.zeros(3, np.uint8), scores)
    final, model, base = tally.qualities()
    assert final == model == (None, pytest.approx(-np.log(0.75)))
    assert base == (None, None)
    assert tally.calibration() is None
    tally.add(np.ones(1, np.uint8), scores[:1])
    assert tally.calibration() == pytest.approx(1.0)
    assert tally.qualities()[0].auc == pytest.approx(0.5)


def test_certain_scores_have_a_finite_loss() -> None:
    """Scores of exactly 0 and 1 must be clipped as scikit-learn clips them, in bins too."""
    labels, scores = np.array([0, 1, 1], np.uint8), np.repeat([[1.0], [0.0], [1.0]], 5, axis=1)
    for limit in (10, 0):
        tally = filled(limit, labels, scores)
        assert tally.qualities()[0].log_loss == pytest.approx(log_loss(labels, scores[:, 0]))
        assert tally.qualities()[0].auc == pytest.approx(roc_auc_score(labels, scores[:, 0]))

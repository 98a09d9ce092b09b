"""How good scores are as people measure them: within users and pages, in bins, and beside plain baselines.

A figure within groups is the mean over the groups that have both labels, weighted by their impressions. The baselines
see what the model may see: an impression is scored with the labels that were final when it arrived.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.streams.partition.tally import Known, Quality, quality

CALIBRATION_BINS = 20
PRIOR_EXPOSURES = 20.0
"""How many exposures at the overall rate a user's or an item's own rate begins with."""

Scores = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]
Keys = npt.NDArray[Any]


class Figures(NamedTuple):
    """The quality of one kind of score; None where it is undefined.

    `auc_by_user`, `auc_by_page`: AUC within users, and within pages (one user, one time); `calibration_error`: the
    expected calibration error in 20 bins of equal width.
    """

    auc: float | None
    log_loss: float | None
    auc_by_user: float | None
    auc_by_page: float | None
    calibration_error: float | None


NO_FIGURES = Figures(None, None, None, None, None)


def figures_of(known: Known, scores: Scores) -> Figures:
    """Return the figures of scores [n] of impressions whose labels are known; scores that are nan are left out."""
    has_score = ~np.isnan(scores)
    labels, kept = known.labels[has_score], scores[has_score]
    whole: Quality = quality(labels, kept)
    users, pages = known.users[has_score], known.pages[has_score]
    return Figures(
        whole.auc,
        whole.log_loss,
        area_within(users, labels, kept),
        area_within(pages, labels, kept),
        calibration_error(labels, kept),
    )


def area_within(groups: Keys, labels: Labels, scores: Scores) -> float | None:
    """Return the mean AUC within groups [n] that have both labels, weighted by impressions; None without any.

    >>> area_within(np.array([1, 1, 2, 2, 3]), np.array([0, 1, 1, 0, 1], np.uint8), np.array([0.1, 0.2, 0.3, 0.3, 0.9]))
    0.75
    """
    if not len(groups):
        return None
    order = np.lexsort((scores, groups))
    group, label, score = groups[order], labels[order].astype(np.int64), scores[order]
    is_first = np.concatenate(([True], group[1:] != group[:-1]))
    starts = np.flatnonzero(is_first)
    which = np.cumsum(is_first) - 1
    # Equal scores share the mean of their ranks, which counts a tie half.
    tie_first = is_first | np.concatenate(([True], score[1:] != score[:-1]))
    tie_starts = np.flatnonzero(tie_first)
    tie_sizes = np.diff(np.append(tie_starts, len(score)))
    ranks = np.repeat(tie_starts + (tie_sizes + 1) / 2.0, tie_sizes) - starts[which]
    sizes = np.diff(np.append(starts, len(score)))
    positives = np.add.reduceat(label, starts)
    negatives = sizes - positives
    rank_sums = np.add.reduceat(ranks * label, starts)
    both = (positives > 0) & (negatives > 0)
    if not both.any():
        return None
    wins = rank_sums[both] - positives[both] * (positives[both] + 1) / 2.0
    return float(np.average(wins / (positives[both] * negatives[both]), weights=sizes[both]))


def calibration_error(labels: Labels, scores: Scores) -> float | None:
    """Return the mean distance of mean score and mean label over 20 bins, weighted by impressions (ECE).

    >>> calibration_error(np.array([1, 0], np.uint8), np.array([0.52, 0.54]))
    0.030000000000000027
    """
    if not len(labels):
        return None
    bins = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    distance = np.bincount(bins, scores - labels, minlength=CALIBRATION_BINS)
    return float(np.abs(distance).sum() / len(labels))


def baselines(known: Known) -> dict[str, Scores]:
    """Return what plain rates would have scored [n], by name: of all, of the item, of item and user together."""
    overall = _rates(known, np.zeros(len(known.labels), np.int64), np.full(len(known.labels), 0.5), 1.0)
    item = _rates(known, known.items, overall, PRIOR_EXPOSURES)
    user = _rates(known, known.users, overall, PRIOR_EXPOSURES)
    both = _log_odds(item) + _log_odds(user) - _log_odds(overall)
    return {"overall rate": overall, "item rate": item, "item and user rates": 1.0 / (1.0 + np.exp(-both))}


def _log_odds(rate: Scores) -> Scores:
    return np.log(rate / (1.0 - rate))


def _rates(known: Known, keys: Keys, prior: Scores, strength: float) -> Scores:
    """Return each impression's smoothed rate of its key, over the labels that were final when it arrived."""
    return rates_at(known, keys, (keys, known.arrived), prior, strength)


def rates_at(known: Known, keys: Keys, asked: tuple[Keys, Keys], prior: Scores, strength: float) -> Scores:
    """Return the smoothed rates [m] of keys [m] over the labels that were final at offsets [m]: these two are `asked`.

    `keys` [n] are those of the impressions; a rate begins with `strength` exposures at the `prior` [m].
    """
    wanted, offsets = asked
    _, group = np.unique(np.concatenate((keys, wanted)), return_inverse=True)
    of_known, of_wanted = group.reshape(-1)[: len(keys)], group.reshape(-1)[len(keys) :]
    span = np.int64(max(int(offsets.max(initial=0)), int(known.closed.max(initial=0))) + 2)
    # One sorted list of (key, when its label was final): where an impression falls in, its key's labels lie before.
    final = of_known * span + known.closed
    order = np.argsort(final, kind="stable")
    positives = np.concatenate(([0], np.cumsum(known.labels[order], dtype=np.int64)))
    begins = np.searchsorted(final[order], of_wanted * span, side="left")
    ends = np.searchsorted(final[order], of_wanted * span + offsets, side="right")
    shown = ends - begins
    acted = positives[ends] - positives[begins]
    return (acted + strength * prior) / (shown + strength)

"""How good the scores were: labels and scores of the impressions whose window has closed, as they were emitted.

Up to a limit every label is kept with its scores, and all figures are exact. Beyond it they are counted in bins of the
score's log-odds. Log loss and calibration stay exact sums. AUC takes scores within one bin as ties: its error is below
the share of pairs within a bin (on real scores less than .0001).
"""

from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from thalweg.operators.joiner import Score
from thalweg.streams.partition.asked import AskedTally

KEPT = (Score.SCORE, Score.MODEL, Score.BASE)
EPSILON = float(np.finfo(np.float64).eps)
BINS_PER_UNIT = 512
LOG_ODDS_LIMIT = 37  # beyond the log-odds of EPSILON
BINS = 2 * LOG_ODDS_LIMIT * BINS_PER_UNIT

EXACT_ARRAYS = {"labels": (np.uint8, ()), "scores": (np.float64, (len(KEPT),))}
ORIGIN_ARRAYS = {"closings": (np.int64, (3,)), "shown": (np.int64, (4,))}
BINNED_ARRAYS = {"counts": (np.int64, (2, BINS)), "sums": (np.float64, (2,))}

Arrays = dict[str, npt.NDArray[Any]]
OTHER = "objective_"
"""What begins the names of the arrays of further objectives; their number follows."""


class Quality(NamedTuple):
    """AUC and log loss of one score over the labels that it has, None where undefined."""

    auc: float | None
    log_loss: float | None


class Known(NamedTuple):
    """Impressions whose label is known, [n] each, in the order of closing.

    `labels` uint8; `scores` float64 [n, 3]: final, model, base; `users`, `items` int64, their keys' bits; `pages`
    int64: a number for each user and time; `arrived` int64, their offsets; `closed` int64, the offsets at which their
    windows closed: an impression that arrived there knew their labels.
    """

    labels: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float64]
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    pages: npt.NDArray[np.int64]
    arrived: npt.NDArray[np.int64]
    closed: npt.NDArray[np.int64]


class Curve:
    """Labels of this run with their scores and the time of their closing, thinned evenly beyond a limit."""

    def __init__(self, limit: int = 1 << 18) -> None:
        """Keep at most `limit` labels, 33 bytes each."""
        self._limit = limit
        self._every = 1
        self._count = 0
        self._kept: list[tuple[npt.NDArray[Any], ...]] = []
        self._kept_labels = 0

    def add(
        self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64], times_ms: npt.NDArray[np.int64]
    ) -> None:
        """Take labels [n], scores [n, 3] and event times [n] in ms."""
        first = -self._count % self._every
        self._count += len(labels)
        self._keep(labels[first :: self._every], scores[first :: self._every], times_ms[first :: self._every])
        while self._kept_labels > self._limit:
            whole = self.arrays()
            self._every *= 2
            self._kept, self._kept_labels = [], 0
            self._keep(*(part[::2] for part in whole))

    def arrays(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Return the labels, scores and times that are kept, in the order of closing."""
        if not self._kept:
            return np.zeros(0, np.uint8), np.zeros((0, len(KEPT))), np.zeros(0, np.int64)
        labels, scores, times_ms = (np.concatenate(part) for part in zip(*self._kept, strict=True))
        return labels, scores, times_ms

    def _keep(self, *parts: npt.NDArray[Any]) -> None:
        if len(parts[0]):
            self._kept.append(tuple(part.copy() for part in parts))
            self._kept_labels += len(parts[0])


class Tally:
    """Labels with their scores: exact up to `limit` of them, in bins beyond."""

    def __init__(self, limit: int = 1 << 22) -> None:
        """Keep at most `limit` labelled impressions exactly, 81 bytes each."""
        self.limit = limit
        self.labelled = 0
        self.positives = 0
        self._labels: list[npt.NDArray[np.uint8]] = []
        self._scores: list[npt.NDArray[np.float64]] = []
        self._closings: list[npt.NDArray[np.int64]] = []
        self._shown: list[npt.NDArray[np.int64]] = []
        self._binned: Binned | None = None
        self.curve = Curve()
        self.asked = AskedTally()
        self.others: list[Tally] = []
        """Those of further objectives, in the order of their names."""

    @property
    def is_exact(self) -> bool:
        """Whether every label is still kept by itself."""
        return self._binned is None

    def show(self, shown: npt.NDArray[np.int64]) -> None:
        """Take impressions that were scored, [n, 4]: offset, the bits of the user's and the item's key, ts."""
        if self._binned is None and len(shown):
            self._shown.append(shown)

    def add(
        self,
        labels: npt.NDArray[np.uint8],
        scores: npt.NDArray[np.float64],
        closings: npt.NDArray[np.int64] | None = None,
        times_ms: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Take labels [n], scores [n, 5] as `joiner.Waiting.scores` has them, offsets [n, 3] and times [n].

        The offsets are the impression's, and that of the event at which its window closed; behind them the item's bits.
        The time is that event's.
        """
        if times_ms is not None:
            self.curve.add(labels, scores[:, KEPT], times_ms)
        if closings is not None and self._binned is None and len(labels):
            self._closings.append(closings)
        self._add(labels, scores[:, KEPT])

    def add_others(self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> None:
        """Take the labels and scores [n, heads] of further objectives."""
        while len(self.others) < labels.shape[1]:
            self.others.append(Tally(self.limit))
        for head, other in enumerate(self.others):
            every = np.full((len(labels), len(Score)), np.nan)
            every[:, Score.SCORE] = scores[:, head]
            other._add(labels[:, head], every[:, KEPT])

    def known(self) -> Known | None:
        """Return the impressions that have a label; None beyond the limit, or where it is not known which they are."""
        labels, scores = self.arrays()
        closings, shown = _stacked(self._closings, 3), self.shown()
        if not self.is_exact or len(closings) != len(labels) or not len(labels):
            return None
        shown = shown[np.argsort(shown[:, 0], kind="stable")]
        place = np.searchsorted(shown[:, 0], closings[:, 0])
        other = np.arange(len(place))
        while len(other):  # one request shows many items
            if place[other].max() >= len(shown) or (shown[place[other], 0] != closings[other, 0]).any():
                return None
            other = other[shown[place[other], 2] != closings[other, 2]]
            place[other] += 1
        users, items, ts_ms = shown[place, 1], shown[place, 2], shown[place, 3]
        _, pages = np.unique(np.stack((users, ts_ms), axis=1), axis=0, return_inverse=True)
        return Known(labels, scores, users, items, pages.reshape(-1), closings[:, 0], closings[:, 1])

    def shown(self) -> npt.NDArray[np.int64]:
        """Return the impressions that were scored, [n, 4] as `show` takes them; none beyond the limit."""
        return _stacked(self._shown, 4)

    def arrays(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float64]]:
        """Return the labels [n] and scores [n, 3] kept exactly: final, model, base (nan: an event has none)."""
        if not self._labels:
            return np.zeros(0, np.uint8), np.zeros((0, len(KEPT)))
        return np.concatenate(self._labels), np.concatenate(self._scores)

    def qualities(self) -> tuple[Quality, ...]:
        """Return the quality of the final score, the model's and the base score."""
        if self._binned is not None:
            return tuple(self._binned.quality(which) for which in range(len(KEPT)))
        labels, scores = self.arrays()
        return tuple(quality(labels, scores[:, which]) for which in range(len(KEPT)))

    def calibration(self) -> float | None:
        """Return the mean final score over the mean label; None without a positive."""
        if not self.positives:
            return None
        total = float(self.arrays()[1][:, 0].sum()) if self._binned is None else float(self._binned.sums[0, 0])
        return total / self.positives

    def snapshot(self) -> Arrays:
        """Return all of it as arrays by name."""
        others = {
            f"{OTHER}{number}_{name}": array
            for number, other in enumerate(self.others)
            for name, array in other.snapshot().items()
        }
        if self._binned is not None:
            found: Arrays = {"counts": self._binned.counts.copy(), "sums": self._binned.sums.copy()}
            return found | self.asked.snapshot() | others
        labels, scores = self.arrays()
        closings = _stacked(self._closings, 3)
        found = {"labels": labels, "scores": scores, "closings": closings, "shown": self.shown()}
        return found | self.asked.snapshot() | others

    @classmethod
    def restored(cls, arrays: Arrays) -> Self:
        """Return the tally that a snapshot was taken of. Raises ValueError where it is none."""
        tally = cls()
        own = {name: array for name, array in arrays.items() if not name.startswith(OTHER)}
        for number in sorted({int(name[len(OTHER) :].partition("_")[0]) for name in arrays.keys() - own.keys()}):
            start = f"{OTHER}{number}_"
            its = {name[len(start) :]: array for name, array in arrays.items() if name.startswith(start)}
            tally.others.append(cls.restored(its))
        arrays = own
        tally.asked.restore({name: array for name, array in arrays.items() if name.startswith("asked_")})
        arrays = {name: array for name, array in arrays.items() if not name.startswith("asked_")}
        binned = "counts" in arrays
        expected = BINNED_ARRAYS if binned else EXACT_ARRAYS
        found = {name: (array.dtype.type, array.shape[1:]) for name, array in arrays.items()}
        if found not in (expected, expected if binned else EXACT_ARRAYS | ORIGIN_ARRAYS):
            raise ValueError("the checkpoint's tally is of another form")
        if binned:
            tally._binned = Binned(arrays["counts"].copy(), arrays["sums"].copy())
            tally.positives = int(tally._binned.counts[0, 1].sum())
            tally.labelled = int(tally._binned.counts[0].sum())
        else:
            tally._add(arrays["labels"], arrays["scores"])
            tally._closings = [arrays["closings"].copy()] if "closings" in arrays else []
            tally._shown = [arrays["shown"].copy()] if "shown" in arrays else []
        return tally

    def _add(self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> None:
        self.labelled += len(labels)
        self.positives += int(labels.sum())
        if self._binned is None and self.labelled > self.limit:
            self._binned = Binned(np.zeros((len(KEPT), 2, BINS), np.int64), np.zeros((len(KEPT), 2)))
            for kept_labels, kept_scores in zip(self._labels, self._scores, strict=True):
                self._binned.add(kept_labels, kept_scores)
            self._labels, self._scores, self._closings, self._shown = [], [], [], []
        if self._binned is not None:
            self._binned.add(labels, scores)
        elif len(labels):
            self._labels.append(labels.copy())
            self._scores.append(scores.copy())


def _stacked(parts: list[npt.NDArray[np.int64]], width: int) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros((0, width), np.int64)


class Binned(NamedTuple):
    """`counts` int64 [3, 2, BINS] by score, label and log-odds; `sums` float64 [3, 2] of scores and losses."""

    counts: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    def add(self, labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> None:
        """Count labels [n] with scores [n, 3]; those that are nan are left out."""
        for which in range(len(KEPT)):
            known = ~np.isnan(scores[:, which])
            y, p = labels[known], scores[known, which]
            clipped = np.clip(p, EPSILON, 1.0 - EPSILON)
            log_odds = np.log(clipped) - np.log1p(-clipped)
            bins = np.clip((log_odds + LOG_ODDS_LIMIT) * BINS_PER_UNIT, 0, BINS - 1).astype(np.int64)
            np.add.at(self.counts[which], (y, bins), 1)
            self.sums[which] += float(p.sum()), float(losses(y, p).sum())

    def quality(self, which: int) -> Quality:
        """Return the quality of one kind of score."""
        counts = self.counts[which]
        labelled = int(counts.sum())
        if not labelled:
            return Quality(None, None)
        return Quality(_area(counts[0], counts[1]), float(self.sums[which, 1]) / labelled)


def quality(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> Quality:
    """Return the quality of scores [n] over labels [n]; those that are nan are left out.

    >>> auc, log_loss = quality(np.array([0, 1, 1], np.uint8), np.array([0.2, 0.8, 0.5]))
    >>> auc, round(log_loss, 4)
    (1.0, 0.3798)
    """
    known = ~np.isnan(scores)
    y, p = labels[known], scores[known]
    if not len(y):
        return Quality(None, None)
    return Quality(area_under_curve(y, p), float(np.mean(losses(y, p))))


def losses(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the log loss of each score; 0 and 1 count as EPSILON from there."""
    clipped = np.clip(scores, EPSILON, 1.0 - EPSILON)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def area_under_curve(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> float | None:
    """Return the probability that a positive is scored above a negative, ties counted half; None without both."""
    _, place = np.unique(scores, return_inverse=True)
    size = int(place.max()) + 1 if len(place) else 0
    return _area(np.bincount(place[labels == 0], minlength=size), np.bincount(place[labels == 1], minlength=size))


def _area(negatives: npt.NDArray[np.int64], positives: npt.NDArray[np.int64]) -> float | None:
    """Return the area from the counts of each label by rising score."""
    pairs = int(negatives.sum()) * int(positives.sum())
    if not pairs:
        return None
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2.0)).sum()) / pairs

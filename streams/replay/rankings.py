"""How good the orders of requests' candidates were, by what the user acted on within the window after it.

A candidate is relevant if the request's user acted on its item, positively and behind the request in the log. The
action's time must be the request's or later, by at most the window of that action. A request counts once stream time
has passed the longest window. All its usable candidates count, by score: what a request filters, caps or lets explore
has no effect.

Of requests with a relevant candidate there are nDCG at 5 and 10, with a gain of 1 and a discount of log2(place + 1).
There are the mean reciprocal rank of the first relevant one, and the share with a relevant one among ten. Of all
requests there is the share of the candidates' items that come among the first ten at all. Novelty is the mean of
-log2((n + 1) / (N + 1)) over the first ten, where n of the N impressions so far had the item. Equal scores keep the
request's order.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.streams.partition.asked import AskedTally, Rows
from thalweg.streams.partition.tally import Known
from thalweg.streams.replay.figures import PRIOR_EXPOSURES, rates_at

TOP = 10
HALF_TOP = 5

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class RankingFigures(NamedTuple):
    """The quality of one order; None where it is undefined."""

    ndcg_5: float | None
    ndcg_10: float | None
    mrr: float | None
    hit_rate: float | None
    coverage: float | None
    novelty: float | None


class Rankings(NamedTuple):
    """Figures of rankings over `requests` whose window has closed, `relevant` of which have a relevant candidate.

    `waiting`: requests whose window is open. `left_out`: later requests, which no figure counts, since candidates are
    kept up to a limit. `figures` by name: `final`, `model`, and two baselines.
    """

    requests: int
    relevant: int
    waiting: int
    left_out: int
    figures: dict[str, RankingFigures]


class _Candidates(NamedTuple):
    """All candidates of closed requests, [c]: which request, its offset, the item, and whether it is relevant."""

    request: Integers
    offset: Integers
    item: Integers
    is_relevant: npt.NDArray[np.bool_]


def rankings_of(
    asked: AskedTally, known: Known | None, shown: Integers, now_ms: int, longest_ms: int
) -> Rankings | None:
    """Return the figures of requests at stream time `now_ms`, None where nothing was asked.

    `known`: impressions with their labels, of which the item's rate is made; None: without that baseline. `shown` int64
    [n, 4]: impressions as `Tally.show` takes them. `longest_ms`: the longest window.
    """
    rows = asked.rows()
    if rows is None:
        return None
    is_closed = rows.requests[:, 2] + longest_ms < now_ms
    of = np.repeat(np.arange(len(rows.requests)), rows.requests[:, 3])
    counted = is_closed[of]
    request = (np.cumsum(is_closed) - 1)[of[counted]]
    candidates = _Candidates(request, rows.requests[of[counted], 0], rows.items[counted], relevance(rows, of)[counted])
    novelty = novelties(candidates, shown)
    orders = {"final": rows.scores[counted, 0], "model": rows.scores[counted, 1]}
    if known is not None:
        orders["item rate"] = item_rates(candidates, known)
    orders["as requested"] = np.zeros(len(request))
    figures = {name: figures_of_order(candidates, scores, novelty) for name, scores in orders.items()}
    relevant = len(np.unique(request[candidates.is_relevant]))
    return Rankings(int(is_closed.sum()), relevant, int((~is_closed).sum()), asked.left_out, figures)


def relevance(rows: Rows, of: Integers) -> npt.NDArray[np.bool_]:
    """Return which candidates [c] are relevant; `of` [c] is the request of each."""
    found = np.zeros(len(of), bool)
    acted = rows.acted
    if not len(acted) or not len(of):
        return found
    pairs = np.concatenate((np.stack((rows.requests[of, 1], rows.items), axis=1), acted[:, 1:3]))
    _, group = np.unique(pairs, axis=0, return_inverse=True)
    group = group.reshape(-1)
    # One sorted list of (user and item, time): an action concerns the requests in a stretch of it.
    times, place = np.unique(rows.requests[of, 2], return_inverse=True)
    at = group[: len(of)] * len(times) + place.reshape(-1)
    order = np.argsort(at, kind="stable")
    earliest = np.searchsorted(times, acted[:, 3] - acted[:, 4], side="left")
    latest = np.searchsorted(times, acted[:, 3], side="right")
    own = group[len(of) :] * len(times)
    begins = np.searchsorted(at[order], own + earliest, side="left")
    ends = np.searchsorted(at[order], own + latest, side="left")
    sizes = np.maximum(ends - begins, 0)
    stretches = np.repeat(begins - np.cumsum(sizes) + sizes, sizes) + np.arange(int(sizes.sum()))
    touched = order[stretches]
    is_behind = np.repeat(acted[:, 0], sizes) > rows.requests[of[touched], 0]
    found[touched[is_behind]] = True
    return found


def figures_of_order(candidates: _Candidates, scores: Floats, novelty: Floats) -> RankingFigures:
    """Return the figures of candidates by scores [c]."""
    if not len(scores):
        return RankingFigures(None, None, None, None, None, None)
    order = np.lexsort((np.arange(len(scores)), -scores, candidates.request))
    request, is_relevant = candidates.request[order], candidates.is_relevant[order]
    starts = np.flatnonzero(np.concatenate(([True], request[1:] != request[:-1])))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    relevant = np.add.reduceat(is_relevant.astype(np.int64), starts)
    has_one = relevant > 0
    top = rank < TOP
    coverage = len(np.unique(candidates.item[order][top])) / len(np.unique(candidates.item))
    best = np.minimum.reduceat(np.where(is_relevant, rank, len(order)), starts)[has_one]
    mean = float(novelty[order][top].mean())
    if not len(best):
        return RankingFigures(None, None, None, None, coverage, mean)
    gains = {
        depth: discounted(rank, is_relevant, starts, depth)[has_one] / ideal(relevant[has_one], depth)
        for depth in (HALF_TOP, TOP)
    }
    return RankingFigures(
        float(gains[HALF_TOP].mean()),
        float(gains[TOP].mean()),
        float((1.0 / (1.0 + best)).mean()),
        float((best < TOP).mean()),
        coverage,
        mean,
    )


def discounted(rank: Integers, is_relevant: npt.NDArray[np.bool_], starts: Integers, depth: int) -> Floats:
    """Return the discounted gain of each request down to a depth."""
    gain: Floats = np.add.reduceat(np.where(is_relevant & (rank < depth), 1.0 / np.log2(rank + 2.0), 0.0), starts)
    return gain


def ideal(relevant: Integers, depth: int) -> Floats:
    """Return the largest discounted gain that requests with so many relevant candidates can have down to a depth."""
    sums = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(depth) + 2.0))))
    largest: Floats = sums[np.minimum(relevant, depth)]
    return largest


def item_rates(candidates: _Candidates, known: Known) -> Floats:
    """Return the rate of each candidate's item, over the labels that were final at its request."""
    ones, nothing = np.zeros(len(known.labels), np.int64), np.zeros(len(candidates.item), np.int64)
    overall = rates_at(known, ones, (nothing, candidates.offset), np.full(len(nothing), 0.5), 1.0)
    return rates_at(known, known.items, (candidates.item, candidates.offset), overall, PRIOR_EXPOSURES)


def novelties(candidates: _Candidates, shown: Integers) -> Floats:
    """Return how surprising each candidate's item is in bits, by the impressions before its request."""
    items: Any = np.concatenate((shown[:, 2], candidates.item))
    _, group = np.unique(items, return_inverse=True)
    group = group.reshape(-1)
    of_shown, of_asked = group[: len(shown)], group[len(shown) :]
    span = np.int64(max(int(shown[:, 0].max(initial=0)), int(candidates.offset.max(initial=0))) + 2)
    places = np.sort(of_shown * span + shown[:, 0])
    begins = np.searchsorted(places, of_asked * span)
    counts = np.searchsorted(places, of_asked * span + candidates.offset) - begins
    total = np.searchsorted(np.sort(shown[:, 0]), candidates.offset)
    bits: Floats = -np.log2((counts + 1.0) / (total + 1.0))
    return bits

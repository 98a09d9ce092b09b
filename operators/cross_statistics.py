"""The statistics that the cross network reads of an impression, and what they count: exposures, gaps, labels.

Exposures, gaps and ages need no outcome and count once the page is over (`pages`); rates count with their outcome.
"""

import numpy as np
import numpy.typing as npt
from thalweg.operators.cross import (
    AGE_AT,
    BEFORE,
    FIRST,
    GAP_AT,
    LABELS,
    LABELS_AT,
    LAST,
    OF_ONE,
    PACE,
    PACE_AT,
    PACE_BEFORE,
    PAIR_ACTED,
    PAIR_BEFORE,
    PAIR_KNOWN,
    PAIR_SHOWN,
    RATE_AT,
    RECENT_SHARE,
    RESIDUAL_AT,
    SHOWN,
    SHOWN_AT,
    SHOWN_BEFORE,
    Cross,
    CrossScratch,
)
from thalweg.operators.features import ITEM
from thalweg.operators.machine.compiled import clear, compiled, float32, float64, int64
from thalweg.operators.machine.lanes import LANES
from thalweg.operators.machine.numerics import log
from thalweg.operators.pages import Moment
from thalweg.operators.rates import Odds, Prior, read_rate
from thalweg.operators.structures import table

UPDATE_MS = 60_000  # a pair that was shown so lately is not put in order again
NO_PAIR = -1.0  # in place of exposures


@compiled
def read_statistics(
    cross: Cross,
    scratch: CrossScratch,
    slot: int,
    rows: npt.NDArray[np.int32],
    rates: npt.NDArray[np.float32],
    prior: Prior,
    moment: Moment,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the statistics of an impression to `out` [statistics], behind `resolve_pairs`.

    `rows` [values]: user and item first; `rates` [4], rate and residual of the user and of the item.
    """
    clear(out)
    for which in range(2):
        _read_of_one(cross, which, int64(rows[which]), rates, moment, out)
    _read_pairs(cross, scratch, slot, 0, 1, prior, moment, out[2 * LANES :])


@compiled
def _read_pairs(
    cross: Cross,
    scratch: CrossScratch,
    slot: int,
    first: int,
    step: int,
    prior: Prior,
    moment: Moment,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the statistics of each `step`-th pair of an impression to `out` [2 * pairs], from the `first` on.

    Of two steps each was just found. What takes long is in loops apart, so that a processor works at several pairs at
    once.
    """
    seen, counts = cross.pairs_seen, scratch.counts
    places = seen.row.shape[1]
    pairs = (places - first + step - 1) // step
    known, acted, shown = counts[0, :pairs], counts[1, :pairs], counts[2, :pairs]
    for number in range(pairs):
        place = first + step * number
        pair = int64(seen.row[slot, place])
        known[number], acted[number], shown[number] = NO_PAIR, 0.0, 0.0
        if pair >= 0 and (step > 1 or table.is_current(cross.pairs, pair, seen.generation[slot, place])):
            its = cross.counted.counts[pair]
            is_counted = cross.counted.page[pair] == moment.page
            known[number], acted[number] = its[PAIR_KNOWN], its[PAIR_ACTED]
            shown[number] = its[PAIR_BEFORE if is_counted else PAIR_SHOWN]
    rates = counts[3, :pairs]
    for number in range(pairs):
        rates[number] = read_rate(known[number], acted[number], prior)
    for number in range(pairs):
        shown[number] = log(1.0 + shown[number])
    for number in range(pairs):
        at = 2 * (first + step * number)
        out[at], out[at + 1] = 0.0, 0.0
        if known[number] != NO_PAIR:
            out[at], out[at + 1] = rates[number], shown[number]


@compiled
def read_item_statistics(
    cross: Cross,
    scratch: CrossScratch,
    slot: int,
    rows: npt.NDArray[np.int32],
    rates: npt.NDArray[np.float32],
    prior: Prior,
    moment: Moment,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the statistics of the item and of its pairs, just found by `pairs_ahead`; the user's stay as they are."""
    clear(out[OF_ONE * ITEM : OF_ONE * (ITEM + 1)])
    _read_of_one(cross, int64(ITEM), int64(rows[ITEM]), rates, moment, out)
    _read_pairs(cross, scratch, slot, ITEM, 2, prior, moment, out[2 * LANES :])


@compiled
def _read_of_one(
    cross: Cross,
    which: int,
    row: int,
    rates: npt.NDArray[np.float32],
    moment: Moment,
    out: npt.NDArray[np.float32],
) -> None:
    """Write the statistics of the user or of the item where it has a row; exposures are those before its page."""
    at = OF_ONE * which
    if row >= 0:
        parts, seen_ms = cross.embedded.parts[row], cross.embedded.seen_ms[row]
        is_counted = cross.embedded.page[row] == moment.page
        shown = cross.embedded.before[row, SHOWN_BEFORE] if is_counted else parts[SHOWN]
        out[at + RATE_AT] = rates[2 * which + Odds.RATE]
        out[at + RESIDUAL_AT] = rates[2 * which + Odds.RESIDUAL]
        out[at + LABELS_AT] = parts[LABELS]
        if shown > 0.0:
            out[at + SHOWN_AT] = log(1.0 + float64(shown))
            out[at + GAP_AT] = _log_seconds(moment.now_ms - seen_ms[BEFORE if is_counted else LAST])
            out[at + AGE_AT] = _log_seconds(moment.now_ms - seen_ms[FIRST])
            out[at + PACE_AT] = cross.embedded.before[row, PACE_BEFORE] if is_counted else parts[PACE]


@compiled
def _log_seconds(ms: int) -> float:
    return log(1.0 + max(ms, 0) / 1000.0)


@compiled
def count_one(cross: Cross, row: int, moment: Moment) -> None:
    """Count an exposure of a user or an item, whose row this is; the rest of its page does not see it."""
    parts, seen_ms = cross.embedded.parts[row], cross.embedded.seen_ms[row]
    if cross.embedded.page[row] != moment.page:
        cross.embedded.page[row] = moment.page
        cross.embedded.before[row, SHOWN_BEFORE], cross.embedded.before[row, PACE_BEFORE] = parts[SHOWN], parts[PACE]
        seen_ms[BEFORE] = seen_ms[LAST]
        if parts[SHOWN] > 0.0:
            share = max(float64(RECENT_SHARE), 1.0 / float64(parts[SHOWN]))
            gap = _log_seconds(moment.now_ms - seen_ms[LAST])
            parts[PACE] += float32(share * (gap - float64(parts[PACE])))
    if parts[SHOWN] == 0.0:
        seen_ms[FIRST] = moment.now_ms
    parts[SHOWN] += float32(1.0)
    seen_ms[LAST] = moment.now_ms


@compiled
def count_shown(cross: Cross, slot: int, rows: npt.NDArray[np.int32], moment: Moment) -> None:
    """Count an impression with its user, its item and its pairs; `rows` [values]: user and item first."""
    for which in range(2):
        row = int64(rows[which])
        if row >= 0:
            count_one(cross, row, moment)
    seen = cross.pairs_seen
    for place in range(seen.row.shape[1]):
        pair = int64(seen.row[slot, place])
        if table.is_current(cross.pairs, pair, seen.generation[slot, place]):
            counts = cross.counted.counts[pair]
            if cross.counted.page[pair] != moment.page:
                cross.counted.page[pair] = moment.page
                counts[PAIR_BEFORE] = counts[PAIR_SHOWN]
            counts[PAIR_SHOWN] += float32(1.0)
            if moment.now_ms - cross.pairs.updated_ms[pair] >= UPDATE_MS:
                table.update_row(cross.pairs, pair, moment.now_ms)
                cross.pairs.page[pair] = table.tag_of(moment.page)


@compiled
def count_label(
    cross: Cross, slot: int, rows: npt.NDArray[np.int32], shown: float, acted: float, overall: float
) -> None:
    """Count an outcome with user, item and pairs; `shown` 1 the first time, `acted` what its label is, or is more.

    `rows` [values]: user and item first; `overall` is the overall rate. A negative that stands for several counts as so
    many, and moves the running mean as one of a share that stays below 1.
    """
    for which in range(2):
        row = rows[which]
        if row >= 0:
            parts = cross.embedded.parts[row]
            parts[LABELS] += step_of_mean(parts[LABELS], shown, acted, overall)
    seen = cross.pairs_seen
    for place in range(seen.row.shape[1]):
        pair = int64(seen.row[slot, place])
        if table.is_current(cross.pairs, pair, seen.generation[slot, place]):
            cross.counted.counts[pair, PAIR_KNOWN] += float32(shown)
            cross.counted.counts[pair, PAIR_ACTED] += float32(acted)


@compiled
def step_of_mean(mean: float, shown: float, acted: float, overall: float) -> float:
    """Return by how much an outcome moves a running mean of labels less the `overall` rate, as `count_label` has it."""
    share = RECENT_SHARE / (1.0 + RECENT_SHARE * max(shown - 1.0, 0.0))
    return float32(share) * float32(acted - shown * (float64(mean) + overall))

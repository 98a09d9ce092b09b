"""A block of events as the fold reads it."""

from enum import IntEnum
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from thalweg.schemas.events import CAPS_MAX


class Kind(IntEnum):
    """What an event is."""

    IMPRESSION = 0
    FEEDBACK = 1
    REQUEST = 2
    ERASE = 3
    UNUSABLE = 4
    IGNORED = 5
    ITEM = 6
    USER = 7
    MERGE = 8


class Columns(NamedTuple):
    """A block of n events as the fold reads it, [n] unless said otherwise.

    `kind` uint8; `reason` uint8, why the record cannot be used (0: it can); `offset`, `ts_ms` int64; `key` uint64 of
    the event's id (of the impression it scores or the feedback it is); `user`, `item` uint64 keys, 0 for none;
    `impression` uint64, the key of what a feedback belongs to, or of what an impression's request would show as its
    item, 0 for none; `request` uint64, the key of the request that an impression answers, 0 for none; `shown` int64,
    how many candidates a request shows; `positive` uint8, a bit for each objective that a feedback's action is a
    positive of, and `window_ms` int64, the action's longest window; `value` float64, of a feedback where it may weigh,
    and `base_score` float64 (nan is none); `value_start`
    int64 [n + 1] into `value_field` uint8 and `value_key` uint64, an impression's values; `brought` uint64, a bit for
    each field of its context; `text_start`, `text_end` int64 into `text` uint8, what is kept of an event that waits,
    and facts as `facts` packs them.

    Of requests: `candidate_start` int64 [n + 1] into c entries, the first of a request's for itself and the others for
    its candidates. Each has `candidate_item` uint64 [c] and, from `candidate_value_start` int64 [c + 1] on, its values
    in `candidate_field` uint8 and `candidate_key` uint64, 0 for a field without a value. `capped` uint8 [n, 4]: the
    places of the fields that a request caps, + 1; `drops` uint8 [n]: it leaves out what was acted on.

    Of merges: `merge_start` int64 [n + 1] into `merge_source`, `merge_upto` int64, a partition and the number of its
    last lesson, in the order of partitions, and `merge_passed` uint8: its lessons are passed over. `merge_begins` uint8
    [n]: another partition's shared part is where this one begins.
    """

    kind: npt.NDArray[np.uint8]
    reason: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    impression: npt.NDArray[np.uint64]
    request: npt.NDArray[np.uint64]
    shown: npt.NDArray[np.int64]
    user: npt.NDArray[np.uint64]
    item: npt.NDArray[np.uint64]
    positive: npt.NDArray[np.uint8]
    window_ms: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    base_score: npt.NDArray[np.float64]
    value_start: npt.NDArray[np.int64]
    value_field: npt.NDArray[np.uint8]
    value_key: npt.NDArray[np.uint64]
    brought: npt.NDArray[np.uint64]
    text_start: npt.NDArray[np.int64]
    text_end: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]
    candidate_start: npt.NDArray[np.int64]
    candidate_item: npt.NDArray[np.uint64]
    candidate_value_start: npt.NDArray[np.int64]
    candidate_field: npt.NDArray[np.uint8]
    candidate_key: npt.NDArray[np.uint64]
    capped: npt.NDArray[np.uint8]
    drops: npt.NDArray[np.uint8]
    merge_start: npt.NDArray[np.int64]
    merge_source: npt.NDArray[np.int64]
    merge_upto: npt.NDArray[np.int64]
    merge_passed: npt.NDArray[np.uint8]
    merge_begins: npt.NDArray[np.uint8]


_ALL = itemgetter(*Columns._fields)
AT_ONCE_MAX = 8
"""Columns of so many events are made at once."""
ALIGNMENT = 8


def new_columns(events: int) -> Columns:
    """Return columns of `events` events that say nothing yet.

    Those of a few events are in one piece of memory: an array made for itself takes as long as a column is worth.
    """
    if events > AT_ONCE_MAX:
        return _each_apart(events)
    layout, blank = _blank(events)
    return Columns._make(_ALL(np.ndarray((), layout, bytearray(blank))))


@lru_cache(AT_ONCE_MAX + 1)
def _blank(events: int) -> tuple[np.dtype[Any], bytes]:
    """Return where the columns of so few events are in one piece of memory, and its bytes at first."""
    columns = _each_apart(events)
    ends = np.cumsum([-(-each.nbytes // ALIGNMENT) * ALIGNMENT for each in columns])
    formats = [(each.dtype, each.shape) for each in columns]
    layout = {"names": Columns._fields, "formats": formats, "offsets": [0, *ends[:-1]], "itemsize": ends[-1]}
    whole: npt.NDArray[Any] = np.zeros((), np.dtype(cast(Any, layout)))
    for name, each in zip(Columns._fields, columns, strict=True):
        whole[name] = cast(Any, each)
    return whole.dtype, whole.tobytes()


def _each_apart(events: int) -> Columns:
    base_score = np.empty(events)
    base_score.fill(np.nan)
    return Columns(
        kind=np.zeros(events, np.uint8),
        reason=np.zeros(events, np.uint8),
        offset=np.zeros(events, np.int64),
        ts_ms=np.zeros(events, np.int64),
        key=np.zeros(events, np.uint64),
        impression=np.zeros(events, np.uint64),
        request=np.zeros(events, np.uint64),
        shown=np.zeros(events, np.int64),
        user=np.zeros(events, np.uint64),
        item=np.zeros(events, np.uint64),
        positive=np.zeros(events, np.uint8),
        window_ms=np.zeros(events, np.int64),
        value=base_score.copy(),
        base_score=base_score,
        value_start=np.zeros(events + 1, np.int64),
        value_field=np.zeros(0, np.uint8),
        value_key=np.zeros(0, np.uint64),
        brought=np.zeros(events, np.uint64),
        text_start=np.zeros(events, np.int64),
        text_end=np.zeros(events, np.int64),
        text=np.zeros(0, np.uint8),
        candidate_start=np.zeros(events + 1, np.int64),
        candidate_item=np.zeros(0, np.uint64),
        candidate_value_start=np.zeros(1, np.int64),
        candidate_field=np.zeros(0, np.uint8),
        candidate_key=np.zeros(0, np.uint64),
        capped=np.zeros((events, CAPS_MAX), np.uint8),
        drops=np.zeros(events, np.uint8),
        merge_start=np.zeros(events + 1, np.int64),
        merge_source=np.zeros(0, np.int64),
        merge_upto=np.zeros(0, np.int64),
        merge_passed=np.zeros(0, np.uint8),
        merge_begins=np.zeros(events, np.uint8),
    )

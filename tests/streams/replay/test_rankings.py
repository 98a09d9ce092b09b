"""Figures of rankings are what plain loops over their definitions give, and requests survive a checkpoint."""

from math import log2
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.schemas.events import Feedback, Impression, Request, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.asked import AskedTally, Rows
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Known, Tally
from thalweg.streams.replay.figures import PRIOR_EXPOSURES
from thalweg.streams.replay.rankings import Rankings, rankings_of, relevance
from thalweg.streams.replay.summary import ranking_rows, summarize

from tests.streams.logs_for_tests import small

WINDOW_MS = 10


def found(tally: AskedTally) -> Rankings:
    rankings = rankings_of(tally, None, np.zeros((0, 4), np.int64), 200, WINDOW_MS)
    assert rankings is not None
    return rankings


def kept(rows: Rows) -> AskedTally:
    tally = AskedTally()
    tally.add_rows(rows)
    return tally


request = st.tuples(
    st.integers(0, 2), st.integers(0, 40), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=14)
)
action = st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 60), st.sampled_from([4, WINDOW_MS]))
logs = st.lists(request | action, max_size=25)


def rows_of(log: list[Any]) -> Rows:
    """Return the rows of requests (user, ts, candidates) and actions (user, item, ts, window) at rising offsets."""
    asked = [(offset, row) for offset, row in enumerate(log) if len(row) == 3]
    acted = [(offset, *row) for offset, row in enumerate(log) if len(row) == 4]
    candidates = [candidate for _, row in asked for candidate in row[2]]
    return Rows(
        np.array([(offset, row[0], row[1], len(row[2])) for offset, row in asked], np.int64).reshape(-1, 4),
        np.array([item for item, _ in candidates], np.int64),
        np.array([(score / 4, 1 - score / 4) for _, score in candidates], float).reshape(-1, 2),
        np.array(acted, np.int64).reshape(-1, 5),
    )


def is_relevant(log: list[Any], offset: int, item: int) -> bool:
    """Return whether a request's user acted on an item behind it, within the window after its time."""
    user, ts, _ = log[offset]
    return any(
        len(row) == 4 and row[:2] == (user, item) and 0 <= row[2] - ts <= row[3] and later > offset
        for later, row in enumerate(log)
    )


@settings(deadline=None)
@given(logs, st.integers(0, 60))
def test_figures_are_those_of_plain_loops(log: list[Any], now_ms: int) -> None:
    """Every figure, of the final order, must be that of a loop over requests, ties in the request's order."""
    found = rankings_of(kept(rows_of(log)), None, np.zeros((0, 4), np.int64), now_ms, WINDOW_MS)
    asked = [(offset, row) for offset, row in enumerate(log) if len(row) == 3]
    if found is None:
        assert not asked
        return
    closed = [(offset, row) for offset, row in asked if row[1] + WINDOW_MS < now_ms]
    assert (found.requests, found.waiting) == (len(closed), len(asked) - len(closed))
    gains: dict[int, list[float]] = {5: [], 10: []}
    ranks, first, everything = [], set(), set()
    for offset, row in closed:
        order = [row[2][place][0] for place in sorted(range(len(row[2])), key=lambda place: -row[2][place][1])]
        hits = [is_relevant(log, offset, item) for item in order]
        first.update(order[:10])
        everything.update(order)
        if any(hits):
            ranks.append(hits.index(True))
            for depth, sums in gains.items():
                gain = sum(hit / log2(place + 2) for place, hit in enumerate(hits[:depth]))
                sums.append(gain / sum(1 / log2(place + 2) for place in range(min(depth, sum(hits)))))
    final = found.figures["final"]
    assert found.relevant == len(ranks)
    expected = [
        mean(gains[5]),
        mean(gains[10]),
        mean([1 / (rank + 1) for rank in ranks]),
        mean([float(rank < 10) for rank in ranks]),
        len(first) / len(everything) if everything else None,
    ]
    assert list(final[:5]) == [value if value is None else pytest.approx(value) for value in expected]


def mean(values: list[float]) -> float | None:
    """Return the mean, None of nothing."""
    return sum(values) / len(values) if values else None


def test_one_request_by_hand() -> None:
    """Of seven candidates by falling score, the second and the sixth were clicked: nDCG, MRR and hits as on paper."""
    seven = [(number, 7 - number) for number in range(7)]
    log = [(1, 100, seven), (1, 1, 105, 10), (1, 5, 110, 10), (1, 6, 111, 10), (2, 0, 105, 10)]
    final = found(kept(rows_of(log))).figures["final"]
    best = 1 / log2(2) + 1 / log2(3)
    assert final.ndcg_5 == pytest.approx((1 / log2(3)) / best)
    assert final.ndcg_10 == pytest.approx((1 / log2(3) + 1 / log2(7)) / best)
    assert (final.mrr, final.hit_rate, final.coverage) == (0.5, 1.0, 1.0)
    assert relevance(rows_of(log), np.zeros(7, np.int64)).tolist() == [number in (1, 5) for number in range(7)]


def test_the_item_rate_and_novelty_see_what_came_before_the_request() -> None:
    """Labels that became final after a request, and impressions behind it, must not count for it."""
    shown = np.array([[0, 1, 7, 0], [1, 1, 8, 0], [2, 1, 8, 0], [9, 1, 7, 0]], np.int64)
    known = Known(
        np.array([1, 0, 1], np.uint8),
        np.zeros((3, 3)),
        shown[:3, 1],
        shown[:3, 2],
        np.zeros(3, np.int64),
        shown[:3, 0],
        np.array([3, 3, 8], np.int64),
    )
    candidates = [(8, 0), (7, 0), (6, 0)]
    rows = rows_of([*[(0, 0, 0, 1)] * 5, (0, 10, candidates)])
    found = rankings_of(kept(rows), known, shown, 1_000, 10)
    novelty = [-np.log2((n + 1) / 4) for n in (2, 1, 0)]
    assert found.figures["item rate"].novelty == pytest.approx(np.mean(novelty))
    # at offset 5: item 7 has 1 of 1, item 8 has 0 of 1, item 6 nothing: it has the overall rate
    clicked = rows._replace(acted=np.array([[6, 0, 7, 12, 10]], np.int64))
    assert rankings_of(kept(clicked), known, shown, 1_000, 10).figures["item rate"].mrr == 1.0
    other = rows._replace(acted=np.array([[6, 0, 8, 12, 10]], np.int64))
    assert rankings_of(kept(other), known, shown, 1_000, 10).figures["item rate"].mrr == pytest.approx(1 / 3)
    assert rankings_of(kept(other), known, shown, 1_000, 10).figures["as requested"].mrr == 1.0
    assert PRIOR_EXPOSURES == 20.0


def records() -> list[LogRecord]:
    """Return a log in which every fifth event is a request, whose user then clicks on the third candidate."""
    lines = []
    for number in range(60):
        at = START_MS + number * 60_000
        user = f"u{number % 3}"
        items = [f"v{(number + step) % 8}" for step in range(6)]
        lines.append(encode_event(Request(f"r{number}", user, items, at, {})))
        lines.append(encode_event(Impression(f"{number}", user, items[2], at, {})))
        if number % 2:
            lines.append(encode_event(Feedback.of(f"{number}:c", f"{number}", user, items[2], at + 5_000, "click")))
    return [LogRecord(offset, line) for offset, line in enumerate(lines)]


def replayed(batch: int, crash_at: int = 0) -> tuple[Partition, Tally]:
    """Return a partition and its tally behind the log, restored from a snapshot at one place where asked for."""
    tally = Tally()
    partition = Partition(small(), tally=tally)
    for first in range(0, len(records()), batch):
        if crash_at and first >= crash_at:
            tally = Tally.restored(tally.snapshot())
            partition = Partition(small(), arrays=partition.snapshot(), tally=tally)
            crash_at = 0
        partition.process(records()[first : first + batch])
    return partition, tally


def rankings(partition: Partition, tally: Tally) -> Rankings:
    """Return the figures of the summary."""
    found = summarize(partition, tally, events_now=0, seconds=0.0).rankings
    assert found is not None
    return found


def test_a_replay_has_the_figures_however_it_was_cut_and_resumed() -> None:
    """Batches, and a checkpoint in the middle, must not show; half of the closed requests have a click."""
    whole = rankings(*replayed(1_000))
    assert whole == rankings(*replayed(7)) == rankings(*replayed(10, crash_at=70))
    assert whole.requests + whole.waiting == 60
    assert whole.waiting == 12  # a window takes ten minutes, and two of three users move time
    assert whole.relevant == 48  # a user comes back within the window, to items that were candidates before
    assert whole.figures["as requested"].hit_rate == 1.0
    assert set(whole.figures) == {"final", "model", "item rate", "as requested"}
    table = ranking_rows(whole)
    assert [row[0] for row in table] == [
        *("requests", "nDCG@5", "nDCG@10", "MRR", "hit rate@10", "coverage@10", "novelty@10"),
    ]
    assert table[4][1] == "1.00000"
    assert "item rate 1.00000" in table[4][2]


def test_without_requests_there_are_no_figures() -> None:
    """A log of impressions has neither rows nor arrays of requests in its checkpoints."""
    tally = Tally()
    partition = Partition(small(), tally=tally)
    partition.process([record for record in records() if b'"request"' not in (record.value or b"")])
    assert summarize(partition, tally, events_now=0, seconds=0.0).rankings is None
    assert not any(name.startswith("asked") for name in tally.snapshot())


def test_candidates_beyond_the_limit_are_not_kept() -> None:
    """At the limit later requests are left out whole; what is kept stays as it was."""
    tally = AskedTally(limit=7)
    rows = rows_of([(1, 5, [(1, 1), (2, 2), (3, 3)])])
    for _ in range(4):
        tally.add_rows(rows)
    rows = tally.rows()
    assert rows is not None
    assert len(rows.items) == 6
    assert tally.left_out == 2
    resumed = AskedTally(limit=7)
    resumed.restore(tally.snapshot())
    resumed.add_rows(rows_of([(9, 5, [(4, 1)])]))
    assert (resumed.left_out, len(resumed.rows() or ())) == (3, 4)
    told = ranking_rows(found(tally))[0][2]
    assert "2 later ones are in no figure" in told
    with pytest.raises(ValueError, match="of another form"):
        AskedTally().restore({"asked_items": rows.items})

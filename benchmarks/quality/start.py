"""The first two hours of Globo in pieces of ten minutes: a fold that knows nothing yet.

Beside it are Vowpal Wabbit, which learns from the same examples, and the mean score beside the mean label. Feedback
comes late: nothing is known of any outcome in the first piece.
"""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from sklearn.metrics import log_loss

from benchmarks.quality.peers import vowpal_wabbit
from benchmarks.quality.replays import Array, replayed
from benchmarks.quality.tables import Options, number, told
from benchmarks.real_logs import RealLog, time_of

DELAYS_MS = (120_000, 590_000)
LOG = "Globo"
PIECE_MS = 600_000
PIECES = 12
BEHIND_MS = 1_200_000  # so much more of the log is taken, so that the last piece has its feedback
HEADER = (
    "| minutes | impressions | Thalweg, logloss | Vowpal Wabbit, logloss | mean label | Thalweg, mean score |"
    "\n|---|---|---|---|---|---|"
)


class Beginning(NamedTuple):
    """The impressions of a log's beginning, in its order: when, label, and the scores of both."""

    ts_ms: Array
    labels: Array
    scores: Array
    peer: Array


def tables(options: Options) -> str:
    """Return a table for each delay."""
    return "\n".join(
        line for ms in DELAYS_MS for log in options.logs(ms) if log.name == LOG for line in in_pieces(log, ms)
    )


def in_pieces(log: RealLog, delay_ms: int) -> list[str]:
    """Return a log's table, ten minutes a line."""
    found = beginning_of(log)
    rows = []
    for piece in range(PIECES):
        first = found.ts_ms[0] + piece * PIECE_MS
        within = (found.ts_ms >= first) & (found.ts_ms < first + PIECE_MS)
        labels, scores, peer = (part[within] for part in (found.labels, found.scores, found.peer))
        losses = (number(float(log_loss(labels, each, labels=[0, 1]))) for each in (scores, peer))
        means = (number(float(each.mean()), 3) for each in (labels, scores))
        cells = (f"{10 * piece} to {10 * (piece + 1)}", str(len(labels)), *losses, *means)
        rows.append(told(" | ".join(cells)))
    return [f"### {log.name}, feedback after {delay_ms // 1_000} s", "", HEADER, *rows, ""]


def beginning_of(log: RealLog) -> Beginning:
    """Replay a log's first two hours, to the end of their windows."""
    records = log.records()
    end_ms = time_of(records[0]) + PIECES * PIECE_MS + BEHIND_MS
    taken = records[: bisect_left(records, end_ms, key=time_of)]  # they are in the order of time
    run = replayed(log, taken, keep=True)
    peer = vowpal_wabbit(log, taken, run, "")
    return Beginning(np.array([ts for _, ts in peer.moments]), run.labels, run.scores, peer.scores)

"""A learner that is frozen half way, and what the error memory brings back of what that costs."""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.columns import Kind
from thalweg.operators.fold.state import new_state
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Tally

from benchmarks.quality.replays import BLOCK, Array
from benchmarks.quality.tables import Options, number, said, told
from benchmarks.real_logs import RealLog

FINAL, MODEL = range(2)
HEADER = "| | AUC / logloss | of the AUC lost by freezing | of the way to learning on, corrected |\n|---|---|---|---|"
SETTINGS: list[tuple[str, list[str]]] = [
    ("frozen, corrected", []),
    ("the same, gamma 1, as the paper", ["error_memory.gamma=1"]),
    ("the same, no crosses with user or item", ["error_memory.crosses=[]"]),
    ("the same, item crosses only", ['error_memory.crosses=["item"]']),
    ("the same, half-life of 8 000 impressions", ["error_memory.half_life_impressions=8000"]),
]


class Half(NamedTuple):
    """Where the second half of a log begins: `ts_ms`, and how many impressions come before."""

    ts_ms: int
    before: int


def tables(options: Options) -> str:
    """Return a table for each log, over the impressions of its second half."""
    return "\n".join(line for log in options.logs() for line in on(log))


def on(log: RealLog) -> list[str]:
    """Return the table of one log: the learner that goes on, frozen, and frozen and corrected in several ways."""
    records = log.records()
    half = half_of(log, records)
    labels, scores = second_half(log, records, half, [])
    learned, going_on = roc_auc_score(labels, scores[:, MODEL]), roc_auc_score(labels, scores[:, FINAL])
    rows = [
        told(f"learning on | {pair(labels, scores[:, MODEL])} | 100% | "),
        told(f"learning on, corrected | {pair(labels, scores[:, FINAL])} | | 100%"),
    ]
    frozen = [f"learner.frozen_from_ms={half.ts_ms}"]
    for name, flags in SETTINGS:
        labels, scores = second_half(log, records, half, [*frozen, *flags])
        lowest = roc_auc_score(labels, scores[:, MODEL])
        if not flags:
            rows.append(told(f"frozen | {pair(labels, scores[:, MODEL])} | 0% | 0%"))
        gained = roc_auc_score(labels, scores[:, FINAL]) - lowest
        shares = f"{gained / (learned - lowest):.1%} | {gained / (going_on - lowest):.1%}"
        rows.append(told(f"{name} {said(flags)} | {pair(labels, scores[:, FINAL])} | {shares}"))
    return [f"### {log.name}, second half, from {half.ts_ms} on", "", HEADER, *rows, ""]


def half_of(log: RealLog, records: list[LogRecord]) -> Half:
    """Return where the second half of the impressions begins."""
    configuration = log.configuration()
    columnizer = Columnizer(configuration, new_state(configuration).names, 0, 0)
    blocks = [columnizer.columns(records[first : first + BLOCK]).columns for first in range(0, len(records), BLOCK)]
    times = np.concatenate([block.ts_ms[block.kind == Kind.IMPRESSION] for block in blocks])
    middle = int(times[len(times) // 2])
    return Half(middle, int(np.count_nonzero(times < middle)))


def second_half(log: RealLog, records: list[LogRecord], half: Half, flags: list[str]) -> tuple[Array, Array]:
    """Return labels and scores (final, model) of the impressions of the second half, in the order of closing."""
    tally = Tally()
    partition = Partition(log.configuration(*flags), block_events=BLOCK, examples=False, tally=tally)
    for first in range(0, len(records), BLOCK):
        partition.process(records[first : first + BLOCK])
    partition.close_all()
    labels, scores = tally.arrays()
    return labels[half.before :], scores[half.before :]


def pair(labels: Array, scores: Array) -> str:
    """Return AUC / logloss as the tables have it."""
    return f"{number(float(roc_auc_score(labels, scores)))} / {number(float(log_loss(labels, scores)))}"

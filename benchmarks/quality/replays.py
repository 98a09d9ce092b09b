"""A log replayed from an empty state, and how good its scores were.

Every impression is scored when it arrives, and the score counts as it was given. Figures are exact and repeat bit for
bit; nothing here is timed.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.operators.fold.state import State
from thalweg.schemas.origin import parse_cause
from thalweg.schemas.outputs import Example
from thalweg.schemas.records import LogRecord, Output
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Tally

from benchmarks.real_logs import RealLog
from benchmarks.vowpal_wabbit import Lines

BLOCK = 10_000

Array = npt.NDArray[Any]
Moment = tuple[str, int]
"""A user and a time: what is shown to one user at one time is one page."""


class Figures(NamedTuple):
    """Quality over all impressions, and over the first that each user was shown at a time."""

    auc: float
    log_loss: float
    first_auc: float
    first_log_loss: float
    calibration: float


class Run(NamedTuple):
    """What a replay gave: figures over `labels` and `scores` [impressions], in the order of the log, the examples (id,
    cause offset, label), each impression's line for a peer by id, and the state that was left.
    """

    figures: Figures
    labels: Array
    scores: Array
    examples: list[tuple[str, int, int]]
    lines: dict[str, str]
    state: State


class _Scored(msgspec.Struct, gc=False):
    id: str
    user: str
    ts: int
    score: float


_scored = msgspec.json.Decoder(_Scored).decode
_example = msgspec.json.Decoder(Example).decode


def figures(labels: Array, scores: Array, moments: Sequence[Moment]) -> Figures:
    """Return the figures of scores in the order of the log."""
    first = np.array([True, *(one != other for one, other in pairwise(moments))])
    return Figures(
        float(roc_auc_score(labels, scores)),
        float(log_loss(labels, scores)),
        float(roc_auc_score(labels[first], scores[first])),
        float(log_loss(labels[first], scores[first])),
        float(scores.mean() / labels.mean()),
    )


def replayed(log: RealLog, records: Sequence[LogRecord], flags: Sequence[str] = (), *, keep: bool = False) -> Run:
    """Replay a log to the end of its windows; with `keep`, keep what a peer learns from."""
    configuration = log.configuration(*flags)
    lines = Lines(configuration)
    partition = Partition(configuration, block_events=BLOCK, tally=Tally())
    ids: list[str] = []
    scores: list[float] = []
    moments: list[Moment] = []
    labels: dict[str, int] = {}
    examples: list[tuple[str, int, int]] = []
    seen: dict[str, str] = {}

    def take(outputs: Iterable[Output]) -> None:
        for output in outputs:
            example = _example(output.value or b"")
            if example.revision:
                continue
            labels[example.id] = example.label
            if keep:
                context = {name: value for name, value in example.features.items() if name in _fields(partition)}
                seen[example.id] = lines.line(example.user, example.item, example.ts, context)
                examples.append((example.id, parse_cause(example.cause)[1].offset, example.label))

    for first in range(0, len(records), BLOCK):
        outputs = partition.process(records[first : first + BLOCK])
        for output in outputs.scores:
            scored = _scored(output.value or b"")
            ids.append(scored.id)
            scores.append(scored.score)
            moments.append((scored.user, scored.ts))
        take(outputs.examples)
    take(partition.close_all().examples)
    found = np.array([labels[one] for one in ids])  # KeyError: closed unlearned, joiner.waiting_limit is too low
    given = np.array(scores)
    return Run(figures(found, given, moments), found, given, examples, seen, partition.state)


def _fields(partition: Partition) -> set[str]:
    return set(partition._names) - {"user", "item"}

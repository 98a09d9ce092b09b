"""Made-up logs whose true probabilities are known, and the scores that a replay gives them."""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from thalweg.schemas.records import LogRecord
from thalweg.streams.configuration.loading import load
from thalweg.streams.logs.generate import Generator, Stream
from thalweg.streams.partition.partition import Partition

from benchmarks.quality.replays import BLOCK, Array


class Made(NamedTuple):
    """A log's records, and of its impressions the true probabilities float64 [impressions]."""

    records: list[LogRecord]
    truths: Array


class _Truth(msgspec.Struct):
    probability: float


class _Score(msgspec.Struct):
    score: float


def made(stream: Stream) -> Made:
    """Make a log."""
    lines, truths = [], []
    for log, truth in Generator(stream).blocks():
        lines += log.splitlines()
        truths += [msgspec.json.decode(line, type=_Truth).probability for line in truth.splitlines()]
    return Made([LogRecord(number, line) for number, line in enumerate(lines)], np.array(truths))


def scores_of(log: Made, flags: Sequence[str]) -> Array:
    """Return the scores of a replay at the defaults with `flags` over them, float64 [impressions]."""
    partition = Partition(load(None, environment={}, flags=flags).configuration, block_events=BLOCK, examples=False)
    scores: list[float] = []
    for first in range(0, len(log.records), BLOCK):
        outputs = partition.process(log.records[first : first + BLOCK]).scores
        scores += [msgspec.json.decode(output.value or b"", type=_Score).score for output in outputs]
    return np.array(scores)


def regrets_of(truths: Array, scores: Array) -> Array:
    """Return the regret of each score: the logloss to be expected under the truth, less what the truth would have.

    >>> regrets_of(np.array([0.5, 0.9]), np.array([0.5, 0.5])).round(4).tolist()
    [0.0, 0.3681]
    """
    p, q = truths, scores
    found: Array = p * np.log(p / q) + (1.0 - p) * np.log((1.0 - p) / (1.0 - q))
    return found

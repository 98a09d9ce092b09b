"""Whether the fold agrees with its specification: shared by the comparison and by the planted bugs."""

import json
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.contexts import field_names
from thalweg.operators.fold.state import new_state
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.partition.partition import Partition

from tests.fold.configurations import configurations
from tests.fold.plain.fold import Plain


class Outcome(NamedTuple):
    """(model score, score) of each impression, and (label, revision) of each example."""

    scores: npt.NDArray[np.float64]
    labels: list[tuple[int, int]]


def of_the_fold(records: list[LogRecord], name: str) -> Outcome:
    """Return what the fold makes of a log, read from its outputs."""
    return outcome_of(Partition(configurations()[name]).process(records))


def outcome_of(outputs: Outputs) -> Outcome:
    """Return what outputs state."""
    scores = [json.loads(output.value or b"") for output in outputs.scores]
    examples = [json.loads(output.value or b"") for output in outputs.examples]
    labels = [(example["label"], example.get("revision", 0)) for example in examples]
    pairs = [(score["model_score"], score["score"]) for score in scores]
    return Outcome(np.array(pairs).reshape(-1, 2), labels)


def of_the_specification(records: list[LogRecord], name: str) -> Outcome:
    """Return what the specification makes of a log."""
    configuration = configurations()[name]
    names = new_state(configuration).names
    columns = Columnizer(configuration, names, 0, 0).columns(records).columns
    plain = Plain(configuration, field_names(names))
    plain.run(columns)
    return Outcome(np.array(plain.scored), plain.labels)


def apart(found: Outcome, expected: Outcome) -> npt.NDArray[np.float64]:
    """Return how far the scores are apart, relative to them, [impressions, 2]; other labels or counts are an error."""
    assert found.scores.shape == expected.scores.shape
    assert found.labels == expected.labels
    difference: npt.NDArray[np.float64] = np.abs(found.scores / expected.scores - 1.0)
    return difference

"""Whether the fold agrees with its specification: shared by the comparison and by the planted bugs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt
from thalweg.operators.edges.columnizer import Block, Columnizer
from thalweg.operators.edges.contexts import field_names
from thalweg.operators.edges.requests import impressions_of
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.state import new_state
from thalweg.schemas.events import Request
from thalweg.schemas.records import LogRecord, Outputs, no_outputs
from thalweg.streams.partition.lessons import LessonBook
from thalweg.streams.partition.partition import Partition

from tests.fold.configurations import configurations
from tests.fold.plain.fold import Plain
from tests.fold.plain.objectives import Several


class Outcome(NamedTuple):
    """(model score, score) of each impression, and (label, revision) of each example; of several objectives all."""

    scores: npt.NDArray[np.float64]
    labels: list[tuple[Any, int]]


def of_the_fold(records: list[LogRecord], name: str) -> Outcome:
    """Return what the fold makes of a log, read from its outputs."""
    return outcome_of(Partition(configurations()[name]).process(records))


def outcome_of(outputs: Outputs) -> Outcome:
    """Return what outputs state."""
    scores = [json.loads(output.value or b"") for output in outputs.scores]
    examples = [json.loads(output.value or b"") for output in outputs.examples]
    labels = [(example.get("labels", example["label"]), example.get("revision", 0)) for example in examples]
    rows = [(score["model_score"], score["score"], *score.get("scores", {}).values()) for score in scores]
    return Outcome(np.array(rows).reshape(-1, len(rows[0]) if rows else 2), labels)


def shown_by_the_fold(records: list[LogRecord], name: str) -> Outcome:
    """Return what the fold makes of a log, with the scores of what requests show in their places."""
    outputs = Partition(configurations()[name]).process(records)
    events = [json.loads(record.value or b"") for record in records]
    scores = {output.cause.offset: [json.loads(output.value or b"")] for output in outputs.scores}
    for output in outputs.rankings:
        count = events[output.cause.offset].get("shown", 0)
        scores[output.cause.offset] = json.loads(output.value or b"")["items"][:count]
    pairs = [(score["model_score"], score["score"]) for _, each in sorted(scores.items()) for score in each]
    return Outcome(np.array(pairs), outcome_of(outputs).labels)


def of_the_specification(records: list[LogRecord], name: str) -> Outcome:
    """Return what the specification makes of a log."""
    configuration = configurations()[name]
    names = new_state(configuration).names
    columnizer = Columnizer(configuration, names, 0, 0)
    block = columnizer.columns(records)
    plain = (Several if configuration.objectives.heads else Plain)(configuration, field_names(names))
    plain.run(block.columns, dict(candidates_of(block, columnizer)))
    return Outcome(np.array(plain.scored), plain.labels)


def candidates_of(block: Block, columnizer: Columnizer) -> Iterator[tuple[int, Columns]]:
    """Yield the candidates of each request of a block as impressions, by the request's number."""
    for number, asked in block.asked.items():
        request = msgspec.structs.replace(cast("Request", block.events[number]), shown=None)
        impressions = impressions_of(request, asked, np.arange(len(asked.items)))
        yield number, columnizer.shown(block.records[number].offset, impressions)


def taught(
    teacher: list[LogRecord], learner: list[LogRecord], name: str, at: int, **more: Any
) -> tuple[Outcome, Outcome]:
    """Return what the fold and its specification make of the learner's log, with the teacher's lessons before `at`."""
    configuration = configurations()[name]
    configuration = replace(configuration, lessons=replace(configuration.lessons, enabled=True, **more))
    book = LessonBook()
    made = Partition(configuration, partition=1, lessons=book).process(teacher)
    book.add(output.value or b"" for output in made.lessons)
    fold = Partition(configuration, lessons=book)
    first, last = book.last(1) // 2, book.last(1)
    outputs = [fold.process(learner[:at])]
    fold.merge({1: first})
    fold.merge({1: last})
    outputs.append(fold.process(learner[at:]))
    whole = no_outputs()
    for each in outputs:
        whole.scores.extend(each.scores)
        whole.examples.extend(each.examples)
    names = new_state(configuration).names
    columnizer = Columnizer(configuration, names, 0, 0)
    theirs = columnizer.columns(teacher).columns
    ours = [columnizer.columns(part).columns for part in (learner[:at], learner[at:])]
    plains = [Plain(configuration, field_names(names)) for _ in range(2)]
    plains[0].run(theirs)
    assert len(plains[0].lessons) == last
    plains[1].run(ours[0])
    plains[1].merge(plains[0].lessons)
    plains[1].run(ours[1])
    return outcome_of(whole), Outcome(np.array(plains[1].scored), plains[1].labels)


def apart(found: Outcome, expected: Outcome) -> npt.NDArray[np.float64]:
    """Return how far the scores are apart, relative to them, [impressions, 2]; other labels or counts are an error."""
    assert found.scores.shape == expected.scores.shape
    assert found.labels == expected.labels
    difference: npt.NDArray[np.float64] = np.abs(found.scores / expected.scores - 1.0)
    return difference

"""The compiled fold scores as its specification does: the plain implementation in `plain/`, and `docs/model.md`."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.contexts import field_names
from thalweg.operators.fold.state import new_state
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.fold.configurations import configurations
from tests.fold.logs import LOGS
from tests.fold.plain.fold import Plain

LAST, MEDIAN = 1e-4, 1e-5


def compiled_scores(records: list[LogRecord], name: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Return (model score, score) of each impression, and (label, revision) of each example."""
    outputs = Partition(configurations()[name]).process(records)
    scores = [json.loads(output.value or b"") for output in outputs.scores]
    examples = [json.loads(output.value or b"") for output in outputs.examples]
    labels = [(example["label"], example.get("revision", 0)) for example in examples]
    return np.array([(score["model_score"], score["score"]) for score in scores]), labels


def plain_fold(records: list[LogRecord], name: str) -> Plain:
    """Return the specification's fold over a log."""
    configuration = configurations()[name]
    names = new_state(configuration).names
    columns = Columnizer(configuration, names, 0, 0).columns(records).columns
    plain = Plain(configuration, field_names(names))
    plain.run(columns)
    return plain


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("name", configurations())
def test_the_fold_scores_as_its_specification_does(log: str, name: str) -> None:
    """3 000 events: the last score agrees to 1e-4 of itself, the median one to 1e-5; labels are the same."""
    records = LOGS[log]()
    expected, labels = compiled_scores(records, name)
    plain = plain_fold(records, name)
    found = np.array(plain.scored)
    assert found.shape == expected.shape
    assert plain.labels == labels
    relative = np.abs(found / expected - 1.0)
    assert relative[-1].max() <= LAST, relative[-1]
    assert np.median(relative, axis=0).max() <= MEDIAN, np.median(relative, axis=0)


def test_the_specification_stays_short_enough_to_be_read() -> None:
    """At most 600 lines of code in all, blank lines and docstrings aside."""
    lines = 0
    for path in sorted((Path(__file__).parent / "plain").glob("*.py")):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = [
            node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
        ]
        within = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or 0) + 1)}
        texts = enumerate(path.read_text().splitlines(), 1)
        lines += sum(bool(text.strip()) and number not in within for number, text in texts)
    assert lines <= 600

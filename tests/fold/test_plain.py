"""The compiled fold scores as its specification does: the plain implementation in `plain/`, and `docs/model.md`."""

import ast
from pathlib import Path

import numpy as np
import pytest

from tests.fold.agreement import apart, of_the_fold, of_the_specification, shown_by_the_fold, taught
from tests.fold.configurations import configurations
from tests.fold.logs import LOGS, showing
from tests.soak import sized

LAST, MEDIAN = 1e-4, 1e-5
WHOLE = 3_000
EVENTS = sized(450, WHOLE)


@pytest.mark.long
@pytest.mark.soak(EVENTS, WHOLE, "events")
@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("name", configurations())
def test_the_fold_scores_as_its_specification_does(log: str, name: str) -> None:
    """Over 3 000 events the last score agrees to 1e-4 of itself, the median one to 1e-5; labels are the same."""
    records = LOGS[log](EVENTS)
    difference = apart(of_the_fold(records, name), of_the_specification(records, name))
    assert difference[-1].max() <= LAST, difference[-1]
    assert np.median(difference, axis=0).max() <= MEDIAN, np.median(difference, axis=0)


@pytest.mark.parametrize("name", ["shipped", "any context"])
def test_what_requests_show_is_scored_and_learned_as_specified(name: str) -> None:
    """The same candidates come first, wait and are learned from; with their scores in place, all scores agree."""
    records = showing(250)
    difference = apart(shown_by_the_fold(records, name), of_the_specification(records, name))
    assert difference[-1].max() <= LAST, difference[-1]
    assert np.median(difference, axis=0).max() <= MEDIAN, np.median(difference, axis=0)


@pytest.mark.parametrize(
    ("name", "more"),
    [("shipped", {}), ("any context", {}), ("own scores", {}), ("admission", {}), ("shipped", {"negative_rate": 0.25})],
)
def test_lessons_are_learned_as_specified(name: str, more: dict[str, float]) -> None:
    """Scores behind another partition's lessons agree with the specification, which rounds to halves as they do."""
    log = LOGS["generated"](900)
    ours = [*log[:30], *log[300:450]]  # which bring the fields in the same order
    found, expected = taught(log[:300], ours, name, 90, **more)
    difference = apart(found, expected)
    assert np.median(difference, axis=0).max() <= MEDIAN, np.median(difference, axis=0)
    assert np.quantile(difference, 0.95, axis=0).max() <= LAST, np.quantile(difference, 0.95, axis=0)


LINES_MAX = {"one objective": 1_110, "several": 310}


def test_the_specification_stays_short_enough_to_be_read() -> None:
    """Lines of code, blank lines and docstrings aside; what only several objectives need is a file of its own."""
    lines = dict.fromkeys(LINES_MAX, 0)
    for path in sorted((Path(__file__).parent / "plain").glob("*.py")):
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docstrings = [
            node.body[0] for node in ast.walk(tree) if isinstance(node, documented) and ast.get_docstring(node)
        ]
        within = {line for node in docstrings for line in range(node.lineno, (node.end_lineno or 0) + 1)}
        texts = enumerate(path.read_text().splitlines(), 1)
        of_it = "several" if path.stem == "objectives" else "one objective"
        lines[of_it] += sum(bool(text.strip()) and number not in within for number, text in texts)
    assert all(lines[of_it] <= most for of_it, most in LINES_MAX.items()), lines

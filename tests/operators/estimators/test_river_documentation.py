"""The page on River is run: its examples as doctests, and each row of its table."""

import doctest
import re
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from river import linear_model, metrics, preprocessing, tree
from river.datasets import synth
from thalweg.operators.estimators import ErrorMemory

from tests.soak import SOAK

PAGE = Path(__file__).parents[3] / "docs" / "river.md"
ROW = re.compile(r"^\| `(\w+)` \| `(\w+)` \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))
RUN = ROWS if SOAK else [row for row in ROWS if "SEA" in row or "LogisticRegression" in row]
"""The rows of this run: trees take three times as long, and one of them is in each."""

STREAMS: dict[str, tuple[Any, Any]] = {
    "SEA": (synth.SEA(seed=1, variant=0, noise=0.1), synth.SEA(seed=1, variant=2, noise=0.1)),
    "Sine": (synth.Sine(seed=1, classification_function=0), synth.Sine(seed=1, classification_function=1)),
    "Mixed": (synth.Mixed(seed=1, classification_function=0), synth.Mixed(seed=1, classification_function=1)),
    "Agrawal": (synth.Agrawal(seed=1, classification_function=4), synth.Agrawal(seed=1, classification_function=6)),
}
MODELS: dict[str, Any] = {
    "LogisticRegression": linear_model.LogisticRegression(),
    "HoeffdingAdaptiveTreeClassifier": tree.HoeffdingAdaptiveTreeClassifier(seed=1),
}


def log_losses(model: Any, stream: str) -> list[float]:
    """Log loss before and after the drift."""
    pipeline = preprocessing.StandardScaler() | model
    parts = metrics.LogLoss(), metrics.LogLoss()
    for number, (x, y) in enumerate(chain.from_iterable(part.take(5_000) for part in STREAMS[stream])):
        parts[number // 5_000].update(y, pipeline.predict_proba_one(x))
        pipeline.learn_one(x, y)
    return [part.get() for part in parts]


def test_the_examples_run() -> None:
    """Each line of the page's examples must give what the page shows."""
    assert doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8").failed == 0


@pytest.mark.soak(len(RUN), len(ROWS), "rows of the table")
@pytest.mark.parametrize("row", RUN, ids=lambda row: "-".join(row[:2]))
def test_the_table_is_true(row: tuple[str, ...]) -> None:
    """Each figure of the table must be what a run gives, and the memory must win on either side of the drift."""
    stream, model, *figures = row
    before, before_with, after, after_with = map(float, figures)
    assert log_losses(MODELS[model].clone(), stream) == pytest.approx([before, after], abs=0.001)
    assert log_losses(ErrorMemory(MODELS[model].clone()), stream) == pytest.approx([before_with, after_with], abs=0.001)
    assert before_with < before
    assert after_with < after


def test_the_table_has_every_row() -> None:
    """A row that the pattern misses would go unchecked."""
    assert len(ROWS) == len(STREAMS) * len(MODELS)

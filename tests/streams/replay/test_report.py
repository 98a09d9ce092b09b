"""The page of a replay: in one file, the same for the same replay, and right in its stretches."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.streams.commands import main
from thalweg.streams.partition.tally import Curve
from thalweg.streams.replay.report import Part, over_time, parts, reliability, svg

from tests.streams.logs_for_tests import SAMPLE, sample

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


def test_a_page_is_written_in_one_file(tmp_path: Path) -> None:
    """The page must hold the table and the plots, name no other file, and be the same for the same scores."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join((record.value or b"") + b"\n" for record in sample(2_000)))
    pages = []
    for number in range(2):
        page = tmp_path / f"{number}.html"
        options = ["--out", str(tmp_path / "s.jsonl"), "--report", str(page)]
        result = CliRunner().invoke(main, ["replay", str(log), *options, "--set", "table.rows_limit=4096"])
        assert result.exit_code == 0, result.output
        pages.append(page.read_text())
    assert pages[0].count("<svg") == pages[0].count("<figcaption>") == 4
    assert '<meta name="viewport" content="width=device-width' in pages[0]
    assert "src=" not in pages[0]
    assert "<td>dead_lettered" in pages[0].replace("<td>  ", "<td>")
    assert pages[0].split("<h2>")[1:5] == pages[1].split("<h2>")[1:5]
    assert SAMPLE.exists()


def test_stretches_have_their_own_figures() -> None:
    """Each stretch must have the AUC and log loss of its labels alone, and no score that it has not."""
    random = np.random.default_rng(1)
    scores, labels = random.random((40_000, 3)), random.integers(0, 2, 40_000).astype(np.uint8)
    scores[:, 2] = np.nan
    curve = Curve()
    for first in range(0, 40_000, 900):
        whole = slice(first, first + 900)
        curve.add(labels[whole], scores[whole], np.arange(40_000)[whole])
    found = parts(curve)
    assert [part.end_ms for part in found] == list(range(999, 40_000, 1_000))
    assert found[1].auc[0] == pytest.approx(roc_auc_score(labels[1_000:2_000], scores[1_000:2_000, 0]))
    assert found[1].log_loss[1] == pytest.approx(log_loss(labels[1_000:2_000], scores[1_000:2_000, 1]))
    assert found[1].auc[2] is None


@pytest.mark.parametrize("count", [40, 500, 3_000])
@pytest.mark.parametrize("block", [1, 3_000])
def test_curves_have_enough_points(count: int, block: int) -> None:
    """Of any log and whatever the blocks, a curve must have at least 30 points, the last one at the last label."""
    curve = Curve()
    labels = (np.arange(count) % 2).astype(np.uint8)
    for first in range(0, count, block):
        last = min(first + block, count)
        curve.add(labels[first:last], np.full((last - first, 3), 0.5), np.arange(first, last))
    found = parts(curve)
    assert sum(part.auc[0] is not None for part in found) >= 30
    assert found[-1].end_ms == count - 1


def test_a_curve_is_bounded() -> None:
    """However many labels there are, a curve must keep few, evenly spaced from the beginning to the end."""
    curve = Curve(limit=100)
    for first in range(0, 10_000, 7):
        whole = np.arange(first, min(first + 7, 10_000))
        curve.add((whole % 2).astype(np.uint8), np.stack((whole, whole, whole), axis=1) / 10_000, whole)
    labels, scores, times_ms = curve.arrays()
    assert 50 <= len(labels) == len(scores) == len(times_ms) <= 100
    assert len(set(np.diff(times_ms).tolist())) == 1
    assert times_ms[0] == 0
    assert times_ms[-1] > 9_700
    assert (scores[:, 0] == times_ms / 10_000).all()


def test_reliability_is_by_tenths() -> None:
    """Each tenth must have its mean score and mean label."""
    mean_scores, mean_labels = reliability(np.repeat([0, 1], 50).astype(np.uint8), np.linspace(0, 1, 100))
    assert len(mean_scores) == 10
    assert mean_labels.tolist() == [0.0] * 5 + [1.0] * 5
    assert mean_scores.tolist() == sorted(mean_scores.tolist())


@pytest.mark.parametrize("seconds", [1, 300, 7_200, 86_400, 2 * 86_400, 3 * 86_400, 14 * 86_400, 500 * 86_400])
def test_stream_time_has_few_marks_whatever_it_spans(seconds: int) -> None:
    """Of any span, a figure must be drawn without a warning, with two to seven marks of time."""
    first_ms = 1_650_000_000_000
    stretches = [Part(first_ms + share * seconds * 250, (0.5,) * 3, (0.7,) * 3) for share in range(5)]
    figure = over_time(stretches, "auc")
    assert svg(figure).startswith("<svg")
    [axis] = figure.axes
    low, high = axis.get_xlim()
    assert 2 <= sum(low <= mark <= high for mark in axis.get_xticks()) <= 7

"""The page of a replay: in one file, the same for the same replay, and right in its stretches."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import log_loss, roc_auc_score
from thalweg.streams.commands import main
from thalweg.streams.partition.tally import KEPT, Tally
from thalweg.streams.replay.report import POINTS_MAX, Course, Point, parts, reliability

from tests.streams.logs_for_tests import SAMPLE, sample

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


def test_a_page_is_written_in_one_file(tmp_path: Path) -> None:
    """The page must hold the table and the plots, name no other file, and be the same for the same scores."""
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join((record.value or b"") + b"\n" for record in sample(4_000)))
    pages = []
    for number in range(2):
        page = tmp_path / f"{number}.html"
        options = ["--out", str(tmp_path / "s.jsonl"), "--report", str(page)]
        result = CliRunner().invoke(main, ["replay", str(log), *options, "--set", "table.rows_limit=4096"])
        assert result.exit_code == 0, result.output
        pages.append(page.read_text())
    assert pages[0].count("<svg") == 3
    assert "src=" not in pages[0]
    assert "<td>dead_lettered" in pages[0].replace("<td>  ", "<td>")
    assert pages[0].split("<h2>")[1:] == pages[1].split("<h2>")[1:]
    assert SAMPLE.exists()


def test_stretches_have_their_own_figures() -> None:
    """Each stretch must have the AUC and log loss of its labels alone, and no score that it has not."""
    random = np.random.default_rng(1)
    scores, labels = random.random((1_000, 5)), random.integers(0, 2, 1_000).astype(np.uint8)
    scores[:, KEPT[2]] = np.nan
    tally, course = Tally(), Course()
    tally.add(labels, scores)
    course.points = [Point(n, n) for n in range(0, 1_001, 50)]
    found = parts(course, tally)
    assert [part.end_ms for part in found] == [200, 400, 600, 800, 1_000]
    assert found[1].auc[0] == pytest.approx(roc_auc_score(labels[200:400], scores[200:400, KEPT[0]]))
    assert found[1].log_loss[1] == pytest.approx(log_loss(labels[200:400], scores[200:400, KEPT[1]]))
    assert found[1].auc[2] is None


def test_a_course_is_bounded() -> None:
    """However many blocks there are, a course must keep few points, from its beginning to its end."""
    from thalweg.streams.partition.partition import Partition

    from tests.streams.logs_for_tests import small

    course, partition, tally = Course(), Partition(small()), Tally()
    for number in range(20 * POINTS_MAX):
        tally.labelled = number
        course.add(partition, tally)
    labelled = [point.labelled for point in course.points]
    assert POINTS_MAX // 2 <= len(labelled) <= POINTS_MAX
    assert labelled[0] < 50
    assert labelled[-1] > 20 * POINTS_MAX - 50
    assert labelled == sorted(labelled)


def test_reliability_is_by_tenths() -> None:
    """Each tenth must have its mean score and mean label."""
    mean_scores, mean_labels = reliability(np.repeat([0, 1], 50).astype(np.uint8), np.linspace(0, 1, 100))
    assert len(mean_scores) == 10
    assert mean_labels.tolist() == [0.0] * 5 + [1.0] * 5
    assert mean_scores.tolist() == sorted(mean_scores.tolist())

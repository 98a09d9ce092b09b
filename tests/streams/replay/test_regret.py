"""Regret: scores of a made-up log against the true probabilities beside it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from thalweg.schemas.records import Cause, Output
from thalweg.streams.commands import main
from thalweg.streams.logs.errors import LogError
from thalweg.streams.replay.regret import Truth

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")

SMALL = [
    *("--set", "table.rows_limit=4096", "--set", "behaviors.users_limit=2048", "--set", "joiner.waiting_limit=1024"),
    *("--set", "sdim.histories_limit=64", "--set", "joiner.text_bytes=1048576"),
]


def truth_of(path: Path, *probabilities: float) -> str:
    lines = [json.dumps({"impression": str(number), "probability": p}) for number, p in enumerate(probabilities)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def scored(*scores: tuple[str, float]) -> list[Output]:
    return [
        Output(Cause(0, 0), json.dumps({"id": id_, "score": score, "model_score": 0.5}).encode(), None)
        for id_, score in scores
    ]


def test_true_scores_have_no_regret_and_others_their_divergence(tmp_path: Path) -> None:
    """Regret must be 0 for the truth and else the mean divergence, impressions without a score passed over."""
    with Truth(truth_of(tmp_path / "t.jsonl", 0.2, 0.9, 0.5, 0.0)) as truth:
        assert truth.regret().regret is None
        truth.add(scored(("0", 0.2), ("2", 0.5)))
        assert truth.regret().regret == pytest.approx(0.0, abs=1e-15)
        truth.add([])
        truth.add(scored(("3", 0.0)))
        assert truth.regret().regret == pytest.approx(0.0, abs=1e-15)
        model = 0.2 * math.log(0.2 / 0.5) + 0.8 * math.log(0.8 / 0.5) + math.log(1 / 0.5)
        assert truth.regret().model_regret == pytest.approx(model / 3, abs=1e-12)
        entropy = -0.2 * math.log(0.2) - 0.8 * math.log(0.8) + math.log(2)
        assert truth.regret().truth_log_loss == pytest.approx(entropy / 3, abs=1e-12)
        assert truth.regret().impressions == 3


def test_a_truth_of_another_log_is_refused(tmp_path: Path) -> None:
    """An impression that the truth does not have, or a line that is none, must be said in one line."""
    with Truth(truth_of(tmp_path / "t.jsonl", 0.2)) as truth, pytest.raises(LogError, match="has no impression '7'"):
        truth.add(scored(("7", 0.5)))
    (tmp_path / "log.jsonl").write_text('{"type":"impression","id":"0"}\n')
    with Truth(str(tmp_path / "log.jsonl")) as truth, pytest.raises(LogError, match="line 1: no true probability"):
        truth.add(scored(("0", 0.5)))


def run(*arguments: str, status: int = 0) -> Result:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == status, result.output
    return result


def test_replay_reports_the_regret_of_a_generated_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The summary must hold the regret of the scores as written; it must fall as the model learns."""
    monkeypatch.chdir(tmp_path)
    options = ("--seed", "3", "--events", "6000", "--users", "60", "--items", "60", "--feedback-delay-ms", "1000")
    run("generate", *options, "--out", "log.jsonl", "--truth", "truth.jsonl.zst")
    run("generate", *options, "--out", "log.jsonl", "--truth", "truth.jsonl")
    for truth in ("truth.jsonl", "truth.jsonl.zst"):
        told = run("replay", "log.jsonl", "--truth", truth, "--summary", "summary.json", *SMALL)
        assert "log loss beyond the truth's own, of 6,000 scores" in " ".join(told.stderr.split())
    summary: dict[str, Any] = json.loads(Path("summary.json").read_bytes())
    probabilities = {line["impression"]: line["probability"] for line in lines("truth.jsonl")}
    scores = lines("log.jsonl.scores.jsonl")
    regrets = [divergence(probabilities[score["id"]], score["score"]) for score in scores]
    assert summary["regret"] == pytest.approx(sum(regrets) / 6_000, rel=1e-9)
    assert summary["regret_impressions"] == 6_000
    assert sum(regrets[3_000:]) < 0.8 * sum(regrets[:3_000])
    wrong = run("replay", "log.jsonl", "--truth", "log.jsonl", *SMALL, status=1)
    assert "Error: log.jsonl, line 1: no true probability" in wrong.stderr
    assert "Error: no.jsonl" in run("replay", "log.jsonl", "--truth", "no.jsonl", *SMALL, status=1).stderr


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def divergence(true: float, score: float) -> float:
    return true * math.log(true / score) + (1 - true) * math.log((1 - true) / (1 - score))

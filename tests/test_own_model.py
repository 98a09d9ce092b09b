"""The example of somebody else's model: what it promises holds on the shipped sample."""

import importlib.util
import json
from pathlib import Path

import pytest
from thalweg.schemas.events import Impression, encode_event
from thalweg.streams.driver import START_MS

from examples.own_model.own_model import MODELS, corrected, halves, main, trained, with_base_scores

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "examples" / "own_model" / "README.md").read_text(encoding="utf-8")
INSTALLED = [name for name in MODELS if name != "vw" or importlib.util.find_spec("vowpalwabbit")]

pytestmark = pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")


@pytest.mark.parametrize("model", INSTALLED)
def test_corrected_scores_beat_the_frozen_model(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the second half of the sample, corrected scores must beat the model's in AUC and in log loss."""
    out = tmp_path / "second_half.jsonl"
    assert main(["--model", model, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    figures = [tuple(map(float, line.split()[-2:])) for line in printed.splitlines()[1:]]
    (auc, loss), (corrected_auc, corrected_loss) = figures[:2]
    assert corrected_auc > auc + 0.002
    assert corrected_loss < loss - 0.001
    events = [json.loads(line) for line in out.read_bytes().splitlines()]
    assert sum(event["type"] == "impression" for event in events) == 15_000
    assert all(0 < event["base_score"] < 1 for event in events if event["type"] == "impression")


def test_the_halves_share_nothing() -> None:
    """Feedback must go with its impression, and no label of the second half may reach the model."""
    shown = [json.loads(encode_event(Impression(f"{n}", "u", "i", START_MS + n, {}))) for n in range(5)]
    clicks = [{"type": "feedback", "id": f"{n}:c", "impression": f"{n}"} for n in range(5)]
    first, second = halves([*shown, *reversed(clicks)])
    assert [event.get("impression", event["id"]) for event in first] == ["0", "1", "1", "0"]
    assert [event.get("impression", event["id"]) for event in second] == ["2", "3", "4", "4", "3", "2"]


def test_a_model_of_ones_own_needs_two_methods() -> None:
    """A class like the page's must do: learn from each impression of the first half, and score the second."""

    learned: list[tuple[str, bool]] = []

    class Mine:
        def learn(self, impression: dict[str, object], label: bool) -> None:
            learned.append((str(impression["id"]), label))

        def predict(self, impression: dict[str, object]) -> float:
            return 0.5

    shown = [json.loads(encode_event(Impression(f"{n}", "u", "i", START_MS + n, {}))) for n in range(4)]
    clicks = [
        {"type": "feedback", "id": f"{n}:c", "impression": f"{n}", "user": "u", "item": "i", "ts": START_MS + 9}
        | {"action": "click"}
        for n in (1, 2)
    ]
    first, second = halves([*shown, *clicks])
    outcome = corrected(with_base_scores(trained(Mine(), first), second), None)
    assert learned == [("0", False), ("1", True)]
    assert outcome.frozen.auc == 0.5
    assert "def learn(self, impression, label)" in PAGE

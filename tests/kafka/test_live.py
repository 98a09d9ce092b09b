"""What `make live` shows a newcomer."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.live.events import events
from tests.kafka.broker import BOOTSTRAP_VARIABLE
from tests.kafka.scoring import SMALL

ROOT = Path(__file__).parents[2]


@pytest.mark.broker
def test_live_shows_scores_and_ends_on_ctrl_c(broker: str, unique: Callable[[str], str]) -> None:
    """Topics are made, scores scroll by as they come, and Ctrl-C ends producer, worker and all with status 0."""
    topics = {f"TOPICS__{name}": unique(name.lower()) for name in ("INTERACTIONS", "SCORES", "EXAMPLES")}
    own = SMALL | topics | {"TOPICS__DEAD_LETTERS": unique("dlq"), "METRICS__PORT": "0", "WORKER__GROUP": unique("g")}
    environ = os.environ | {f"THALWEG_{name}": text for name, text in own.items()} | {BOOTSTRAP_VARIABLE: broker}
    command = [sys.executable, "-m", "examples.live", "--rate", "2000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, env=environ, **pipes) as live:  # type: ignore[call-overload]
        try:
            scores = [json.loads(live.stdout.readline()) for _ in range(3000)]
            live.send_signal(signal.SIGINT)
            live.stdout.read()
            told = live.stderr.read().decode()
            assert live.wait(60) == 0, told
        finally:
            live.kill()
    assert all(0 < score["score"] < 1 for score in scores)
    assert [score["cause"] for score in scores[:2]] == [f"{own['TOPICS__INTERACTIONS']}-0-{n}:0" for n in range(2)]
    assert [line for line in told.splitlines() if line.startswith("live: ending")] == [
        "live: ending the producer …",
        "live: ending the worker …",
        "live: ending the scores …",
    ]
    assert "Traceback" not in told
    assert "suppressed" not in told


def test_the_made_up_log_is_the_same_for_the_same_seed() -> None:
    """Whoever talks about what they saw must have seen the same."""
    assert list(events(1000)) == list(events(1000))
    assert list(events(1000)) != list(events(1000, seed=1))

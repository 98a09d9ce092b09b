"""The fold as plain Python gives the compiled fold's bytes and state: a second opinion on what numba made of it."""

import json
import os
import subprocess
import sys

import pytest
from thalweg.operators.machine.compiled import INTERPRETED

from tests.fold.configurations import configurations
from tests.fold.logs import LOGS
from tests.streams.fold_process import folded
from tests.streams.logs_for_tests import ROOT

CASES = {"kuairand": "shipped", "generated": "own scores"}
BATCH = 500


def outcome(log: str) -> list[str]:
    """Return the hashes of a log's outputs and of the state behind it, with snapshots taken and restored between."""
    return folded(LOGS[log](), configurations()[CASES[log]], BATCH, 3 * BATCH)


@pytest.mark.long
@pytest.mark.parametrize("log", CASES)
def test_interpreted_and_compiled_are_equal_to_the_last_bit(log: str) -> None:
    """3 000 events of a real and of a generated log: the same outputs byte for byte and the same digest."""
    environment = os.environ | {"THALWEG_INTERPRETED": "" if INTERPRETED else "1"}
    command = [sys.executable, "-W", "error", "-m", "tests.fold.test_interpreted", log]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == outcome(log)


if __name__ == "__main__":
    print(json.dumps(outcome(sys.argv[1])))  # noqa: T201

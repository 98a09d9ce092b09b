"""`thalweg warm-up` compiles beforehand and names the cache; what takes long moves while it does."""

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console
from thalweg.operators.machine.jit import CACHE_FOLDER
from thalweg.operators.machine.progress import Progress
from thalweg.operators.machine.refusal import CacheError
from thalweg.streams.commands import main
from thalweg.streams.partition import readiness
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal

from tests.streams.logs_for_tests import small

THALWEG = Path(sys.executable).parent / "thalweg"


def test_warm_up_names_the_cache() -> None:
    """The folder must be the one line on stdout, and hold the fold's machine code."""
    result = CliRunner().invoke(main, ["warm-up"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{CACHE_FOLDER.path}\n"
    assert "Ready after " in result.stderr
    assert list(CACHE_FOLDER.path.glob("fold.run-*.nbc"))


def test_what_compiles_is_seen_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is redrawn, a line must say what happens, and more lines how far it is; nothing if it is quick."""
    monkeypatch.setattr(readiness, "SILENT_S", 0.1)
    monkeypatch.setattr(readiness, "REDRAWN_S", 0.02)
    monkeypatch.setattr(readiness, "REPEATED_S", 0.1)
    partition, quick, slow = Partition(small()), io.StringIO(), io.StringIO()
    readiness.make_ready(partition, Console(file=quick))
    assert quick.getvalue() == ""
    monkeypatch.setattr(Progress, "functions", Progress.functions)

    def compile_slowly(self: Partition) -> float:
        for _ in range(10):
            Progress.functions += 7
            time.sleep(0.05)
        return 0.5

    monkeypatch.setattr(Partition, "warm_up", compile_slowly)
    assert readiness.make_ready(partition, Console(file=slow, width=200)) == 0.5
    first, *others = slow.getvalue().splitlines()
    assert first == readiness.COMPILING
    assert len(others) >= 2
    assert all(line.endswith(" functions so far") for line in others)
    assert others[0] != others[-1]


def test_a_cache_that_cannot_be_trusted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the cache must end a command in one line with status 1."""

    def refuse(self: Partition) -> float:
        raise CacheError("/x can be written by others")

    monkeypatch.setattr(Partition, "warm_up", refuse)
    with pytest.raises(Refusal, match="/x can be written by others"):
        readiness.make_ready(Partition(small()), Console(file=io.StringIO()))
    result = CliRunner().invoke(main, ["warm-up"])
    assert (result.exit_code, result.stderr) == (1, "Error: /x can be written by others\n")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_user_without_home_and_name_is_served() -> None:
    """Where neither HOME nor the list of users has a home, there must be one line of warning and the configuration."""
    unshare = ["unshare", "-U", "--map-user=12345"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    kept = ("HOME", "XDG_CACHE_HOME", "THALWEG_CACHE")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    command = [*unshare, str(THALWEG), "config", "show"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "[learner]" in run.stdout
    [line] = run.stderr.splitlines()
    assert line.startswith("Warning: there is no home folder: set HOME or THALWEG_CACHE.")

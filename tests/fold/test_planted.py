"""A bug planted anywhere in the operators is found by a test."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Callable

import pytest

from tests.fold.plant import BUGS
from tests.soak import sized
from tests.streams.logs_for_tests import ROOT

# Machine code and what makes it, which interpreted Python never runs, and what asks for memory ahead.
COMPILED_ONLY = {f"machine/{name}.py" for name in ("cache", "jit", "lowered", "lowered_reference", "progress")}
COMPILED_ONLY |= {"machine/whole_program.py", "machine/lowered_held.py", "machine/prefetch.py", "fold/prefetching.py"}
# Names, and declarations without a line that computes.
WITHOUT_CODE = {"machine/lanes.py", "machine/reference.py", "machine/refusal.py", "fold/fates.py", "visits.py"}


FILES = [bug["file"] for bug in tomllib.loads(BUGS.read_text(encoding="utf-8"))["bug"]]
PLANTED = range(0, len(FILES), sized(3, 1))


@pytest.mark.long
@pytest.mark.soak(len(PLANTED), len(FILES), "planted bugs")
@pytest.mark.timeout(600)
def test_every_planted_bug_is_found(record_property: Callable[[str, object], None]) -> None:
    """Each bug must fail its test; a run has every third one. One that survives or has lost its place is an error."""
    environment = os.environ | {"THALWEG_INTERPRETED": "1"}
    command = [sys.executable, "-m", "tests.fold.plant", *map(str, PLANTED)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    *verdicts, summary = run.stdout.splitlines() or [""]
    missed = [line for line in verdicts if " s  found: " not in line]
    assert not missed, "\n".join(missed)
    assert run.returncode == 0, run.stderr[-2_000:]
    record_property("planted", summary)


def test_bugs_are_planted_in_every_file() -> None:
    """At least 60, and one at least in each file of the operators that has code to run."""
    sources = {path.relative_to(ROOT / "operators").as_posix() for path in (ROOT / "operators").rglob("*.py")}
    sources = {path for path in sources if not path.endswith("__init__.py")}
    assert len(FILES) >= 60
    assert set(FILES) == sources - COMPILED_ONLY - WITHOUT_CODE

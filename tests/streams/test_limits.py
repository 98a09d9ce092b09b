"""Every limit filled to the brim, and gone on for as long again: nothing out of bounds, nothing lost, nothing grown."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.joiner import JoinerConfiguration
from thalweg.operators.machine.compiled import compiled
from thalweg.schemas.limits import LimitsConfiguration

from tests.soak import SOAK, sized
from tests.streams.limits_process import SEVERAL
from tests.streams.logs_for_tests import ROOT

EVENTS = 12_000
BOUNDS_WHOLE = EVENTS // 2
BOUNDS_EVENTS = sized(1_200, BOUNDS_WHOLE)
ALWAYS_FULL = {"users", "waiting", "feedback", "histories", "text", "names", "stash of users", "stash of waiting"}
FULL = {1: ALWAYS_FULL | {"rows", "stash of rows", "pairs"}, 2: ALWAYS_FULL | {"sightings"}}


def brimful(events: int, threshold: int, **environment: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tests.streams.limits_process", str(events), str(threshold)]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


@pytest.mark.parametrize("threshold", FULL)
def test_every_limit_is_reached_and_held(threshold: int) -> None:
    """In both halves of the log every limit must be full, and the state no larger at its end than half way."""
    found = brimful(EVENTS, threshold)
    for half in found["full"]:
        assert set(half) >= FULL[threshold]
    before, after = found["bytes"]
    assert after <= 1.05 * before
    assert sum(found["fates"].values()) == EVENTS
    assert all(found["fates"][fate] for fate in ("scored", "joined", "late", "duplicate", "orphaned", "erased"))
    assert found["tallies"]["closed_unlearned"]
    rows, users = found["freed"]
    assert all(users)  # evicted, expired, refused
    assert all(rows) or threshold > 1


@pytest.mark.long
@pytest.mark.soak(BOUNDS_EVENTS, BOUNDS_WHOLE, "events")
@pytest.mark.timeout(600)
def test_no_access_is_out_of_bounds(tmp_path: Path) -> None:
    """With the bounds of every access checked, the same log must give the same state as without.

    The whole is compiled once more, with checks; a part of it is plain Python, whose arrays have an end.
    """
    checked = {"NUMBA_BOUNDSCHECK": "1", "THALWEG_CACHE": str(tmp_path)} if SOAK else {"THALWEG_INTERPRETED": "1"}
    for events, threshold in ((BOUNDS_EVENTS, 1), (BOUNDS_EVENTS // 2, SEVERAL)):
        assert brimful(events, threshold, **checked) == brimful(events, threshold)
    probe = "import numpy as np; from tests.streams.test_limits import beyond; beyond(np.zeros(2))"
    run = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, env=os.environ | checked, capture_output=True, text=True, check=False
    )
    assert "IndexError" in run.stderr, "the bounds are not checked"


@compiled
def beyond(array: Any) -> float:
    """Read behind an array's end."""
    return array[array.shape[0]]  # type: ignore[no-any-return]


def test_limits_that_contradict_each_other_are_refused() -> None:
    """Text with no room for one record, and names longer than is kept of them, must be refused in one line."""
    with pytest.raises(ValueError, match="text_bytes must be at least four times"):
        Configuration(limits=LimitsConfiguration(record_bytes=1 << 20), joiner=JoinerConfiguration(text_bytes=1 << 21))
    with pytest.raises(ValueError, match="name_bytes must lie within 1 and 255"):
        Configuration(limits=LimitsConfiguration(name_bytes=256))

"""Plant each bug of `planted.toml`, one at a time, and see whether its test finds it: `python -m tests.fold.plant`.

A bug is a piece of a source and what stands in its place. Each is planted in a process of its own, forked from one
that has everything imported, the logs and what is expected of them. Everything runs interpreted.
Numbers or files as arguments plant these bugs alone.

What is expected of a comparison is the outcome of the fold without a bug, from which a bug has to lead twice as far
away as fold and specification may be apart. In `make soak` it is the outcome of the specification itself, and the fold
without a bug has to agree with it.
"""

import contextlib
import gc
import importlib
import io
import multiprocessing
import os
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.fold.planting import ROOT, UnplantableError, live_functions, plant
from tests.soak import SOAK

BUGS = Path(__file__).with_name("planted.toml")
PROCESSES = 2
LARGEST = 3e-5  # on logs this short the fold and its specification are nearer than this, apart from planted bugs
SECONDS_MAX = 20.0  # of CPU, for one test
STEP = 10  # events between two looks
PYTEST = ["-q", "-x", "--assert=plain", "--noconftest", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
FOUND, SURVIVED = "found", "SURVIVED"
MISSING, UNPLANTABLE = "its place is MISSING or not the only one", "NOT PLANTED: it changes what is made at import"
ENDLESS = "NOT ENDED in time: choose a test that finds it sooner"
BROKEN = "BROKEN: without a bug, fold and specification do not agree"
NO_PROGRAM = (NameError, AttributeError, ImportError, SyntaxError)
"""What a bug raises whose text no longer fits the source around it: it would be found whatever the tests verify."""

Bug = dict[str, str]
Case = tuple[str, str]
"""A log and a configuration."""


class Expected(NamedTuple):
    """The outcome of a case; `counts`: scores and labels behind each `STEP` events; how far off a bug has to lead."""

    outcome: Any
    counts: list[tuple[int, int]]
    apart_max: float


class Failures:
    """The kinds of errors that ended tests, as pytest reports them."""

    def __init__(self) -> None:
        """Start with none."""
        self.kinds: list[type[BaseException]] = []

    def pytest_exception_interact(self, call: Any) -> None:
        """Take the error that ended a test or its collection."""
        self.kinds.append(call.excinfo.type)


def case_of(test: str) -> tuple[str, str, int]:
    """Return log, configuration and events of a comparison such as agree/generated/shipped/300."""
    _, log, name, events = test.split("/")
    return log, name, int(events)


def compare(test: str, expected: Expected) -> bool:
    """Whether the fold agrees with what is expected, looked at every few events: most bugs end it early."""
    from thalweg.streams.partition.partition import Partition

    from tests.fold.agreement import Outcome, apart, outcome_of
    from tests.fold.configurations import configurations
    from tests.fold.logs import LOGS

    log, name, events = case_of(test)
    partition, records = Partition(configurations()[name]), LOGS[log](events)
    scores, labels = 0, 0
    for step, first in enumerate(range(0, events, STEP)):
        found = outcome_of(partition.process(records[first : first + STEP]))
        ends = scores + len(found.scores), labels + len(found.labels)
        due = Outcome(expected.outcome.scores[scores : ends[0]], expected.outcome.labels[labels : ends[1]])
        if ends != expected.counts[step] or (len(found.scores) and apart(found, due).max() > expected.apart_max):
            return False
        scores, labels = ends
    return True


def passes_pytest(test: str) -> bool:
    """Whether a test of the suite passes; one that cannot be collected is no test and raises SystemExit."""
    path, _, words = test.partition(" ")
    failures = Failures()
    code = pytest.main([*PYTEST, "-m", "not large", path, *(["-k", words] if words else [])], plugins=[failures])
    if code == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (0, 1):
        raise SystemExit(f"{test}: pytest ended with {code}")
    for kind in failures.kinds:
        if issubclass(kind, NO_PROGRAM):
            raise kind
    return code == 0


def verdict(bug: Bug, expected: dict[Case, Expected]) -> str:
    """Plant a bug and return whether its test finds it."""
    test = bug["test"]
    try:
        if (ROOT / "operators" / bug["file"]).read_text(encoding="utf-8").count(bug["old"]) != 1:
            return MISSING
        plant(bug["file"], bug["old"], bug["new"])
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            is_comparison = test.startswith("agree/")
            passes = compare(test, expected[case_of(test)[:2]]) if is_comparison else passes_pytest(test)
    except UnplantableError:
        return UNPLANTABLE
    except (*NO_PROGRAM, SystemExit) as error:
        return f"NO PROGRAM: {error!r}"
    except KeyboardInterrupt:
        return ENDLESS
    except Exception:  # a bug may break anything
        passes = False
    return SURVIVED if passes else FOUND


def judge(number: int, bug: Bug, expected: dict[Case, Expected], results: Any) -> None:
    """Put a bug's verdict and the CPU seconds it took into the results."""
    began = time.process_time()
    signal.signal(signal.SIGVTALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_MAX)
    said = verdict(bug, expected)
    results.put((number, said, time.process_time() - began))


def expect(case: tuple[str, str, int]) -> Expected | None:
    """Return what is expected of a case; None where the fold without a bug is no match for its specification."""
    from thalweg.streams.partition.partition import Partition

    from tests.fold.agreement import Outcome, apart, of_the_specification, outcome_of
    from tests.fold.configurations import configurations
    from tests.fold.logs import LOGS

    log, name, events = case
    partition, records = Partition(configurations()[name]), LOGS[log](events)
    parts = [outcome_of(partition.process(records[first : first + STEP])) for first in range(0, events, STEP)]
    whole = Outcome(
        np.concatenate([part.scores for part in parts if len(part.scores)]),
        [label for part in parts for label in part.labels],
    )
    lengths = [[len(part.scores), len(part.labels)] for part in parts]
    counts = [(int(scores), int(labels)) for scores, labels in np.cumsum(lengths, axis=0)]
    if not SOAK:
        return Expected(whole, counts, 2 * LARGEST)
    specified = of_the_specification(records, name)
    agrees = whole.scores.shape == specified.scores.shape and whole.labels == specified.labels
    return Expected(specified, counts, LARGEST) if agrees and apart(whole, specified).max() <= LARGEST else None


def preload(bugs: list[Bug]) -> None:
    """Import what a fork needs, tests too, and make the logs; what reads the operators' numbers is not run."""
    import hypothesis

    from tests.fold.configurations import configurations
    from tests.fold.logs import LOGS

    importlib.import_module("tests.fold.agreement")
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure is not made smaller
    hypothesis.settings.register_profile("planted", deadline=None, max_examples=20, derandomize=True, phases=phases)
    hypothesis.settings.load_profile("planted")
    for test in {bug["test"].partition(" ")[0] for bug in bugs}:
        if not test.startswith("agree/"):
            importlib.import_module(test.removesuffix(".py").replace("/", "."))
    for bug in bugs:
        importlib.import_module("thalweg.operators." + bug["file"].removesuffix(".py").replace("/", "."))
    for log in LOGS.values():
        log(10)
    configurations()
    os.chdir(ROOT)
    live_functions()
    gc.freeze()  # forks collect what is their own, and copy nothing of this


def expect_all(bugs: list[Bug]) -> dict[Case, Expected | None]:
    """Return what is expected of the longest comparison of each case, which a shorter one begins with."""
    longest: dict[Case, int] = {}
    for test in (bug["test"] for bug in bugs if bug["test"].startswith("agree/")):
        log, name, events = case_of(test)
        longest[log, name] = max(events, longest.get((log, name), 0))
    cases = sorted(((*case, events) for case, events in longest.items()), key=lambda case: -case[2])
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        found = pool.map(expect, cases, chunksize=1)
        pool.close()
        pool.join()
    return {(log, name): made for (log, name, _), made in zip(cases, found, strict=True)}


def run(chosen: list[Bug], expected: dict[Case, Expected]) -> list[tuple[Bug, str, float]]:
    """Judge each in a fork, a few at once, and return the verdicts in the order they came."""
    context = multiprocessing.get_context("fork")
    results, judged = context.SimpleQueue(), []
    waiting, running = list(enumerate(chosen))[::-1], {}
    while waiting or running:
        while waiting and len(running) < PROCESSES:
            number, bug = waiting.pop()
            running[number] = process = context.Process(target=judge, args=(number, bug, expected, results))
            process.start()
        number, said, seconds = results.get()
        running.pop(number).join()
        judged.append((chosen[number], said, seconds))
        sys.stdout.write(f"{seconds:5.2f} s  {said}: {chosen[number]['file']}: {chosen[number]['what']}\n")
        sys.stdout.flush()
    return judged


def main() -> int:
    """Plant all, or those whose number or file is named, and return how many were not found."""
    bugs: list[Bug] = tomllib.loads(BUGS.read_text(encoding="utf-8"))["bug"]
    named = {*sys.argv[1:]}
    wanted = [bug for n, bug in enumerate(bugs) if not named or {str(n), bug["file"]} & named]
    preload(wanted)
    expected = expect_all(wanted)
    broken = [f"agree/{log}/{name}" for (log, name), made in expected.items() if made is None]
    for case in broken:
        sys.stdout.write(f"{BROKEN}: {case}\n")
    judged = run(wanted, {case: made for case, made in expected.items() if made is not None}) if not broken else []
    failures = len(broken) + sum(said != FOUND for _, said, _ in judged)
    usage = os.times()
    seconds = usage.user + usage.system + usage.children_user + usage.children_system
    sys.stdout.write(f"{len(wanted)} bugs planted in {seconds:.0f} CPU s, {failures} not found or tests that fail\n")
    return failures


if __name__ == "__main__":
    assert os.environ.get("THALWEG_INTERPRETED") == "1", "planted bugs run with THALWEG_INTERPRETED=1"
    sys.exit(main())

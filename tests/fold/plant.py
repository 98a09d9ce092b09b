"""Plant each bug of `planted.toml`, one at a time, and see whether its test finds it: `python -m tests.fold.plant`.

A bug is a piece of a source and what stands in its place. Each is planted in a process of its own, forked before
anything of `thalweg.operators` is imported; sources on disk stay as they are. Everything runs interpreted.

The suite does not run it yet: the list was written before the cross network, and its last bugs were never verified.
"""

import contextlib
import importlib.machinery
import io
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUGS = Path(__file__).with_name("planted.toml")
PROCESSES = 2
LARGEST = 3e-5  # on logs this short the fold and its specification are nearer than this, apart from planted bugs
PYTEST = [
    "-q",
    "-x",
    "--assert=plain",
    "--noconftest",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-m",
    "not large",
    "--no-header",
]
FOUND, SURVIVED, MISSING = "found", "survived", "its place is missing or not the only one"
CONTROL, BROKEN = "without a bug", "fails"


def plant(bug: dict[str, str]) -> None:
    """Have the source that a bug is in be read with the bug in it, when it is imported."""
    path = str(ROOT / "operators" / bug["file"])
    read = importlib.machinery.SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        if os.path.realpath(loader.path) != os.path.realpath(path):
            return read(loader, name)
        return compile(Path(path).read_text().replace(bug["old"], bug["new"]), loader.path, "exec", dont_inherit=True)

    importlib.machinery.SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def agrees(test: str, expected: Path) -> bool:
    """Whether the fold agrees with the specification, as a test such as `agree generated shipped 300` asks."""
    from tests.fold.agreement import apart, of_the_fold
    from tests.fold.logs import LOGS

    _, log, name, events = test.split("/")
    due = pickle.loads(expected.read_bytes())[test]
    return bool(apart(of_the_fold(LOGS[log](int(events)), name), due).max() <= LARGEST)


def specify(tests: list[str], expected: Path) -> None:
    """Write what the specification says for each test to a file."""
    from tests.fold.agreement import of_the_specification
    from tests.fold.logs import LOGS

    cases = {test: test.split("/")[1:] for test in tests}
    found = {test: of_the_specification(LOGS[log](int(n)), name) for test, (log, name, n) in cases.items()}
    expected.write_bytes(pickle.dumps(found))


def verdict(bug: dict[str, str], expected: Path) -> tuple[str, float]:
    """Whether a bug is found, or a test passes without one, and the CPU seconds that took."""
    began = time.process_time()
    if bug["file"] != CONTROL:
        if (ROOT / "operators" / bug["file"]).read_text().count(bug["old"]) != 1:
            return MISSING, 0.0
        plant(bug)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            passes = agrees(bug["test"], expected) if bug["test"].startswith("agree/") else passes_pytest(bug["test"])
        except SystemExit:
            return BROKEN, 0.0
        except Exception:  # a bug may break anything
            passes = False
    if bug["file"] == CONTROL:
        return (FOUND if passes else BROKEN), time.process_time() - began
    return (SURVIVED if passes else FOUND), time.process_time() - began


def passes_pytest(test: str) -> bool:
    """Whether a test of the suite passes; one that cannot be collected is no test and raises SystemExit."""
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("planted", deadline=None, max_examples=20, derandomize=True)
    hypothesis.settings.load_profile("planted")
    code = pytest.main(
        [*PYTEST, "-m", "not large", *test.split(" ", 1)[:1], *(["-k", test.split(" ", 1)[1]] if " " in test else [])]
    )
    if code not in (0, 1, 2):
        raise SystemExit(f"{test}: pytest ended with {code}")
    return code == 0


def judge(number: int, bug: dict[str, str], expected: Path, results: Any) -> None:
    """Put a bug's verdict into the results."""
    sys.setrecursionlimit(2_000)
    results.put((number, *verdict(bug, expected)))


def main() -> int:
    """Plant all, or those whose number or file is named, print each, and return how many were not found."""
    bugs = tomllib.loads(BUGS.read_text())["bug"]
    named = {*sys.argv[1:]}
    wanted = [bug for n, bug in enumerate(bugs) if not named or {str(n), bug["file"]} & named]
    controls = [{"file": CONTROL, "what": test, "test": test} for test in sorted({bug["test"] for bug in wanted})]
    chosen = list(enumerate(wanted + controls))
    preload()
    context = multiprocessing.get_context("fork")
    results, failures = context.SimpleQueue(), 0
    with tempfile.TemporaryDirectory() as folder:
        expected = Path(folder) / "expected"
        tests = sorted({bug["test"] for _, bug in chosen if bug["test"].startswith("agree/")})
        specified = context.Process(target=specify, args=(tests, expected))
        specified.start()
        specified.join()
        waiting, running = list(reversed(chosen)), {}
        while waiting or running:
            while waiting and len(running) < PROCESSES:
                number, bug = waiting.pop()
                running[number] = process = context.Process(target=judge, args=(number, bug, expected, results))
                process.start()
            number, said, seconds = results.get()
            running.pop(number).join()
            failures += said != FOUND
            sys.stdout.write(
                f"{number:3} {seconds:5.1f} s  {said}: {chosen[number][1]['file']}  {chosen[number][1]['what']}\n"
            )
            sys.stdout.flush()
    sys.stdout.write(f"{len(wanted)} bugs planted, {failures} not found or tests that fail without one\n")
    return failures


def preload() -> None:
    """Import what all tests need and no bug is in."""
    import hypothesis.extra.numpy
    import hypothesis.stateful
    import mmh3
    import msgspec
    import numpy as np
    import pytest

    assert all(map(bool, (hypothesis, mmh3, msgspec, np, pytest)))
    assert not any(name.startswith("thalweg.operators") for name in sys.modules)
    os.chdir(ROOT)


if __name__ == "__main__":
    assert os.environ.get("THALWEG_INTERPRETED") == "1", "planted bugs run with THALWEG_INTERPRETED=1"
    sys.exit(main())

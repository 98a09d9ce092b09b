"""What is declared once is known everywhere: docs/extending.md performed on a copy, and a field of each kind added."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
STEP = re.compile(r"In `([\w/]+\.py)`, behind `(.+?)`:\n\n```python\n(.*?)```", re.DOTALL)
FIELDS = [
    ("visits.py", "shown_ms: ", 'user_mark: Annotated[Int64, per("users 2", below=100)]'),
    ("rates.py", "at_ms: Annotated", 'value_mark: Annotated[Int64, per("values", below=100)]'),
    ("joiner.py", "scores: ", 'slot_mark: Annotated[Int64, per("slots 2 3", below=100)]'),
    ("joiner.py", "window_ms: Annotated", 'node_mark: Annotated[Int64, per("nodes", below=100)]'),
    ("sdim.py", "newest_ms: ", 'history_mark: Annotated[Int64, per("histories 2", below=100)]'),
    ("clock.py", "arrivals: ", 'whole_mark: Annotated[Int64, per("3", below=100)]'),
    ("visits.py", "shown: ", 'item_mark: Annotated[Int32, per("users", refers="values")]'),
    ("visits.py", "shown: ", 'generation: Annotated[Int64, per("users", digest=False)]'),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources, to be changed."""
    for package in ("schemas", "operators", "streams"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / "thalweg" / package, ignore=ignored)
    return tmp_path


def insert(copy: Path, path: str, behind: str, lines: str) -> None:
    """Insert lines behind the one line of a module that has this text."""
    module = copy / "thalweg" / path
    source = module.read_text(encoding="utf-8").splitlines()
    [at] = [number for number, line in enumerate(source) if behind in line]
    module.write_text("\n".join([*source[: at + 1], lines.rstrip("\n"), *source[at + 1 :], ""]), encoding="utf-8")


def import_kind(copy: Path, kind: str) -> None:
    """Add a type of arrays to what `visits` imports."""
    visits = copy / "thalweg" / "operators" / "visits.py"
    text = visits.read_text(encoding="utf-8").replace("import Int64, UInt64", f"import {kind}, Int64, UInt64")
    visits.write_text(text, encoding="utf-8")


def run(copy: Path, script: str, *arguments: str) -> str:
    """Run a script of this folder with the copy in our place, interpreted, and return what it prints."""
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy), str(ROOT)]), "THALWEG_INTERPRETED": "1"}
    command = [sys.executable, "-m", f"tests.operators.{script}", *arguments]
    done = subprocess.run(command, cwd=copy, env=settings, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout


def test_the_derived_feature_of_the_page_is_two_files(copy: Path) -> None:
    """What docs/extending.md adds must give the right numbers, be erased, digested, saved and restored."""
    steps = STEP.findall(PAGE)
    assert {path for path, _, _ in steps} == {"operators/visits.py", "operators/derived.py"}
    assert len(steps) == 5
    for path, behind, lines in steps:
        insert(copy, path, behind, lines)
    assert run(copy, "extended_process").splitlines() == ["counted", "digested", "restored", "erased"]


def test_a_field_of_each_kind_is_taken_in_everywhere(copy: Path) -> None:
    """An array added to a declaration must be erased, digested, saved, restored and verified, with no other line."""
    for module, behind, line in FIELDS:
        insert(copy, f"operators/{module}", f"    {behind}", f"    {line}")
    import_kind(copy, "Int32")
    marks = [line.partition(":")[0] for _, _, line in FIELDS if "_mark" in line]
    found = {tuple(line.split()) for line in run(copy, "marked_process", *marks).splitlines()}
    expected = {(mark, what) for mark in marks for what in ("digested", "restored", "verified")}
    shared = {"whole_mark", "value_mark"}  # no user owns them
    assert found == expected | {(mark, "erased") for mark in marks if mark not in shared}

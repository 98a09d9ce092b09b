"""Machine code is never older than the sources that it was made of."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from operators.compiled import COMPILED_FROM, PACKAGE, cache_folder, source_digest

CALLER = """
from tiny.callee import value
from tiny.compiled import compiled

@compiled
def call():
    return value()
"""
CALLEE = """
from tiny.compiled import compiled

@compiled
def value():
    return {value}
"""


def copy_of_the_package(folder: Path) -> Path:
    package = folder / "operators"
    package.mkdir()
    for path in PACKAGE.glob("*.py"):
        (package / path.name).write_bytes(path.read_bytes())
    return package


def test_the_digest_changes_with_any_byte_of_any_file(tmp_path: Path) -> None:
    """The name of the cache folder changes when one byte of any file of the package does, and comes back with it."""
    package = copy_of_the_package(tmp_path)
    original = source_digest(package)
    assert original == source_digest(PACKAGE)
    seen = {original}
    for path in sorted(package.glob("*.py")):
        source = path.read_bytes()
        for place in {0, len(source) // 2, len(source) - 1}:
            path.write_bytes(source[:place] + bytes([source[place] ^ 1]) + source[place + 1 :])
            seen.add(source_digest(package))
        path.write_bytes(source)
        assert source_digest(package) == original
    assert len(seen) > 3 * (len(list(package.glob("*.py"))) - 1)


def test_the_digest_knows_names_and_borders_of_files(tmp_path: Path) -> None:
    """A file renamed, added, or a piece moved to its neighbour gives another digest."""
    package = copy_of_the_package(tmp_path)
    seen = {source_digest(package)}
    (package / "zz_new.py").write_bytes(b"")
    seen.add(source_digest(package))
    (package / "zz_new.py").rename(package / "zz_other.py")
    seen.add(source_digest(package))
    pool, owned = package / "pool.py", package / "owned.py"
    owned.write_bytes(owned.read_bytes() + b"# moved\n")
    seen.add(source_digest(package))
    owned.write_bytes(owned.read_bytes()[: -len(b"# moved\n")])
    pool.write_bytes(b"# moved\n" + pool.read_bytes())
    seen.add(source_digest(package))
    assert len(seen) == 5


def test_the_default_digest_knows_all_that_is_frozen_into_machine_code() -> None:
    """The codes of reasons are constants of the compiled fold, so the digest covers `schemas` beside `operators`."""
    assert PACKAGE in COMPILED_FROM
    assert PACKAGE.parent / "schemas" in COMPILED_FROM
    assert source_digest() == source_digest(*COMPILED_FROM)
    assert source_digest() != source_digest(PACKAGE)


def test_the_cache_folder_is_named_by_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """THALWEG_CACHE says where compiled code lies, XDG_CACHE_HOME else; the last part of the path is the digest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("THALWEG_CACHE", raising=False)
    assert cache_folder() == tmp_path / "xdg" / "thalweg" / "compiled" / source_digest()
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own" / "compiled" / source_digest()


def test_a_changed_callee_in_another_file_is_compiled_again(tmp_path: Path) -> None:
    """A caller that was cached with an old callee gives the new callee's value, though its own file did not change."""
    package = tmp_path / "tiny"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "compiled.py").write_bytes((PACKAGE / "compiled.py").read_bytes())
    (package / "caller.py").write_text(CALLER)
    caches = tmp_path / "cache"
    environment = {**os.environ, "THALWEG_CACHE": str(caches), "PYTHONPATH": str(tmp_path)}
    folders: list[set[str]] = []
    for value in (1, 2, 1):
        (package / "callee.py").write_text(CALLEE.format(value=value))
        command = [sys.executable, "-c", "from tiny.caller import call; print(call())"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        assert int(result.stdout) == value
        folders.append({path.name for path in (caches / "compiled").iterdir()})
    assert [len(names) for names in folders] == [1, 2, 2]

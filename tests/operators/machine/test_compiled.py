"""Machine code is never older than the sources that it was made of."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from thalweg.operators.machine.cache import Folder
from thalweg.operators.machine.jit import COMPILED_FROM, PACKAGE, REASONS, raw_digest, source_digest

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


def tiny_package(folder: Path) -> Path:
    """Return a package with `compiled` and `jit` in it, which digests what lies beside."""
    package = folder / "tiny"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name in ("cache", "compiled", "jit", "progress", "refusal", "whole_program"):
        source = (PACKAGE / "machine" / f"{name}.py").read_text().replace("thalweg.operators.machine.", "tiny.")
        (package / f"{name}.py").write_text(source.replace("Path(__file__).parent.parent", "Path(__file__).parent"))
    (folder / "schemas").mkdir()
    (folder / "schemas" / "reasons.py").write_text("")
    return package


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment of a process that compiles a tiny package, into a cache of its own."""
    own = {"THALWEG_CACHE": str(folder / "cache"), "PYTHONPATH": str(folder), "THALWEG_INTERPRETED": ""}
    return os.environ | own


def copy_of_the_package(folder: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, folder / "operators", ignore=shutil.ignore_patterns("__pycache__")))


def test_the_digest_changes_with_the_code_of_any_file(tmp_path: Path) -> None:
    """The name of the cache folder changes when the code of any file in any room does, and comes back with it."""
    package = copy_of_the_package(tmp_path)
    original = source_digest(package)
    assert original == source_digest(PACKAGE)
    seen = {original}
    paths = sorted(package.rglob("*.py"))
    assert {path.parent.name for path in paths} >= {"operators", "machine", "structures", "fold"}
    for path in paths:
        source = path.read_bytes()
        path.write_bytes(source + b"\nCHANGED = 1\n")
        seen.add(source_digest(package))
        path.write_bytes(source)
        assert source_digest(package) == original
    assert len(seen) == len(paths) + 1


def test_the_digest_does_not_see_comments_and_docstrings(tmp_path: Path) -> None:
    """Another comment, docstring or line of code's position compiles nothing again; another constant does."""
    package = copy_of_the_package(tmp_path)
    path = package / "ftrl.py"
    original, source = source_digest(package), path.read_text()
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    assert docstring is not None
    path.write_text("# a comment\n\n" + source.replace(docstring, "Another."))
    assert source_digest(package) == original
    path.write_text(source.replace("0.0", "0.5", 1))
    assert source_digest(package) != original


def test_the_digest_knows_names_and_borders_of_files(tmp_path: Path) -> None:
    """A file renamed, added, or a piece moved to its neighbour gives another digest."""
    package = copy_of_the_package(tmp_path)
    seen = {source_digest(package)}
    (package / "zz_new.py").write_bytes(b"")
    seen.add(source_digest(package))
    (package / "zz_new.py").rename(package / "zz_other.py")
    seen.add(source_digest(package))
    pool, owned = package / "structures" / "pool.py", package / "structures" / "ownership.py"
    owned.write_bytes(owned.read_bytes() + b"MOVED = 1\n")
    seen.add(source_digest(package))
    owned.write_bytes(owned.read_bytes()[: -len(b"MOVED = 1\n")])
    pool.write_bytes(b"MOVED = 1\n" + pool.read_bytes())
    seen.add(source_digest(package))
    assert len(seen) == 5


def test_the_default_digest_knows_all_that_is_frozen_into_machine_code() -> None:
    """The codes of reasons are constants of the compiled fold, so the digest covers their file beside `operators`."""
    assert COMPILED_FROM == (PACKAGE, REASONS)
    assert source_digest() == source_digest(*COMPILED_FROM)
    assert source_digest() != source_digest(PACKAGE)


def test_compiled_code_takes_nothing_else_from_schemas() -> None:
    """Every constant of compiled code that comes from `schemas`, over whatever modules, comes from the reasons."""
    modules = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    taken: dict[Path, dict[str, str]] = {}
    for path in modules:
        _from_schemas(path, modules, taken)
    frozen: dict[str, set[str]] = {}
    for path, tree in modules.items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if "compiled" in map(ast.unparse, function.decorator_list):
                for name in _names_in(function) & taken[path].keys():
                    frozen.setdefault(taken[path][name], set()).add(f"{path.name}: {function.name} takes {name}")
    assert "thalweg.schemas.reasons" in frozen
    frozen.pop("thalweg.schemas.reasons")
    assert not frozen


def _names_in(function: ast.FunctionDef) -> set[str]:
    """Return the names that a function's body uses, `module.NAME` as it stands."""
    nodes = [node for part in function.body for node in ast.walk(part)]
    return {ast.unparse(node) for node in nodes if isinstance(node, ast.Name | ast.Attribute)}


def _from_schemas(path: Path, modules: dict[Path, ast.Module], taken: dict[Path, dict[str, str]]) -> dict[str, str]:
    """Return the names of a module that come from `schemas`, straight or computed at import, and the schema's module.

    `taken` has those of modules that were looked at before.
    """
    if path in taken:
        return taken[path]
    found = taken[path] = {}
    for node in modules[path].body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            if node.module.startswith("thalweg.schemas"):
                found |= {alias.asname or alias.name: node.module for alias in node.names}
            elif node.module.startswith("thalweg.operators"):
                folder = PACKAGE.joinpath(*node.module.split(".")[2:])
                if (other := folder.with_suffix(".py")) in modules:
                    theirs = _from_schemas(other, modules, taken)
                    found |= {alias.name: theirs[alias.name] for alias in node.names if alias.name in theirs}
                for alias in node.names:  # a module, whose constants are named by way of it
                    if (other := folder / f"{alias.name}.py") in modules:
                        theirs = _from_schemas(other, modules, taken)
                        found |= {f"{alias.asname or alias.name}.{name}": origin for name, origin in theirs.items()}
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            used = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)} & found.keys()
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            found |= {name: found[origin] for name in names for origin in used}
    return found


def test_the_cache_folder_is_named_by_the_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """THALWEG_CACHE says where compiled code lies, XDG_CACHE_HOME else; the last part of the path is the digest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("THALWEG_CACHE", raising=False)
    assert Folder(lambda: "raw", lambda: "d1").path == tmp_path / "xdg" / "thalweg" / "compiled" / "d1"
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "own"))
    assert Folder(raw_digest, source_digest).path == tmp_path / "own" / "compiled" / source_digest()


def test_a_changed_callee_in_another_file_is_compiled_again(tmp_path: Path) -> None:
    """A caller that was cached with an old callee gives the new callee's value, though its own file did not change."""
    package = tiny_package(tmp_path)
    (package / "caller.py").write_text(CALLER)
    caches, environment = tmp_path / "cache", surroundings(tmp_path)
    folders: list[set[str]] = []
    for value in (1, 2, 1):
        (package / "callee.py").write_text(CALLEE.format(value=value))
        command = [sys.executable, "-c", "from tiny.caller import call; print(call())"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        assert int(result.stdout) == value
        folders.append({path.name for path in (caches / "compiled").iterdir()})
    assert [len(names) for names in folders] == [1, 2, 2]


def test_a_moved_function_is_not_compiled_again(tmp_path: Path) -> None:
    """Comments above a function move it to another line, and its machine code is still what is loaded."""
    package = tiny_package(tmp_path)
    environment = surroundings(tmp_path)
    code = "from tiny.callee import value as f; f(); print(sum(f.stats.cache_misses.values()))"
    misses = []
    for comment in ("", "# why it is so\n"):
        (package / "callee.py").write_text(comment + CALLEE.format(value=1))
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        misses.append(int(result.stdout))
    assert misses == [1, 0]

"""Compilation by numba: nopython, no fastmath, cached under a digest of this package."""

import ast
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from thalweg.operators.machine.cache import Cache, Folder
from thalweg.operators.machine.whole_program import Dispatcher

Function = TypeVar("Function", bound=Callable[..., object])

PACKAGE = Path(__file__).parent.parent
REASONS = PACKAGE.parent / "schemas" / "reasons.py"
COMPILED_FROM = (PACKAGE, REASONS)
"""What is frozen into machine code: operators, and of the schemas the codes of reasons."""


def source_digest(*sources: Path) -> str:
    """Return a digest of the code of modules, and of those in folders (by default of all that is compiled), of numba
    and of Python.

    numba's cache looks only at the file of the function called: a changed callee in another file would leave stale
    machine code. A folder named after this digest can't. Comments and docstrings change no machine code, so the digest
    is of syntax trees without them.
    """
    return _digest_of(lambda source: _code_of(source).encode(), sources or COMPILED_FROM)


def raw_digest() -> str:
    """Return a digest of the bytes of all that is compiled, of numba and of Python."""
    return _digest_of(bytes, COMPILED_FROM)


def _digest_of(part: Callable[[bytes], bytes], sources: Iterable[Path]) -> str:
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for source in sources:
        for path in sorted(source.rglob("*.py")) if source.is_dir() else [source]:
            name = path.relative_to(source if source.is_dir() else source.parent).as_posix()
            digest.update(name.encode() + b"\0" + part(path.read_bytes()) + b"\0")
    return digest.hexdigest()[:24]


@functools.cache
def _code_of(source: bytes) -> str:
    """Return what a module's machine code depends on: its syntax tree without docstrings, as text without positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body[0] = ast.Pass()
    return ast.dump(tree)


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "_nrt": False,  # no memory is asked for inside: the state is all there is, and no reference is counted
}
CACHE_FOLDER = Folder(raw_digest, source_digest)


def jit(function: Function) -> Function:
    """Compile a function on its first call, with IEEE arithmetic in the order written.

    No fastmath and no parallel loops: the same log must give the same bits on every machine.
    """
    dispatcher: Any = Dispatcher(function, {}, {"nopython": True, **OPTIONS})
    dispatcher._cache = Cache(function, CACHE_FOLDER, COMPILED_FROM)
    return cast(Function, dispatcher)

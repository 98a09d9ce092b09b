"""Compilation by numba: nopython, no fastmath, cached under a digest of this package."""

import ast
import functools
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

Function = TypeVar("Function", bound=Callable[..., object])

PACKAGE = Path(__file__).parent.parent
COMPILED_FROM = (PACKAGE, PACKAGE.parent / "schemas")  # the codes of reasons are frozen into machine code


def source_digest(*packages: Path) -> str:
    """Return a digest of the code of every module of the packages (by default of all that is compiled), of numba and
    of Python.

    numba's cache looks only at the file of the function called: a changed callee in another file would leave stale
    machine code. A folder named after this digest can't. Comments and docstrings change no machine code, so the digest
    is of syntax trees without them.
    """
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for package in packages or COMPILED_FROM:
        for path in sorted(package.rglob("*.py")):
            digest.update(
                path.relative_to(package).as_posix().encode() + b"\0" + _code_of(path.read_bytes()).encode() + b"\0"
            )
    return digest.hexdigest()[:24]


@functools.cache
def _code_of(source: bytes) -> str:
    """Return what a module's machine code depends on: its syntax tree without docstrings, as text without positions."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False):
            node.body[0] = ast.Pass()
    return ast.dump(tree)


def cache_folder() -> Path:
    """Return the folder of compiled code: below `THALWEG_CACHE`, else below the user's cache folder."""
    root = os.environ.get("THALWEG_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "thalweg"
    )
    return Path(root) / "compiled" / source_digest()


OPTIONS: dict[str, Any] = {
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "_nrt": False,  # no memory is asked for inside: the state is all there is, and no reference is counted
}
_CACHE_FOLDER = cache_folder()


class _Locator(caching._CacheLocator):
    """Where a function's machine code is kept: numba's own locators ask for the line and the time of its source.

    With those an edited comment would compile anew; here the digest in the folder's name says what is fresh. A function
    outside of the digested packages (in a test, in a benchmark) adds its own file.
    """

    def __init__(self, function: Any, path: str) -> None:
        self.name = f"{function.__module__}"
        inside = any(Path(path).is_relative_to(package) for package in COMPILED_FROM)
        self.stamp = "" if inside else hashlib.sha256(path.encode() + Path(path).read_bytes()).hexdigest()

    def get_cache_path(self) -> str:
        return str(_CACHE_FOLDER)

    def get_source_stamp(self) -> str:
        return self.stamp

    def get_disambiguator(self) -> str:
        return self.name

    @classmethod
    def from_function(cls, function: Any, path: str) -> "_Locator":
        locator = cls(function, path)
        _CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
        return locator


class _Implementation(caching.CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Locator]  # noqa: RUF012  numba declares it so


class _Cache(caching.FunctionCache):
    _impl_class = _Implementation


def jit(function: Function) -> Function:
    """Compile a function on its first call, with IEEE arithmetic in the order written.

    No fastmath and no parallel loops: the same log must give the same bits on every machine.
    """
    dispatcher: Any = numba.njit(**OPTIONS)(function)
    cache: Any = _Cache
    dispatcher._cache = cache(dispatcher.py_func)
    return cast(Function, dispatcher)


def compile_for(function: Any, *arguments: object) -> None:
    """Compile a function for such arguments without calling it, or load it from its cache."""
    function.compile(tuple(cast(Any, numba).typeof(argument) for argument in arguments))

"""The one way in which functions are compiled: nopython, no fastmath, cached under a digest of this package."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import config as numba_config

Function = TypeVar("Function", bound=Callable[..., object])

PACKAGE = Path(__file__).parent
COMPILED_FROM = (PACKAGE, PACKAGE.parent / "schemas")  # the codes of reasons are frozen into machine code


def source_digest(*packages: Path) -> str:
    """Return a digest of every source file of the packages (by default of all that is compiled), and of numba's
    version.

    numba's cache looks only at the file of the function called: a changed callee in another file would leave stale
    machine code. A folder named after this digest can't.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for package in packages or COMPILED_FROM:
        for path in sorted(package.glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def cache_folder() -> Path:
    """Return the folder of compiled code: below `THALWEG_CACHE`, else below the user's cache folder."""
    root = os.environ.get("THALWEG_CACHE") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "thalweg"
    )
    return Path(root) / "compiled" / source_digest()


OPTIONS: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "_nrt": False,  # no memory is asked for inside: the state is all there is, and no reference is counted
}
_CACHE_FOLDER = str(cache_folder())


def compiled(function: Function) -> Function:
    """Compile a function on its first call, with IEEE arithmetic in the order written.

    No fastmath and no parallel loops: the same log must give the same bits on every machine.
    """
    settings: Any = numba_config
    before = settings.CACHE_DIR
    settings.CACHE_DIR = _CACHE_FOLDER
    try:
        dispatcher = numba.njit(**OPTIONS)(function)
    finally:
        settings.CACHE_DIR = before
    return cast(Function, dispatcher)


@compiled
def int64(x: Any) -> int:
    """Return x as an int64: what compiled code takes for a whole number."""
    return np.int64(x)  # type: ignore[return-value]


@compiled
def uint64(x: Any) -> int:
    """Return x as a uint64, as keys are; compared with an int64 it would become a float."""
    return np.uint64(x)  # type: ignore[return-value]


@compiled
def float32(x: Any) -> float:
    """Return x as a float32, as weights are."""
    return np.float32(x)  # type: ignore[return-value]


@compiled
def clear(array: Any) -> None:
    """Set an array [n] to zero: a loop written out is several times as fast as an assignment to a slice."""
    for i in range(array.shape[0]):
        array[i] = 0

# mypy: disable-error-code="no-untyped-call"
"""Where machine code is kept between runs: a folder of its owner's alone, named after what the code was made of.

What is in it is run without a question. So the folders are 0700, the files 0600, and what another user owns or may
write is refused. numba's own choices of a folder, the package's `__pycache__` among them, are not taken.
"""

import errno
import hashlib
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Any

from numba.core import caching
from thalweg.operators.machine.refusal import CacheError
from thalweg.operators.machine.whole_program import Dispatcher

DIGEST = re.compile("[0-9a-f]{24}")
DIGESTS_MAX = 100
"""So many digests are remembered: each edit of a source adds one."""
INSTEAD = "remove it, or set THALWEG_CACHE to a folder of your own"


class Folder:
    """The folder of compiled code, found and made when it is first asked for.

    Below `THALWEG_CACHE`, else below the user's own cache folder; where there is none or it can't be written, below the
    system's folder for temporary files, with one line of warning.
    """

    def __init__(self, raw: Callable[[], str], digest: Callable[[], str]) -> None:
        """Keep machine code under the digest of its sources' code.

        `raw` returns a digest of their bytes, and is asked for now: what is compiled is what is imported now. `digest`
        takes a hundred times as long, and is asked for once for the same bytes.
        """
        self._bytes, self._raw, self._digest = raw(), raw, digest
        self._warned = False

    @cached_property
    def path(self) -> Path:
        """The folder, which exists from now on. Raises CacheError where it isn't its owner's alone."""
        try:
            root = chosen_root()
        except RuntimeError:  # neither HOME nor an entry in the list of users
            return self._temporary("there is no home folder: set HOME or THALWEG_CACHE")
        try:
            return self._made_in(root)
        except OSError as error:
            return self._temporary(f"{root} can't be written ({error.strerror}): set THALWEG_CACHE to one that can")

    def make(self) -> None:
        """Make the folder now, with a warning where it is not the one that was chosen. Raises as `path` does."""
        assert self.path

    def could_not_write(self, error: OSError) -> None:
        """Warn that what was compiled could not be kept."""
        self._warn(f"{self.path} can't be written ({error.strerror}): what is compiled now is compiled again next time")

    def _made_in(self, root: Path) -> Path:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_others(root)
        try:
            digest = self._remembered(made(root / "digests"))
        except OSError:  # what is read-only may have code all the same
            digest = self._digest()
        folder = made(made(root / "compiled") / digest)
        if not os.access(folder, os.W_OK) and not any(folder.iterdir()):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return folder

    def _remembered(self, folder: Path) -> str:
        """Return the digest of the sources' code, from a file that is named after the digest of their bytes."""
        path = folder / self._bytes
        with suppress(OSError):
            refuse_others(path)
            if DIGEST.fullmatch(found := path.read_text(encoding="ascii", errors="replace")):
                return found
        digest = self._digest()
        if self._raw() != self._bytes:
            return digest  # an edit since would be taken for what was imported
        with suppress(OSError):  # it is worked out again next time
            older = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime)
            for each in older[: -DIGESTS_MAX + 1]:
                each.unlink()
            descriptor, name = tempfile.mkstemp(dir=folder)  # 0600
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(digest)
            Path(name).replace(path)
        return digest

    def _temporary(self, why: str) -> Path:
        folder = Path(tempfile.gettempdir(), f"thalweg-{os.geteuid()}")
        self._warn(f"{why}. Compiled code is kept in {folder}")
        try:
            return self._made_in(folder)
        except OSError as error:
            raise CacheError(f"{folder} can't be written either ({error.strerror}): set THALWEG_CACHE") from None

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            sys.stderr.write(f"Warning: {message}\n")


def made(folder: Path) -> Path:
    """Return a folder of its owner's alone, which exists from now on. Raises CacheError where it is another's."""
    folder.mkdir(mode=0o700, exist_ok=True)
    refuse_others(folder)
    with suppress(OSError):
        folder.chmod(0o700)
    return folder


def chosen_root() -> Path:
    """Return the folder that the environment names for caches of ours. Raises RuntimeError where there is no home."""
    if named := os.environ.get("THALWEG_CACHE"):
        return Path(named).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "thalweg")


def refuse_others(path: Path | str) -> None:
    """Raise CacheError where a file or folder is another user's, or another user may write it."""
    link, found = os.lstat(path), os.stat(path)  # noqa: PTH116
    if any(each.st_uid not in (os.geteuid(), 0) for each in (link, found)):
        raise CacheError(f"{path} belongs to another user, but what is in it would be run: {INSTEAD}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(f"{path} can be written by others, but what is in it would be run: {INSTEAD}")


class _Files(caching.IndexDataCacheFile):
    """numba's files of one function, each looked at before it is read."""

    def _load_index(self) -> Any:
        self._refuse_others(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        self._refuse_others(self._data_path(name))
        return super()._load_data(name)

    def _refuse_others(self, path: str) -> None:
        if os.path.exists(path):  # noqa: PTH110
            refuse_others(path)

    @contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[IO[bytes]]:
        with super()._open_for_write(filepath) as file:
            os.fchmod(file.fileno(), 0o600)
            yield file


class _Locator(caching._CacheLocator):
    """Tells numba where a function's files are: its own locators ask for the line and the time of the source.

    With those an edited comment would compile again; here the digest in the folder's name decides what is fresh. A
    function outside of the digested sources (in a test, in a benchmark) adds its own file.
    """

    def __init__(self, function: Any, folder: Path, sources: tuple[Path, ...]) -> None:
        self._folder = folder
        self._module = str(function.__module__)
        path = Path(function.__code__.co_filename)
        inside = any(path.is_relative_to(source) for source in sources)
        self._stamp = "" if inside else hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()

    def ensure_cache_path(self) -> None:
        """Do nothing: the folder is there."""

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return self._module


class _Implementation(caching.CompileResultCacheImpl):
    """What numba keeps of a function, with our locator and no choice of others."""

    def __init__(self, function: Any, locator: _Locator) -> None:
        self._lineno = function.__code__.co_firstlineno
        self._locator = locator
        name = f"{Path(function.__code__.co_filename).stem}.{function.__qualname__}"
        self._filename_base = self.get_filename_base(name, getattr(sys, "abiflags", ""))


class _FunctionCache(caching.FunctionCache):
    """numba's cache of one function over such files."""

    def __init__(self, function: Any, locator: _Locator) -> None:
        self._name = repr(function)
        self._py_func = function
        self._impl = _Implementation(function, locator)
        self._cache_path = locator.get_cache_path()
        self._cache_file = _Files(self._cache_path, self._impl.filename_base, locator.get_source_stamp())
        self.enable()


class Cache:
    """The machine code of one function, as numba's dispatcher asks for it; nothing is looked up before it does."""

    def __init__(self, function: Any, folder: Folder, sources: tuple[Path, ...]) -> None:
        """Keep a function's code in a folder that is named after the digest of `sources`."""
        self._function = function
        self._folder = folder
        self._sources = sources

    @property
    def cache_path(self) -> str:
        """The folder."""
        return str(self._folder.path)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the code for a signature, None where there is none; inner functions are never kept."""
        return self._files.load_overload(sig, target_context) if Dispatcher.depth == 1 else None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the code for a signature, or warn that it can't be kept."""
        if data.entry_point is None:
            return
        try:
            self._files.save_overload(sig, data)
        except OSError as error:
            self._folder.could_not_write(error)

    def flush(self) -> None:
        """Forget all that was kept of the function."""
        self._files.flush()

    @cached_property
    def _files(self) -> Any:
        return _FunctionCache(self._function, _Locator(self._function, self._folder.path, self._sources))

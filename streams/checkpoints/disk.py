"""The disk as checkpoints see it: each call that a crash may lie before or after is a call of its own.

What survives a loss of power is what was synced: a file's content by `sync` of the file, a name (a new one, a changed
one, one that is gone) by `sync_folder` of its folder.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Content = npt.NDArray[np.uint8]
WRITE_BYTES_MAX = 1 << 26


class FileStatus(NamedTuple):
    """When a file was last written, in seconds since 1970, and its size."""

    modified_at_s: float
    bytes: int


class NewFile(Protocol):
    """A file that is being written."""

    def write(self, part: memoryview) -> None:
        """Append all of a part."""

    def sync(self) -> None:
        """Wait until all that was written will survive a loss of power."""

    def close(self) -> None:
        """Let go of the file, without syncing it."""


class Disk(Protocol):
    """Files and folders. Every method raises OSError where the system refuses."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in no order; none where it is absent."""

    def status(self, path: Path) -> FileStatus:
        """Return a file's time and size."""

    def read(self, path: Path) -> Content:
        """Return a file's bytes."""

    def create(self, path: Path) -> NewFile:
        """Make a file, or empty the one that is there, and return it to be written."""

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name, in place of what had that name, at once."""

    def unlink(self, path: Path) -> None:
        """Remove a file; it may be gone already."""

    def is_folder(self, path: Path) -> bool:
        """Whether there is such a folder."""

    def make_folder(self, path: Path) -> None:
        """Make a folder in one that is there; it may be there already."""

    def sync_folder(self, folder: Path) -> None:
        """Wait until the names in a folder will survive a loss of power."""


class LocalDisk:
    """The machine's own file systems."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder."""
        try:
            return [path.name for path in folder.iterdir()]
        except FileNotFoundError:
            return []

    def status(self, path: Path) -> FileStatus:
        """Return a file's time and size."""
        status = path.stat()
        return FileStatus(status.st_mtime, status.st_size)

    def read(self, path: Path) -> Content:
        """Return a file's bytes."""
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            content = np.empty(size, np.uint8)
            view = memoryview(content.data)
            done = 0
            while done < size and (count := file.readinto(view[done:])):
                done += count
        return content

    def create(self, path: Path) -> NewFile:
        """Make a file."""
        return _LocalFile(path)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)

    def is_folder(self, path: Path) -> bool:
        """Whether there is such a folder."""
        return path.is_dir()

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        path.mkdir(exist_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Sync a folder's names."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._file: Any = path.open("wb", buffering=0)

    def write(self, part: memoryview) -> None:
        """Write all of it: one call writes 2 GiB at most, and less where the disk fills up."""
        while len(part):
            part = part[os.write(self._file.fileno(), part[:WRITE_BYTES_MAX]) :]

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

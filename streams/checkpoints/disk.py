"""The disk as checkpoints see it: a separate call for each step that a crash may come before or after.

What survives a loss of power is what was synced: a file's content by `sync` of the file, a name (a new one, a changed
one, one that is gone) by `sync_folder` of its folder.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Content = npt.NDArray[np.uint8]
WRITE_BYTES_MAX = 1 << 26


FILE_MODE, FOLDER_MODE = 0o600, 0o700
"""A state holds what users did: nobody but its owner reads it, and nobody else puts one there."""


class NotAFileError(OSError):
    """What has a name is no regular file: a folder, a pipe, a link to nothing."""


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
        """Release the file, without syncing it."""


class Disk(Protocol):
    """Files and folders. Every method raises OSError where the system refuses."""

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, in no order; none where it is absent."""

    def status(self, path: Path) -> FileStatus:
        """Return a file's time and size."""

    def read(self, path: Path) -> Content:
        """Return a file's bytes. Raises NotAFileError where the name stands for something else."""

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
        with open(_descriptor_of(path), "rb", buffering=0) as file:
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
        path.mkdir(FOLDER_MODE, exist_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Sync a folder's names."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _LocalFile:
    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, FILE_MODE)

    def write(self, part: memoryview) -> None:
        """Write all of it: one call writes 2 GiB at most, and less where the disk fills up."""
        while len(part):
            part = part[os.write(self._descriptor, part[:WRITE_BYTES_MAX]) :]

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _descriptor_of(path: Path) -> int:
    """Open a regular file to be read; what is none is neither waited for nor read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, IsADirectoryError) as error:
        if not path.is_symlink() and isinstance(error, FileNotFoundError):
            raise
        raise NotAFileError(error.errno, "no regular file has this name", str(path)) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise NotAFileError(error.errno, "no regular file has this name", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotAFileError(errno.EINVAL, "no regular file has this name", str(path))
    return descriptor

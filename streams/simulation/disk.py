"""A disk that keeps what was synced and nothing else for certain: what a loss of power does to the rest is drawn."""

import errno
import os
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from thalweg.streams.checkpoints.disk import Content, FileStatus, NewFile


class _File:
    """A file's bytes: as they are read, and as they were when they were last synced."""

    def __init__(self) -> None:
        self.data: bytes | bytearray = b""
        self.durable: bytes = b""
        self.modified_at_s = 0.0

    @property
    def is_synced(self) -> bool:
        return self.data == self.durable

    def sync(self) -> None:
        self.durable = self.data = bytes(self.data)

    def copied(self) -> "_File":
        copied = _File()
        copied.data, copied.durable, copied.modified_at_s = bytes(self.data), self.durable, self.modified_at_s
        return copied


class _Change(NamedTuple):
    """A change of names in a folder that is not synced yet: what `path` stands for now, None for nothing.

    A rename is one change: `old` ceases to be when `path` appears.
    """

    path: Path
    file: _File | None
    old: Path | None = None
    is_folder: bool = False


class SimulatedDisk:
    """Files and folders with the semantics of fsync: see `thalweg.streams.checkpoints.disk`, whose `Disk` it is."""

    def __init__(self, now_s: float = 0.0) -> None:
        """Start empty. `is_full`: of a write one half is done, and nothing new is made."""
        self.now_s = now_s
        self.is_full = False
        self._files: dict[Path, _File] = {}
        self._folders: dict[Path, None] = {Path(): None}
        self._durable_files: dict[Path, _File] = {}
        self._durable_folders: dict[Path, None] = {Path(): None}
        self._pending: dict[Path, list[_Change]] = {}

    def copied(self) -> "SimulatedDisk":
        """Return a separate disk that holds the same, synced and not."""
        made: dict[_File, _File] = {}

        def of(file: _File) -> _File:
            if file not in made:
                made[file] = file.copied()
            return made[file]

        copied = SimulatedDisk(self.now_s)
        copied._files = {path: of(file) for path, file in self._files.items()}
        copied._durable_files = {path: of(file) for path, file in self._durable_files.items()}
        copied._folders, copied._durable_folders = dict(self._folders), dict(self._durable_folders)
        copied._pending = {
            folder: [change._replace(file=change.file and of(change.file)) for change in changes]
            for folder, changes in self._pending.items()
        }
        return copied

    @property
    def is_synced(self) -> bool:
        """Whether a loss of power would change nothing."""
        return not any(self._pending.values()) and all(file.is_synced for file in self._files.values())

    def key(self, unread: str) -> tuple[object, ...]:
        """All that it holds, to be compared; of a file's name what chance gave it does not count.

        `unread`: the ending of names of files that no worker reads. Their bytes do not count either, unless the file is
        also there, or was, or may be after a loss of power, under another name.
        """
        numbers: dict[_File, int] = {}

        def of(path: Path, file: _File | None) -> tuple[str, _File | int | None]:
            return path.parent.name + path.name[:20] + path.suffix, file and numbers.setdefault(file, len(numbers))

        files = [tuple(sorted(of(*item) for item in each.items())) for each in (self._files, self._durable_files)]
        pending = [
            (*of(change.path, change.file), change.old is None) for each in self._pending.values() for change in each
        ]
        folders = (*self._folders, *self._durable_folders)
        named = [item for each in (self._files, self._durable_files) for item in each.items()]
        named += [(change.path, change.file) for each in self._pending.values() for change in each if change.file]
        read = {file for path, file in named if path.suffix != unread}
        contents = tuple((bytes(file.data), file.durable) if file in read else None for file in numbers)
        return (*files, tuple(pending), folders, contents)

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder."""
        return [path.name for path in (*self._files, *self._folders) if path.parent == folder and path.name]

    def contents(self, folder: Path, ending: str) -> tuple[tuple[str, bytes], ...]:
        """Return names and bytes of the files in a folder whose names end so."""
        found = (item for item in self._files.items() if item[0].parent == folder and item[0].suffix == ending)
        return tuple((path.name, bytes(file.data)) for path, file in found)

    def status(self, path: Path) -> FileStatus:
        """Return a file's time and size."""
        file = self._file(path)
        return FileStatus(file.modified_at_s, len(file.data))

    def read(self, path: Path) -> Content:
        """Return a file's bytes."""
        return np.frombuffer(bytearray(self._file(path).data), np.uint8)

    def create(self, path: Path) -> NewFile:
        """Make a file, or empty the one that is there."""
        if path.parent not in self._folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        file = self._files.get(path)
        if file is None:
            self._refuse_full()
            file = _File()
            self._change(_Change(path, file))
        file.data = b""
        return _Handle(self, file)

    def rename(self, old: Path, new: Path) -> None:
        """Give a file another name."""
        self._change(_Change(new, self._file(old), old))

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        if path in self._files:
            self._change(_Change(path, None))

    def is_folder(self, path: Path) -> bool:
        """Whether there is such a folder."""
        return path in self._folders

    def make_folder(self, path: Path) -> None:
        """Make a folder."""
        if path not in self._folders:
            self._refuse_full()
            self._change(_Change(path, None, is_folder=True))

    def sync_folder(self, folder: Path) -> None:
        """Make a folder's names durable."""
        for change in self._pending.pop(folder, ()):
            _apply(change, self._durable_files, self._durable_folders)

    def lose_power(self, random: Random) -> None:
        """Lose what was not synced: of changed names and bytes a part that is drawn is there afterwards."""
        for changes in self._pending.values():
            kept = random.choice((0, len(changes), random.randint(0, len(changes))))
            is_in_order = random.random() < 0.5
            for number, change in enumerate(changes):
                if number < kept if is_in_order else random.random() < 0.5:
                    _apply(change, self._durable_files, self._durable_folders)
        self._pending.clear()
        self._folders = {folder: None for folder in self._durable_folders if self._is_held(folder)}
        self._files = {path: file for path, file in self._durable_files.items() if path.parent in self._folders}
        self._durable_files, self._durable_folders = dict(self._files), dict(self._folders)
        for file in self._files.values():
            if not file.is_synced:
                file.data = _torn(file, random)
                file.sync()

    def certain(self) -> "SimulatedDisk":
        """Return the disk as any loss of power would leave it at least: what is certain to be there, and whole."""
        left = SimulatedDisk(self.now_s)
        left._folders = {folder: None for folder in self._durable_folders if self._is_held(folder)}
        for path, file in self._durable_files.items():
            changes = self._pending.get(path.parent, ())
            stands_for = [file, *(change.file for change in changes if change.path == path)]
            is_moved = any(change.old == path for change in changes)
            if path.parent in left._folders and not is_moved and all(each and each.is_synced for each in stands_for):
                left._files[path] = file
        return left

    def _refuse_full(self) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _is_held(self, folder: Path) -> bool:
        return folder == Path() or (folder in self._durable_folders and self._is_held(folder.parent))

    def _file(self, path: Path) -> _File:
        if path not in self._files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._files[path]

    def _change(self, change: _Change) -> None:
        _apply(change, self._files, self._folders)
        self._pending.setdefault(change.path.parent, []).append(change)


class _Handle:
    """A file that is open to be written; two may be open of the same file."""

    def __init__(self, disk: SimulatedDisk, file: _File) -> None:
        self._disk, self._file, self._position = disk, file, 0

    def write(self, part: memoryview) -> None:
        is_cut = self._disk.is_full
        if is_cut:
            part = part[: len(part) // 2]
        data, end = self._file.data, self._position + len(part)
        if isinstance(data, bytes):
            data = self._file.data = bytearray(data)
        if len(data) < self._position:
            data.extend(bytes(self._position - len(data)))
        data[self._position : end] = part
        self._position = end
        self._file.modified_at_s = self._disk.now_s
        if is_cut:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def sync(self) -> None:
        self._file.sync()

    def close(self) -> None:
        """Nothing is held."""


def _apply(change: _Change, files: dict[Path, _File], folders: dict[Path, None]) -> None:
    if change.is_folder:
        folders[change.path] = None
    elif change.file is None:
        files.pop(change.path, None)
    else:
        if change.old is not None:
            files.pop(change.old, None)
        files[change.path] = change.file


def _torn(file: _File, random: Random) -> bytes:
    """Return what a loss of power leaves of a file that was written to since it was synced."""
    written = bytes(file.data)
    cut = random.randint(0, len(written))
    return random.choice((file.durable, written, written[:cut], written[:cut] + bytes(len(written) - cut)))

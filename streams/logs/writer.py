"""Log files written as a stream, plain or compressed."""

import gzip
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self, cast

import zstandard
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.logs.errors import LogWriteError
from thalweg.streams.printable import printable_bytes


class LogWriter:
    """Write lines to a file or standard output (`-`), compressed where the name ends in `.gz` or `.zst`.

    On a terminal, what is not printable is escaped.

    Data is streamed to the file itself, so that a pipe or a growing file can be followed; a run that dies leaves what
    it wrote. The same bytes written give the same file (gzip's time is 0).

    Parameters
    ----------
    path
        The file, or `-` for standard output.
    inputs
        Files being read, which the output must not overwrite.

    append_at
        Where the lines begin in a file that is there; what follows is cut off. None: the file is emptied.

    Raises
    ------
    LogWriteError
        The file can't be written, or is one of the inputs; `write`, `flush`, `sync` and `close` raise it too.

    """

    def __init__(self, path: str | Path, *, inputs: Iterable[str | Path] = (), append_at: int | None = None) -> None:
        """Open the file; the parameters are the class's."""
        self.name = "standard output" if str(path) == STANDARD_STREAM else str(path)
        self.bytes_written = 0
        self._standard = str(path) == STANDARD_STREAM
        file = sys.stdout.buffer if self._standard else self._open(Path(path), inputs, append_at)
        self._files: list[IO[bytes]] = [file]
        self._is_terminal = self._standard and file.isatty()
        ending = "" if self._standard else Path(path).suffix.lower()
        if ending == ".gz":
            self._files.append(cast(IO[bytes], gzip.GzipFile("", "wb", 6, self._files[0], mtime=0)))
        elif ending == ".zst":
            self._files.append(
                zstandard.ZstdCompressor(write_checksum=True).stream_writer(self._files[0], closefd=False)
            )

    def __enter__(self) -> Self:
        """Enter a block that closes the file at its end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def write(self, data: bytes) -> None:
        """Write some lines."""
        with self._refusing():
            self._files[-1].write(printable_bytes(data) if self._is_terminal else data)
        self.bytes_written += len(data)

    def flush(self) -> None:
        """Hand what was written to the system."""
        with self._refusing():
            self._files[-1].flush()
            self._files[0].flush()

    def sync(self) -> None:
        """Wait until what was written will survive a loss of power, if it goes to a file."""
        self.flush()
        if self._standard:
            return
        with self._refusing():
            descriptor = self._files[0].fileno()
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fsync(descriptor)

    def close(self) -> None:
        """End the compressed stream and close the file; standard output is flushed and stays open."""
        with self._refusing(), ExitStack() as closing:
            for file in self._files:
                closing.callback(file.flush if self._standard else file.close)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what the system refuses into LogWriteError."""
        try:
            yield
        except BrokenPipeError:
            raise  # the reader of a pipe went away, which click ends quietly
        except OSError as error:
            raise LogWriteError(f"{self.name} can't be written: {error.strerror}") from None

    def _open(self, path: Path, inputs: Iterable[str | Path], append_at: int | None) -> BinaryIO:
        with _opening(path):
            _refuse_inputs(path, inputs)
            return open_output(path, append_at)


def refuse_output(path: str | None, inputs: Iterable[str | Path]) -> None:
    """Raise LogWriteError where a file that is to be written at the end of a run can't be, or is one of its inputs."""
    if path is None or path == STANDARD_STREAM:
        return
    file = Path(path)
    with _opening(file):
        _refuse_inputs(file, inputs)
        is_there = file.exists()
        if is_there and not (file.is_file() or file.is_dir()):
            return  # a pipe or a device: to open it would be noticed at its other end
        file.open("ab").close()
        if not is_there:
            file.unlink()


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Turn what the system refuses when a file is opened into LogWriteError."""
    try:
        yield
    except FileNotFoundError:
        raise LogWriteError(f"{path} can't be written: there is no folder {path.parent}") from None
    except IsADirectoryError:
        raise LogWriteError(f"{path} is a folder: name a file in it") from None
    except OSError as error:
        raise LogWriteError(f"{path} can't be written: {error.strerror}") from None


def _refuse_inputs(path: Path, inputs: Iterable[str | Path]) -> None:
    for source in map(Path, inputs):
        if str(source) != STANDARD_STREAM and path.exists() and source.exists() and path.samefile(source):
            raise LogWriteError(f"{path} is the file being read: write to another one")


def open_output(path: Path, append_at: int | None) -> BinaryIO:
    """Open a file to be written from a position on, emptied without one. Raises OSError where the system refuses."""
    if append_at is None:
        return path.open("wb")
    file = path.open("r+b")
    try:
        file.truncate(append_at)
        file.seek(append_at)
    except OSError:
        file.close()
        raise
    return cast(BinaryIO, file)

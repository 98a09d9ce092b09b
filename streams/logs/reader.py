"""Log files: events as JSON lines, plain or compressed, read as blocks of records and written as a stream."""

import gc
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self, cast

import zstandard
from thalweg.schemas.records import LogRecord
from thalweg.streams.printable import printable, printable_bytes

STANDARD_STREAM = "-"
LINE_BYTES_MAX = 4 * 1024 * 1024
BLOCK_BYTES_MAX = 16 * 1024 * 1024

_CHUNK_BYTES = 1024 * 1024
# Four bytes of zstd can stand for 128 KiB, and its decompressor takes no limit on what it returns: pieces this small
# bound that at 8 MiB, and cost nothing that shows.
_ZSTD_PIECE_BYTES = 256
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"


class LogError(Exception):
    """A log file can't be read or written; the message is one printable line and says what to do."""

    def __init__(self, message: str) -> None:
        """Take a line; what is not printable in it is escaped."""
        super().__init__(printable(message))


class LogReadError(LogError):
    """A file can't be read: what was read before is good, and may be kept."""


class LogWriteError(LogError):
    """A file can't be written: nobody knows how much of the last outputs is in it, so that no state may be saved."""


class LogReader:
    """Read a log file as blocks of records, in order, in bounded memory.

    The record of physical line n (from 0) has the offset `first_offset + n`. Every physical line is a record, a bad or
    an empty one too: deciding what can be used is the fold's, and offsets must not depend on it. A line ends with LF
    or CRLF; the last one may end with the file. Of a line longer than `line_bytes_max` only the first
    `line_bytes_max` bytes are kept, so that a line without end can't fill the memory: the record is far above what an
    event may hold and is dead-lettered as too large. `.gz` and `.zst` files are decompressed; what `-` (standard
    input) brings is told by its first bytes.

    Parameters
    ----------
    path
        The file, or `-` for standard input.
    block_lines
        Lines in a block; the last block may have fewer, and so may one that would hold over 16 MiB.
    first_offset
        Offset of the first line's record.
    line_bytes_max
        Bytes kept of one line.

    Raises
    ------
    LogReadError
        On opening: no such file, a folder, no permission, not the compression that the name says. While iterating:
        the file is empty, or its compressed data is damaged or ends early; every complete line before that has been
        given.

    """

    def __init__(
        self,
        path: str | Path,
        *,
        block_lines: int = 10_000,
        first_offset: int = 0,
        line_bytes_max: int = LINE_BYTES_MAX,
    ) -> None:
        """Open the file; the parameters are the class's."""
        if block_lines < 1:
            raise ValueError(f"block_lines must be at least 1, not {block_lines}")
        self.name = "standard input" if str(path) == STANDARD_STREAM else str(path)
        self.bytes_read = 0
        self.bytes_total: int | None = None
        self.lines = 0
        self._block_lines = block_lines
        self._first_offset = first_offset
        self._line_bytes_max = line_bytes_max
        self._standard = str(path) == STANDARD_STREAM
        self._file: IO[bytes] = sys.stdin.buffer if self._standard else self._open(Path(path))
        try:
            self._head = self._read(_CHUNK_BYTES)
            while 0 < len(self._head) < len(_ZSTD) and (more := self._read(_CHUNK_BYTES)):
                self._head += more
            self._compression = self._choose_compression(Path(path).suffix.lower())
        except LogReadError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Enter a block that closes the file at its end."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if not self._standard:
            self._file.close()

    def __iter__(self) -> Iterator[list[LogRecord]]:
        """Give the blocks; once only, for what has been read from a pipe is gone."""
        pending: list[bytes] = []
        pending_bytes = 0
        size = self._block_lines
        damage: LogReadError | None = None
        try:
            for lines, lines_bytes in self._line_lists():
                pending += lines
                pending_bytes += lines_bytes
                whole = len(pending) - len(pending) % size
                for start in range(0, whole, size):
                    yield self._block(pending[start : start + size])
                if whole:
                    pending = pending[whole:]
                    pending_bytes = sum(map(len, pending))
                if pending_bytes > BLOCK_BYTES_MAX:
                    yield self._block(pending)
                    pending, pending_bytes = [], 0
        except LogReadError as error:
            damage = error
        if pending:
            yield self._block(pending)
        if damage is not None:
            raise LogReadError(f"{damage} (its {self.lines} complete lines were read)") from None
        if not self.lines:
            raise LogReadError(f"{self.name} is empty: a log has one JSON event a line")

    def _block(self, lines: list[bytes]) -> list[LogRecord]:
        start = self._first_offset + self.lines
        self.lines += len(lines)
        fields = zip(range(start, start + len(lines)), lines, repeat(None), repeat(()), strict=False)
        # LogRecord(...) runs Python code for every line; this makes the same tuples at twice the rate. The garbage
        # collector would walk the growing block again and again, for a third of the time: nothing here makes cycles.
        collecting = gc.isenabled()
        gc.disable()
        try:
            return list(map(tuple.__new__, repeat(LogRecord), fields))
        finally:
            if collecting:
                gc.enable()

    def _line_lists(self) -> Iterator[tuple[list[bytes], int]]:
        """Cut the chunks into lines, and say about how many bytes they are; an unfinished line waits for more."""
        limit = self._line_bytes_max
        tail = b""
        for chunk in self._decompressed():
            text = tail + chunk
            lines = text.split(b"\n")
            tail = lines.pop()
            if len(text) > limit or b"\r" in text:
                lines = [self._line(line) for line in lines]
                # One byte above the limit stays: it may be the CR of a line that just fits. The rest is dropped.
                tail = tail[: limit + 1]
            if lines:
                yield lines, len(text)
        if tail:
            yield [self._line(tail)], len(tail)

    def _line(self, line: bytes) -> bytes:
        return line.removesuffix(b"\r")[: self._line_bytes_max]

    def _decompressed(self) -> Iterator[bytes]:
        chunks = self._chunks()
        if self._compression == "gzip":
            return self._gunzip(chunks)
        return self._unzstd(chunks) if self._compression == "zstd" else chunks

    def _chunks(self) -> Iterator[bytes]:
        chunk, self._head = self._head, b""
        while chunk:
            yield chunk
            chunk = self._read(_CHUNK_BYTES)

    def _gunzip(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        member = zlib.decompressobj(wbits=31)
        started = False
        try:
            for chunk in chunks:
                rest = chunk
                while rest:
                    if member.eof:
                        rest = rest.lstrip(b"\0")  # tape and block tools pad with zeros
                        if not rest:
                            break
                        member = zlib.decompressobj(wbits=31)
                    started = True
                    yield member.decompress(rest, _CHUNK_BYTES)
                    rest = member.unused_data if member.eof else member.unconsumed_tail
                while not member.eof and (more := member.decompress(b"", _CHUNK_BYTES)):
                    yield more
        except zlib.error as error:
            raise LogReadError(f"{self.name} is damaged gzip ({error}): make or fetch it again") from None
        self._refuse_cut(started and not member.eof, "gzip")

    def _unzstd(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor()
        frame = decompressor.decompressobj()
        inside = False
        try:
            for chunk in chunks:
                parts: list[bytes] = []
                parts_bytes = 0
                for start in range(0, len(chunk), _ZSTD_PIECE_BYTES):
                    rest = chunk[start : start + _ZSTD_PIECE_BYTES]
                    while rest:
                        parts.append(frame.decompress(rest))
                        parts_bytes += len(parts[-1])
                        inside = not frame.eof
                        rest = b"" if inside else frame.unused_data
                        if not inside:
                            frame = decompressor.decompressobj()
                    if parts_bytes >= _CHUNK_BYTES:
                        yield b"".join(parts)
                        parts, parts_bytes = [], 0
                yield b"".join(parts)
        except zstandard.ZstdError as error:
            raise LogReadError(f"{self.name} is damaged zstd ({error}): make or fetch it again") from None
        self._refuse_cut(inside, "zstd")

    def _refuse_cut(self, cut: bool, compression: str) -> None:
        if cut:
            raise LogReadError(f"{self.name} ends in the middle of its {compression} data: make or fetch it again")

    def _open(self, path: Path) -> BinaryIO:
        try:
            status = path.stat()
            if stat.S_ISDIR(status.st_mode):
                raise LogReadError(f"{path} is a folder: name one log file in it")
            if stat.S_ISREG(status.st_mode):
                self.bytes_total = status.st_size
            return path.open("rb", buffering=0)
        except FileNotFoundError:
            raise LogReadError(f"{path}: no such file") from None
        except OSError as error:
            raise LogReadError(f"{path} can't be read: {error.strerror}") from None

    def _read(self, size: int) -> bytes:
        # read1 hands on what a slow pipe has brought so far.
        try:
            chunk = cast(BinaryIO, self._file).read1(size) if self._standard else self._file.read(size)  # type: ignore[attr-defined]
        except OSError as error:
            raise LogReadError(f"{self.name} can't be read: {error.strerror}") from None
        self.bytes_read += len(chunk)
        return cast(bytes, chunk)

    def _choose_compression(self, ending: str) -> str:
        head = self._head
        found = "gzip" if head.startswith(_GZIP) else "zstd" if head.startswith(_ZSTD) else ""
        if head.startswith(_PARQUET):
            raise LogReadError(f"{self.name} is a Parquet table: turn it into a log with `thalweg import` first")
        if self._standard or not head:
            return found
        named = {".gz": "gzip", ".zst": "zstd"}.get(ending, "")
        if named and not found:
            raise LogReadError(f"{self.name} is not {named} data, as its name says: rename or compress it")
        if found != named:
            raise LogReadError(
                f"{self.name} is {found} data: let its name end in {'.gz' if found == 'gzip' else '.zst'}"
            )
        return found


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
        try:
            for source in map(Path, inputs):
                if str(source) != STANDARD_STREAM and path.exists() and source.exists() and path.samefile(source):
                    raise LogWriteError(f"{path} is the file being read: write to another one")
            return open_output(path, append_at)
        except FileNotFoundError:
            raise LogWriteError(f"{path} can't be written: there is no folder {path.parent}") from None
        except IsADirectoryError:
            raise LogWriteError(f"{path} is a folder: name a file in it") from None
        except OSError as error:
            raise LogWriteError(f"{path} can't be written: {error.strerror}") from None


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

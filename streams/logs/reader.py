"""Log files: events as JSON lines, plain or compressed, read as blocks of records."""

import gc
import os
import stat
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Self, cast

from thalweg.schemas.records import LogRecord
from thalweg.streams.logs.compression import (
    HEAD_BYTES,
    STANDARD_STREAM,
    chosen_compression,
    compression_of,
    decompressed,
    foreign_kind,
)
from thalweg.streams.logs.errors import LogReadError

LINE_BYTES_MAX = 4 * 1024 * 1024
BLOCK_BYTES_MAX = 16 * 1024 * 1024

_CHUNK_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LogReader:
    """Read a log file as blocks of records, in order, in bounded memory.

    The record of physical line n (from 0) has the offset `first_offset + n`. Every physical line is a record, a bad or
    an empty one too: deciding what can be used is the fold's, and offsets must not depend on it. A line ends with LF
    or CRLF; the last one may end with the file. Of a line longer than `line_bytes_max` only the first
    `line_bytes_max` bytes are kept, so that a line without end can't fill the memory: the record is far above what an
    event may hold and is dead-lettered as too large. `.gz` and `.zst` files are decompressed; what `-` (standard
    input) brings is recognised by its first bytes. A byte order mark at the file's beginning is no part of its first
    line.

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
        On opening: no such file, a folder, no permission, not the compression that the name says, another kind of
        file. While iterating: the file is empty or becomes shorter, or its compressed data is damaged or ends early;
        every complete line before that has been given.

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
        self._size_seen = _regular_size(self._file)
        try:
            self._head = self._read(_CHUNK_BYTES)
            while 0 < len(self._head) < HEAD_BYTES and (more := self._read(_CHUNK_BYTES)):
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
        is_first = True
        for chunk in decompressed(self._chunks(), self._compression, self.name):
            text = tail + chunk
            if is_first:
                is_first = len(text) < len(_BYTE_ORDER_MARK) and b"\n" not in text
                text = text.removeprefix(_BYTE_ORDER_MARK)
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

    def _chunks(self) -> Iterator[bytes]:
        chunk, self._head = self._head, b""
        while chunk:
            yield chunk
            chunk = self._read(_CHUNK_BYTES)

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
        self._refuse_shorter()
        return cast(bytes, chunk)

    def _refuse_shorter(self) -> None:
        """Refuse a regular file that has lost bytes since it was opened: what follows is not what it was."""
        if self._size_seen is None:
            return
        size = os.fstat(self._file.fileno()).st_size
        if size < self._size_seen:
            raise LogReadError(
                f"{self.name} became shorter while it was read, from {self._size_seen:,} to {size:,} bytes: "
                "read a log that is only appended to"
            )
        self._size_seen = size

    def _choose_compression(self, ending: str) -> str:
        if (kind := foreign_kind(self._head)) is not None:
            raise LogReadError(f"{self.name} is {kind}")
        if self._standard:
            return compression_of(self._head)
        return chosen_compression(self.name, ending, self._head)


def _regular_size(file: IO[bytes]) -> int | None:
    """Return the size of a regular file, None for a pipe, a device or what has no descriptor."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # a stream in memory
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None

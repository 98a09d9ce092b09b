"""What the first bytes of a file say it is, and compressed data as a stream in bounded memory."""

import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import zstandard
from thalweg.streams.logs.errors import LogReadError

STANDARD_STREAM = "-"
CHUNK_BYTES = 1024 * 1024
# Four bytes of zstd can stand for 128 KiB, and its decompressor takes no limit on what it returns: pieces this small
# bound that at 8 MiB, and cost nothing that shows.
ZSTD_PIECE_BYTES = 256
HEAD_BYTES = 8
"""Bytes at a file's beginning that are enough to recognise it."""

GZIP, ZSTD = "gzip", "zstd"
ENDINGS = {".gz": GZIP, ".zst": ZSTD}

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# A skippable frame, as pzstd and seekable zstd write: any of sixteen first bytes, then these.
_SKIPPABLE_FIRST, _SKIPPABLE_REST = range(0x50, 0x60), b"\x2a\x4d\x18"
_FOREIGN = {
    b"BZh": "bzip2 data: decompress it first, as with bzcat",
    b"\xfd7zXZ\x00": "xz data: decompress it first, as with xzcat",
    b"\x04\x22\x4d\x18": "lz4 data: decompress it first, as with lz4cat",
    b"\xff\x06\x00\x00sNaPp"[:8]: "snappy data: decompress it first",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"PAR1": "a Parquet table: turn it into a log with `thalweg import` first",
    b"ARROW1": "an Arrow table: turn it into a log with `thalweg import` first",
    b"Obj\x01": "an Avro file: write it as JSON lines first",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


def compression_of(head: bytes) -> str:
    """Return `gzip`, `zstd` or nothing, from the first `HEAD_BYTES` of a file.

    >>> compression_of(b"\\x1f\\x8b\\x08"), compression_of(b"\\x50\\x2a\\x4d\\x18"), compression_of(b'{"type":')
    ('gzip', 'zstd', '')
    """
    if head.startswith(_GZIP):
        return GZIP
    is_skippable = len(head) >= 4 and head[0] in _SKIPPABLE_FIRST and head[1:4] == _SKIPPABLE_REST
    return ZSTD if is_skippable or head.startswith(_ZSTD) else ""


def foreign_kind(head: bytes) -> str | None:
    """Return what a file is that holds no lines of text, and what to do with it; None if it may be a log."""
    return next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)


def chosen_compression(name: str, ending: str, head: bytes) -> str:
    """Return the compression of a file, which its name must state.

    Raises LogReadError where name and data contradict each other.
    """
    found, named = compression_of(head), ENDINGS.get(ending, "")
    if named and head and not found:
        raise LogReadError(f"{name} is not {named} data, as its name says: rename or compress it")
    if head and found != named:
        raise LogReadError(f"{name} is {found} data: let its name end in {'.gz' if found == GZIP else '.zst'}")
    return found


def decompressed(chunks: Iterable[bytes], compression: str, name: str) -> Iterator[bytes]:
    """Give the data of a compressed file in chunks, of all its frames or members.

    Raises LogReadError where the data is damaged or ends early; `name` is the file's, for the message.
    """
    if compression == GZIP:
        return _gunzip(chunks, name)
    return _unzstd(chunks, name) if compression == ZSTD else iter(chunks)


def _gunzip(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
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
                yield member.decompress(rest, CHUNK_BYTES)
                rest = member.unused_data if member.eof else member.unconsumed_tail
            while not member.eof and (more := member.decompress(b"", CHUNK_BYTES)):
                yield more
    except zlib.error as error:
        raise LogReadError(f"{name} is damaged gzip ({error}): make or fetch it again") from None
    _refuse_cut(started and not member.eof, GZIP, name)


def _unzstd(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    inside = False
    try:
        for chunk in chunks:
            parts: list[bytes] = []
            parts_bytes = 0
            for start in range(0, len(chunk), ZSTD_PIECE_BYTES):
                rest = chunk[start : start + ZSTD_PIECE_BYTES]
                while rest:
                    parts.append(frame.decompress(rest))
                    parts_bytes += len(parts[-1])
                    inside = not frame.eof
                    rest = b"" if inside else frame.unused_data
                    if not inside:
                        frame = decompressor.decompressobj()
                if parts_bytes >= CHUNK_BYTES:
                    yield b"".join(parts)
                    parts, parts_bytes = [], 0
            yield b"".join(parts)
    except zstandard.ZstdError as error:
        raise LogReadError(f"{name} is damaged zstd ({error}): make or fetch it again") from None
    _refuse_cut(inside, ZSTD, name)


def _refuse_cut(is_cut: bool, compression: str, name: str) -> None:
    if is_cut:
        raise LogReadError(f"{name} ends in the middle of its {compression} data: make or fetch it again")


class ByteStream(io.RawIOBase):
    """Chunks of bytes as a file that is read once, from its beginning to its end."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        """Read the chunks one after the other."""
        super().__init__()
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True: this is a file to read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer as far as the present chunk reaches, and return how far that is; 0 is the end."""
        while not len(self._rest):
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

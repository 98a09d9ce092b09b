"""Log files: every physical line is a record at its offset, whatever the file's form; damage is one clear line."""

import gzip
import io
import os
import random
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from thalweg.schemas.records import LogRecord
from thalweg.streams.logs.compression import compression_of, foreign_kind
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "log.jsonl": bytes,
    "log.jsonl.gz": gzip.compress,
    "log.jsonl.zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def read(path: str | Path, **options: Any) -> list[LogRecord]:
    with LogReader(path, **options) as log:
        return [record for block in log for record in block]


def values(path: str | Path, **options: Any) -> list[bytes | None]:
    return [record.value for record in read(path, **options)]


def write(folder: Path, content: bytes, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_bytes(COMPRESS[name](content))
    return path


@pytest.mark.parametrize("name", COMPRESS)
def test_records_are_lines_in_blocks(tmp_path: Path, name: str) -> None:
    """Blocks must have the size asked for, and records the offsets of their physical lines."""
    path = write(tmp_path, b"".join(b"%d\n" % n for n in range(25)), name)
    with LogReader(path, block_lines=10, first_offset=100) as log:
        blocks = list(log)
    assert [len(block) for block in blocks] == [10, 10, 5]
    assert [record for block in blocks for record in block] == [LogRecord(100 + n, b"%d" % n) for n in range(25)]
    assert all(type(record) is LogRecord for block in blocks for record in block)
    assert log.lines == 25
    assert log.bytes_read == log.bytes_total == path.stat().st_size


def test_empty_lines_count_and_line_ends_may_be_windows_or_missing(tmp_path: Path) -> None:
    """An empty line is a record, CRLF is LF, one CR only is dropped, and the last line needs no end."""
    assert values(write(tmp_path, b"a\r\n\n\r\nb\r\r\nc")) == [b"a", b"", b"", b"b\r", b"c"]
    assert values(write(tmp_path, b"\n")) == [b""]


@given(
    lines=st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"").rstrip(b"\r")), min_size=1),
    name=st.sampled_from(sorted(COMPRESS)),
    block=st.integers(1, 9),
    chunk=st.integers(1, 40),
    crlf=st.booleans(),
)
def test_lines_come_out_as_they_went_in(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], name: str, block: int, chunk: int, crlf: bool
) -> None:
    """Any lines must come out unchanged, however the file falls into chunks and blocks."""
    end = b"\r\n" if crlf else b"\n"
    path = write(tmp_path_factory.mktemp("log"), end.join(lines) + end, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("thalweg.streams.logs.reader._CHUNK_BYTES", chunk)
        patch.setattr("thalweg.streams.logs.compression.ZSTD_PIECE_BYTES", 7)
        if lines[0][:3] == b"\xef\xbb\xbf" or compression_of(lines[0]) or foreign_kind(lines[0]):
            return
        assert values(path, block_lines=block) == lines


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("chunk", [3, 10, 11, 12, 1000])
def test_a_line_above_the_limit_is_cut_to_it(
    tmp_path: Path, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long line must be one record of the limit's length, and the lines around it must stay whole."""
    monkeypatch.setattr("thalweg.streams.logs.reader._CHUNK_BYTES", chunk)
    content = b"a\n" + b"x" * 10 + b"\r\n" + b"y" * 11 + b"\nb\n" + b"z" * 500 + b"\r\nc\n" + b"w" * 40
    cut = [b"a", b"x" * 10, b"y" * 10, b"b", b"z" * 10, b"c", b"w" * 10]
    assert values(write(tmp_path, content, name), line_bytes_max=10) == cut


@pytest.mark.parametrize("name", COMPRESS)
def test_a_line_without_end_stays_within_memory(tmp_path: Path, name: str) -> None:
    """100 MiB without a line end, also out of a small compressed file, must not be held in memory."""
    path = write(tmp_path, b"a\n" + b"x" * (100 << 20), name)
    tracemalloc.start()
    found = values(path, line_bytes_max=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [b"a", b"x" * (1 << 16)]
    assert peak < 64 << 20


def test_blocks_of_long_lines_are_cut_by_bytes(tmp_path: Path) -> None:
    """A block must not hold much more than 16 MiB, however many lines were asked for."""
    path = write(tmp_path, (b"x" * 1_000_000 + b"\n") * 50)
    with LogReader(path, block_lines=1000) as log:
        sizes = [len(block) for block in log]
    assert sum(sizes) == 50
    assert max(sizes) <= 19


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
def test_compressed_parts_in_a_row_are_one_log(tmp_path: Path, name: str) -> None:
    """Compressed files that were appended to each other must be read to the end."""
    path = tmp_path / name
    path.write_bytes(COMPRESS[name](b"a\nb") + COMPRESS[name](b"c\n") + COMPRESS[name](b"d\n"))
    assert values(path) == [b"a", b"bc", b"d"]


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_log_gives_its_complete_lines_and_then_says_so(tmp_path: Path, name: str, share: float) -> None:
    """Every complete line before the cut must come out, the incomplete one not, and then one clear line."""
    source = random.Random(7)
    lines = [b"%d %s" % (n, source.randbytes(20).hex().encode()) for n in range(20_000)]
    path = write(tmp_path, b"\n".join(lines) + b"\n", name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    found: list[bytes | None] = []
    with LogReader(path) as log, pytest.raises(LogError, match="ends in the middle of its") as refusal:
        found.extend(record.value for block in log for record in block)
    assert found == lines[: len(found)]
    assert len(found) > 10_000 * share
    assert f"its {len(found)} complete lines were read" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["log.jsonl.gz", "log.jsonl.zst"])
def test_damaged_compression_is_told(tmp_path: Path, name: str) -> None:
    """Overwritten bytes in a compressed log must be told as damage, not end in a traceback."""
    source = random.Random(7)
    path = write(tmp_path, b"\n".join(source.randbytes(30).hex().encode() for _ in range(50_000)), name)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(LogError, match="is damaged"):
        read(path)


def test_files_that_are_no_logs_are_refused_in_one_line(tmp_path: Path) -> None:
    """No such file, a folder, an empty file, wrong endings and tables must each say what to do."""
    files = {
        "empty.jsonl": (b"", "is empty"),
        "empty.jsonl.gz": (b"", "is empty"),
        "nothing.jsonl.gz": (gzip.compress(b""), "is empty"),
        "plain.jsonl.gz": (b"{}\n", "is not gzip data"),
        "plain.jsonl.zst": (b"{}\n", "is not zstd data"),
        "packed.jsonl": (gzip.compress(b"{}\n"), "let its name end in .gz"),
        "packed.jsonl.gz": (zstandard.compress(b"{}\n"), "let its name end in .zst"),
        "table.parquet": (b"PAR1....", "thalweg import"),
    }
    for name, (content, expected) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(LogError, match=expected) as refusal:
            read(tmp_path / name)
        assert "\n" not in str(refusal.value)
    with pytest.raises(LogError, match="no such file"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(LogError, match="is a folder"):
        read(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    """A file that may not be read must be told as such."""
    path = write(tmp_path, b"{}\n")
    path.chmod(0)
    with pytest.raises(LogError, match="can't be read: Permission denied"):
        read(path)


@pytest.mark.parametrize("name", COMPRESS)
def test_standard_input_may_be_compressed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes through a pipe must be read as its first bytes say."""
    stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(COMPRESS[name](b"a\nb\n"))))
    monkeypatch.setattr(sys, "stdin", stream)
    with LogReader("-") as log:
        assert [record.value for block in log for record in block] == [b"a", b"b"]
    assert log.bytes_total is None
    assert not stream.closed


@pytest.mark.parametrize("name", COMPRESS)
def test_what_is_written_reads_back(tmp_path: Path, name: str) -> None:
    """A written log must read back, and be the same file when written again."""
    files = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        with LogWriter(tmp_path / folder / name) as log:
            log.write(b"x\ny\n")
            log.flush()
            log.write(b"z\n")
        assert log.bytes_written == 6
        assert values(tmp_path / folder / name) == [b"x", b"y", b"z"]
        files.append((tmp_path / folder / name).read_bytes())
    assert files[0] == files[1]


def test_standard_output_is_flushed_and_left_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Writing to `-` must reach standard output and leave it usable."""
    with LogWriter("-") as log:
        log.write(b"x\n")
    assert capfdbinary.readouterr().out == b"x\n"
    assert not sys.stdout.buffer.closed


def test_outputs_that_can_not_be_are_refused(tmp_path: Path) -> None:
    """No folder, a folder instead of a file, and the input itself must be refused before anything is lost."""
    log = write(tmp_path, b"x\n")
    with pytest.raises(LogError, match="there is no folder"):
        LogWriter(tmp_path / "absent" / "log.jsonl")
    with pytest.raises(LogError, match="is a folder"):
        LogWriter(tmp_path)
    (tmp_path / "same.jsonl").symlink_to(log)
    with pytest.raises(LogError, match="is the file being read"):
        LogWriter(tmp_path / "same.jsonl", inputs=[log, "-"])
    assert log.read_bytes() == b"x\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device_is_told() -> None:
    """Where nothing more fits, the answer must be one line."""
    with pytest.raises(LogError, match="can't be written: No space left"), LogWriter("/dev/full") as log:
        log.write(b"x" * 1_000_000)


SKIPPABLE = struct.pack("<II", 0x184D2A50, 4) + b"size"


def zst(content: bytes) -> bytes:
    return COMPRESS["log.jsonl.zst"](content)


@pytest.mark.parametrize("chunk", [1, 3, 1000])
@pytest.mark.parametrize("at", ["file", "-"])
@pytest.mark.parametrize(
    "content",
    [
        SKIPPABLE + zst(b"a\nb\n"),
        SKIPPABLE.replace(b"\x50", b"\x5f") + zst(b"a\n") + SKIPPABLE + zst(b"b\n") + SKIPPABLE,
        zst(b"a") + SKIPPABLE + SKIPPABLE + zst(b"") + zst(b"\nb\n"),
    ],
)
def test_skippable_frames_of_zstd_are_passed_over(
    tmp_path: Path, content: bytes, at: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames without data, first, between and last, must change nothing of the log, in a file and on standard input."""
    monkeypatch.setattr("thalweg.streams.logs.reader._CHUNK_BYTES", chunk)
    if at == "file":
        (tmp_path / "log.jsonl.zst").write_bytes(content)
        at = str(tmp_path / "log.jsonl.zst")
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    assert values(at) == [b"a", b"b"]


def test_a_cut_skippable_frame_is_told(tmp_path: Path) -> None:
    """A file that ends inside a skippable frame must be refused as incomplete, one of nothing else as empty."""
    path = tmp_path / "log.jsonl.zst"
    path.write_bytes(SKIPPABLE[:-2])
    with pytest.raises(LogError, match="ends in the middle of its zstd data"):
        read(path)
    path.write_bytes(SKIPPABLE)
    with pytest.raises(LogError, match="is empty"):
        read(path)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"BZh91AY&SY", "is bzip2 data"),
        (b"\xfd7zXZ\x00\x00\x04", "is xz data"),
        (b"\x04\x22\x4d\x18", "is lz4 data"),
        (b"\xff\x06\x00\x00sNaPpY", "is snappy data"),
        (b"PK\x03\x04....", "is a zip archive"),
        (b"ARROW1\0\0", "is an Arrow table"),
        (b"Obj\x01....", "is an Avro file"),
        ('{"a":1}'.encode("utf-16"), "is UTF-16 text"),
    ],
)
@pytest.mark.parametrize("at", ["file", "-"])
def test_what_holds_no_lines_is_refused(
    tmp_path: Path, head: bytes, expected: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data that would be dead letters from end to end must be refused as what it is."""
    if at == "file":
        at = str(write(tmp_path, head))
    else:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(head))))
    with pytest.raises(LogError, match=expected):
        read(at)


@pytest.mark.parametrize("name", COMPRESS)
@pytest.mark.parametrize("chunk", [1, 2, 1000])
def test_a_byte_order_mark_is_no_part_of_the_first_line(
    tmp_path: Path, name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark at the file's beginning must be dropped, one anywhere else kept."""
    monkeypatch.setattr("thalweg.streams.logs.reader._CHUNK_BYTES", chunk)
    mark = b"\xef\xbb\xbf"
    assert values(write(tmp_path, mark + b"a\n" + mark + b"b\n", name)) == [b"a", mark + b"b"]
    assert values(write(tmp_path, b"a\n" + mark + b"b\n", name)) == [b"a", mark + b"b"]


@pytest.mark.parametrize("at", ["file", "-"])
def test_a_log_that_becomes_shorter_is_an_error(tmp_path: Path, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is cut while it is read must end in one line; one that grows is read on."""
    monkeypatch.setattr("thalweg.streams.logs.reader._CHUNK_BYTES", 1000)
    path = write(tmp_path, b"x" * 9 + b"\n" + b"y" * 9 + b"\n" * 1 + b"z" * 9 + b"\n" * 4000)
    monkeypatch.setattr(sys, "stdin", path.open())
    with LogReader(path if at == "file" else "-", block_lines=10) as log:
        blocks = iter(log)
        assert len(next(blocks)) == 10
        with path.open("ab") as longer:
            longer.write(b"more\n")
        next(blocks)
        os.truncate(path, 500)
        with pytest.raises(LogError, match=r"became shorter while it was read, from 4,\d+ to 500 bytes"):
            list(blocks)
    sys.stdin.close()


def test_a_block_must_have_a_line(tmp_path: Path) -> None:
    """A block size below one is a mistake of the caller."""
    with pytest.raises(ValueError, match="block_lines"):
        LogReader(write(tmp_path, b"x\n"), block_lines=0)

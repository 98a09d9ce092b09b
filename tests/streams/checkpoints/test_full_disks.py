"""A disk that is full, at every write and every sync of a short log: what was saved is gone on from, byte for byte."""

import errno
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pytest
from click.testing import CliRunner, Result
from thalweg.streams.commands import main
from thalweg.streams.logs import writer

from tests.streams.logs_for_tests import sample

OUTPUTS = {"--out": "scores", "--examples": "examples", "--dead-letters": "letters", "--summary": "summary"}
"""Every output of a replay: the option that asks for it, and its file. One more is one more entry here."""
EVENTS, JUNK_EVERY, CHECKPOINT_EVENTS = 90, 5, 48
TIMED = ("seconds", "events_per_second", "warnings")  # warnings count the reasons of one run
SETTINGS = {
    "table.rows_limit": 1_024,
    "behaviors.users_limit": 256,
    "joiner.waiting_limit": 128,
    "joiner.feedback_limit": 128,
    "joiner.text_bytes": 1 << 18,
    "joiner.attribution_window_ms": 5_000,
    "sdim.histories_limit": 16,
    "error_memory.bits": 4,
    "error_memory.keyed_bits": 6,
}
ARGUMENTS = [
    *("replay", "log.jsonl", "--checkpoint", "state", "--batch-size", "1"),
    *(part for output in OUTPUTS.items() for part in output),
    *(part for setting in SETTINGS.items() for part in ("--set", "{}={}".format(*setting))),
]


class Outcome(NamedTuple):
    """What a replay left: the bytes of its files, and its summary, which has the digest, without what was timed."""

    files: dict[str, bytes]
    summary: dict[str, Any]


class FullDisk:
    """Refuses calls that write to one kind of file, from the n-th on, or that one alone if there is `room_afterwards`.

    A write that is refused was preceded by one of which half was done, as the system does it.
    """

    def __init__(self, is_full: Callable[[str], bool], first: int, room_afterwards: bool) -> None:
        self._is_full, self._first, self._room_afterwards = is_full, first, room_afterwards
        self._calls = 0
        self._write = os.write
        self.has_refused = False

    def write(self, descriptor: int, data: memoryview) -> int:
        if self._is_refused(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        is_short = self._calls == self._first - 1 and self._is_full(name_of(descriptor))
        return self._write(descriptor, data[: (len(data) + 1) // 2] if is_short else data)

    def fsync(self, descriptor: int) -> None:
        if self._is_refused(descriptor):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _is_refused(self, descriptor: int) -> bool:
        if not self._is_full(name_of(descriptor)):
            return False
        self._calls += 1
        refused = self._calls == self._first if self._room_afterwards else self._calls >= self._first
        self.has_refused |= refused
        return refused


def name_of(descriptor: int) -> str:
    return Path(f"/proc/self/fd/{descriptor}").readlink().name


class Raw(io.FileIO):
    """A file that is written by `os.write`, which a test can replace."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), memoryview(data))


def open_raw(path: Path, append_at: int | None) -> BinaryIO:
    raw = Raw(path, "w" if append_at is None else "r+")
    if append_at is not None:
        raw.truncate(append_at)
        raw.seek(append_at)
    return cast(BinaryIO, io.BufferedWriter(raw, 1 << 10))


def replay(status: int = 0) -> Result:
    """Run the command; its status must be as expected, a refusal one line."""
    result = CliRunner().invoke(main, ARGUMENTS)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.stderr
    if status:
        assert isinstance(result.exception, SystemExit), result.exception
        assert result.stderr.strip().splitlines()[-1].startswith("Error: ")
    return result


def outcome() -> Outcome:
    files = {name: Path(name).read_bytes() for name in OUTPUTS.values()}
    summary = json.loads(files.pop("summary"))
    return Outcome(files, {name: value for name, value in summary.items() if name not in TIMED})


@pytest.fixture
def undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """A short log in the current folder, and what comes of it where there is room."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("thalweg.streams.replay.replay.CHECKPOINT_EVENTS", CHECKPOINT_EVENTS)
    monkeypatch.setattr("thalweg.streams.replay.summary.print_table", lambda *told: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nobody turns the power off
    lines: list[bytes] = []
    for number, record in enumerate(sample(EVENTS)):
        lines += [record.value or b""] + [b"junk"] * (number % JUNK_EVERY == 0)
    Path("log.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    replay()
    found = outcome()
    assert all(file.count(b"\n") > 15 for file in found.files.values())
    assert found.summary["positives"] > 5
    start_over()
    return found


def start_over() -> None:
    shutil.rmtree("state", ignore_errors=True)
    for name in OUTPUTS.values():
        Path(name).unlink(missing_ok=True)


KINDS: dict[str, tuple[Callable[[str], bool], int]] = {
    **{name: (lambda file, name=name: file == name, 8) for name in OUTPUTS.values()},
    "summary": (lambda file: file == "summary", 1),
    "checkpoints": (lambda file: file.endswith(".writing"), 8),
}
"""By what is written: which files those are, and at how many calls, at least, a short log meets a full disk there."""


@pytest.mark.parametrize("room_afterwards", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_at_every_write(
    kind: str, room_afterwards: bool, undisturbed: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever a write or a sync fails, the command says so, and run again where there is room it makes the same."""
    monkeypatch.setattr(writer, "open_output", open_raw)
    monkeypatch.setattr("thalweg.streams.checkpoints.format.PIECE_BYTES", 1 << 17)  # fewer calls that are alike
    is_full, calls_min = KINDS[kind]
    for first in range(1, 1_000):
        disk = FullDisk(is_full, first, room_afterwards)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", disk.write)
            patch.setattr(os, "fsync", disk.fsync)
            if disk_has_room(disk):
                break
        replay()
        assert outcome() == undisturbed, f"call {first} of {kind}"
        start_over()
    assert first > calls_min


def disk_has_room(disk: FullDisk) -> bool:
    """Replay on a disk, and return whether it never refused anything; where it did the command must say so."""
    result = CliRunner().invoke(main, ARGUMENTS)
    assert "Traceback" not in result.stderr
    assert result.exit_code == disk.has_refused, result.output
    if disk.has_refused:
        assert isinstance(result.exception, SystemExit), result.exception
        assert "No space left" in result.stderr or "Input/output error" in result.stderr
    return not disk.has_refused


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount") or "mount"
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("only root may mount a file system; the test above fills one of its own making")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("option", list(OUTPUTS)[:-1])
def test_a_small_file_system_fills_up(option: str, undisturbed: Outcome, small_disk: Path) -> None:
    """A real file system without room: once it has some, the same command makes what it would have made."""
    name = OUTPUTS[option]
    Path(name).symlink_to(small_disk / name)
    status = os.statvfs(small_disk)
    room = len(undisturbed.files[name]) // 2
    (small_disk / "other").write_bytes(bytes(status.f_bavail * status.f_bsize - room))
    assert "No space left" in replay(1).stderr
    (small_disk / "other").unlink()
    replay()
    assert outcome() == undisturbed

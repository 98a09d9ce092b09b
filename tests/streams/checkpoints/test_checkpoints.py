"""Checkpoints: whole or not at all, the newest that verifies, and clear refusals of what can't be gone on from."""

import hashlib
import os
import stat
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from thalweg.streams.checkpoints.disk import Content, LocalDisk
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import (
    FORMAT,
    MAGIC,
    PIECE_BYTES,
    Checkpoint,
    CheckpointError,
    CheckpointStore,
    DamagedError,
    Identity,
    OutputEnd,
    encoded,
    header_of,
    joined,
    padded,
    read,
)
from thalweg.streams.configuration.loading import CheckpointSection, ConfigurationError, load
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import sample, small

IDENTITY = Identity("interactions", 0, small(), partitions=4)


def checkpoint(next_offset: int = 3, **arrays: Any) -> Checkpoint:
    header = header_of(
        IDENTITY,
        next_offset,
        "digest",
        last_record=b"last",
        outputs={"scores": OutputEnd(7, (2, 0)), "examples": OutputEnd()},
    )
    given = {"a.b": np.arange(12, dtype=np.int32).reshape(3, 4), "none": np.zeros((0, 5)), "tally/n": np.ones(1)}
    return Checkpoint(header, given | arrays)


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    """Header and arrays must come back as they were, and the folder must be made."""
    saved = checkpoint(flags=np.array([True, False]), deep=np.zeros((2, 0, 3), np.uint8))
    store = CheckpointStore(tmp_path / "new" / "folder")
    path = store.save(saved)
    loaded = store.load(IDENTITY)
    assert loaded is not None
    assert loaded.header == saved.header
    assert loaded.arrays.keys() == saved.arrays.keys()
    for name, array in saved.arrays.items():
        assert loaded.arrays[name].dtype == array.dtype
        assert np.array_equal(loaded.arrays[name], array)
        assert loaded.arrays[name].shape == array.shape
    assert list(loaded.part("tally")) == ["n"]
    assert set(loaded.part("")) == set(saved.arrays) - {"tally/n"}
    assert [path] == list((tmp_path / "new" / "folder").iterdir())


def test_nothing_there_is_none(tmp_path: Path) -> None:
    """A folder that is empty or absent must give no checkpoint and no refusal, and stay as it is."""
    assert CheckpointStore(tmp_path / "absent").load(IDENTITY) is None
    assert CheckpointStore(tmp_path).load(IDENTITY) is None
    assert not list(tmp_path.iterdir())


def test_the_same_state_gives_the_same_bytes() -> None:
    """A checkpoint's bytes must not depend on the order of its arrays, on memory layout, or on when it is written."""
    one = checkpoint()
    other = Checkpoint(one.header, dict(reversed(one.arrays.items())))
    other.arrays["a.b"] = np.asfortranarray(other.arrays["a.b"]).astype(">i4")
    assert b"".join(encoded(one)) == b"".join(encoded(other))


def test_small_arrays_are_written_as_one() -> None:
    """A piece is a call to the system; what is large is not copied, and everything keeps its place."""
    sizes = (10, 0, 64, PIECE_BYTES, PIECE_BYTES + 1, *[100] * 200, 3 * PIECE_BYTES - 5, 1)
    parts = [memoryview(bytes([number % 251 + 1]) * size) for number, size in enumerate(sizes)]
    pieces = list(joined(parts))
    assert b"".join(pieces) == b"".join(bytes(part).ljust(padded(len(part)), b"\0") for part in parts)
    assert len(pieces) < 12
    assert {id(part.obj) for part in parts if len(part) >= PIECE_BYTES} <= {id(piece.obj) for piece in pieces}


def test_a_real_state_goes_on(tmp_path: Path) -> None:
    """A partition restored from a file must have the digest of the one saved, and give the same from there on."""
    records = sample(3_000)
    partition = Partition(small())
    partition.process(records[:2_000])
    store = CheckpointStore(tmp_path)
    store.save(Checkpoint(header_of(IDENTITY, 2_000, partition.digest()), partition.snapshot()))
    loaded = store.load(IDENTITY)
    assert loaded is not None
    restored = Partition(small(), arrays=loaded.part(""))
    assert restored.digest() == loaded.header.digest == partition.digest()
    assert restored.process(records[2_000:]) == partition.process(records[2_000:])
    again = encoded(Checkpoint(loaded.header, Partition(small(), arrays=loaded.part("")).snapshot()))
    assert b"".join(again) == store.paths()[0].read_bytes()


def test_the_newest_few_are_kept(tmp_path: Path) -> None:
    """The last k must stay, by offset, and the newest be loaded."""
    store = CheckpointStore(tmp_path, keep=2)
    for offset in (5, 9, 100, 20_000_000_000):
        store.save(checkpoint(offset))
    assert [read(path).header.next_offset for path in store.paths()] == [20_000_000_000, 100]
    loaded = store.load(IDENTITY)
    assert loaded is not None
    assert loaded.header.next_offset == 20_000_000_000
    with pytest.raises(ValueError, match="keep"):
        CheckpointStore(tmp_path, keep=0)


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    """Where the newest is damaged anywhere, the one before must be loaded, and one line must say so."""
    told: list[str] = []
    store = CheckpointStore(tmp_path, on_damage=told.append)
    store.save(checkpoint(5))
    newest = store.save(checkpoint(9))
    whole = newest.read_bytes()
    damaged = [whole[:length] for length in (0, 5, len(MAGIC) + 4, 100, len(whole) - 1)]
    damaged += [whole + b"\0", *(flipped(whole, place) for place in range(0, len(whole), 41))]
    for content in damaged:
        newest.write_bytes(content)
        loaded = store.load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset == 5
    assert len(told) == len(damaged)
    assert all(str(newest) in line and "\n" not in line for line in told)


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]


def test_only_damaged_ones_are_refused(tmp_path: Path) -> None:
    """Where every checkpoint is damaged, starting over must be somebody's decision."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint()).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"every checkpoint .* damaged: remove the folder"):
        store.load(IDENTITY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"application": "other"}, "belongs to application 'thalweg', not 'other': name another folder"),
        ({"topic": "views"}, "is of interactions-0, not of views-0"),
        ({"partition": 1}, "is of interactions-0, not of interactions-1"),
        ({"partitions": 8}, "4 partitions, which has 8 now"),
        ({"configuration": replace(small(), seed=9)}, "made with seed = 0, which is 9 now: set it back"),
        ({"configuration": small(rows=4_096)}, "table.rows_limit = 2048, which is 4096 now"),
        ({"configuration": small(rows=4_096, waiting=64)}, "which is 128 now and 2 more: set it back"),
    ],
)
def test_what_is_anothers_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """Another application, topic, partition, number of partitions or configuration must be refused in one line."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint())
    with pytest.raises(CheckpointError) as refused:
        store.load(IDENTITY._replace(**changes))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_log_without_a_number_of_partitions_agrees_with_any(tmp_path: Path) -> None:
    """A replay's checkpoint must be good for a worker, and a worker's for a replay."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint())
    assert store.load(IDENTITY._replace(partitions=0)) is not None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A newer format must be refused, not taken for damage and passed over."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(2))
    path = store.save(checkpoint(3))
    content = bytearray(path.read_bytes()[:-32])
    content[len(MAGIC)] = FORMAT + 1
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(CheckpointError, match=r"has format 2, this version reads up to 1: install"):
        store.load(IDENTITY)


def test_a_flipped_bit_of_the_version_is_damage(tmp_path: Path) -> None:
    """Whichever bit of the version flips, the file is passed over: it does not fit its SHA-256."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(2))
    path = store.save(checkpoint(3))
    whole = path.read_bytes()
    for bit in range(32):
        content = bytearray(whole)
        content[len(MAGIC) + bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        loaded = store.load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset == 2


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to a folder": lambda path: path.symlink_to("."),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_no_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    """Whatever has a checkpoint's name: it is neither waited for nor counted, and checkpoints come and go beside it."""
    told: list[str] = []
    store = CheckpointStore(tmp_path, 1, on_damage=told.append)
    FOREIGN[kind](tmp_path / f"{9:020d}.checkpoint")
    for offset in (3, 5):
        store.save(checkpoint(offset))
        loaded = store.load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset == offset
    assert len(told) == 2
    assert all("no regular file has this name: passed over" in line for line in told)
    store.save(checkpoint(12))
    store.save(checkpoint(13))
    loaded = store.load(IDENTITY)
    assert loaded is not None
    assert loaded.header.next_offset == 13


def test_a_damaged_one_with_a_higher_offset_costs_no_whole_one(tmp_path: Path) -> None:
    """With one to keep, what was just saved stays, although a damaged file counts as newer."""
    store = CheckpointStore(tmp_path, 1)
    (tmp_path / f"{99:020d}.checkpoint").write_bytes(b"damaged")
    for offset in (3, 5):
        store.save(checkpoint(offset))
        loaded = store.load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset == offset
    assert len(store.paths()) == 2


def test_a_checkpoint_is_its_owners_alone(tmp_path: Path) -> None:
    """Files are made 0600 and folders 0700, also those above, whatever the process's mask lets pass."""
    before = os.umask(0)
    try:
        store = CheckpointStore(tmp_path / "new" / "folder")
        path = store.save(checkpoint(1))
        aside = store.set_aside(store.save(checkpoint(2)))
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, aside)] == [0o600] * 2
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (path.parent, path.parent.parent, aside.parent)} == {
        0o700
    }


@pytest.mark.parametrize("topic", ["..", ".", "", "a/b", "../a", "a\0b", "a\n", "x" * 250, "é"])
def test_a_topics_name_is_kafkas_before_it_is_a_folders(tmp_path: Path, topic: str) -> None:
    """What Kafka takes for no topic's name becomes no path, and the configuration refuses it in one line."""
    with pytest.raises(CheckpointError, match="is no topic's name"):
        store_at(CheckpointSection(directory=str(tmp_path)), topic, 0)
    with pytest.raises(ConfigurationError, match=r"topics\.interactions"):
        load(None, environment={}, flags=[f"topics.interactions={topic}"])


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (b'"<i4"', b'"|O8"'),
        (b"[3,4]", b"[9,9]"),
        (b"[3,4]", b"[3,-"),
        (b'"a.b"', b"1e999"),
    ],
)
def test_a_hostile_checkpoint_is_damage(tmp_path: Path, wanted: bytes, given: bytes) -> None:
    """A file whose SHA-256 is right and whose contents are not arrays must be refused, and run nothing."""
    content = b"".join(encoded(checkpoint(**{"a.b": np.arange(12, dtype=np.int32).reshape(3, 4)})))[:-32]
    path = tmp_path / "hostile.checkpoint"
    changed = content.replace(wanted, given)
    path.write_bytes(changed + hashlib.sha256(changed).digest())
    assert changed != content
    with pytest.raises(DamagedError):
        read(path)


def crafted(places: list[Any] | None = None, **header: Any) -> bytes:
    """A file whose SHA-256 is right, with what its header says changed."""
    content = b"".join(encoded(checkpoint()))[:-32]
    start = len(MAGIC) + 12
    length = int.from_bytes(content[len(MAGIC) + 4 : start], "little")
    contents = msgspec.json.decode(content[start : start + length])
    contents["header"] |= header
    contents["arrays"] = contents["arrays"] if places is None else places
    said = msgspec.json.encode(contents)
    head = content[: len(MAGIC) + 4] + len(said).to_bytes(8, "little") + said
    body = content[padded(start + length) :]
    made = head + bytes(padded(len(head)) - len(head)) + body
    return made + hashlib.sha256(made).digest()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"places": [["a", "<i4", [3, 4], 0], ["b", "<i4", [3], 0]]}, "b overlaps another array"),
        ({"places": [["a", "<i4", [3], 0], ["a", "<i4", [3], 64]]}, "two arrays have one name"),
        ({"places": [["a", "|u1", [1 << 62], 0]]}, "a ends behind the file"),
        ({"places": [["a", "|u1", [1 << 70, 1 << 70], 0]]}, "is damaged"),
        ({"places": [["a", "|u1", [0, 1 << 62, 1 << 62], 0]]}, "is damaged"),
        ({"places": [["a", "|u1", [1] * 99, 0]]}, "is damaged"),
        ({"places": [["a", "|u1", [3], -64]]}, "a is no array of numbers"),
        ({"places": [["a", "|u1", [3], 7]]}, "a is no array of numbers"),
        ({"places": [["a\x1b[31m\n", "O", [3], 0]]}, "is no array of numbers"),
        ({"next_offset": -1}, "is damaged"),
        ({"partition": -1}, "is damaged"),
        ({"outputs": {"scores": {"end_offset": -7}}}, "is damaged"),
        ({"configuration": 7}, "is damaged"),
    ],
)
def test_what_a_file_says_of_itself_is_not_believed(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    """Overlapping arrays, absurd shapes, places outside, offsets below zero: refused in one printable line."""
    path = tmp_path / "hostile.checkpoint"
    path.write_bytes(crafted(**given))
    with pytest.raises(DamagedError) as refused:
        read(path)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


def test_deep_json_is_damage(tmp_path: Path) -> None:
    """A header nested without end must not end the process."""
    path = tmp_path / "deep.checkpoint"
    head = b'{"header":{"configuration":' + b'{"a":' * 200_000
    made = MAGIC + FORMAT.to_bytes(4, "little") + len(head).to_bytes(8, "little") + head
    path.write_bytes(made + hashlib.sha256(made).digest())
    with pytest.raises(DamagedError):
        read(path)


def test_flipped_bytes_under_a_right_digest_run_nothing_and_take_no_memory(tmp_path: Path) -> None:
    """Whatever lies in a file, it is refused by name or read as arrays of its own bytes."""
    content = b"".join(encoded(checkpoint(wide=np.zeros((40, 3), np.float64))))[:-32]
    path = tmp_path / "flipped.checkpoint"
    random = np.random.default_rng(5)
    limit = content.index(b"\0\0\0\0", len(MAGIC) + 12)
    count, refusals = 0, []
    tracemalloc.start()
    for _ in range(1_500):
        made = bytearray(content)
        for place in random.integers(0, limit, random.integers(1, 4)):
            made[place] = random.integers(256) if random.integers(2) else ord(random.choice(list('0123456789"[],{}-e')))
        path.write_bytes(bytes(made) + hashlib.sha256(made).digest())
        try:
            found = read(path)
            assert sum(array.nbytes for array in found.arrays.values()) <= len(content)
            count += 1
        except CheckpointError as error:
            refusals.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert min(count, len(refusals)) > 50
    assert all(refusal.isprintable() for refusal in refusals)
    assert peak < 1 << 20


def test_what_another_says_of_itself_is_not_printed_at_length(tmp_path: Path) -> None:
    """Names of another application or topic may be anything, and a message stays one short printable line."""
    for number, given in enumerate(
        ({"application": "\x1b]0;" * 500}, {"topic": "t\n" * 5_000}, {"configuration": {"\x1b" * 9_000: "\n"}})
    ):
        store = CheckpointStore(tmp_path / str(number))
        store.save(checkpoint()).write_bytes(crafted(**given))
        with pytest.raises(CheckpointError) as refused:
            store.load(IDENTITY)
        assert str(refused.value).isprintable()
        assert len(str(refused.value)) < 600


def test_one_set_aside_is_not_looked_for(tmp_path: Path) -> None:
    """A checkpoint set aside lies in a folder of its own, and a second of its name does not take its place."""
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(5))
    places = [store.set_aside(store.save(checkpoint(9))) for _ in range(2)]
    assert [path.name for path in places] == [f"{9:020d}.checkpoint", f"{9:020d}.checkpoint.1"]
    assert all(read(path).header.next_offset == 9 for path in places)
    assert [int(path.stem) for path in store.paths()] == [5]


def test_what_is_no_array_of_numbers_is_not_written() -> None:
    """Objects must never get into a checkpoint."""
    with pytest.raises(ValueError, match="object"):
        list(encoded(checkpoint(o=np.array([{}], object))))


def test_a_failed_write_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk is full the checkpoints before must stay, and nothing else."""
    store = CheckpointStore(tmp_path)
    before = store.save(checkpoint(1))

    def full(descriptor: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(CheckpointError, match="No space left"):
            store.save(checkpoint(2))
    assert list(tmp_path.iterdir()) == [before]
    assert store.save(checkpoint(2)).exists()


def test_two_that_write_the_same_checkpoint_do_not_mix(tmp_path: Path) -> None:
    """A worker that lost its partition may write what its successor writes: each in a file of its own."""

    class Slow(LocalDisk):
        def rename(self, old: Path, new: Path) -> None:
            if not new.exists():
                CheckpointStore(tmp_path).save(checkpoint(5))
            super().rename(old, new)

    assert CheckpointStore(tmp_path, disk=Slow()).load(IDENTITY) is None
    path = CheckpointStore(tmp_path, disk=Slow()).save(checkpoint(5))
    assert list(tmp_path.iterdir()) == [path]
    assert CheckpointStore(tmp_path).load(IDENTITY) is not None


def test_what_was_never_written_to_its_end_is_let_go(tmp_path: Path) -> None:
    """Files that dead workers left must not gather; one that may still be written must stay."""
    for name in ("00000000000000000001.0a.writing", "00000000000000000009.0b.writing"):
        (tmp_path / name).write_bytes(b"half")
    store = CheckpointStore(tmp_path, keep=2)
    for offset in (2, 3, 4):
        store.save(checkpoint(offset))
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "00000000000000000003.checkpoint",
        "00000000000000000004.checkpoint",
        "00000000000000000009.0b.writing",
    ]


def test_a_checkpoint_that_goes_while_it_is_looked_for(tmp_path: Path) -> None:
    """Whoever had the partition may still save and let go: what it wrote instead must be found."""
    store = CheckpointStore(tmp_path, keep=1)
    store.save(checkpoint(1))

    class Moving(LocalDisk):
        def read(self, path: Path) -> Content:
            if path.stem.endswith("1"):
                store.save(checkpoint(2))
            return super().read(path)

    loaded = CheckpointStore(tmp_path, keep=1, disk=Moving()).load(IDENTITY)
    assert loaded is not None
    assert loaded.header.next_offset == 2


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A path that can't be a folder must be refused in one line."""
    path = tmp_path / "file"
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="can't be used"):
        CheckpointStore(path / "below").save(checkpoint())


def test_everything_is_synced_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file must be synced, then renamed, then its folder synced: a name must never stand for unsynced bytes."""
    acts: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        acts.append("sync folder" if Path(f"/proc/self/fd/{descriptor}").resolve().is_dir() else "sync file")
        fsync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        acts.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    CheckpointStore(tmp_path).save(checkpoint())
    assert acts[-3:] == ["sync file", "rename", "sync folder"]
    assert set(acts[:-3]) == {"sync folder"}, "who made the folders may have died before they were synced"


def test_the_header_is_readable_json(tmp_path: Path) -> None:
    """A person must be able to read what a checkpoint says of itself."""
    content = CheckpointStore(tmp_path).save(checkpoint()).read_bytes()
    start = content.index(b"{")
    length = int.from_bytes(content[len(MAGIC) + 4 : len(MAGIC) + 12], "little")
    header = msgspec.json.decode(content[start : start + length])["header"]
    assert header["next_offset"] == 3
    assert header["outputs"]["scores"] == {"end_offset": 7, "last_cause": [2, 0]}
    assert header["configuration"]["table"]["rows_limit"] == 2_048

"""Checkpoints on file systems of fsspec: file, verification, manifest, in that order, whatever fails in between."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from thalweg.streams.checkpoints.folders import folder_of, partitions_at, store_at
from thalweg.streams.checkpoints.format import CheckpointError, CheckpointStore, DamagedError
from thalweg.streams.checkpoints.objects import ObjectCheckpointStore
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.printable import redacted

from tests.streams.checkpoints.test_checkpoints import IDENTITY, checkpoint

Made = Callable[..., ObjectCheckpointStore]
STEPS = ("makedirs", "open", "write", "close", "info", "read", "pipe_file", "cat_file")
SECRET = "s3cr3t"


@pytest.fixture(params=["memory", "dir"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    """Make stores over one folder of fsspec's memory, or of a folder by its `dir` over `local`."""
    if request.param == "memory":
        url = f"memory://{tmp_path.name}/store"
        yield lambda **given: ObjectCheckpointStore(url, **given)
        MemoryFileSystem.store.clear()
    else:
        files = DirFileSystem(path=str(tmp_path), fs=LocalFileSystem())
        yield lambda **given: ObjectCheckpointStore("dir://store", filesystem=(files, "store"), **given)


def names(store: ObjectCheckpointStore) -> list[str]:
    return sorted(store._names(store._folder))


def file_of(store: ObjectCheckpointStore, place: Any) -> str:
    return f"{store._folder}/{store._manifest(place).file}"


def put(store: ObjectCheckpointStore, path: str, content: bytes) -> None:
    store._files.pipe_file(path, content)


def test_what_is_loaded_is_what_was_saved(made: Made) -> None:
    """Header and arrays come back, from a file and a manifest that names it."""
    store = made()
    assert store.load(IDENTITY) is None
    saved = checkpoint()
    place = store.save(saved)
    loaded = made().load(IDENTITY)
    assert loaded is not None
    assert loaded.header == saved.header
    assert all((loaded.arrays[name] == array).all() for name, array in saved.arrays.items())
    assert place.stem == "00000000000000000003"
    file, manifest = names(store)
    assert file.startswith(f"{place.stem}-")
    assert manifest == f"{place.stem}.manifest"
    status = store.status(place)
    assert status.modified_at_s > 1e9
    assert status.bytes == store._files.info(file_of(store, place))["size"]


def test_the_newest_few_are_kept(made: Made) -> None:
    """The last k stay by offset, files and manifests, and files that no manifest names go when they are older."""
    store = made(keep=2)
    store._files.makedirs(store._folder, exist_ok=True)
    put(store, f"{store._folder}/{4:020d}-{'0' * 16}.checkpoint", b"an upload that died")
    put(store, f"{store._folder}/{300:020d}-{'0' * 16}.checkpoint", b"an upload on its way")
    for offset in (5, 9, 100, 200):
        store.save(checkpoint(offset))
    assert [int(place.stem) for place in store.paths()] == [200, 100]
    assert [int(name[:20]) for name in names(store)] == [100, 100, 200, 200, 300]
    loaded = store.load(IDENTITY)
    assert loaded is not None
    assert loaded.header.next_offset == 200


class FailingFiles(DirFileSystem):
    """A file system whose n-th call of a step fails, with an error of nobody's family that tells a secret."""

    fail_at: tuple[str, int] | None = None
    calls: dict[str, int]

    class Error(Exception):
        """What a provider raises: no OSError."""

    def _step(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.fail_at == (name, self.calls[name]):
            raise self.Error(f"503 from https://key:{SECRET}@host/x?signature={SECRET}")

    def open(self, path: str, mode: str = "rb", **given: Any) -> Any:
        self._step("open")
        return Watched(super().open(path, mode, **given), self._step)


class Watched:
    """An open file whose calls are steps that may fail."""

    def __init__(self, file: Any, step: Callable[[str], None]) -> None:
        self.file, self.step = file, step

    def __enter__(self) -> "Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.step("close")

    def read(self, size: int) -> bytes:
        self.step("read")
        return bytes(self.file.read(size))

    def write(self, part: Any) -> None:
        self.step("write")
        self.file.write(part)


def failing(path: Path) -> FailingFiles:
    files = FailingFiles(path=str(path), fs=LocalFileSystem())
    files.calls, files.fail_at = {}, None
    for name in ("makedirs", "info", "pipe_file", "cat_file", "ls", "rm_file"):
        call = getattr(files, name)

        def watched(*given: Any, _call: Any = call, _name: str = name, **named: Any) -> Any:
            files._step(_name)
            return _call(*given, **named)

        setattr(files, name, watched)
    return files


@pytest.mark.parametrize("step", [*STEPS, "ls", "rm_file"])
def test_a_step_that_fails_leaves_the_checkpoint_before(step: str, tmp_path: Path) -> None:
    """Whichever call fails, the newest that loads is the old or the new one, whole, and the error tells no secret."""
    for number in itertools.count(1):
        files = failing(tmp_path / f"{step}-{number}")
        store = ObjectCheckpointStore("dir://x", 1, filesystem=(files, "x"))
        store.save(checkpoint(5))
        files.calls, files.fail_at = {}, (step, number)
        refusal = ""
        try:
            store.save(checkpoint(9))
        except CheckpointError as error:
            refusal = str(error)
        assert SECRET not in refusal
        assert not refusal or "Error: 503 from https://***@host/x?***" in refusal
        offsets = {9} if not refusal else {5, 9} if step in ("cat_file", "ls") else {5}
        failed = files.calls.get(step, 0) >= number
        files.fail_at = None
        told: list[str] = []
        loaded = ObjectCheckpointStore("dir://x", filesystem=(files, "x"), on_damage=told.append).load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset in offsets
        assert not told
        assert store.save(checkpoint(9)).stem == f"{9:020d}"
        assert len(names(store)) == 2, "what died half way was not removed later"
        if not failed:
            assert number > 1, f"a save does not {step}"
            return


def test_a_file_torn_at_upload_gets_no_manifest(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lost the end of an upload, or some of it, is found out before a manifest says it is whole."""
    store = made()
    store.save(checkpoint(5))
    whole = store._files.open

    class Torn:
        zeros = False

        def __init__(self, file: Any) -> None:
            self.file, self.size = file, 0

        def __enter__(self) -> "Torn":
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, part: Any) -> None:
            self.size += len(part)
            lost = bytes(len(part)) if self.zeros else b""
            self.file.write(bytes(part) if self.size < 1_000 else lost)

    def tearing(path: str, mode: str = "rb", **given: Any) -> Any:
        file = whole(path, mode, **given)
        return Torn(file) if mode == "wb" else file

    for zeros in (False, True):
        Torn.zeros = zeros
        with monkeypatch.context() as patched:
            patched.setattr(store._files, "open", tearing)
            with pytest.raises(CheckpointError, match="is not what was uploaded"):
                store.save(checkpoint(9))
        assert [int(place.stem) for place in store.paths()] == [5]
    store.save(checkpoint(9))
    assert [int(place.stem) for place in store.paths()] == [9, 5]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda store, place: store._files.rm_file(file_of(store, place)), "which is not there"),
        (lambda store, place: put(store, file_of(store, place), b"short"), "bytes, which has 5"),
        (lambda store, place: put(store, place.path, b'{"file": '), "it is no manifest"),
        (lambda store, place: put(store, place.path, b"\xff" * 99), "it is no manifest"),
        (lambda store, place: rename(store, place, "../other/secret"), "is no separate file"),
        (lambda store, place: rename(store, place, f"{7:020d}-{'0' * 16}.checkpoint"), "is no separate file"),
        (lambda store, place: flip(store, place), "whose SHA-256 is another one"),
    ],
)
def test_a_damaged_one_is_passed_over(made: Made, damage: Callable[[Any, Any], None], message: str) -> None:
    """A manifest that names nothing, something else or something torn is passed over, and spoken of in one line."""
    told: list[str] = []
    store = made(on_damage=told.append)
    store.save(checkpoint(5))
    damage(store, store.save(checkpoint(9)))
    loaded = store.load(IDENTITY)
    assert loaded is not None
    assert loaded.header.next_offset == 5
    assert len(told) == 1
    assert message in told[0]
    assert "\n" not in told[0]


def rename(store: ObjectCheckpointStore, place: Any, name: str) -> None:
    content = json.loads(store._files.cat_file(place.path))
    put(store, place.path, json.dumps(content | {"file": name}).encode())


def flip(store: ObjectCheckpointStore, place: Any) -> None:
    content = bytearray(store._files.cat_file(file_of(store, place)))
    content[len(content) // 2] ^= 1
    put(store, file_of(store, place), bytes(content))


def test_an_absurd_size_is_not_asked_for(made: Made) -> None:
    """A manifest may promise any size: memory is taken for what is there only."""
    store = made()
    place = store.save(checkpoint(5))
    content = json.loads(store._files.cat_file(place.path))
    put(store, place.path, json.dumps(content | {"bytes": 1 << 60}).encode())
    with pytest.raises(DamagedError, match="of 1152921504606846976 bytes, which has"):
        store.read(place)


def test_a_worker_that_slept_moves_nothing_back(made: Made) -> None:
    """Of two writers the one further on stays the newest; what the other one writes late harms none."""
    awake, slept = made(keep=2), made(keep=2)
    slept.save(checkpoint(5))
    for offset in (9, 12):
        awake.save(checkpoint(offset))
    other = checkpoint(12, flags=checkpoint().arrays["none"])
    for late in (checkpoint(7), checkpoint(11), other):
        slept.save(late)
        loaded = awake.load(IDENTITY)
        assert loaded is not None
        assert loaded.header.next_offset == 12
    assert [int(place.stem) for place in awake.paths()] == [12, 11]
    assert all(awake.read(place).header.next_offset == int(place.stem) for place in awake.paths())


def test_one_set_aside_is_not_looked_for(made: Made) -> None:
    """A checkpoint set aside is out of the way, whole, and a second of its name does not take its place."""
    store = made()
    store.save(checkpoint(5))
    for _ in range(2):
        aside = store.set_aside(store.save(checkpoint(9)))
        assert [int(place.stem) for place in store.paths()] == [5]
        assert store._manifest(store.paths()[0])
    assert str(aside).endswith("/aside/00000000000000000009.manifest.1")
    assert len(store._names(f"{store._folder}/aside")) == 3


def test_sections_name_their_stores(tmp_path: Path) -> None:
    """A path or `file://` is a folder with a disk's guarantees, other URLs are not; a generation has its own folder."""
    local = CheckpointSection(directory=str(tmp_path))
    assert isinstance(store_at(local, "t", 0), CheckpointStore)
    as_url = CheckpointSection(directory=f"file://{tmp_path}", generation=2)
    store = store_at(as_url, "t", 1)
    assert isinstance(store, CheckpointStore)
    assert store.directory == tmp_path / "generation-2" / "t-1"
    remote = CheckpointSection(directory=f"memory://{tmp_path.name}/all", generation=3)
    assert folder_of(remote) == f"memory://{tmp_path.name}/all/generation-3"
    for section in (local, remote):
        assert partitions_at(section, "t") == []
        for partition in (0, 11):
            store_at(section, "t", partition).save(checkpoint())
        store_at(section, "t-x", 3).save(checkpoint())
        assert partitions_at(section, "t") == [0, 11]
    MemoryFileSystem.store.clear()


def test_what_can_not_be_opened_is_refused_without_credentials() -> None:
    """An unknown protocol or a missing package end with one line, and nobody learns the password."""
    for url in (f"nosuch://key:{SECRET}@host/x", f"s3://key:{SECRET}@bucket/x?token={SECRET}"):
        with pytest.raises(CheckpointError) as refused:
            ObjectCheckpointStore(url)
        assert SECRET not in str(refused.value)
        assert "***@" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert redacted("one s3://b/x?k=v two") == "one s3://b/x?*** two"
    assert "memory" in fsspec.available_protocols()

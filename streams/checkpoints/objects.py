"""Checkpoints on any file system that fsspec knows: `s3://…`, `gs://…`, `memory://…`.

An object store has no rename and no sync, and what it took may be torn or gone. So a checkpoint is two objects: the
file, under a name that its bytes decide, and a manifest that names it. The order is: upload the file, read all of it
back and compare, then write the manifest. A manifest that is there names a whole file; what has none is no checkpoint.

    NEXT_OFFSET-DIGEST.checkpoint    the file, as a local folder has it
    NEXT_OFFSET.manifest             its name, size and SHA-256, as JSON
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np
from thalweg.streams.checkpoints.disk import Content, FileStatus
from thalweg.streams.checkpoints.format import (
    ASIDE,
    ENDING,
    Checkpoint,
    CheckpointError,
    Count,
    DamagedError,
    Identity,
    aside_names,
    decoded,
    encoded,
    load_newest,
    said,
)
from thalweg.streams.printable import redacted

MANIFEST = ".manifest"
MANIFEST_BYTES_MAX = 1 << 16
PIECE_BYTES = 1 << 24
_BLOB = re.compile(rf"[0-9]{{20}}-[0-9a-f]{{16}}{re.escape(ENDING)}\Z")


class Manifest(msgspec.Struct, frozen=True):
    """What a manifest says: the file's name beside it, its size and SHA-256."""

    file: str
    bytes: Count
    sha256: str


_decode_manifest = msgspec.json.Decoder(Manifest).decode


class Place(NamedTuple):
    """Where a checkpoint's manifest lies: `path` as the file system takes it, `shown` as messages say it."""

    path: str
    shown: str

    def __str__(self) -> str:
        """Return what may be shown."""
        return self.shown

    @property
    def stem(self) -> str:
        """Return the name without its ending: the next offset."""
        return self.path.rpartition("/")[2].removesuffix(MANIFEST)


class ObjectCheckpointStore:
    """The checkpoints of one partition under one URL, the newest `keep` of them.

    Parameters
    ----------
    url
        The folder, as fsspec takes it; credentials come from where its file system looks for them.
    keep
        How many stay.
    on_damage
        Called with one line about each checkpoint that is passed over because it is damaged.
    filesystem
        An fsspec file system and the folder's path in it, in place of what the URL says.

    Raises CheckpointError where no file system is known for the URL.
    """

    def __init__(
        self,
        url: str,
        keep: int = 3,
        *,
        on_damage: Callable[[str], object] = lambda message: None,
        filesystem: tuple[Any, str] | None = None,
    ) -> None:
        """Look at a URL; nothing is read or made yet."""
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.directory = redacted(url)
        self._keep = keep
        self._on_damage = on_damage
        self._files, self._folder = filesystem or opened(url)
        self._folder = self._folder.rstrip("/")

    def paths(self) -> list[Place]:
        """Return the manifests' places, the newest first."""
        names = sorted(self._names(self._folder), reverse=True)
        return [self._place(self._folder, name) for name in names if name.endswith(MANIFEST)]

    def read(self, path: Place) -> Checkpoint:
        """Return the checkpoint that a manifest names, every byte verified."""
        manifest = self._manifest(path)
        with self._refusing():
            file = f"{path.path.rpartition('/')[0]}/{manifest.file}"
            if not self._exists(file):
                raise DamagedError(f"{path} names {said(manifest.file)}, which is not there")
            size = int(self._files.info(file)["size"])
            if size != manifest.bytes:
                raise DamagedError(f"{path} names {said(manifest.file)} of {manifest.bytes} bytes, which has {size}")
            content, sha = self._content(file, size)
        if sha != manifest.sha256:
            raise DamagedError(f"{path} names {said(manifest.file)}, whose SHA-256 is another one")
        return decoded(path, content)

    def save(self, checkpoint: Checkpoint) -> Place:
        """Write a checkpoint so that it is there whole or not at all, and let old ones go.

        Raises CheckpointError where the store takes none, or does not give back what it took; checkpoints that are
        there stay as they are.
        """
        sha, size = hashlib.sha256(), 0
        for part in encoded(checkpoint):
            sha.update(part)
            size += len(part)
        stem = f"{checkpoint.header.next_offset:020d}"
        manifest = Manifest(f"{stem}-{sha.hexdigest()[:16]}{ENDING}", size, sha.hexdigest())
        file, place = f"{self._folder}/{manifest.file}", self._place(self._folder, stem + MANIFEST)
        with self._refusing():
            self._files.makedirs(self._folder, exist_ok=True)
            with self._files.open(file, "wb") as writing:
                for part in encoded(checkpoint):
                    for start in range(0, len(part), PIECE_BYTES):
                        writing.write(part[start : start + PIECE_BYTES])
            self._verify(file, manifest)
            content = msgspec.json.encode(manifest)
            self._files.pipe_file(place.path, content)
            self._files.invalidate_cache()
            if bytes(self._files.cat_file(place.path)) != content:
                raise CheckpointError(f"{place} is not what was written to it: the store does not keep what it takes")
        self._let_go()
        return place

    def load(self, identity: Identity) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none at all."""
        return load_newest(self, identity, self._on_damage)

    def make_durable(self) -> None:
        """Do nothing: what a store gave back it has."""

    def status(self, path: Place) -> FileStatus:
        """Return when a checkpoint's file was written, as far as the store tells, and its size."""
        manifest = self._manifest(path)
        with self._refusing():
            try:
                modified_at_s = self._files.modified(path.path).timestamp()
            except NotImplementedError:
                modified_at_s = 0.0
        return FileStatus(modified_at_s, manifest.bytes)

    def set_aside(self, path: Place) -> Place:
        """Move a checkpoint to the folder `aside`, the manifest last, and return its place there.

        If this dies half way the checkpoint is in both places, or its manifest is gone and its file is not.
        """
        folder = f"{self._folder}/{ASIDE}"
        there = set(self._names(folder))
        name = path.path.rpartition("/")[2]
        aside = self._place(folder, next(other for other in aside_names(name) if other not in there))
        try:
            manifest: Manifest | None = self._manifest(path)
        except DamagedError:
            manifest = None
        with self._refusing():
            self._files.makedirs(folder, exist_ok=True)
            file = None if manifest is None else f"{self._folder}/{manifest.file}"
            if manifest is not None and self._exists(file):
                self._files.cp_file(file, f"{folder}/{manifest.file}")
            self._files.cp_file(path.path, aside.path)
            self._files.rm_file(path.path)
            if self._exists(file):
                self._files.rm_file(file)
            self._files.invalidate_cache()
        return aside

    def _verify(self, file: str, manifest: Manifest) -> None:
        """Read back what was uploaded. Raises CheckpointError where it is anything else."""
        self._files.invalidate_cache()
        size = int(self._files.info(file)["size"])
        if size != manifest.bytes or self._content(file, size)[1] != manifest.sha256:
            raise CheckpointError(
                f"{self.directory}/{manifest.file} is not what was uploaded ({size} of {manifest.bytes} bytes are "
                "there): it gets no manifest; the next checkpoint tries again"
            )

    def _let_go(self) -> None:
        """Remove what is older than the checkpoints to keep, manifests before files; what resists stays for later."""
        paths = self.paths()
        kept = paths[: self._keep]
        with suppress(CheckpointError), self._refusing():
            for old in paths[self._keep :]:
                self._files.rm_file(old.path)
            for name in self._names(self._folder):
                # files of uploads that died have no manifest; a newer one may be another worker's, on its way
                if _BLOB.match(name) and name[:20] < kept[-1].stem:
                    self._files.rm_file(f"{self._folder}/{name}")

    def _manifest(self, path: Place) -> Manifest:
        with self._refusing():
            try:
                content = bytes(self._files.cat_file(path.path, start=0, end=MANIFEST_BYTES_MAX))
            except (FileNotFoundError, IsADirectoryError):
                raise DamagedError(f"{path} is gone, or is no file") from None
        try:
            manifest = _decode_manifest(content)
        except (msgspec.MsgspecError, UnicodeError):
            raise DamagedError(f"{path} is damaged: it is no manifest") from None
        if not _BLOB.match(manifest.file) or not manifest.file.startswith(path.stem):
            raise DamagedError(f"{path} is damaged: {said(manifest.file)} is no separate file")
        return manifest

    def _content(self, file: str, size: int) -> tuple[Content, str]:
        """Return a file's bytes, as many as there are to be, and their SHA-256."""
        content = np.empty(size, np.uint8)
        view = memoryview(content.data)
        done = 0
        with self._files.open(file, "rb") as reading:
            while done < size and (piece := reading.read(min(PIECE_BYTES, size - done))):
                view[done : done + len(piece)] = piece
                done += len(piece)
        return content, hashlib.sha256(view[:done]).hexdigest()

    def _names(self, folder: str) -> list[str]:
        with self._refusing():
            return names_in(self._files, folder)

    def _exists(self, file: str | None) -> bool:
        return file is not None and bool(self._files.exists(file))

    def _place(self, folder: str, name: str) -> Place:
        inner = folder.removeprefix(self._folder).strip("/")
        return Place(f"{folder}/{name}", "/".join(part for part in (self.directory, inner, name) if part))

    def _refusing(self) -> AbstractContextManager[None]:
        return refusing_files(self.directory)


@contextmanager
def refusing_files(url: str) -> Iterator[None]:
    """Turn what any file system raises into a CheckpointError of one line without credentials."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        # every provider has errors of its own, and their texts may hold signed addresses
        raise CheckpointError(f"{redacted(url)} can't be used: {told(error)}") from None


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raises CheckpointError where there is none."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise CheckpointError(f"{redacted(url)} needs a package that is not installed: {told(error)}") from None
    except Exception as error:
        raise CheckpointError(f"{redacted(url)} can't be used: {told(error)}") from None
    return files, str(path)


def names_in(files: Any, folder: str) -> list[str]:
    """Return the names in a folder of a file system, none where it is absent."""
    files.invalidate_cache()
    try:
        found = files.ls(folder, detail=False)
    except FileNotFoundError:
        return []
    return [path.rstrip("/").rpartition("/")[2] for path in found]


def told(error: Exception) -> str:
    """Return an error as one line without credentials."""
    text = said(redacted(str(error)))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def is_remote(directory: str) -> bool:
    """Return whether a folder is a URL of fsspec's, rather than a path of this machine."""
    return "://" in directory and urlsplit(directory).scheme not in ("file", "local")

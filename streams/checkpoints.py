"""Checkpoints: a partition's whole state in one file, with all that is needed to go on from it and nothing that runs.

A file is a line of magic and the format's version, a JSON header, the arrays' raw bytes, and the SHA-256 of all of it.
Reading one executes nothing: types are numbers by a list, sizes are checked against the file. The same state gives the
same bytes. A file appears whole or not at all: it is written beside, synced, renamed, and its folder synced.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from operators.configuration import Configuration
from streams.disk import Disk, LocalDisk

FORMAT = 1
MAGIC = b"thalweg checkpoint\n"
ENDING = ".checkpoint"
ALIGNMENT = 64
SHA_BYTES = 32
DTYPES = frozenset(("|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"))

_LENGTHS = struct.Struct("<IQ")  # the format's version, bytes of the header

Arrays = dict[str, npt.NDArray[Any]]


class CheckpointError(Exception):
    """A checkpoint can't be used or written; the message is one line that says what to do."""


class Identity(NamedTuple):
    """Whose state it is. `partitions` is 0 where a log has no number of partitions, and then agrees with any."""

    topic: str
    partition: int
    configuration: Configuration
    partitions: int = 0
    application: str = "thalweg"


class OutputEnd(msgspec.Struct, frozen=True):
    """How far an output topic's partition was written: its end offset, and offset and ordinal of the last cause."""

    end_offset: int | None = None
    last_cause: tuple[int, int] | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says of itself.

    `next_offset`: the first record that is not in it; `last_record`: SHA-256 of the value of the one before, from which
    a log can be told from another one; `digest`: of the state; `configuration`: all that shape and results follow from.
    """

    application: str
    topic: str
    partition: int
    partitions: int
    next_offset: int
    last_record: str | None = None
    digest: str
    configuration: dict[str, Any]
    outputs: dict[str, OutputEnd] = {}


class Checkpoint(NamedTuple):
    """A state and where it stands; `arrays` are the state's by their dotted names, and others beside it."""

    header: Header
    arrays: Arrays

    def part(self, prefix: str) -> Arrays:
        """Return the arrays whose names start with `prefix` and a slash; with an empty one, those without any."""
        if not prefix:
            return {name: array for name, array in self.arrays.items() if "/" not in name}
        start = f"{prefix}/"
        return {name[len(start) :]: array for name, array in self.arrays.items() if name.startswith(start)}


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """Where one array lies in the file."""

    name: str
    dtype: str
    shape: list[int]
    start: int


class _Contents(msgspec.Struct, frozen=True):
    header: Header
    arrays: list[_Place]


class CheckpointStore:
    """The checkpoints of one partition in one folder, the newest `keep` of them.

    Parameters
    ----------
    directory
        The folder; made with the first checkpoint.
    keep
        How many stay.
    on_damage
        Called with one line about each checkpoint that is passed over because it is damaged.
    disk
        What the folder lies on.

    """

    def __init__(
        self,
        directory: Path,
        keep: int = 3,
        *,
        on_damage: Callable[[str], object] = lambda message: None,
        disk: Disk | None = None,
    ) -> None:
        """Look at a folder; nothing is read or made yet."""
        if keep < 1:
            raise ValueError(f"keep must be at least 1, not {keep}")
        self.directory = directory
        self._keep = keep
        self._on_damage = on_damage
        self._disk = disk or LocalDisk()

    def paths(self) -> list[Path]:
        """Return the checkpoints' files, the newest first."""
        with refusing(self.directory):
            names = sorted(self._disk.names(self.directory), reverse=True)
        return [self.directory / name for name in names if name.endswith(ENDING)]

    def save(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint so that it is there whole or not at all, and let old ones go.

        Raises CheckpointError where the folder can't be written; checkpoints that are there stay as they are.
        """
        path = self.directory / f"{checkpoint.header.next_offset:020d}{ENDING}"
        beside = path.with_suffix(".writing")
        disk = self._disk
        with refusing(self.directory):
            self._make_folder(self.directory)
            try:
                with closing(disk.create(beside)) as file:
                    for part in encoded(checkpoint):
                        file.write(part)
                    file.sync()
                disk.rename(beside, path)
            except BaseException:
                with suppress(OSError):
                    disk.unlink(beside)
                raise
            disk.sync_folder(self.directory)
            for old in self.paths()[self._keep :]:
                disk.unlink(old)
        return path

    def load(self, identity: Identity) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none at all.

        Raises CheckpointError where it is another's, of another configuration or of a newer format, or where there
        are checkpoints and every one is damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                checkpoint = read(path, self._disk)
            except DamagedError as error:
                self._on_damage(f"{error}: passed over")
                continue
            refuse_other(path, checkpoint.header, identity)
            return checkpoint
        if paths:
            raise CheckpointError(
                f"every checkpoint in {self.directory} is damaged: remove the folder to start from the log's beginning"
            )
        return None

    def _make_folder(self, folder: Path) -> None:
        """Make a folder and those it lies in; a folder's name is as durable as the one that holds it."""
        if self._disk.is_folder(folder):
            return
        self._make_folder(folder.parent)
        self._disk.make_folder(folder)
        self._disk.sync_folder(folder.parent)


class DamagedError(CheckpointError):
    """A file that is no whole checkpoint."""


class refusing:  # noqa: N801  (used as a statement)
    """Turn what the system refuses within a block into a CheckpointError."""

    def __init__(self, path: Path) -> None:
        """Name `path` where the error names none."""
        self._path = path

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        """Raise CheckpointError for an OSError."""
        if isinstance(error, OSError):
            raise CheckpointError(f"{error.filename or self._path} can't be used: {error.strerror}") from None


def header_of(
    identity: Identity,
    next_offset: int,
    digest: str,
    *,
    last_record: bytes | None = None,
    outputs: Mapping[str, OutputEnd] | None = None,
) -> Header:
    """Return the header of a state's checkpoint; `last_record` is the value of the record before `next_offset`."""
    return Header(
        application=identity.application,
        topic=identity.topic,
        partition=identity.partition,
        partitions=identity.partitions,
        next_offset=next_offset,
        last_record=None if last_record is None else hashlib.sha256(last_record).hexdigest(),
        digest=digest,
        configuration=plain(identity.configuration),
        outputs=dict(outputs or {}),
    )


def plain(configuration: Configuration) -> dict[str, Any]:
    """Return a configuration as JSON has it."""
    converted: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(asdict(configuration), order="sorted"))
    return converted


def encoded(checkpoint: Checkpoint) -> Iterator[memoryview]:
    """Yield a checkpoint's file in parts, the arrays' own memory among them."""
    arrays = {name: np.ascontiguousarray(checkpoint.arrays[name]) for name in sorted(checkpoint.arrays)}
    places, start = [], 0
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise ValueError(f"{name} is {array.dtype}, which a checkpoint can't hold")
        places.append(_Place(name, dtype, list(array.shape), start))
        start += padded(array.nbytes)
    contents = msgspec.json.encode(_Contents(checkpoint.header, places), order="sorted")
    head = MAGIC + _LENGTHS.pack(FORMAT, len(contents)) + contents
    sha = hashlib.sha256()
    parts = [memoryview(head), *(memory(array) for array in arrays.values())]
    for part in parts:
        for piece in (part, memoryview(bytes(padded(len(part)) - len(part)))):
            if len(piece):
                sha.update(piece)
                yield piece
    yield memoryview(sha.digest())


def memory(array: npt.NDArray[Any]) -> memoryview:
    """Return an array's bytes, the lowest of each number first."""
    return memoryview(array.astype(array.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8).data)


def read(path: Path, disk: Disk | None = None) -> Checkpoint:
    """Return a file's checkpoint, every byte verified.

    Raises DamagedError where it is not whole, CheckpointError where it can't be read or is of a newer format.
    """
    with refusing(path):
        content = (disk or LocalDisk()).read(path)
    size, view = len(content), memoryview(content.data)
    if size < len(MAGIC) + _LENGTHS.size + SHA_BYTES or bytes(content[: len(MAGIC)]) != MAGIC:
        raise DamagedError(f"{path} is not a checkpoint, or only its beginning")
    version, length = _LENGTHS.unpack_from(view, len(MAGIC))
    whole = hashlib.sha256(content[:-SHA_BYTES].data).digest() == bytes(content[-SHA_BYTES:])
    if version > FORMAT and (whole or version < 1 << 16):
        raise CheckpointError(
            f"{path} has format {version}, this version reads up to {FORMAT}: "
            "install the Thalweg that wrote it, or a newer one"
        )
    if not whole:
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the one it ends with")
    try:
        start = len(MAGIC) + _LENGTHS.size
        contents = msgspec.json.decode(content[start : start + length].data, type=_Contents)
        body = content[padded(start + length) : -SHA_BYTES]
        return Checkpoint(contents.header, {place.name: cut(body, place) for place in contents.arrays})
    except (ValueError, msgspec.MsgspecError) as error:
        raise DamagedError(f"{path} is damaged: {' '.join(str(error).split())}") from None


def cut(body: npt.NDArray[np.uint8], place: _Place) -> npt.NDArray[Any]:
    """Return the array at a place, without copying. Raises ValueError where it can't be one."""
    if place.dtype not in DTYPES or min(place.shape, default=0) < 0 or place.start % ALIGNMENT or place.start < 0:
        raise ValueError(f"{place.name} is no array of numbers")
    dtype = np.dtype(place.dtype)
    size = dtype.itemsize
    for extent in place.shape:
        size *= extent
    if place.start + size > len(body):
        raise ValueError(f"{place.name} ends behind the file")
    return body[place.start : place.start + size].view(dtype).reshape(place.shape)


def refuse_other(path: Path, header: Header, identity: Identity) -> None:
    """Raise CheckpointError where a checkpoint is not the identity's."""
    if header.application != identity.application:
        raise CheckpointError(
            f"{path} belongs to application {header.application!r}, not {identity.application!r}: name another folder"
        )
    if (header.topic, header.partition) != (identity.topic, identity.partition):
        raise CheckpointError(
            f"{path} is of {header.topic}-{header.partition}, not of {identity.topic}-{identity.partition}: "
            "name another folder, or the topic and partition"
        )
    if header.partitions and identity.partitions and header.partitions != identity.partitions:
        raise CheckpointError(
            f"{path} is of a topic with {header.partitions} partitions, which has {identity.partitions} now: "
            "users have moved between partitions, so rebuild from the log into another folder"
        )
    changed = list(differences(header.configuration, plain(identity.configuration)))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise CheckpointError(
            f"{path} was made with {changed[0]}{more}: set it back, or name another folder and replay the log into it"
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield each value in which two configurations differ, as one says it."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        said_old, said_new = (msgspec.json.encode(value).decode() for value in (old, new))
        yield f"{path} = {said_old}, which is {said_new} now"


def padded(size: int) -> int:
    """Return a size filled up to the alignment of arrays."""
    return size + -size % ALIGNMENT

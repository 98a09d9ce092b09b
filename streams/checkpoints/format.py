"""Checkpoints: a partition's whole state in one file, with all that is needed to resume from it and nothing that runs.

A file is a line of magic and the format's version, a JSON header, the arrays' raw bytes, and the SHA-256 of all of it.
Reading one executes nothing: types are numbers by a list, sizes are checked against the file. The same state gives the
same bytes. A file appears whole or not at all: it is written beside, synced, renamed, and its folder synced.

Every format begins with the line of magic and the version, and ends with the SHA-256 of all before it. A file that does
not fit its SHA-256 is damaged, whatever version it names.
"""

import hashlib
import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from math import prod
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.lessons import NO_RESULT
from thalweg.schemas.origin import Origin
from thalweg.streams.checkpoints.disk import Content, Disk, FileStatus, LocalDisk, NotAFileError
from thalweg.streams.configuration.sections import is_secret
from thalweg.streams.printable import printable

FORMAT = 1
MAGIC = b"thalweg checkpoint\n"
ENDING = ".checkpoint"
WRITING = ".writing"
LOOKS_MAX = 10
ASIDE = "aside"
ALIGNMENT = 64
PIECE_BYTES = 1 << 13
SHA_BYTES = 32
SAID_MAX = 200
NUMBERS = ("|b1", "|u1", "<u2", "<u4", "<u8", "|i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")
DTYPES = {name: np.dtype(name) for name in NUMBERS}

_LENGTHS = struct.Struct("<IQ")  # the format's version, bytes of the header

Arrays = dict[str, npt.NDArray[Any]]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class CheckpointError(Exception):
    """A checkpoint can't be used or written; the message is one printable line with the reason and a remedy."""

    def __init__(self, message: str) -> None:
        """Take a line; what is not printable in it is escaped: names of files may be anybody's."""
        super().__init__(printable(message))


class Identity(NamedTuple):
    """Whose state it is. `partitions` is 0 where a log has no number of partitions, and then agrees with any."""

    topic: str
    partition: int
    configuration: Configuration
    partitions: int = 0
    application: str = "thalweg"


class OutputEnd(msgspec.Struct, frozen=True):
    """How far an output topic's partition was written: its end offset, and offset and ordinal of the last cause."""

    end_offset: Count | None = None
    last_cause: tuple[Count, Count] | None = None


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint records about itself.

    `next_offset`: the first record that is not in it; `last_record`: SHA-256 of the value of the one before, which
    distinguishes the log from another one; `digest`: of the state; `configuration`: all that shape and results follow
    from.
    """

    application: str
    topic: str
    partition: Count
    partitions: Count
    next_offset: Count
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
    """Where one array is in the file."""

    name: str
    dtype: str
    shape: list[int]
    start: int


class _Contents(msgspec.Struct, frozen=True):
    header: Header
    arrays: list[_Place]


_decode_contents = msgspec.json.Decoder(_Contents).decode
"""Made once: threads that make the same decoder at the same time end the process (msgspec 0.22)."""


class Store(Protocol):
    """Where the checkpoints of one partition lie. What a place is, is the store's own; as text it is for messages.

    Every method raises CheckpointError where what is below it refuses.
    """

    @property
    def directory(self) -> Any:
        """The folder, as messages say it."""

    def paths(self) -> list[Any]:
        """Return the places of the checkpoints, the newest first."""

    def read(self, path: Any) -> Checkpoint:
        """Return the checkpoint at a place, every byte verified. Raises DamagedError where it is not whole."""

    def save(self, checkpoint: Checkpoint) -> Any:
        """Write a checkpoint so that it is there whole or not at all, let old ones go, and return its place."""

    def load(self, identity: Identity) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none at all."""

    def make_durable(self) -> None:
        """Make what `load` returned survive a loss of power, as its writer may have died before that was certain."""

    def status(self, path: Any) -> FileStatus:
        """Return when the checkpoint at a place was written, and its size."""

    def set_aside(self, path: Any) -> Any:
        """Move the checkpoint at a place to where no worker looks for one, and return that place."""


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
        self._is_folder_made = False

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
        beside = beside_of(path)
        disk = self._disk
        with refusing(self.directory):
            self._make_folder_once()
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
            self._let_go(path)
        return path

    def load(self, identity: Identity) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None where there is none at all.

        Raises CheckpointError where it is another's, of another configuration or of a newer format, or where there
        are checkpoints and every one is damaged.
        """
        for _ in range(LOOKS_MAX):
            paths = self.paths()
            try:
                return load_newest(self, identity, self._on_damage)
            except CheckpointError:
                # whoever had the partition before may still be writing, and let go what was to be read
                if self.paths() == paths:
                    raise
        raise CheckpointError(f"{self.directory} is written to all the while: another worker has the partition")

    def read(self, path: Path) -> Checkpoint:
        """Return the checkpoint in a file, every byte verified."""
        return read(path, self._disk)

    def status(self, path: Path) -> FileStatus:
        """Return when a checkpoint's file was written, and its size."""
        with refusing(path):
            return self._disk.status(path)

    def set_aside(self, path: Path) -> Path:
        """Move a checkpoint to the folder `aside`, where no worker looks for one, and return its place there."""
        folder = self.directory / ASIDE
        with refusing(path):
            self._make_folder(folder)
            there = set(self._disk.names(folder))
            aside = next(folder / name for name in aside_names(path.name) if name not in there)
            self._disk.rename(path, aside)
            self._disk.sync_folder(folder)
            self._disk.sync_folder(self.directory)
        return aside

    def make_durable(self) -> None:
        """Make the files' names as durable as their contents, as their writer may have died before it could.

        Raises CheckpointError where the system refuses.
        """
        with refusing(self.directory):
            self._make_folder_once()
            self._disk.sync_folder(self.directory)

    def _let_go(self, saved: Path) -> None:
        """Remove what is older than the checkpoints to keep: others, and what was never written to its end.

        The one just saved stays in any case: those with higher offsets may be damaged, or be no files at all.
        """
        paths = self.paths()
        for old in paths[self._keep :]:
            if old != saved:
                with suppress(IsADirectoryError):
                    self._disk.unlink(old)
        oldest = paths[: self._keep][-1].stem
        for name in self._disk.names(self.directory):
            if name.endswith(WRITING) and name.partition(".")[0] < oldest:
                self._disk.unlink(self.directory / name)

    def _make_folder_once(self) -> None:
        """Make the folder and those above it, each synced into the one above.

        Those that are there are synced too: who made them may have died before.
        """
        if self._is_folder_made and self._disk.is_folder(self.directory):
            return
        for folder in (*reversed(self.directory.parents), self.directory):
            if folder != folder.parent:
                self._make_folder(folder)
        self._is_folder_made = True

    def _make_folder(self, folder: Path) -> None:
        was_there = self._disk.is_folder(folder)
        if not was_there:
            self._disk.make_folder(folder)
        try:
            self._disk.sync_folder(folder.parent)
        except PermissionError:
            if not was_there:
                raise


class DamagedError(CheckpointError):
    """A file that is no whole checkpoint."""


def beside_of(path: Path) -> Path:
    """Return where a file is written before it has its name; another writer of that file gets another place."""
    return path.with_name(f"{path.stem}.{secrets.token_hex(4)}{WRITING}")


def load_newest(store: Store, identity: Identity, on_damage: Callable[[str], object]) -> Checkpoint | None:
    """Return a store's newest checkpoint that is whole, None where there is none at all.

    Raises CheckpointError where it is another's, of another configuration or of a newer format, or where there
    are checkpoints and every one is damaged.
    """
    paths = store.paths()
    for path in paths:
        try:
            checkpoint = store.read(path)
            refuse_misnamed(path, checkpoint.header)
        except DamagedError as error:
            on_damage(f"{error}: passed over")
            continue
        refuse_other(path, checkpoint.header, identity)
        return checkpoint
    if paths:
        raise CheckpointError(
            f"every checkpoint in {store.directory} is damaged: remove the folder to start from the log's beginning"
        )
    return None


def refuse_misnamed(path: Any, header: Header) -> None:
    """Raise DamagedError where a checkpoint does not have the name that its next offset gives it."""
    if path.stem != f"{header.next_offset:020d}":
        raise DamagedError(f"{path} resumes at offset {header.next_offset}: it was given another one's name")


def aside_names(name: str) -> Iterator[str]:
    """Give the names that a checkpoint may have among those set aside: its own, and where that is taken, numbered."""
    yield name
    yield from (f"{name}.{number}" for number in range(1, 1 << 20))


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


def origin_of(header: Header) -> Origin:
    """Return the origin of the first record that is not in a checkpoint."""
    return Origin(header.topic, header.partition, header.next_offset)


def plain(configuration: Configuration) -> dict[str, Any]:
    """Return a configuration as JSON has it, without what no result follows from."""
    converted: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(configuration, order="sorted"))
    for name in NO_RESULT:
        del converted["lessons"][name]
    if not configuration.objectives.is_joint and not configuration.objectives.order:
        del converted["objectives"]  # the joiner's section has the only one
    return converted


def encoded(checkpoint: Checkpoint) -> Iterator[memoryview]:
    """Yield a checkpoint's file in parts, the arrays' own memory among them."""
    arrays = {name: little(np.ascontiguousarray(checkpoint.arrays[name])) for name in sorted(checkpoint.arrays)}
    places, start = [], 0
    for name, array in arrays.items():
        dtype = array.dtype.str
        if dtype not in DTYPES:
            raise ValueError(f"{name} is {array.dtype}, which a checkpoint can't hold")
        places.append(_Place(name, dtype, list(array.shape), start))
        start += padded(array.nbytes)
    contents = msgspec.json.encode(_Contents(checkpoint.header, places), order="sorted")
    head = MAGIC + _LENGTHS.pack(FORMAT, len(contents)) + contents
    sha = hashlib.sha256()
    parts = [memoryview(head), *(memory(array) for array in arrays.values())]
    for piece in joined(parts):
        sha.update(piece)
        yield piece
    yield memoryview(sha.digest())


def joined(parts: Iterable[memoryview]) -> Iterator[memoryview]:
    """Yield parts, each filled up to the alignment: small ones as one, since each piece is a call to the system."""
    small: list[memoryview | bytes] = []
    size = 0
    for part in parts:
        length = len(part)
        whole = padded(length)
        is_small = length < PIECE_BYTES
        if is_small:
            small += (part, bytes(whole - length))
            size += whole
        if size and (size >= PIECE_BYTES or not is_small):
            yield memoryview(b"".join(small))
            small, size = [], 0
        if not is_small:
            yield part
            small, size = [bytes(whole - length)], whole - length
    if size:
        yield memoryview(b"".join(small))


def little(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array with the lowest byte of each number first."""
    return array.astype(array.dtype.newbyteorder("<")) if array.dtype.str[0] == ">" else array


def memory(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of a contiguous array."""
    return array.data.cast("B") if array.size else memoryview(b"")


def read(path: Path, disk: Disk | None = None) -> Checkpoint:
    """Return a file's checkpoint, every byte verified.

    Raises DamagedError where it is not whole, or no file, CheckpointError where it can't be read or is of a newer
    format.
    """
    with refusing(path):
        try:
            content = (disk or LocalDisk()).read(path)
        except NotAFileError as error:
            raise DamagedError(f"{path} is not a checkpoint: {error.strerror}") from None
    return decoded(path, content)


def decoded(path: Any, content: Content) -> Checkpoint:
    """Return the checkpoint that a file's bytes are; nothing is copied and nothing in them is run.

    Raises DamagedError where they are not whole, CheckpointError where they are of a newer format.
    """
    size, view = len(content), memoryview(content.data)
    if size < len(MAGIC) + _LENGTHS.size + SHA_BYTES or bytes(content[: len(MAGIC)]) != MAGIC:
        raise DamagedError(f"{path} is not a checkpoint, or only its beginning")
    version, length = _LENGTHS.unpack_from(view, len(MAGIC))
    whole = hashlib.sha256(content[:-SHA_BYTES].data).digest() == bytes(content[-SHA_BYTES:])
    if not whole:
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the one it ends with")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version}, this version reads up to {FORMAT}: "
            "install the Thalweg that wrote it, or a newer one"
        )
    try:
        start = len(MAGIC) + _LENGTHS.size
        if not version or length > size:
            raise ValueError("its format or its header's length can't be")
        contents = _decode_contents(content[start : start + length].data)
        sizes = sizes_of(contents.arrays)
        body = content[padded(start + length) : -SHA_BYTES]
        return Checkpoint(contents.header, {name: cut(body, *sized) for name, sized in sizes.items()})
    except (ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise DamagedError(f"{path} is damaged: {said(error)}") from None


def sizes_of(places: list[_Place]) -> dict[str, tuple[_Place, int]]:
    """Return arrays' places and bytes by their names. Raises ValueError where two have a name, or bytes, in common."""
    sizes = {place.name: (place, bytes_of(place)) for place in places}
    if len(sizes) < len(places):
        raise ValueError("two arrays have one name")
    end = 0
    for place, size in sorted(sizes.values(), key=lambda sized: sized[0].start):
        if not size:
            continue
        if place.start < end:
            raise ValueError(f"{said(place.name)} overlaps another array")
        end = place.start + size
    return sizes


def bytes_of(place: _Place) -> int:
    """Return an array's bytes. Raises ValueError where it can't be one."""
    dtype = DTYPES.get(place.dtype)
    if dtype is None or min(place.shape, default=0) < 0 or place.start % ALIGNMENT or place.start < 0:
        raise ValueError(f"{said(place.name)} is no array of numbers")
    return prod(place.shape, start=dtype.itemsize)


def said(value: object) -> str:
    """Return what a file says of itself as a message may have it: on one line, printable and not long."""
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= SAID_MAX else f"{text[: SAID_MAX - 3]}..."


def cut(body: npt.NDArray[np.uint8], place: _Place, size: int) -> npt.NDArray[Any]:
    """Return the array at a place, without copying. Raises ValueError where it can't be one."""
    if place.start + size > len(body):
        raise ValueError(f"{said(place.name)} ends behind the file")
    return np.ndarray(place.shape, DTYPES[place.dtype], body, place.start)


def refuse_other(path: Any, header: Header, identity: Identity) -> None:
    """Raise CheckpointError where a checkpoint is not the identity's."""
    if header.application != identity.application:
        raise CheckpointError(
            f"{path} belongs to application {said(repr(header.application))}, not {identity.application!r}: "
            "name another folder"
        )
    if (header.topic, header.partition) != (identity.topic, identity.partition):
        raise CheckpointError(
            f"{path} is of {said(header.topic)}-{header.partition}, not of {identity.topic}-{identity.partition}: "
            "name another folder, or the topic and partition"
        )
    if header.partitions and identity.partitions and header.partitions != identity.partitions:
        raise CheckpointError(
            f"{path} is of a topic with {header.partitions} partitions, which has {identity.partitions} now: "
            "users have moved between partitions, so rebuild from the log into another folder"
        )
    ours = plain(identity.configuration)
    changed = [] if header.configuration == ours else list(differences(header.configuration, ours))
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise CheckpointError(
            f"{path} was made with {said(changed[0])}{more}: set it back, or rebuild from the log into another "
            "checkpoint.generation"
        )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield each value in which two configurations differ, as one says it; secrets as stars."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif old != new:
        key = tuple(path.split("."))
        said_old, said_new = (
            "'***'" if is_secret(key) else msgspec.json.encode(value).decode() for value in (old, new)
        )
        yield f"{path} = {said_old}, which is {said_new} now"


def padded(size: int) -> int:
    """Return a size filled up to the alignment of arrays."""
    return size + -size % ALIGNMENT

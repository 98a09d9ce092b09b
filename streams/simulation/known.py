"""What was computed once from the same bytes is not computed again: all crashes' runs fold the same over and over.

A fold is a function of the state that it begins with and of the records since, and a header one of a file's bytes. So
what a `KnownPartition` answers is what the real one answered for the very same bytes and blocks; nothing is assumed
beyond that, such as that blocks may be cut otherwise.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from thalweg.schemas.records import Outputs, Record
from thalweg.streams.partition.findings import Finding
from thalweg.streams.partition.partition import Partition, Rooms
from thalweg.streams.partition.seal import SignedHeader

Answer = TypeVar("Answer")
Block = tuple[Record, ...]


class Known:
    """What was computed so far, in whichever world."""

    def __init__(self) -> None:
        """Know nothing."""
        self._folds: dict[Any, _Fold] = {}
        self._answers: dict[Any, Any] = {}
        self._rooms: Rooms = [None, None]

    def partition(self, configuration: Any, *, arrays: dict[str, Any] | None, **named: Any) -> Any:
        """Return what stands for a partition: it answers the same, having asked a real one if need be.

        Raises what a real one raises.
        """
        key = (id(configuration), named["partition"], named["partitions"], None if arrays is None else sha_of(arrays))
        fold = self._folds.get(key)
        if fold is None:
            fold = _Fold(lambda: Partition(configuration, arrays=arrays, rooms=self._rooms, **named))
            fold.real()
            self._folds[key] = fold
        return KnownPartition(fold)

    def answer(self, key: Any, compute: Callable[[], Answer]) -> Answer:
        """Return what was computed for a key, or compute it."""
        if key not in self._answers:
            self._answers[key] = compute()
        found: Answer = self._answers[key]
        return found


class KnownPartition:
    """What a worker takes for a `Partition`."""

    def __init__(self, fold: "_Fold") -> None:
        """Begin where a fold is."""
        self._fold = fold

    def process(self, records: Sequence[Record]) -> Outputs:
        """Fold records and return what they made."""
        self._fold, outputs = self._fold.after(tuple(records))
        return Outputs(*(list(each) for each in outputs))

    def findings(self, letters: str) -> list[Finding]:
        """Return nothing: no one reads a simulated worker's log."""
        return []

    def digest(self) -> str:
        """Return the digest of the state."""
        return self._fold.digest()

    def snapshot(self, header: SignedHeader | None = None) -> dict[str, Any]:
        """Return the state's arrays; none of them is signed."""
        return dict(self._fold.snapshot())


class _Fold:
    """A state by how it came to be: a beginning, and blocks; a real partition is there while it stands here."""

    def __init__(self, begin: Callable[[], Partition], blocks: tuple[Block, ...] = ()) -> None:
        self._begin, self._blocks = begin, blocks
        self._real: Partition | None = None
        self._after: dict[Block, tuple[_Fold, Outputs]] = {}
        self._digest: str | None = None
        self._snapshot: dict[str, Any] | None = None

    def real(self) -> Partition:
        if self._real is None:
            self._real = self._begin()
            for block in self._blocks:
                self._real.process(block)
        return self._real

    def after(self, block: Block) -> tuple["_Fold", Outputs]:
        if block not in self._after:
            fold = _Fold(self._begin, (*self._blocks, block))
            fold._real, self._real = self.real(), None
            self._after[block] = fold, fold._real.process(block)
        return self._after[block]

    def digest(self) -> str:
        if self._digest is None:
            self._digest = self.real().digest()
        return self._digest

    def snapshot(self) -> dict[str, Any]:
        if self._snapshot is None:
            self._snapshot = self.real().snapshot()
        return self._snapshot


def sha_of(arrays: dict[str, Any]) -> bytes:
    """Return the SHA-256 of arrays, of their names, types and shapes."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.digest()

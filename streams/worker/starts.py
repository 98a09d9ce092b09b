"""Where a partition begins that no worker has folded: with what another one has learned by its newest checkpoint.

The worker keeps that shared part in a file, which has nothing of a user, before a `merge` in the log names it:

    found     1. the newest whole checkpoint of another partition, or what was kept before the last worker died here
              2. its values, rates and weights go into an empty state; that is saved below `starts`, synced
              3. the worker appends the merge that names it (`SharedLessons.begin`)
    state_at  the fold reads the file when it meets the merge, also in a rebuild

Where a worker dies behind 2, the next one names the same file. Two merges that name different files do no harm: the
fold takes the first.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.origin import parse_origin
from thalweg.schemas.records import LogRecord
from thalweg.streams.checkpoints.disk import Disk
from thalweg.streams.checkpoints.folders import partitions_at, starts_at, starts_of, store_at
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointError, Identity, Store, header_of, origin_of
from thalweg.streams.configuration.loading import CheckpointSection
from thalweg.streams.partition.partition import Partition
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal

Arrays = Mapping[str, npt.NDArray[Any]]
NO_NAMES = "features.context does not name the fields, so they have other places in each partition"
NO_OTHER = "no other partition has a checkpoint yet"


class Start(NamedTuple):
    """Where a partition begins: `origin` of the record before which another one had learned `upto`, by source."""

    origin: str
    upto: dict[int, int]


class Given(NamedTuple):
    """A state in memory, as a `LessonSource` that has nothing else."""

    arrays: Arrays

    def shared(self, start: str) -> Arrays:
        """Return it."""
        return self.arrays

    def read(self, source: int, first: int, upto: int) -> bytes:
        """Raise Refusal: there are no lessons."""
        raise Refusal(f"there are no lessons of partition {source}")


@dataclass(frozen=True, slots=True)
class Starts:
    """Other partitions' shared parts for one partition: where they are, and how one is made."""

    section: CheckpointSection
    identity: Identity
    disk: Disk
    log: Any

    def state_at(self, start: str) -> Arrays:
        """Return the arrays of the shared part that a merge names. Raises Refusal where it is not there."""
        try:
            origin = parse_origin(start)
            store = starts_at(self.section, origin.topic, self.identity.partition, origin.partition, disk=self.disk)
            for path in store.paths():
                if path.stem == f"{origin.offset:020d}":
                    return store.read(path).part("")
        except (ValueError, CheckpointError) as error:
            raise Refusal(f"the log begins with the state at {printable(start)}: {printable(str(error))}") from None
        raise Refusal(
            f"the log begins with the state at {printable(start)}, which is not in {store.directory} any more: bring "
            "it back, or fold the log without what others taught, see `thalweg checkpoint rebuild --without-lessons`"
        )

    def found(self) -> Start | str:
        """Return where to begin, kept for good; why not, where the partition begins empty.

        Raises Refusal where the folder does not take it.
        """
        if not self.identity.configuration.features.context:
            return NO_NAMES
        try:
            starts = starts_of(self.section, self.identity.topic, self.identity.partition)
            for other in self._others(starts):
                if (start := self._kept(other)) is not None:
                    return start
            for other in self._newest_first():
                if (checkpoint := self._checkpoint(other)) is not None:
                    return self._keep(other, checkpoint)
        except CheckpointError as error:
            raise Refusal(str(error)) from error
        return NO_OTHER

    def _others(self, section: CheckpointSection) -> list[int]:
        """Return the other partitions that have a folder."""
        there = partitions_at(section, self.identity.topic, disk=self.disk)
        return [number for number in there if number != self.identity.partition]

    def _starts(self, other: int) -> Store:
        return starts_at(self.section, self.identity.topic, self.identity.partition, other, disk=self.disk)

    def _kept(self, other: int) -> Start | None:
        """Return the shared part of another partition that was kept before: its worker may have died then."""
        store = self._starts(other)
        try:
            kept = store.load(self.identity._replace(partition=other))
        except CheckpointError as error:
            self.log.warning("%s is passed over: %s", store.directory, error)
            return None
        if kept is None:
            return None
        store.make_durable()
        return start_of(kept)

    def _newest_first(self) -> list[int]:
        """Return the other partitions that have a checkpoint, that with the newest file first."""
        found = []
        for other in self._others(self.section):
            store = store_at(self.section, self.identity.topic, other, disk=self.disk)
            for path in store.paths()[:1]:
                with suppress(CheckpointError):  # its owner has newer ones by now, and let it go
                    found.append((-store.status(path).modified_at_s, other))
        return [other for _, other in sorted(found)]

    def _checkpoint(self, other: int) -> Checkpoint | None:
        """Return another partition's newest checkpoint that is whole and of this configuration."""
        try:
            return store_at(self.section, self.identity.topic, other, disk=self.disk).load(
                self.identity._replace(partition=other)
            )
        except CheckpointError as error:
            self.log.warning("%s can't begin with another partition's state: %s", self._name, error)
            return None

    def _keep(self, other: int, checkpoint: Checkpoint) -> Start:
        """Keep what another partition had learned by its checkpoint, and nothing of its users."""
        kept = shared_part(self.identity._replace(partition=other), checkpoint)
        self._starts(other).save(kept)
        return start_of(kept)

    @property
    def _name(self) -> str:
        return f"{self.identity.topic}-{self.identity.partition}"


def shared_part(identity: Identity, checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint of a partition without all that no other partition may have: its users, and what waits."""
    configuration: Configuration = identity.configuration
    origin = origin_of(checkpoint.header)
    arrays = checkpoint.part("")
    fold = Partition(configuration, topic=identity.topic, partition=identity.partition, lessons=Given(arrays))
    fold.process([LogRecord(0, encode_event(Merge("start", {}, start=str(origin))))])
    known = fold.state.lessons
    known.learned[:] = arrays["lessons.learned"]
    known.made[:] = arrays["lessons.made"]
    return Checkpoint(header_of(identity, origin.offset, fold.digest()), fold.snapshot())


def start_of(kept: Checkpoint) -> Start:
    """Return what a merge has to name to begin with a shared part."""
    header = kept.header
    numbers = learned_in(kept.part(""), header.partition)
    return Start(str(origin_of(header)), {source: number for source, number in enumerate(numbers) if number})


def learned_in(arrays: Arrays, teacher: int) -> list[int]:
    """Return by source the number of the last lesson that is in a partition's shared part, its own lessons too."""
    numbers: list[int] = arrays["lessons.learned"].tolist()
    numbers[teacher] = int(arrays["lessons.made"][0])
    return numbers

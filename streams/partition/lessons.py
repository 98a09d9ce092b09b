"""Where a partition gets the lessons that its log names, and what it does with them."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.fold.columns import new_columns
from thalweg.operators.fold.emitted import Emitted, Made
from thalweg.operators.fold.fold import claim, learn
from thalweg.operators.fold.merging import BEGINS, Learned
from thalweg.operators.fold.snapshot import restore
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.learner import BUILT_IN
from thalweg.operators.machine.declare import walk
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.table import Table, rows_by_key
from thalweg.schemas.lessons import BadLessonsError, read_batch, read_batches
from thalweg.schemas.origin import parse_origin
from thalweg.streams.refusal import Refusal

AT_ONCE_BYTES = 1 << 20
SHARED = (
    *("learner.", "memory.", "delays.", "cross.embedded.", "cross.counted.", "cross.matrices", "cross.weights"),
    *("cross.squares", "cross.moments", "cross.learned", "cross.mix"),
)
"""What a partition takes over that begins with another's state, but for the stamps of the other's pages."""
STAMPS = ".page"

Rows = npt.NDArray[np.int64]


class LessonSource(Protocol):
    """Where lessons come from: the topic, a file, what other partitions of this process made."""

    def shared(self, start: str) -> Mapping[str, npt.NDArray[Any]]:
        """Return the arrays of a snapshot of another partition: its state before the record with this origin.

        Raises Refusal where there is none.
        """

    def read(self, source: int, first: int, upto: int) -> bytes:
        """Return batches with the lessons `first` to `upto` of a partition, one behind the other.

        Some of them do, from `first` on: it is asked again for the rest. A batch may begin before `first` and end
        behind `upto`. It is called from the thread that folds and may wait; nothing else of the partition moves on.

        Raises LessonsMissingError where they are not there any more.
        """


class LessonsMissingError(Refusal):
    """Lessons that the log names are gone."""

    def __init__(self, source: int, first: int, upto: int, why: str) -> None:
        """Name the lessons, and what to do."""
        super().__init__(f"lessons {first} to {upto} of partition {source}, which the log names, are missing: {why}")
        self.source, self.first, self.upto = source, first, upto


class LessonsLayoutError(Refusal):
    """Lessons of partitions whose configuration has another shape."""


def settled(configuration: Configuration, *, has_others: bool) -> Configuration:
    """Return a configuration in which it is decided whether lessons are made: by default where there are others.

    Another model than the built-in one makes none, and nor do several objectives, or one that values weigh.
    """
    c = configuration
    if c.lessons.enabled is not None or not has_others or c.learner.model != BUILT_IN or c.objectives.is_joint:
        return configuration
    return replace(configuration, lessons=replace(configuration.lessons, enabled=True))


class Fold(NamedTuple):
    """What the fold is given to learn lessons."""

    state: State
    parameters: Parameters
    scratch: Scratch
    emitted: Emitted


class Lessons:
    """What merges name, from its source to the fold."""

    def __init__(self, configuration: Configuration, source: LessonSource | None) -> None:
        """Ask `source`, where there is one."""
        self._configuration = configuration
        self._source = source

    def serve(self, fold: Fold, block: Block, event: int) -> None:
        """Bring what the merge waits for at which the fold stopped. Raises Refusal where it is not there."""
        entry = int(fold.emitted.counts[Made.MERGE])
        fold.emitted.counts[Made.MERGE] = 0
        if entry == BEGINS:
            begin(fold, self._configuration, self._source, getattr(block.events[event], "start", None) or "")
            return
        columns = block.columns
        source, upto = int(columns.merge_source[entry - 1]), int(columns.merge_upto[entry - 1])
        self.learn(fold, source, upto, f"the record at offset {int(columns.offset[event])}")

    def learn(self, fold: Fold, source: int, upto: int, asked_by: str) -> None:
        """Let the fold learn the lessons of a partition up to a number, which `asked_by` names.

        Raises Refusal where the lessons are missing, damaged or of another layout.
        """
        learned = fold.state.lessons.learned
        while (before := int(learned[source])) < upto:
            if self._source is None:
                raise Refusal(
                    f"{asked_by} merges lessons of partition {source} up to {upto}: give them by --lessons, or set "
                    "lessons.enabled = false to pass over all merges"
                )
            data = self._source.read(source, before + 1, upto)
            wanted = new_columns(0)._replace(
                merge_source=np.array([source], np.int64),
                merge_upto=np.array([upto], np.int64),
                merge_passed=np.zeros(1, np.uint8),
                text=np.frombuffer(bytearray(data), np.uint8),
            )
            told = learn(fold.state, fold.parameters, fold.scratch, wanted, fold.emitted)
            if told == Learned.OTHER_LAYOUT:
                theirs, ours = read_batch(data).layout, fold.parameters.lessons.layout % 2**64
                raise LessonsLayoutError(
                    f"lessons of partition {source} behind number {int(learned[source])} have the layout "
                    f"{theirs:016x}, this configuration's is {ours:016x}: let all workers run with one configuration, "
                    "see docs/upgrading.md"
                )
            if told == Learned.DAMAGED:
                raise Refusal(
                    f"lessons of partition {source} behind number {int(learned[source])} are damaged, or not of "
                    "this version of thalweg"
                )
            if int(learned[source]) == before:
                raise LessonsMissingError(source, before + 1, upto, "what is there begins or ends elsewhere")


def begin(fold: Fold, configuration: Configuration, source: LessonSource | None, start: str) -> None:
    """Begin with what another partition has learned: its values, rates and weights, but nothing of a user.

    What this partition has of its users stays. Raises Refusal where there is no such state, it does not fit, or fields
    were learned from the log: then they may have other places.
    """
    if source is None:
        raise Refusal(f"a merge begins with the state at {start}, and there is nothing to take it from: see --lessons")
    try:
        other = restore(configuration, dict(source.shared(start)))
        teacher = parse_origin(start).partition
    except ValueError as error:
        raise Refusal(
            f"the state at {start} can't be begun with: {error}; to fold the log without what others taught, see "
            "`thalweg checkpoint rebuild --without-lessons`"
        ) from None
    learned = fold.state.lessons.learned
    if teacher >= len(learned):
        raise Refusal(f"partition {teacher} of {start} is not below lessons.sources_limit")
    if (other.names != fold.state.names).any():
        raise Refusal(f"the state at {start} can't be begun with, its fields have other places: set features.context")
    adopt(fold, other)
    learned[:] = other.lessons.learned
    learned[teacher] = other.lessons.made[0]
    learned[fold.parameters.lessons.own] = 0
    fold.state.lessons.begun[0] = 1


def adopt(fold: Fold, other: State) -> None:
    """Take over what another state has learned."""
    rows: dict[str, tuple[Any, Any]] = {
        "values": claimed(fold, other.features, other.user_rows, is_pairs=False),
        "cross_pairs": claimed(fold, other.cross.pairs, other.cross.owners, is_pairs=True),
    }
    for each in walk(other):
        if each.path.startswith(SHARED) and not each.path.endswith(STAMPS):
            at, to = rows.get(str(each.field.shape[0]), (slice(None), slice(None)))
            attrgetter(each.path)(fold.state)[to] = each.array[at]


def claimed(fold: Fold, members: Table, owned: Owned, *, is_pairs: bool) -> tuple[Rows, Rows]:
    """Return the rows of another state's keys that are no user's, and the rows that they have here."""
    rows = rows_by_key(members)
    rows = rows[owned.owner[rows] == 0]
    rows = rows[np.argsort(members.updated_ms[rows], kind="stable")]
    columns = new_columns(len(rows))
    columns.user[:], columns.kind[:] = members.key[rows], members.list_of[rows]
    columns.ts_ms[:] = members.updated_ms[rows]
    claim(fold.state, fold.parameters, fold.scratch, columns, fold.emitted, is_pairs)
    has_room = columns.offset >= 0
    return rows[has_room], columns.offset[has_room]


class LessonBook:
    """Lessons in memory, by partition: those of a file, or of partitions in the same process.

    >>> from thalweg.schemas.lessons import encode_batch
    >>> from thalweg.schemas.records import Cause
    >>> book = LessonBook()
    >>> book.add([encode_batch(3, 1, 7, Cause(0, 0), [], 1, b"ab"), encode_batch(3, 2, 7, Cause(1, 0), [], 1, b"c")])
    >>> book.read(3, 2, 2)[-1:], book.last(3), book.last(4)
    (b'c', 2, 0)
    """

    def __init__(self, batches: Iterable[bytes] = ()) -> None:
        """Begin with these batches."""
        self._batches: dict[int, list[bytes]] = {}
        self._lasts: dict[int, list[int]] = {}
        self.states: dict[str, Mapping[str, npt.NDArray[Any]]] = {}
        """Snapshots of partitions by the origin of the record behind them."""
        self.add(batches)

    def add(self, batches: Iterable[bytes]) -> None:
        """Add batches, those of each partition in the order of their numbers; what is there already is left out.

        Raises BadLessonsError where one is none, or lessons before it are missing.
        """
        for value in batches:
            batch = read_batch(value)
            lasts = self._lasts.setdefault(batch.source, [])
            last = lasts[-1] if lasts else batch.first - 1
            if batch.last <= last:
                continue
            if batch.first != last + 1:
                raise BadLessonsError(
                    f"lessons {last + 1} to {batch.first - 1} of partition {batch.source} are missing"
                )
            self._batches.setdefault(batch.source, []).append(value)
            lasts.append(batch.last)

    def shared(self, start: str) -> Mapping[str, npt.NDArray[Any]]:
        """Return a snapshot as `LessonSource.shared` does."""
        if start not in self.states:
            raise Refusal(
                f"there is no state at {start}, which the first merge of the log names: give its file by --lessons; it "
                "is in the folder `starts` of the checkpoints"
            )
        return self.states[start]

    def last(self, source: int) -> int:
        """Return the number of a partition's last lesson that is there, 0 where none is."""
        return self._lasts[source][-1] if self._lasts.get(source) else 0

    def read(self, source: int, first: int, upto: int) -> bytes:
        """Return batches as `LessonSource.read` does."""
        lasts, batches = self._lasts.get(source, []), self._batches.get(source, [])
        place = bisect_left(lasts, first)
        if place == len(lasts) or read_batch(batches[place]).first > first:
            raise LessonsMissingError(source, first, upto, "give all lessons from there on")
        end = min(bisect_left(lasts, upto) + 1, len(lasts))
        found, size = [], 0
        for value in batches[place:end]:
            found.append(value)
            size += len(value)
            if size >= AT_ONCE_BYTES:
                break
        return b"".join(found)


def lessons_in(paths: Iterable[str]) -> LessonBook:
    """Return the lessons of files. Raises Refusal where one can't be read, or is none."""
    book = LessonBook()
    for path in paths:
        try:
            book.add(batches_of(Path(path).read_bytes()))
        except OSError as error:
            raise Refusal(f"{path} can't be read: {error.strerror}") from None
        except BadLessonsError as error:
            raise Refusal(f"{path} is no file of lessons, or damaged: {error}") from None
    return book


def batches_of(data: bytes) -> Iterator[bytes]:
    """Yield the batches of which a file of lessons is made. Raises BadLessonsError where it is damaged."""
    for start, batch in read_batches(data):
        yield data[start : start + batch.length]

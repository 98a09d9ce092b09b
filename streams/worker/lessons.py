"""What a worker's partitions learn from others: the topic `lessons` is read once for all of them.

One task reads what all partitions teach, and keeps the newest of it in memory. About once a second it appends a `merge`
record to each partition that the worker has, if something new is there. It names only what it has read from the topic:
lessons that are durable, and in transactional mode committed.

Before a block is folded, the lessons that its merges name are brought together (`PartitionLessons.make_ready`), from
memory or from the topic again. What does not fit into memory is read while the block is folded.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from thalweg.operators.fold.layout import layout_of
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.lessons import BadLessonsError, Batch, read_batch
from thalweg.schemas.origin import parse_origin
from thalweg.schemas.records import Record
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.lessons_topic import Placed
from thalweg.streams.partition.lessons import AT_ONCE_BYTES, LessonsLayoutError, LessonsMissingError
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.ports import Clock, InThread, LessonsTopic
from thalweg.streams.worker.shelf import SCAN_RECORDS, Batches, Held, Marks, Run, Shelf, since
from thalweg.streams.worker.starts import Arrays, Start, learned_in

RETRY_S = 0.1
APPENDS_MAX = 10

StateAt = Callable[[str], Arrays]
"""Returns the arrays of the state before the record with an origin. Raises Refusal where there is none."""

_decode = msgspec.json.Decoder(Merge).decode


def merges_in(records: Iterable[Record]) -> list[Merge]:
    """Return the merges among records."""
    found = []
    for value in [value for record in records if (value := record.value) is not None and b'"merge"' in value]:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            found.append(_decode(value))
    return found


class MergeSettings(NamedTuple):
    """How a worker lets its partitions learn from each other.

    `layout`: that of their lessons; `exclude`: sources that are passed over. `bytes_max`: of lessons in memory, and
    once more for each partition's block; `wait_ms`: how long lessons that the log names are waited for;
    `lessons_max`: that one merge lets a partition learn.
    """

    topic: str
    layout: int
    every_ms: int
    exclude: tuple[int, ...]
    bytes_max: int
    wait_ms: int
    lessons_max: int

    @classmethod
    def of(cls, loaded: Loaded) -> "MergeSettings":
        """Return those of a configuration."""
        c, worker = loaded.configuration, loaded.worker
        return cls(
            loaded.topics.lessons,
            layout_of(c) % 2**64,
            c.lessons.merge_every_ms,
            c.lessons.exclude,
            worker.lessons_bytes_max,
            worker.lessons_wait_ms,
            worker.merge_lessons_max,
        )


class SharedLessons:
    """What all partitions teach, for those that a worker has."""

    def __init__(self, topic: LessonsTopic, settings: MergeSettings, clock: Clock, log: Any) -> None:
        """Make it; `start` begins to read. `log`: logger."""
        self._topic, self._settings, self._clock, self._log = topic, settings, clock, log
        self._shelf = Shelf(settings.bytes_max)
        self._marks: dict[int, Marks] = {}
        self._runs: dict[int, Run] = {}
        self._partitions: dict[int, Callable[[], Sequence[int]]] = {}
        self._named: dict[int, dict[int, int]] = {}
        self._sources = 0
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._broken: set[int] = set()
        self.refused = 0
        self.failure: Exception | None = None

    async def start(self, sources: int) -> None:
        """Read on from near the end of all sources, unless that was begun. Raises Refusal where it can't be."""
        async with self._starting:
            if self._task is None:
                self._sources = sources
                await self._topic.follow(sources)
                self._task = asyncio.get_running_loop().create_task(self._run(), name="lessons")

    async def stop(self) -> None:
        """End reading, and disconnect."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._topic.stop()

    def of_partition(
        self, partition: int, state_at: "StateAt", in_thread: InThread = asyncio.to_thread
    ) -> "PartitionLessons":
        """Return where a partition's fold gets its lessons from, and other partitions' states."""
        return PartitionLessons(self, partition, state_at, in_thread)

    async def begin(self, partition: int, start: Start) -> None:
        """Append the merge that lets a partition begin with another's shared part, before any other merge.

        Raises Refusal where the brokers don't take it.
        """
        event = Merge(self._merge_id(partition), start.upto, start=start.origin)
        for left in reversed(range(APPENDS_MAX)):
            try:
                await self._topic.append(partition, encode_event(event))
            except OSError as error:
                if not left:
                    raise Refusal(f"no merge can be appended to partition {partition}: {error}") from None
                await asyncio.sleep(RETRY_S)
            else:
                return

    def attach(
        self, partition: int, learned: Callable[[], Sequence[int]], upto: Mapping[int, int] | None = None
    ) -> None:
        """Write merges for a partition from now on.

        `learned` returns how far it is with each source; `upto`: what a merge of ours has named of them.
        """
        self._partitions[partition], self._named[partition] = learned, dict(upto or {})

    def detach(self, partition: int) -> None:
        """Write no more merges for a partition."""
        self._partitions.pop(partition, None)
        self._named.pop(partition, None)

    def raise_failure(self) -> None:
        """Raise what ended the reading, if something did."""
        if self.failure is not None:
            raise self.failure

    def behind(self) -> dict[int, int]:
        """Return by source how many lessons that partition has not learned which is furthest behind."""
        found = {}
        for source in range(self._sources):
            learned = [each()[source] for number, each in self._partitions.copy().items() if number != source]
            if learned:
                found[source] = max(0, self._shelf.last(source) - min(learned))
        return found

    async def fetch(self, source: int, first: int, upto: int) -> Batches:
        """Return batches from the one with lesson `first` on, some up to `upto`, from memory or the topic.

        Raises LessonsMissingError where they are gone, Refusal where they do not come.
        """
        if (found := self._held(source, first, upto)).lasts:
            return found
        deadline = _now() + self._settings.wait_ms / 1000
        is_last = False
        while not is_last:
            is_last = _now() > deadline
            self.raise_failure()
            is_there = first <= self._shelf.last(source) or not self._shelf.last(source)
            if is_there or is_last:
                await self._find(source, first, upto)
            else:
                await asyncio.sleep(RETRY_S)
            if (found := self._held(source, first, upto)).lasts:
                return found
        raise Refusal(
            f"lessons {first} to {upto} of partition {source}, which the log names, did not come within "
            f"{self._settings.wait_ms} ms: {self._settings.topic}-{source} ends with lesson "
            f"{self._shelf.last(source)}; the topic lost records or was created again, or worker.lessons_wait_ms is "
            "too short"
        )

    def _held(self, source: int, first: int, upto: int) -> Batches:
        """Return batches in memory from the one with lesson `first` on, none where it is not there."""
        found, run = self._shelf.since(source, first, upto), self._runs.get(source)
        return found if found.lasts or run is None else since(run.batches, first, upto)

    async def _run(self) -> None:
        try:
            due = _now() + self._settings.every_ms / 1000
            while True:
                for source, records in sorted((await self._topic.poll(max(0.0, due - _now()))).items()):
                    for placed in records:
                        await self._take(source, placed)
                if _now() >= due:
                    due = _now() + self._settings.every_ms / 1000
                    oldest: dict[int, int] = {}
                    for partition in list(self._partitions):
                        await self._merge(partition, oldest)
        except Exception as error:
            self.failure = error

    async def _take(self, source: int, placed: Placed) -> None:
        """Put a batch on the shelf, if it is whole and none before it is missing."""
        batch = self._batch(source, placed)
        if batch is None:
            self.refused += 1
            return
        last = self._shelf.last(source)
        if last and batch.first > last + 1 and not await self._is_there(source, last + 1):
            self.refused += 1
            if source not in self._broken:
                self._broken.add(source)
                self._log.warning(
                    "lessons %d to %d of partition %d are on %s neither before nor behind number %d: it teaches "
                    "nothing more until lessons.exclude names it",
                    *(last + 1, batch.first - 1, source, self._settings.topic, last),
                )
            return
        self._shelf.add(batch, placed.value)

    async def _is_there(self, source: int, number: int) -> bool:
        try:
            return await self._find(source, number, number)
        except LessonsMissingError:
            return False

    def _batch(self, source: int, placed: Placed) -> Batch | None:
        """Return a batch's header, None where the record is no batch of its partition.

        Raises LessonsLayoutError where its layout is another one.
        """
        try:
            batch = read_batch(placed.value)
        except BadLessonsError:
            return None
        if batch.source != source or batch.length != len(placed.value):
            return None
        if batch.layout != self._settings.layout and source not in self._settings.exclude:
            raise LessonsLayoutError(
                f"{self._settings.topic}-{source} has lessons of the layout {batch.layout:016x} at offset "
                f"{placed.offset}, this configuration's is {self._settings.layout:016x}: let all workers run with one "
                "configuration, or give the new one another topics.lessons and checkpoint.generation, see "
                "docs/upgrading.md"
            )
        self._marks.setdefault(source, Marks()).add(batch.first, placed.offset)
        return batch

    async def _merge(self, partition: int, oldest: dict[int, int]) -> None:
        """Append a merge to a partition, where others have taught something that none names yet.

        `oldest` keeps, by source, the first lesson that the topic still has. A partition that has not learned the one
        before begins with it.
        """
        if partition not in self._partitions:
            return  # it was given up while another one's merge was on its way
        learned, named = self._partitions[partition](), self._named[partition]
        upto: dict[int, int] = {}
        exclude = []
        each = max(1, self._settings.lessons_max // self._sources)
        for source in range(self._sources):
            base = max(named.get(source, 0), learned[source])
            last = self._shelf.last(source)
            if source == partition or last <= base:
                continue
            skipped = last if source in self._settings.exclude else base
            if skipped == base and base + 1 < self._shelf.first(source):
                if source not in oldest:
                    oldest[source] = await self._oldest(source)
                skipped = max(base, min(oldest[source], self._shelf.first(source)) - 1)
            if skipped > base:
                upto[source] = skipped
                exclude.append(source)
            else:
                upto[source] = min(last, base + each)
        if not upto or partition not in self._partitions:
            return
        event = Merge(self._merge_id(partition), upto, exclude)
        try:
            await self._topic.append(partition, encode_event(event))
        except OSError as error:
            self._log.warning("no merge can be appended to partition %d: %s", partition, error)
            return
        named.update(upto)

    def _merge_id(self, partition: int) -> str:
        return f"merge-{partition}-{round(self._clock.time() * 1000)}"

    async def _oldest(self, source: int) -> int:
        """Return the number from which on the topic has all lessons of a source."""
        begin, _ = await self._topic.bounds(source)
        records, _ = await self._topic.read(source, begin)
        found, last = 1, 0
        for placed in records:
            if (batch := self._batch(source, placed)) is not None:
                if batch.first > last + 1:
                    found = batch.first
                last = max(last, batch.last)
        return found

    async def _find(self, source: int, first: int, upto: int) -> bool:
        """Look up the batch with lesson `first` and what follows; return whether it is there, or the topic ends before.

        In the mode `suppress` a worker that was paused may have appended batches again, in between: numbers rise
        but for those. A number's first occurrence is behind that of the number before.

        Raises LessonsMissingError, which names those up to `upto`, where the topic begins behind it.
        """
        run = self._runs.get(source)
        if run is not None and run.next == first and (await self._scan(source, first, run.following))[0]:
            return True
        begin, end = await self._topic.bounds(source)
        low, high = self._marks.setdefault(source, Marks()).around(first, begin, end)
        while high - low > SCAN_RECORDS:
            middle = (low + high) // 2
            number = await self._first_at(source, middle)
            if number is None or number > first:
                high = middle
            else:
                low = middle
        step = SCAN_RECORDS
        while True:
            is_there, is_beyond = await self._scan(source, first, low)
            if is_there:
                return True
            if low <= begin:
                break
            low, step = max(begin, low - step), 4 * step
        oldest = await self._first_at(source, begin)
        if not is_beyond and (oldest is not None or not begin):
            return False
        there = "without any" if oldest is None else f"with lesson {oldest}"
        raise LessonsMissingError(
            source,
            first,
            upto,
            f"{self._settings.topic}-{source} starts at offset {begin} by now, {there}: its retention was shorter than "
            "the partition's lag; give it at least that of the input",
        )

    async def _first_at(self, source: int, offset: int) -> int | None:
        """Return the number of the first lesson at an offset or behind it; None where there is none."""
        records, _ = await self._topic.read(source, offset)
        for placed in records:
            batch = self._batch(source, placed)
            if batch is not None:
                return batch.first
        return None

    async def _scan(self, source: int, first: int, offset: int) -> tuple[bool, bool]:
        """Look for the batch with lesson `first` from an offset on, and keep it with what follows, about a megabyte.

        Return whether it is there, and whether one behind it is.
        """
        held: list[Held] = []
        size, wanted, following, is_beyond = 0, first, offset, False
        while size < AT_ONCE_BYTES and not is_beyond:
            records, end = await self._topic.read(source, following)
            for placed in records:
                batch = self._batch(source, placed)
                is_beyond = batch is not None and batch.first > wanted
                if is_beyond:
                    break
                following = placed.offset + 1
                if batch is not None and batch.last >= wanted:
                    held.append(Held(batch.first, batch.last, placed.value))
                    size += len(placed.value)
                    wanted = batch.last + 1
            else:
                if end <= following and not records:
                    break
                following = max(following, end)
        if held:
            self._runs[source] = Run(held, following)
        return bool(held), is_beyond

    @property
    def bytes_max(self) -> int:
        """Bytes of lessons that may be brought together for one block."""
        return self._settings.bytes_max


class PartitionLessons:
    """What the blocks of one partition name: the `LessonSource` of its fold."""

    def __init__(self, shared: SharedLessons, partition: int, state_at: StateAt, in_thread: InThread) -> None:
        """Make it, in the loop that `shared` runs in."""
        self._shared, self._partition, self._state_at, self._in_thread = shared, partition, state_at, in_thread
        self._states: dict[str, Arrays] = {}
        self._loop = asyncio.get_running_loop()
        self._batches: dict[int, Batches] = {}

    async def make_ready(self, merges: Sequence[Merge], learned: Sequence[int], *, has_begun: bool = True) -> None:
        """Bring together what merges name, in memory as far as there is room.

        `has_begun`: the partition has met a merge before. The first one may begin with another partition's state: then
        what follows is counted from the lessons in that.

        Raises LessonsMissingError where some are gone, Refusal where they do not come, or that state is gone.
        """
        self._batches, self._states = {}, {}
        at = list(learned)
        size = 0
        for merge in merges:
            if any(source >= len(at) for source in merge.upto):
                continue  # it is dead-lettered
            if merge.start is not None and not has_begun:
                arrays = self._states[merge.start] = await self._in_thread(self._state_at, merge.start)
                at = learned_in(arrays, parse_origin(merge.start).partition)
            has_begun = True
            for source, upto in sorted(merge.upto.items()):
                if source in merge.exclude:
                    at[source] = max(at[source], upto)
                while source != self._partition and at[source] < upto and size < self._shared.bytes_max:
                    found = await self._shared.fetch(source, at[source] + 1, upto)
                    at[source] = self._add(source, found)
                    size += sum(map(len, found.values))

    def shared(self, start: str) -> Arrays:
        """Return the arrays of another partition's state, as `LessonSource.shared` does."""
        return self._states[start] if start in self._states else self._state_at(start)

    def read(self, source: int, first: int, upto: int) -> bytes:
        """Return batches as `LessonSource.read` does; what was not brought together is waited for."""
        lasts, values = self._batches.get(source, Batches([], []))
        place = bisect_left(lasts, first)
        if place < len(lasts) and read_batch(values[place]).first <= first:
            return b"".join(values[place : bisect_left(lasts, upto) + 1])
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            found = asyncio.run_coroutine_threadsafe(self._shared.fetch(source, first, upto), self._loop).result()
            return b"".join(found.values)
        raise LessonsMissingError(source, first, upto, "they can't be waited for where the fold runs")

    def _add(self, source: int, found: Batches) -> int:
        """Put batches behind those of a source, but for what is there; return the number of the last lesson."""
        lasts, values = self._batches.setdefault(source, Batches([], []))
        fresh = bisect_right(found.lasts, lasts[-1]) if lasts else 0
        lasts += found.lasts[fresh:]
        values += found.values[fresh:]
        return lasts[-1]


def _now() -> float:
    return asyncio.get_running_loop().time()

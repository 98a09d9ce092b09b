"""Partitions that learn from each other, in the simulation: `merge` records come to their logs while workers run.

What is to come of a log is known at its end only: it is the fold over what the log became, with the lessons that the
topic has in the end. Since the lessons of each partition are compared as well, one wrong lesson shows at its source.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING

import msgspec
from thalweg.schemas.events import encode_event
from thalweg.schemas.lessons import BadLessonsError, read_batch
from thalweg.schemas.records import Output
from thalweg.streams.checkpoints.folders import starts_at
from thalweg.streams.checkpoints.format import origin_of
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.consume import Reader
from thalweg.streams.kafka.lessons_topic import Placed
from thalweg.streams.partition.lessons import LessonBook, LessonsMissingError, settled
from thalweg.streams.partition.partition import Partition, Rooms
from thalweg.streams.refusal import Refusal
from thalweg.streams.simulation.chance import Mode, Setting
from thalweg.streams.simulation.logs import make_log
from thalweg.streams.simulation.loop import NOBODY, DeadlockError, run
from thalweg.streams.simulation.run import Simulated, differences, drawn_setting, loaded_for
from thalweg.streams.simulation.topic import SimulatedRecord
from thalweg.streams.simulation.verdict import Causes
from thalweg.streams.simulation.world import World
from thalweg.streams.worker.lessons import merges_in
from thalweg.streams.worker.starts import Arrays

if TYPE_CHECKING:
    from thalweg.streams.simulation.worker import SimulatedWorker

ROOMS: Rooms = [None, None]
NEWEST_RECORDS = 3
PAGE_RECORDS = 5
REPEAT_S = 3.0
SOURCES = 4
LATE_SHARE = 0.3
"""Of the seeds, in how many a partition is added when the others have learned something."""
RETENTION_SHARE = 0.3
"""Of the seeds, in how many retention takes lessons, which a log may name."""
NAMES = ("place", "hour", "new", "maker")

OnPoint = Callable[[World, "SimulatedWorker", str], None]


class SimulatedLessons:
    """The topic of lessons and the way into the input, as one worker has them."""

    def __init__(self, world: "TeachingWorld", worker: "SimulatedWorker") -> None:
        """Reach a world's brokers."""
        self._world, self._worker = world, worker
        self._at: list[int] = []

    async def follow(self, sources: int) -> None:
        """Read on from near the end of each source."""
        await self._worker.pass_time(0.02)
        self._at = [max(0, self._world.lessons_end(source) - NEWEST_RECORDS) for source in range(sources)]

    async def poll(self, wait_s: float) -> dict[int, list[Placed]]:
        """Return what came since the last time."""
        await self._worker.pass_time(min(wait_s, 0.2))
        found = {source: records for source, at in enumerate(self._at) if (records := self._from(source, at))}
        for source, records in found.items():
            self._at[source] = records[-1].offset + 1
        if not found:
            await self._worker.pass_time(min(wait_s, 0.2))
        return found

    async def bounds(self, source: int) -> tuple[int, int]:
        """Return the first offset of a source, and its end."""
        await self._worker.pass_time(0.01)
        return self._world.lessons_begin[source], self._world.lessons_end(source)

    async def read(self, source: int, offset: int) -> tuple[list[Placed], int]:
        """Return some records from an offset on, and where to read on."""
        await self._worker.pass_time(0.01)
        records = self._from(source, offset)[:PAGE_RECORDS]
        end = self._world.lessons_end(source)
        return records, records[-1].offset + 1 if records else max(offset, end)

    async def append(self, partition: int, value: bytes) -> None:
        """Append a merge, whose answer may be lost, or itself."""
        self._worker.point("before merge")
        await self._worker.pass_time(0.02)
        lost = self._world.chance.faults_happen(self._world.setting.lost_requests)
        if not (lost and self._world.chance.happens(0.5)):
            self._world.append(partition, value)
        self._worker.point("after merge")
        if lost:
            raise OSError("no answer")

    async def stop(self) -> None:
        """Nothing was connected."""

    def _from(self, source: int, offset: int) -> list[Placed]:
        log = self._world.brokers.log(self._world.topics.lessons, source)
        offset = max(offset, self._world.lessons_begin[source])
        return [Placed(record.offset, record.value or b"") for record, _ in log.committed(offset)]


class TeachingWorld(World):
    """A world whose logs grow by the merges that workers append, and by copies of these."""

    def __init__(
        self,
        loaded: Loaded,
        setting: Setting,
        logs: Sequence[Sequence[SimulatedRecord]],
        random: Random,
        on_point: OnPoint | None = None,
    ) -> None:
        """Make it, within a running loop; the records of `logs` come at their times, behind what is there then."""
        # what is there below an offset is compared at the end: the log is not known before
        causes: list[Causes] = [tuple([] for _ in loaded.topics.outputs) for _ in logs]
        super().__init__(loaded, setting, logs, random, causes, on_point)
        self.verdict.on_transaction = lambda partition, offset: None  # type: ignore[method-assign]
        self.new_fold = partial(Partition, rooms=ROOMS)
        self._coming = [list(zip(log, times, strict=True)) for log, times in zip(logs, setting.arrivals, strict=True)]
        self._arrived: list[list[SimulatedRecord]] = [[] for _ in logs]
        self.lessons_begin = [0 for _ in logs]
        self._begun_at: list[set[int]] = [{0} for _ in logs]
        self.refusal: LessonsMissingError | None = None
        self.loop.call_later(setting.last_added_s, self.group.rebalance)
        for at_s in setting.retention_s:
            self.loop.call_later(at_s, self._remove_lessons)

    def is_added(self, partition: int) -> bool:
        """Whether a partition is there by now: the last one may come later than the others."""
        return partition < self.setting.partitions - 1 or self.loop.time() >= self.setting.last_added_s

    def lessons_of(self, worker: "SimulatedWorker") -> SimulatedLessons:
        """Return what a worker reads lessons from."""
        return SimulatedLessons(self, worker)

    def lessons_end(self, source: int) -> int:
        """Return the end of what is decided of a source."""
        return self.brokers.log(self.topics.lessons, source).stable_end

    def log(self, partition: int) -> list[SimulatedRecord]:
        """Return what has come to a partition so far."""
        log, coming = self._arrived[partition], self._coming[partition]
        while coming and coming[0][1] <= self.loop.time():
            self._place(partition, coming.pop(0)[0])
        return log

    def append(self, partition: int, value: bytes) -> None:
        """Append a record of a worker's; with faults one comes again later, or one that names the partition itself."""
        self.log(partition)
        self._place(partition, SimulatedRecord(0, value, partition=partition))
        if self.chance.faults_happen(0.2):
            [merge] = merges_in([SimulatedRecord(0, value)])
            if self.chance.happens(0.5):
                merge = msgspec.structs.replace(merge, upto=merge.upto | {partition: 1 << 40})
            again = SimulatedRecord(0, encode_event(merge), partition=partition)
            at_s = self.loop.time() + self.chance.random.uniform(0.0, REPEAT_S)
            insort(self._coming[partition], (again, at_s), key=lambda each: each[1])

    def fetch(self, partition: int, position: int, count: int) -> list[SimulatedRecord]:
        """Return so many records from an offset on that have come."""
        return self.log(partition)[position : position + count]

    def end(self, partition: int) -> int:
        """Return the end offset of what has come."""
        return len(self.log(partition))

    def value_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset."""
        return self._arrived[partition][offset].value

    def checkpointed(self, partition: int) -> int:
        """Return how far a partition's newest checkpoint is."""
        return self._checkpointed(partition)

    def starts(self, partition: int) -> dict[str, Arrays]:
        """Return the shared parts that are kept for a partition to begin with, by the origins that name them."""
        found: dict[str, Arrays] = {}
        for other in range(self.setting.partitions):
            store = starts_at(self.loaded.checkpoint, self.topics.interactions, partition, other, disk=self.disk)
            for path in store.paths():
                kept = store.read(path)
                found[str(origin_of(kept.header))] = kept.part("")
        return found

    def is_refused_rightly(self, error: Exception) -> bool:
        """Whether a log names lessons that are gone, and a worker reports which: then this world ends."""
        if not isinstance(error, LessonsMissingError):
            return False
        begins = self._begun_at[error.source]
        records = self.brokers.log(self.topics.lessons, error.source).committed()
        gone = [read_batch(record.value or b"") for record, _ in records if record.offset < max(begins)]
        named = [merge.upto.get(error.source) for log in self._arrived for merge in merges_in(log)]
        is_right = any(batch.first <= error.first <= batch.last for batch in gone) and error.upto in named
        if is_right and any(f"starts at offset {begin} by now" in error.message for begin in begins):
            self.refusal = error
            return True
        return False

    def _remove_lessons(self) -> None:
        """Let retention take what some sources taught first, though a partition may need it."""
        for source in range(self.setting.partitions):
            if self.chance.happens(0.6):
                begin, end = self.lessons_begin[source], self.lessons_end(source)
                self.lessons_begin[source] = self.chance.random.choice((end, self.chance.random.randint(begin, end)))
                self._begun_at[source].add(self.lessons_begin[source])

    def _place(self, partition: int, record: SimulatedRecord) -> None:
        self._arrived[partition].append(record._replace(offset=len(self._arrived[partition])))

    def _is_done(self) -> bool:
        return self.refusal is not None or (
            not any(self._coming)
            and all(self._checkpointed(number) == self.end(number) for number in range(len(self._arrived)))
        )


def simulate_teaching(seed: int, mode: Mode | None = None) -> Simulated:
    """Run the world of a seed in which partitions learn from each other, with faults of all kinds mixed."""
    random = Random(seed)
    drawn: Mode = random.choice(("suppress", "transactional"))
    partitions = random.choice((2, 2, 3))
    counts = [random.randint(15, 40) for _ in range(partitions)]
    logs = [make_log(random, number, partitions, counts[number], 0.0) for number in range(partitions)]
    setting = drawn_setting(random, counts, mode or drawn)
    late = Random(f"added late in {seed}")  # no other draw of the seed moves
    if is_late := late.random() < LATE_SHARE:
        setting = setting._replace(last_added_s=late.choice((4.0, 8.0, 16.0)))
    setting = setting._replace(retention_s=drawn_retention(seed))
    loaded = teaching(partitions, random.choice((300, 1_000, 4_000)), random.choice((4, 20, 1_000)), names=is_late)
    world = run_teaching(loaded, setting, logs, random)
    wrong, deaths = world.verdict.wrong, world.faults.deaths
    return Simulated(seed, mode or drawn, wrong, world.points, deaths, world.loop.time(), has_lessons=True)


def drawn_retention(seed: int) -> tuple[float, ...]:
    """Return when retention takes lessons in the world of a seed: never in most; no other draw of the seed moves."""
    kept = Random(f"retention in {seed}")
    return tuple(sorted(kept.uniform(2.0, 30.0) for _ in range(6))) if kept.random() < RETENTION_SHARE else ()


def run_teaching(
    loaded: Loaded,
    setting: Setting,
    logs: Sequence[Sequence[SimulatedRecord]],
    random: Random,
    on_point: OnPoint | None = None,
) -> TeachingWorld:
    """Run a world of one's own making, and return it with what is `wrong` in it."""
    worlds: list[TeachingWorld] = []

    async def live() -> None:
        worlds.append(TeachingWorld(loaded, setting, logs, random, on_point))
        await worlds[0].live()

    try:
        run(live())
    except DeadlockError as error:
        worlds[0].verdict.wrong.append(str(error))
    finally:
        NOBODY.tasks.clear()
    world = worlds[0]
    world.release_states()
    if not world.verdict.wrong:
        world.verdict.wrong += verify(world)
    return world


def verify(world: TeachingWorld) -> list[str]:
    """Return what is not as the fold over each log, with the lessons on the topic, makes it."""
    topics, wrong = world.topics, list[str]()
    count = world.setting.partitions
    book = LessonBook()
    try:
        for number in range(count):
            read = (record for record, _ in world.brokers.log(topics.lessons, number).committed())
            book.add(record.value or b"" for record in Reader().new(read))
        for number in range(count):
            fold = Partition(
                settled(world.loaded.configuration, has_others=count > 1),
                topic=topics.interactions,
                partition=number,
                partitions=count,
                rooms=ROOMS,
                lessons=book,
            )
            book.states = world.starts(number)
            log, checkpointed = world.log(number), world.checkpointed(number)
            outputs = fold.process(log[:checkpointed])
            if world.verdict.newest_digest(number) != (fold.digest() if checkpointed else None):
                wrong.append(f"the newest checkpoint of partition {number} holds another state than the replay")
            for made, more in zip(outputs, fold.process(log[checkpointed:]), strict=True):
                made.extend(more)
            for topic, due in zip(topics.outputs, outputs, strict=True):
                has_rule = world.setting.mode == "suppress"
                found = differences(f"{topic}-{number}", world.brokers.log(topic, number), due, has_rule)
                wrong += found if world.refusal is None else unless_to_come(world, topic, number, due, found)
    except (BadLessonsError, Refusal) as error:
        wrong.append(f"the logs can't be replayed with the lessons: {error}")
    return wrong


def unless_to_come(
    world: TeachingWorld, topic: str, number: int, due: Sequence[Output], found: Iterable[str]
) -> Iterator[str]:
    """Yield what is wrong of outputs of which, as a worker had to end, only a beginning needs to be there."""
    yield from (each for each in found if " lacks " not in each)
    seen = {cause for _, cause in world.brokers.log(topic, number).committed()}
    if seen != {output.cause for output in due[: len(seen)]}:
        yield f"{topic}-{number} has outputs that are not the first ones"


@cache
def teaching(partitions: int, merge_every_ms: int, lessons_max: int, *, names: bool = False) -> Loaded:
    """Return a configuration for a run: the smallest state, and merges as often and as large as that.

    `names`: fields are named, so that a partition can begin with another's shared part.
    """
    loaded = loaded_for(partitions, 2, 1_000, 20)
    c = loaded.configuration
    lessons = replace(c.lessons, enabled=True, merge_every_ms=merge_every_ms, sources_limit=SOURCES)
    return replace(
        loaded,
        configuration=replace(c, lessons=lessons, features=replace(c.features, context=NAMES) if names else c.features),
        worker=msgspec.structs.replace(loaded.worker, merge_lessons_max=lessons_max),
    )

"""A state rebuilt from the log, under another configuration, while the worker runs under the old one.

A state depends on its configuration, so a changed one needs another state: a new generation, folded
from the log's beginning. It emits no output. It ends where the generation before has its newest checkpoint:
all outputs up to there are on their topics, so a worker that resumes from it leaves out none. What that checkpoint
records of the output topics is copied.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from kafka import KafkaConsumer, TopicPartition
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.records import LogRecord, Record
from thalweg.streams.checkpoints.disk import LocalDisk
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    Identity,
    Store,
    header_of,
)
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.lessons_topic import KafkaLessons
from thalweg.streams.kafka.refusals import refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments
from thalweg.streams.partition.lessons import LessonSource, settled
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.seal import seal_of
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.lessons import MergeSettings, PartitionLessons, SharedLessons, merges_in
from thalweg.streams.worker.starts import Starts

READ_TIMEOUT_S = 60.0
BLOCK_RECORDS = 10_000

Answer = TypeVar("Answer")


class Rebuilt(NamedTuple):
    """Where a rebuilt partition started and where it stands."""

    partition: int
    first_offset: int
    next_offset: int


class Rebuilding:
    """One partition's state on its way from the log into the generation of a configuration.

    Parameters
    ----------
    loaded
        The new configuration; `checkpoint.generation` is the new one.
    partition, partitions
        Which, of how many.
    before
        Header of the checkpoint that the generation before resumes from.
    first_offset
        Where to start, if there is no checkpoint in the new generation yet.
    lessons
        Those that the log's merges name; None: they are passed over.

    Raises Refusal where the new generation holds a checkpoint that cannot be resumed.
    """

    def __init__(
        self,
        loaded: Loaded,
        partition: int,
        partitions: int,
        before: Header,
        first_offset: int = 0,
        lessons: LessonSource | None = None,
    ) -> None:
        """Load what was rebuilt before; the parameters are the class's."""
        topic = loaded.topics.interactions
        self.until = before.next_offset
        self._before = before
        self._passes_over = lessons is None
        self._interval_events = loaded.checkpoint.interval_events
        configuration = settled(loaded.configuration, has_others=partitions > 1)
        self._identity = Identity(topic, partition, configuration, partitions)
        try:
            self._store = store_at(loaded.checkpoint, topic, partition)
            found = self._store.load(self._identity)
            self.fold = Partition(
                configuration,
                topic=topic,
                partition=partition,
                partitions=partitions,
                arrays=None if found is None else found.part(""),
                seal=seal_of(loaded, header=None if found is None else found.header),
                lessons=lessons,
            )
        except (CheckpointError, ValueError) as error:
            raise Refusal(f"{error}: choose a checkpoint.generation that is not there yet") from None
        self.first_offset = self.next_offset = first_offset if found is None else found.header.next_offset
        self._saved = -1 if found is None else self.next_offset
        self._last_value: bytes | None = None

    def fold_block(self, records: Sequence[Record]) -> None:
        """Fold records below the end, emit nothing, and leave a checkpoint where one is due."""
        fresh = [record for record in records if self.next_offset <= record.offset < self.until]
        if not fresh:
            return
        self.fold.process(list(map(passed_over, fresh)) if self._passes_over else fresh)
        self.next_offset = fresh[-1].offset + 1
        self._last_value = fresh[-1].value
        if self.next_offset - max(self._saved, self.first_offset) >= self._interval_events:
            self.save()

    def save(self) -> None:
        """Leave a checkpoint, if there is anything new. Raises Refusal where the folder takes none."""
        if self._last_value is None and self._saved >= 0:
            return
        if self.next_offset in (0, self._saved):
            return
        header = header_of(
            self._identity,
            self.next_offset,
            self.fold.digest(),
            last_record=self._last_value,
            outputs=self._before.outputs,
        )
        try:
            self._store.save(Checkpoint(header, self.fold.snapshot(header)))
        except CheckpointError as error:
            raise Refusal(f"no checkpoint can be written: {error}") from None
        self._saved = self.next_offset


def rebuild(
    loaded: Loaded,
    before: Store,
    partition: int,
    partitions: int,
    *,
    first_offset: int = 0,
    lessons: LessonSource | None = None,
    on_block: Callable[[int, int], object] = lambda next_offset, until: None,
) -> Rebuilt:
    """Fold a partition's log up to where the generation `before` has its newest whole checkpoint.

    `first_offset` other than 0 starts behind the log's beginning: what came before is then not in the state.
    `lessons`: those that the log's merges name; None: they are passed over.

    Raises Refusal where the log no longer holds what is needed, or a store holds a checkpoint that cannot be
    resumed.
    """
    header = newest(before)
    rebuilding = Rebuilding(loaded, partition, partitions, header, first_offset, lessons)
    topic = loaded.topics.interactions
    for records in blocks(loaded.kafka, topic, partition, rebuilding.next_offset, header.next_offset):
        rebuilding.fold_block(records)
        on_block(rebuilding.next_offset, rebuilding.until)
    rebuilding.save()
    return Rebuilt(partition, rebuilding.first_offset, rebuilding.next_offset)


def newest(before: Store) -> Header:
    """Return the header of a store's newest whole checkpoint. Raises Refusal where there is none."""
    try:
        for path in before.paths():
            with suppress(DamagedError):
                return before.read(path).header
    except CheckpointError as error:
        raise Refusal(str(error)) from None
    raise Refusal(
        f"{before.directory} has no whole checkpoint, so nothing was emitted under it: start a worker with the new "
        "generation, which starts at the log's beginning"
    )


def blocks(kafka: KafkaSection, topic: str, partition: int, start: int, until: int) -> Iterator[list[Any]]:
    """Give the committed records of a partition from `start` to before `until`, in blocks.

    Raises Refusal where the log does not hold them, or nothing comes for long.
    """
    place = TopicPartition(topic, partition)
    with refusing(kafka), closing(_consumer(kafka)) as consumer:
        consumer.assign([place])
        begin, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
        if begin > start:
            raise Refusal(
                f"{topic}-{partition} starts at offset {begin} by now, so what came before can't be folded again: "
                f"rebuild from a file with `thalweg replay --checkpoint`, or give --first-offset {begin} if the state "
                "may go without it"
            )
        if end < until:
            raise Refusal(
                f"{topic}-{partition} ends at offset {end}, but a checkpoint of it resumes at {until}: the topic was "
                "created again or lost records"
            )
        consumer.seek(place, start)
        deadline = monotonic() + READ_TIMEOUT_S
        while consumer.position(place) < until:
            before = consumer.position(place)
            records = consumer.poll(timeout_ms=500, max_records=BLOCK_RECORDS).get(place, [])
            if records:
                yield records
            if consumer.position(place) > before:
                deadline = monotonic() + READ_TIMEOUT_S
            elif monotonic() > deadline:
                raise Refusal(f"{topic}-{partition} can't be read: nothing came for {READ_TIMEOUT_S:g} s")


def _consumer(kafka: KafkaSection) -> Any:
    return KafkaConsumer(
        **kafka_python_arguments(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )


def passed_over(record: Record) -> Record:
    """Return a record that, if it is a merge, passes over all the lessons that it names."""
    for merge in merges_in([record]):
        value = encode_event(Merge(merge.id, merge.upto, sorted(merge.upto)))
        return LogRecord(record.offset, value, record.key, record.headers)
    return record


@contextmanager
def lessons_on_topic(loaded: Loaded, partitions: int) -> Iterator[Callable[[int], PartitionLessons]]:
    """Give what returns, by partition, the lessons that its log names, for code that has no event loop.

    Raises Refusal where no broker answers.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="lessons", daemon=True)
    thread.start()

    def call(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    async def begin() -> None:
        topic = KafkaLessons(loaded.kafka, loaded.topics)
        made.append(SharedLessons(topic, MergeSettings.of(loaded), time, log))
        await made[0].start(partitions)

    async def of_partition(number: int) -> PartitionLessons:
        configuration = settled(loaded.configuration, has_others=partitions > 1)
        identity = Identity(loaded.topics.interactions, number, configuration, partitions)
        return made[0].of_partition(number, Starts(loaded.checkpoint, identity, LocalDisk(), log).state_at)

    made: list[SharedLessons] = []
    log = logging.getLogger("thalweg.lessons")
    try:
        call(begin())
        yield lambda number: call(of_partition(number))
    finally:
        for each in made:
            call(each.stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

"""What a worker's partitions learn from others: read once, named when durable, found again wherever they are."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import pytest
from thalweg.schemas.events import Merge, encode_event
from thalweg.schemas.lessons import encode_batch, read_batch, read_batches
from thalweg.schemas.records import Cause, LogRecord
from thalweg.streams.kafka.lessons_topic import Placed
from thalweg.streams.partition.lessons import AT_ONCE_BYTES, LessonsLayoutError, LessonsMissingError
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.lessons import MergeSettings, SharedLessons, merges_in
from thalweg.streams.worker.metrics import Metric, _of_lessons
from thalweg.streams.worker.shelf import Batches, Marks, Shelf
from thalweg.streams.worker.starts import Start
from thalweg.streams.worker.worker import AssignedPartition

LAYOUT = 7
SETTINGS = MergeSettings("lessons", LAYOUT, 10, (), 1 << 20, 200, 1 << 30)
LOGGER = logging.getLogger("thalweg.test")
PAGE = 10

Answer = TypeVar("Answer")


def batch(source: int, first: int, count: int = 1, layout: int = LAYOUT, size: int = 40) -> bytes:
    return encode_batch(source, first, layout, Cause(first, 0), [], count, b"x" * (size * count))


def no_state(start: str) -> dict[str, Any]:
    raise AssertionError(start)


class Topic:
    """The topic in memory: of each source, values by offset; `newest`: how far before its end one is followed from."""

    def __init__(self, *logs: Sequence[bytes], begins: Sequence[int] = (), newest: int = 3) -> None:
        self.logs = [list(enumerate(log, begin)) for log, begin in zip(logs, begins or [0] * len(logs), strict=True)]
        self.newest = newest
        self.appended: list[tuple[int, Merge]] = []
        self.reads = 0
        self.takes_nothing = False
        self._at: list[int] = []

    def teach(self, source: int, value: bytes) -> None:
        self.logs[source].append((self.bounds_of(source)[1], value))

    def bounds_of(self, source: int) -> tuple[int, int]:
        log = self.logs[source]
        return (log[0][0], log[-1][0] + 1) if log else (0, 0)

    async def follow(self, sources: int) -> None:
        assert sources == len(self.logs)
        self._at = [max(begin, end - self.newest) for begin, end in map(self.bounds_of, range(sources))]

    async def poll(self, wait_s: float) -> dict[int, list[Placed]]:
        found = {}
        for source, at in enumerate(self._at):
            records, self._at[source] = self._from(source, at, 1 << 30)
            if records:
                found[source] = records
        await asyncio.sleep(0 if found else min(wait_s, 0.005))
        return found

    async def bounds(self, source: int) -> tuple[int, int]:
        return self.bounds_of(source)

    async def read(self, source: int, offset: int) -> tuple[list[Placed], int]:
        self.reads += 1
        return self._from(source, offset, PAGE)

    async def append(self, partition: int, value: bytes) -> None:
        if self.takes_nothing:
            raise OSError("gone")
        self.appended.append((partition, msgspec.json.decode(value, type=Merge)))

    async def stop(self) -> None:
        """Nothing was connected."""

    def _from(self, source: int, offset: int, count: int) -> tuple[list[Placed], int]:
        found = [Placed(*each) for each in self.logs[source] if each[0] >= offset][:count]
        return found, found[-1].offset + 1 if found else offset


def sharing(
    topic: Topic, use: Callable[[SharedLessons], Awaitable[Answer]], settings: MergeSettings = SETTINGS
) -> Answer:
    """Use what is shared, while it runs, and return what that returns."""

    async def run() -> Answer:
        shared = SharedLessons(topic, settings, time, LOGGER)
        await shared.start(len(topic.logs))
        await asyncio.sleep(0.02)
        try:
            return await use(shared)
        finally:
            await shared.stop()

    return asyncio.run(run())


def numbers(batches: Sequence[bytes] | Batches) -> list[int]:
    values = batches.values if isinstance(batches, Batches) else batches
    return [n for value in values for _, each in read_batches(value) for n in range(each.first, each.last + 1)]


def merged(topic: Topic, learned: list[int], settings: MergeSettings = SETTINGS) -> list[Merge]:
    """Return the merges that partition 0 gets while nothing is learned."""

    async def use(shared: SharedLessons) -> list[Merge]:
        shared.attach(0, lambda: learned)
        await asyncio.sleep(0.1)
        return [merge for partition, merge in topic.appended if partition == 0]

    return sharing(topic, use, settings)


def test_a_shelf_keeps_the_newest_within_its_bytes() -> None:
    """Old batches go first, and what is left of a source has no gap."""
    shelf = Shelf(3 * len(batch(1, 1)))
    for number in range(1, 6):
        shelf.add(read_batch(batch(1, number)), batch(1, number))
        shelf.add(read_batch(batch(1, number)), batch(1, number))
    assert (shelf.first(1), shelf.last(1), shelf.bytes) == (3, 5, 3 * len(batch(1, 1)))
    assert numbers(shelf.since(1, 4, 5)) == [4, 5]
    assert shelf.since(1, 2, 5) == shelf.since(1, 6, 6) == shelf.since(2, 1, 1) == Batches([], [])


def test_a_shelf_finds_what_is_asked_for_however_much_was_taken_off_it() -> None:
    """Batches of several lessons, about a megabyte at a time, from the one with the first lesson on; a gap ends it."""
    shelf = Shelf(600 * len(batch(1, 1, 3, size=1_000)))
    for number in range(1, 6_000, 3):
        shelf.add(read_batch(batch(1, number, 3, size=1_000)), batch(1, number, 3, size=1_000))
    assert shelf.first(1) == 6_001 - 3 * 600
    assert shelf.since(1, 4_000, 9_000) == Batches([], [])
    for first in (shelf.first(1), 5_000, 5_997, 6_000):
        found = numbers(shelf.since(1, first, 6_000))
        assert found == list(range(found[0], found[-1] + 1))
        assert found[0] <= first <= found[2]
        assert found[-1] == min(6_000, found[0] + 3 * (AT_ONCE_BYTES // len(batch(1, 1, 3, size=1_000)) + 1) - 1)
    assert numbers(shelf.since(1, 5_000, 5_004)) == list(range(4_999, 5_005))
    shelf.add(read_batch(batch(1, 7_000)), batch(1, 7_000))
    assert (shelf.first(1), shelf.last(1), shelf.bytes) == (7_000, 7_000, len(batch(1, 7_000)))


def test_marks_are_few_and_in_order() -> None:
    """Places near a known one are not kept, and a search is between two that are."""
    marks = Marks()
    for offset in range(0, 600_000, 100):
        marks.add(offset * 10, offset)
    low, high = marks.around(1_234_567, 0, 600_000)
    assert low <= 123_456 < high
    assert high - low < 3_000
    assert marks.around(5, 700, 900) == (700, 900)


def test_only_merges_are_found_among_records() -> None:
    """What only looks like one is none."""
    values = [
        encode_event(Merge("m", {1: 5})),
        b'{"type":"impression","id":"merge"}',
        b'"merge"',
        None,
        b'{ "type" : "merge", "id":"x","upto":{}}',
    ]
    assert [merge.id for merge in merges_in([LogRecord(n, value) for n, value in enumerate(values)])] == ["m", "x"]


def test_a_merge_names_what_is_on_the_topic_once() -> None:
    """Each partition gets what others taught, not its own, and nothing twice; the id says for whom it is."""
    topic = Topic([batch(0, 1)], [batch(1, 1, 4)], [])
    [merge] = merged(topic, [0, 0, 0])
    assert merge.upto == {1: 4}
    assert merge.exclude == []
    assert merge.id.startswith("merge-0-1")


def test_a_merge_names_no_more_than_its_limit_and_the_next_the_rest() -> None:
    """What is learned in one go is bounded, by source."""
    topic = Topic([], [batch(1, n, 5) for n in range(1, 20, 5)])
    merges = merged(topic, [0, 0], SETTINGS._replace(lessons_max=16))
    assert [merge.upto for merge in merges] == [{1: 8}, {1: 16}, {1: 20}]


def test_what_can_not_be_appended_is_named_later() -> None:
    """Brokers that are away cost no lesson."""
    topic = Topic([], [batch(1, 1, 4)])
    topic.takes_nothing = True

    async def use(shared: SharedLessons) -> None:
        shared.attach(0, lambda: [0, 0])
        await asyncio.sleep(0.05)
        shared.raise_failure()
        topic.takes_nothing = False
        await asyncio.sleep(0.05)

    sharing(topic, use)
    assert [merge.upto for _, merge in topic.appended] == [{1: 4}]


def test_a_partition_may_be_given_up_while_merges_are_written() -> None:
    """The others' merges come all the same."""
    topic = Topic([], [batch(1, 1, 4)], [])

    async def use(shared: SharedLessons) -> None:
        async def append(partition: int, value: bytes) -> None:
            shared.detach(2)
            await original(partition, value)

        original, topic.append = topic.append, append  # type: ignore[method-assign]
        shared.attach(0, lambda: [0, 0, 0])
        shared.attach(2, lambda: [0, 0, 0])
        await asyncio.sleep(0.05)
        shared.raise_failure()

    sharing(topic, use)
    assert [(partition, merge.upto) for partition, merge in topic.appended] == [(0, {1: 4})]


def test_a_partition_begins_with_what_a_merge_names_before_all_others() -> None:
    """It is tried again where the brokers are away for a moment; the next merge continues behind it."""
    topic = Topic([], [batch(1, 1, 4)])
    topic.takes_nothing = True
    start = Start("interactions-1-30", {1: 3})

    async def use(shared: SharedLessons) -> None:
        asyncio.get_running_loop().call_later(0.05, setattr, topic, "takes_nothing", False)
        await shared.begin(0, start)
        shared.attach(0, lambda: [0, 0], start.upto)
        await asyncio.sleep(0.05)

    sharing(topic, use)
    (_, first), (_, second) = topic.appended
    assert (first.start, first.upto, second.start, second.upto) == ("interactions-1-30", {1: 3}, None, {1: 4})


def test_a_partition_whose_beginning_can_not_be_named_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker ends with one line instead of a partition that begins otherwise than its log says."""
    monkeypatch.setattr("thalweg.streams.worker.lessons.RETRY_S", 0.0)
    topic = Topic([], [])
    topic.takes_nothing = True
    with pytest.raises(Refusal, match="no merge can be appended to partition 0: gone"):
        sharing(topic, lambda shared: shared.begin(0, Start("interactions-1-30", {1: 3})))


def test_lessons_are_counted_from_those_in_the_state_that_the_first_merge_names() -> None:
    """What that has learned need not be on the topic any more; a later merge that names a state changes nothing."""
    topic = Topic([], [batch(1, n) for n in range(50, 90)], begins=[0, 120])
    arrays = {"lessons.learned": np.array([7, 0, 0]), "lessons.made": np.array([60])}
    read: list[str] = []

    def state_at(start: str) -> dict[str, Any]:
        read.append(start)
        return arrays

    async def use(shared: SharedLessons) -> list[int]:
        lessons = shared.of_partition(0, state_at)
        merges = [Merge("a", {1: 62}, start="interactions-1-30"), Merge("b", {1: 70}, start="interactions-1-40")]
        await lessons.make_ready(merges, [0, 0, 0], has_begun=False)
        assert lessons.shared("interactions-1-30") is arrays
        with pytest.raises(LessonsMissingError):
            await lessons.make_ready(merges, [0, 0, 0], has_begun=True)
        await lessons.make_ready(merges, [0, 60, 0])
        return numbers([lessons.read(1, 61, 70)])

    assert sharing(topic, use)[:10] == list(range(61, 71))
    assert read == ["interactions-1-30"]


def test_excluded_sources_are_passed_over_through_the_log() -> None:
    """The log says so, so that a replay knows; their layout is of no interest."""
    topic = Topic([], [batch(1, 1, 4, layout=8)], [batch(2, 1, 2)])
    [merge] = merged(topic, [0, 0, 0], SETTINGS._replace(exclude=(1,)))
    assert (merge.upto, merge.exclude) == ({1: 4, 2: 2}, [1])


def test_a_new_partition_passes_over_what_retention_took() -> None:
    """It begins with the oldest lesson that is there."""
    topic = Topic([], [batch(1, n) for n in range(50, 90)], begins=[0, 120])
    first, second = merged(topic, [0, 0])
    assert (first.upto, first.exclude) == ({1: 49}, [1])
    assert (second.upto, second.exclude) == ({1: 89}, [])


@pytest.mark.parametrize("first", [1, 2, 500, 1_999, 2_000])
@pytest.mark.parametrize("newest", [3, 5_000])
def test_lessons_are_found_wherever_they_are(first: int, newest: int) -> None:
    """In memory or far back on the topic, with offsets that have holes."""
    topic = Topic([], [batch(1, n, 2) for n in range(1, 2_000, 2)], newest=newest)
    topic.logs[1] = [(2 * offset + offset % 2, value) for offset, value in topic.logs[1]]

    async def use(shared: SharedLessons) -> Batches:
        return await shared.fetch(1, first, min(2_000, first + 2))

    found = numbers(sharing(topic, use))
    assert found == list(range(first - (first + 1) % 2, found[-1] + 1))
    assert found[-1] >= min(2_000, first + 2)
    assert topic.reads < 130


def test_what_is_asked_for_piece_by_piece_is_read_once() -> None:
    """A partition that is folded again asks for a merge's lessons at a time: no more is read than for all at once."""
    topic = Topic([], [batch(1, n, 2, size=2_000) for n in range(1, 2_000, 2)])

    async def use(shared: SharedLessons) -> list[int]:
        return [numbers(await shared.fetch(1, number, number))[-1] for number in range(2, 2_001, 2)]

    assert sharing(topic, use) == list(range(2, 2_001, 2))
    assert topic.reads < 130


def test_batches_that_a_paused_worker_appended_again_hide_none() -> None:
    """Numbers fall back in between; each lesson is found all the same."""
    log = [batch(1, n) for n in (*range(1, 900), *range(300, 310), 900, 310, 901, 311, *range(902, 1_500), 312, 313)]
    topic = Topic([], log)
    places = [1, 305, 312, 313, 314, 899, 900, 901, 1_400, 1_499]

    async def use(shared: SharedLessons) -> list[int]:
        return [numbers(await shared.fetch(1, number, number))[0] for number in places]

    assert sharing(topic, use) == places


def test_a_log_that_names_more_than_there_is_waits_and_is_refused_with_the_numbers() -> None:
    """It waits for lessons that come, and names those that do not."""
    topic = Topic([], [batch(1, 1, 4)])

    async def use(shared: SharedLessons) -> Batches:
        asyncio.get_running_loop().call_later(0.05, topic.teach, 1, batch(1, 5))
        return await shared.fetch(1, 5, 5)

    assert numbers(sharing(topic, use)) == [5]
    with pytest.raises(Refusal, match=r"lessons 6 to 9 of partition 1.*within 200 ms: lessons-1 ends with lesson 5"):
        sharing(topic, lambda shared: shared.fetch(1, 6, 9))


def test_named_lessons_that_retention_took_are_refused_with_the_offsets() -> None:
    """The line has the numbers, the offset and what to do; also where nothing is left, and without waiting for it."""
    emptied = Topic([], [batch(1, 1)], begins=[0, 120])
    emptied.logs[1], emptied.bounds_of = [], lambda source: (120 * source, 120 * source)  # type: ignore[method-assign]
    with pytest.raises(LessonsMissingError, match=r"lessons 1 to 1 of partition 1.*at offset 120 by now, without any"):
        sharing(emptied, lambda shared: shared.fetch(1, 1, 1), SETTINGS._replace(wait_ms=60_000))
    topic = Topic([], [batch(1, n) for n in range(50, 90)], begins=[0, 120])
    with pytest.raises(
        LessonsMissingError, match=r"lessons 20 to 60 of partition 1.*at offset 120 by now, with lesson 50"
    ):
        sharing(topic, lambda shared: shared.fetch(1, 20, 60))


def test_another_layout_ends_the_worker_before_a_merge_names_it() -> None:
    """Two layouts side by side are refused by name, and the log stays usable."""
    topic = Topic([], [batch(1, 1)])

    async def use(shared: SharedLessons) -> None:
        shared.attach(0, lambda: [0, 0])
        await asyncio.sleep(0.05)
        topic.teach(1, batch(1, 2, layout=8))
        await asyncio.sleep(0.05)
        shared.raise_failure()

    with pytest.raises(
        LessonsLayoutError, match=r"lessons-1 has lessons of the layout 0{15}8 at offset 1, .* 0{15}7: .*topics.lessons"
    ):
        sharing(topic, use)
    assert [merge.upto for _, merge in topic.appended] == [{1: 1}]


def test_what_is_no_lesson_is_counted_and_passed_over() -> None:
    """Somebody else's records on the topic stop nothing; a true gap is not named."""
    topic = Topic([], [b"junk", batch(2, 1), batch(1, 1), batch(1, 2) + b"x", batch(1, 2), batch(1, 9)], newest=100)

    async def use(shared: SharedLessons) -> tuple[int, dict[int, int]]:
        shared.attach(0, lambda: [0, 0])
        await asyncio.sleep(0.05)
        return shared.refused, shared.behind()

    assert sharing(topic, use) == (4, {1: 2})
    assert [merge.upto for _, merge in topic.appended] == [{1: 2}]


def test_a_block_gets_what_its_merges_name_and_no_more_than_there_is_room_for() -> None:
    """Lessons are brought together before the fold, which reads them without waiting; the rest it waits for."""
    topic = Topic([], [batch(1, n, 1, size=400) for n in range(1, 900)], [batch(2, n) for n in range(1, 50)])
    merges = [
        Merge("a", {1: 100, 2: 5}),
        Merge("b", {0: 4, 1: 300}, [1]),
        Merge("c", {1: 600, 7: 1}),
        Merge("d", {1: 899}),
    ]

    async def use(shared: SharedLessons) -> tuple[list[int], ...]:
        lessons = shared.of_partition(0, no_state)
        await lessons.make_ready(merges, [0, 0, 0])
        ready = (
            numbers([lessons.read(1, 1, 100)]),
            numbers([lessons.read(2, 2, 5)]),
            numbers([lessons.read(1, 301, 899)]),
        )
        small = shared.of_partition(0, no_state)
        shared._settings = SETTINGS._replace(bytes_max=1)
        await small.make_ready([Merge("d", {1: 899, 2: 49})], [0, 0, 0])
        with pytest.raises(LessonsMissingError, match="lessons 1 to 49 of partition 2"):
            small.read(2, 1, 49)
        return *ready, numbers([await asyncio.to_thread(small.read, 2, 1, 49)])

    first, second, third, waited = sharing(topic, use)
    assert first == list(range(1, 101))
    assert second == [2, 3, 4, 5]
    assert third[:600] == list(range(301, 900))
    assert waited == list(range(1, 50))


def test_a_worker_tells_how_far_its_partitions_are_behind() -> None:
    """By source the lessons that are not learned, by partition the age of its last merge, and what was no lesson."""
    topic = Topic([batch(0, 1, 3)], [b"junk", batch(1, 1, 7)])

    async def use(shared: SharedLessons) -> list[Metric]:
        shared.attach(0, lambda: [0, 2])
        shared.attach(1, lambda: [3, 0])
        assigned = SimpleNamespace(number=1, merged_at=time.time() - 60.0)
        return list(_of_lessons(shared, [cast(AssignedPartition, assigned)]))

    behind, age, refused = sharing(topic, use)
    assert {sample.labels["source"]: sample.value for sample in behind.samples} == {"0": 0, "1": 5}
    [sample] = age.samples
    assert sample.labels == {"partition": "1"}
    assert 60 <= sample.value < 90
    assert [(sample.name, sample.value) for sample in refused.samples] == [("thalweg_lessons_refused_total", 1)]

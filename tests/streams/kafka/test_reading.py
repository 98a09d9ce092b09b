"""Partitions are read from the brokers that lead them: in order, nothing lost or doubled, nothing of a past opening."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from thalweg.streams.kafka.reading import AT_ONCE_BYTES, Place, Reading

NOT_LEADER, OUT_OF_RANGE, FORBIDDEN = 6, 1, 29


def batch(first: int, count: int, size: int = 1) -> bytes:
    """Return a batch of records as a broker has it; each value is its offset."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 24,
    )
    for n in range(count):
        assert builder.append(n, 0, b"k", b"%*d" % (size, first + n), []) is not None
    built = bytearray(builder.build())
    built[0:8] = first.to_bytes(8, "big")
    return bytes(built)


class Brokers:
    """Two brokers that lead partitions, and answer a fetch as told; what is asked is in `asked`."""

    def __init__(self, leaders: dict[int, int]) -> None:
        self.leaders, self.known = leaders, dict(leaders)
        self.logs: dict[int, int] = {}
        self.begins: dict[int, int] = {}
        self.refused: dict[int, int] = {}
        self.asked: list[tuple[int, dict[int, int]]] = []
        self.per_fetch, self.size = 3, 1
        self.breaks = 0
        self.meanwhile: Callable[[], object] = lambda: None
        self.cluster = SimpleNamespace(leader_for_partition=lambda place: self.known.get(place.partition))

    async def bootstrap(self) -> None:
        if self.breaks:
            self.breaks -= 1
            raise KafkaConnectionError("not yet")

    async def set_topics(self, topics: list[str]) -> None:
        assert topics == ["in"]

    def force_metadata_update(self) -> None:
        self.known = dict(self.leaders)

    async def close(self) -> None:
        self.asked.append((-1, {}))

    async def send(self, node: int, request: FetchRequest) -> Any:
        [(_, wanted)] = request.topics
        self.asked.append((node, {number: offset for number, offset, _ in wanted}))
        await asyncio.sleep(0.001)
        self.meanwhile()
        if self.breaks:
            self.breaks -= 1
            raise KafkaConnectionError("gone for a moment")
        answers = [(number, *self.answer(node, number, offset)) for number, offset, _ in wanted]
        return SimpleNamespace(API_VERSION=11, topics=[("in", answers)])

    def answer(self, node: int, number: int, offset: int) -> tuple[Any, ...]:
        code = self.refused.get(number, 0)
        end, begin = self.logs.get(number, 0), self.begins.get(number, 0)
        if self.leaders[number] != node:
            code = NOT_LEADER
        elif offset < begin or offset > end:
            code = OUT_OF_RANGE
        count = 0 if code else min(self.per_fetch, end - offset)
        # fetches begin anywhere within a batch: the broker sends the whole batch
        value = batch(offset - 1, count + 1, self.size) if count and offset else batch(offset, count, self.size)
        return code, end, end, 0, [], -1, value if count else b""


class World:
    """What is read, and what ended the reading."""

    def __init__(self, brokers: Brokers) -> None:
        self.brokers, self.got, self.failures = brokers, {}, []  # type: tuple[Brokers, dict[str, list[int]], list[Exception]]
        self.full: set[int] = set()
        self.heard = 0
        self.reading = Reading(
            "in",
            lambda: brokers,  # type: ignore[arg-type, return-value]
            partition_bytes_max=1 << 20,
            pause_ms=0,
            heard=self.hear,
            fail=self.failures.append,
        )

    def hear(self) -> None:
        self.heard += 1

    def open(self, number: int, offset: int, name: str) -> None:
        got = self.got[name] = []

        async def take(records: list[Any]) -> None:
            assert all(int(record.value) == record.offset for record in records)
            got.extend(record.offset for record in records)

        async def begin() -> int:
            return self.brokers.begins[number]

        self.reading.add(Place(number, offset, has_room=lambda: number not in self.full, take=take, begin=begin))

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.002)


def run(scene: Callable[[World], Awaitable[None]], leaders: dict[int, int]) -> World:
    """Play a scene with brokers that lead partitions."""

    async def play() -> World:
        world = World(Brokers(leaders))
        try:
            await scene(world)
        finally:
            await world.reading.stop()
        return world

    return asyncio.run(play())


def test_every_partition_is_read_once_and_in_order_from_its_leader() -> None:
    """Records of three partitions on two brokers come once each, from the offset asked for to the end."""

    async def scene(world: World) -> None:
        world.brokers.logs = {0: 40, 1: 25, 2: 10}
        world.brokers.breaks = 2  # the first connections fail
        for number, offset in ((0, 0), (1, 5), (2, 0)):
            world.open(number, offset, str(number))
        await world.until(lambda: [len(world.got[name]) for name in "012"] == [40, 20, 10])
        assert world.reading.end(1) == 25
        assert world.reading.end(7) is None

    world = run(scene, {0: 1, 1: 2, 2: 1})
    assert world.got == {"0": [*range(40)], "1": [*range(5, 25)], "2": [*range(10)]}
    assert not world.failures
    assert world.heard
    assert {number for node, asked in world.brokers.asked if node == 2 for number in asked} == {1}


def test_a_fetch_that_outlives_its_opening_reaches_nobody() -> None:
    """Of a partition that goes and comes back while a fetch is under way, the new opening gets nothing of that fetch.

    It would be ahead of where the new one resumes, and pass for what is behind a hole in the offsets.
    """

    async def scene(world: World) -> None:
        world.brokers.logs = {0: 12, 1: 12}
        world.open(0, 0, "stays")
        world.open(1, 6, "goes")

        def moves() -> None:
            if world.got["stays"] and "comes back" not in world.got:
                world.reading.remove(1)
                world.open(1, 2, "comes back")

        world.brokers.meanwhile = moves
        await world.until(lambda: len(world.got["stays"]) == 12 and len(world.got.get("comes back", ())) == 10)

    world = run(scene, {0: 1, 1: 1})
    assert world.got == {"stays": [*range(12)], "goes": [6, 7, 8], "comes back": [*range(2, 12)]}


def test_a_partition_that_moves_to_another_broker_is_read_on_there() -> None:
    """A leader that changes, and a connection that breaks, lose and double nothing."""

    async def scene(world: World) -> None:
        world.brokers.logs = {0: 30}
        world.open(0, 0, "0")
        await world.until(lambda: len(world.got["0"]) >= 9)
        world.brokers.leaders = {0: 2}
        await world.until(lambda: len(world.got["0"]) >= 21)
        world.brokers.breaks = 1
        await world.until(lambda: len(world.got["0"]) == 30)

    world = run(scene, {0: 1})
    assert world.got == {"0": [*range(30)]}
    assert {node for node, _ in world.brokers.asked} == {1, 2, -1}


def test_a_full_partition_is_not_fetched_and_the_others_are() -> None:
    """A partition without room is in no request until it has some again."""

    async def scene(world: World) -> None:
        world.brokers.logs = {0: 9, 1: 9}
        world.full = {0}
        world.open(0, 0, "full")
        world.open(1, 0, "not")
        await world.until(lambda: len(world.got["not"]) == 9)
        assert all(0 not in asked for _, asked in world.brokers.asked)
        assert world.got["full"] == []
        world.full = set()
        world.reading.made_room()
        await world.until(lambda: len(world.got["full"]) == 9)

    run(scene, {0: 1, 1: 1})


def test_what_retention_took_is_read_from_the_first_record_that_is_there() -> None:
    """Out of range, the next record is the log's first: the run that takes it refuses the hole."""

    async def scene(world: World) -> None:
        world.brokers.logs, world.brokers.begins = {0: 9}, {0: 4}
        world.open(0, 1, "0")
        await world.until(lambda: len(world.got["0"]) == 5)

    assert run(scene, {0: 1}).got == {"0": [*range(4, 9)]}


def test_a_large_fetch_is_read_whole() -> None:
    """What is read in a thread comes as what is read at once does."""

    async def scene(world: World) -> None:
        world.brokers.logs, world.brokers.per_fetch, world.brokers.size = {0: 500}, 200, AT_ONCE_BYTES // 100
        world.open(0, 0, "0")
        await world.until(lambda: len(world.got["0"]) == 500)

    assert run(scene, {0: 1}).got == {"0": [*range(500)]}


def test_what_nothing_helps_against_ends_the_reading() -> None:
    """A topic that may not be read is the failure that ends it, once."""

    async def scene(world: World) -> None:
        world.brokers.logs, world.brokers.refused = {0: 5}, {0: FORBIDDEN}
        world.open(0, 0, "0")
        await world.until(lambda: world.failures)
        await asyncio.sleep(0.01)

    [failure] = run(scene, {0: 1}).failures
    assert isinstance(failure, TopicAuthorizationFailedError)


def test_a_damaged_batch_ends_the_reading() -> None:
    """A batch whose checksum is wrong is not passed over."""

    async def scene(world: World) -> None:
        world.brokers.logs = {0: 5}
        answer = world.brokers.answer

        def damaged(node: int, number: int, offset: int) -> tuple[Any, ...]:
            *others, value = answer(node, number, offset)
            return (*others, value[:-1] + b"\x7f")

        world.brokers.answer = damaged  # type: ignore[method-assign]
        world.open(0, 0, "0")
        await world.until(lambda: world.failures)
        assert world.got["0"] == []

    [failure] = run(scene, {0: 1}).failures
    with pytest.raises(Exception, match="CRC"):
        raise failure

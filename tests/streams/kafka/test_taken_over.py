"""A partition that somebody else took over: given up in order, and opened again only where it stays assigned."""

import asyncio
from collections.abc import Sequence

from thalweg.schemas.records import LogRecord, Record
from thalweg.streams.kafka.partition_run import BlockLimits, LogBounds, PartitionRun, TakenOverError


class Sized(LogRecord):
    """A record as a consumer gives it, with the sizes that blocks are cut by."""

    serialized_key_size = serialized_value_size = 1


class World:
    """The consumer and the handler of one partition; the first `taken` folds are refused."""

    def __init__(self, taken: int) -> None:
        self.taken, self.calls, self.failed = taken, list[str](), list[Exception]()
        self.told = asyncio.Event()

    async def bounds(self) -> LogBounds:
        return LogBounds(0, 10)

    async def seek(self, offset: int) -> bool:
        self.note(f"seek {offset}")
        return True

    def acknowledge(self, next_offset: int) -> None:
        self.note(f"acknowledge {next_offset}")

    def folded(self) -> None:
        """Wake nobody: the test puts what there is."""

    def fail(self, error: Exception) -> None:
        self.failed.append(error)

    async def open(self, partition: int, log: LogBounds) -> int:
        self.note("open")
        return 4

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        self.note(f"fold {records[0].offset}")
        if self.taken:
            self.taken -= 1
            raise TakenOverError("somebody else has it")
        return None

    async def idle(self, partition: int) -> int | None:
        return None

    async def close(self, partition: int) -> int | None:
        self.note("close")
        return None

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.told.set()

    async def until(self, count: int) -> None:
        """Wait for so many calls."""
        async with asyncio.timeout(20):
            while len(self.calls) < count:
                self.told.clear()
                await self.told.wait()


def started(world: World, taken_over_ms: int) -> PartitionRun:
    run = PartitionRun("in-0", 0, world, world, BlockLimits(taken_over_ms=taken_over_ms))
    run.start()
    return run


async def fit_to_fetch(run: PartitionRun) -> None:
    """Wait until the consumer would fetch the partition."""
    async with asyncio.timeout(20):
        while not run.has_room:
            await asyncio.sleep(0)


def block(offset: int) -> list[LogRecord]:
    return [Sized(offset, b"x", b"k", ())]


def test_it_is_given_up_and_waits_to_be_revoked() -> None:
    """The handler closes it at once, nothing is folded any more, and the worker goes on."""

    async def scenario() -> World:
        world = World(taken=1)
        run = started(world, taken_over_ms=60_000)
        await fit_to_fetch(run)
        await run.put(block(4))
        await world.until(4)
        assert not run.has_room
        await run.put(block(5))
        await run.close()
        return world

    world = asyncio.run(scenario())
    assert world.calls == ["open", "seek 4", "fold 4", "close"]
    assert world.failed == []


def test_where_it_stays_assigned_it_is_opened_again() -> None:
    """Whoever took it over may have lost it itself: after a while it is gone on with, from where the handler says."""

    async def scenario() -> World:
        world = World(taken=1)
        run = started(world, taken_over_ms=20)
        await fit_to_fetch(run)
        await run.put(block(4))
        await world.until(6)
        await fit_to_fetch(run)
        await run.put(block(4))
        await world.until(7)
        await run.close()
        return world

    world = asyncio.run(scenario())
    assert world.calls == ["open", "seek 4", "fold 4", "close", "open", "seek 4", "fold 4", "close"]
    assert world.failed == []

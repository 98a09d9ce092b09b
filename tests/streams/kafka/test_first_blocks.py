"""What waits when a partition is opened is cut small: readers see the sooner that it moves again."""

import asyncio

from thalweg.streams.kafka.partition_run import BlockLimits, PartitionRun

from tests.streams.kafka.test_taken_over import Sized, World, fit_to_fetch


def test_the_first_fetch_is_cut_small_and_later_ones_are_not() -> None:
    """Blocks of the first fetch after opening must have two records at most, of the next ones four."""

    async def scenario() -> World:
        world = World(taken=0)
        limits = BlockLimits(block_records_max=4, first_records_max=2)
        run = PartitionRun("in-0", 0, world, world, limits)
        run.start()
        await fit_to_fetch(run)
        await run.put([Sized(offset, b"x", b"k", ()) for offset in range(4, 10)])
        await run.put([Sized(offset, b"x", b"k", ()) for offset in range(10, 16)])
        await world.until(7)
        await run.close()
        return world

    world = asyncio.run(scenario())
    assert world.calls[2:7] == [f"fold {first}" for first in (4, 6, 8, 10, 14)]
    assert world.failed == []

"""Blocks that wait are joined up to the limits of one: events that come one at a time are not folded one at a time."""

import asyncio
from collections.abc import Sequence

import pytest
from thalweg.schemas.records import Record
from thalweg.streams.kafka.partition_run import RECORD_OVERHEAD_BYTES, BlockLimits, PartitionRun

from tests.streams.kafka.test_taken_over import Sized, World, fit_to_fetch

SIZE = RECORD_OVERHEAD_BYTES + 2


class Slow(World):
    """Folds its first block when all else has arrived; `blocks` are the offsets of each block."""

    def __init__(self) -> None:
        super().__init__(taken=0)
        self.blocks: list[list[int]] = []
        self.may_fold = asyncio.Event()

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        self.blocks.append([record.offset for record in records])
        await self.may_fold.wait()
        return await super().fold(partition, records)


async def folded(limits: BlockLimits, fetches: Sequence[int]) -> list[list[int]]:
    """Return what is folded where so many records each were fetched while the first record was folded."""
    world = Slow()
    run = PartitionRun("in-0", 0, world, world, limits)
    run.start()
    await fit_to_fetch(run)
    first = 4
    for count in (1, *fetches):
        await run.put([Sized(offset, b"x", b"k", ()) for offset in range(first, first + count)])
        first += count
        while not world.blocks:
            await asyncio.sleep(0)
    assert run.progress(None, None).pending_bytes == SIZE * (first - 4)
    world.may_fold.set()
    async with asyncio.timeout(20):
        while run.progress(None, None).folded < first:
            await asyncio.sleep(0)
    progress = run.progress(None, None)
    assert (progress.pending_records, progress.pending_bytes) == (0, 0)
    await run.close()
    assert world.failed == []
    assert [offset for block in world.blocks for offset in block] == list(range(4, first))
    return world.blocks


@pytest.mark.parametrize(
    ("limits", "fetches", "sizes"),
    [
        pytest.param(BlockLimits(), [1] * 20, [1, 20], id="all"),
        pytest.param(BlockLimits(block_records_max=8), [1] * 20, [1, 8, 8, 4], id="records"),
        pytest.param(BlockLimits(block_bytes_max=5 * SIZE), [1] * 20, [1, 5, 5, 5, 5], id="bytes"),
        pytest.param(BlockLimits(block_records_max=8), [3, 5, 1, 8, 2, 20], [1, 8, 1, 8, 2, 8, 8, 4], id="whole"),
    ],
)
def test_waiting_blocks_are_joined_up_to_the_limits(limits: BlockLimits, fetches: list[int], sizes: list[int]) -> None:
    """What waits is folded in as few blocks as the limits allow, in order, without cutting a block again."""
    assert [len(block) for block in asyncio.run(folded(limits, fetches))] == sizes


def test_the_first_fetch_is_not_joined() -> None:
    """What has waited since before the partition was opened stays in small blocks: readers see it move the sooner."""

    async def scenario() -> list[list[int]]:
        world = Slow()
        run = PartitionRun("in-0", 0, world, world, BlockLimits(first_records_max=2))
        run.start()
        await fit_to_fetch(run)
        await run.put([Sized(offset, b"x", b"k", ()) for offset in range(4, 10)])
        await run.put([Sized(10, b"x", b"k", ())])
        await run.put([Sized(11, b"x", b"k", ())])
        world.may_fold.set()
        await world.until(6)
        await run.close()
        return world.blocks

    assert asyncio.run(scenario()) == [[4, 5], [6, 7], [8, 9], [10, 11]]

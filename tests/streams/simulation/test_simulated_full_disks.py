"""A worker whose disk refuses any one call, or three in a row: nothing is lost, duplicated or changed."""

import errno
import os
from collections import Counter
from random import Random

import pytest
from thalweg.streams.kafka.partition_run import BlockLimits
from thalweg.streams.simulation.chance import Mode, Setting
from thalweg.streams.simulation.logs import make_log
from thalweg.streams.simulation.run import due_of, loaded_for, simulate_setting
from thalweg.streams.simulation.worker import SimulatedWorker
from thalweg.streams.simulation.world import World

from tests.soak import sized

WHOLE, CHECKPOINT_EVENTS = 24, 8
RECORDS = sized(16, WHOLE)
WRITING = ("make folder", "create", "write", "sync file", "rename", "sync folder", "unlink")
CALLS = {f"before 8 {name}" for name in WRITING}


class Refusing:
    """Has the disk refuse the n-th call that writes, and so many after it; `refused` counts them by their names."""

    def __init__(self, first: int, count: int) -> None:
        self._first, self._last = first, first + count
        self._calls = 0
        self.refused: Counter[str] = Counter()

    def __call__(self, world: World, worker: SimulatedWorker, name: str) -> None:
        if name not in CALLS:
            return
        self._calls += 1
        if self._first <= self._calls < self._last:
            self.refused[name] += 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.soak(RECORDS, WHOLE, "records")
@pytest.mark.parametrize("mode", ["suppress", "transactional"])
def test_a_disk_that_refuses_any_call(mode: Mode) -> None:
    """Whichever call that writes is refused, once or three times: outputs and state are the undisturbed fold's."""
    log = make_log(Random(RECORDS), 0, 1, RECORDS, holes=0.0)
    loaded = loaded_for(1, 1, 60_000, CHECKPOINT_EVENTS)
    due = due_of(loaded, [log])
    setting = Setting(
        mode=mode,
        partitions=1,
        workers=1,
        arrivals=(tuple(0.5 * number for number in range(RECORDS)),),
        full_disks=1.0,  # none is drawn where nothing goes wrong after 0 s, and refusals explain themselves
        block_limits=BlockLimits(block_records_max=4, idle_ms=100),
    )
    refused: Counter[str] = Counter()
    for count in (1, 3):
        for first in range(1, 1_000):
            refusing = Refusing(first, count)
            world = simulate_setting(loaded, setting, [log], Random(0), due, on_point=refusing)
            assert not world.verdict.wrong, f"call {first}, {count} times: {world.verdict.wrong[0]}"
            if not refusing.refused:
                break
            refused += refusing.refused
    assert set(refused) == CALLS

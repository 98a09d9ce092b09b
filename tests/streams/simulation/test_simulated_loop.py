"""Made-up time: calls come in its order, and nothing is waited for."""

import asyncio
from functools import partial
from random import Random
from typing import Any

import pytest
from thalweg.streams.kafka.delivery import DeliveryError
from thalweg.streams.simulation.chance import Setting
from thalweg.streams.simulation.logs import make_log
from thalweg.streams.simulation.loop import DeadlockError, run
from thalweg.streams.simulation.run import due_of, loaded_for, simulate_setting
from thalweg.streams.simulation.worker import SimulatedWorker
from thalweg.streams.simulation.world import World


def test_calls_of_one_time_come_in_the_order_they_were_asked_for() -> None:
    """So a run is one sequence, whatever a heap does with equals."""
    made: list[int] = []

    async def live() -> float:
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_at(5.0 if number % 2 else 3.0, made.append, number)
        await asyncio.sleep(60.0)
        return loop.time()

    assert run(live()) == 60.0
    assert made == [*range(0, 20, 2), *range(1, 20, 2)]


def test_a_call_that_is_taken_back_is_not_made() -> None:
    """Timeouts that were not needed leave no trace: time does not go as far as they were set."""

    async def live() -> float:
        async with asyncio.timeout(3_600):
            await asyncio.sleep(1.0)
        await asyncio.wait_for(asyncio.sleep(1.0), 3_600)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10.0), 1.0)
        return asyncio.get_running_loop().time()

    assert run(live()) == 3.0


def test_waiting_for_nothing_is_told() -> None:
    """Where no timer is left and everybody waits, nothing will ever happen."""

    async def live() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run(live())


def test_what_is_left_running_is_dropped() -> None:
    """A world that ends takes its tasks along."""
    dropped: list[Any] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            dropped.append(None)
            raise

    async def live() -> list[Any]:
        return [asyncio.create_task(forever()), await asyncio.sleep(0.1)]

    assert run(live())[0].cancelled()
    assert len(dropped) == 1


def fail_without_a_reason(world: World, is_alive: bool) -> None:
    worker = SimulatedWorker(world, 9)
    worker.is_alive = is_alive
    worker.fail(DeliveryError("outputs unconfirmed for too long"))


def test_a_worker_of_which_two_partitions_fail_ends_once() -> None:
    """Another one takes its place, whoever failed first."""
    log = make_log(Random(0), 0, 1, 5, holes=0.0)
    loaded = loaded_for(1, 1, 1_000, 5)
    setting = Setting(partitions=1, workers=1, arrivals=((0.0,) * 5,), failed_deliveries=1.0)
    failing: list[SimulatedWorker] = []

    def fail_twice(world: World, worker: SimulatedWorker, name: str) -> None:
        if name == "after 5 fold" and not failing:
            failing.append(worker)
            worker.fail(DeliveryError("outputs unconfirmed for too long"))
            worker.fail(DeliveryError("outputs refused"))

    world = simulate_setting(loaded, setting, [log], Random(0), due_of(loaded, [log]), on_point=fail_twice)
    assert world.verdict.wrong == []
    assert failing
    assert not failing[0].is_alive


@pytest.mark.parametrize("is_alive", [False, True])
def test_the_failure_of_a_dead_worker_is_nobodys(is_alive: bool) -> None:
    """A task of the dead that took its cancellation for nothing may yet run into a timeout; the living must not."""
    log = make_log(Random(0), 0, 1, 5, holes=0.0)
    loaded = loaded_for(1, 1, 1_000, 5)
    setting = Setting(partitions=1, workers=1, arrivals=((0.0,) * 5,))
    begin = partial(fail_without_a_reason, is_alive=is_alive)
    world = simulate_setting(loaded, setting, [log], Random(0), due_of(loaded, [log]), begin=begin)
    assert bool(world.verdict.wrong) == is_alive

"""What is drawn: a run's setting, whether a fault happens, and who dies at which point."""

import asyncio
from random import Random
from typing import TYPE_CHECKING, Literal, NamedTuple

from thalweg.streams.kafka.partition_run import BlockLimits

if TYPE_CHECKING:
    from thalweg.streams.simulation.worker import SimulatedWorker
    from thalweg.streams.simulation.world import World

Mode = Literal["suppress", "transactional"]


class Setting(NamedTuple):
    """What is drawn once for a run, or chosen by an exhaustive one. Shares are probabilities for each occasion.

    `arrivals`: by partition, seconds at which each record arrives; `faults_until_s`: after it nothing goes wrong any
    more; `deaths`: points passed from one random death to the next, on average, 0 for none; `mode_changes`: once a
    second all workers are ended, and started with the other mode; `offset_losses`: the group's offsets are lost;
    `last_added_s`: when the last partition is added to the group; `retention_s`: when lessons are removed from the
    beginning of their topic.
    """

    partitions: int
    workers: int
    arrivals: tuple[tuple[float, ...], ...]
    mode: Mode = "suppress"
    mode_changes: float = 0.0
    offset_losses: float = 0.0
    faults_until_s: float = 0.0
    deaths: float = 0.0
    power_losses: float = 0.0
    pauses: float = 0.0
    membership_changes: float = 0.0
    full_disks: float = 0.0
    lost_requests: float = 0.0
    failed_deliveries: float = 0.0
    slow_markers: float = 0.0
    holes: float = 0.0
    batch_records: int = 8
    fetch_records_min: int = 1
    fetch_records: int = 40
    in_flight_batches_max: int = 2
    block_limits: BlockLimits = BlockLimits(block_records_max=20)
    transaction_interval_ms: int = 100
    commit_interval_s: float = 1.0
    session_timeout_s: float = 6.0
    restart_s: float = 1.0
    time_max_s: float = 3_600.0
    last_added_s: float = 0.0
    retention_s: tuple[float, ...] = ()


class Faults:
    """Who dies at which point."""

    def __init__(self, world: "World") -> None:
        """Draw the first one."""
        self._world = world
        self._countdown = self._draw()
        self.deaths = 0

    def pass_point(self, worker: "SimulatedWorker", name: str) -> None:
        """Let a worker die here, or everybody, if it is to be."""
        world = self._world
        world.points[name] = world.points.get(name, 0) + 1
        if world.on_point is not None:
            world.on_point(world, worker, name)
        if world.setting.deaths and world.chance.is_faulty:
            self._countdown -= 1
            if self._countdown <= 0:
                self._countdown = self._draw()
                self._strike(worker, world.chance.happens(world.setting.power_losses))

    def _draw(self) -> float:
        return (
            self._world.chance.random.expovariate(1 / self._world.setting.deaths) if self._world.setting.deaths else 0.0
        )

    def _strike(self, worker: "SimulatedWorker", power: bool) -> None:
        self.deaths += 1
        if not power:
            worker.kill()
            return
        for each in list(self._world.workers):
            if each.is_alive:
                each.kill()
        self._world.disk.lose_power(self._world.chance.random)


class Chance:
    """What may still go wrong, and the one source of all that is drawn."""

    def __init__(self, setting: Setting, random: Random, loop: asyncio.AbstractEventLoop) -> None:
        """Draw from `random`; faults end at a time of `loop`."""
        self.random = random
        self._setting, self._loop = setting, loop

    @property
    def is_faulty(self) -> bool:
        """Whether faults may still happen."""
        return self._loop.time() < self._setting.faults_until_s

    def happens(self, share: float) -> bool:
        """Draw whether something happens."""
        return self.random.random() < share

    def faults_happen(self, share: float) -> bool:
        """Draw whether a fault happens: none, once nothing is to go wrong any more."""
        return share > 0 and self.is_faulty and self.happens(share)

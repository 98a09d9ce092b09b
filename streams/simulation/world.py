"""One run of the simulation: its setting, its faults, and what must hold all the while."""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

from thalweg.schemas.records import Cause
from thalweg.streams.checkpoints.format import ENDING, CheckpointError, CheckpointStore, Header, Identity
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.partition_run import BlockLimits
from thalweg.streams.partition.partition import Partition, Rooms
from thalweg.streams.simulation.broker import SimulatedBrokers
from thalweg.streams.simulation.disk import SimulatedDisk
from thalweg.streams.simulation.group import Group
from thalweg.streams.simulation.known import Known
from thalweg.streams.simulation.loop import NOBODY
from thalweg.streams.simulation.topic import SimulatedRecord
from thalweg.streams.simulation.wire import Request
from thalweg.streams.simulation.worker import SimulatedWorker
from thalweg.streams.worker.worker import BELOW_ALL

Mode = Literal["suppress", "transactional"]
Causes = tuple[list[Cause], ...]
"""Of each output topic, the causes of all that is to be there."""
STOPPING_S = 30.0
ROOMS: Rooms = [None, None]
"""For what blocks emit: of all simulated partitions, which are of one configuration, one folds at a time."""


class Setting(NamedTuple):
    """What is drawn once for a run, or chosen by an exhaustive one. Shares are probabilities for each occasion.

    `arrivals`: by partition, seconds at which each record arrives; `faults_until_s`: after it nothing goes wrong any
    more; `deaths`: points passed from one random death to the next, on average, 0 for none; `mode_changes`: once a
    second all workers are ended, and started with the other mode; `offset_losses`: the group's offsets are lost.
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
    comings: float = 0.0
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


class Faults:
    """Who dies at which point."""

    def __init__(self, world: "World") -> None:
        """Draw the first one."""
        self._world = world
        self._countdown = self._draw()
        self.deaths = 0

    def pass_point(self, worker: SimulatedWorker, name: str) -> None:
        """Let a worker die here, or everybody, if it is to be."""
        world = self._world
        world.points[name] = world.points.get(name, 0) + 1
        if world.on_point is not None:
            world.on_point(world, worker, name)
        if world.setting.deaths and world.is_faulty:
            self._countdown -= 1
            if self._countdown <= 0:
                self._countdown = self._draw()
                self._strike(worker, world.happens(world.setting.power_losses))

    def _draw(self) -> float:
        return self._world.random.expovariate(1 / self._world.setting.deaths) if self._world.setting.deaths else 0.0

    def _strike(self, worker: SimulatedWorker, power: bool) -> None:
        self.deaths += 1
        if not power:
            worker.kill()
            return
        for each in list(self._world.workers):
            if each.is_alive:
                each.kill()
        self._world.disk.lose_power(self._world.random)


class World:
    """Brokers, a disk, a group and its workers; `live` runs it until all is checkpointed, or something is wrong.

    `wrong`: what did not hold, in the order in which it showed.
    """

    def __init__(
        self,
        loaded: Loaded,
        setting: Setting,
        logs: Sequence[Sequence[SimulatedRecord]],
        random: Random,
        causes: Sequence[Causes] = (),
        on_point: "OnPoint | None" = None,
        known: Known | None = None,
    ) -> None:
        """Make it, within a running loop.

        `causes`: by partition and topic, those of all outputs that are to be there; `on_point` is told each point
        that is passed; `known`: what was computed in worlds before, which is not computed again.
        """
        self.loaded, self.setting, self.random = loaded, setting, random
        self.topics = loaded.topics
        self.loop = asyncio.get_running_loop()
        self.mode = setting.mode
        self.brokers = SimulatedBrokers(self)
        self.disk = SimulatedDisk()
        self.points: dict[str, int] = {}
        self.wrong: list[str] = []
        self.workers: list[SimulatedWorker] = []
        self._everybody: list[SimulatedWorker] = []
        self.group = Group(self)
        self.on_point = on_point
        self.new_fold = partial(Partition, rooms=ROOMS) if known is None else known.partition
        self._known = known or Known()
        self.faults = Faults(self)
        self.on_wire: dict[int, Request] = {}
        self._logs, self._causes = logs, causes
        self._made = self._sent = 0
        self._is_changing = False
        self._verified: dict[int, int] = {}

    @property
    def is_faulty(self) -> bool:
        """Whether things may still go wrong."""
        return self.loop.time() < self.setting.faults_until_s

    def happens(self, share: float) -> bool:
        """Draw whether something happens."""
        return self.random.random() < share

    def faults_happen(self, share: float) -> bool:
        """Draw whether a fault happens: none, once nothing is to go wrong any more."""
        return share > 0 and self.is_faulty and self.happens(share)

    async def live(self) -> None:
        """Run until every log is checkpointed up to its end, and everybody has stopped in order."""
        tasks = [NOBODY.start(each) for each in (self.group.coordinate(), self.group.watch(), self._disturb())]
        for _ in range(self.setting.workers):
            self._new_worker()
        while not self._is_done() and not self.wrong:
            if self.loop.time() > self.setting.time_max_s:
                checkpointed = [self._checkpointed(number) for number in range(len(self._logs))]
                self.wrong.append(f"not done after {self.setting.time_max_s:g} s: checkpoints at {checkpointed}")
            await asyncio.sleep(0.5)
        if self.wrong:
            return
        for worker in list(self.workers):
            if worker.is_alive:
                await asyncio.wait({worker.start(worker.stop())})  # it may die over it
        for task in tasks:
            task.cancel()
        await asyncio.sleep(90.0)  # what dead workers had on the wire; transactions that they left open

    def let_go(self) -> None:
        """Let states of folds go at once: worlds are full of cycles, which are collected late."""
        for worker in self._everybody:
            worker.scoring.partitions.clear()

    def fetch(self, partition: int, position: int, count: int) -> list[SimulatedRecord]:
        """Return so many records from an offset on that have arrived."""
        now_s, arrivals = self.loop.time(), self.setting.arrivals[partition]
        found: list[SimulatedRecord] = []
        for record, arrives_s in zip(self._logs[partition], arrivals, strict=True):
            if arrives_s > now_s or len(found) == count:
                break
            if record.offset >= position:
                found.append(record)
        return found

    def end(self, partition: int) -> int:
        """Return the end offset of what has arrived."""
        records = self.fetch(partition, 0, len(self._logs[partition]))
        return records[-1].offset + 1 if records else 0

    def value_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset."""
        return next((record.value for record in self._logs[partition] if record.offset == offset), None)

    def position(self, worker: SimulatedWorker) -> int:
        """Return how far a worker has folded partition 0, as far as it got if it does not have it."""
        assigned = worker.scoring.partitions.get(0)
        if assigned is not None:
            return assigned.next_offset
        return max(self.brokers.committed.get(0, 0), worker.acknowledged(0))

    def verify_durable(self, partition: int, next_offset: int) -> None:
        """Verify that what is acknowledged is in a checkpoint that any loss of power leaves there."""
        if next_offset in (self._verified.get(partition), 0):
            return
        self._verified[partition] = next_offset
        try:
            header = self._newest(partition, self.disk.certain())
        except CheckpointError as error:
            self.wrong.append(str(error))
            return
        durable = 0 if header is None else header.next_offset
        if durable < next_offset:
            self.wrong.append(
                f"partition {partition} acknowledged {next_offset}, its durable checkpoint is at {durable}"
            )

    def newest_digest(self, partition: int) -> str | None:
        """Return the digest of a partition's state as its newest checkpoint has it."""
        header = self._newest(partition, self.disk)
        return None if header is None else header.digest

    def _newest(self, partition: int, disk: SimulatedDisk) -> Header | None:
        key = (partition, disk.contents(self._folder(partition), ENDING))
        return self._known.answer(key, partial(self._load, partition, disk))

    def _load(self, partition: int, disk: SimulatedDisk) -> Header | None:
        identity = Identity(self.topics.interactions, partition, self.loaded.configuration, self.setting.partitions)
        checkpoint = CheckpointStore(self._folder(partition), self.loaded.checkpoint.keep, disk=disk).load(identity)
        return None if checkpoint is None else checkpoint.header

    def on_commit(self, partition: int, offset: int) -> None:
        """Take an offset that a group's member commits."""
        self.on_offset(partition, self.brokers.committed.get(partition, 0), offset)
        if offset > self._verified.get(partition, 0):
            self.verify_durable(partition, offset)
        self.brokers.committed[partition] = offset

    def on_offset(self, partition: int, before: int, offset: int) -> None:
        """Verify that the group's offset does not go back.

        It may after a change of mode: transactions left it ahead of a checkpoint.
        """
        if offset < before and not self.setting.mode_changes:
            self.wrong.append(f"partition {partition} was committed up to {before}, and up to {offset} afterwards")

    def on_transaction(self, partition: int, offset: int) -> None:
        """Verify a transaction that is committed: all outputs below the group's offset are there, and no others."""
        if self.setting.mode_changes or self.setting.offset_losses:
            return
        for topic, due in zip(self.topics.outputs, self._causes[partition], strict=True):
            found = [cause for _, cause in self.brokers.log(topic, partition).committed()]
            below = bisect_left(due, Cause(offset, BELOW_ALL))
            if found != due[:below]:
                self.wrong.append(
                    f"{topic}-{partition} has {len(found)} outputs where the group's offset is {offset}, and {below} "
                    "are to be there"
                )

    def put_on_wire(self, request: Request) -> int:
        """Note a request that is on its way, and return its number."""
        self._sent += 1
        self.on_wire[self._sent] = request
        return self._sent

    def take_off_wire(self, number: int) -> None:
        """Note that a request has arrived."""
        self.on_wire.pop(number, None)

    def on_death(self, worker: SimulatedWorker) -> None:
        """Start another worker some time after one has died."""
        if worker in self.workers:
            self.workers.remove(worker)
            if self._is_changing:
                return
            delay_s = self.random.uniform(0.0, 2 * self.setting.restart_s)
            self.loop.call_later(delay_s, self._replace)

    def on_failure(self, worker: SimulatedWorker, error: Exception) -> None:
        """Take what ended a worker: it is wrong unless a fault explains it."""
        told = str(error)
        is_delivery = any(words in told for words in ("unconfirmed", "refused", "takes no outputs"))
        is_disk = "no checkpoint can be written" in told
        if not ((is_delivery and self.setting.failed_deliveries) or (is_disk and self.setting.full_disks)):
            self.wrong.append(f"{worker} ended: {type(error).__name__}: {told}")

    def _replace(self) -> None:
        if len(self.workers) < self.setting.workers and not self._is_changing and not self._is_done():
            self._new_worker()

    def _new_worker(self) -> None:
        self._made += 1
        worker = SimulatedWorker(self, self._made)
        self.workers.append(worker)
        self._everybody.append(worker)
        worker.begin()

    def _is_done(self) -> bool:
        ends = (log[-1].offset + 1 for log in self._logs)
        return all(self._checkpointed(number) == end for number, end in enumerate(ends))

    def _checkpointed(self, partition: int) -> int:
        """Return how far a partition's newest checkpoint is."""
        names = self.disk.names(self._folder(partition))
        return max((int(name[:20]) for name in names if name.endswith(ENDING)), default=0)

    def _folder(self, partition: int) -> Path:
        return Path(self.loaded.checkpoint.directory) / f"{self.topics.interactions}-{partition}"

    async def _disturb(self) -> None:
        """Once a second: pause somebody, let somebody come or go, fill the disk up."""
        while self.is_faulty:
            await asyncio.sleep(1.0)
            if self.workers and self.faults_happen(self.setting.pauses):
                worker = self.random.choice(self.workers)
                worker.pause()
                self.loop.call_later(self.random.choice((0.5, 5.0, 10.0, 30.0)) * self.random.random(), worker.wake)
            if self.faults_happen(self.setting.comings):
                if len(self.workers) > 1 and self.happens(0.5):
                    leaving = self.random.choice(self.workers)
                    leaving.start(leaving.stop())
                else:
                    self._new_worker()
            self.disk.is_full = self.faults_happen(self.setting.full_disks)
            if self.faults_happen(self.setting.offset_losses):
                self.brokers.committed.clear()
            if self.faults_happen(self.setting.mode_changes):
                await self._change_mode()
        self.disk.is_full = False

    async def _change_mode(self) -> None:
        """End all workers, in order or not, and start others with the other mode: there are never two at work."""
        self._is_changing = True
        self.disk.is_full = False
        for worker in list(self.workers):
            if worker.is_paused or self.happens(0.5):
                worker.kill()
        ending = {worker.start(worker.stop()) for worker in self.workers}
        if ending:
            await asyncio.wait(ending, timeout=STOPPING_S)
        for worker in list(self.workers):
            worker.kill()
        self.mode = "transactional" if self.mode == "suppress" else "suppress"
        self._is_changing = False
        for _ in range(self.setting.workers):
            self._new_worker()


OnPoint = Callable[[World, SimulatedWorker, str], None]

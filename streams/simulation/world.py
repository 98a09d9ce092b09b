"""One run of the simulation: brokers, a disk, a group of workers, and the time that passes for them."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from thalweg.operators.configuration import Configuration
from thalweg.streams.checkpoints.format import ENDING
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.partition.partition import Partition, Rooms
from thalweg.streams.simulation.broker import SimulatedBrokers
from thalweg.streams.simulation.chance import Chance, Faults, Setting
from thalweg.streams.simulation.disk import SimulatedDisk
from thalweg.streams.simulation.group import Group
from thalweg.streams.simulation.known import Known
from thalweg.streams.simulation.loop import NOBODY
from thalweg.streams.simulation.topic import SimulatedRecord
from thalweg.streams.simulation.verdict import Causes, Verdict
from thalweg.streams.simulation.wire import Request
from thalweg.streams.simulation.worker import SimulatedWorker
from thalweg.streams.worker.ports import LessonsTopic

STOPPING_S = 30.0
ROOMS: dict[int, Rooms] = {}
"""For what blocks emit, by the number of objectives: of all simulated partitions one folds at a time."""


def rooms_of(configuration: Configuration) -> Rooms:
    """Return the rooms of partitions with a configuration."""
    return ROOMS.setdefault(len(configuration.objectives.heads), [None, None])


class World:
    """Brokers, a disk, a group and its workers; `live` runs it until all is checkpointed, or something is wrong."""

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

        `causes`: by partition and topic, those of all outputs that are to be there; `on_point` gets each point
        that is passed; `known`: what was computed in worlds before, which is not computed again.
        """
        self.loaded, self.setting = loaded, setting
        self.topics = loaded.topics
        self.loop = asyncio.get_running_loop()
        self.mode = setting.mode
        self.brokers = SimulatedBrokers(self)
        self.disk = SimulatedDisk()
        self.points: dict[str, int] = {}
        self.workers: list[SimulatedWorker] = []
        self._everybody: list[SimulatedWorker] = []
        self.group = Group(self)
        self.on_point = on_point
        self.new_fold = partial(Partition, rooms=rooms_of(loaded.configuration)) if known is None else known.partition
        self.chance = Chance(setting, random, self.loop)
        self.verdict = Verdict(self, causes, known or Known())
        self.faults = Faults(self)
        self.on_wire: dict[int, Request] = {}
        self._logs: Sequence[Sequence[SimulatedRecord]] = logs
        self._made = self._sent = 0
        self._is_changing = False

    async def live(self) -> None:
        """Run until every log is checkpointed up to its end, and everybody has stopped in order."""
        tasks = [NOBODY.start(each) for each in (self.group.coordinate(), self.group.watch(), self._disturb())]
        for _ in range(self.setting.workers):
            self._new_worker()
        while not self._is_done() and not self.verdict.wrong:
            if self.loop.time() > self.setting.time_max_s:
                checkpointed = [self._checkpointed(number) for number in range(len(self._logs))]
                self.verdict.wrong.append(
                    f"not done after {self.setting.time_max_s:g} s: checkpoints at {checkpointed}"
                )
            await asyncio.sleep(0.5)
        if self.verdict.wrong:
            return
        for worker in list(self.workers):
            if worker.is_alive:
                await asyncio.wait({worker.start(worker.stop())})  # it may die over it
        for task in tasks:
            task.cancel()
        await asyncio.sleep(90.0)  # what dead workers had on the wire; transactions that they left open

    def release_states(self) -> None:
        """Delete the states of folds at once: worlds are full of cycles, which are collected late."""
        for worker in self._everybody:
            worker.scoring.partitions.clear()

    def is_added(self, partition: int) -> bool:
        """Whether a partition is there by now, to be assigned."""
        return True

    def is_refused_rightly(self, error: Exception) -> bool:
        """Whether a worker had to end with this refusal."""
        return False

    def lessons_of(self, worker: SimulatedWorker) -> LessonsTopic | None:
        """Return what a worker reads lessons from; None: partitions learn nothing from each other."""
        return None

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

    def on_commit(self, partition: int, offset: int) -> None:
        """Take an offset that a group's member commits."""
        self.verdict.on_commit(partition, self.brokers.committed.get(partition, 0), offset)
        self.brokers.committed[partition] = offset

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
            delay_s = self.chance.random.uniform(0.0, 2 * self.setting.restart_s)
            self.loop.call_later(delay_s, self._replace)

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
        names = self.disk.names(self.folder(partition))
        return max((int(name[:20]) for name in names if name.endswith(ENDING)), default=0)

    def folder(self, partition: int) -> Path:
        """Return the folder of a partition's checkpoints."""
        return Path(self.loaded.checkpoint.directory) / f"{self.topics.interactions}-{partition}"

    async def _disturb(self) -> None:
        """Once a second: pause a worker, add or remove one, or fill the disk."""
        while self.chance.is_faulty:
            await asyncio.sleep(1.0)
            if self.workers and self.chance.faults_happen(self.setting.pauses):
                worker = self.chance.random.choice(self.workers)
                worker.pause()
                self.loop.call_later(
                    self.chance.random.choice((0.5, 5.0, 10.0, 30.0)) * self.chance.random.random(), worker.wake
                )
            if self.chance.faults_happen(self.setting.membership_changes):
                if len(self.workers) > 1 and self.chance.happens(0.5):
                    leaving = self.chance.random.choice(self.workers)
                    leaving.start(leaving.stop())
                else:
                    self._new_worker()
            self.disk.is_full = self.chance.faults_happen(self.setting.full_disks)
            if self.chance.faults_happen(self.setting.offset_losses):
                self.brokers.committed.clear()
            if self.chance.faults_happen(self.setting.mode_changes):
                await self._change_mode()
        self.disk.is_full = False

    async def _change_mode(self) -> None:
        """End all workers, in order or not, and start others with the other mode: there are never two at work."""
        self._is_changing = True
        self.disk.is_full = False
        for worker in list(self.workers):
            if worker.is_paused or self.chance.happens(0.5):
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

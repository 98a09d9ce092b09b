"""A worker in the simulation: the real handler and the real runs, between simulated ports and a simulated consumer.

All that it asks of the world passes `point` (may it die here?) and `pass_time` (is it paused?). When it is killed its
ports are dead first, then its tasks are dropped: what they still do has no effect.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from aiokafka.errors import ConcurrentTransactions
from thalweg.schemas.records import Outputs
from thalweg.streams.checkpoints.disk import Content, FileStatus, NewFile
from thalweg.streams.kafka.delivery import Delivery, OpenTransactionError, OutputsLostError, Tail
from thalweg.streams.kafka.partition_run import LogBounds, PartitionRun
from thalweg.streams.kafka.transactions import TransactionalDelivery
from thalweg.streams.refusal import Refusal
from thalweg.streams.simulation.loop import Owner
from thalweg.streams.simulation.producer import SimulatedProducer, TransactionalProducer
from thalweg.streams.worker.ports import OPEN_TRANSACTION_MS, OutputDelivery, Ports
from thalweg.streams.worker.worker import Scoring

if TYPE_CHECKING:
    from thalweg.streams.simulation.world import World

P = ParamSpec("P")
Answer = TypeVar("Answer")

CONNECTIONS_S = 0.02
PAUSE_S = 0.05
UNDECIDED_S = 60.0
"""How long a transaction that is open, or an offset in it, is waited for."""


class Died(BaseException):
    """The worker is dead: nothing it asks for happens."""


class _Silent:
    def info(self, *told: Any) -> None:
        """Report nothing."""

    warning = info


class SimulatedWorker(Owner):
    """One process of the group: it joins, is given partitions, fetches, commits, and may die or sleep at any point."""

    def __init__(self, world: "World", number: int) -> None:
        """Make it; `start` begins."""
        super().__init__()
        self.world, self.number = world, number
        self.mode = world.mode
        self.is_alive = True
        self.is_ending = False
        self.generation = -1
        self._assignments = 0
        self.positions: dict[int, int] = {}
        self.runs: dict[int, PartitionRun] = {}
        self._acknowledged: dict[int, int] = {}
        self._closing, self._committing = asyncio.Lock(), asyncio.Lock()
        self._awake = asyncio.Event()
        self._awake.set()
        self._calls_when_awake: list[Callable[[], None]] = []
        ports = Ports(
            _Brokers(self),
            _delivery(self),
            _Disk(self),
            _Clock(self),
            self.in_thread,
            world.new_fold,
            lessons=world.lessons_of(self),
        )
        self.scoring = Scoring(world.loaded, log=_Silent(), ports=ports)

    def __repr__(self) -> str:
        """Return its name."""
        return f"worker {self.number}"

    @property
    def is_paused(self) -> bool:
        """Whether it does not run at the moment, and does not know."""
        return not self._awake.is_set()

    def survives(self, name: str) -> bool:
        """Pass a point at which it may die, and return whether it lives."""
        if self.is_alive:
            self.world.faults.pass_point(self, name)
        return self.is_alive

    def point(self, name: str) -> None:
        """Pass a point at which it may die. Raises Died if it is dead."""
        if not self.survives(name):
            raise Died

    async def pass_time(self, seconds_max: float) -> None:
        """Let some time pass, and more if it is paused. Raises Died if it is dead then."""
        await asyncio.sleep(self.world.chance.random.uniform(0.0, seconds_max))
        while self.is_paused:
            await self._awake.wait()
        if not self.is_alive:
            raise Died

    async def in_thread(self, function: Callable[P, Answer], /, *arguments: P.args, **named: P.kwargs) -> Answer:
        """Call a function as a thread would, some time later."""
        name = function.__name__
        step = {"process": "5 fold", "save": "8 save", "AssignedPartition": "1 load"}.get(name, name)
        self.point(f"before {step}")
        await self.pass_time(0.01)
        answer = function(*arguments, **named)
        await self.pass_time(0.01)
        self.point(f"after {step}")
        return answer

    def kill(self) -> None:
        """Die here and now."""
        self.is_alive = False
        self._awake.set()
        self.drop()
        self.world.on_death(self)

    def pause(self) -> None:
        """Stop to run, without knowing."""
        self._awake.clear()

    def wake(self) -> None:
        """Run on."""
        self._awake.set()
        calls, self._calls_when_awake = self._calls_when_awake, []
        for call in calls:
            call()

    def when_awake(self, call: Callable[[], None]) -> None:
        """Call when it runs again."""
        self._calls_when_awake.append(call)

    def begin(self) -> None:
        """Join the group and work."""
        self.start(self._join())

    def assign(self, partitions: Sequence[int], generation: int) -> None:
        """Take partitions; the group's generation counts their owners so far."""
        self.generation = generation
        self._assignments += 1
        self.start(self._open(partitions, self._assignments))

    async def revoke(self) -> None:
        """Close all partitions and commit what they acknowledge: before a rebalance, and before the worker ends."""
        await self.pass_time(0.05)
        self._assignments += 1
        async with self._closing:
            runs, self.runs = self.runs, {}
            await asyncio.gather(*(run.close() for run in runs.values()))
            await self._commit()
            self._acknowledged.clear()

    async def stop(self) -> None:
        """End in order, as SIGTERM asks it to."""
        if self.is_ending:
            return
        self.is_ending = True
        await self.revoke()
        await self.scoring.stop()
        self.is_alive = False
        self.world.group.leave(self)
        self.world.on_death(self)

    def fail(self, error: Exception) -> None:
        """End because of an error in one partition, after the others are closed in order."""
        if not self.is_alive:
            return  # `wait_for` takes a cancellation for nothing where its answer has just come: the dead ran on
        self.world.verdict.on_failure(self, error)
        self.start(self._end())

    async def _end(self) -> None:
        if self.is_ending:
            return  # another partition failed as well, or the worker was ended: who ends it must not be dropped
        await self.stop()
        self.drop()

    async def _join(self) -> None:
        await self.pass_time(0.5)
        self.world.group.join(self)
        self.start(self._fetch())
        while True:
            await self.pass_time(2 * self.world.setting.commit_interval_s)
            await self._commit()

    async def _open(self, partitions: Sequence[int], assignment: int) -> None:
        await self.pass_time(0.01)
        if self.is_ending or assignment != self._assignments:
            return  # they were taken away again meanwhile
        topic = self.world.topics.interactions
        for number in partitions:
            run = PartitionRun(
                f"{topic}-{number}", number, _Client(self, number), self.scoring, self.world.setting.block_limits
            )
            self.runs[number] = run
            run.start()

    async def _fetch(self) -> None:
        world = self.world
        while True:
            fetched = False
            for number, run in list(self.runs.items()):
                if not run.has_room or number not in self.positions:
                    continue
                count = world.chance.random.randint(world.setting.fetch_records_min, world.setting.fetch_records)
                records = world.fetch(number, self.positions[number], count)
                await self.pass_time(0.02)
                if records and self.runs.get(number) is run:
                    fetched = True
                    self.positions[number] = records[-1].offset + 1
                    try:
                        await run.put(records)
                    except Refusal as error:
                        self.fail(error)
            await self.pass_time(0.02 if fetched else 0.5)

    async def _commit(self) -> None:
        async with self._committing:
            for number in list(self._acknowledged):
                await self.pass_time(0.01)
                self.point("before 9 commit")
                self.world.group.commit(self, number, self._acknowledged[number])
                self.point("after 9 commit")

    def acknowledged(self, partition: int) -> int:
        """Return the next offset that it commits of a partition, 0 where there is none."""
        return self._acknowledged.get(partition, 0)

    def acknowledge(self, partition: int, next_offset: int) -> None:
        """Note what will be committed."""
        self.point("before 9 acknowledge")
        self.world.verdict.verify_durable(partition, next_offset)
        self._acknowledged[partition] = max(next_offset, self._acknowledged.get(partition, 0))
        self.point("after 9 acknowledge")


class _Client:
    """What a run asks of its consumer."""

    def __init__(self, worker: SimulatedWorker, partition: int) -> None:
        self._worker, self._partition = worker, partition

    async def bounds(self) -> LogBounds:
        await self._worker.pass_time(CONNECTIONS_S)
        self._worker.point("2 bounds")
        return LogBounds(0, self._worker.world.end(self._partition))

    async def seek(self, offset: int) -> bool:
        self._worker.point("before 4 seek")
        await self._worker.pass_time(CONNECTIONS_S)
        self._worker.positions[self._partition] = offset
        self._worker.point("after 4 seek")
        return True

    def acknowledge(self, next_offset: int) -> None:
        self._worker.acknowledge(self._partition, next_offset)

    def folded(self) -> None:
        """Nothing waits for this."""

    def fail(self, error: Exception) -> None:
        self._worker.fail(error)


class _Brokers:
    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker, self._world = worker, worker.world

    async def partitions(self) -> int:
        await self._worker.pass_time(CONNECTIONS_S)
        return self._world.setting.partitions

    async def tail(self, topic: str, partition: int, from_offset: int) -> Tail:
        self._worker.point(f"before 3 tail {topic}")
        if self._worker.mode == "transactional":
            found = await self._tail(topic, partition, from_offset, UNDECIDED_S)
        else:
            try:
                found = await self._tail(topic, partition, from_offset, OPEN_TRANSACTION_MS / 1000)
            except OpenTransactionError:
                await _transactional(self._worker).fence(partition)
                found = await self._tail(topic, partition, from_offset, UNDECIDED_S)
        self._worker.point(f"after 3 tail {topic}")
        return found

    async def _tail(self, topic: str, partition: int, from_offset: int, wait_s: float) -> Tail:
        await self._worker.pass_time(CONNECTIONS_S)
        log = self._world.brokers.log(topic, partition)
        end, deadline = log.end, self._world.loop.time() + wait_s
        if end < from_offset:
            raise OutputsLostError(f"{topic}-{partition} ends at offset {end}, but {from_offset} was reached")
        await self._worker.pass_time(CONNECTIONS_S)
        while log.stable_end < end:
            if self._world.loop.time() > deadline:
                raise OpenTransactionError(f"{topic}-{partition} holds a transaction that is open")
            await self._worker.pass_time(PAUSE_S)
        found = Tail(end, log.highest_cause(from_offset))
        await self._worker.pass_time(CONNECTIONS_S)
        return found

    async def end(self, partition: int) -> int:
        await self._worker.pass_time(CONNECTIONS_S)
        return self._world.end(partition)

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        await self._worker.pass_time(CONNECTIONS_S)
        self._worker.point("2 record")
        return self._world.value_at(partition, offset)


class _Clock:
    def __init__(self, worker: SimulatedWorker) -> None:
        self._world = worker.world

    def monotonic(self) -> float:
        return self._world.loop.time()

    def time(self) -> float:
        return self._world.loop.time()


class _Suppressing(Delivery):
    """The real delivery over a simulated producer, which may die where it waits."""

    worker: SimulatedWorker

    async def flush(self, partition: int) -> dict[str, int]:
        """Wait for all deliveries."""
        self.worker.point("before 7 flush")
        ends = await super().flush(partition)
        await self.worker.pass_time(0.001)
        self.worker.point("after 7 flush")
        return ends


class _Transactional(TransactionalDelivery):
    """The real delivery in transactions over simulated producers."""

    worker: SimulatedWorker

    async def open(self, partition: int) -> int | None:
        """Take the outputs over, and ask for the offset."""
        self.worker.point("before 1 fence")
        emitted = await super().open(partition)
        self.worker.point("after 2 offset")
        return emitted

    async def send(self, partition: int, outputs: Outputs) -> None:
        """Begin a transaction if need be, and send."""
        self.worker.point("before 6 begin")
        await super().send(partition, outputs)

    async def commit(self, partition: int, next_offset: int) -> None:
        """Commit outputs and offset."""
        self.worker.point("before 7 commit")
        await super().commit(partition, next_offset)
        self.worker.point("after 7 commit")

    async def close(self, partition: int) -> None:
        """Abort what is open."""
        self.worker.point("before 7 abort")
        await super().close(partition)


def _delivery(worker: SimulatedWorker) -> OutputDelivery:
    if worker.mode == "transactional":
        return _transactional(worker)
    made = _Suppressing(
        worker.world.loaded.kafka,
        worker.world.loaded.topics,
        in_flight_batches_max=worker.world.setting.in_flight_batches_max,
        new_producer=lambda **named: SimulatedProducer(worker),
    )
    made.worker = worker
    return made


def _transactional(worker: SimulatedWorker) -> _Transactional:
    world = worker.world

    async def offset_of(partition: int) -> int | None:
        worker.point("before 2 offset")
        deadline = world.loop.time() + UNDECIDED_S
        while world.loop.time() < deadline:
            await worker.pass_time(CONNECTIONS_S)
            try:
                return world.brokers.stable_offset(partition)
            except ConcurrentTransactions:
                await worker.pass_time(PAUSE_S)
        raise OpenTransactionError(f"the group's offset of partition {partition} is in a transaction that is open")

    made = _Transactional(
        world.loaded.kafka,
        world.loaded.topics,
        world.loaded.worker.group,
        interval_ms=world.setting.transaction_interval_ms,
        in_flight_batches_max=world.setting.in_flight_batches_max,
        new_producer=lambda **named: TransactionalProducer(
            worker, named["transactional_id"], named["transaction_timeout_ms"] / 1000
        ),
        offset_of=offset_of,
    )
    made.worker = worker
    return made


class _Disk:
    """The disk as one worker reaches it: it may die before and after each call, and in the middle of a file."""

    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker, self._disk = worker, worker.world.disk

    def names(self, folder: Path) -> list[str]:
        self._pass("list")
        return self._disk.names(folder)

    def status(self, path: Path) -> FileStatus:
        self._pass("status")
        return self._disk.status(path)

    def read(self, path: Path) -> Content:
        self._pass("read")
        return self._disk.read(path)

    def create(self, path: Path) -> NewFile:
        self._pass("create")
        return _WorkersFile(self._worker, self._disk.create(path))

    def rename(self, old: Path, new: Path) -> None:
        self._pass("rename")
        self._disk.rename(old, new)
        self._worker.point("after 8 rename")

    def unlink(self, path: Path) -> None:
        self._pass("unlink")
        self._disk.unlink(path)

    def is_folder(self, path: Path) -> bool:
        self._pass("look")
        return self._disk.is_folder(path)

    def make_folder(self, path: Path) -> None:
        self._pass("make folder")
        self._disk.make_folder(path)

    def sync_folder(self, folder: Path) -> None:
        self._pass("sync folder")
        self._disk.sync_folder(folder)
        self._worker.point("after 8 sync folder")

    def _pass(self, name: str) -> None:
        self._disk.now_s = self._worker.world.loop.time()
        self._worker.point(f"before 8 {name}")


class _WorkersFile:
    def __init__(self, worker: SimulatedWorker, file: NewFile) -> None:
        self._worker, self._file = worker, file

    def write(self, part: memoryview) -> None:
        self._worker.point("before 8 write")
        self._file.write(part)

    def sync(self) -> None:
        self._worker.point("before 8 sync file")
        self._file.sync()
        self._worker.point("after 8 sync file")

    def close(self) -> None:
        self._file.close()

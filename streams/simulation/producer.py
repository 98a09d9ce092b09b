"""What the deliveries take for aiokafka's producer, idempotent or transactional, over a simulated wire."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import (
    ConcurrentTransactions,
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaError,
    ProducerClosed,
    ProducerFenced,
)
from thalweg.streams.simulation.broker import OFFSETS, Place
from thalweg.streams.simulation.wire import Answer, Request, Wire

if TYPE_CHECKING:
    from thalweg.streams.simulation.worker import SimulatedWorker

CONNECTING_S = 0.02
BACKOFF_S = 0.04


class Appended(NamedTuple):
    """The brokers' answer for a batch: the offset of its first record."""

    offset: int


class _Batch:
    """What the client fills and sends as one."""

    def __init__(self, records_max: int) -> None:
        self._records_max = records_max
        self.records: list[Any] = []
        self.number = 0
        self.delivered: Any = None

    def append(self, *, timestamp: None, key: bytes | None, value: bytes | None, headers: Any) -> object | None:
        if len(self.records) == self._records_max:
            return None
        self.records.append((value, key, tuple(headers)))
        return self


class SimulatedProducer:
    """An idempotent producer: of each partition one batch is on the wire, the others wait."""

    def __init__(self, worker: "SimulatedWorker") -> None:
        """Make a worker's producer."""
        self._worker, self._world = worker, worker.world
        self._wire = Wire(worker)
        self._id = self._epoch = 0
        self._waiting: dict[Place, deque[_Batch]] = {}
        self._busy: dict[Place, _Batch] = {}
        self._numbers: dict[Place, int] = {}

    async def start(self) -> None:
        """Connect."""
        self._id = self._world.brokers.new_producer_id()
        await self._worker.pass_time(CONNECTING_S)

    async def stop(self) -> None:
        """Disconnect, when what is on its way is answered."""
        await self._worker.pass_time(CONNECTING_S)
        await self._flushed()

    def create_batch(self) -> _Batch:
        """Return an empty batch."""
        return _Batch(self._world.setting.batch_records)

    async def send_batch(self, batch: _Batch, topic: str, *, partition: int) -> Any:
        """Put a batch on its way and return a future of what the brokers answer."""
        self._worker.point(f"6 send {topic}")
        await self._worker.pass_time(0.002)
        self._refuse()
        batch.delivered = self._world.loop.create_future()
        place = (topic, partition)
        self._waiting.setdefault(place, deque()).append(batch)
        self._pump(place)
        return batch.delivered

    def _refuse(self) -> None:
        """Raise where nothing can be sent."""

    async def _flushed(self) -> None:
        futures = [batch.delivered for batch in self._busy.values()]
        futures += [batch.delivered for waiting in self._waiting.values() for batch in waiting]
        if futures:
            await asyncio.wait(futures)

    def _pump(self, place: Place) -> None:
        if place in self._busy or not self._waiting[place] or not self._worker.is_alive:
            return
        batch = self._busy[place] = self._waiting[place].popleft()
        batch.number = self._numbers.get(place, 0)
        self._numbers[place] = batch.number + len(batch.records)
        arguments = (self._id, place, batch.number, tuple(batch.records), *self._transaction())
        told = partial(self._delivered, place, batch)
        self._wire.send(Request(f"6 {place[0]}", "append", arguments), told, may_fail=True)

    def _transaction(self) -> tuple[Any, ...]:
        return ()

    def _delivered(self, place: Place, batch: _Batch, answer: Answer) -> None:
        self._busy.pop(place, None)
        if not batch.delivered.done():
            if answer.error is None:
                batch.delivered.set_result(Appended(answer.value))
            else:
                error = answer.error
                batch.delivered.set_exception(ProducerFenced() if isinstance(error, InvalidProducerEpoch) else error)
        self._pump(place)


class TransactionalProducer(SimulatedProducer):
    """A transactional producer, with aiokafka's states and errors.

    It has one request at a time at the coordinator, and adds a partition to the transaction before it sends to it. It
    commits what arrived even where a batch failed. A refusal by the coordinator is fatal to it.
    """

    def __init__(self, worker: "SimulatedWorker", name: str, timeout_s: float) -> None:
        """Make it for a transactional id."""
        super().__init__(worker)
        self._name, self._timeout_s = name, timeout_s
        self._state = "new"
        self._failure: KafkaError | None = None
        self._initialised: asyncio.Future[Any] | None = None
        self._places: set[Place] = set()
        self._adding: set[Place] = set()
        self._asking = asyncio.Lock()

    async def start(self) -> None:
        """Connect, and ask for the id: that may be answered later."""
        await self._worker.pass_time(CONNECTING_S)
        self._initialised = asyncio.ensure_future(self._initialise())

    async def stop(self) -> None:
        """Disconnect, when what is on its way is answered."""
        await super().stop()
        self._state = "closed"

    async def begin_transaction(self) -> None:
        """Begin one, when the id is there."""
        assert self._initialised is not None
        await asyncio.shield(self._initialised)
        assert self._state == "ready", self._state
        self._state = "in transaction"
        self._places.clear()

    async def send_offsets_to_transaction(self, offsets: dict[Any, int], group: str) -> None:
        """Add the group's next offset of a partition to the transaction."""
        self._refuse()
        ((place, offset),) = offsets.items()
        await self._shielded(self._add_offset(place.partition, offset))

    async def commit_transaction(self) -> None:
        """Commit what arrived."""
        await self._end(True)

    async def abort_transaction(self) -> None:
        """Abort it."""
        await self._end(False)

    async def _end(self, is_committed: bool) -> None:
        assert self._state == "in transaction", self._state
        self._state = "ending"
        await self._shielded(self._end_after_all(is_committed))

    async def _initialise(self) -> None:
        self._id, self._epoch = await self._ask("1 id", "init_producer", self._timeout_s)
        self._state = "ready"

    async def _end_after_all(self, is_committed: bool) -> None:
        await self._flushed()
        if self._places:
            await self._ask("7 end", "end_transaction", self._id, self._epoch, is_committed)
        self._state = "ready"

    async def _add(self, place: Place) -> None:
        await self._ask(f"6 add {place[0]}", "add_partition", self._id, self._epoch, place)
        self._adding.discard(place)
        self._places.add(place)
        if place in self._waiting:
            self._pump(place)

    async def _add_offset(self, partition: int, offset: int) -> None:
        await self._add((OFFSETS, partition))
        await self._ask("7 offset", "commit_offset", self._id, self._epoch, partition, offset)

    def _refuse(self) -> None:
        if self._failure is not None and self._state == "failed":
            raise self._failure
        if self._state != "in transaction":
            raise IllegalOperation(self._state)

    def _pump(self, place: Place) -> None:
        if place in self._places:
            super()._pump(place)
        elif place not in self._adding and self._waiting[place]:
            self._adding.add(place)
            _forgotten(asyncio.ensure_future(self._add(place)))

    def _transaction(self) -> tuple[Any, ...]:
        return (self._epoch, self._name)

    async def _ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Ask the coordinator until it answers. What it refuses ends the producer."""
        async with self._asking:
            while self._state not in ("closed", "failed"):
                self._worker.point(f"before {name}")
                answered: asyncio.Future[Answer] = self._world.loop.create_future()
                self._wire.send(Request(name, method, (self._name, *arguments)), partial(_settle, answered))
                value, error = await answered
                await self._worker.pass_time(0.001)
                if error is None:
                    return value
                if not isinstance(error, ConcurrentTransactions):
                    self._fail(error)
                    break
                await self._worker.pass_time(BACKOFF_S)
            raise self._failure or ProducerClosed()

    def _fail(self, error: KafkaError) -> None:
        """Fail for good, as aiokafka's sender does: with what fences as it is, anything else within another error."""
        if isinstance(error, InvalidProducerEpoch):
            self._failure = ProducerFenced()
        else:
            self._failure = KafkaError("Unexpected error during batch delivery")
            self._failure.__cause__ = error
        self._state = "failed"
        for batch in (*self._busy.values(), *(batch for waiting in self._waiting.values() for batch in waiting)):
            if not batch.delivered.done():
                batch.delivered.set_exception(self._failure)
        self._waiting = {place: deque() for place in self._waiting}

    async def _shielded(self, asking: Awaitable[None]) -> None:
        """Wait for a task that continues if the wait is cancelled."""
        await asyncio.shield(_forgotten(asyncio.ensure_future(asking)))


def _settle(answered: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not answered.done():
        answered.set_result(answer)


def _forgotten(task: "asyncio.Future[None]") -> "asyncio.Future[None]":
    """Prevent a warning about a failure that no caller awaits."""
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task

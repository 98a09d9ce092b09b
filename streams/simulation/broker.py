"""Brokers in memory: logs with holes in their offsets, an idempotent producer's numbering, and a group's offsets."""

from collections import deque
from collections.abc import Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

from aiokafka.errors import KafkaTimeoutError, OutOfOrderSequenceNumber

from schemas.records import Cause, Headers
from streams.consume import cause_of

if TYPE_CHECKING:
    from streams.simulation.worker import SimulatedWorker

Place = tuple[str, int]


class SimulatedRecord(NamedTuple):
    """A record of the input or of an output, with what Kafka's clients tell of one."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    partition: int = 0

    @property
    def serialized_key_size(self) -> int:
        """Bytes of the key."""
        return len(self.key or b"")

    @property
    def serialized_value_size(self) -> int:
        """Bytes of the value."""
        return len(self.value or b"")


class Appended(NamedTuple):
    """What a producer is told of a batch: the offset of its first record."""

    offset: int


class Log:
    """One partition of an output topic."""

    def __init__(self) -> None:
        """Start empty."""
        self.records: list[SimulatedRecord] = []
        self.causes: list[Cause] = []
        self.end = 0

    def append(self, partition: int, records: Sequence[Any], hole: int) -> int:
        """Append a batch behind a hole of so many offsets, and return the offset of its first record."""
        first = self.end + hole
        for number, (value, key, headers) in enumerate(records):
            record = SimulatedRecord(first + number, value, key, headers, partition)
            found = cause_of(record)
            assert found is not None
            self.records.append(record)
            self.causes.append(found[1])
        self.end = first + len(records)
        return first

    def highest_cause(self, from_offset: int) -> Cause | None:
        """Return the highest cause from an offset on."""
        found = [cause for record, cause in zip(self.records, self.causes, strict=True) if record.offset >= from_offset]
        return max(found, default=None)


class Numbering(NamedTuple):
    """What a partition knows of a producer: the next number it expects, and the last batch for when it comes again."""

    expected: int
    last: int
    offset: int


class SimulatedBrokers:
    """Logs and committed offsets. `holes`: how likely a batch lies behind a hole, as transactions' markers make."""

    def __init__(self, random: Random, holes: float) -> None:
        """Start without topics."""
        self._random, self._holes = random, holes
        self.outputs: dict[Place, Log] = {}
        self.committed: dict[int, int] = {}
        self._numberings: dict[tuple[int, Place], Numbering] = {}
        self._producers = 0

    def log(self, topic: str, partition: int) -> Log:
        """Return an output partition's log."""
        return self.outputs.setdefault((topic, partition), Log())

    def new_producer_id(self) -> int:
        """Return an id that no producer has."""
        self._producers += 1
        return self._producers

    def append(self, producer: int, place: Place, number: int, records: Sequence[Any]) -> int:
        """Append a producer's batch, whose first record has this number, and return its offset.

        One that is there already is not appended again. Raises OutOfOrderSequenceNumber for one behind a gap.
        """
        known = self._numberings.get((producer, place))
        if known is not None and number == known.last:
            return known.offset
        if known is not None and number != known.expected:
            raise OutOfOrderSequenceNumber
        hole = self._random.randint(1, 3) if self._random.random() < self._holes else 0
        offset = self.log(*place).append(place[1], records, hole)
        self._numberings[producer, place] = Numbering(number + len(records), number, offset)
        return offset


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
    """What `Delivery` takes for aiokafka's producer: of each partition one batch is on the wire, the others wait.

    A batch or its answer gets lost at times and is sent again; at times the client gives one up, which may have
    arrived. What is on the wire when the worker dies arrives late, or not at all.
    """

    def __init__(self, worker: "SimulatedWorker") -> None:
        """Make a worker's producer."""
        self._worker, self._world = worker, worker.world
        self._id = self._world.brokers.new_producer_id()
        self._waiting: dict[Place, deque[_Batch]] = {}
        self._busy: dict[Place, _Batch] = {}
        self._numbers: dict[Place, int] = {}

    async def start(self) -> None:
        """Connect."""
        await self._worker.pass_time(0.02)

    async def stop(self) -> None:
        """Disconnect."""
        await self._worker.pass_time(0.02)

    def create_batch(self) -> _Batch:
        """Return an empty batch."""
        return _Batch(self._world.setting.batch_records)

    async def send_batch(self, batch: _Batch, topic: str, *, partition: int) -> Any:
        """Put a batch on its way and return a future of what the brokers answer."""
        self._worker.point(f"6 send {topic}")
        await self._worker.pass_time(0.002)
        batch.delivered = self._world.loop.create_future()
        place = (topic, partition)
        self._waiting.setdefault(place, deque()).append(batch)
        self._pump(place)
        return batch.delivered

    def _pump(self, place: Place) -> None:
        if place in self._busy or not self._waiting[place] or not self._worker.is_alive:
            return
        batch = self._busy[place] = self._waiting[place].popleft()
        batch.number = self._numbers.get(place, 0)
        self._numbers[place] = batch.number + len(batch.records)
        self._send(place, batch)

    def _send(self, place: Place, batch: _Batch) -> None:
        self._later(0.01, partial(self._arrive, place, batch))

    def _arrive(self, place: Place, batch: _Batch) -> None:
        world = self._world
        if not self._worker.is_alive:
            # what a dead worker had on the wire: late, or never
            if not world.happens(0.5):
                return
            if world.happens(0.5):
                self._later(20.0, partial(self._arrive, place, batch))
                return
        if world.faults_happen(world.setting.lost_batches):
            self._later(0.1, partial(self._arrive, place, batch))
            return
        is_given_up = world.faults_happen(world.setting.failed_deliveries)
        if is_given_up and world.happens(0.5):
            self._later(0.5, partial(self._answer, place, batch, None, KafkaTimeoutError()))
            return
        try:
            if not self._worker.survives(f"6 before arrival {place[0]}") and world.happens(0.5):
                return
            offset = world.brokers.append(self._id, place, batch.number, batch.records)
            self._worker.survives(f"6 after arrival {place[0]}")
        except OutOfOrderSequenceNumber as error:
            self._later(0.01, partial(self._answer, place, batch, None, error))
            return
        if is_given_up:
            self._later(0.5, partial(self._answer, place, batch, None, KafkaTimeoutError()))
        elif world.faults_happen(world.setting.lost_batches):
            self._later(0.1, partial(self._arrive, place, batch))
        else:
            self._later(0.01, partial(self._answer, place, batch, Appended(offset), None))

    def _answer(self, place: Place, batch: _Batch, appended: Appended | None, error: Exception | None) -> None:
        if not self._worker.is_alive:
            return
        if self._worker.is_paused:
            self._worker.when_awake(partial(self._answer, place, batch, appended, error))
            return
        del self._busy[place]
        if not batch.delivered.done():
            if error is None:
                batch.delivered.set_result(appended)
            else:
                batch.delivered.set_exception(error)
        self._pump(place)

    def _later(self, seconds_max: float, call: Any) -> None:
        self._world.loop.call_later(self._world.random.uniform(0.0, seconds_max), call)

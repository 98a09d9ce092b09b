"""The worker's I/O as small protocols, which a simulation replaces.

`ports_of` gives the real ones. `thalweg.streams.worker.worker` does all its I/O through them.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from thalweg.operators.learner import BUILT_IN
from thalweg.schemas.records import Outputs
from thalweg.streams.checkpoints.disk import Disk, LocalDisk
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.delivery import Delivery, OpenTransactionError, Tail, end_of, record_at, tail
from thalweg.streams.kafka.lessons_topic import KafkaLessons, Placed
from thalweg.streams.kafka.topics import check
from thalweg.streams.kafka.transactions import TransactionalDelivery
from thalweg.streams.partition.partition import Partition

OPEN_TRANSACTION_MS = 1_000
AT_ONCE_RECORDS = 256
"""A fold of so many takes 6 ms; a thread would first have to get Python's lock from the event loop, again and again."""
OTHER_MODEL_AT_ONCE_RECORDS = 64
"""The same where a River classifier is the model, which takes several times as long."""

P = ParamSpec("P")
Answer = TypeVar("Answer")


class Brokers(Protocol):
    """What the brokers are asked when a partition is opened. Every method raises Refusal where they don't answer."""

    async def partitions(self) -> int:
        """Return the number of partitions that all topics have. Raises Refusal where that is not so."""

    async def tail(self, topic: str, partition: int, from_offset: int) -> Tail:
        """Return the end of an output partition, and our highest cause in it from an offset on.

        Raises OutputsLostError where it ends below that offset.
        """

    async def end(self, partition: int) -> int:
        """Return the end offset of the input's partition."""

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset; None: there is none, or it has no value."""


class OutputDelivery(Protocol):
    """Takes outputs to their topics, at once or in transactions.

    Where one fails, every later call for that partition raises DeliveryError too; where another worker has taken over
    the partition, TakenOverError.
    """

    @property
    def commits_offsets(self) -> bool:
        """Whether `commit` commits the group's offsets, in one with the outputs: then no other code may."""

    async def start(self) -> None:
        """Connect, unless it is connected."""

    async def open(self, partition: int) -> int | None:
        """Take over a partition's outputs from their last owner.

        Return the offset of the input below which all that was made has been emitted, and nothing from it on. None:
        that is not known, and only the topics tell.
        """

    async def send(self, partition: int, outputs: Outputs) -> None:
        """Hand over what a block made, each topic's in its order; they may be on their way when this returns."""

    def is_due(self, partition: int) -> bool:
        """Whether something that was sent has waited long enough to be committed."""

    async def commit(self, partition: int, next_offset: int) -> None:
        """Have readers see all that was sent, being all that the input below `next_offset` makes."""

    def committed(self, partition: int) -> int | None:
        """Return the offset that was committed last; None: none that is known, or others commit it."""

    async def flush(self, partition: int) -> dict[str, int]:
        """Wait until all that was sent is confirmed; return the end offset in each topic that something went to."""

    async def close(self, partition: int) -> None:
        """Drop what is known of a partition, when it is given up; what is not committed never will be."""

    async def stop(self) -> None:
        """Disconnect."""


class LessonsTopic(Protocol):
    """What partitions teach, as the topic has it, committed, and the way into the input for merges.

    Reading raises Refusal where the brokers don't answer.
    """

    async def follow(self, sources: int) -> None:
        """Begin to read near the end of so many sources: the newest record of each is among what comes first."""

    async def poll(self, wait_s: float) -> dict[int, list[Placed]]:
        """Return what came since the last time, by source; wait so long where there is nothing."""

    async def bounds(self, source: int) -> tuple[int, int]:
        """Return the first offset of a source that is there, and its end."""

    async def read(self, source: int, offset: int) -> tuple[list[Placed], int]:
        """Return some records from an offset on, and where to read on; that is `offset` again at the end."""

    async def append(self, partition: int, value: bytes) -> None:
        """Append a record to the input's partition. Raises OSError where the brokers do not take it."""

    async def stop(self) -> None:
        """Disconnect."""


class Clock(Protocol):
    """Time; the fold never sees it."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def time(self) -> float:
        """Return seconds since 1970."""


class InThread(Protocol):
    """Calls a function off the event loop; `asyncio.to_thread` is one."""

    async def __call__(self, function: Callable[P, Answer], /, *arguments: P.args, **named: P.kwargs) -> Answer:
        """Return what the function returns, raise what it raises."""


class Ports(NamedTuple):
    """All that a worker has of the world; `new_fold` makes what folds a partition."""

    brokers: Brokers
    delivery: OutputDelivery
    disk: Disk
    clock: Clock
    in_thread: InThread
    new_fold: Callable[..., Partition] = Partition
    at_once_records: int = 0
    """Blocks of at most so many records are folded on the event loop: a thread would cost as much as they do."""
    lessons: LessonsTopic | None = None
    """None: partitions learn nothing from each other, whatever is configured."""


class KafkaBrokers:
    """The brokers of a configuration."""

    def __init__(self, loaded: Loaded) -> None:
        """Name them; nothing is asked yet."""
        self._kafka, self._topics = loaded.kafka, loaded.topics
        self._loaded = loaded

    async def partitions(self) -> int:
        """Return the number of partitions that all topics have."""
        return await asyncio.to_thread(check, self._kafka, self._topics)

    async def tail(self, topic: str, partition: int, from_offset: int) -> Tail:
        """Return the end of an output partition, and our highest cause in it."""
        source = self._topics.interactions
        if self._loaded.delivery.mode == "transactional":
            return await tail(self._kafka, topic, partition, from_offset, source)
        try:
            return await tail(self._kafka, topic, partition, from_offset, source, wait_ms=OPEN_TRANSACTION_MS)
        except OpenTransactionError:
            # a worker of the other mode may have died over it: nobody but us can end it before its time is over
            await transactional(self._loaded).fence(partition)
            return await tail(self._kafka, topic, partition, from_offset, source)

    async def end(self, partition: int) -> int:
        """Return the end offset of the input's partition."""
        return await end_of(self._kafka, self._topics.interactions, partition)

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset."""
        return await record_at(self._kafka, self._topics.interactions, partition, offset)


def transactional(loaded: Loaded) -> TransactionalDelivery:
    """Return a configuration's delivery in transactions."""
    return TransactionalDelivery(
        loaded.kafka,
        loaded.topics,
        loaded.worker.group,
        interval_ms=loaded.delivery.transaction_interval_ms,
        transaction_timeout_ms=loaded.delivery.transaction_timeout_ms,
    )


def ports_of(loaded: Loaded) -> Ports:
    """Return the real world, as a configuration names it."""
    reached = (loaded.kafka, loaded.topics)
    is_built_in = loaded.configuration.learner.model == BUILT_IN
    return Ports(
        brokers=KafkaBrokers(loaded),
        delivery=transactional(loaded) if loaded.delivery.mode == "transactional" else Delivery(*reached),
        disk=LocalDisk(),
        clock=time,
        in_thread=asyncio.to_thread,
        at_once_records=AT_ONCE_RECORDS if is_built_in else OTHER_MODEL_AT_ONCE_RECORDS,
        lessons=KafkaLessons(*reached),
    )

"""What a worker asks of the world, as small protocols: a simulation puts worlds of its own in their place.

`ports_of` gives the real ones. Nothing in `streams.worker` reaches out but through them.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from schemas.records import Outputs
from streams.configuration import Loaded
from streams.delivery import Delivery, Tail, record_at, tail
from streams.disk import Disk, LocalDisk
from streams.topics import check

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

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset; None: there is none, or it has no value."""


class OutputDelivery(Protocol):
    """Takes outputs to their topics; every method raises DeliveryError, from then on always, where one failed."""

    async def start(self) -> None:
        """Connect, unless it is connected."""

    async def send(self, partition: int, outputs: Outputs) -> None:
        """Hand over what a block made, each topic's in its order; they may be on their way when this returns."""

    async def flush(self, partition: int) -> dict[str, int]:
        """Wait until all that was sent is confirmed; return the end offset in each topic that something went to."""

    def forget(self, partition: int) -> None:
        """Drop what is known of a partition, when it is given up."""

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
    """All that a worker has of the world."""

    brokers: Brokers
    delivery: OutputDelivery
    disk: Disk
    clock: Clock
    in_thread: InThread


class KafkaBrokers:
    """The brokers of a configuration."""

    def __init__(self, loaded: Loaded) -> None:
        """Name them; nothing is asked yet."""
        self._kafka, self._topics = loaded.kafka, loaded.topics

    async def partitions(self) -> int:
        """Return the number of partitions that all topics have."""
        return await asyncio.to_thread(check, self._kafka, self._topics)

    async def tail(self, topic: str, partition: int, from_offset: int) -> Tail:
        """Return the end of an output partition, and our highest cause in it."""
        return await tail(self._kafka, topic, partition, from_offset, self._topics.interactions)

    async def record_at(self, partition: int, offset: int) -> bytes | None:
        """Return the value of the input's record at an offset."""
        return await record_at(self._kafka, self._topics.interactions, partition, offset)


def ports_of(loaded: Loaded) -> Ports:
    """Return the real world, as a configuration names it."""
    return Ports(
        brokers=KafkaBrokers(loaded),
        delivery=Delivery(loaded.kafka, loaded.topics),
        disk=LocalDisk(),
        clock=time,
        in_thread=asyncio.to_thread,
    )

"""One assigned partition: the blocks that wait for it, and the one task that calls its handler.

Nothing here knows Faust or Kafka: `PartitionClient` is all that a run asks of the consumer it belongs to.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from thalweg.schemas.records import Record
from thalweg.streams.refusal import Refusal

RECORD_OVERHEAD_BYTES = 600
"""What a record object takes beside its key and value."""

Answer = TypeVar("Answer")


class LogTruncatedError(Refusal):
    """Records that were still needed are gone from the input topic, or the topic was created again."""


class TakenOverError(Refusal):
    """Another worker has the partition by now: what is sent for it is refused."""


class LogBounds(NamedTuple):
    """What of a partition's log there is to read: the first offset and the end offset (of what is committed)."""

    begin: int
    end: int


class BlockLimits(NamedTuple):
    """How large a block gets, and how much may wait."""

    block_records_max: int = 1_000
    block_bytes_max: int = 1 << 20
    pending_bytes_max: int = 8 << 20
    """Bytes of records of one partition that are fetched and not folded yet."""
    fetch_pause_ms: int = 2
    """How long after a small fetch the next one begins: events that arrive one at a time are fetched some at a time."""
    idle_ms: int = 1_000
    taken_over_ms: int = 10_000
    """How long a partition that somebody else took over waits to be revoked before it is opened again."""
    first_records_max: int = 1_000
    """Records of a block of the first fetch after a partition is opened: what has waited is seen the sooner.

    Blocks of the first fetch are not joined.
    """


class PartitionHandler(Protocol):
    """What an application does with the blocks; see the module's text for the order of calls."""

    async def open(self, partition: int, log: LogBounds) -> int:
        """Take the partition over and return the offset to read from."""

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        """Process a block; return an offset to acknowledge, if a checkpoint was taken."""

    async def idle(self, partition: int) -> int | None:
        """Nothing came for a while; return an offset to acknowledge, if a checkpoint was taken."""

    async def close(self, partition: int) -> int | None:
        """Give the partition up; return an offset to acknowledge, if a checkpoint was taken."""


class PartitionProgress(NamedTuple):
    """How far one partition is; offsets are those of the next record."""

    partition: int
    opened: bool
    folded: int
    acknowledged: int | None
    end: int | None
    """The log's end as the last fetch told it."""
    pending_records: int
    pending_bytes: int


class PartitionClient(Protocol):
    """What a run asks of the consumer it belongs to."""

    async def bounds(self) -> LogBounds:
        """Ask the brokers what of the log there is."""

    async def seek(self, offset: int) -> bool:
        """Fetch from this offset on; True once that is so."""

    def acknowledge(self, next_offset: int) -> None:
        """Note that nothing below an offset is needed again."""

    def folded(self) -> None:
        """Note that a block was folded, or that the partition is open, so that it may be fetched."""

    def fail(self, error: Exception) -> None:
        """End the worker because of this partition."""


class PartitionRun:
    """One partition while it is assigned: its blocks, and the task that calls the handler."""

    def __init__(
        self, name: str, partition: int, client: PartitionClient, handler: PartitionHandler, limits: BlockLimits
    ) -> None:
        """Make it; `start` opens the partition. `name` is for messages."""
        self._name, self._partition = name, partition
        self._client, self._handler, self._limits = client, handler, limits
        self._blocks: deque[tuple[list[Any], int]] = deque()
        self._pending_records = self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._closing = asyncio.Event()
        self._handled = self._opened = self._is_first = False
        self._fetched = self._folded = self._first_end = 0
        self._timer: asyncio.TimerHandle | None = None
        self._idle_at = 0.0
        self._is_idle = False
        self._task: asyncio.Task[None] | None = None

    @property
    def is_closing(self) -> bool:
        """Whether the partition is given up."""
        return self._closing.is_set()

    @property
    def has_room(self) -> bool:
        """Whether the partition is to be fetched."""
        return self._opened and not self._closing.is_set() and self._pending_bytes < self._limits.pending_bytes_max

    def progress(self, acknowledged: int | None, end: int | None) -> PartitionProgress:
        """Report how far it is, given what only the consumer knows."""
        return PartitionProgress(
            self._partition,
            self._opened,
            self._folded,
            acknowledged,
            end,
            self._pending_records,
            self._pending_bytes,
        )

    def start(self) -> None:
        """Open the partition, and fold what is put."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)

    async def close(self) -> None:
        """Let the block that is being folded end, drop those that wait, and have the handler close."""
        self._closing.set()
        self._arrived.set()
        if self._task is not None:
            await self._task

    async def put(self, records: list[Any]) -> None:
        """Take what was fetched. Raises LogTruncatedError where it does not follow what was fetched before."""
        if self._closing.is_set() or not self._opened:
            return
        first = records[0].offset
        limits = self._limits
        if self._is_first:
            self._is_first = False
            limits = limits._replace(block_records_max=min(limits.block_records_max, limits.first_records_max))
            self._first_end = records[-1].offset + 1
        if first != self._fetched:
            await self._refuse_truncation(first)
        self._fetched = records[-1].offset + 1
        for block, block_bytes in cut(records, limits):
            self._blocks.append((block, block_bytes))
            self._pending_records += len(block)
            self._pending_bytes += block_bytes
        self._arrived.set()

    async def _run(self) -> None:
        try:
            while not self._closing.is_set():
                try:
                    await self._open()
                    while not self._closing.is_set():
                        if self._blocks:
                            await self._fold()
                        else:
                            await self._wait()
                except TakenOverError:
                    await self._close()
                    # Whoever took it over has it by rights, and we are about to be told; or it was itself a worker
                    # that had lost it, and has been told by then.
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), self._limits.taken_over_ms / 1000)
            await self._close()
        except Exception as error:
            self._closing.set()
            self._drop_blocks()
            self._client.fail(error)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _close(self) -> None:
        self._opened = False
        self._drop_blocks()
        if self._handled:
            self._handled = False
            self._acknowledge(await self._handler.close(self._partition))

    async def _open(self) -> None:
        log = await self._unless_closing(self._client.bounds())
        if log is None:
            return
        start = await self._handler.open(self._partition, log)
        self._handled = True
        self._fetched = self._folded = start
        if await self._unless_closing(self._client.seek(start)):
            self._opened = self._is_first = True
            self._client.folded()

    async def _unless_closing(self, asking: Coroutine[Any, Any, Answer]) -> Answer | None:
        """Ask the client, and give up when the partition is taken away: the client may have no answer then."""
        answer = asyncio.ensure_future(asking)
        closing = asyncio.ensure_future(self._closing.wait())
        await asyncio.wait({answer, closing}, return_when=asyncio.FIRST_COMPLETED)
        if closing.done():
            answer.cancel()
            return None
        closing.cancel()
        return answer.result()

    async def _fold(self) -> None:
        block, block_bytes = self._next_block()
        self._acknowledge(await self._handler.fold(self._partition, block))
        self._folded = block[-1].offset + 1
        self._pending_records -= len(block)
        self._pending_bytes -= block_bytes
        self._client.folded()

    def _next_block(self) -> tuple[list[Any], int]:
        """Join the oldest blocks that wait, as many as the limits of one block take.

        Events that arrive one at a time are fetched one at a time, and a block costs as much as many events.
        """
        limits = self._limits
        block, block_bytes = self._blocks.popleft()
        while self._blocks and block[0].offset >= self._first_end:
            following, following_bytes = self._blocks[0]
            if (
                len(block) + len(following) > limits.block_records_max
                or block_bytes + following_bytes > limits.block_bytes_max
            ):
                break
            self._blocks.popleft()
            block += following
            block_bytes += following_bytes
        return block, block_bytes

    async def _wait(self) -> None:
        """Wait for a block; call `idle` where none comes for long.

        One timer runs for many blocks: to set and cancel one for each would take a tenth of what a single event takes.
        """
        self._arrived.clear()
        loop = asyncio.get_running_loop()
        self._idle_at = loop.time() + self._limits.idle_ms / 1000
        if self._timer is None:
            self._timer = loop.call_at(self._idle_at, self._look)
        await self._arrived.wait()
        if self._is_idle:
            self._is_idle = False
            if not self._blocks and not self._closing.is_set():
                self._acknowledge(await self._handler.idle(self._partition))

    def _look(self) -> None:
        """Wake the task if nothing came since it waits, else look again when that may be so."""
        loop = asyncio.get_running_loop()
        self._timer = None
        if self._arrived.is_set():
            return
        if loop.time() < self._idle_at:
            self._timer = loop.call_at(self._idle_at, self._look)
        else:
            self._is_idle = True
            self._arrived.set()

    def _drop_blocks(self) -> None:
        self._blocks.clear()
        self._pending_records = self._pending_bytes = 0

    def _acknowledge(self, next_offset: int | None) -> None:
        if next_offset is not None:
            self._client.acknowledge(next_offset)

    async def _refuse_truncation(self, first: int) -> None:
        if first < self._fetched:
            raise LogTruncatedError(
                f"{self._name} resumes at offset {first} where {self._fetched} was due: the topic was created again"
            )
        begin, _ = await self._client.bounds()
        if begin > self._fetched:
            raise LogTruncatedError(
                f"{self._name} starts at offset {begin} now, but {self._fetched} was not read "
                "yet: the topic's retention is shorter than the worker's lag"
            )


def size_of(records: Iterable[Any]) -> int:
    """Return the bytes that records take in memory, nearly."""
    size = 0
    for record in records:
        size += RECORD_OVERHEAD_BYTES + max(record.serialized_key_size, 0) + max(record.serialized_value_size, 0)
        if record.headers:
            size += sum(len(name) + len(value or b"") for name, value in record.headers)
    return size


def cut(records: list[Any], limits: BlockLimits) -> Iterator[tuple[list[Any], int]]:
    """Cut what was fetched into blocks within the limits; a record larger than a block is a block by itself."""
    for start in range(0, len(records), limits.block_records_max):
        part = records[start : start + limits.block_records_max]
        part_bytes = size_of(part)
        if part_bytes <= limits.block_bytes_max:
            yield part, part_bytes
            continue
        block: list[Any] = []
        block_bytes = 0
        for record in part:
            record_bytes = size_of((record,))
            if block and block_bytes + record_bytes > limits.block_bytes_max:
                yield block, block_bytes
                block, block_bytes = [], 0
            block.append(record)
            block_bytes += record_bytes
        yield block, block_bytes

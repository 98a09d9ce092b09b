"""Faust, fed whole fetched blocks of one partition instead of single messages.

Faust's worker, web server, group membership, assignment, rebalance and commit stay as they are. What changes is the
path of the records: Faust makes a message, an event and two tasks for every record and passes them through an agent,
4 800 events a second; here what `streams/kafka/reading.py` fetches goes in whole blocks to one `PartitionHandler`,
which the application provides. No agent is involved, and on purpose: an agent that raises is restarted *behind* the
message it failed on, and a processor that never loses an event must stop there instead.

Of a partition that is assigned, one task calls, strictly one after the other:

    - `start = await handler.open(partition, log)`: where to read from; the checkpoint decides, not the group
- `await handler.fold(partition, records)`: again and again, in the order of the log
- `await handler.idle(partition)`: about once a second while there is nothing to fold
- `await handler.close(partition)`: revoked, or the worker stops; the last chance to checkpoint

It keeps these rules:

- Partitions are independent of each other: four may be folding at once. A handler runs its fold in a thread
  (`asyncio.to_thread`), so heartbeats, which have another thread, and the web server continue.
- What `fold`, `idle` and `close` return is acknowledged: None for nothing, or an offset below which nothing is needed
  again. Faust commits it at its next interval, and before it gives the partition up. An acknowledgement is one integer
  a partition; a block that is folded but not acknowledged costs nothing.
- Blocks that wait are joined up to the limits of a block before they are folded: the log may be cut anywhere.
- Of each partition at most `pending_bytes_max` of records, and one fetch in the client, wait to be folded. A partition
  that is full is not fetched; the others are.
- Blocks that wait when a partition is revoked are dropped: its next owner reads them again.
- Offsets may have holes (transaction markers, aborted transactions, compaction). A hole that is the broker's retention
  having eaten what was not read yet raises `LogTruncatedError`; a log that starts over raises it too.
- The first exception of a handler ends the worker: other partitions are closed in order, that one is not, `failure`
  tells the exception, and the process ends with a status that is not 0: a Refusal with its one line and status 1.
- What is to be done before the group is joined goes into `prepare`: a worker that compiles for a minute then does it
  while others still have the partitions.

What a handler shares between partitions, such as a producer, it stops on the app's signal `on_before_shutdown`, which
comes when all partitions are closed.

It overrides private parts of faust-streaming, which therefore is pinned to one version; `tests/kafka/test_blocks.py`
keeps watch over committed offsets after a stop, a kill and a rebalance.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic, sleep
from typing import Any, NamedTuple, NoReturn, cast

import faust
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, TransportT
from mode import ServiceT
from thalweg.streams.kafka.partition_run import (
    BlockLimits,
    LogBounds,
    LogTruncatedError,
    PartitionHandler,
    PartitionProgress,
    PartitionRun,
)
from thalweg.streams.kafka.reading import Place, Reading
from thalweg.streams.kafka.refusals import unreadable_batch
from thalweg.streams.kafka.security import KafkaSection, aiokafka_arguments, faust_settings
from thalweg.streams.refusal import Refusal

__all__ = [
    "BlockApp",
    "BlockLimits",
    "EndingLimits",
    "LogBounds",
    "LogTruncatedError",
    "PartitionHandler",
    "PartitionProgress",
    "block_app",
]

COMMIT_TIMEOUT_S = 15.0
GROUP_TIMEOUT_S = 1.0
METADATA_MAX_AGE_MS = 10_000
"""How soon partitions that are added to a topic are noticed; the client's own default is five minutes."""


class EndingLimits(NamedTuple):
    """How long a worker bears with brokers that do not answer."""

    silence_ms: int = 10_000
    """After so long without an answer they are taken to be gone."""
    stop_timeout_ms: int = 15_000
    """A stopping worker waits so long for brokers that are gone."""


class BlockApp(faust.App):
    """A Faust app whose source topic is delivered in blocks; made by `block_app`."""

    source: str
    kafka: KafkaSection
    handler: PartitionHandler
    limits: BlockLimits
    endings: EndingLimits
    prepare: Callable[[], object] = staticmethod(lambda: None)
    """Called before the worker starts; a Refusal that it raises ends the process."""
    blocks: "BlockConsumer | None" = None
    """The consumer, once Faust has made it; `consumer` would make one, whoever asks and wherever."""
    failure: BaseException | None = None
    """The exception that ended the worker, if one did."""
    ending: threading.Thread | None = None
    """What ends the process where brokers that are gone hold its end up."""

    @property
    def silence_s(self) -> float:
        """Seconds since the brokers last answered the consumer; 0 while there is none yet."""
        return 0.0 if self.blocks is None else monotonic() - self.blocks.heard_at

    @property
    def is_silent(self) -> bool:
        """Whether the brokers have not answered for longer than they may."""
        return self.silence_s * 1000 > self.endings.silence_ms

    def progress(self) -> list[PartitionProgress]:
        """Report how far each assigned partition is; empty before the first assignment."""
        return [] if self.blocks is None else self.blocks.progress()

    async def on_start(self) -> None:
        """Subscribe to the source: no agent does it."""
        await super().on_start()
        self.topics.add(self.topic(self.source))

    def _create_directories(self) -> None:
        """Make no folder for tables: there are none."""

    def _on_rebalance_when_stopped(self) -> None:
        """Let the consumer end in order: Faust would disconnect it here, and its end would wait for brokers in vain."""

    def _new_transport(self) -> TransportT:
        return BlockTransport(self.conf.broker_consumer, self)


def block_app(
    name: str,
    *,
    kafka: KafkaSection,
    source: str,
    handler: PartitionHandler,
    limits: BlockLimits | None = None,
    endings: EndingLimits | None = None,
    **settings: Any,
) -> BlockApp:
    """Return a Faust app that feeds `handler` with the topic `source`, in the consumer group `name`.

    `settings` are Faust's own. The topic must be there when the worker starts. Raises Refusal where a secret or a
    certificate of `kafka` is missing.
    """
    defaults: dict[str, Any] = {
        "web_bind": "127.0.0.1",
        # partitions of a worker that was killed are taken over after this time
        "broker_session_timeout": 10.0,
        "broker_heartbeat_interval": 2.0,
        "consumer_metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }
    fixed: dict[str, Any] = {
        **faust_settings(kafka),
        # of records that nobody has read yet none may be passed over; `open` decides in any case
        "consumer_auto_offset_reset": "earliest",
        # what makes Faust call `wait_empty`, where partitions are closed, before it gives them up
        "stream_wait_empty": True,
        # Faust makes no topics of its own: no tables, no leader
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "Worker": BlockWorker,
        "TableManager": NoTables,
    }
    app = BlockApp(name, **(defaults | settings | fixed))
    app.source, app.kafka = source, kafka
    app.handler, app.limits = handler, limits or BlockLimits()
    app.endings = endings or EndingLimits()
    return app


class BlockWorker(faust.Worker):
    """Faust's worker, which first prepares, and ends with one line and status 1 where the app refuses to continue."""

    app: BlockApp

    def __init__(self, app: BlockApp, *services: ServiceT, **settings: Any) -> None:
        """Take Faust's arguments; an app without a web server has none, though Faust's command line has one."""
        super().__init__(app, *services, **settings)
        if app.boot_strategy.enable_web is False:
            app.conf.web_enabled = False

    def execute_from_commandline(self) -> NoReturn:
        """Run until a signal, or a failure."""
        try:
            self.app.prepare()
            super().execute_from_commandline()
        except KeyboardInterrupt:
            print("Error: interrupted before the group was joined", file=sys.__stderr__, flush=True)
            raise SystemExit(130) from None
        except Refusal as refusal:
            self.app.failure = refusal
            _say(refusal)
            raise SystemExit(1) from None
        except SystemExit:
            if isinstance(self.app.failure, Refusal):
                _say(self.app.failure)
                raise SystemExit(1) from None
            raise

    def _schedule_shutdown(self, number: signal.Signals) -> None:
        end_without_brokers(self.app)
        super()._schedule_shutdown(number)


def end_without_brokers(app: BlockApp) -> None:
    """See to it that a worker that is to end does, though brokers that are gone answer nothing it waits for.

    It ends as a worker that is killed does: what was not confirmed is in no checkpoint, and is made again.
    """

    def watch() -> None:
        started = monotonic()
        while (monotonic() - started) * 1000 < app.endings.stop_timeout_ms or not app.is_silent:
            sleep(0.1)
        if app.failure is not None and isinstance(app.failure, Refusal):
            _say(app.failure)
        else:
            _say(
                Refusal(
                    f"no broker has answered for {app.silence_s:.0f} s: ended without them; the next worker resumes "
                    "from the last checkpoint"
                )
            )
        os._exit(1)

    if app.ending is None:
        app.ending = threading.Thread(target=watch, name="ending", daemon=True)
        app.ending.start()


def _say(refusal: Refusal) -> None:
    # Faust may have redirected sys.stderr into its log
    message = " ".join(refusal.message.split())
    print(f"Error: {message}", file=sys.__stderr__, flush=True)


class NoTables(TableManager):
    """Faust's tables, of which there are none: it starts without the second that Faust gives others to make some."""

    async def on_start(self) -> None:
        """Let the consumer subscribe."""
        await self._update_channels()
        await self.recovery.start()


class BlockConsumer(driver.Consumer):
    """Faust's consumer over aiokafka, with a run for each assigned partition of the source."""

    app: BlockApp

    def on_init(self) -> None:
        """Start without partitions."""
        super().on_init()
        self.app.blocks = self
        self._runs: dict[TP, PartitionRun] = {}
        self._acknowledged: dict[TP, int] = {}
        self._closing = asyncio.Lock()
        self.heard_at = monotonic()
        self.reading = Reading(
            self.app.source,
            self._new_client,
            partition_bytes_max=self.app.conf.consumer_max_fetch_size,
            pause_ms=self.app.limits.fetch_pause_ms,
            heard=self.hear,
            fail=self.fail,
        )

    async def on_stop(self) -> None:
        """Read nothing more."""
        await super().on_stop()
        await self.reading.stop()

    def hear(self) -> None:
        """Note that the brokers answered."""
        self.heard_at = monotonic()

    def progress(self) -> list[PartitionProgress]:
        """Report how far each assigned partition is."""
        return [
            run.progress(self._acknowledged.get(tp), self.reading.end(tp.partition))
            for tp, run in sorted(self._runs.items())
        ]

    def read(self, tp: TP, offset: int) -> None:
        """Read a partition that is open from an offset on."""
        run = self._runs.get(tp)
        if run is None or run.is_closing:
            return

        async def begin() -> int:
            return (await self.earliest_offsets(tp))[tp]

        def has_room() -> bool:
            return run.has_room and self.flow_active

        self.reading.add(Place(tp.partition, offset, has_room=has_room, take=run.put, begin=begin))

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Look at nothing: what Faust would look at is its own way of fetching."""

    async def perform_seek(self) -> None:
        """Open the partitions of a new assignment; each is fetched as soon as its own offset is known.

        Faust would seek to the group's committed offsets here, and end the worker if that took over 90 s; loading a
        checkpoint may.
        """
        assigned = {tp for tp in self.assignment() if tp.topic == self.app.source and tp not in self._runs}
        for tp in assigned:
            name = f"{tp.topic}-{tp.partition}"
            run = PartitionRun(name, tp.partition, _Client(self, tp), self.app.handler, self.app.limits)
            self._runs[tp] = run
            run.start()
        cast(_GroupThread, self._thread).fetch_nothing(assigned)

    async def wait_empty(self) -> None:
        """Close all partitions and commit what they acknowledge; before a rebalance, and before the worker ends."""
        async with self._closing:
            runs, self._runs = self._runs, {}
            for tp in runs:
                self.reading.remove(tp.partition)
            await asyncio.gather(*(run.close() for run in runs.values()))
            try:
                # if the client's thread has crashed, nobody would ever answer
                await asyncio.wait_for(self._commit_all(), COMMIT_TIMEOUT_S)
            except TimeoutError:
                self.log.warning("offsets could not be committed; the next worker resumes from the checkpoints")
            for tp in runs:
                self._acknowledged.pop(tp, None)

    def acknowledge(self, tp: TP, next_offset: int) -> None:
        """Note that nothing below an offset is needed again; it is committed at the next interval."""
        self._acknowledged[tp] = max(next_offset, self._acknowledged.get(tp, 0))

    def fail(self, error: Exception) -> None:
        """End the worker because of an error in one partition, after the others are closed in order."""
        if self.app.failure is None:
            error = unreadable_batch(error) or error
            self.app.failure = error
            end_without_brokers(self.app)
            self._ending = asyncio.get_running_loop().create_task(self._end_worker(error))

    async def _end_worker(self, error: Exception) -> None:
        try:
            await self.wait_empty()
        finally:
            if isinstance(error, Refusal):
                # nothing is wrong with the program: end as if told to, and say why (see BlockWorker)
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                await self.app.crash(error)

    async def _commit_all(self) -> None:
        # a commit that is under way may have been sent before the last acknowledgements
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return (tp for tp in list(self._acknowledged) if topics is None or tp in topics or tp.topic in topics)

    def _new_offset(self, tp: TP) -> int | None:
        return self._acknowledged.get(tp)

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        stopped = (self._stopped.is_set, cast(Any, fetcher)._stopped.is_set)
        try:
            while not any(is_set() for is_set in stopped):
                # what fetches nothing still raises what the group's coordinator refuses, and shows it that we live
                await self._getmany(active_partitions=set(self._runs), timeout=GROUP_TIMEOUT_S)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise
        except Exception as error:
            self.fail(error)

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return _GroupThread(self, loop=self.loop, beacon=self.beacon)

    def _new_client(self) -> AIOKafkaClient:
        return AIOKafkaClient(**aiokafka_arguments(self.app.kafka))


class BlockTransport(driver.Transport):
    """Faust's transport over aiokafka, with the consumer above."""

    Consumer = BlockConsumer


class _GroupThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer in its thread: member of the group, asked for offsets, and fetching nothing."""

    def fetch_nothing(self, tps: Iterable[TP]) -> None:
        """Have the client leave partitions alone, as long as they are assigned."""
        places = driver.ensure_aiokafka_TPset(tps)

        def pause() -> None:
            with suppress(IllegalStateError):  # they are not assigned any more
                self._ensure_consumer().pause(*places)

        self.thread_loop.call_soon_threadsafe(pause)

    def _create_worker_consumer(self, transport: driver.Transport) -> Any:
        # Faust reads aborted transactions unless it runs transactions of its own, and has no setting for it
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        send = consumer._client.send

        async def hearing(*arguments: Any, **named: Any) -> Any:
            """Note when the brokers answer: heartbeats do, whether there is anything to read or not."""
            answer = await send(*arguments, **named)
            cast(BlockConsumer, self.consumer).hear()
            return answer

        consumer._client.send = hearing
        return consumer


class _Client:
    """What one partition's run asks of the consumer."""

    def __init__(self, consumer: BlockConsumer, tp: TP) -> None:
        self._consumer, self._tp = consumer, tp

    async def bounds(self) -> LogBounds:
        begin = await self._consumer.earliest_offsets(self._tp)
        end = await self._consumer.highwaters(self._tp)
        return LogBounds(begin[self._tp], end[self._tp])

    async def seek(self, offset: int) -> bool:
        # the group's client fetches nothing, but would ask for the committed offset without end if it had no position
        await self._consumer.seek_wait({self._tp: offset})
        self._consumer.read(self._tp, offset)
        return True

    def acknowledge(self, next_offset: int) -> None:
        self._consumer.acknowledge(self._tp, next_offset)

    def folded(self) -> None:
        self._consumer.reading.made_room()

    def fail(self, error: Exception) -> None:
        self._consumer.fail(error)

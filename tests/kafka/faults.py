"""Real faults on a real Kafka, with outputs moving all the while: used by the tests, and by `make soak` for longer.

Each scenario runs workers under load, harms them, and returns how long readers waited each time until every partition's
scores moved again. What readers got in the end is compared, output by output, with the fold over each partition's log.
"""

import asyncio
import resource
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import DefaultPartitioner
from thalweg.streams.kafka.consume import cause_of
from thalweg.streams.mapping.keys import key_of

from examples.live.events import events
from tests.kafka.broker import Broker
from tests.kafka.fleet import committed, end_offsets
from tests.kafka.nursery import Worker
from tests.kafka.scoring import Producing, Sent, Workers

RATE = 2_500
TURN_S, TURN_MAX, UNCONFIRMED_MAX = 0.02, 1_000, 64
"""The load sends what is due this often, so many events at most at a time, and waits for so many batches at most."""
BROKER_AWAY_S = 180.0
SESSION_S = 6
COMPILE_S = 180
"""What the first worker of all may take, which compiles the fold."""
FOREVER = 10_000_000
partition_of = DefaultPartitioner()
SETTINGS = {"CHECKPOINT__INTERVAL_MS": 2000, "WORKER__SESSION_TIMEOUT_MS": SESSION_S * 1000}


class Difference(NamedTuple):
    """What readers got beside what they were to get: outputs missing, there again, and with other bytes."""

    lost: int = 0
    twice: int = 0
    different: int = 0


def compared(written: list[Sent], expected: list[Sent]) -> Difference:
    """Compare the outputs of one partition of a topic, by their causes, and then their order."""
    by_cause = {cause_of(output): output for output in expected}
    assert len(by_cause) == len(expected), "two outputs have one cause"
    seen = Counter(cause_of(output) for output in written)
    different = sum(by_cause.get(cause_of(output)) != output for output in written)
    found = Difference(len(by_cause.keys() - seen.keys()), sum(seen.values()) - len(seen), different)
    assert any(found) or written == expected, "the outputs are the same, in another order"
    return found


def difference(workers: Workers) -> Difference:
    """Compare all that readers of all topics and partitions got with the fold over each partition's log.

    Of every record the last checkpoint must know a fate.
    """
    total = Difference()
    for number in range(workers.loaded.topics.partitions):
        assert workers.accounted(number) == len(workers.records_of(workers.source, number))
        (written, _), expected = workers.written(number), workers.expected(number)
        assert len(expected[0]) > 1000
        assert len(expected[1]) > 1000
        assert len(expected[3]) > 10
        for kind in range(len(expected)):
            found = compared(written[kind], expected[kind])
            total = Difference(*(sum(pair) for pair in zip(total, found, strict=True)))
    return total


def asked(line: bytes, number: int) -> bytes:
    """Return a request in place of an event: its user asks for some items, its own among them."""
    event = msgspec.json.decode(line)
    items = [event["item"], *(f"item-{(number + more) % 50}" for more in range(5))]
    own = {name: event[name] for name in ("user", "ts")}
    return msgspec.json.encode({"type": "request", "id": f"r{number}", "candidates": items, "context": {}, **own})


class Load:
    """Events on their way to the input topic, RATE a second, until it is ended; as a context, ended at its end.

    Whole batches, so that a machine of few cores has them left for what is looked at.
    """

    def __init__(self, workers: Workers, rate: float = RATE) -> None:
        self._workers, self._rate = workers, rate
        self._ending = threading.Event()
        self._lines = events(FOREVER)
        self.produced, self._began = 0, time.monotonic()
        self.events_per_s = 0.0
        self._producing = Producing(lambda: asyncio.run(self._produce()), 60)

    @property
    def is_on_time(self) -> bool:
        """Whether less is missing than half a second's events: what brokers that were gone did not take is made up."""
        return self.produced > (time.monotonic() - self._began - 0.5) * self._rate

    async def _produce(self) -> None:
        servers, topic = self._workers.loaded.kafka.bootstrap_servers, self._workers.source
        options = {"acks": "all", "enable_idempotence": True, "max_batch_size": 1 << 20}
        options["request_timeout_ms"] = int(BROKER_AWAY_S * 1000)
        unconfirmed: deque[asyncio.Future[Any]] = deque()
        async with AIOKafkaProducer(bootstrap_servers=servers, **options) as producer:
            while not self._ending.is_set():
                due = int((time.monotonic() - self._began) * self._rate) - self.produced
                for partition, lines in self._next(min(due, TURN_MAX)).items():
                    batch = producer.create_batch()
                    for line in lines:
                        assert batch.append(key=key_of(line), value=line, timestamp=None) is not None
                    unconfirmed.append(await producer.send_batch(batch, topic, partition=partition))
                while len(unconfirmed) > UNCONFIRMED_MAX or (unconfirmed and unconfirmed[0].done()):
                    await unconfirmed.popleft()
                await asyncio.sleep(TURN_S)
            for each in unconfirmed:
                await each

    def _next(self, count: int) -> dict[int, list[bytes]]:
        """Return the next lines by partition, some of them requests, some what a producer should not send."""
        partitions = list(range(self._workers.loaded.topics.partitions))
        found: dict[int, list[bytes]] = {}
        for _ in range(count):
            self.produced += 1
            line = next(self._lines).rstrip(b"\n")
            if self.produced % 997 == 0:
                line = b'{"type": "impression", "n": %d}' % self.produced
            elif self.produced % 97 == 0:
                line = asked(line, self.produced)
            key = key_of(line)
            partition = 0 if key is None else partition_of(key, partitions, partitions)
            found.setdefault(partition, []).append(line)
        return found

    def end(self) -> None:
        """Wait until all is confirmed; raise what the producer raised."""
        self._ending.set()
        self._producing.join()
        self.events_per_s = self.produced / (time.monotonic() - self._began)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()


class Moment(NamedTuple):
    """A moment, in seconds, by the clock that arrivals are told by, and by the one that records are stamped with."""

    monotonic: float
    wall: float


def now() -> Moment:
    return Moment(time.monotonic(), time.time())


class Arrival(NamedTuple):
    """When something came of a partition, and when the newest of it had been written."""

    at: float
    written: float


class Follower:
    """Reads the scores as they come, `read_committed`, and knows when something came of each partition."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._arrivals: dict[int, list[Arrival]] = {number: [] for number in range(workers.loaded.topics.partitions)}
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)

    def __enter__(self) -> "Follower":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)

    def wait_moving(self, since: Moment, seconds: float = 120, *, written_since: bool = True) -> float:
        """Wait until scores of every partition came after a moment, and return how long after it that was.

        With `written_since` such count only as were also written after it: not those that somebody had sent before.
        """

        def moved() -> list[float | None]:
            written = since.wall if written_since else 0.0
            return [
                next((each.at for each in arrivals if each.at > since.monotonic and each.written > written), None)
                for arrivals in self._arrivals.values()
            ]

        self._workers.wait(lambda: None not in moved(), "scores of every partition move", seconds)
        return max(at for at in moved() if at is not None) - since.monotonic

    def _follow(self) -> None:
        asyncio.run(self._read())

    async def _read(self) -> None:
        servers = self._workers.loaded.kafka.bootstrap_servers
        places = [TopicPartition(self._workers.loaded.topics.scores, number) for number in self._arrivals]
        async with AIOKafkaConsumer(
            bootstrap_servers=servers, isolation_level="read_committed", enable_auto_commit=False
        ) as consumer:
            consumer.assign(places)
            await consumer.seek_to_end(*places)
            while not self._ending.is_set():
                try:
                    found = await consumer.getmany(timeout_ms=50, max_records=5000)
                except KafkaError:  # the brokers are away
                    await asyncio.sleep(0.05)
                    continue
                for place, records in found.items():
                    written = max(record.timestamp for record in records) / 1000
                    self._arrivals[place.partition].append(Arrival(time.monotonic(), written))


def settled(workers: Workers) -> None:
    """Wait until everything is folded, in a checkpoint, and acknowledged or committed."""
    servers = workers.loaded.kafka.bootstrap_servers
    ends = {p: end for p, end in end_offsets(servers, workers.source, workers.loaded.topics.partitions).items() if end}
    workers.wait(
        lambda: committed(servers, workers.group, workers.source) == ends, "everything acknowledged or committed"
    )


def ready(workers: Workers) -> Worker:
    """Start a worker and wait until it has all partitions, before there is any load: it may have to compile."""
    worker = workers.start()
    partitions = workers.loaded.topics.partitions
    workers.wait(lambda: len(workers.opened(worker)) == partitions, "the worker has all partitions", COMPILE_S)
    return worker


class Moving(NamedTuple):
    """Events on their way, and the reader of their scores."""

    load: Load
    follower: Follower


@contextmanager
def moving(workers: Workers, rate: float = RATE) -> Iterator[Moving]:
    """Have events on their way while the block lasts, which begins when all scores move; after it all is settled."""
    with Load(workers, rate) as load, Follower(workers) as follower:
        follower.wait_moving(now())
        yield Moving(load, follower)
        load.end()
        settled(workers)
        workers.events_per_s.append(load.events_per_s)


def kills(workers: Workers, times: int, *, rate: float = RATE) -> list[float]:
    """SIGKILL the worker with outputs behind its newest checkpoint, and start another one at once."""
    recoveries = []
    worker = ready(workers)
    with moving(workers, rate) as (_, follower):
        for _ in range(times):
            workers.kill_with_outputs_beyond(worker)
            killed_at = now()
            worker = workers.start()
            recoveries.append(follower.wait_moving(killed_at))
    assert workers.stop(worker) == 0, workers.log(worker)
    return recoveries


def broker_kills(workers: Workers, times: int, *, broker: Broker, rate: float = RATE) -> list[float]:
    """SIGKILL the only broker and start it again; the times are from when it serves again."""
    recoveries = []
    worker = ready(workers)
    with moving(workers, rate) as (load, follower):
        for _ in range(times):
            broker.kill()
            broker.start()
            recoveries.append(follower.wait_moving(now(), written_since=False))
            # brokers that die again at once take nothing
            workers.wait(lambda: load.is_on_time, "events that were held up have been sent")
    assert workers.stop(worker) == 0, workers.log(worker)
    return recoveries


def zombies(workers: Workers, times: int, *, rate: float = RATE) -> list[float]:
    """Stop a worker past its session, have another one take over, wake the first."""
    recoveries = []
    first = ready(workers)
    with moving(workers, rate) as (_, follower):
        for _ in range(times):
            workers.wait(lambda: workers.scores_beyond_checkpoints() > 100, "outputs that no checkpoint knows of")
            first.send_signal(signal.SIGSTOP)
            stopped_at = now()
            second = workers.start()
            recoveries.append(follower.wait_moving(stopped_at))
            closed, newest = workers.closed(first), newest_checkpoints(workers)
            first.send_signal(signal.SIGCONT)
            workers.wait(lambda: workers.closed(first) > closed, "the first worker gave its partitions up")  # noqa: B023
            assert all(path >= newest.get(place, "") for place, path in newest_checkpoints(workers).items()), (
                "moved back"
            )
            follower.wait_moving(now())
            assert workers.stop(second) == 0, workers.log(second)
            follower.wait_moving(now())
    assert workers.stop(first) == 0, workers.log(first)
    return recoveries


def newest_checkpoints(workers: Workers) -> dict[str, str]:
    """The newest checkpoint of each partition; names rise with offsets."""
    paths = (workers.folder / "checkpoints").rglob("*.checkpoint")
    return {path.parent.name: path.name for path in sorted(paths)}


def rebalances(workers: Workers, times: int) -> list[float]:
    """One worker, two, three, a zombie among them, and back to one, over all partitions."""
    recoveries = []
    first = ready(workers)
    with moving(workers) as (_, follower):
        for _ in range(times):
            others: list[Worker] = []
            for _ in range(2):
                # Faust leaves the third of three workers over four partitions without any until another one goes
                closed = workers.closed(first)
                others.append(workers.start())
                workers.wait(lambda: workers.closed(first) > closed, "the group makes room for it")  # noqa: B023
                follower.wait_moving(now())
            others[0].send_signal(signal.SIGSTOP)
            stopped_at = now()
            recoveries.append(follower.wait_moving(stopped_at))
            closed = workers.closed(others[0])
            others[0].send_signal(signal.SIGCONT)
            workers.wait(lambda: workers.closed(others[0]) > closed, "the zombie gave its partitions up")  # noqa: B023
            for other in others:
                assert workers.stop(other) == 0, workers.log(other)
            follower.wait_moving(now())
    assert workers.stop(first) == 0, workers.log(first)
    return recoveries


def full_disks(workers: Workers, times: int) -> list[float]:
    """Let no file grow past what a checkpoint needs: the worker ends with one line, and the next goes on."""
    recoveries = []
    worker = ready(workers)
    with moving(workers) as (_, follower):
        for _ in range(times):
            partitions = workers.loaded.topics.partitions
            workers.wait(lambda: len(newest_checkpoints(workers)) == partitions, "checkpoints")  # noqa: B023
            folder = workers.folder / "checkpoints"
            smallest = min(
                (folder / place / name).stat().st_size for place, name in newest_checkpoints(workers).items()
            )
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (smallest // 2, smallest // 2))
            workers.stopped.append(worker)
            assert worker.wait(90) == 1
            ended_at = now()
            last = workers.log(worker).splitlines()[-1]
            assert last.startswith("Error: no checkpoint can be written"), last
            worker = workers.start()
            recoveries.append(follower.wait_moving(ended_at))
    assert workers.stop(worker) == 0, workers.log(worker)
    return recoveries


def restarts(workers: Workers, times: int) -> list[float]:
    """SIGTERM and start again: nothing is suppressed."""
    recoveries = []
    worker = ready(workers)
    with Load(workers) as load, Follower(workers) as follower:
        follower.wait_moving(now())
        for number in count(1):
            assert workers.stop(worker) == 0, workers.log(worker)
            assert set(workers.suppressed(worker)) == {0}
            if number > times:
                break
            ended_at = now()
            worker = workers.start()
            recoveries.append(follower.wait_moving(ended_at))
        load.end()
        workers.events_per_s.append(load.events_per_s)
    worker = workers.start()
    settled(workers)
    assert workers.stop(worker) == 0, workers.log(worker)
    return recoveries


Scenario = Callable[[Workers, int], list[float]]

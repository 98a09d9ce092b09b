"""Workers of the real app in processes of their own, what they wrote, and what the fold says that they must write."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import Headers, LogRecord, Output
from thalweg.streams.checkpoints.format import origin_of
from thalweg.streams.checkpoints.format import read as checkpoint_in
from thalweg.streams.configuration.loading import Loaded, load
from thalweg.streams.kafka.consume import Reader
from thalweg.streams.kafka.produce import produce
from thalweg.streams.kafka.topics import create
from thalweg.streams.partition.lessons import LessonBook
from thalweg.streams.partition.partition import Partition

from tests.kafka.fleet import end_offsets, records_of, wait_until
from tests.kafka.nursery import Worker, nursery

SMALL = {
    "TABLE__ROWS_LIMIT": "4096",
    "BEHAVIORS__USERS_LIMIT": "2048",
    "JOINER__WAITING_LIMIT": "1024",
    "JOINER__FEEDBACK_LIMIT": "2048",
    "JOINER__TEXT_BYTES": "1048576",
    "JOINER__ATTRIBUTION_WINDOW_MS": "60000",
    "SDIM__HISTORIES_LIMIT": "256",
}
"""Limits under which a state is quickly made and soon full."""

FORKED = {"thalweg": ["worker"], "thalweg, verbose": ["worker", "--log-level", "debug"]}
STARTED = {
    "thalweg, started": [sys.executable, "-c", "from thalweg.streams.commands import main; main()", "worker"],
    "faust": [sys.executable, "-m", "faust", "-A", "thalweg.streams.app", "worker", "-l", "info"],
}


class Sent(NamedTuple):
    """What of an output must be the same, byte for byte."""

    value: bytes | None
    key: bytes | None
    headers: Headers


Written = tuple[list[Sent], ...]
"""What is on each output topic, in their order."""


class Workers:
    """Workers of one group over topics of their own; at the end it kills what is left."""

    def __init__(
        self,
        servers: str,
        unique: Callable[[str], str],
        folder: Path,
        *,
        partitions: int = 1,
        **settings: str | int,
    ) -> None:
        names = {
            name: unique(name) for name in ("interactions", "scores", "examples", "dead_letters", "rankings", "lessons")
        }
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": servers,
            **{f"TOPICS__{name.upper()}": text for name, text in names.items()},
            "TOPICS__PARTITIONS": partitions,
            "CHECKPOINT__DIRECTORY": folder / "checkpoints",
            "CHECKPOINT__INTERVAL_MS": 500,
            "WORKER__GROUP": unique("group"),
            # a worker that gets no time on a slow machine is not to lose its partitions; tests that kill set it lower
            "WORKER__SESSION_TIMEOUT_MS": 30_000,
            "METRICS__PORT": 0,
            "HTTP__PORT": 0,
            # merges are written as long as something is learned; tests of that name an empty text
            "LESSONS__ENABLED": "false" if partitions > 1 else "",
        }
        given = SMALL | own | settings
        self.environ = {f"THALWEG_{name}": str(value) for name, value in given.items() if value != ""}
        self.folder = folder
        self.workers: list[Worker] = []
        self.stopped: list[Worker] = []
        self.events_per_s: list[float] = []

    @property
    def loaded(self) -> Loaded:
        path = self.environ.get("THALWEG_CONFIG")
        return load(Path(path) if path else None, environment=self.environ, flags=())

    @property
    def configuration(self) -> Configuration:
        return self.loaded.configuration

    @property
    def is_transactional(self) -> bool:
        return self.loaded.delivery.mode == "transactional"

    @property
    def group(self) -> str:
        return self.loaded.worker.group

    @property
    def source(self) -> str:
        return self.loaded.topics.interactions

    def __enter__(self) -> "Workers":
        self.folder.mkdir(exist_ok=True)
        create(self.loaded.kafka, self.loaded.topics)
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()

    def start(self, by: str = "thalweg", **settings: str) -> Worker:
        environ = os.environ | self.environ | {f"THALWEG_{name}": text for name, text in settings.items()}
        path = self.folder / f"log-{len(self.workers)}"
        if by in FORKED:
            worker: Worker = nursery().start("thalweg", FORKED[by], environ, path)
        else:
            with path.open("wb") as log:
                worker = subprocess.Popen(STARTED[by], env=environ, stdout=log, stderr=log)
        self.workers.append(worker)
        return worker

    def stop(self, worker: Worker, number: signal.Signals = signal.SIGTERM) -> int:
        self.stopped.append(worker)
        worker.send_signal(number)
        return worker.wait(90)

    def kill_with_outputs_beyond(self, worker: Worker, count: int = 100) -> None:
        """SIGKILL a worker while at least so many scores lie on their topic that no checkpoint knows of.

        It is stopped before it is looked at, so that what was seen is what it dies with.
        """

        def is_beyond() -> bool:
            worker.send_signal(signal.SIGSTOP)
            if self.scores_beyond_checkpoints() >= count:
                return True
            worker.send_signal(signal.SIGCONT)
            return False

        self.wait(is_beyond, "outputs that no checkpoint knows of")
        self.stop(worker, signal.SIGKILL)

    def scores_beyond_checkpoints(self) -> int:
        """How many scores were written, and committed, behind the ends that the newest checkpoints recorded."""
        topic, known = self.loaded.topics.scores, 0
        for number in range(self.loaded.topics.partitions):
            paths = sorted((self.folder / "checkpoints" / f"{self.source}-{number}").glob("*.checkpoint"))
            if paths:
                known += checkpoint_in(paths[-1]).header.outputs[topic].end_offset or 0
        servers, partitions = self.loaded.kafka.bootstrap_servers, self.loaded.topics.partitions
        return sum(end_offsets(servers, topic, partitions, "read_committed").values()) - known

    def accounted(self, partition: int) -> int:
        """How many records have a fate in a partition's newest checkpoint."""
        newest = max((self.folder / "checkpoints" / f"{self.source}-{partition}").glob("*.checkpoint"))
        return int(checkpoint_in(newest).part("")["fates"].sum())

    def wait(self, what: Callable[[], Any], why: str, seconds: float = 120.0) -> None:
        """Wait for something to become true; fail with its log when a worker ends meanwhile that nobody stopped."""

        def looked() -> Any:
            for worker in self.workers:
                assert worker in self.stopped or worker.poll() is None, self.log(worker)
            return what()

        wait_until(looked, why, seconds)

    def log(self, worker: Worker) -> str:
        return (self.folder / f"log-{self.workers.index(worker)}").read_text()

    def suppressed(self, worker: Worker) -> list[int]:
        """How many outputs each partition suppressed that this worker closed."""
        return [int(count) for count in re.findall(r"closed at offset \d+, (\d+) outputs suppressed", self.log(worker))]

    def closed(self, worker: Worker) -> int:
        """How many times this worker closed a partition."""
        return len(self.suppressed(worker))

    def opened(self, worker: Worker) -> dict[int, int]:
        """Where this worker went on, by partition, the last time."""
        found = re.findall(rf"{re.escape(self.source)}-(\d+) resumes at offset (\d+)", self.log(worker))
        return {int(partition): int(offset) for partition, offset in found}

    def metrics_address(self, worker: Worker) -> str | None:
        found = re.search(r"metrics at http://([\d.:]+)/", self.log(worker))
        return found and found[1]

    def produce(self, lines: Iterable[bytes], rate: float | None = None) -> None:
        produce(self.loaded.kafka, self.source, lines, rate=rate)

    def producing(self, lines: Sequence[bytes], rate: float) -> "Producing":
        """Produce beside the test, so that workers are disturbed under load."""
        return Producing(lambda: self.produce(lines, rate), len(lines) / rate)

    def records_of(self, topic: str, partition: int) -> list[Any]:
        """Every record of a partition, in order; in transactional mode, every one that is committed."""
        isolation_level = "read_committed" if self.is_transactional else "read_uncommitted"
        return records_of(self.environ["THALWEG_KAFKA__BOOTSTRAP_SERVERS"], topic, partition, isolation_level)

    def written(self, partition: int) -> tuple[Written, int]:
        """What readers of the output topics get of a partition, and how many records they dropped.

        In transactional mode they drop nothing: they look at no causes.
        """
        if self.is_transactional:
            topics = self.loaded.topics.outputs
            return tuple([sent(record) for record in self.records_of(topic, partition)] for topic in topics), 0
        readers = [Reader() for _ in self.loaded.topics.outputs]
        kept = tuple(
            [sent(record) for record in reader.new(self.records_of(topic, partition))]
            for topic, reader in zip(self.loaded.topics.outputs, readers, strict=True)
        )
        return kept, sum(reader.dropped for reader in readers)

    def expected(self, partition: int) -> Written:
        """What the fold over a partition's log makes, in one process and without any interruption."""
        partitions = self.loaded.topics.partitions
        fold = Partition(
            self.configuration,
            topic=self.source,
            partition=partition,
            partitions=partitions,
            lessons=None if partitions == 1 or self.configuration.lessons.enabled is False else self.lessons(),
        )
        records = [
            LogRecord(record.offset, record.value, record.key, tuple(record.headers))
            for record in self.records_of(self.source, partition)
        ]
        return tuple([sent(output) for output in kind] for kind in fold.process(records))

    def lessons(self) -> LessonBook:
        """What readers of the topic `lessons` get, of all partitions."""
        topics = self.loaded.topics
        read = [self.records_of(topics.lessons, number) for number in range(topics.partitions)]
        book = LessonBook(record.value for records in read for record in Reader().new(records))
        for path in (self.folder / "checkpoints" / "starts").rglob("*.checkpoint"):
            kept = checkpoint_in(path)
            book.states[str(origin_of(kept.header))] = kept.part("")
        return book


class Producing:
    """A log on its way to the input topic, in a thread of its own."""

    def __init__(self, produce: Callable[[], object], seconds: float) -> None:
        """Start; it is to take `seconds` where the machine keeps up."""
        self._error: BaseException | None = None
        self._limit_s = 5 * seconds + 90
        self._thread = threading.Thread(target=self._run, args=(produce,), name="producing", daemon=True)
        self._thread.start()

    @property
    def is_under_way(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait until every record is confirmed; raise what the producer raised."""
        self._thread.join(self._limit_s)
        assert not self._thread.is_alive(), f"the producer was not done after {self._limit_s:g} s"
        if self._error is not None:
            raise self._error

    def _run(self, produce: Callable[[], object]) -> None:
        try:
            produce()
        except BaseException as error:
            self._error = error


def sent(record: Output | Any) -> Sent:
    return Sent(record.value, record.key, tuple(record.headers))

"""What a worker reports: `/metrics` for Prometheus, `/healthz` and `/readyz` for its supervisor.

The server has a separate thread, so that it answers while the fold compiles, a checkpoint loads, or the event loop
hangs. Figures are read when they are asked for: nothing is counted for them while events are folded.
"""

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from thalweg.operators.fold.fates import FATES, Tallied
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.operators.fold.state import State
from thalweg.operators.structures.pool import Pool, Stock
from thalweg.streams.configuration.loading import MetricsSection
from thalweg.streams.kafka.partition_run import PartitionProgress
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.lessons import SharedLessons
from thalweg.streams.worker.worker import AssignedPartition, Scoring

Metric = CounterMetricFamily | GaugeMetricFamily
Answered = Mapping[tuple[str, int], int]
NONE_ANSWERED: Answered = {}
log = logging.getLogger("thalweg.worker")
UNLEARNED = {"all": Tallied.CLOSED_UNLEARNED, "user": Tallied.OVER_USER_SHARE}
"""What closed or passed over an impression: a limit of all users, or one user's share of it."""
DROPPED_FACTS = {"left_out": Tallied.FACTS_LEFT_OUT, "evicted": Tallied.FACTS_EVICTED}
"""Facts that an impression had no room for, and items and users whose facts made room for others."""
SHOWN = {"taken": Tallied.SHOWN, "passed_over": Tallied.SHOWN_PASSED_OVER}
"""What requests showed: it waits for feedback now, or did so before or had no room."""


class Consumer(Protocol):
    """What is asked of the worker's consumer; `streams/kafka/blocks.py` answers."""

    @property
    def silence_s(self) -> float:
        """Seconds since the brokers last answered."""

    @property
    def is_silent(self) -> bool:
        """Whether that is longer than it may be."""

    def progress(self) -> Sequence[PartitionProgress]:
        """Report how far each assigned partition is."""


def rows_of(state: State) -> dict[str, int]:
    """Return how many rows of each operator are in use."""
    pools: dict[str, Pool] = {
        "table": state.features.pool,
        "users": state.users.pool,
        "joiner": state.waiting.pool,
        "feedback": state.waiting.feedbacks.pool,
        "facts": state.facts.items.pool,
        "sdim": state.behaviors.histories.pool,
    }
    return {name: int(pool.counts[Stock.EVER_USED] - pool.counts[Stock.FREED]) for name, pool in pools.items()}


class WorkerCollector(Collector):
    """Every metric of the partitions that a worker has; those that moved to another worker are that one's."""

    def __init__(self, scoring: Scoring, consumer: Consumer, answered: Answered = NONE_ANSWERED) -> None:
        """Read from a worker's handler, from its consumer how far each partition is, and what questions it answered."""
        self._scoring, self._consumer, self._answered = scoring, consumer, answered

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        partitions = [each for _, each in sorted(self._scoring.partitions.copy().items())]
        yield from _of_events(partitions)
        yield from _of_checkpoints(partitions)
        if self._scoring.lessons is not None:
            yield from _of_lessons(self._scoring.lessons, partitions)
        yield from _of_progress(self._consumer, self._scoring.delivery.committed)
        yield _of_questions(self._answered)


def _of_events(partitions: Sequence[AssignedPartition]) -> Iterator[Metric]:
    by = ["partition"]
    events = CounterMetricFamily(
        "thalweg_events", "Events folded since the log's beginning, each with its one fate.", labels=[*by, "fate"]
    )
    letters = CounterMetricFamily(
        "thalweg_dead_letters", "Events dead-lettered since the partition came to this worker.", labels=[*by, "reason"]
    )
    suppressed = CounterMetricFamily(
        "thalweg_suppressed_outputs", "Outputs not sent, being on their topic already.", labels=by
    )
    unlearned = CounterMetricFamily(
        "thalweg_unlearned_impressions", "Impressions that came to no label, by the limit.", labels=[*by, "limit"]
    )
    facts = CounterMetricFamily(
        "thalweg_dropped_facts",
        "Facts that an impression left out; owners whose facts were evicted.",
        labels=[*by, "how"],
    )
    shown = CounterMetricFamily("thalweg_shown_candidates", "Candidates that requests showed.", labels=[*by, "how"])
    stream_time = GaugeMetricFamily(
        "thalweg_stream_time_seconds", "Stream time: what most users heard last have reached, since 1970.", labels=by
    )
    rows = GaugeMetricFamily("thalweg_state_rows", "Rows in use.", labels=[*by, "operator"])
    size = GaugeMetricFamily("thalweg_state_bytes", "The part of the state that was ever used.", labels=by)
    for each in partitions:
        state, number = each.fold.state, str(each.number)
        for fate, count in zip(FATES, state.fates.tolist(), strict=True):
            events.add_metric([number, fate], count)
        for reason, count in sorted(each.dead_letters.copy().items()):
            letters.add_metric([number, reason], count)
        suppressed.add_metric([number], each.suppressed)
        for limit, tally in UNLEARNED.items():
            unlearned.add_metric([number, limit], int(state.tallies[tally]))
        for how, tally in DROPPED_FACTS.items():
            facts.add_metric([number, how], int(state.tallies[tally]))
        for how, tally in SHOWN.items():
            shown.add_metric([number, how], int(state.tallies[tally]))
        stream_time.add_metric([number], int(state.clock.stream_time_ms[0]) / 1000)
        for operator, count in rows_of(state).items():
            rows.add_metric([number, operator], count)
        size.add_metric([number], state_bytes(state))
    yield from (events, letters, suppressed, unlearned, facts, shown, stream_time, rows, size)


def _of_checkpoints(partitions: Sequence[AssignedPartition]) -> Iterator[Metric]:
    by = ["partition"]
    age = GaugeMetricFamily("thalweg_checkpoint_age_seconds", "Since the newest checkpoint was written.", labels=by)
    size = GaugeMetricFamily("thalweg_checkpoint_size_bytes", "Of the newest checkpoint.", labels=by)
    behind = GaugeMetricFamily("thalweg_checkpoint_pending_events", "Events folded since it.", labels=by)
    for each in partitions:
        if each.checkpoint_at is not None:
            age.add_metric([str(each.number)], max(0.0, time.time() - each.checkpoint_at))
            size.add_metric([str(each.number)], each.checkpoint_bytes)
        behind.add_metric([str(each.number)], each.events_since_checkpoint)
    yield from (age, size, behind)


def _of_lessons(lessons: SharedLessons, partitions: Sequence[AssignedPartition]) -> Iterator[Metric]:
    behind = GaugeMetricFamily(
        "thalweg_lessons_behind",
        "Lessons of a source that the partition furthest behind has not learned yet.",
        labels=["source"],
    )
    for source, count in lessons.behind().items():
        behind.add_metric([str(source)], count)
    age = GaugeMetricFamily("thalweg_merge_age_seconds", "Since a merge was folded last.", labels=["partition"])
    for each in partitions:
        if each.merged_at is not None:
            age.add_metric([str(each.number)], max(0.0, time.time() - each.merged_at))
    refused = CounterMetricFamily(
        "thalweg_lessons_refused", "Records on the topic of lessons that are none, or that others are missing before."
    )
    refused.add_metric([], lessons.refused)
    yield from (behind, age, refused)


def _of_progress(consumer: Consumer, committed: Callable[[int], int | None]) -> Iterator[Metric]:
    by = ["partition"]
    silence = GaugeMetricFamily("thalweg_broker_silence_seconds", "Since the brokers last answered the consumer.")
    silence.add_metric([], consumer.silence_s)
    # of a log that nobody tells the end of there is no lag to be known
    is_known = not consumer.is_silent
    lag = GaugeMetricFamily("thalweg_lag_records", "Records of the input that are not folded yet.", labels=by)
    pending = GaugeMetricFamily("thalweg_pending_bytes", "Records fetched and not folded yet.", labels=by)
    acknowledged = GaugeMetricFamily("thalweg_acknowledged_offset", "Next offset as told to Kafka.", labels=by)
    for each in consumer.progress():
        if is_known and each.opened and each.end is not None:
            lag.add_metric([str(each.partition)], max(0, each.end - each.folded))
        pending.add_metric([str(each.partition)], each.pending_bytes)
        offset = committed(each.partition) if each.acknowledged is None else each.acknowledged
        if offset is not None:
            acknowledged.add_metric([str(each.partition)], offset)
    yield from (lag, pending, acknowledged, silence)


def _of_questions(answered: Answered) -> Metric:
    found = CounterMetricFamily(
        "thalweg_questions", "HTTP requests answered, by route and status.", labels=["route", "status"]
    )
    for (route, status), count in sorted(dict(answered).items()):
        found.add_metric([route, str(status)], count)
    return found


def new_registry(scoring: Scoring, consumer: Consumer, answered: Answered = NONE_ANSWERED) -> CollectorRegistry:
    """Return a registry with the worker's metrics and those of its process."""
    from prometheus_client import ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(scoring, consumer, answered))
    ProcessCollector(registry=registry)
    return registry


class MetricsServer:
    """Answers `/metrics`, `/healthz` (it runs) and `/readyz` (its partitions are open, the brokers answer)."""

    def __init__(self, section: MetricsSection, registry: CollectorRegistry, consumer: Consumer) -> None:
        """Make it; `start` listens, unless the section says not to."""
        self._section, self._registry, self._consumer = section, registry, consumer
        self.address = ""

    def start(self) -> None:
        """Listen. Raises Refusal, naming the setting, where the port is taken."""
        if not self._section.enabled:
            return
        try:
            server = BoundedServer(self._section, self._handler())
        except OSError as error:
            raise Refusal(
                f"metrics can't listen on {self._section.host}:{self._section.port} ({error.strerror}): set "
                "metrics.port (0 for any that is free), or metrics.enabled=false"
            ) from None
        self.address = f"{self._section.host}:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return status, content type and body for a path."""
        plain = "text/plain; charset=utf-8"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/healthz":
            return 200, plain, b"ok\n"
        if path == "/readyz":
            why = self._why_unready()
            return (503, plain, why) if why else (200, plain, b"ready\n")
        return 404, plain, b"here are /metrics, /healthz and /readyz\n"

    def _why_unready(self) -> bytes:
        if self._consumer.is_silent:
            return b"no broker has answered for %.0f s\n" % self._consumer.silence_s
        progress = self._consumer.progress()
        if not progress:
            return b"no partitions yet\n"
        return b"" if all(each.opened for each in progress) else b"partitions are opening\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer."""
                self.wfile.write(self._head())

            def do_HEAD(self) -> None:
                """Answer without the body."""
                self._head()

            def _head(self) -> bytes:
                status, content_type, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Tell nothing: being asked is nothing to note."""

        return Handler


class BoundedServer(ThreadingHTTPServer):
    """A thread a connection, so many of them at a time, each for so long: idle and slow clients exhaust nothing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, section: MetricsSection, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen where the section says. Raises OSError where that can't be."""
        self._timeout_s, self._connections_max = section.timeout_ms / 1000, section.connections_max
        self._opened_at: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((section.host, section.port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a connection to a thread; one too many takes the place of the oldest."""
        with self._lock:
            while len(self._opened_at) >= self._connections_max:
                self._cut(next(iter(self._opened_at)))
            self._opened_at[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End connections whose time is over; called about twice a second."""
        over = time.monotonic() - self._timeout_s
        with self._lock:
            for request in [each for each, opened_at in self._opened_at.items() if opened_at < over]:
                self._cut(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection that was answered."""
        with self._lock:
            self._opened_at.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away; tell of what is wrong with us, in one line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            log.error("metrics: a request failed: %r", error)

    def _cut(self, request: socket.socket) -> None:
        """End a connection; its thread, which waits for it, closes it."""
        self._opened_at.pop(request, None)
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

"""What a worker tells of itself: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever starts and stops it.

The server has a thread of its own, so that it answers while the fold compiles, a checkpoint loads, or the event loop
hangs. Figures are read when they are asked for: nothing is counted for them while events are folded.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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
from thalweg.streams.worker.worker import AssignedPartition, Scoring

Progress = Callable[[], Sequence[PartitionProgress]]
Metric = CounterMetricFamily | GaugeMetricFamily
UNLEARNED = {"all": Tallied.CLOSED_UNLEARNED, "user": Tallied.OVER_USER_SHARE}
"""What closed or passed over an impression: a limit of all users, or one user's share of it."""


def rows_of(state: State) -> dict[str, int]:
    """Return how many rows of each operator are in use."""
    pools: dict[str, Pool] = {
        "table": state.features.pool,
        "users": state.users.pool,
        "joiner": state.waiting.pool,
        "feedback": state.waiting.feedbacks.pool,
        "sdim": state.behaviors.histories.pool,
    }
    return {name: int(pool.counts[Stock.EVER_USED] - pool.counts[Stock.FREED]) for name, pool in pools.items()}


class WorkerCollector(Collector):
    """Every metric of the partitions that a worker has; those that moved to another worker are that one's."""

    def __init__(self, scoring: Scoring, progress: Progress) -> None:
        """Read from a worker's handler, and from its consumer how far each partition is."""
        self._scoring, self._progress = scoring, progress

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics as they are now."""
        partitions = [each for _, each in sorted(self._scoring.partitions.copy().items())]
        yield from _of_events(partitions)
        yield from _of_checkpoints(partitions)
        yield from _of_progress(self._progress(), self._scoring.delivery.committed)


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
    stream_time = GaugeMetricFamily(
        "thalweg_stream_time_seconds", "Largest event time seen so far, since 1970.", labels=by
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
        stream_time.add_metric([number], int(state.clock.stream_time_ms[0]) / 1000)
        for operator, count in rows_of(state).items():
            rows.add_metric([number, operator], count)
        size.add_metric([number], state_bytes(state))
    yield from (events, letters, suppressed, unlearned, stream_time, rows, size)


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


def _of_progress(progress: Sequence[PartitionProgress], committed: Callable[[int], int | None]) -> Iterator[Metric]:
    by = ["partition"]
    lag = GaugeMetricFamily("thalweg_lag_records", "Records of the input that are not folded yet.", labels=by)
    pending = GaugeMetricFamily("thalweg_pending_bytes", "Records fetched and not folded yet.", labels=by)
    acknowledged = GaugeMetricFamily("thalweg_acknowledged_offset", "Next offset as told to Kafka.", labels=by)
    for each in progress:
        if each.opened and each.end is not None:
            lag.add_metric([str(each.partition)], max(0, each.end - each.folded))
        pending.add_metric([str(each.partition)], each.pending_bytes)
        offset = committed(each.partition) if each.acknowledged is None else each.acknowledged
        if offset is not None:
            acknowledged.add_metric([str(each.partition)], offset)
    yield from (lag, pending, acknowledged)


def new_registry(scoring: Scoring, progress: Progress) -> CollectorRegistry:
    """Return a registry with the worker's metrics and those of its process."""
    from prometheus_client import ProcessCollector

    registry = CollectorRegistry(auto_describe=False)
    registry.register(WorkerCollector(scoring, progress))
    ProcessCollector(registry=registry)
    return registry


class MetricsServer:
    """Answers `/metrics`, `/healthz` (this process runs) and `/readyz` (it has partitions, and all are open)."""

    def __init__(self, section: MetricsSection, registry: CollectorRegistry, progress: Progress) -> None:
        """Make it; `start` listens, unless the section says not to."""
        self._section, self._registry, self._progress = section, registry, progress
        self.address = ""

    def start(self) -> None:
        """Listen. Raises Refusal, naming the setting, where the port is taken."""
        if not self._section.enabled:
            return
        wanted = (self._section.host, self._section.port)
        try:
            server = ThreadingHTTPServer(wanted, self._handler())
        except OSError as error:
            raise Refusal(
                f"metrics can't listen on {self._section.host}:{self._section.port} ({error.strerror}): set "
                "metrics.port (0 for any that is free), or metrics.enabled=false"
            ) from None
        server.daemon_threads = True
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
            progress = self._progress()
            if progress and all(each.opened for each in progress):
                return 200, plain, b"ready\n"
            return 503, plain, b"no partitions yet\n" if not progress else b"partitions are opening\n"
        return 404, plain, b"here are /metrics, /healthz and /readyz\n"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                """Answer."""
                status, content_type, body = answer(self.path.partition("?")[0])
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Tell nothing: being asked is nothing to note."""

        return Handler

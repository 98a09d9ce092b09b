"""What a worker tells of itself over HTTP."""

import http.client
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from thalweg.streams.configuration.loading import MetricsSection
from thalweg.streams.kafka.partition_run import PartitionProgress
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.metrics import MetricsServer, WorkerCollector

from tests.kafka.scoring import Workers
from tests.kafka.test_worker import lines

Unique = Callable[[str], str]


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def samples(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by name and label values, the partition's first."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sorted(sample.labels, key=lambda label: label != "partition")
            found.setdefault(sample.name, {})[tuple(sample.labels[label] for label in labels)] = sample.value
    return found


@pytest.mark.broker
def test_a_worker_tells_its_figures(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Fates sum to the events, lag and checkpoint are those of the partition, and names are as Prometheus asks."""
    with Workers(broker, unique, tmp_path / "workers") as workers:
        workers.produce(lines(5000))
        worker = workers.start()
        workers.wait(lambda: workers.metrics_address(worker), "it listens")
        address = workers.metrics_address(worker)
        assert address is not None
        workers.wait(lambda: get(address, "/readyz") == (200, "ready\n"), "it is ready")
        assert get(address, "/healthz") == (200, "ok\n")
        assert get(address, "/")[0] == 404

        found: dict[str, dict[tuple[str, ...], float]] = {}

        def is_settled() -> bool:
            """All folded, in a checkpoint and acknowledged, seen in one reading: each comes true at its own moment."""
            found.clear()
            found.update(samples(get(address, "/metrics")[1]))
            none: dict[tuple[str, ...], float] = {}
            return (
                sum(found.get("thalweg_events_total", none).values()) == 5000
                and found.get("thalweg_checkpoint_pending_events") == {("0",): 0}
                and found.get("thalweg_acknowledged_offset") == {("0",): 5000}
                and found.get("thalweg_lag_records") == {("0",): 0}
            )

        workers.wait(is_settled, "all folded, in a checkpoint and acknowledged")
        scores, examples, letters, *_ = workers.expected(0)
        fates = found["thalweg_events_total"]
        assert {place for place, _ in fates} == {"0"}
        assert fates["0", "scored"] == len(scores)
        assert fates["0", "dead_lettered"] == len(letters) == sum(found["thalweg_dead_letters_total"].values())
        assert found["thalweg_dead_letters_total"]["0", "not_json"] == 1
        assert found["thalweg_suppressed_outputs_total"] == {("0",): 0}
        assert set(found["thalweg_unlearned_impressions_total"]) == {("0", "all"), ("0", "user")}
        assert 1_700_000_000 < found["thalweg_stream_time_seconds"]["0",] < 1_700_010_000
        assert 0 <= found["thalweg_checkpoint_age_seconds"]["0",] < 240
        newest = max((tmp_path / "workers" / "checkpoints").rglob("*.checkpoint"))
        assert found["thalweg_checkpoint_size_bytes"] == {("0",): newest.stat().st_size}
        rows = {operator: count for (_, operator), count in found["thalweg_state_rows"].items()}
        assert set(rows) == {"table", "users", "joiner", "feedback", "sdim", "facts"}
        assert 0 < rows["users"] <= 500
        assert found["thalweg_state_bytes"]["0",] > 0
        assert found["process_resident_memory_bytes"][()] > 0
        assert all(re.fullmatch(r"(thalweg|process)_[a-z_]+", name) for name in found)
        assert workers.stop(worker) == 0, workers.log(worker)
        assert len(examples) > 1000


class Consumer:
    """A worker's consumer that has these partitions, and heard of the brokers a moment ago."""

    def __init__(self, *opened: bool) -> None:
        self.opened = opened
        self.silence_s = 0.5
        self.is_silent = False

    def progress(self) -> list[PartitionProgress]:
        return [PartitionProgress(number, is_open, 90, None, 100, 0, 0) for number, is_open in enumerate(self.opened)]


class Handler:
    """What of a worker's handler the metrics of its progress ask."""

    partitions: ClassVar[dict[int, Any]] = {}
    lessons = None

    class delivery:  # noqa: N801
        committed = staticmethod(lambda partition: None)


@pytest.fixture
def serving() -> Callable[..., MetricsServer]:
    def serve(consumer: Consumer, **settings: int) -> MetricsServer:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(WorkerCollector(cast(Any, Handler()), consumer))
        server = MetricsServer(MetricsSection(port=0, **settings), registry, consumer)
        server.start()
        return server

    return serve


Serving = Callable[..., MetricsServer]


def test_readiness_waits_for_every_partition_and_for_the_brokers(serving: Serving) -> None:
    """A worker without partitions, with one that is opening, or that hears of no broker is healthy but not ready."""
    consumer = Consumer()
    address = serving(consumer).address
    assert get(address, "/readyz") == (503, "no partitions yet\n")
    assert get(address, "/healthz")[0] == 200
    consumer.opened = (True, False)
    assert get(address, "/readyz") == (503, "partitions are opening\n")
    consumer.opened = (True, True)
    assert get(address, "/readyz?x") == (200, "ready\n")
    assert samples(get(address, "/metrics")[1])["thalweg_lag_records"] == {("0",): 10, ("1",): 10}
    consumer.silence_s, consumer.is_silent = 12.3, True
    assert get(address, "/readyz") == (503, "no broker has answered for 12 s\n")
    found = samples(get(address, "/metrics")[1])
    assert "thalweg_lag_records" not in found
    assert found["thalweg_broker_silence_seconds"] == {(): 12.3}


def test_slow_and_idle_clients_exhaust_nothing(serving: Serving) -> None:
    """Idle connections beyond the limit cost the oldest its place; a client that dribbles is cut off in time."""
    address = serving(Consumer(), connections_max=4, timeout_ms=1_000).address
    host, port = address.split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(300)]
    threads = threading.active_count()
    assert get(address, "/healthz") == (200, "ok\n")
    assert threads < 50
    assert idle[0].recv(1) == b""
    slow = socket.create_connection((host, int(port)))
    started = time.monotonic()
    with suppress(ConnectionError), slow:
        while time.monotonic() - started < 10:
            slow.sendall(b"x")
            time.sleep(0.05)
    assert 0.9 < time.monotonic() - started < 3
    for each in idle:
        each.close()


def test_head_answers_without_a_body(serving: Serving) -> None:
    """HEAD gives status and length of what GET gives."""
    connection = http.client.HTTPConnection(serving(Consumer()).address)
    for path, status, length in (("/healthz", 200, "3"), ("/readyz", 503, "18")):
        connection.request("HEAD", path)
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Length"], answer.read()) == (status, length, b"")


def test_clients_that_go_away_are_passed_over(
    serving: Serving, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """A reset in the middle of a request or an answer writes nothing anywhere."""
    address = serving(Consumer(True)).address
    host, port = address.split(":")
    for request in (b"GET /metr", b"GET /metrics HTTP/1.0\r\n\r\n", b""):
        client = socket.create_connection((host, int(port)))
        client.sendall(request)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert get(address, "/healthz")[0] == 200
    time.sleep(0.2)
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_metrics_can_be_off_and_refuse_a_port_that_is_taken() -> None:
    """One setting turns it off; a taken port is a refusal that names the setting."""
    off = MetricsServer(MetricsSection(enabled=False), CollectorRegistry(), Consumer())
    off.start()
    assert off.address == ""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = MetricsServer(MetricsSection(port=other.getsockname()[1]), CollectorRegistry(), Consumer())
        with pytest.raises(Refusal, match=r"set metrics\.port"):
            taken.start()

"""What a worker tells of itself over HTTP."""

import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from thalweg.streams.configuration.loading import MetricsSection
from thalweg.streams.kafka.partition_run import PartitionProgress
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.metrics import MetricsServer

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
        scores, examples, letters = workers.expected(0)
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
        assert set(rows) == {"table", "users", "joiner", "feedback", "sdim"}
        assert 0 < rows["users"] <= 500
        assert found["thalweg_state_bytes"]["0",] > 0
        assert found["process_resident_memory_bytes"][()] > 0
        assert all(re.fullmatch(r"(thalweg|process)_[a-z_]+", name) for name in found)
        assert workers.stop(worker) == 0, workers.log(worker)
        assert len(examples) > 1000


def progress(*opened: bool) -> list[PartitionProgress]:
    return [PartitionProgress(number, is_open, 0, None, None, 0, 0) for number, is_open in enumerate(opened)]


def test_readiness_waits_for_every_partition() -> None:
    """A worker without partitions, or with one that is opening, is not ready, and healthy all the same."""
    told = progress()
    server = MetricsServer(MetricsSection(port=0), CollectorRegistry(), lambda: told)
    server.start()
    assert get(server.address, "/readyz") == (503, "no partitions yet\n")
    assert get(server.address, "/healthz")[0] == 200
    told = progress(True, False)
    assert get(server.address, "/readyz") == (503, "partitions are opening\n")
    told = progress(True, True)
    assert get(server.address, "/readyz?x") == (200, "ready\n")


def test_metrics_can_be_off_and_refuse_a_port_that_is_taken() -> None:
    """One setting turns it off; a taken port is a refusal that names the setting."""
    off = MetricsServer(MetricsSection(enabled=False), CollectorRegistry(), progress)
    off.start()
    assert off.address == ""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = MetricsServer(MetricsSection(port=other.getsockname()[1]), CollectorRegistry(), progress)
        with pytest.raises(Refusal, match=r"set metrics\.port"):
            taken.start()

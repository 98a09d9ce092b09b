"""How workers end, and what they say of themselves, where brokers are gone or topics change under them."""

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kafka.broker import Broker
from tests.kafka.scoring import Workers
from tests.kafka.test_metrics import get, samples
from tests.kafka.test_refusals import add_partition
from tests.kafka.test_worker import lines

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
SILENT_WITHIN_S = 15
ENDED_WITHIN_S = 25
REFUSED_WITHIN_S = 30


def ready(workers: Workers) -> str:
    """Start a worker and return where it answers, once it is ready and has folded all there is."""
    worker = workers.start()
    workers.wait(lambda: workers.metrics_address(worker), "it listens")
    address = workers.metrics_address(worker)
    assert address is not None
    workers.wait(lambda: get(address, "/readyz")[0] == 200, "it is ready")
    workers.wait(lambda: samples(get(address, "/metrics")[1]).get("thalweg_lag_records") == {("0",): 0}, "no lag")
    return address


def test_workers_end_without_their_brokers(own_broker: Broker, unique: Unique, tmp_path: Path) -> None:
    """In both modes brokers that are gone cost readiness and the lag within 15 s, and hold SIGTERM up below 25 s.

    What is folded is in no checkpoint then: the workers have something to wait for.
    """
    with ExitStack() as stack:
        fleets = [
            stack.enter_context(
                Workers(
                    own_broker.bootstrap_servers,
                    lambda name, mode=mode: unique(f"{mode}-{name}"),  # type: ignore[misc]
                    tmp_path / mode,
                    DELIVERY__MODE=mode,
                    CHECKPOINT__INTERVAL_MS=3_600_000,
                    # the outputs are not committed yet when the brokers go
                    DELIVERY__TRANSACTION_INTERVAL_MS=50_000,
                )
            )
            for mode in ("suppress", "transactional")
        ]
        for workers in fleets:
            workers.produce(lines(2_000))
        addresses = [ready(workers) for workers in fleets]
        own_broker.kill()
        stack.callback(own_broker.restart)
        killed_at = time.monotonic()
        while any(get(address, "/readyz")[0] == 200 for address in addresses):
            assert time.monotonic() - killed_at < SILENT_WITHIN_S
            time.sleep(0.2)
        for address in addresses:
            assert get(address, "/readyz")[1].startswith("no broker has answered for 1")
            assert "thalweg_lag_records" not in samples(get(address, "/metrics")[1])
        told_at = time.monotonic()
        for workers in fleets:
            workers.workers[0].send_signal(signal.SIGTERM)
        for workers in fleets:
            assert workers.workers[0].wait(60) == 1, workers.log(workers.workers[0])
            last = workers.log(workers.workers[0]).splitlines()[-1]
            assert last.startswith("Error: no broker has answered for"), last
        assert time.monotonic() - told_at < ENDED_WITHIN_S


def test_added_partitions_are_refused_soon(broker: str, unique: Unique, tmp_path: Path) -> None:
    """A running worker refuses its topic within 30 s of partitions being added to it, in one line."""
    with Workers(broker, unique, tmp_path / "workers") as workers:
        workers.produce(lines(2_000))
        ready(workers)
        [worker] = workers.workers
        workers.stopped.append(worker)
        add_partition(broker, workers.source)
        added_at = time.monotonic()
        assert worker.wait(60) == 1
        assert time.monotonic() - added_at < REFUSED_WITHIN_S
        assert "partition counts differ" in workers.log(worker).splitlines()[-1]

"""Whatever dies, hangs or comes back under load: readers get each output once, byte for byte, in both modes."""

import gc
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.kafka.broker import Broker
from tests.kafka.faults import SETTINGS, Difference, broker_kills, difference, kills, zombies
from tests.kafka.scoring import Workers

pytestmark = [pytest.mark.broker, pytest.mark.timeout(420)]
Unique = Callable[[str], str]
MODES = ("suppress", "transactional")
RATE = 1_000
"""Events a second: what is under way when something dies, without the work of `make soak`, which has 2 500."""


def faulted(servers: str, unique: Unique, folder: Path, mode: str) -> Workers:
    return Workers(servers, unique, folder / "workers", partitions=2, DELIVERY__MODE=mode, **SETTINGS)


@pytest.fixture(autouse=True)
def kafka_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Keep no tracebacks of connections that failed: the sockets in them would be collected within another test."""
    caplog.set_level(logging.CRITICAL, logger="kafka")


def tell(request: pytest.FixtureRequest, recoveries: Sequence[float]) -> None:
    """Have the run show how long readers waited until every partition's scores moved again."""
    request.node.user_properties.append(("recoveries_s", [round(each, 1) for each in recoveries]))


@pytest.mark.parametrize("mode", MODES)
def test_three_kills(broker: str, unique: Unique, tmp_path: Path, mode: str, request: pytest.FixtureRequest) -> None:
    """After each of three `kill -9` the next worker goes on exactly."""
    with faulted(broker, unique, tmp_path, mode) as workers:
        recoveries = kills(workers, 3, rate=RATE)
        tell(request, recoveries)
        assert difference(workers) == Difference()
        assert len(recoveries) == 3
        # the outputs behind a checkpoint were made again, and not sent again
        assert sum(workers.suppressed(workers.workers[-1])) >= 100


# kafka-python leaves sockets behind that did not connect; they are collected here, where nobody minds
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@pytest.mark.parametrize("mode", MODES)
def test_a_broker_dies_and_comes_back(
    own_broker: Broker, unique: Unique, tmp_path: Path, mode: str, request: pytest.FixtureRequest
) -> None:
    """The worker outlives its broker and goes on by itself."""
    with faulted(own_broker.bootstrap_servers, unique, tmp_path, mode) as workers:
        tell(request, broker_kills(workers, 1, broker=own_broker, rate=RATE))
        assert difference(workers) == Difference()
    gc.collect()


@pytest.mark.parametrize("mode", MODES)
def test_a_worker_that_was_stopped_past_its_session_wakes_up(
    broker: str, unique: Unique, tmp_path: Path, mode: str, request: pytest.FixtureRequest
) -> None:
    """Partitions move to a second worker meanwhile, and what the first does when it wakes up reaches no reader."""
    with faulted(broker, unique, tmp_path, mode) as workers:
        tell(request, zombies(workers, 1, rate=RATE))
        assert difference(workers) == Difference()

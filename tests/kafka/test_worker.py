"""The worker on a real broker: what it writes is the fold over each partition's log, whatever happens to it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from thalweg.streams.kafka.security import PASSWORD_VARIABLE

from examples.live.events import events
from tests.kafka.broker import PASSWORD, USERNAME, Broker
from tests.kafka.fleet import committed, delete_records, end_offsets
from tests.kafka.scoring import Workers

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]


def lines(count: int) -> list[bytes]:
    """A log with outcomes, dead letters and an erasure in it."""
    made = [line.rstrip(b"\n") for line in events(count)]
    for number in range(1, count, 997):
        made[number] = b'{"type": "impression", "user": "u%d", "n": %d}' % (number % 500, number)
    made[count // 2] = b"not an event"
    made[count // 3] = made[count // 3 - 1].replace(b'"item"', b'"things"')
    return made


def assert_exact(workers: Workers, partitions: int) -> None:
    """Readers get, of every output topic and partition, what the fold over the partition's log gives."""
    for number in range(partitions):
        written, _ = workers.written(number)
        expected = workers.expected(number)
        assert [len(kind) for kind in written] == [len(kind) for kind in expected]
        assert written == expected
        assert len(expected[0]) > 1000
        assert len(expected[1]) > 1000


def wait_for_all(workers: Workers, servers: str, partitions: int, seconds: float = 120) -> None:
    ends = end_offsets(servers, workers.source, partitions)
    workers.wait(
        lambda: committed(servers, workers.group, workers.source) == {p: end for p, end in ends.items() if end},
        "everything acknowledged",
        seconds,
    )


def test_rebalance_from_one_to_two_to_one(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Partitions that move to a second worker and back under load lose, double and change nothing."""
    with Workers(broker, unique, tmp_path / "workers", partitions=4) as workers:
        log = lines(40_000)
        first = workers.start()
        workers.produce(log[:10_000])
        workers.wait(lambda: len(committed(broker, workers.group, workers.source)) == 4, "all acknowledged once")
        second = workers.start()
        workers.wait(lambda: "joining group" in workers.log(second), "the second worker is about to join")
        producing = workers.producing(log[10_000:30_000], 3000)
        workers.wait(lambda: len(workers.opened(second)) == 2, "the second worker has two partitions")
        assert min(workers.opened(second).values()) > 0
        producing.join()
        wait_for_all(workers, broker, 4)
        late = workers.producing(log[30_000:], 3000)
        assert workers.stop(second) == 0, workers.log(second)
        late.join()
        wait_for_all(workers, broker, 4)
        assert workers.stop(first) == 0, workers.log(first)
        assert set(workers.suppressed(first) + workers.suppressed(second)) == {0}
        assert_exact(workers, 4)
        assert [workers.written(number)[1] for number in range(4)] == [0] * 4


def test_a_clean_restart_suppresses_nothing(broker: str, unique: Unique, tmp_path: Path) -> None:
    """After SIGTERM all is in the checkpoint and acknowledged: the next worker starts there and suppresses nothing."""
    with Workers(broker, unique, tmp_path / "workers", CHECKPOINT__INTERVAL_MS=3_600_000) as workers:
        workers.produce(lines(8000))
        first = workers.start("faust")
        workers.wait(lambda: end_offsets(broker, workers.loaded.topics.scores, 1)[0] > 3000, "scores")
        assert workers.stop(first) == 0, workers.log(first)
        stopped_at = committed(broker, workers.group, workers.source)
        second = workers.start()
        workers.wait(lambda: workers.opened(second), "the partition is open")
        assert workers.opened(second) == stopped_at
        workers.produce(lines(9000)[8000:])
        workers.wait(lambda: len(workers.written(0)[0][0]) == len(workers.expected(0)[0]), "all scored")
        assert workers.stop(second) == 0, workers.log(second)
        assert workers.suppressed(first) == workers.suppressed(second) == [0]
        assert ":6066" not in workers.log(first), "Faust's own web server runs"
        assert committed(broker, workers.group, workers.source) == end_offsets(broker, workers.source, 1)
        assert_exact(workers, 1)
        assert workers.written(0)[1] == 0


def test_over_sasl_ssl(own_broker: Broker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose every client must log in over TLS writes the same, and tells nobody its password."""
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    secured = {
        "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA__SASL_MECHANISM": "SCRAM-SHA-256",
        "KAFKA__SASL_USERNAME": USERNAME,
        "KAFKA__SSL_CA_FILE": str(own_broker.certificate),
    }
    with Workers(own_broker.secure_bootstrap_servers, unique, tmp_path / "workers", **secured) as workers:
        workers.produce(lines(6000))
        worker = workers.start()
        workers.wait(lambda: workers.opened(worker), "the partition is open")
        workers.wait(
            lambda: committed(own_broker.bootstrap_servers, workers.group, workers.source) == {0: 6000}, "all folded"
        )
        assert workers.stop(worker) == 0, workers.log(worker)
        assert PASSWORD not in workers.log(worker)
        workers.environ["THALWEG_KAFKA__BOOTSTRAP_SERVERS"] = own_broker.bootstrap_servers
        assert_exact(workers, 1)


def test_absent_topics_are_refused(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Both ways to start a worker end with status 1 and one line that names the command to run."""
    workers = Workers(broker, unique, tmp_path)
    for by in ("thalweg, started", "faust"):
        worker = workers.start(by)
        assert worker.wait(120) == 1
        last = workers.log(worker).splitlines()[-1]
        assert last.startswith("Error: topics are not there: ")
        assert last.endswith("run `thalweg topics create` first")
        assert "Traceback" not in workers.log(worker)


def test_a_refusal_on_the_way_ends_with_one_line(broker: str, unique: Unique, tmp_path: Path) -> None:
    """What is refused when a partition is opened ends a running worker in order, with status 1 and one line."""
    with Workers(broker, unique, tmp_path / "workers") as workers:
        workers.produce(lines(2000))
        delete_records(broker, workers.source, 0, 500)
        for by in ("thalweg, started", "faust"):
            worker = workers.start(by)
            assert worker.wait(120) == 1, workers.log(worker)
            last = workers.log(worker).splitlines()[-1]
            assert last.startswith("Error: there is no checkpoint in ")
            assert f"{workers.source}-0 starts at offset 500 by now" in last
            assert "Traceback" not in workers.log(worker)
        assert committed(broker, workers.group, workers.source) == {}

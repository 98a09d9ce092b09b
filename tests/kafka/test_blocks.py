"""Blocks of records from Faust: nothing lost, nothing twice, committed where the application said."""

import json
import signal
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaProducer
from thalweg.streams.kafka.partition_run import RECORD_OVERHEAD_BYTES, BlockLimits, cut

from tests.kafka.fleet import (
    Fleet,
    committed,
    delete_records,
    end_offsets,
    expected_state,
    log_of,
    make_topic,
    send,
    wait_until,
    within,
)

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]


def events(partitions: int, count: int, tag: str = "") -> dict[int, list[bytes]]:
    return {
        number: [b'{"n": "%d/%d%b"}' % (number, n, tag.encode()) for n in range(count)] for number in range(partitions)
    }


class Sized:
    """As much of a consumer's record as cutting looks at."""

    def __init__(self, offset: int, size: int) -> None:
        self.offset, self.serialized_key_size, self.serialized_value_size = offset, -1, size
        self.headers = (("name", b"value"),)


def test_blocks_are_cut_by_count_and_by_bytes() -> None:
    """No block has more records or bytes than allowed, but for a single record that is larger, and none is missing."""
    limits = BlockLimits(block_records_max=10, block_bytes_max=RECORD_OVERHEAD_BYTES * 5 + 1000)
    records = [Sized(n, 5000 if n % 17 == 0 else 100) for n in range(100)]
    blocks = list(cut(records, limits))
    assert [record.offset for block, _ in blocks for record in block] == list(range(100))
    for block, block_bytes in blocks:
        assert len(block) <= 10
        assert block_bytes <= limits.block_bytes_max or len(block) == 1


def test_clean_stop_commits_all_that_was_folded(broker: str, unique: Unique, tmp_path: Path) -> None:
    """After SIGTERM every record was folded once, and the committed offsets are the ends of the partitions."""
    source = unique("stop")
    make_topic(broker, source, 4)
    send(broker, source, events(4, 3000))
    with Fleet(broker, source, tmp_path / "fleet") as fleet:
        worker = fleet.start()
        wait_until(lambda: fleet.folded() == 12_000, "all events folded")
        assert fleet.stop(worker) == 0, fleet.log(worker)
        assert fleet.states() == {number: expected_state(log_of(broker, source, number)) for number in range(4)}
        assert committed(broker, fleet.group, source) == end_offsets(broker, source, 4)
        assert fleet.journal("shutdown") == [(worker.pid, 0, 0)]


def test_kill_loses_and_doubles_nothing(broker: str, unique: Unique, tmp_path: Path) -> None:
    """After `kill -9` under load no offset above the checkpoints is committed, and a new worker goes on exactly."""
    source = unique("kill")
    make_topic(broker, source, 2)
    send(broker, source, events(2, 15_000))
    with Fleet(broker, source, tmp_path / "fleet", seconds_per_block=0.5, checkpoint_records=2000) as fleet:
        worker = fleet.start()
        wait_until(lambda: committed(broker, fleet.group, source), "something committed")
        fleet.stop(worker, signal.SIGKILL)
        states = fleet.states()
        for number, offset in committed(broker, fleet.group, source).items():
            assert 0 < offset <= states[number]["next"] < 15_000
        second = fleet.start()
        wait_until(lambda: fleet.folded() == 30_000, "the rest folded")
        assert fleet.stop(second) == 0, fleet.log(second)
        assert fleet.states() == {number: expected_state(log_of(broker, source, number)) for number in range(2)}
        assert committed(broker, fleet.group, source) == end_offsets(broker, source, 2)


def test_rebalance_from_one_to_two_to_one(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Partitions that move to a second worker and back under load go on exactly where they were closed."""
    source = unique("rebalance")
    make_topic(broker, source, 4)
    send(broker, source, events(4, 12_000))
    with Fleet(broker, source, tmp_path / "fleet", seconds_per_block=0.6) as fleet:
        first = fleet.start()
        wait_until(lambda: fleet.folded() > 2000, "the first worker folds")
        second = fleet.start()
        wait_until(
            lambda: len({partition for pid, partition, _ in fleet.journal("open") if pid == second.pid}) == 2,
            "the second worker has two partitions",
        )
        moved_at = fleet.folded()
        wait_until(lambda: fleet.folded() > moved_at + 4000, "both fold")
        assert fleet.stop(second) == 0, fleet.log(second)
        send(broker, source, events(4, 1000, "late"))
        wait_until(lambda: fleet.folded() == 52_000, "all events folded")
        assert fleet.stop(first) == 0, fleet.log(first)
        assert fleet.states() == {number: expected_state(log_of(broker, source, number)) for number in range(4)}
        assert committed(broker, fleet.group, source) == end_offsets(broker, source, 4)
        closed: dict[int, int] = {}
        for what in (tmp_path / "fleet" / "journal").read_text().splitlines():
            _, kind, partition, offset = what.split()
            if kind == "close":
                closed[int(partition)] = int(offset)
            elif kind == "open":
                assert closed.get(int(partition), 0) == int(offset)


def test_a_paused_worker_wakes_up(broker: str, unique: Unique, tmp_path: Path) -> None:
    """A worker that slept through its session gives up what it had, moves no offset back, and takes part again."""
    source = unique("paused")
    make_topic(broker, source, 2)
    send(broker, source, events(2, 6000))
    with Fleet(broker, source, tmp_path / "fleet", seconds_per_block=0.6) as fleet:
        first = fleet.start()
        wait_until(lambda: fleet.folded() > 1000, "the first worker folds")
        first.send_signal(signal.SIGSTOP)
        second = fleet.start()
        wait_until(lambda: fleet.folded() == 12_000, "the second worker took over")
        wait_until(lambda: committed(broker, fleet.group, source) == {0: 6000, 1: 6000}, "all committed")
        first.send_signal(signal.SIGCONT)
        # both open one partition at the same time, in either order
        again = [(first.pid, number, 6000) for number in range(2)]
        wait_until(lambda: set(fleet.journal("open")) & set(again), "the first worker has a partition again")
        assert committed(broker, fleet.group, source) == {0: 6000, 1: 6000}
        send(broker, source, events(2, 100, "late"))
        wait_until(lambda: fleet.folded() == 12_200, "all events folded")
        assert [fleet.stop(worker) for worker in (first, second)] == [0, 0]
        assert fleet.states() == {number: expected_state(log_of(broker, source, number)) for number in range(2)}
        assert committed(broker, fleet.group, source) == end_offsets(broker, source, 2)


def write_transactions(servers: str, topic: str, writer: str) -> None:
    """Twelve transactions of seven records, every third aborted."""
    with closing(KafkaProducer(bootstrap_servers=servers, transactional_id=writer)) as producer:
        producer.init_transactions()
        for number in range(12):
            producer.begin_transaction()
            for n in range(7):
                producer.send(topic, value=b'{"n": "%d/%d"}' % (number, n), partition=0)
            producer.flush()
            (producer.abort_transaction if number % 3 == 2 else producer.commit_transaction)()


def test_holes_in_the_log(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Transaction markers, aborted transactions and a log that starts late are passed over, committed to the end."""
    source = unique("holes")
    make_topic(broker, source, 1)
    send(broker, source, events(1, 50))
    delete_records(broker, source, 0, 20)
    within(60, "writing transactions", lambda: write_transactions(broker, source, unique("writer")))
    with Fleet(broker, source, tmp_path / "fleet", checkpoint_records=10) as fleet:
        worker = fleet.start()
        wait_until(lambda: fleet.folded() == 30 + 8 * 7, "all committed events folded")
        log = log_of(broker, source, 0)
        assert fleet.stop(worker) == 0, fleet.log(worker)
        assert fleet.states() == {0: expected_state(log)}
        assert committed(broker, fleet.group, source) == {0: log[-1][0] + 1}
        send(broker, source, {0: [b"after"]})
        second = fleet.start()
        wait_until(lambda: fleet.folded() == len(log) + 1, "the event after the holes folded")
        assert fleet.stop(second) == 0, fleet.log(second)
        assert committed(broker, fleet.group, source) == end_offsets(broker, source, 1)


def test_pending_bytes_are_bounded(broker: str, unique: Unique, tmp_path: Path) -> None:
    """What waits to be folded stays under its bound plus one fetch, and unacknowledged blocks do not stall it."""
    source = unique("pressure")
    make_topic(broker, source, 1)
    send(broker, source, {0: [b'"%b"' % (b"x" * 1000)] * 20_000}, compression_type=None)
    bound = 1 << 20
    options = {"pending_bytes_max": bound, "seconds_per_block": 0.02, "checkpoint_records": 1_000_000}
    with Fleet(broker, source, tmp_path / "fleet", **options) as fleet:
        worker = fleet.start()
        # only `idle`, at the end, takes a checkpoint
        wait_until(lambda: fleet.folded() == 20_000, "all events folded")
        assert fleet.stop(worker) == 0, fleet.log(worker)
        fetch_records = (1 << 20) // 1000
        most = int((fleet.folder / "pending").read_text())
        assert bound / 4 < most < bound + fetch_records * (RECORD_OVERHEAD_BYTES + 1003)


def test_a_failing_fold_ends_the_worker(broker: str, unique: Unique, tmp_path: Path) -> None:
    """An exception in one partition ends the process with a failure and commits nothing of it; others are closed."""
    source = unique("failing")
    make_topic(broker, source, 2)
    send(broker, source, {1: events(2, 100)[1]})
    with Fleet(broker, source, tmp_path / "fleet", fail_at=2500, checkpoint_records=1_000_000) as fleet:
        worker = fleet.start()
        # only `idle`, behind all of its events, takes a checkpoint: the other partition stands at 100 from then on
        wait_until(lambda: fleet.folded() == 100, "the other partition folded")
        send(broker, source, {0: events(1, 3000)[0]})
        assert worker.wait(90) != 0
        assert "the fold fails at 2500" in fleet.log(worker)
        assert [(partition, offset) for _, partition, offset in fleet.journal("close")] == [(1, 100)]
        # where sending pauses, an idle moment takes a checkpoint of what was folded until then, and of no more
        idle = [offset for _, partition, offset in fleet.journal("idle") if partition == 0]
        found = committed(broker, fleet.group, source)
        assert found.pop(1) == 100
        assert found in ({}, *({0: offset} for offset in idle if offset <= 2500))
        assert fleet.journal("shutdown") == [(worker.pid, 0, 0)]


def test_lost_input_ends_the_worker(broker: str, unique: Unique, tmp_path: Path) -> None:
    """A checkpoint below the log's start is not passed over in silence."""
    source = unique("truncated")
    make_topic(broker, source, 1)
    send(broker, source, events(1, 1000))
    with Fleet(broker, source, tmp_path / "fleet") as fleet:
        (fleet.folder / "0.json").write_text(json.dumps({"next": 300, "count": 300, "checksum": 0}))
        delete_records(broker, source, 0, 500)
        worker = fleet.start()
        assert worker.wait(90) != 0
        assert "starts at offset 500 now, but 300 was not read yet" in fleet.log(worker)
        assert fleet.folded() == 300

"""What a worker refuses to go on from, and what it goes on from exactly: calls of its handler, no process."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import NewPartitions
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import FORMAT, MAGIC, Checkpoint, CheckpointStore, Identity, header_of
from thalweg.streams.kafka.partition_run import LogBounds
from thalweg.streams.kafka.topics import create
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.worker import Scoring

from tests.kafka.fleet import administered, committed, delete_records, end_offsets, wait_until
from tests.kafka.scoring import Workers
from tests.kafka.test_worker import lines

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
EVENTS, HALF = 3_000, 1_500


class Once:
    """One partition's worker without a process: opened, fed with what is in the log, and closed or left for dead."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def run(self, until: int | None = None, *, die: str = "") -> int:
        """Go on up to an offset; return where it started. `die`: what to die before, "checkpoint" or "flush"."""
        return asyncio.run(self._run(until, die))

    async def _run(self, until: int | None, die: str) -> int:
        workers = self.workers
        scoring = Scoring(workers.loaded, log=logging.getLogger("test"))
        try:
            records = workers.records_of(workers.source, 0)
            bounds = LogBounds(records[0].offset, records[-1].offset + 1) if records else LogBounds(0, 0)
            start = await scoring.open(0, bounds)
            records = [record for record in records if start <= record.offset < (until or bounds.end)]
            for first in range(0, len(records), 500):
                await scoring.fold(0, records[first : first + 500])
            if die == "checkpoint":
                await scoring.delivery.commit(0, scoring.partitions[0].next_offset)
                await scoring.delivery.flush(0)
            if not die:
                await scoring.close(0)
            return start
        finally:
            await scoring.stop()


@pytest.fixture
def workers(broker: str, unique: Unique, tmp_path: Path) -> Iterator[Workers]:
    with Workers(broker, unique, tmp_path / "workers", CHECKPOINT__INTERVAL_MS=3_600_000) as made:
        made.produce(lines(EVENTS))
        yield made


def checkpoints(workers: Workers) -> list[Path]:
    return sorted(Path(workers.loaded.checkpoint.directory).rglob("*.checkpoint"))


def make_anew(workers: Workers, topic: str) -> None:
    """Delete a topic and create it again, empty."""
    servers = workers.loaded.kafka.bootstrap_servers

    def is_made() -> bool:
        try:
            return create(workers.loaded.kafka, workers.loaded.topics) == [topic]
        except Refusal:
            return False  # the brokers are not done with deleting it

    administered(servers, "deleting the topic", lambda admin: admin.delete_topics([topic]))
    wait_until(lambda: partitions_of(servers, topic) == 0, "the topic is gone")
    wait_until(is_made, "the topic is created again")


def partitions_of(servers: str, topic: str) -> int:
    """As many as the brokers tell of, 0 where they know no such topic."""
    told = administered(servers, "describing the topic", lambda admin: admin.describe_topics([topic])[0])
    return 0 if told["error_code"] else len(told["partitions"])


def add_partition(servers: str, topic: str) -> None:
    administered(servers, "adding a partition", lambda admin: admin.create_partitions({topic: NewPartitions(2)}))
    wait_until(lambda: partitions_of(servers, topic) == 2, "the partition is there")


MODES = ("suppress", "transactional")


@pytest.mark.parametrize("mode", MODES)
def test_dying_at_any_step_loses_and_doubles_nothing(workers: Workers, mode: str) -> None:
    """Death before the deliveries are awaited, before the checkpoint and after it leaves the same to readers."""
    workers.environ["THALWEG_DELIVERY__MODE"] = mode
    once = Once(workers)
    assert once.run(500) == 0
    assert once.run(HALF, die="flush") == 500
    assert once.run(HALF + 500, die="checkpoint") == 500
    assert once.run(HALF + 700) == 500
    checkpoints(workers)[-1].unlink()
    assert once.run() == 500
    assert once.run() == EVENTS
    assert workers.written(0) == (workers.expected(0), 0)


def test_a_damaged_checkpoint_is_passed_over(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """The newest checkpoint that is whole is the one to go on from, and the damaged one is spoken of."""
    once = Once(workers)
    once.run(500)
    once.run(1000)
    newest = checkpoints(workers)[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert once.run() == 500
    assert f"{newest} is damaged" in caplog.text
    assert workers.written(0) == (workers.expected(0), 0)


def test_a_lost_checkpoint_folder_costs_time_only(workers: Workers) -> None:
    """Where the log still starts at 0 the worker folds it again, and sends nothing that is on the topics."""
    once = Once(workers)
    once.run(HALF)
    for path in checkpoints(workers):
        path.unlink()
    assert once.run() == 0
    assert workers.written(0) == (workers.expected(0), 0)


def test_only_the_newest_checkpoints_stay(workers: Workers) -> None:
    """As many checkpoints stay as are to be kept."""
    once = Once(workers)
    for until in range(500, 3_000, 500):
        once.run(until)
    assert [int(path.stem) for path in checkpoints(workers)] == [1500, 2000, 2500]


def test_input_that_retention_ate_is_refused(workers: Workers, broker: str) -> None:
    """A log that starts behind the checkpoint, or late without one, is not gone on with."""
    once = Once(workers)
    once.run(500)
    delete_records(broker, workers.source, 0, 1000)
    with pytest.raises(Refusal, match=r"starts at offset 1000 by now, but the newest checkpoint .* resumes at 500"):
        once.run()
    checkpoints(workers)[0].unlink()
    with pytest.raises(Refusal, match=r"there is no checkpoint in .* starts at offset 1000 by now"):
        once.run()


def test_damaged_checkpoints_only_are_refused(workers: Workers) -> None:
    """Where no checkpoint is whole nothing is guessed."""
    once = Once(workers)
    once.run(500)
    checkpoints(workers)[0].write_bytes(b"thalweg checkpoint\n")
    with pytest.raises(Refusal, match=r"every checkpoint in .* is damaged"):
        once.run()


def test_a_checkpoint_ahead_of_the_log_is_refused(workers: Workers) -> None:
    """A log that ends before the checkpoint is another one."""
    once = Once(workers)
    once.run()
    make_anew(workers, workers.source)
    with pytest.raises(Refusal, match=f"resumes at offset {EVENTS}, ahead of .* which ends at 0"):
        once.run()


def test_a_log_that_is_another_one_is_refused(workers: Workers) -> None:
    """Input created again and grown past the checkpoint is refused for its last record, or for uncaused outputs."""
    once = Once(workers)
    once.run()
    make_anew(workers, workers.source)
    workers.produce(lines(EVENTS + 10)[10:])
    with pytest.raises(Refusal, match=f"the record before offset {EVENTS} .* is not the one"):
        once.run()
    make_anew(workers, workers.source)
    checkpoints(workers)[0].unlink()
    with pytest.raises(Refusal, match="the input topic was created again; give it new output topics"):
        once.run()


def test_an_output_end_that_went_backwards_is_refused(workers: Workers) -> None:
    """An output topic that lost what the checkpoint saw in it is not written on."""
    once = Once(workers)
    once.run()
    make_anew(workers, workers.loaded.topics.scores)
    with pytest.raises(Refusal, match=r"ends at offset 0, but [0-9]+ was reached before"):
        once.run()


def test_another_number_of_partitions_is_refused(workers: Workers, broker: str) -> None:
    """Users move when partitions are added, so the state no longer fits them; outputs need as many as the input."""
    once = Once(workers)
    once.run()
    add_partition(broker, workers.source)
    with pytest.raises(Refusal, match="the topics' partition counts differ"):
        once.run()
    for topic in workers.loaded.topics.outputs:
        add_partition(broker, topic)
    workers.environ["THALWEG_TOPICS__PARTITIONS"] = "2"
    with pytest.raises(Refusal, match="is of a topic with 1 partitions, which has 2 now"):
        once.run()


def test_another_configuration_is_refused(workers: Workers) -> None:
    """A state is of the configuration that made it, and the refusal names the value that differs."""
    once = Once(workers)
    once.run()
    workers.environ["THALWEG_TABLE__ROWS_LIMIT"] = "8192"
    with pytest.raises(Refusal, match=r"table.rows_limit = 4096, which is 8192 now"):
        once.run()


def test_a_folder_that_takes_no_checkpoint_is_refused(workers: Workers) -> None:
    """Nothing is acknowledged that could not be written down."""
    folder = Path(workers.loaded.checkpoint.directory)
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    with pytest.raises(Refusal, match=r"can't be used|can be written"):
        Once(workers).run(500)
    assert end_offsets(workers.loaded.kafka.bootstrap_servers, workers.source, 1) == {0: EVENTS}


def test_the_mode_can_change_at_any_step(workers: Workers) -> None:
    """A partition goes on exactly in the other mode, wherever the last worker died."""
    once = Once(workers)
    for step, (die, mode) in enumerate(product(("", "flush", "checkpoint"), MODES), 1):
        workers.environ["THALWEG_DELIVERY__MODE"] = mode
        once.run(400 * step, die=die)
    workers.environ["THALWEG_DELIVERY__MODE"] = "suppress"
    once.run()
    workers.environ["THALWEG_DELIVERY__MODE"] = "transactional"
    assert workers.written(0) == (workers.expected(0), 0)


def test_what_a_dead_transactional_worker_left_open_is_not_taken_for_written(workers: Workers) -> None:
    """A worker in the other mode ends the transaction that nobody else would, and sends again what was in it."""

    workers.environ |= {"THALWEG_DELIVERY__MODE": "transactional", "THALWEG_DELIVERY__TRANSACTION_INTERVAL_MS": "50000"}
    left = workers.loaded
    assert left.delivery.transaction_interval_ms == 50_000

    async def scenario() -> None:
        scoring = Scoring(left, log=logging.getLogger("test"))
        await scoring.open(0, LogBounds(0, EVENTS))
        await scoring.fold(0, (await asyncio.to_thread(workers.records_of, workers.source, 0))[:500])
        await scoring.delivery.flush(0)
        workers.environ["THALWEG_DELIVERY__MODE"] = "suppress"
        await asyncio.to_thread(Once(workers).run)
        assert await scoring.close(0) is None  # taken over: no checkpoint, nothing acknowledged
        await scoring.stop()

    asyncio.run(scenario())
    workers.environ["THALWEG_DELIVERY__MODE"] = "transactional"
    assert workers.written(0) == (workers.expected(0), 0)


def test_a_replays_checkpoint_ahead_of_what_was_emitted_is_refused(workers: Workers) -> None:
    """Outputs between the group's offset and a replay's checkpoint are nowhere: the refusal says what to do."""
    workers.environ["THALWEG_DELIVERY__MODE"] = "transactional"
    once = Once(workers)
    once.run(500)
    for path in checkpoints(workers):
        path.unlink()
    replayed(workers, 800)
    with pytest.raises(Refusal, match=r"is a replay's and resumes at offset 800 .* up to 500 only: remove it"):
        once.run()
    for path in checkpoints(workers):
        path.unlink()
    assert once.run() == 0
    assert workers.written(0) == (workers.expected(0), 0)


def replayed(workers: Workers, until: int) -> None:
    """Leave the checkpoint that a replay of the log's beginning leaves: it knows of no output topic."""
    topics = workers.loaded.topics
    fold = Partition(workers.configuration, topic=workers.source, partitions=topics.partitions)
    records = workers.records_of(workers.source, 0)[:until]
    fold.process(records)
    identity = Identity(workers.source, 0, workers.configuration, topics.partitions)
    header = header_of(identity, until, fold.digest(), last_record=records[-1].value)
    store = CheckpointStore(Path(workers.loaded.checkpoint.directory) / f"{workers.source}-0")
    store.save(Checkpoint(header, fold.snapshot()))


@pytest.mark.parametrize("lost", ["expired", "reset"])
def test_a_lost_group_offset_loses_and_doubles_nothing(workers: Workers, lost: str) -> None:
    """Where the group's offset is gone, or was set back, a worker's checkpoint and the topics tell what was emitted."""
    workers.environ["THALWEG_DELIVERY__MODE"] = "transactional"
    once = Once(workers)
    once.run(500)
    assert once.run(900, die="checkpoint") == 500
    place = TopicPartition(workers.source, 0)
    servers = workers.loaded.kafka.bootstrap_servers
    if lost == "expired":
        ask = lambda admin: admin.delete_group_offsets(workers.group, [place])  # noqa: E731
    else:
        ask = lambda admin: admin.alter_group_offsets(workers.group, {place: OffsetAndMetadata(100, "", -1)})  # noqa: E731
    administered(servers, "losing the offset", ask)
    assert once.run() == 500
    assert workers.written(0) == (workers.expected(0), 0)
    assert committed(servers, workers.group, workers.source) == {0: EVENTS}


def test_a_group_offset_ahead_of_the_log_is_refused(workers: Workers) -> None:
    """A group that has done with more than there is was another log's."""
    workers.environ["THALWEG_DELIVERY__MODE"] = "transactional"
    place = {TopicPartition(workers.source, 0): OffsetAndMetadata(EVENTS + 1, "", -1)}
    servers = workers.loaded.kafka.bootstrap_servers
    administered(servers, "moving the offset", lambda admin: admin.alter_group_offsets(workers.group, place))
    with pytest.raises(Refusal, match=f"offset {EVENTS + 1} of .* ends at {EVENTS}: the input topic was created"):
        Once(workers).run()


def first_store(workers: Workers) -> Any:
    return store_at(workers.loaded.checkpoint, workers.source, 0)


def test_what_no_fold_left_is_refused(workers: Workers) -> None:
    """A crafted state, one of another application, and a newer format are refused, and none is passed over."""
    once = Once(workers)
    once.run(500)
    once.run(1000)
    store = first_store(workers)
    whole = store.read(store.paths()[0])
    rows = whole.arrays["features_seen.row"].copy()
    rows[:] = 1 << 30
    store.save(Checkpoint(whole.header, whole.arrays | {"features_seen.row": rows}))
    with pytest.raises(Refusal, match=r"features_seen\.row has numbers outside of .*rebuild from the log into another"):
        once.run()
    header = msgspec.structs.replace(whole.header, application="another")
    store.save(Checkpoint(header, whole.arrays))
    with pytest.raises(Refusal, match="belongs to application 'another', not 'thalweg': name another folder"):
        once.run()
    path = store.save(whole)
    content = bytearray(path.read_bytes()[:-32])
    content[len(MAGIC)] = FORMAT + 1
    path.write_bytes(content + hashlib.sha256(content).digest())
    with pytest.raises(Refusal, match=r"has format 2, this version reads up to 1: install the Thalweg"):
        once.run()
    store.save(whole)
    assert once.run() == 1000
    assert workers.written(0) == (workers.expected(0), 0)


def test_checkpoints_in_an_object_store_are_gone_on_from(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    """Death at any step with checkpoints under a URL loses and doubles nothing; a torn file is passed over."""
    workers.environ["THALWEG_CHECKPOINT__DIRECTORY"] = f"memory://{workers.source}/checkpoints"
    once = Once(workers)
    assert once.run(500) == 0
    assert once.run(HALF, die="flush") == 500
    assert once.run(HALF, die="checkpoint") == 500
    assert once.run(HALF) == 500
    store = first_store(workers)
    newest, before = store.paths()
    store._files.pipe_file(f"{store._folder}/{store._manifest(newest).file}", b"torn")
    assert once.run(HALF + 500) == int(before.stem) == 500
    assert "which has 4: passed over" in caplog.text
    assert once.run() == HALF + 500
    assert workers.written(0) == (workers.expected(0), 0)
    assert len(first_store(workers).paths()) == 3


def test_an_object_store_that_takes_no_checkpoint_is_refused(workers: Workers) -> None:
    """A URL that nobody knows, or a store that is away, ends the worker in one line without what opens it."""
    workers.environ["THALWEG_CHECKPOINT__DIRECTORY"] = "nosuch://key:s3cr3t@host/x"
    with pytest.raises(Refusal, match=r"nosuch://\*\*\*@host/x") as refused:
        Once(workers).run(500)
    assert "s3cr3t" not in str(refused.value)

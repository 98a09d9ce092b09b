"""What a worker refuses to go on from, and what it goes on from exactly: calls of its handler, no process."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import NewPartitions

from streams.commands import Refusal
from streams.partition_run import LogBounds
from streams.topics import create
from streams.worker import Scoring
from tests.kafka.fleet import administered, delete_records, end_offsets, wait_until
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
    wait_until(is_made, "the topic is made anew")


def partitions_of(servers: str, topic: str) -> int:
    """As many as the brokers tell of, 0 where they know no such topic."""
    told = administered(servers, "describing the topic", lambda admin: admin.describe_topics([topic])[0])
    return 0 if told["error_code"] else len(told["partitions"])


def add_partition(servers: str, topic: str) -> None:
    administered(servers, "adding a partition", lambda admin: admin.create_partitions({topic: NewPartitions(2)}))
    wait_until(lambda: partitions_of(servers, topic) == 2, "the partition is there")


def test_dying_at_any_step_loses_and_doubles_nothing(workers: Workers) -> None:
    """Death before the deliveries are awaited, before the checkpoint and after it leaves the same to readers."""
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
    with pytest.raises(Refusal, match=r"starts at offset 1000 by now, but the newest checkpoint .* goes on at 500"):
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
    with pytest.raises(Refusal, match=f"goes on at offset {EVENTS}, ahead of .* which ends at 0"):
        once.run()


def test_a_log_that_is_another_one_is_refused(workers: Workers) -> None:
    """Input made anew and grown past the checkpoint is told by its last record, or by outputs that nothing caused."""
    once = Once(workers)
    once.run()
    make_anew(workers, workers.source)
    workers.produce(lines(EVENTS + 10)[10:])
    with pytest.raises(Refusal, match=f"the record before offset {EVENTS} .* is not the one"):
        once.run()
    make_anew(workers, workers.source)
    checkpoints(workers)[0].unlink()
    with pytest.raises(Refusal, match="the input was made anew; give it new output topics"):
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

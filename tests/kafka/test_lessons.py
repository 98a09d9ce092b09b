"""Partitions that teach each other through a real broker: outputs are a function of the log and of the lessons."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from thalweg.schemas.events import Merge
from thalweg.schemas.lessons import read_batch
from thalweg.streams.checkpoints.format import read
from thalweg.streams.commands import main
from thalweg.streams.partition.lessons import lessons_in
from thalweg.streams.worker.lessons import merges_in

from examples.live.events import events
from tests.kafka.faults import compared
from tests.kafka.fleet import committed, end_offsets
from tests.kafka.scoring import Workers
from tests.soak import SOAK, sized

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
PARTITIONS = 4
EVENTS = sized(10_000, 90_000)
RATE = 700
MODES = ("suppress", "transactional")


def teaching(servers: str, unique: Unique, folder: Path, mode: str) -> Workers:
    settings = {"CHECKPOINT__INTERVAL_MS": 2_000, "WORKER__SESSION_TIMEOUT_MS": 6_000, "LESSONS__MERGE_EVERY_MS": 300}
    own = {"LESSONS__ENABLED": "", "DELIVERY__MODE": mode}
    return Workers(servers, unique, folder / "workers", partitions=PARTITIONS, **settings, **own)


def merges(workers: Workers, partition: int) -> list[Merge]:
    return merges_in(workers.records_of(workers.source, partition))


def last_lessons(workers: Workers) -> list[int]:
    """Number of each partition's last lesson."""
    topic = workers.loaded.topics.lessons
    return [read_batch(workers.records_of(topic, number)[-1].value).last for number in range(PARTITIONS)]


def is_all_learned(workers: Workers, servers: str) -> bool:
    """Whether nothing is left to fold, and each partition's log names all that the others taught."""
    if committed(servers, workers.group, workers.source) != end_offsets(servers, workers.source, PARTITIONS):
        return False
    last = last_lessons(workers)
    for number in range(PARTITIONS):
        named = dict[int, int]()
        for merge in merges(workers, number):
            named |= merge.upto
        if named != {source: upto for source, upto in enumerate(last) if source != number}:
            return False
    return True


@pytest.mark.soak(2 if SOAK else 1, 2, "modes of delivery, each ten times as long")
@pytest.mark.parametrize("mode", MODES if SOAK else MODES[1:])
def test_a_kill_and_a_rebalance_change_no_output(broker: str, unique: Unique, tmp_path: Path, mode: str) -> None:
    """Of two workers one is killed and replaced under load: readers get the replay of each log with the lessons."""
    with teaching(broker, unique, tmp_path, mode) as workers:
        first = workers.start()
        workers.wait(lambda: len(workers.opened(first)) == PARTITIONS, "the first worker has all partitions")
        second = workers.start()
        workers.wait(lambda: len(workers.opened(second)) == 2, "the second worker has two partitions")
        producing = workers.producing([line.rstrip(b"\n") for line in events(EVENTS)], RATE)
        workers.kill_with_outputs_beyond(second, 50)
        third = workers.start()
        workers.wait(lambda: len(workers.opened(third)) == 2, "the third worker has two partitions")
        producing.join()
        workers.wait(lambda: is_all_learned(workers, broker), "everything is folded, and all is learned from all")
        assert [workers.stop(each) for each in (first, third)] == [0, 0], workers.log(first) + workers.log(third)
        assert min(last_lessons(workers)) > EVENTS // 20
        for number in range(PARTITIONS):
            written, expected = workers.written(number)[0], workers.expected(number)
            assert [compared(*each) for each in zip(written, expected, strict=True)] == [(0, 0, 0)] * 5
            assert min(len(written[0]), len(written[1])) > EVENTS // 20
            assert len(merges(workers, number)) > 3  # as many as a slow machine writes
        rebuilt(workers)
        consumed(workers, tmp_path / "lessons.bin")


def rebuilt(workers: Workers) -> None:
    """Rebuild all states from the logs and the topic of lessons: they are those of the workers, bit for bit."""

    def rebuild(generation: int, *more: str) -> Result:
        command = ["checkpoint", "rebuild", "--from-generation", "0", "--set", f"checkpoint.generation={generation}"]
        return CliRunner().invoke(main, [*command, *more], env=workers.environ, catch_exceptions=False)

    run = rebuild(1)
    assert run.exit_code == 0, run.output
    other = ("--set", "seed=5", "--partition", "0")
    run = rebuild(2, *other)
    assert run.exit_code == 1
    assert "has lessons of the layout" in run.output
    assert rebuild(2, *other, "--without-lessons").exit_code == 0
    passed_over = read(max((workers.folder / "checkpoints/generation-2").glob("*-0/*.checkpoint"))).part("")
    assert passed_over["lessons.learned"][:PARTITIONS].tolist() == [0, *last_lessons(workers)[1:]]
    folder = workers.folder / "checkpoints"
    for number in range(PARTITIONS):
        old, new = (
            read(max((each / f"{workers.source}-{number}").glob("*.checkpoint"))).header
            for each in (folder, folder / "generation-1")
        )
        assert (old.next_offset, old.digest) == (new.next_offset, new.digest)


def consumed(workers: Workers, path: Path) -> None:
    """Write the topic to a file: it is one that a replay learns from."""
    topic = workers.loaded.topics.lessons
    run = CliRunner().invoke(main, ["consume", "--topic", topic], env=workers.environ, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    path.write_bytes(run.stdout_bytes)
    book, expected = lessons_in([str(path)]), workers.lessons()
    for number, last in enumerate(last_lessons(workers)):
        assert book.read(number, 1, last) == expected.read(number, 1, last)
        assert book.last(number) == last

"""Partitions that teach each other through a real broker: outputs are a function of the log and of the lessons."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result
from thalweg.operators.machine.hashing import partitions_of
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
ADDED_EVENTS = 4_000
MODES = ("suppress", "transactional")


class Owned(msgspec.Struct):
    user: str


def teaching(servers: str, unique: Unique, folder: Path, mode: str, **more: str) -> Workers:
    settings = {"CHECKPOINT__INTERVAL_MS": 2_000, "WORKER__SESSION_TIMEOUT_MS": 6_000, "LESSONS__MERGE_EVERY_MS": 300}
    own = {"LESSONS__ENABLED": "", "DELIVERY__MODE": mode}
    return Workers(servers, unique, folder / "workers", partitions=PARTITIONS, **settings, **own, **more)


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


def test_a_partition_that_is_added_begins_with_what_another_has_learned(
    broker: str, unique: Unique, tmp_path: Path
) -> None:
    """Nobody has folded the last partition when the others have checkpoints: its log says where it begins."""
    lines = [line.rstrip(b"\n") for line in events(ADDED_EVENTS)]
    user = msgspec.json.Decoder(Owned)
    numbers = partitions_of([user.decode(line).user.encode() for line in lines], PARTITIONS).tolist()
    earlier = [line for line, number in zip(lines, numbers, strict=True) if number < PARTITIONS - 1]
    with teaching(broker, unique, tmp_path, "suppress", FEATURES__CONTEXT='["device","kind"]') as workers:
        first = workers.start(LESSONS__MERGE_EVERY_MS="600000")
        workers.wait(lambda: len(workers.opened(first)) == PARTITIONS, "the first worker has all partitions")
        workers.produce(earlier[: len(earlier) // 2])
        workers.wait(lambda: is_folded(workers, broker, PARTITIONS - 1), "the others are folded")
        assert workers.stop(first) == 0, workers.log(first)
        second = workers.start()
        workers.wait(lambda: len(workers.opened(second)) == PARTITIONS, "the second worker has all partitions")
        workers.produce(lines[len(lines) // 2 :])
        workers.wait(lambda: is_all_learned(workers, broker), "everything is folded, and all is learned from all")
        assert workers.stop(second) == 0, workers.log(second)
        told = [line for line in workers.log(second).splitlines() if f"{workers.source}-3 resumes at offset 0" in line]
        assert "empty, to begin with what was learned before" in told[-1]
        [start, *later] = merges(workers, PARTITIONS - 1)
        assert start.start is not None
        assert sum(start.upto.values()) > ADDED_EVENTS // 10
        assert not any(merge.start for merge in later)
        for number in range(PARTITIONS):
            written, expected = workers.written(number)[0], workers.expected(number)
            assert [compared(*each) for each in zip(written, expected, strict=True)] == [(0, 0, 0)] * 5
        run = rebuild(workers, 1)
        assert run.exit_code == 0, run.output
        same_states(workers, 1)


def is_folded(workers: Workers, servers: str, partitions: int) -> bool:
    """Whether nothing is left to fold of the first partitions."""
    done, ends = committed(servers, workers.group, workers.source), end_offsets(servers, workers.source, PARTITIONS)
    return all(done.get(number) == ends[number] > 0 for number in range(partitions))


def rebuild(workers: Workers, generation: int, *more: str) -> Result:
    command = ["checkpoint", "rebuild", "--from-generation", "0", "--set", f"checkpoint.generation={generation}"]
    return CliRunner().invoke(main, [*command, *more], env=workers.environ, catch_exceptions=False)


def rebuilt(workers: Workers) -> None:
    """Rebuild all states from the logs and the topic of lessons: they are those of the workers, bit for bit."""
    run = rebuild(workers, 1)
    assert run.exit_code == 0, run.output
    other = ("--set", "seed=5", "--partition", "0")
    run = rebuild(workers, 2, *other)
    assert run.exit_code == 1
    assert "has lessons of the layout" in run.output
    assert rebuild(workers, 2, *other, "--without-lessons").exit_code == 0
    passed_over = read(max((workers.folder / "checkpoints/generation-2").glob("*-0/*.checkpoint"))).part("")
    assert passed_over["lessons.learned"][:PARTITIONS].tolist() == [0, *last_lessons(workers)[1:]]
    same_states(workers, 1)


def same_states(workers: Workers, generation: int) -> None:
    """Each partition's state in a generation is the one that the workers left."""
    folder = workers.folder / "checkpoints"
    for number in range(PARTITIONS):
        old, new = (
            read(max((each / f"{workers.source}-{number}").glob("*.checkpoint"))).header
            for each in (folder, folder / f"generation-{generation}")
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

"""Workers in a made-up world: nothing is lost, twice or different, and every bug that is planted is found."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from schemas.records import Output
from streams.checkpoints import CheckpointStore
from streams.commands import main
from streams.delivery import Lane, Tail
from streams.partition import Partition
from streams.simulate import simulate
from streams.simulation.group import Group
from streams.worker import AssignedPartition, Scoring

SEEDS = 1_000
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as made:
        yield made


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // 10))
def test_a_thousand_seeds_lose_double_and_change_nothing(executor: ProcessPoolExecutor, first: int) -> None:
    """Crashes, losses of power, pauses, rebalances, full disks and lost batches, mixed: readers get the fold."""
    deaths = 0
    for simulated in executor.map(simulate, range(first, first + SEEDS // 10), chunksize=10):
        assert not simulated.wrong, simulated.message
        deaths += simulated.deaths
    assert deaths > SEEDS // 10


def test_a_seed_runs_the_same_way_every_time() -> None:
    """All of a run is drawn from its seed, so that a failure can be looked at again."""
    assert [simulate(seed) for seed in range(3)] == [simulate(seed) for seed in range(3)]


def test_the_command_tells_the_seed_of_a_failure(monkeypatch: Patch) -> None:
    """What went wrong is said in one line, with the command that repeats it."""
    assert CliRunner().invoke(main, ["simulate", "--seed", "3", "--runs", "2"]).exit_code == 0
    never_suppress(monkeypatch)
    failed = CliRunner().invoke(main, ["simulate", "--runs", "200"])
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: seed ")
    seed = failed.output.split()[2].rstrip(":")
    assert failed.output.rstrip().endswith(f"`thalweg simulate --seed {seed}` repeats it")
    again = CliRunner().invoke(main, ["simulate", "--seed", seed])
    assert again.output == failed.output


# Planted bugs: each must be found.


def acknowledge_before_the_checkpoint(patch: Patch) -> None:
    async def checkpoint(self: Any, assigned: AssignedPartition) -> int:
        self._ports.disk._worker.acknowledge(assigned.number, assigned.next_offset)
        return await original(self, assigned)

    original: Any = Scoring._checkpoint
    patch.setattr(Scoring, "_checkpoint", checkpoint)


def checkpoint_before_the_deliveries(patch: Patch) -> None:
    async def checkpoint(self: Any, assigned: AssignedPartition) -> int:
        await self._ports.in_thread(assigned.save, {})
        await self.delivery.flush(assigned.number)
        return assigned.next_offset

    patch.setattr(Scoring, "_checkpoint", checkpoint)


def sync_no_file(patch: Patch) -> None:
    patch.setattr("streams.simulation.worker._WorkersFile.sync", lambda self: None)


def sync_no_folder(patch: Patch) -> None:
    patch.setattr("streams.simulation.worker._Disk.sync_folder", lambda self, folder: None)


def write_in_place(patch: Patch) -> None:
    """Give the file its name before its bytes are there."""
    patch.setattr("streams.checkpoints.beside_of", lambda path: path)


def never_suppress(patch: Patch) -> None:
    """Send everything again, and have readers drop nothing."""
    patch.setattr(AssignedPartition, "_above", lambda self, topic, outputs: outputs)
    patch.setattr("streams.consume.Reader.keep_record", lambda self, record: True)


def suppress_one_too_many(patch: Patch) -> None:
    def above(self: Any, topic: str, outputs: list[Output]) -> list[Output]:
        is_suppressing = topic in self._suppressing
        fresh = original(self, topic, outputs)
        return fresh[1:] if is_suppressing and topic not in self._suppressing else fresh

    original: Any = AssignedPartition._above
    patch.setattr(AssignedPartition, "_above", above)


def read_the_tail_of_one_topic_only(patch: Patch) -> None:
    """Take all topics to be as far as the first."""

    def go_on(self: AssignedPartition, tails: dict[str, Tail], *emitted: Any) -> None:
        first = next(iter(tails.values())).cause
        original(self, {topic: tail._replace(cause=first) for topic, tail in tails.items()}, *emitted)

    original: Any = AssignedPartition.go_on
    patch.setattr(AssignedPartition, "go_on", go_on)


def take_a_stale_acknowledgement(patch: Patch) -> None:
    patch.setattr(Group, "is_current", lambda self, worker: True)


def take_a_stale_checkpoint(patch: Patch) -> None:
    """Take the checkpoint that was written last for the newest."""

    def paths(self: Any) -> list[Path]:
        return sorted(original(self), key=lambda path: self._disk.status(path).modified_at_s, reverse=True)

    original: Any = CheckpointStore.paths
    patch.setattr(CheckpointStore, "paths", paths)


def go_on_one_record_too_far(patch: Patch) -> None:
    async def open_partition(self: Any, *arguments: Any) -> int:
        start: int = await original(self, *arguments)
        return start + 1 if start else start

    original: Any = Scoring.open
    patch.setattr(Scoring, "open", open_partition)


def pass_a_failed_delivery_over(patch: Patch) -> None:
    async def confirm(self: Any, leave: int) -> None:
        while self._in_flight and (len(self._in_flight) > leave or self._in_flight[0][3].done()):
            topic, count, _, delivered = self._in_flight.popleft()
            try:
                self.end_offsets[topic] = (await delivered).offset + count
            except Exception:
                continue

    patch.setattr(Lane, "confirm", confirm)


def let_the_newest_checkpoints_go(patch: Patch) -> None:
    def save(self: Any, checkpoint: Any) -> Path:
        path: Path = original(self, checkpoint)
        for newest in self.paths()[:-1]:
            self._disk.unlink(newest)
        self._disk.sync_folder(self.directory)
        return path

    original: Any = CheckpointStore.save
    patch.setattr(CheckpointStore, "save", save)


def leave_part_of_the_state_out(patch: Patch) -> None:
    def snapshot(self: Any) -> Any:
        arrays = original(self)
        arrays["waiting.label"] = arrays["waiting.label"] * 0
        return arrays

    original: Any = Partition.snapshot
    patch.setattr(Partition, "snapshot", snapshot)


MUTATIONS: list[Callable[[Patch], None]] = [
    acknowledge_before_the_checkpoint,
    checkpoint_before_the_deliveries,
    sync_no_file,
    sync_no_folder,
    write_in_place,
    never_suppress,
    suppress_one_too_many,
    read_the_tail_of_one_topic_only,
    take_a_stale_acknowledgement,
    take_a_stale_checkpoint,
    go_on_one_record_too_far,
    pass_a_failed_delivery_over,
    let_the_newest_checkpoints_go,
    leave_part_of_the_state_out,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_planted_bug_is_found(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """Within a thousand seeds something must go wrong, or the simulator looks past the bug."""
    mutation(monkeypatch)
    found = next((simulated for simulated in map(simulate, range(SEEDS)) if simulated.wrong), None)
    assert found is not None

"""Bugs to plant in the worker, its deliveries or the simulation's brokers, one at a time: each must be found.

Each is listed with a seed that it showed at, which is looked at first.
"""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from thalweg.schemas.records import Output
from thalweg.streams.checkpoints.format import CheckpointStore
from thalweg.streams.kafka.delivery import Lane, Tail
from thalweg.streams.kafka.transactions import TransactionalDelivery, _Transactions
from thalweg.streams.partition.partition import Partition
from thalweg.streams.simulation.broker import SimulatedBrokers, Transactional
from thalweg.streams.simulation.group import Group
from thalweg.streams.simulation.topic import Log
from thalweg.streams.worker.worker import AssignedPartition, Scoring

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]


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
    patch.setattr("thalweg.streams.simulation.worker._WorkersFile.sync", lambda self: None)


def sync_no_folder(patch: Patch) -> None:
    patch.setattr("thalweg.streams.simulation.worker._Disk.sync_folder", lambda self, folder: None)


def write_in_place(patch: Patch) -> None:
    """Give the file its name before its bytes are there."""
    patch.setattr("thalweg.streams.checkpoints.format.beside_of", lambda path: path)


def never_suppress(patch: Patch) -> None:
    """Send everything again, and have readers drop nothing."""
    patch.setattr(AssignedPartition, "_above", lambda self, topic, outputs: outputs)
    patch.setattr("thalweg.streams.kafka.consume.Reader.keep_record", lambda self, record: True)


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


def share_no_transactional_id(patch: Patch) -> None:
    """Give every producer an id of its own, so that nobody is ever fenced."""
    number = count()
    patch.setattr("thalweg.streams.kafka.transactions.transactional_id_of", lambda *named: f"id-{next(number)}")


def take_any_epoch(patch: Patch) -> None:
    """Have the brokers take what a producer sends that was taken over."""

    def known(self: Any, name: str, producer: int, epoch: int) -> Transactional:
        found: Transactional = self.ids[name]
        return found

    patch.setattr(SimulatedBrokers, "_known", known)
    patch.setattr(SimulatedBrokers, "_refuse_stale", lambda *told: None)


def commit_the_offset_by_itself(patch: Patch) -> None:
    """Commit outputs, and then, outside of their transaction, the offset."""

    async def commit(self: Any, place: Any, next_offset: int, group: str) -> None:
        await self._begin()
        await self.lane.confirm(leave=0)
        await self._producer.commit_transaction()
        self._producer._world.brokers.committed[place.partition] = next_offset
        self.began_at, self.committed = None, next_offset

    patch.setattr(_Transactions, "commit", commit)


def commit_before_the_deliveries(patch: Patch) -> None:
    """Commit without a look at what became of the batches."""

    async def commit(self: Any, place: Any, next_offset: int, group: str) -> None:
        await self._begin()
        await self._producer.send_offsets_to_transaction({place: next_offset}, group)
        await self._producer.commit_transaction()
        self.began_at, self.committed = None, next_offset

    patch.setattr(_Transactions, "commit", commit)


def commit_one_record_too_far(patch: Patch) -> None:
    async def commit(self: Any, partition: int, next_offset: int) -> None:
        await original(self, partition, next_offset + 1)

    original: Any = TransactionalDelivery.commit
    patch.setattr(TransactionalDelivery, "commit", commit)


def checkpoint_ahead_of_the_commit(patch: Patch) -> None:
    async def checkpoint(self: Any, assigned: AssignedPartition) -> None:
        await self._ports.in_thread(assigned.save, {})
        await self.delivery.commit(assigned.number, assigned.next_offset)

    patch.setattr(Scoring, "_checkpoint", checkpoint)


def emit_below_the_offset(patch: Patch) -> None:
    """Send again what was emitted before."""

    def go_on(self: Any, *told: Any) -> None:
        original(self, *told)
        self._suppressing.clear()

    original: Any = AssignedPartition.go_on
    patch.setattr(AssignedPartition, "go_on", go_on)


def take_aborted_outputs_for_written(patch: Patch) -> None:
    def highest_cause(self: Log, from_offset: int) -> Any:
        found = zip(self.records, self.causes, strict=True)
        return max((cause for record, cause in found if record.offset >= from_offset), default=None)

    patch.setattr(Log, "highest_cause", highest_cause)


def set_the_offset_back(patch: Patch) -> None:
    """Commit also where input is only folded again."""

    async def commit(self: Any, partition: int, next_offset: int) -> None:
        self._partitions[partition].committed = None
        await original(self, partition, next_offset)

    original: Any = TransactionalDelivery.commit
    patch.setattr(TransactionalDelivery, "commit", commit)


SUPPRESSING: Sequence[tuple[Mutation, int]] = (
    (acknowledge_before_the_checkpoint, 0),
    (checkpoint_before_the_deliveries, 14),
    (sync_no_file, 0),
    (sync_no_folder, 0),
    (write_in_place, 31),
    (never_suppress, 2),
    (suppress_one_too_many, 1),
    (read_the_tail_of_one_topic_only, 8),
    (take_a_stale_acknowledgement, 23),
    (take_a_stale_checkpoint, 23),
    (go_on_one_record_too_far, 1),
    (pass_a_failed_delivery_over, 3),
    (let_the_newest_checkpoints_go, 2),
    (leave_part_of_the_state_out, 2),
)
TRANSACTIONAL: Sequence[tuple[Mutation, int]] = (
    (share_no_transactional_id, 21),
    (take_any_epoch, 14),
    (commit_the_offset_by_itself, 3),
    (commit_before_the_deliveries, 33),
    (commit_one_record_too_far, 0),
    (checkpoint_ahead_of_the_commit, 7),
    (emit_below_the_offset, 0),
    (suppress_one_too_many, 2),
    (take_aborted_outputs_for_written, 0),
    (set_the_offset_back, 44),
    (pass_a_failed_delivery_over, 9),
    (go_on_one_record_too_far, 2),
)

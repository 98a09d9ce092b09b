"""What must hold all the while, whatever goes wrong: the simulator's oracle."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from thalweg.schemas.records import Cause
from thalweg.streams.checkpoints.format import ENDING, CheckpointError, CheckpointStore, Header, Identity
from thalweg.streams.kafka.delivery import DeliveryError
from thalweg.streams.simulation.disk import SimulatedDisk
from thalweg.streams.simulation.known import Known
from thalweg.streams.worker.worker import BELOW_ALL, CheckpointUnwritableError

if TYPE_CHECKING:
    from thalweg.streams.simulation.worker import SimulatedWorker
    from thalweg.streams.simulation.world import World

Causes = tuple[list[Cause], ...]
"""Of each output topic, the causes of all that is to be there."""


class Verdict:
    """Whether everything holds; `wrong`: what did not, in the order in which it showed."""

    def __init__(self, world: "World", causes: Sequence[Causes], known: Known) -> None:
        """Judge a world in which outputs of `causes` are to be there, by partition and topic."""
        self.wrong: list[str] = []
        self._world, self._causes, self._known = world, causes, known
        self._verified: dict[int, int] = {}

    def on_commit(self, partition: int, before: int, offset: int) -> None:
        """Verify an offset that a group's member commits."""
        self.on_offset(partition, before, offset)
        if offset > self._verified.get(partition, 0):
            self.verify_durable(partition, offset)

    def verify_durable(self, partition: int, next_offset: int) -> None:
        """Verify that what is acknowledged is in a checkpoint that any loss of power leaves there."""
        if next_offset in (self._verified.get(partition), 0):
            return
        self._verified[partition] = next_offset
        try:
            header = self._newest(partition, self._world.disk.certain())
        except CheckpointError as error:
            self.wrong.append(str(error))
            return
        durable = 0 if header is None else header.next_offset
        if durable < next_offset:
            self.wrong.append(
                f"partition {partition} acknowledged {next_offset}, its durable checkpoint is at {durable}"
            )

    def newest_digest(self, partition: int) -> str | None:
        """Return the digest of a partition's state as its newest checkpoint has it."""
        header = self._newest(partition, self._world.disk)
        return None if header is None else header.digest

    def _newest(self, partition: int, disk: SimulatedDisk) -> Header | None:
        key = (partition, disk.contents(self._world.folder(partition), ENDING))
        return self._known.answer(key, partial(self._load, partition, disk))

    def _load(self, partition: int, disk: SimulatedDisk) -> Header | None:
        world = self._world
        identity = Identity(world.topics.interactions, partition, world.loaded.configuration, world.setting.partitions)
        store = CheckpointStore(world.folder(partition), world.loaded.checkpoint.keep, disk=disk)
        checkpoint = store.load(identity)
        return None if checkpoint is None else checkpoint.header

    def on_offset(self, partition: int, before: int, offset: int) -> None:
        """Verify that the group's offset does not go back.

        It may after a change of mode: transactions left it ahead of a checkpoint.
        """
        if offset < before and not self._world.setting.mode_changes:
            self.wrong.append(f"partition {partition} was committed up to {before}, and up to {offset} afterwards")

    def on_transaction(self, partition: int, offset: int) -> None:
        """Verify a transaction that is committed: all outputs below the group's offset are there, and no others."""
        if self._world.setting.mode_changes or self._world.setting.offset_losses:
            return
        for topic, due in zip(self._world.topics.outputs, self._causes[partition], strict=True):
            found = [cause for _, cause in self._world.brokers.log(topic, partition).committed()]
            below = bisect_left(due, Cause(offset, BELOW_ALL))
            if found != due[:below]:
                self.wrong.append(
                    f"{topic}-{partition} has {len(found)} outputs where the group's offset is {offset}, and {below} "
                    "are to be there"
                )

    def on_failure(self, worker: "SimulatedWorker", error: Exception) -> None:
        """Take what ended a worker: it is wrong unless a fault explains it."""
        setting = self._world.setting
        if self._world.is_refused_rightly(error):
            return
        is_delivery = isinstance(error, DeliveryError) and setting.failed_deliveries > 0
        refused = error.__cause__
        is_refused = isinstance(refused, CheckpointError) and isinstance(refused.__context__, OSError)
        is_disk = (isinstance(error, CheckpointUnwritableError) or is_refused) and setting.full_disks > 0
        if not (is_delivery or is_disk):
            self.wrong.append(f"{worker} ended: {type(error).__name__}: {error}")

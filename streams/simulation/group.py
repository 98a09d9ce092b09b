"""The consumer group: who has which partition, and whose commits count."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thalweg.streams.simulation.worker import SimulatedWorker
    from thalweg.streams.simulation.world import World


class Group:
    """Gives partitions to members; a member that does not answer within the session's time is out of it.

    A member that was paused learns that it is out only when it runs again: until then it is a zombie.
    """

    def __init__(self, world: "World") -> None:
        """Start without members."""
        self._world = world
        self._members: list[SimulatedWorker] = []
        self._generation = 0
        self._changed = asyncio.Event()

    def join(self, worker: "SimulatedWorker") -> None:
        """Take a member in."""
        if worker not in self._members:
            self._members.append(worker)
            self._changed.set()

    def leave(self, worker: "SimulatedWorker") -> None:
        """Let a member go, which closed its partitions."""
        if worker in self._members:
            self._members.remove(worker)
            self._changed.set()

    def rebalance(self) -> None:
        """Assign all partitions again, since there is one more."""
        self._changed.set()

    def commit(self, worker: "SimulatedWorker", partition: int, offset: int) -> None:
        """Commit an offset, unless the member is out of the group, or of a generation before."""
        if self.is_current(worker):
            self._world.on_commit(partition, offset)

    def is_current(self, worker: "SimulatedWorker") -> bool:
        """Whether a worker is a member, and of the present generation."""
        return worker in self._members and worker.generation == self._generation

    async def coordinate(self) -> None:
        """Rebalance whenever a member joins or leaves."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.sleep(self._world.chance.random.uniform(0.0, 0.2))
            await self._rebalance()

    async def watch(self) -> None:
        """Put out members that have not been heard of for the session's time."""
        silent_s: dict[int, float] = {}
        interval_s = 0.5
        while True:
            await asyncio.sleep(interval_s)
            for member in list(self._members):
                is_silent = member.is_paused or not member.is_alive
                silent_s[member.number] = silent_s.get(member.number, 0.0) + interval_s if is_silent else 0.0
                if silent_s[member.number] >= self._world.setting.session_timeout_s:
                    self._put_out(member)
                    self._changed.set()

    async def _rebalance(self) -> None:
        members = list(self._members)
        closing = {member.start(member.revoke()): member for member in members if member.is_alive}
        if closing:
            done, _ = await asyncio.wait(closing, timeout=self._world.setting.session_timeout_s)
            for task, member in closing.items():
                if task not in done and member in self._members:
                    self._put_out(member, task)
        self._generation += 1
        present = [member for member in members if member in self._members and member.is_alive]
        if not present:
            return
        partitions = [number for number in range(self._world.setting.partitions) if self._world.is_added(number)]
        self._world.chance.random.shuffle(partitions)
        for place, member in enumerate(present):
            member.assign(partitions[place :: len(present)], self._generation)

    def _put_out(self, member: "SimulatedWorker", closing: "asyncio.Task[None] | None" = None) -> None:
        self._members.remove(member)
        if member.is_alive:
            member.start(self._return(member, closing))

    async def _return(self, member: "SimulatedWorker", closing: "asyncio.Task[None] | None") -> None:
        """What a member does that was put out, once it runs again and learns of it."""
        await member.pass_time(3.0)
        if closing is None:
            await member.revoke()
        else:
            await closing
        if not member.is_ending:
            self.join(member)

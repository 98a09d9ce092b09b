"""Every crash: what a worker leaves behind when it dies at a point, and what the next one makes of it.

A dead worker's memory is gone, so all that the next one has is what brokers and disk hold: its *remains*. A run passes
hundreds of points and leaves few remains that differ; from each of them the rest is run once. So all points at all
records are covered, and pairs of them, at the cost of what can really differ.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from thalweg.schemas.records import Outputs, no_outputs
from thalweg.streams.checkpoints.format import WRITING
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.partition_run import BlockLimits
from thalweg.streams.partition.partition import Partition
from thalweg.streams.simulation.broker import SimulatedBrokers
from thalweg.streams.simulation.chance import Mode, Setting
from thalweg.streams.simulation.disk import SimulatedDisk
from thalweg.streams.simulation.known import Known
from thalweg.streams.simulation.run import Due, loaded_for, simulate_setting
from thalweg.streams.simulation.topic import SimulatedRecord
from thalweg.streams.simulation.worker import SimulatedWorker
from thalweg.streams.simulation.world import OnPoint, World

CHECKPOINT_MS, TRANSACTION_MS = 4_000, 100
POWER_LOSSES = 4
"""In how many ways power is lost at a point where something is not synced."""


class Remains(NamedTuple):
    """What is left when a worker has died: how it came to it, brokers, and the disk."""

    told: str
    brokers: SimulatedBrokers
    disk: SimulatedDisk

    def put(self, world: World) -> None:
        """Have a world begin with it."""
        world.brokers, world.disk = self.brokers.copied(world), self.disk.copied()
        world.brokers.resume()


class Crashes:
    """Runs a worker over a log, through crashes, up to so many in a row.

    `passed`: by point, the records at which some worker died there, being the only one to die; `wrong`: what did not
    hold afterwards; `runs`: how many there were.
    """

    def __init__(self, log: Sequence[SimulatedRecord], mode: Mode, crashes_max: int, more: int) -> None:
        """Begin with nothing seen.

        After crashes a worker folds `more` records behind the one at which it died. It ends with the state of the
        undisturbed fold there, from which the rest of the log was gone through once, without a crash.
        """
        self._log, self._mode, self._crashes_max, self._more = log, mode, crashes_max, more
        self._loaded = loaded_for(1, 1, CHECKPOINT_MS, 1_000)
        self._due = _DueOfBeginnings(self._loaded, log)
        self._idle_ms = TRANSACTION_MS if mode == "transactional" else CHECKPOINT_MS // 4
        self._seen: set[Any] = set()
        self._known = Known()
        self.passed: dict[str, set[int]] = defaultdict(set)
        self.wrong: list[str] = []
        self.runs = 0

    def at(self, record: int) -> None:
        """Die wherever a worker may that comes to a record: what it folds there is behind its checkpoint.

        Up to half of the way all is in a checkpoint; then come the rest and the record itself, each as a block. With it
        the events of a checkpoint are full, which has to await what is still on its way. Then the worker ends
        cleanly, and another one resumes.
        """
        half = record // 2
        self._loaded = loaded_for(1, 1, CHECKPOINT_MS, record + 1 - half)
        log = self._log[: record + 1]
        arrivals = [0.5] * half + [7.0] * (record - half) + [7.6]
        left: list[Remains] = []
        world = self._run(log, arrivals, None, self._collector(left, 1, record))
        ended = Remains(f"ended behind record {record}", world.brokers, world.disk)
        self._run(self._log, None, ended, self._collector(left, 1, record + 1, until=record + 1))
        rest = self._log[: record + 1 + self._more]
        for crashes in range(1, self._crashes_max + 1):
            found, left = left, []
            for remains in found:
                collect = self._collector(left, crashes + 1, 0, remains.told)
                self._run(rest, None, remains, collect if crashes < self._crashes_max else None)

    def _run(
        self,
        log: Sequence[SimulatedRecord],
        arrivals: Sequence[float] | None,
        remains: Remains | None,
        on_point: OnPoint | None,
    ) -> World:
        self.runs += 1
        setting = Setting(
            mode=self._mode,
            partitions=1,
            workers=1,
            arrivals=(tuple(arrivals or [0.0] * len(log)),),
            fetch_records_min=1_000,
            fetch_records=1_000,
            batch_records=64,
            block_limits=BlockLimits(block_records_max=100, idle_ms=self._idle_ms),
            transaction_interval_ms=TRANSACTION_MS,
        )
        put = None if remains is None else remains.put
        due = [self._due.of(len(log))]
        world = simulate_setting(
            self._loaded, setting, [log], Random(0), due, begin=put, on_point=on_point, known=self._known
        )
        if world.verdict.wrong:
            told = "" if remains is None else f" after {remains.told}"
            self.wrong.append(f"{self._mode}, {len(log)} records{told}: {world.verdict.wrong[0]}")
        return world

    def _collector(
        self, left: list[Remains], crashes: int, since: int, before: str = "", until: int | None = None
    ) -> OnPoint:
        """Return what notes, at each point that is passed, what would be left."""

        is_over = False

        def on_point(world: World, worker: SimulatedWorker, name: str) -> None:
            nonlocal is_over
            offset = world.position(worker)
            is_over = is_over or (until is not None and offset > until)
            if is_over or offset < since:
                return
            if crashes == 1:
                self.passed[name].add(offset)
            told = f"{before}, then {name} at {offset}" if before else f"death {name} at {offset}"
            for key, remains in self._remains(world, told):
                if key not in self._seen:
                    self._seen.add(key)
                    left.append(remains)

        return on_point

    def _remains(self, world: World, told: str) -> Iterator[tuple[Any, Remains]]:
        """Yield what may be left: any of what is on the wire arrives; the worker alone dies, or all lose power."""
        disks = [(disk.key(WRITING), disk) for disk in self._disks(world.disk)]
        for brokers in self._brokers(world):
            broker_key = brokers.key
            for disk_key, disk in disks:
                yield (broker_key, disk_key), Remains(told, brokers, disk)

    def _brokers(self, world: World) -> Iterator[SimulatedBrokers]:
        wire = list(world.on_wire.values())
        for count in range(len(wire) + 1):
            for arriving in combinations(wire, count):
                brokers = world.brokers.copied(_still(world))
                for request in arriving:
                    request.apply(brokers)
                yield brokers

    def _disks(self, disk: SimulatedDisk) -> Iterator[SimulatedDisk]:
        yield disk.copied()
        if not disk.is_synced:
            for seed in range(POWER_LOSSES):
                left = disk.copied()
                left.lose_power(Random(seed))
                yield left


class _DueOfBeginnings:
    """What is to come of a log's first records, however many: folded one by one, once."""

    def __init__(self, loaded: Loaded, log: Sequence[SimulatedRecord]) -> None:
        self._log = log
        self._fold = Partition(loaded.configuration, topic=loaded.topics.interactions, partitions=1)
        self._outputs = no_outputs()
        self._digests = [self._fold.digest()]
        self._known: dict[int, Due] = {}

    def of(self, count: int) -> Due:
        while len(self._digests) <= count:
            made = self._fold.process([self._log[len(self._digests) - 1]])
            for all_, more in zip(self._outputs, made, strict=True):
                all_ += more
            self._digests.append(self._fold.digest())
        if count not in self._known:
            end = self._log[count - 1].offset + 1 if count else 0
            outputs = Outputs(*([output for output in each if output.cause.offset < end] for each in self._outputs))
            causes = tuple([output.cause for output in each] for each in outputs)
            self._known[count] = Due(outputs, causes, self._digests[count])
        return self._known[count]


def _still(world: World) -> World:
    """Return a world in which nothing happens any more, for what arrives after its worker's death."""
    nothing: Callable[..., Any] = lambda *told: None  # noqa: E731
    return cast(
        World,
        SimpleNamespace(
            loop=SimpleNamespace(call_later=nothing),
            setting=world.setting,
            chance=SimpleNamespace(random=Random(0), happens=nothing, faults_happen=nothing),
            verdict=SimpleNamespace(on_offset=nothing, on_transaction=nothing),
        ),
    )

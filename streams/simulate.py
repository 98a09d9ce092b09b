"""The simulator: the worker's own code in a made-up world, whose every choice is drawn from one seed.

What is real: `Partition`, `Scoring`, `AssignedPartition`, `PartitionRun`, `Delivery`, `CheckpointStore`. Made up are
brokers, producer, consumer and group, the disk, time (`streams.simulation`). What must hold is the fold over each
partition's log, uncrashed: its readers, who drop what is not above the highest cause seen, get all of it, once, byte
for byte; and nothing is acknowledged that is not in a checkpoint which a loss of power leaves there.

    failure = simulate(seed)          None, or what went wrong; the same seed goes wrong the same way
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from random import Random
from typing import NamedTuple

import msgspec

from schemas.records import Output, Outputs
from streams.configuration import Loaded, load
from streams.consume import Reader
from streams.partition import Partition
from streams.partition_run import BlockLimits
from streams.simulation.broker import Log, SimulatedRecord
from streams.simulation.logs import make_log, smallest
from streams.simulation.loop import DeadlockError, run
from streams.simulation.world import Setting, World

RECORDS_MAX = 50


class Simulated(NamedTuple):
    """How a run went: `wrong`, what did not hold; `points`: how often each point was passed; and how many died."""

    seed: int
    wrong: list[str]
    points: dict[str, int]
    deaths: int
    crashes_left: int
    seconds: float

    @property
    def message(self) -> str:
        """Say what went wrong first, and how to see it again."""
        return f"seed {self.seed}: {self.wrong[0]}; `thalweg simulate --seed {self.seed}` repeats it"


def simulate(seed: int) -> Simulated:
    """Run the world of a seed, with faults of all kinds mixed."""
    random = Random(seed)
    partitions = random.choice((1, 1, 1, 2, 3))
    counts = [random.randint(10, RECORDS_MAX) for _ in range(partitions)]
    holes = random.choice((0.0, 0.1))
    logs = [make_log(random, number, partitions, counts[number], holes) for number in range(partitions)]
    setting = drawn_setting(random, counts)
    keep = random.choice((1, 2, 3))
    interval_ms, interval_events = random.choice((1_000, 4_000)), random.choice((5, 20, 1_000))
    return simulate_setting(
        setting, logs, random, seed=seed, keep=keep, interval_ms=interval_ms, interval_events=interval_events
    )


def simulate_all(seeds: Iterable[int], processes: int = 1) -> Iterator[Simulated]:
    """Run the worlds of several seeds and yield how they went, in the order of the seeds."""
    if processes == 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        yield from executor.map(simulate, seeds, chunksize=10)


def drawn_setting(random: Random, counts: Sequence[int]) -> Setting:
    """Draw what a run is like."""
    faults_until_s = random.choice((10.0, 30.0))
    arrivals = [sorted(random.uniform(0.0, faults_until_s) for _ in range(count)) for count in counts]

    def some(*shares: float) -> float:
        return random.choice((0.0, *shares))

    return Setting(
        partitions=len(counts),
        workers=random.choice((1, 2, 3)),
        arrivals=tuple(map(tuple, arrivals)),
        faults_until_s=faults_until_s,
        deaths=some(50.0, 150.0, 400.0),
        power_losses=some(0.3, 1.0),
        pauses=some(0.1, 0.3),
        comings=some(0.1),
        full_disks=some(0.1),
        lost_batches=some(0.1),
        failed_deliveries=some(0.02),
        holes=some(0.1),
        batch_records=random.choice((1, 3, 8)),
        fetch_records=random.choice((5, 40)),
        in_flight_batches_max=random.choice((1, 2, 8)),
        block_limits=BlockLimits(block_records_max=random.choice((1, 5, 5, 20, 20))),
    )


def simulate_setting(
    setting: Setting,
    logs: Sequence[Sequence[SimulatedRecord]],
    random: Random,
    *,
    seed: int,
    keep: int = 3,
    interval_ms: int = 4_000,
    interval_events: int = 1_000,
) -> Simulated:
    """Run a world of one's own making."""
    loaded = loaded_for(setting.partitions, keep, interval_ms, interval_events)
    worlds: list[World] = []

    async def live() -> None:
        worlds.append(World(loaded, setting, logs, random))
        await worlds[0].live()

    try:
        run(live())
    except DeadlockError as error:
        worlds[0].wrong.append(str(error))
    world = worlds[0]
    if not world.wrong:
        world.wrong += verify(world, logs)
    seconds = world.loop.time()
    return Simulated(seed, world.wrong, world.points, world.faults.deaths, len(world.faults.left), seconds)


def verify(world: World, logs: Sequence[Sequence[SimulatedRecord]]) -> Iterator[str]:
    """Yield what readers of the output topics would not find as the fold over each log makes it."""
    for number, log in enumerate(logs):
        for topic, outputs in zip(world.topics.outputs, expected(world.loaded, number, len(logs), log), strict=True):
            yield from differences(f"{topic}-{number}", world.brokers.log(topic, number), outputs)


def differences(name: str, log: Log, outputs: Sequence[Output]) -> Iterator[str]:
    """Yield what is lost, twice or different for a reader of an output partition."""
    due = {output.cause: output for output in outputs}
    for record, cause in zip(log.records, log.causes, strict=True):
        output = due.get(cause)
        if output is None or (output.value, output.key, output.headers) != (record.value, record.key, record.headers):
            yield f"{name} has something different at offset {record.offset}, of cause {cause.offset}:{cause.ordinal}"
    reader = Reader()
    seen = [cause for record, cause in zip(log.records, log.causes, strict=True) if reader.keep_record(record)]
    twice = [cause for cause, count in Counter(seen).items() if count > 1]
    lost = [output.cause for output in outputs if output.cause not in set(seen)]
    if twice:
        yield f"{name} has {len(twice)} outputs twice, the first of cause {twice[0].offset}:{twice[0].ordinal}"
    if lost:
        yield f"{name} lacks {len(lost)} outputs, the first of cause {lost[0].offset}:{lost[0].ordinal}"


def expected(loaded: Loaded, number: int, partitions: int, log: Sequence[SimulatedRecord]) -> Outputs:
    """Return what the fold makes of a log when nothing ever goes wrong."""
    topic = loaded.topics.interactions
    return Partition(loaded.configuration, topic=topic, partition=number, partitions=partitions).process(log)


@cache
def loaded_for(partitions: int, keep: int, interval_ms: int, interval_events: int) -> Loaded:
    """Return a configuration for a run: the smallest state, checkpoints as often as that."""
    loaded = load(None, environment={}, flags=[])
    return replace(
        loaded,
        configuration=smallest(),
        topics=msgspec.structs.replace(loaded.topics, partitions=partitions),
        checkpoint=msgspec.structs.replace(
            loaded.checkpoint,
            directory="checkpoints",
            keep=keep,
            interval_ms=interval_ms,
            interval_events=interval_events,
        ),
    )

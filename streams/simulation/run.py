"""The simulator: the worker's own code in a simulated world, whose every choice is drawn from one seed.

What is real: `Partition`, `Scoring`, `AssignedPartition`, `PartitionRun`, both deliveries, `CheckpointStore`. Simulated
are brokers with their transactions, producers, consumer and group, the disk, time (the modules beside this). The
reference is the fold over each partition's log without a crash. Readers must get all its outputs, once, byte for byte,
and the newest checkpoint must hold its state.

- In the mode `suppress` readers drop what is not above the highest cause seen. What is acknowledged is in a checkpoint
  that survives a loss of power.
- In the mode `transactional` readers read what is committed and drop nothing. After every transaction they see the
  outputs of the input below the group's offset.

    failure = simulate(seed)          None, or what went wrong; the same seed goes wrong the same way
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache, partial
from multiprocessing import get_context
from random import Random
from typing import Literal, NamedTuple

import msgspec
from thalweg.schemas.records import Output, Outputs
from thalweg.streams.configuration.loading import Loaded, load
from thalweg.streams.kafka.consume import Reader
from thalweg.streams.kafka.partition_run import BlockLimits
from thalweg.streams.partition.partition import Partition
from thalweg.streams.simulation.chance import Mode, Setting
from thalweg.streams.simulation.known import Known
from thalweg.streams.simulation.logs import make_log, smallest, smallest_of_several
from thalweg.streams.simulation.loop import DeadlockError, run
from thalweg.streams.simulation.topic import Log, SimulatedRecord
from thalweg.streams.simulation.verdict import Causes
from thalweg.streams.simulation.world import OnPoint, World, rooms_of

RECORDS_MAX = 50
SEVERAL_SHARE = 0.2
"""Of the seeds, how many have several objectives."""

Modes = Literal["suppress", "transactional", "changing"]
"""How a seed's workers deliver: one way all the while, or now one way and now the other."""


class Simulated(NamedTuple):
    """How a run went: `wrong`, what did not hold; `points`: how often each point was passed; and how many died."""

    seed: int
    mode: Modes
    wrong: list[str]
    points: dict[str, int]
    deaths: int
    seconds: float
    has_lessons: bool = False

    @property
    def message(self) -> str:
        """Return the first fault, and the command that repeats it."""
        again = f"thalweg simulate --seed {self.seed} --mode {self.mode}" + " --lessons" * self.has_lessons
        return f"seed {self.seed}: {self.wrong[0]}; `{again}` repeats it"


def simulate(seed: int, mode: Modes | None = None) -> Simulated:
    """Run the world of a seed, with faults of all kinds mixed; without a mode that is drawn, too."""
    random = Random(seed)
    drawn: Modes = random.choice(("suppress", "suppress", "transactional", "transactional", "changing"))
    mode = mode or drawn
    partitions = random.choice((1, 1, 1, 2, 3))
    counts = [random.randint(10, RECORDS_MAX) for _ in range(partitions)]
    holes = random.choice((0.0, 0.1))
    logs = [make_log(random, number, partitions, counts[number], holes) for number in range(partitions)]
    setting = drawn_setting(random, counts, mode)
    keep = random.choice((1, 2, 3))
    interval_ms, interval_events = random.choice((1_000, 4_000)), random.choice((5, 20, 1_000))
    has_several = Random(f"objectives of {seed}").random() < SEVERAL_SHARE  # no other draw of the seed moves
    loaded = loaded_for(partitions, keep, interval_ms, interval_events, has_several=has_several)
    world = simulate_setting(loaded, setting, logs, random, due_of(loaded, logs))
    return Simulated(seed, mode, world.verdict.wrong, world.points, world.faults.deaths, world.loop.time())


def simulate_all(seeds: Iterable[int], processes: int = 1, mode: Modes | None = None) -> Iterator[Simulated]:
    """Run the worlds of several seeds and yield how they went, in the order of the seeds."""
    if processes == 1:
        yield from map(partial(simulate, mode=mode), seeds)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_freeze) as executor:
        yield from executor.map(partial(_simulate_uncollected, mode=mode), seeds, chunksize=10)


def _freeze() -> None:
    """Compile the fold, and keep what that left in memory out of the garbage collector's sight."""
    gc.disable()
    simulate(0)
    gc.collect()
    gc.freeze()


def _simulate_uncollected(seed: int, mode: Modes | None) -> Simulated:
    """Collect garbage between worlds: within them that would take a sixth of the time."""
    gc.collect()
    return simulate(seed, mode)


def drawn_setting(random: Random, counts: Sequence[int], mode: Modes) -> Setting:
    """Draw what a run is like."""
    faults_until_s = random.choice((10.0, 30.0))
    arrivals = [sorted(random.uniform(0.0, faults_until_s) for _ in range(count)) for count in counts]

    def some(*shares: float) -> float:
        return random.choice((0.0, *shares))

    begins: Mode = random.choice(("suppress", "transactional"))
    interval_ms = random.choice((100, 1_000, 3_000))
    limits = BlockLimits(block_records_max=random.choice((1, 5, 5, 20, 20)))
    if mode != "suppress":
        limits = limits._replace(idle_ms=min(limits.idle_ms, interval_ms))
    return Setting(
        mode=begins if mode == "changing" else mode,
        mode_changes=0.1 if mode == "changing" else 0.0,
        partitions=len(counts),
        workers=random.choice((1, 2, 3)),
        arrivals=tuple(map(tuple, arrivals)),
        faults_until_s=faults_until_s,
        deaths=some(50.0, 150.0, 400.0),
        power_losses=some(0.3, 1.0),
        pauses=some(0.1, 0.3),
        membership_changes=some(0.1),
        full_disks=some(0.1),
        lost_requests=some(0.1),
        failed_deliveries=some(0.02),
        slow_markers=some(0.1, 0.5),
        offset_losses=random.choice((0.0, 0.0, 0.0, 0.1)),
        holes=some(0.1),
        batch_records=random.choice((1, 3, 8)),
        fetch_records=random.choice((5, 40)),
        in_flight_batches_max=random.choice((1, 2, 8)),
        block_limits=limits,
        transaction_interval_ms=interval_ms,
    )


def simulate_setting(
    loaded: Loaded,
    setting: Setting,
    logs: Sequence[Sequence[SimulatedRecord]],
    random: Random,
    due: "Sequence[Due]",
    *,
    begin: Callable[[World], None] | None = None,
    on_point: OnPoint | None = None,
    known: Known | None = None,
) -> World:
    """Run a world of one's own making, and return it with what is `wrong` in it.

    `due`: of each log, what is to come of it; `begin` may put something there before anybody works; `on_point` gets
    each point that a worker passes; `known`: what was computed in worlds before.
    """
    worlds: list[World] = []

    async def live() -> None:
        worlds.append(World(loaded, setting, logs, random, [each.causes for each in due], on_point, known))
        if begin is not None:
            begin(worlds[0])
        await worlds[0].live()

    try:
        run(live())
    except DeadlockError as error:
        worlds[0].verdict.wrong.append(str(error))
    world = worlds[0]
    world.release_states()
    if not world.verdict.wrong:
        world.verdict.wrong += verify(world, due)
    return world


class Due(NamedTuple):
    """What the fold makes of a log when nothing ever goes wrong: its outputs, by topic, and the state's digest."""

    outputs: Outputs
    causes: Causes
    digest: str


def due_of(loaded: Loaded, logs: Sequence[Sequence[SimulatedRecord]]) -> list[Due]:
    """Return what is to come of each partition's log."""
    found = []
    for number, log in enumerate(logs):
        topic = loaded.topics.interactions
        rooms = rooms_of(loaded.configuration)
        fold = Partition(loaded.configuration, topic=topic, partition=number, partitions=len(logs), rooms=rooms)
        outputs = fold.process(log)
        found.append(Due(outputs, tuple([output.cause for output in each] for each in outputs), fold.digest()))
    return found


def verify(world: World, due: Sequence[Due]) -> Iterator[str]:
    """Yield what is not as the fold over each log makes it: for readers of the output topics, and in checkpoints."""
    has_rule = world.setting.mode == "suppress" or world.setting.mode_changes > 0
    for number, each in enumerate(due):
        for topic, outputs in zip(world.topics.outputs, each.outputs, strict=True):
            yield from differences(f"{topic}-{number}", world.brokers.log(topic, number), outputs, has_rule)
        if world.verdict.newest_digest(number) != each.digest:
            yield f"the newest checkpoint of partition {number} holds another state than the undisturbed fold"


def differences(name: str, log: Log, outputs: Sequence[Output], has_rule: bool) -> Iterator[str]:
    """Yield what is lost, duplicated or changed for a reader of an output partition.

    `has_rule`: it drops what is not above the highest cause seen.
    """
    due = {output.cause: output for output in outputs}
    for record, cause in zip(log.records, log.causes, strict=True):
        output = due.get(cause)
        if output is None or (output.value, output.key, output.headers) != (record.value, record.key, record.headers):
            yield f"{name} has something different at offset {record.offset}, of cause {cause.offset}:{cause.ordinal}"
    if log.stable_end < log.end:
        yield f"{name} has a transaction that is open since offset {log.stable_end}"
    reader = Reader()
    seen = [cause for record, cause in log.committed() if not has_rule or reader.keep_record(record)]
    twice = [cause for cause, count in Counter(seen).items() if count > 1]
    had = set(seen)
    lost = [output.cause for output in outputs if output.cause not in had]
    if twice:
        yield f"{name} has {len(twice)} outputs twice, the first of cause {twice[0].offset}:{twice[0].ordinal}"
    elif seen != sorted(seen):
        yield f"{name} has outputs in another order than that of their causes"
    if lost:
        yield f"{name} lacks {len(lost)} outputs, the first of cause {lost[0].offset}:{lost[0].ordinal}"


@cache
def loaded_for(
    partitions: int, keep: int, interval_ms: int, interval_events: int, *, has_several: bool = False
) -> Loaded:
    """Return a configuration for a run: the smallest state, checkpoints as often as that; one objective or several."""
    loaded = load(None, environment={}, flags=[])
    return replace(
        loaded,
        configuration=smallest_of_several() if has_several else smallest(),
        topics=msgspec.structs.replace(loaded.topics, partitions=partitions),
        checkpoint=msgspec.structs.replace(
            loaded.checkpoint,
            directory="checkpoints",
            keep=keep,
            interval_ms=interval_ms,
            interval_events=interval_events,
        ),
    )

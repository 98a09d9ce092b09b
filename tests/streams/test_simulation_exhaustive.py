"""A crash at every step of the protocol and every record, and two crashes at every pair of steps."""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from random import Random
from typing import NamedTuple

import pytest

from streams.partition_run import BlockLimits
from streams.simulate import Simulated, simulate_setting
from streams.simulation.broker import SimulatedRecord
from streams.simulation.logs import make_log
from streams.simulation.world import Crash, Setting

OPENING = (
    *("before 1 load", "after 1 load", "2 bounds", "2 record", "before 3 tail scores", "after 3 tail interactions.dlq"),
    *("before 4 seek", "after 4 seek"),
)
FOLDING = ("before 5 fold", "after 5 fold", "6 send scores", "6 after arrival scores")
CHECKPOINTING = (
    *("before 7 flush", "after 7 flush", "before 8 save", "after 8 save", "before 9 acknowledge", "after 9 commit"),
)
STEPS = (*OPENING, *FOLDING, *CHECKPOINTING)
WITHIN_STEPS = (
    *("after 3 tail scores", "before 3 tail examples", "after 3 tail examples", "before 3 tail interactions.dlq"),
    *("6 send examples", "6 before arrival scores", "6 before arrival examples", "6 after arrival examples"),
    *("6 before arrival interactions.dlq", "6 after arrival interactions.dlq"),
    *("before 8 look", "before 8 create", "before 8 write", "before 8 sync file", "after 8 sync file"),
    *("before 8 rename", "after 8 rename", "before 8 sync folder", "after 8 sync folder", "before 8 list"),
    *("before 8 unlink", "before 8 status", "after 9 acknowledge", "before 9 commit"),
)
STEADY_MS = 4_000
"""A checkpoint is written so long after the one before."""


class Case(NamedTuple):
    """Two bursts of records and a rest, cut at a record; the crashes come when that one is reached."""

    records: int
    record: int
    points: tuple[str, ...]
    power: bool

    def __str__(self) -> str:
        """Say it as a failing test shows it."""
        what = "power lost" if self.power else "killed"
        return f"{what} at {' and then '.join(self.points)}, record {self.record} of {self.records}"


@cache
def log_of(records: int) -> tuple[SimulatedRecord, ...]:
    return tuple(make_log(Random(records), 0, 1, records, holes=0.0))


def crashes_of(case: Case) -> Iterator[Crash]:
    # to die while opening a partition at a record, a worker must have died there before
    if is_opening(case.points[0]) and case.record:
        yield Crash("after 5 fold", case.record)
    for point in case.points:
        yield Crash(point, 0 if is_opening(point) else case.record, case.power)


def is_opening(point: str) -> bool:
    return point in OPENING or " 3 " in point


def run_case(case: Case) -> tuple[Case, Simulated]:
    first, last = case.record // 2, case.record
    # up to `first` all is in a checkpoint; what follows the record comes at once, or after a checkpoint at the record
    rest_s = 14.0 if case.points[0] in (*CHECKPOINTING, *WITHIN_STEPS) else 7.5
    arrivals = [0.5] * first + [7.0] * (last - first) + [rest_s] * (case.records - last)
    setting = Setting(
        partitions=1,
        workers=1,
        arrivals=(tuple(arrivals),),
        crashes=tuple(crashes_of(case)),
        fetch_records=100,
        batch_records=16,
        block_limits=BlockLimits(block_records_max=60),
        restart_s=0.5,
    )
    return case, simulate_setting(setting, [log_of(case.records)], Random(0), seed=0, interval_ms=STEADY_MS, keep=2)


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as made:
        yield made


def deaths(executor: ProcessPoolExecutor, cases: Iterable[Case]) -> int:
    """Run cases, in none of which anything may be wrong, and return in how many all that was to die did."""
    died = 0
    for case, simulated in executor.map(run_case, cases, chunksize=10):
        assert not simulated.wrong, f"{case}: {simulated.wrong[0]}"
        died += not simulated.crashes_left
    return died


@pytest.mark.parametrize("point", STEPS)
def test_a_crash_at_every_step_and_every_record(executor: ProcessPoolExecutor, point: str) -> None:
    """Whoever dies before or after any step, at any of 200 records, nothing is lost, twice or different."""
    assert deaths(executor, (Case(200, record, (point,), bool(record % 2)) for record in range(200))) >= 190


@pytest.mark.parametrize("point", WITHIN_STEPS)
def test_a_crash_between_any_two_calls(executor: ProcessPoolExecutor, point: str) -> None:
    """The same between any two calls to the brokers and the disk, at every twentieth record."""
    assert deaths(executor, (Case(200, r, (point,), power) for r in range(7, 200, 20) for power in (False, True))) >= 16


@pytest.mark.parametrize("first", STEPS)
def test_two_crashes_at_every_pair_of_steps(executor: ProcessPoolExecutor, first: str) -> None:
    """Whoever dies twice, before or after any two steps, on a log of 20 records."""
    cases = (Case(20, r, (first, second), bool(r % 2)) for r in (8, 17) for second in STEPS)
    assert deaths(executor, cases) >= 2 * len(STEPS) - 8

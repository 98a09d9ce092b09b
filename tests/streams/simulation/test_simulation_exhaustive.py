"""A crash at every step of the protocol and every record, and two crashes at every pair of steps and every record."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from random import Random
from typing import NamedTuple

import pytest
from thalweg.streams.simulation.chance import Mode
from thalweg.streams.simulation.crashes import Crashes
from thalweg.streams.simulation.logs import make_log

from tests.soak import sized
from tests.streams.simulation.planted import (
    Mutation,
    checkpoint_ahead_of_the_commit,
    checkpoint_before_the_deliveries,
    commit_the_offset_by_itself,
    leave_part_of_the_state_out,
    read_the_tail_of_one_topic_only,
    suppress_one_too_many,
    sync_no_folder,
)

OPENING = (
    *("2 bounds", "before 1 load", "before 8 list", "before 8 read", "after 1 load", "2 record"),
    *("before 3 tail scores", "after 3 tail interactions.dlq", "before 4 seek", "after 4 seek"),
)
SAVING = (
    *("before 8 save", "before 8 look", "before 8 create", "before 8 write", "before 8 sync file", "after 8 sync file"),
    *("before 8 rename", "after 8 rename", "before 8 sync folder", "after 8 sync folder", "before 8 list"),
    *("before 8 unlink", "before 8 status", "after 8 save"),
)
SENDING = ("before 5 fold", "after 5 fold", "6 send scores", "before arrival of 6 scores", "after arrival of 6 scores")
STEPS: dict[Mode, Sequence[str]] = {
    "suppress": (
        *(*OPENING, *SENDING, "before 7 flush", "after 7 flush", *SAVING),
        *("before 9 acknowledge", "after 9 acknowledge", "before 9 commit", "after 9 commit"),
    ),
    "transactional": (
        *("before 1 fence", "before 1 id", "before arrival of 1 id", "after arrival of 1 id", "before 2 offset"),
        *("after 2 offset", *OPENING, *SENDING, "before 6 begin", "before 6 add scores"),
        *("before arrival of 6 add scores", "after arrival of 6 add scores", "before 7 commit", "before 6 add offsets"),
        *("before 7 offset", "before arrival of 7 offset", "after arrival of 7 offset", "before 7 end"),
        *("before arrival of 7 end", "after arrival of 7 end", "after 7 commit", *SAVING),
    ),
}
PLANTED: Sequence[tuple[Mode, Mutation]] = (
    *(("suppress", checkpoint_before_the_deliveries), ("suppress", leave_part_of_the_state_out)),
    *(("suppress", read_the_tail_of_one_topic_only), ("suppress", suppress_one_too_many), ("suppress", sync_no_folder)),
    *(("transactional", checkpoint_ahead_of_the_commit), ("transactional", commit_the_offset_by_itself)),
    ("transactional", suppress_one_too_many),
)
SINGLE_RECORDS, PAIRS_WHOLE = 200, 20
PAIR_RECORDS = sized(4, PAIRS_WHOLE)
PART = SINGLE_RECORDS // 8
PARTS = range(0, SINGLE_RECORDS, sized(8, 1) * PART)
PART_MIN, PAIRS_MIN = PART - 5, PAIR_RECORDS - 2
"""At how many records a worker dies at each step, at least: the first records make no scores, so that none are sent."""


class Gone(NamedTuple):
    """What went through a part of the records: where workers died, in how many runs, and what was wrong."""

    passed: dict[str, set[int]]
    runs: int
    wrong: list[str]


def go_through(at: Sequence[int], records: int, mode: Mode, crashes_max: int, more: int) -> Gone:
    crashes = Crashes(tuple(make_log(Random(records), 0, 1, records, holes=0.0)), mode, crashes_max, more)
    for record in at:
        crashes.at(record)
    return Gone(crashes.passed, crashes.runs, crashes.wrong)


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as made:
        yield made


def all_of(
    executor: ProcessPoolExecutor, at: range, records: int, mode: Mode, crashes_max: int, more: int
) -> dict[str, set[int]]:
    """Go through records, where nothing may be wrong, and return at which of them who died at each point."""
    passed: dict[str, set[int]] = defaultdict(set)
    gone = partial(go_through, records=records, mode=mode, crashes_max=crashes_max, more=more)
    half = len(at) // 2
    for found in executor.map(gone, (at[:half], at[half:])):
        assert not found.wrong, found.wrong[0]
        for point, offsets in found.passed.items():
            passed[point] |= offsets
    return passed


@pytest.mark.soak(len(PARTS) * PART, SINGLE_RECORDS, "records")
@pytest.mark.parametrize("first", PARTS)
@pytest.mark.parametrize("mode", STEPS)
def test_a_crash_at_every_step_and_every_record(executor: ProcessPoolExecutor, mode: Mode, first: int) -> None:
    """Whoever dies between any two calls to the world, at any of 200 records, nothing is lost, twice or different."""
    passed = all_of(executor, range(first, first + PART), SINGLE_RECORDS, mode, crashes_max=1, more=3)
    assert {point: len(passed[point]) for point in STEPS[mode] if len(passed[point]) < PART_MIN} == {}


@pytest.mark.parametrize(("mode", "mutation"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_bug_is_found_by_some_crash(mode: Mode, mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """What shows after one crash shows at some of 20 records, or the crashes look past it."""
    mutation(monkeypatch)
    crashes = Crashes(tuple(make_log(Random(20), 0, 1, 20, holes=0.0)), mode, 1, 3)
    assert any(crashes.at(record) or crashes.wrong for record in range(4, 20))


@pytest.mark.soak(PAIR_RECORDS, PAIRS_WHOLE, "records with pairs of crashes")
@pytest.mark.parametrize("mode", STEPS)
def test_two_crashes_at_every_pair_of_steps_and_every_record(executor: ProcessPoolExecutor, mode: Mode) -> None:
    """Whoever dies at any step, at any of 20 records, and again at any step of what comes after, to the log's end."""
    records = range(PAIRS_WHOLE - PAIR_RECORDS, PAIRS_WHOLE)
    passed = all_of(executor, records, PAIRS_WHOLE, mode, crashes_max=2, more=PAIRS_WHOLE)
    assert {point: len(passed[point]) for point in STEPS[mode] if len(passed[point]) < PAIRS_MIN} == {}

"""Workers in a made-up world: nothing is lost, twice or different, and every bug that is planted is found."""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
from click.testing import CliRunner
from thalweg.streams.commands import main
from thalweg.streams.simulation.run import Modes, simulate

from tests.soak import sized
from tests.streams.simulation.planted import SUPPRESSING, TRANSACTIONAL, Mutation, never_suppress

WHOLE = 1_000
SEEDS = sized(40, WHOLE)
CHUNK = min(SEEDS, 100)
PLANTED: list[tuple[Modes, Mutation, int]] = [
    *(("suppress", *planted) for planted in SUPPRESSING),
    *(("transactional", *planted) for planted in TRANSACTIONAL),
]
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def executor() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=get_context("spawn")) as made:
        yield made


@pytest.mark.soak(SEEDS, WHOLE, "seeds")
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_a_thousand_seeds_lose_double_and_change_nothing(executor: ProcessPoolExecutor, first: int) -> None:
    """Crashes, losses of power, pauses, rebalances, full disks and lost requests, mixed: readers get the fold."""
    deaths, modes = 0, Counter[str]()
    for simulated in executor.map(simulate, range(first, first + CHUNK), chunksize=10):
        assert not simulated.wrong, simulated.message
        deaths += simulated.deaths
        modes[simulated.mode] += 1
    assert deaths > CHUNK
    assert min(modes[mode] for mode in ("suppress", "transactional", "changing")) >= 5


@pytest.mark.parametrize("mode", ["suppress", "transactional", "changing"])
def test_a_seed_runs_the_same_way_every_time(mode: Modes) -> None:
    """All of a run is drawn from its seed, so that a failure can be looked at again."""
    assert simulate(1, mode) == simulate(1, mode)


def test_the_command_tells_the_seed_of_a_failure(monkeypatch: Patch) -> None:
    """What went wrong is said in one line, with the command that repeats it."""
    assert CliRunner().invoke(main, ["simulate", "--seed", "3", "--runs", "2"]).exit_code == 0
    never_suppress(monkeypatch)
    failed = CliRunner().invoke(main, ["simulate", "--runs", "200"])
    assert failed.exit_code == 1
    assert failed.output.startswith("Error: seed ")
    command = failed.output.split("`")[-2].split()
    assert command[:2] == ["thalweg", "simulate"]
    assert failed.output.rstrip().endswith(f"`{' '.join(command)}` repeats it")
    again = CliRunner().invoke(main, command[1:])
    assert again.output == failed.output


@pytest.mark.long
@pytest.mark.parametrize(("mode", "mutation", "first"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_bug_is_found(mode: Modes, mutation: Mutation, first: int, monkeypatch: Patch) -> None:
    """Within a thousand seeds something must go wrong, or the simulator looks past the bug."""
    mutation(monkeypatch)
    assert any(simulate(seed, mode).wrong for seed in (first, *range(WHOLE)))

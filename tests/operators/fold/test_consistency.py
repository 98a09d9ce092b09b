"""What is restored must be a state that the fold could have left: real ones pass, crafted ones are refused."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.consistency import InconsistentError
from thalweg.operators.fold.snapshot import restore
from thalweg.schemas.records import LogRecord
from thalweg.streams.partition.partition import Partition

from tests.soak import sized
from tests.streams.logs_for_tests import sample, small

Arrays = dict[str, np.ndarray]
CRAFTED = sized(120, 250)
ROOT = Path(__file__).parents[3]


def crowded() -> Configuration:
    """Limits so small that rows, users, histories and impressions make room for each other all the time."""
    c = small(rows=1_024, users=129, waiting=128, histories=8)
    return replace(
        c,
        behaviors=replace(c.behaviors, kinds=("acted", "skipped"), short_length=2),
        sdim=replace(c.sdim, window_behaviors=8, window_ms=3_600_000),
        table=replace(c.table, occurrence_threshold=2, filter_cells=1_024),
        joiner=replace(c.joiner, attribution_window_ms=60_000, late_window_ms=60_000),
        features=replace(c.features, crosses=(("user", "tab"),)),
    )


@cache
def crowded_log(events: int) -> list[LogRecord]:
    """The sample's events with early and late feedback, duplicates, erasures and bad records among them."""
    values = [record.value or b"" for record in sample(events)]
    for number in range(60, events - 60):
        if b'"feedback"' in values[number] and number % 3:
            to = number - 50 if number % 3 == 1 else number + 50
            values.insert(to, values.pop(number))
        elif number % 23 == 5:
            event = json.loads(values[number])
            values[number] = b'{"type":"erase","id":"e%d","user":"%b","ts":%d}' % (
                number,
                json.loads(values[number - 1])["user"].encode(),
                event["ts"],
            )
        elif number % 23 == 9:
            values[number] = values[number - 3]
        elif number % 97 == 3:
            values[number] = b"no event"
    return [LogRecord(number, value) for number, value in enumerate(values)]


@cache
def crowded_arrays() -> Arrays:
    partition = Partition(crowded())
    partition.process(crowded_log(6_000)[:5_000])
    return partition.snapshot()


def crafted(arrays: Arrays, random: np.random.Generator) -> Arrays:
    """Return arrays with one to three of them changed: numbers that index wildly, swapped, repeated, or shapes."""
    made = dict(arrays)
    names = [name for name, array in arrays.items() if array.size and array.dtype.kind in "iu"]
    for _ in range(random.integers(1, 4)):
        name = str(random.choice(names))
        array = made[name].copy()
        if not array.size:
            continue
        flat = array.reshape(-1)
        info = np.iinfo(array.dtype)
        at = random.integers(0, flat.size, random.integers(1, 4))
        kind = random.integers(0, 5)
        if kind == 0:
            wild = [0, 1, len(array), len(array) + 1, info.max, info.min, int(random.integers(1 << 31)), 1 << 20]
            flat[at] = [min(max(int(random.choice(wild)), info.min), info.max) for _ in at]
        elif kind == 1:
            flat[at] = flat[random.integers(0, flat.size, at.size)]
        elif kind == 2:
            flat[at] = flat[at] + array.dtype.type(1)
        elif kind == 3:
            other = random.integers(0, flat.size, at.size)
            flat[at], flat[other] = flat[other].copy(), flat[at].copy()
        else:
            array = array[: len(array) - 1] if random.integers(2) else np.concatenate([array, array[:1]])
        made[name] = array
    return made


@pytest.mark.parametrize("block", [37, 1_000])
def test_what_the_fold_leaves_is_consistent(block: int) -> None:
    """Every state of a log that keeps all limits busy is restored, at any event."""
    configuration = crowded()
    partition = Partition(configuration)
    records = crowded_log(6_000)
    for first in range(0, len(records), block):
        partition.process(records[first : first + block])
        if first % (10 * block) == 0 or first < 10 * block:
            restore(configuration, partition.snapshot())
    partition.close_all()
    restored = Partition(configuration, arrays=partition.snapshot())
    assert restored.digest() == partition.digest()
    fates = partition.state.fates
    assert np.count_nonzero(fates) >= 6, "the log does not have enough kinds of fate"
    assert partition.state.behaviors.histories.pool.counts[1] + partition.state.users.counts[0] > 0


def put(name: str, *values: int) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        arrays[name].reshape(-1)[: len(values)] = values

    return change


def point_at_itself(name: str, rows: Callable[[Arrays], np.ndarray]) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        row = int(np.flatnonzero(rows(arrays))[0])
        arrays[name][row] = row + 1

    return change


def give_freed_twice(arrays: Arrays) -> None:
    freed = arrays["waiting.pool.freed"]
    freed[0] = freed[1]


def take_free_for_current(arrays: Arrays) -> None:
    row = int(np.flatnonzero(arrays["features.key"] == 0)[0])
    slot = int(np.flatnonzero(arrays["waiting.status"] == 2)[0])
    arrays["features_seen.row"][slot, 0] = row
    arrays["features_seen.generation"][slot, 0] = arrays["features.generation"][row]


def lengthen_text(arrays: Arrays) -> None:
    slot = int(np.flatnonzero(arrays["waiting.length"])[0])
    arrays["waiting.length"][slot] += 1 << 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("features.pool.counts", 1 << 40), "counts of features"),
        (put("users.pool.counts", -1), "counts of users"),
        (put("waiting.pool.freed", 1 << 30), "freed rows of waiting"),
        (give_freed_twice, "free and used waiting"),
        (put("features.lookup.size", 5), "index and keys of features"),
        (put("users.lookup.size", 5, 64, 48), "sizes of the index of users"),
        (put("features.lookup.rows", *range(4_000, 4_008)), "index and keys of features"),
        (put("features.list_of", *[200] * 800), r"features\.list_of has numbers outside of 0 to"),
        (put("features.ends", 1 << 30), "lists of features"),
        (point_at_itself("features.newer", lambda a: a["features.linked"] == 1), "lists of features"),
        (point_at_itself("user_rows.next", lambda a: a["user_rows.owner"]), "lists of owned rows"),
        (put("user_rows.owner", *[1 << 20] * 100), "owners of rows"),
        (put("waiting.deadlines.size", 100_000), "deadlines"),
        (put("waiting.deadlines.heap", 1 << 30), "deadlines"),
        (put("waiting.provisional.size", 100_000), "counts of provisional|provisional deadlines"),
        (put("waiting.provisional.place", *[1 << 30] * 10), "provisional deadlines"),
        (put("waiting.feedbacks.next", *[1 << 30] * 10), "feedback of impressions"),
        (put("waiting.texts.next", *[1] * 20), "texts"),
        (lengthen_text, r"waiting\.length has numbers"),
        (put("behaviors.row", 1 << 30), r"behaviors\.row has numbers"),
        (put("behaviors.counts", *[-1] * 10), r"behaviors\.counts has numbers"),
        (put("behaviors.history", 1 << 30), "histories of users"),
        (put("behaviors.histories.unit", 512), r"behaviors\.histories\.unit has numbers"),
        (put("behaviors.histories.current", 4), r"behaviors\.histories\.current has numbers"),
        (put("features_seen.row", 1 << 30), r"features_seen\.row has numbers"),
        (put("features_seen.field", 255), r"features_seen\.field has numbers"),
        (put("features_seen.counts", 99), r"features_seen\.counts has numbers"),
        (put("memory_reads.near", 1 << 20), r"memory_reads\.near has numbers"),
        (put("memory_reads.keyed", -1), r"memory_reads\.keyed has numbers"),
        (take_free_for_current, "generations of values"),
        (put("clock.witnesses", 9), r"clock\.witnesses has numbers"),
        (put("names", 65), "the names of fields"),
    ],
)
def test_a_crafted_state_is_refused(change: Callable[[Arrays], None], message: str) -> None:
    """What would make compiled code leave its arrays, or go round for ever, must be refused before it runs."""
    arrays = {name: array.copy() for name, array in crowded_arrays().items()}
    change(arrays)
    with pytest.raises(InconsistentError, match=message):
        restore(crowded(), arrays)


@pytest.mark.parametrize("change", [lambda a: a[:-1], lambda a: np.concatenate([a, a[:1]]), lambda a: a.astype(">i8")])
def test_an_array_of_another_shape_is_refused(change: Callable[[Any], Any]) -> None:
    """Arrays must have exactly the rows that their counts say, and their types."""
    arrays = dict(crowded_arrays())
    arrays["waiting.offset"] = change(arrays["waiting.offset"])
    with pytest.raises(ValueError, match=r"waiting\.offset is"):
        restore(crowded(), arrays)


@pytest.mark.large
@pytest.mark.long
@pytest.mark.soak(CRAFTED, 250, "crafted states")
def test_crafted_states_end_no_process() -> None:
    """Of hundreds of states crafted at random none makes the compiled code fall over or hang."""
    command = [sys.executable, "-m", "tests.operators.fold.consistency_process", "1", str(CRAFTED)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, f"{run.returncode} after {run.stderr[-300:]}"
    fates = ast.literal_eval(run.stdout)
    assert sum(fates.values()) == CRAFTED
    assert fates["refused"] > CRAFTED // 2

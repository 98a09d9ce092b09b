"""Values get their rows when they are admitted and lose them at exactly their field's time; memory stays as it was."""

import numpy as np
import numpy.typing as npt
import pytest
from thalweg.operators.admission import (
    Admission,
    AdmissionConfiguration,
    AdmissionParameters,
    admission_parameters,
    new_admission,
)
from thalweg.operators.features import Value, resolve, sweep_feature
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.pages import Moment
from thalweg.operators.structures.index import Size
from thalweg.operators.structures.ownership import Owned, new_owned
from thalweg.operators.structures.pool import Stock
from thalweg.operators.structures.table import Loss, Table, find_row, new_table

from tests.operators.structures.test_index import distinct_keys

EXPIRE_TIME_MS = np.array([1_000, 5_000], np.int64)
USERS = 4


class World:
    """A table with two fields and what goes with it."""

    def __init__(self, rows: int, threshold: int = 1) -> None:
        """Start empty."""
        configuration = AdmissionConfiguration(occurrence_threshold=threshold, filter_cells=1 << 12)
        self.table = new_table(rows, 2)
        self.filter, self.parameters = new_admission(configuration), admission_parameters(configuration)
        self.user_rows = new_owned(USERS, rows)

    def resolve(self, key: int, field: int, now_ms: int, page: int = 0) -> tuple[int, bool, int]:
        """Return the row of a value seen now, on a page, whether it is new, and a row that was freed."""
        return resolve(
            self.table,
            self.filter,
            self.parameters,
            self.user_rows,
            EXPIRE_TIME_MS,
            Value(np.uint64(key), field, -1),
            Moment(now_ms, page or now_ms, 0),
        )

    def size(self) -> tuple[int, int]:
        """Return rows and buckets that were ever used: all else of what is reserved was never touched."""
        return int(self.table.pool.counts[Stock.EVER_USED]), int(self.table.lookup.size[Size.BUCKETS])


@compiled
def _see_each_twice(
    table: Table,
    admission: Admission,
    parameters: AdmissionParameters,
    user_rows: Owned,
    expire_time_ms: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    first_ms: int,
) -> int:
    """See ever new keys, ten a millisecond, each twice, and sweep as the fold does; return how many had no row."""
    without = 0
    for i in range(keys.shape[0]):
        now_ms = first_ms + i // 10
        for _ in range(2):
            sweep_feature(table, user_rows, expire_time_ms, now_ms)
        for turn in range(2):
            moment = Moment(now_ms, 2 * i + turn, 0)
            row, _, _ = resolve(table, admission, parameters, user_rows, expire_time_ms, Value(keys[i], 0, -1), moment)
        without += row < 0
    return without


@pytest.mark.parametrize("field", [0, 1])
def test_a_value_starts_anew_at_exactly_its_fields_time(field: int) -> None:
    """One millisecond before its field's expire time a value must keep its row, at it get a new one, unswept."""
    expire_ms = int(EXPIRE_TIME_MS[field])
    world = World(8)
    row, is_new, _ = world.resolve(7, field, 1_000_000)
    generation = world.table.generation[row]
    assert is_new
    assert world.resolve(7, field, 1_000_000 + expire_ms - 1) == (row, False, -1)
    assert world.resolve(7, field, 1_000_000 + expire_ms) == (row, True, row)
    assert world.table.generation[row] == generation + 1
    assert int(world.table.counts[Loss.EXPIRED]) == 1


def test_a_value_whose_time_is_over_must_be_seen_often_enough_again() -> None:
    """An expired id must pass the filter from the start, and its row is freed for others at once."""
    world = World(8, threshold=3)
    assert [world.resolve(7, 0, 1_000, page)[0] for page in (1, 2, 2, 3)] == [-1, -1, -1, 0]
    assert [world.resolve(7, 0, 2_000, page)[0] for page in (4, 5, 6)] == [-1, -1, 0]
    assert int(world.table.counts[Loss.EXPIRED]) == 1


@pytest.mark.parametrize("threshold", [1, 2])
@pytest.mark.large
def test_ten_million_ever_new_ids_leave_memory_flat(threshold: int) -> None:
    """Ten million ids, ten thousand alive at a time, must use the rows and buckets of the first hundred thousand."""
    world = World(1 << 20, threshold)
    state = world.table, world.filter, world.parameters, world.user_rows
    early, late = 100_000, 9_900_000
    assert _see_each_twice(*state, EXPIRE_TIME_MS, distinct_keys(0, early), 1_000) == 0
    size = world.size()
    assert _see_each_twice(*state, EXPIRE_TIME_MS, distinct_keys(early, late), 1_000 + early // 10) == 0
    assert world.size() == size
    assert size[0] <= 10_000 + 1
    assert int(world.table.counts[Loss.EVICTED]) == 0
    last = distinct_keys(early + late - 1, 1)[0]
    assert find_row(world.table, last, 1_000 + (early + late) // 10, EXPIRE_TIME_MS) >= 0

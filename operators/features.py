"""Values of fields to rows of the table: resolved once, when an impression arrives, and remembered with it.

An impression has a value in each of its fields: its user, its item, its context, and crosses of them; a list has
several. Each value has a key, and from its admission on a row, where everything that is learned of it lies.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import admission
from thalweg.operators.admission import Admission, AdmissionParameters
from thalweg.operators.machine.compiled import compiled, uint64
from thalweg.operators.machine.declare import Float32, Int32, UInt8, UInt32, per
from thalweg.operators.machine.hashing import cross
from thalweg.operators.pages import Moment
from thalweg.operators.structures import index, ownership, table
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.table import Table
from thalweg.schemas.bounds import check, within

USER, ITEM = range(2)

HOUR_OF_DAY = "hour_of_day"
HOUR_MS = 3_600_000
DAY_MS = 86_400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class FeaturesConfiguration:
    """Which fields an impression is scored by (`[features]`), besides its user and its item.

    `context`: names of context fields; empty takes every context field, in the order of first appearance. `exclude`:
    context fields left out. `buckets`: for a number, the edges between its buckets; without, its text is a category.
    `crosses`: fields seen together as one more field, such as `["user", "tab"]`. `hour_of_day`: the hour of `ts`,
    shifted by `utc_offset_ms`, as one more field. `fields_limit`: fields at most, of all kinds. `values_limit`: values
    of one impression at most, of all fields; a record with more is dead-lettered. `emit`: put the features on each
    score.
    """

    context: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    buckets: dict[str, tuple[float, ...]] = field(default_factory=dict)
    crosses: tuple[tuple[str, str], ...] = ()
    hour_of_day: bool = False
    utc_offset_ms: Annotated[int, within(-DAY_MS, DAY_MS)] = 0
    fields_limit: Annotated[int, within(2, 64)] = 16
    values_limit: Annotated[int, within(2, 4096)] = 32
    emit: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where fields contradict each other or their limits."""
        check(self)
        if len(set(self.context)) != len(self.context):
            raise ValueError("context must name each field once")
        both = set(self.context) & set(self.exclude)
        if both:
            raise ValueError(f"context and exclude both name {sorted(both)[0]!r}")
        for name, edges in self.buckets.items():
            if not edges or list(edges) != sorted(set(edges)):
                raise ValueError(f"buckets.{name} must be rising numbers")
        for pair in self.crosses:
            unknown = [
                name for name in pair if self.context and name not in (*self.context, "user", "item", HOUR_OF_DAY)
            ]
            if unknown:
                raise ValueError(f"crosses names {unknown[0]!r}, which is not a field")
            if pair[0] == pair[1]:
                raise ValueError("crosses must pair two different fields")
        if len(self.declared_fields()) > self.fields_limit:
            raise ValueError(f"fields_limit is {self.fields_limit}, but {len(self.declared_fields())} fields are named")
        if self.values_limit < self.fields_limit:
            raise ValueError("values_limit must be at least fields_limit")

    def declared_fields(self) -> tuple[str, ...]:
        """Return the names of the fields in their places: user, item, hour, crosses, context."""
        hour = (HOUR_OF_DAY,) if self.hour_of_day else ()
        crossed = tuple("*".join(pair) for pair in self.crosses)
        crossed_context = {name for pair in self.crosses for name in pair} - {"user", "item", HOUR_OF_DAY}
        rest = tuple(name for name in sorted(crossed_context) if name not in self.context)
        return ("user", "item", *hour, *crossed, *self.context, *rest)

    def places(self) -> int:
        """Return how many fields there can be: those that are named or, with every context field taken, the limit."""
        return len(self.declared_fields()) if self.context else self.fields_limit


class Crosses(NamedTuple):
    """`field`, `first`, `second` int64 [crosses]: the places of a cross and of the fields it crosses; `salt` uint64."""

    field: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    salt: npt.NDArray[np.uint64]


class Given(NamedTuple):
    """The values of one impression or candidate before they are resolved, scratch.

    `field` int64 and `key` uint64 [values], the fields in their places' order, a list's values as they came;
    `size` int64 [1]. `resolved` uint64 [values]: the keys of all values once they are resolved, crosses and derived
    ones included.
    """

    field: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    size: npt.NDArray[np.int64]
    resolved: npt.NDArray[np.uint64]


def new_given(values: int) -> Given:
    """Return room for so many values."""
    keys, resolved = (np.zeros(values, np.uint64) for _ in range(2))
    return Given(np.zeros(values, np.int64), keys, np.zeros(1, np.int64), resolved)


@compiled
def give(given: Given, field: int, key: int) -> None:
    """Add a value behind those of its field and of the fields before it.

    So the sums over values do not depend on the order in which an event names its fields.
    """
    place = given.size[0]
    while place > 0 and given.field[place - 1] > field:
        given.field[place] = given.field[place - 1]
        given.key[place] = given.key[place - 1]
        place -= 1
    given.field[place] = field
    given.key[place] = key
    given.size[0] += 1


class Value(NamedTuple):
    """A value of an impression: its `key`, its `field`'s place, and the row of the `user` who owns it alone, or -1."""

    key: int
    field: int
    user: int


class FeaturesSeen(NamedTuple):
    """What each waiting impression was scored with: its values, and the numbers that the learner saw."""

    counts: Annotated[Int32, per("slots", "values", upto="seen", over="scored")]
    field: Annotated[UInt8, per("slots seen", below="fields", where=lambda slots: has_value(slots), over="scored")]
    row: Annotated[Int32, per("slots seen", refers="values", where=lambda slots: has_value(slots), over="scored")]
    generation: Annotated[UInt32, per("slots seen", "of the row", digest=False)]
    inputs: Annotated[Float32, per("slots inputs", "rates, residuals and interests", over="scored")]


def has_value(slots: Any) -> npt.NDArray[np.bool_]:
    """Return which places for values of impressions are filled [slots, values]."""
    found: npt.NDArray[np.bool_] = np.arange(slots.row.shape[1]) < slots.counts[:, None]
    return found


def crosses_of(configuration: FeaturesConfiguration, salts: npt.NDArray[np.uint64]) -> Crosses:
    """Return the configured crosses by the places of their fields; `salts` uint64 [fields]."""
    fields = configuration.declared_fields()
    own = [fields.index("*".join(pair)) for pair in configuration.crosses]
    places = [[fields.index(name) for name in pair] for pair in configuration.crosses]
    pairs = np.array(places, np.int64).reshape(-1, 2)
    return Crosses(np.array(own, np.int64), pairs[:, 0].copy(), pairs[:, 1].copy(), salts[np.array(own, np.int64)])


@compiled
def free_feature(values: Table, user_rows: Owned, row: int) -> None:
    """Free a value's row, and take it from the user who owned it; the caller wipes its values."""
    ownership.detach(user_rows, row)
    table.release_row(values, row)


@compiled
def resolve(
    values: Table,
    sightings: Admission,
    filter_parameters: AdmissionParameters,
    user_rows: Owned,
    expire_time_ms: npt.NDArray[np.int64],
    value: Value,
    moment: Moment,
) -> tuple[int, bool, int]:
    """Return the row of a value seen now, or -1 while it is not admitted, whether it is new, and a row freed, or -1.

    The caller wipes the row that was freed and starts the new one's values; mostly they are one. At the table's
    limit the row that was not updated for longest, of any field, makes room.
    """
    freed = table.NONE
    row = index.find(values.lookup, value.key)
    if row >= 0 and table.is_expired(values, row, moment.now_ms, expire_time_ms):
        free_feature(values, user_rows, row)
        values.counts[table.Loss.EXPIRED] += 1
        freed = row
        row = table.NONE
    if row >= 0:
        return row, False, table.NONE
    if filter_parameters.threshold > 1 and not admission.is_admitted(
        filter_parameters, value.key, admission.write_sighting(sightings, value.key, moment.page)
    ):
        return table.NONE, False, freed
    if table.is_full(values):
        freed = table.oldest_row(values)
        free_feature(values, user_rows, freed)
        values.counts[table.Loss.EVICTED] += 1
    row = table.claim_row(values, value.key, value.field, moment.now_ms)
    if row >= 0:
        values.page[row] = table.tag_of(moment.page)
    if row >= 0 and filter_parameters.threshold > 1:
        admission.forget_sightings(sightings, value.key)
    if row >= 0 and value.user >= 0:
        ownership.attach(user_rows, value.user, row)
    return row, row >= 0, freed


@compiled
def sweep_feature(values: Table, user_rows: Owned, expire_time_ms: npt.NDArray[np.int64], now_ms: int) -> int:
    """Free a row whose time is over and return it, for its values to be wiped; -1 where there is none."""
    row = table.expired_row(values, now_ms, expire_time_ms)
    if row >= 0:
        free_feature(values, user_rows, row)
        values.counts[table.Loss.EXPIRED] += 1
    return row


@compiled
def cross_keys(crosses: Crosses, which: int, keys: npt.NDArray[np.uint64]) -> int:
    """Return the key of a cross from the keys of an impression's first values [fields], or 0 where one is missing."""
    first = keys[crosses.first[which]]
    second = keys[crosses.second[which]]
    if first == 0 or second == 0:
        return uint64(0)
    return cross(first, second, crosses.salt[which])

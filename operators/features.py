"""Values of fields to rows of the table: resolved once, when an impression arrives, and remembered with it.

An impression has a value in each of its fields: its user, its item, its context, and crosses of them; a list has
several. Each value has a key, and from its admission on a row, where everything that is learned of it lies.
"""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.admission import Admission, AdmissionParameters, forget_sightings, is_admitted, write_sighting
from thalweg.operators.machine.compiled import compiled, uint64
from thalweg.operators.machine.hashing import cross
from thalweg.operators.machine.reserve import reserve
from thalweg.operators.structures.index import find
from thalweg.operators.structures.ownership import Owned, attach, detach
from thalweg.operators.structures.table import (
    EVICTED,
    EXPIRED,
    NONE,
    Table,
    claim_row,
    expired_row,
    is_expired,
    is_full,
    oldest_row,
    release_row,
)
from thalweg.schemas.bounds import check, within

USER, ITEM = range(2)
HOUR_OF_DAY = "hour_of_day"
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


class Seen(NamedTuple):
    """What each waiting impression was scored with.

    `counts` int32 [slots]; `field` uint8, `row` int32 (-1: not admitted), `generation` uint32: [slots, values];
    `inputs` float32 [slots, inputs], the numbers that the learner saw.
    """

    counts: npt.NDArray[np.int32]
    field: npt.NDArray[np.uint8]
    row: npt.NDArray[np.int32]
    generation: npt.NDArray[np.uint32]
    inputs: npt.NDArray[np.float32]


def new_seen(slots: int, values: int, inputs: int) -> Seen:
    """Return room for what `slots` impressions are scored with."""
    return Seen(
        reserve(slots, np.int32),
        reserve((slots, values), np.uint8),
        reserve((slots, values), np.int32),
        reserve((slots, values), np.uint32),
        reserve((slots, inputs), np.float32),
    )


def crosses_of(configuration: FeaturesConfiguration, salts: npt.NDArray[np.uint64]) -> Crosses:
    """Return the configured crosses by the places of their fields; `salts` uint64 [fields]."""
    fields = configuration.declared_fields()
    own = [fields.index("*".join(pair)) for pair in configuration.crosses]
    places = [[fields.index(name) for name in pair] for pair in configuration.crosses]
    pairs = np.array(places, np.int64).reshape(-1, 2)
    return Crosses(np.array(own, np.int64), pairs[:, 0].copy(), pairs[:, 1].copy(), salts[np.array(own, np.int64)])


@compiled
def free_feature(table: Table, private: Owned, row: int) -> None:
    """Free a value's row, and take it from the user who owned it; the caller wipes its values."""
    detach(private, row)
    release_row(table, row)


@compiled
def resolve(
    table: Table,
    admission: Admission,
    filter_parameters: AdmissionParameters,
    private: Owned,
    expire_time_ms: npt.NDArray[np.int64],
    key: int,
    field: int,
    user: int,
    now_ms: int,
) -> tuple[int, bool, int]:
    """Return the row of a value seen now, or -1 while it is not admitted, whether it is new, and a row freed, or -1.

    The caller wipes the row that was freed and starts the new one's values; mostly they are one. `user` is the row of
    the user who owns the value alone, or -1. At the table's limit the row that was not updated for longest, of any
    field, makes room.
    """
    freed = NONE
    row = find(table.lookup, key)
    if row >= 0 and is_expired(table, row, now_ms, expire_time_ms):
        free_feature(table, private, row)
        table.counts[EXPIRED] += 1
        freed = row
        row = NONE
    if row >= 0:
        return row, False, NONE
    if filter_parameters.threshold > 1 and not is_admitted(filter_parameters, key, write_sighting(admission, key)):
        return NONE, False, freed
    if is_full(table):
        freed = oldest_row(table)
        free_feature(table, private, freed)
        table.counts[EVICTED] += 1
    row = claim_row(table, key, field, now_ms)
    if row >= 0 and filter_parameters.threshold > 1:
        forget_sightings(admission, key)
    if row >= 0 and user >= 0:
        attach(private, user, row)
    return row, row >= 0, freed


@compiled
def sweep_feature(table: Table, private: Owned, expire_time_ms: npt.NDArray[np.int64], now_ms: int) -> int:
    """Free a row whose time is over and return it, for its values to be wiped; -1 where there is none."""
    row = expired_row(table, now_ms, expire_time_ms)
    if row >= 0:
        free_feature(table, private, row)
        table.counts[EXPIRED] += 1
    return row


@compiled
def cross_keys(crosses: Crosses, which: int, keys: npt.NDArray[np.uint64]) -> int:
    """Return the key of a cross from the keys of an impression's first values [fields], or 0 where one is missing."""
    first = keys[crosses.first[which]]
    second = keys[crosses.second[which]]
    if first == 0 or second == 0:
        return uint64(0)
    return cross(first, second, crosses.salt[which])

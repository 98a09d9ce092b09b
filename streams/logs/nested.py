"""Columns of records within records and lists, as Parquet and Arrow have them: the values at a path, row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.schemas.paths import EACH, Part
from thalweg.streams.logs.columns import is_list, plain, plain_kind, plain_members


def has_path(kind: Any, parts: Sequence[Part]) -> bool:
    """Return whether values of a type have something at a path below them."""
    kind = plain_kind(kind)
    if not parts:
        return True
    part, rest = parts[0], parts[1:]
    if is_list(kind):
        return (part.name == EACH or part.name.isdigit()) and has_path(kind.value_type, rest)
    if not pa.types.is_struct(kind) or kind.get_field_index(part.name) < 0:
        return False
    inner = plain_kind(kind.field(part.name).type)
    if not part.key:
        return has_path(inner, rest)
    return is_list(inner) and has_path(inner.value_type, [Part(part.key)]) and has_path(inner.value_type, rest)


def leaves_of(kind: Any) -> list[tuple[str, ...]]:
    """Return the names on the way to each value of a type, records within records taken apart.

    >>> leaves_of(pa.struct({"id": pa.int64(), "home": pa.struct({"city": pa.string()})}))
    [('id',), ('home', 'city')]
    """
    kind = plain_kind(kind)
    if not pa.types.is_struct(kind) or not kind.num_fields:
        return [()]
    return [(field.name, *leaf) for field in kind for leaf in leaves_of(field.type)]


def values_at(column: Any, parts: Sequence[Part]) -> Any:
    """Return what lies at a path below each value, null where nothing does; `has_path` is true of its type."""
    column = plain(column)
    if not parts:
        return column
    part, rest = parts[0], parts[1:]
    if is_list(column.type):
        return _of_each(column, rest) if part.name == EACH else values_at(_member(column, int(part.name)), rest)
    inner = plain(pc.struct_field(column, part.name))
    return values_at(_selected(inner, part) if part.key else inner, rest)


def lengths_of(column: Any) -> Any:
    """Return how many members each list has, int64 [rows], 0 where there is no list."""
    return pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _member(column: Any, place: int) -> Any:
    """Return the member of each list that is in a place."""
    lengths = lengths_of(column)
    starts = np.cumsum(lengths) - lengths
    return plain_members(column).take(pa.array(starts + place, mask=lengths <= place))


def _selected(column: Any, part: Part) -> Any:
    """Return the first member of each list whose key has the part's value."""
    lengths, members = lengths_of(column), plain_members(column)
    keys = values_at(members, [Part(part.key)]).cast(pa.large_string())
    found = pc.fill_null(pc.equal(keys, part.value), False).to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(lengths)), lengths)[found]
    rows, first = np.unique(row, return_index=True)
    places = np.zeros(len(lengths), np.int64)
    places[rows] = np.flatnonzero(found)[first]
    lacks = np.ones(len(lengths), bool)
    lacks[rows] = False
    return members.take(pa.array(places, mask=lacks))


def _of_each(column: Any, rest: Sequence[Part]) -> Any:
    """Return what lies at the rest of a path below all members of each list, one behind the other; null has no list."""
    lengths, members = lengths_of(column), values_at(plain_members(column), rest)
    counts = members.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    values = members.drop_null()
    if is_list(members.type):
        counts, values = lengths_of(members), plain_members(members)
    before = np.concatenate(([0], np.cumsum(counts)))
    ends = before[np.concatenate(([0], np.cumsum(lengths)))]
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return pa.LargeListArray.from_arrays(pa.array(ends), values, mask=pa.array(missing))

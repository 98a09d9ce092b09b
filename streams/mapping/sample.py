"""The first records of a foreign file, and what lies at which path in them."""

import csv
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from thalweg.schemas.paths import EACH
from thalweg.streams.logs.csv_tables import csv_lines
from thalweg.streams.logs.errors import LogReadError, TableError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.tables import ENDINGS, Layout, readable

RECORDS = 10_000
DEPTH_MAX = 6
_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-$: ")
_DECODE = msgspec.json.Decoder().decode


def sample(path: Path, count: int = RECORDS) -> list[dict[str, Any]]:
    """Return a file's first records as objects: rows of a table by column, or lines of JSON.

    Raises TableError where it can't be read, or has none.
    """
    name = path.name.lower()
    with readable(path):
        is_table = name.endswith(ENDINGS)
        rows = (_csv_rows(path) if not Layout(path).typed else _arrow_rows(path)) if is_table else _lines(path)
        found = list(islice(rows, count))
    if not found and is_table:
        raise TableError(f"{path} has no rows")
    if not found:
        raise TableError(f"{path} has no line that is a JSON object: write one a line, as with jq -c . or jq -c '.[]'")
    return found


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with csv_lines(path) as lines:
        for row in csv.DictReader(lines):
            yield {name: value or None for name, value in row.items() if name is not None}


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        if path.name.lower().endswith(".parquet"):
            batches = pq.ParquetFile(file).iter_batches(batch_size=RECORDS)
        else:
            arrow = pa.ipc.open_file(file)
            batches = (arrow.get_batch(number) for number in range(arrow.num_record_batches))
        for batch in batches:
            for row in batch.to_pylist():
                yield {name: _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    """Return a decimal, or a number that is whole, as what JSON would have: data frames make ids with gaps floats."""
    if isinstance(value, (float, Decimal)):
        if not isfinite(value):
            return None
        return int(value) if value == int(value) else float(value)
    if isinstance(value, dict):
        return {name: _number(each) for name, each in value.items()}
    return value


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with closing(LogReader(path, block_lines=1_000)) as log:
            for block in log:
                for record in block:
                    try:
                        found = _DECODE(record.value or b"")
                    except (msgspec.MsgspecError, UnicodeDecodeError):
                        continue
                    if type(found) is dict:
                        yield found
    except LogReadError as error:
        raise TableError(str(error)) from None


def paths_of(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the values at each path of some records, None where one has nothing there.

    >>> paths_of([{"a": {"b": 1}, "p": [{"key": "x", "value": {"int": 5}}]}, {"a": {"b": 2}}])
    {'a.b': [1, 2], 'p[key=x].value.int': [5, None]}
    """
    found: dict[str, list[Any]] = {}
    for number, record in enumerate(records):
        for path, value in _flat(record, "", DEPTH_MAX):
            found.setdefault(path, [None] * len(records))[number] = value
    return found


def quoted(name: str) -> str | None:
    """Return a name as a part of a path; None where no path can have it."""
    if name and _PLAIN_NAME.issuperset(name):
        return name
    return f'"{name}"' if name and '"' not in name and name != EACH else None


def _flat(record: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        part = quoted(name)
        if part is None:
            continue
        path = f"{prefix}{part}"
        if type(value) is dict and depth > 1:
            yield from _flat(value, f"{path}.", depth - 1)
        elif type(value) is list and value and all(type(each) is dict for each in value):
            yield from _flat_list(value, path, depth)
        elif type(value) is not dict:
            yield path, value


def _flat_list(members: list[dict[str, Any]], path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Give the members of a list of objects: by their keys where they have some, else in the first of them."""
    if all("key" in each and "value" in each for each in members):
        for each in members:
            inner = {"value": each["value"]}
            if not set(str(each["key"])) & {"]"}:
                yield from _flat(inner, f"{path}[key={each['key']}].", depth - 1)
    elif depth > 1:
        yield from _flat(members[0], f"{path}.0.", depth - 1)

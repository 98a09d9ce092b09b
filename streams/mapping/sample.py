"""The first records of a foreign file, and what lies at which path in them."""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from thalweg.streams.logs.errors import LogReadError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.tables import CSV_ENDINGS, ENDINGS, TableError, column_names, plain_text

RECORDS = 10_000
DEPTH_MAX = 6
_PLAIN_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-$: ")
_DECODE = msgspec.json.Decoder().decode


def sample(path: Path, count: int = RECORDS) -> list[dict[str, Any]]:
    """Return a file's first records as objects: rows of a table by column, or lines of JSON.

    Raises TableError where it can't be read, or has none.
    """
    name = path.name.lower()
    if name.endswith(ENDINGS):
        column_names(path)  # refuses what is no such table
        rows = _csv_rows(path) if name.endswith(CSV_ENDINGS) else _arrow_rows(path)
    else:
        rows = _lines(path)
    found = list(islice(rows, count))
    if not found:
        raise TableError(f"{path} has no record that is an object")
    return found


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        text = io.TextIOWrapper(io.BufferedReader(plain_text(path, file)), encoding="utf-8-sig", newline="")
        for row in csv.DictReader(text):
            yield {name: value or None for name, value in row.items() if name is not None}


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        if path.name.lower().endswith(".parquet"):
            batches = pq.ParquetFile(file).iter_batches(batch_size=RECORDS)
        else:
            arrow = pa.ipc.open_file(file)
            batches = (arrow.get_batch(number) for number in range(arrow.num_record_batches))
        for batch in batches:
            yield from batch.to_pylist()


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


def quoted(name: str) -> str:
    """Return a name as a part of a path."""
    return name if name and _PLAIN_NAME.issuperset(name) else f'"{name}"'


def _flat(record: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        path = f"{prefix}{quoted(name)}"
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
            yield from _flat(inner, f"{path}[key={each['key']}].", depth - 1)
    elif depth > 1:
        yield from _flat(members[0], f"{path}.0.", depth - 1)

"""Tables as files: the wanted columns of CSV, Parquet and Arrow files, or one line with the fault."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import csv as arrow_csv
from thalweg.streams.logs.compression import (
    CHUNK_BYTES,
    HEAD_BYTES,
    ByteStream,
    chosen_compression,
    decompressed,
    foreign_kind,
)
from thalweg.streams.logs.errors import LogReadError

CSV_ENDINGS = (".csv", ".csv.gz", ".csv.zst")
ARROW_ENDINGS = (".arrow", ".feather")
ENDINGS = (*CSV_ENDINGS, ".parquet", *ARROW_ENDINGS)


class TableError(Exception):
    """A table can't be imported; the message is one line with the reason and a remedy."""


class TableFile(NamedTuple):
    """A table's columns; `typed` is False where all of them are texts, since the file (CSV) knows no types."""

    table: pa.Table
    typed: bool


def read_table(path: Path, names: Sequence[str]) -> TableFile:
    """Return the named columns of a CSV, Parquet or Arrow file.

    Raises
    ------
    TableError
        The file can't be read as what its name says, has no rows, or lacks a column.

    """
    read = _read_of(path)
    with _readable(path):
        check_columns(path, names, _names_of(path))
        table = read(path, names)
    if not table.num_rows:
        raise TableError(f"{path} has no rows")
    return TableFile(table, read is not _read_csv)


def column_names(path: Path) -> list[str]:
    """Return the names of a table's columns. Raises TableError where the file can't be read."""
    _read_of(path)
    with _readable(path):
        return _names_of(path)


def _read_of(path: Path) -> Callable[[Path, Sequence[str]], pa.Table]:
    """Return what reads a file with such a name."""
    name = path.name.lower()
    if not name.endswith(ENDINGS):
        raise TableError(f"{path}: the name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}: it says the form")
    if path.is_dir():
        raise TableError(f"{path} is a folder: name one table in it")
    if name.endswith(CSV_ENDINGS):
        return _read_csv
    return _read_parquet if name.endswith(".parquet") else _read_arrow


def _names_of(path: Path) -> list[str]:
    read = _read_of(path)
    if read is _read_parquet:
        with path.open("rb") as file, pq.ParquetFile(file) as parquet:
            return list(parquet.schema_arrow.names)
    if read is _read_arrow:
        with path.open("rb") as file, pa.ipc.open_file(file) as arrow:
            return list(arrow.schema.names)
    with path.open("rb") as file:
        lines = io.TextIOWrapper(io.BufferedReader(plain_text(path, file)), encoding="utf-8-sig", newline="")
        header = next(csv.reader(lines), [])
        lines.detach()
    if not header:
        raise TableError(f"{path} is empty: a table has a line of column names and rows below it")
    return header


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise TableError for whatever goes wrong while a file is read."""
    try:
        yield
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except LogReadError as error:
        raise TableError(str(error)) from None
    except (pa.ArrowException, OSError, csv.Error, UnicodeDecodeError) as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        raise TableError(f"{path} can't be read: {strerror or str(error).splitlines()[0]}") from None


def _read_parquet(path: Path, names: Sequence[str]) -> pa.Table:
    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        return parquet.read(columns=list(names))


def _read_arrow(path: Path, names: Sequence[str]) -> pa.Table:
    with path.open("rb") as file, pa.ipc.open_file(file) as arrow:
        return arrow.read_all().select(list(names))


def _read_csv(path: Path, names: Sequence[str]) -> pa.Table:
    """Read the columns as text: pyarrow would guess types from the first block, and take the zeros off an id 007."""
    with path.open("rb") as file:
        return arrow_csv.read_csv(
            plain_text(path, file),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(names),
                column_types=dict.fromkeys(names, pa.large_string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )


def plain_text(path: Path, file: BinaryIO) -> io.RawIOBase:
    """Return the text of a CSV file, decompressed where its name ends in `.gz` or `.zst`."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if (kind := foreign_kind(head)) is not None:
        _refuse_kind(path, kind)
    compression = chosen_compression(str(path), path.suffix.lower(), head)
    return ByteStream(decompressed(iter(lambda: file.read(CHUNK_BYTES), b""), compression, str(path)))


def _refuse_kind(path: Path, kind: str) -> NoReturn:
    if "import" in kind:
        raise TableError(f"{path} is no CSV but {kind.split(':')[0]}: let its name end in .parquet or .arrow")
    raise TableError(f"{path} is {kind}")


def check_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    """Raise TableError unless each wanted column is there, once."""
    for name in wanted:
        if name not in present:
            near = get_close_matches(name, present, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(present)}"
            raise TableError(f"{path} has no column {name!r}: {known}")
        if present.count(name) > 1:
            raise TableError(f"{path} has the column {name!r} twice: rename one")

"""CSV files as columns of texts, and in plain words what is wrong with one that can't be read."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa
from pyarrow import csv as arrow_csv
from thalweg.streams.logs.compression import (
    CHUNK_BYTES,
    HEAD_BYTES,
    ByteStream,
    chosen_compression,
    decompressed,
    foreign_kind,
)
from thalweg.streams.logs.errors import TableError

ROW_BYTES_MAX = 16 * 1024 * 1024
SHOWN_CHARACTERS = 60
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_BEHIND = "\0behind the file"


def header_of(path: Path) -> list[str]:
    """Return the names of a CSV file's columns.

    Raises TableError where it has none, or where something else than commas separates them.
    """
    with csv_lines(path) as lines:
        header = next(filter(None, csv.reader(lines)), [])
    if not header:
        raise TableError(f"{path} is empty: a table has a line of column names and rows below it")
    if len(header) == 1:
        for separator, told in _OTHER_SEPARATORS.items():
            if separator in header[0]:
                raise TableError(f"{path} has {told} between its columns: write it with commas")
    if "\0" in "".join(header):
        raise TableError(f"{path} has zero bytes in its line of names: if it is UTF-16, save it as UTF-8")
    return header


@contextmanager
def csv_lines(path: Path) -> Iterator[Iterator[str]]:
    """Give an iterator over a CSV file's lines, for `csv.reader` or `csv.DictReader`.

    Raises TableError where the text is not UTF-8, or a value is longer than `ROW_BYTES_MAX`.
    """
    before = csv.field_size_limit(ROW_BYTES_MAX)
    try:
        with path.open("rb") as file:
            text = io.TextIOWrapper(io.BufferedReader(plain_text(path, file)), encoding="utf-8-sig", newline="")
            yield text
            text.detach()
    except UnicodeDecodeError as error:
        byte = error.object[error.start : error.start + 1].hex()
        raise TableError(
            f"{path} is not UTF-8 (it has a byte {byte}): save it as UTF-8, as with iconv -f WINDOWS-1252 -t UTF-8"
        ) from None
    except csv.Error:
        raise TableError(
            f"{path} has a value of more than {ROW_BYTES_MAX >> 20} MiB: shorten it, or close a quote that is open"
        ) from None
    finally:
        csv.field_size_limit(before)


def read_csv(path: Path, names: Sequence[str]) -> pa.Table:
    """Return some columns as text: pyarrow would guess types from the first block, and take the zeros off an id 007.

    Raises TableError where the file can't be read, with the row that is wrong.
    """
    with path.open("rb") as file:
        counted = _Quotes(plain_text(path, file))
        try:
            table = arrow_csv.read_csv(
                counted,
                read_options=arrow_csv.ReadOptions(block_size=ROW_BYTES_MAX),
                parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=list(names),
                    column_types=dict.fromkeys(names, pa.large_string()),
                    strings_can_be_null=True,
                    null_values=[""],
                ),
            )
        except pa.ArrowInvalid as error:
            _refuse_faults(path)
            raise TableError(f"{path} can't be read: {str(error).splitlines()[0]}") from None
    if counted.quotes % 2:  # perhaps only an inch sign; a quote that is never closed swallows all rows behind it
        _refuse_faults(path)
    return table


class _Quotes(io.RawIOBase):
    """A file that counts the quotes that are read from it."""

    def __init__(self, file: io.RawIOBase) -> None:
        super().__init__()
        self.quotes = 0
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        # Filled whole, since a reader takes what one call returns as a block, and no row may be longer than a block.
        target = memoryview(buffer).cast("B")
        size = 0
        while size < len(target) and (more := self._file.readinto(target[size:])):
            size += more
        self.quotes += target[:size].tobytes().count(b'"')
        return size


def _refuse_faults(path: Path) -> None:
    """Raise TableError for the first row that is no row of the table, slowly; return where there is none."""
    number, names = -1, 0
    row: list[str] = []
    with csv_lines(path) as lines:
        # A line behind the file is a row of its own, unless a quote is open.
        for row in filter(None, csv.reader(chain(lines, [_BEHIND]))):
            if number < 0:
                names = len(row)
            elif row != [_BEHIND] and not row[-1].endswith(_BEHIND) and len(row) != names:
                shown = ",".join(row)[:SHOWN_CHARACTERS]
                raise TableError(
                    f"{path} has {names} columns, and {len(row)} values in row {number} ({shown!r}): "
                    "leave none out, and quote those that have a comma"
                )
            number += 1
    if row != [_BEHIND]:
        raise TableError(f"{path} has a quote in row {number - 1} that is never closed: close it, or double it")
    if number == 1:
        raise TableError(f"{path} has no rows")


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

"""Tables as files: the wanted columns of CSV, Parquet and Arrow files, or one line with the fault."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from thalweg.schemas.paths import Part, parse
from thalweg.streams.logs.columns import column_of
from thalweg.streams.logs.csv_tables import header_of, read_csv
from thalweg.streams.logs.errors import LogReadError, TableError
from thalweg.streams.logs.nested import has_path, leaves_of, values_at

CSV_ENDINGS = (".csv", ".csv.gz", ".csv.zst")
ARROW_ENDINGS = (".arrow", ".feather")
PARQUET_ENDING = ".parquet"
ENDINGS = (*CSV_ENDINGS, PARQUET_ENDING, *ARROW_ENDINGS)
LINE_ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".json")
NAMES_SHOWN = 20

Place = tuple[Part, ...]


class TableFile(NamedTuple):
    """A table's columns; `typed` is False where all of them are texts, since the file (CSV) knows no types."""

    table: pa.Table
    typed: bool


class Layout:
    """Which columns a file has.

    Parameters
    ----------
    path
        The file: `.csv`, `.csv.gz`, `.csv.zst`, `.parquet`, `.arrow`, `.feather`.

    Raises
    ------
    TableError
        The file can't be read as what its name says.

    """

    def __init__(self, path: Path) -> None:
        """Read the names and types; the parameters are the class's."""
        self._path = path
        self.typed = not _is_csv(path)
        with readable(path):
            if self.typed:
                kinds = [(field.name, field.type) for field in _schema(path)]
            else:
                kinds = [(name, pa.large_string()) for name in header_of(path)]
        self.names = [name for name, _ in kinds]
        """Names of the columns, in their order."""
        self._kinds = dict(kinds)

    def leaves(self) -> list[tuple[str, ...]]:
        """Return the names on the way to each value, records within a column taken apart."""
        return [(name, *leaf) for name in self.names for leaf in leaves_of(self._kinds[name])]

    def find(self, parts: Sequence[Part]) -> Place | None:
        """Return where a path leads, None where there is nothing: a column so named, or a value within one.

        Raises TableError where two columns have that name.
        """
        name = ".".join(part.name for part in parts)
        if not any(part.key for part in parts) and name in self.names:
            self._check(name)
            return (Part(name),)
        if parts[0].name not in self._kinds:
            return None
        self._check(parts[0].name)
        return tuple(parts) if has_path(pa.struct([(parts[0].name, self._kinds[parts[0].name])]), parts) else None

    def column(self, name: str) -> Place:
        """Return where a column is, by its name or a path into one. Raises TableError where there is none."""
        if name in self._kinds:
            self._check(name)
            return (Part(name),)
        try:
            alternatives = parse(name)
        except ValueError:
            raise self.missing(name) from None
        found = self.find(alternatives[0]) if len(alternatives) == 1 else None
        if found is None:
            raise self.missing(name)
        return found

    def missing(self, name: str) -> TableError:
        """Return what to say of a column that is not there."""
        known = [".".join(leaf) for leaf in self.leaves()]
        near = get_close_matches(name, known, 1, 0.5)
        shown = ", ".join(known[:NAMES_SHOWN])
        more = f" and {len(known) - NAMES_SHOWN:,} more" if len(known) > NAMES_SHOWN else ""
        told = f"did you mean {near[0]!r}?" if near else f"there are {shown}{more}"
        return TableError(f"{self._path} has no column {name!r}: {told}")

    def _check(self, name: str) -> None:
        if self.names.count(name) > 1:
            raise TableError(f"{self._path} has the column {name!r} twice: rename one")

    def read(self, columns: dict[str, Place]) -> TableFile:
        """Return columns under new names. Raises TableError where the file can't be read, or has no rows."""
        wanted = list(dict.fromkeys(found[0].name for found in columns.values()))
        with readable(self._path):
            table = _read(self._path, wanted)
            if not table.num_rows:
                raise TableError(f"{self._path} has no rows")
            return TableFile(pa.table({name: _values(table, found) for name, found in columns.items()}), self.typed)


def read_table(path: Path, names: Sequence[str]) -> TableFile:
    """Return the named columns of a CSV, Parquet or Arrow file; a name may be a path into a column of records.

    Raises
    ------
    TableError
        The file can't be read as what its name says, has no rows, or lacks a column.

    """
    layout = Layout(path)
    return layout.read({name: layout.column(name) for name in names})


def _values(table: pa.Table, found: Place) -> Any:
    if len(found) == 1 and not found[0].key:
        return table.column(found[0].name)
    column = column_of(table, found[0].name)
    return values_at(pa.StructArray.from_arrays([column], [found[0].name]), found)


def _is_csv(path: Path) -> bool:
    """Return whether a file is CSV. Raises TableError where its name is not that of a table."""
    name = path.name.lower()
    if name.endswith(LINE_ENDINGS):
        raise TableError(
            f"{path} is no table but JSON: only `thalweg import` takes JSON lines, .jsonl, with a [mapping] "
            "(`thalweg mapping suggest` prints one)"
        )
    if not name.endswith(ENDINGS):
        raise TableError(f"{path}: the name must end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}: it says the form")
    if path.is_dir():
        raise TableError(f"{path} is a folder: name one table in it")
    return name.endswith(CSV_ENDINGS)


def _schema(path: Path) -> pa.Schema:
    with path.open("rb") as file:
        if path.name.lower().endswith(PARQUET_ENDING):
            with pq.ParquetFile(file) as parquet:
                return parquet.schema_arrow
        with pa.ipc.open_file(file) as arrow:
            return arrow.schema


def _read(path: Path, names: Sequence[str]) -> pa.Table:
    if _is_csv(path):
        return read_csv(path, names)
    with path.open("rb") as file:
        if path.name.lower().endswith(PARQUET_ENDING):
            with pq.ParquetFile(file) as parquet:
                return parquet.read(columns=list(names)).select(list(names))
        with pa.ipc.open_file(file) as arrow:
            return arrow.read_all().select(list(names))


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise TableError for whatever goes wrong while a file is read."""
    try:
        yield
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except LogReadError as error:
        raise TableError(str(error)) from None
    except (pa.ArrowException, OSError) as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        raise TableError(f"{path} can't be read: {strerror or str(error).splitlines()[0]}") from None

"""Tables of impressions with labels, CSV or Parquet, as a log: an impression a row, a feedback where positive."""

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

ID_BYTES_MAX = 256
EVENTS_A_BLOCK = 1 << 15
UNITS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
YEAR_2000_MS, YEAR_2100_MS = 946_684_800_000, 4_102_444_800_000


class TableError(Exception):
    """A table can't be imported; the message is one line and says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which column of the table is what.

    Parameters
    ----------
    user, item
        Columns of the user's and the item's id; they become text.
    time, time_unit
        Column of the event time and its unit, `s`, `ms` or `us`; None where the column has dates, or milliseconds.
    label
        Column of the outcome: 0 or 1, true or false.
    id
        Column of the impression's id; None numbers the rows from 0.
    context
        Columns that become context fields.
    split
        Context columns that are lists, with what separates their elements.
    base_score
        Column of a slower model's probability.

    """

    user: str
    item: str
    time: str
    time_unit: str | None = None
    label: str
    id: str | None = None
    context: tuple[str, ...] = ()
    split: tuple[tuple[str, str], ...] = ()
    base_score: str | None = None

    @property
    def names(self) -> list[str]:
        """All columns that are read, each once."""
        named = [self.user, self.item, self.time, self.label, self.id, self.base_score, *self.context]
        return list(dict.fromkeys(name for name in named if name is not None))


class Imported(NamedTuple):
    """What a table became: counts of events, and the first and last event time."""

    impressions: int
    feedback: int
    first_ms: int
    last_ms: int


class Events:
    """A table's events in the order of (time, impression before feedback, row), every value checked.

    Parameters
    ----------
    path
        The table: `.csv`, `.csv.gz`, `.parquet`.
    columns
        Which column is what.
    feedback_delay_ms
        Time from an impression to its feedback.

    Raises
    ------
    TableError
        The file can't be read, a column is missing, or a value can't be used: the row (from 0) is named.

    """

    def __init__(self, path: Path, columns: Columns, *, feedback_delay_ms: int = 1000) -> None:
        """Read and check the table; the parameters are the class's."""
        table = read_table(path, columns)
        self._columns = columns
        self._users = _ids(table, columns.user)
        self._items = _ids(table, columns.item)
        # A feedback's id is the impression's with ":click" after it, and must fit too.
        id_bytes_max = ID_BYTES_MAX - len(":click")
        self._ids = None if columns.id is None else _unique(_ids(table, columns.id, id_bytes_max), columns.id)
        self._context = {name: _context(table, name, dict(columns.split).get(name)) for name in columns.context}
        self._base_scores = None if columns.base_score is None else _base_scores(table, columns.base_score)
        ts_ms = _times(table, columns.time, columns.time_unit)
        positive = np.flatnonzero(_labels(table, columns.label))
        rows = np.arange(len(ts_ms))
        row = np.concatenate([rows, positive])
        kind = np.concatenate([np.zeros(len(rows), np.int8), np.ones(len(positive), np.int8)])
        ts = np.concatenate([ts_ms, ts_ms[positive] + feedback_delay_ms])
        order = np.lexsort((row, kind, ts))
        self._row, self._kind, self._ts = row[order], kind[order], ts[order]
        self.imported = Imported(len(rows), len(positive), int(self._ts[0]), int(self._ts[-1]))

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time."""
        encode = msgspec.json.Encoder().encode
        for start in range(0, len(self._row), EVENTS_A_BLOCK):
            yield b"".join([encode(event) + b"\n" for event in self._events(slice(start, start + EVENTS_A_BLOCK))])

    def _events(self, block: slice) -> Iterator[dict[str, Any]]:
        rows = self._row[block]
        feedback = self._kind[block].tolist()
        times = self._ts[block].tolist()
        # Only the block's rows become Python objects: a table of some millions would fill the memory.
        users, items = self._users.take(rows).to_pylist(), self._items.take(rows).to_pylist()
        ids = list(map(str, rows.tolist())) if self._ids is None else self._ids.take(rows).to_pylist()
        names = list(self._context)
        fields = [self._context[name].take(rows).to_pylist() for name in names]
        contexts: Iterable[tuple[Any, ...]] = zip(*fields, strict=True) if fields else [()] * len(rows)
        scores = [None] * len(rows) if self._base_scores is None else self._base_scores.take(rows).to_pylist()
        for is_feedback, id_, user, item, ts, values, score in zip(
            feedback, ids, users, items, times, contexts, scores, strict=True
        ):
            if is_feedback:
                yield {
                    "type": "feedback",
                    "id": f"{id_}:click",
                    "impression": id_,
                    "user": user,
                    "item": item,
                    "ts": ts,
                    "action": "click",
                }
                continue
            context = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            event = {"type": "impression", "id": id_, "user": user, "item": item, "ts": ts, "context": context}
            if score is not None:
                event["base_score"] = score
            yield event


def read_table(path: Path, columns: Columns) -> "pa.Table":
    """Return the named columns of a CSV or Parquet file.

    Raises
    ------
    TableError
        pyarrow is not installed, the file can't be read as what its name says, has no rows, or lacks a column.

    """
    try:
        import pyarrow as pa
    except ImportError:
        raise TableError("importing tables needs pyarrow: pip install 'thalweg[import]'") from None
    name = path.name.lower()
    if not name.endswith((".csv", ".csv.gz", ".parquet")):
        raise TableError(f"{path}: the name must end in .csv, .csv.gz or .parquet, to say what the table is")
    if path.is_dir():
        raise TableError(f"{path} is a folder: name one table in it")
    try:
        table = _read_parquet(path, columns) if name.endswith(".parquet") else _read_csv(path, columns)
    except FileNotFoundError:
        raise TableError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        strerror = error.strerror if isinstance(error, OSError) else None
        raise TableError(f"{path} can't be read: {strerror or str(error).splitlines()[0]}") from None
    if not table.num_rows:
        raise TableError(f"{path} has no rows")
    return table


def _read_parquet(path: Path, columns: Columns) -> "pa.Table":
    import pyarrow.parquet as pq

    with path.open("rb") as file, pq.ParquetFile(file) as parquet:
        _check_columns(path, columns.names, parquet.schema_arrow.names)
        return parquet.read(columns=columns.names)


def _read_csv(path: Path, columns: Columns) -> "pa.Table":
    """Read the columns as text: pyarrow would guess types from the first block, and take the zeros off an id 007."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file), [])
    if not header:
        raise TableError(f"{path} is empty: a table has a line of column names and rows below it")
    _check_columns(path, columns.names, header)
    return arrow_csv.read_csv(
        path,
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=columns.names,
            column_types=dict.fromkeys(columns.names, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _check_columns(path: Path, wanted: Sequence[str], present: Sequence[str]) -> None:
    for name in wanted:
        if name not in present:
            near = get_close_matches(name, present, 1, 0.5)
            known = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(present)}"
            raise TableError(f"{path} has no column {name!r}: {known}")
        if present.count(name) > 1:
            raise TableError(f"{path} has the column {name!r} twice: rename one")


def _column(table: "pa.Table", name: str) -> Any:
    """Return a column in one piece, its dictionary decoded."""
    import pyarrow as pa

    column = table.column(name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    column = column.combine_chunks()
    return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column


def _read_text(column: Any, *types: Any) -> Any:
    """Return a column of text as the first type that all of its values read as, else as it is."""
    import pyarrow as pa

    if not _is_text(column.type):
        return column
    for kind in types:
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return column


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _refuse_null(column: Any, name: str) -> None:
    if column.null_count:
        raise TableError(f"column {name!r} is empty in row {_first(column.is_null())}: every row needs one")


def _first(mask: Any) -> int:
    """Return the first row where a mask is true, -1 if there is none."""
    flags = np.asarray(mask.to_numpy(zero_copy_only=False) if hasattr(mask, "to_numpy") else mask, dtype=bool)
    return int(np.argmax(flags)) if flags.any() else -1


def _ids(table: "pa.Table", name: str, bytes_max: int = ID_BYTES_MAX) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(table, name)
    _refuse_null(column, name)
    if pa.types.is_floating(column.type):
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise TableError(f"column {name!r} has fractions: an id is a text or a whole number") from None
    if not (_is_text(column.type) or pa.types.is_integer(column.type)):
        raise TableError(f"column {name!r} is of type {column.type}: an id is a text or a whole number")
    column = column.cast(pa.string())
    length = pc.binary_length(column).to_numpy()
    if (row := _first((length == 0) | (length > bytes_max))) >= 0:
        raise TableError(f"column {name!r} has {length[row]} bytes in row {row}: an id has 1 to {bytes_max}")
    return column


def _unique(ids: Any, name: str) -> Any:
    coded = ids.dictionary_encode().indices.to_numpy()
    order = np.argsort(coded, kind="stable")
    again = np.flatnonzero(coded[order][1:] == coded[order][:-1])
    if len(again):
        first, second = (int(order[place]) for place in (again[0], again[0] + 1))
        raise TableError(
            f"column {name!r} has {ids[first].as_py()!r} in rows {first} and {second}: "
            "an impression's id is unique; without --id the rows are numbered"
        )
    return ids


def _times(table: "pa.Table", name: str, unit: str | None) -> npt.NDArray[np.int64]:
    """Return event times in whole milliseconds; below one, numbers round to the nearest even, microseconds down."""
    import pyarrow as pa

    column = _column(table, name)
    _refuse_null(column, name)
    column = _read_text(column, pa.int64(), pa.float64(), pa.timestamp("us"), pa.timestamp("us", "UTC"))
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        if unit is not None:
            raise TableError(f"column {name!r} has dates: leave the unit {unit!r} out")
        moments = column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False)
        times, to_ms = moments.cast(pa.int64()).to_numpy(), UNITS["us"]
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        times, to_ms = column.to_numpy(), UNITS[unit or "ms"]
    else:
        raise TableError(f"column {name!r} is of type {column.type}: a time is a number or an ISO 8601 date")
    # Compared as floats before anything is multiplied: no overflow, and NaN is outside too.
    rough_ms = times.astype(np.float64) * to_ms
    if (row := _first(~((rough_ms >= YEAR_2000_MS) & (rough_ms <= YEAR_2100_MS)))) >= 0:
        raise TableError(
            f"column {name!r} is {column[row].as_py()} in row {row}, which is not within 2000 and 2100 as "
            f"{unit or ('ms' if to_ms == 1 else 'a date')}: say the unit, as --time {name}:s, :ms or :us"
        )
    if times.dtype.kind == "f":
        rounded: npt.NDArray[np.int64] = np.rint(rough_ms).astype(np.int64)
        return rounded
    whole: npt.NDArray[np.int64] = times.astype(np.int64)
    return whole // 1000 if to_ms < 1 else whole * int(to_ms)


def _labels(table: "pa.Table", name: str) -> npt.NDArray[np.bool_]:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(table, name)
    _refuse_null(column, name)
    column = _read_text(column, pa.bool_(), pa.float64())
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if not (is_number or pa.types.is_boolean(column.type)):
        if not _is_text(column.type):
            raise TableError(f"column {name!r} is of type {column.type}: a label is 0 or 1, true or false")
        row = _first(pc.invert(pc.is_in(pc.utf8_lower(column), pa.array(["0", "1", "true", "false"]))))
        raise TableError(f"column {name!r} is {column[row].as_py()!r} in row {row}: a label is 0 or 1, true or false")
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    if (row := _first((values != 0) & (values != 1))) >= 0:
        raise TableError(f"column {name!r} is {column[row].as_py()} in row {row}: a label is 0 or 1, true or false")
    positive: npt.NDArray[np.bool_] = values == 1
    return positive


def _base_scores(table: "pa.Table", name: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _read_text(_column(table, name), pa.float64())
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise TableError(f"column {name!r} is of type {column.type}: a base score is a probability")
    column = column.cast(pa.float64(), safe=False)
    column = pc.if_else(pc.is_nan(column), None, column)
    if (row := _first(pc.invert(pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, 1))).fill_null(False))) >= 0:
        raise TableError(f"column {name!r} is {column[row].as_py()} in row {row}: a base score lies within 0 and 1")
    return column


def _context(table: "pa.Table", name: str, separator: str | None) -> Any:
    """Return a context column as numbers, texts or lists of texts; what is empty or NaN is null, and left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _column(table, name)
    kind = column.type
    if separator is not None:
        if not _is_text(kind):
            raise TableError(f"column {name!r} is of type {kind}: only texts can be split")
        return pc.split_pattern(column.cast(pa.string()), separator)
    column = _read_text(column, pa.int64(), pa.float64())
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), None, column)
        if (row := _first(pc.is_inf(column).fill_null(False))) >= 0:
            raise TableError(f"column {name!r} is infinite in row {row}: a context number is finite")
        return column
    if pa.types.is_boolean(kind):
        return column.cast(pa.string())
    if pa.types.is_integer(kind) or _is_text(kind):
        return column
    if pa.types.is_list(kind) and _is_text(kind.value_type):
        return column
    raise TableError(f"column {name!r} is of type {kind}: context is numbers, texts or lists of texts")

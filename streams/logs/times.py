"""A column of times as whole milliseconds: numbers of a known unit, dates of a type, ISO 8601 texts."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.schemas.events import EARLIEST_TS_MS, END_TS_MS
from thalweg.streams.logs.columns import NUMBER, column_of, first_row, refuse_null, row_at
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT

TICKS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
"""Units of time by the name that `--time` takes."""

FORMS = (
    "a time is a number of s, ms, us or ns (--time {name}:s), or ISO 8601: 2024-03-31T02:30:00.123456789Z, "
    "2024-03-31 02:30:00+02:00, or without a zone and then UTC"
)
_INTEGER = r"^[-+]?\d+$"
_DATE = r"^\d{4}-\d\d-\d\d"
_CLOCK = r"[T ]\d\d(:\d\d(:\d\d(\.\d+)?)?)?"
_ZONE = r" ?(Z|UTC|GMT|[-+]\d\d(:?\d\d)?)$"
_ZONED, _NAIVE = f"{_DATE}{_CLOCK}{_ZONE}", f"{_DATE}({_CLOCK})?$"
_YEARS = tuple(1970 + round(ms / 86_400_000 / 365.2425) for ms in (EARLIEST_TS_MS, END_TS_MS))


class Times:
    """A column of times.

    Parameters
    ----------
    table, name
        The table, and the column's name.
    unit
        Unit of numbers, `s`, `ms`, `us` or `ns`; None: milliseconds.

    Raises
    ------
    TableError
        A value is missing, is of no form that is taken, or lies outside the years of the wire; row and value are named.

    """

    def __init__(self, table: pa.Table, name: str, unit: str | None) -> None:
        """Read the column; the parameters are the class's."""
        column = column_of(table, name)
        refuse_null(column, name)
        self.without_zone = False
        self._name = name
        self._shown = column
        self._unit = unit
        self.has_dates = False
        self.ms: npt.NDArray[np.int64] = self._milliseconds(column)

    def _milliseconds(self, column: Any) -> npt.NDArray[np.int64]:
        """Return whole milliseconds, int64 [rows]; floats round to the nearest, integers and dates down."""
        kind = column.type
        unit = self._unit or "ms"
        if kind == TEXT:
            column, unit = self._read_texts(pc.utf8_trim_whitespace(column))
        elif pa.types.is_timestamp(kind):
            self._refuse_unit()
            self.without_zone = kind.tz is None
            column, unit = column.cast(pa.int64()), kind.unit
        elif pa.types.is_date(kind):
            self._refuse_unit()
            column, unit = column.cast(pa.timestamp("ms")).cast(pa.int64()), "ms"
        elif pa.types.is_decimal(kind):
            column = column.cast(pa.float64())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise TableError(f"column {self._name!r} is of type {kind}: {FORMS.format(name=self._name)}")
        if kind in (pa.float16(), pa.float32()):
            raise TableError(
                f"column {self._name!r} is of type {kind}, which is too coarse for times: write it as integers or "
                "doubles"
            )
        times = column.to_numpy()
        ticks = TICKS_PER_S[unit]
        # Compared as floats before anything is multiplied: no overflow, and NaN is outside too.
        rough_ms = times.astype(np.float64) * (1000 / ticks)
        self._refuse_outside(rough_ms, unit)
        ms: npt.NDArray[np.int64]
        if times.dtype.kind == "f":
            ms = np.rint(rough_ms).astype(np.int64)
        else:
            whole = times.astype(np.int64)
            ms = whole * (1000 // ticks) if ticks <= 1000 else whole // (ticks // 1000)
        self._refuse_outside(ms, unit)
        return ms

    def _read_texts(self, texts: Any) -> tuple[Any, str]:
        """Return texts as numbers, and their unit."""
        forms = {form: pc.match_substring_regex(texts, form) for form in (_INTEGER, NUMBER, _ZONED, _NAIVE)}
        known = pc.or_(pc.or_(forms[NUMBER], forms[_ZONED]), forms[_NAIVE])
        if (row := first_row(pc.invert(known))) >= 0:
            raise TableError(self._told(row, FORMS.format(name=self._name)))
        if pc.all(forms[NUMBER]).as_py():
            numbers = pa.int64() if pc.all(forms[_INTEGER]).as_py() else pa.float64()
            try:
                return pc.replace_substring_regex(texts, r"^\+", "").cast(numbers), self._unit or "ms"
            except pa.ArrowInvalid:  # beyond int64
                return texts.cast(pa.float64()), self._unit or "ms"
        self._refuse_mixed(forms)
        self._refuse_unit()
        self.without_zone = bool(pc.all(forms[_NAIVE]).as_py())
        texts = pc.replace_substring_regex(texts, r"(\.\d{9})\d+", r"\1")
        texts = pc.replace_substring_regex(
            pc.replace_substring_regex(texts, " ?(UTC|GMT)$", "Z"), r" ([-+]\d\d)", r"\1"
        )
        kind = pa.timestamp("ns") if self.without_zone else pa.timestamp("ns", "UTC")
        try:
            return texts.cast(kind).cast(pa.int64()), "ns"
        except pa.ArrowInvalid:
            row = row_at(first_failing(texts, kind))
            raise TableError(self._told(row, f"that is no moment from {_YEARS[0]} to {_YEARS[1]}")) from None

    def _refuse_mixed(self, forms: dict[str, Any]) -> None:
        """Raise TableError where a column has times of more than one form: one of them would be misread."""
        told = {NUMBER: "a number", _ZONED: "a date with a zone", _NAIVE: "a date without a zone"}
        rows = sorted((row, word) for form, word in told.items() if (row := first_row(forms[form])) >= 0)
        if len(rows) > 1:
            (first, one), (second, other) = rows[:2]
            shown = [repr(self._shown[row].as_py()) for row in (first, second)]
            raise TableError(
                f"column {self._name!r} has {one} in row {first} ({shown[0]}) and {other} in row {second} "
                f"({shown[1]}): write all of its times in one form; {FORMS.format(name=self._name)}"
            )

    def _refuse_outside(self, ms: npt.NDArray[Any], unit: str) -> None:
        if (row := first_row(~((ms >= EARLIEST_TS_MS) & (ms < END_TS_MS)))) < 0:
            return
        years = f"not within {_YEARS[0]} and {_YEARS[1]}"
        if self.has_dates:
            raise TableError(f"column {self._name!r} is {self._shown[row].as_py()} in row {row}, which is {years}")
        raise TableError(
            f"column {self._name!r} is {self._shown[row].as_py()} in row {row}, which is {years} as {unit}: say the "
            f"unit, as --time {self._name}:s, :ms, :us or :ns"
        )

    def _refuse_unit(self) -> None:
        self.has_dates = True
        if self._unit is not None:
            raise TableError(
                f"column {self._name!r} has dates: leave the unit {self._unit!r} out, or in a [mapping] say "
                'time_unit = "iso"'
            )

    def _told(self, row: int, expected: str) -> str:
        return f"column {self._name!r} is {self._shown[row].as_py()!r} in row {row}: {expected}"


def first_failing(texts: Any, kind: Any) -> int:
    """Return the first row of some texts that can't be cast, where one can't."""
    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            texts[low:middle].cast(kind)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low

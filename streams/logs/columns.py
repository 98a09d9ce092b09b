"""Columns of a table as what events need: ids, labels and scores, every value checked and none changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT

NULL_WORDS = ("", "\\n", "null", "nan", "-nan", "none", "na", "n/a", "#n/a", "<na>", "nat", "nil", "undefined")
"""What databases and data frames write where there is no value, in small letters."""

KEEP = "--keep-null-words"


def column_of(table: pa.Table, name: str) -> Any:
    """Return a column in one piece: dictionaries and runs decoded, every kind of text as large_string, valid UTF-8."""
    pieces = [plain(piece) for piece in table.column(name).chunks]
    column = pa.concat_arrays(pieces) if pieces else pa.nulls(0)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise TableError(f"column {name!r} holds what is no text or no value: {str(error).splitlines()[0]}") from None
    return column


def plain(piece: Any) -> Any:
    """Return an array without what only its storage is about: dictionaries, runs, extension types, kinds of text."""
    kind = piece.type
    if isinstance(kind, pa.UuidType):
        return pa.array([None if value is None else str(value) for value in piece.to_pylist()], TEXT)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(piece.storage)
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(piece))
    if pa.types.is_dictionary(kind):
        return plain(piece.dictionary).take(piece.indices)
    return piece.cast(TEXT) if _is_text(kind) else piece


def plain_kind(kind: Any) -> Any:
    """Return the type that `plain` makes of arrays of a type, as far as records and lists go."""
    if isinstance(kind, pa.BaseExtensionType) and not isinstance(kind, pa.UuidType):
        return plain_kind(kind.storage_type)
    return plain_kind(kind.value_type) if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else kind


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_list(kind: Any) -> bool:
    """Return whether a type is one of Arrow's five kinds of lists."""
    types = pa.types
    checks = (
        types.is_list,
        types.is_large_list,
        types.is_fixed_size_list,
        types.is_list_view,
        types.is_large_list_view,
    )
    return any(check(kind) for check in checks)


def plain_members(column: Any) -> Any:
    """Return the members of a column of lists, one behind the other, as `column_of` returns a column."""
    return plain(pc.list_flatten(column))


class Row(int):
    """A row's place in a column, which a message shows as the row that it came from."""

    shown: int

    def __format__(self, form: str) -> str:
        """Return the row that is shown."""
        return format(self.shown, form)


_ROWS: ContextVar[npt.NDArray[np.int64] | None] = ContextVar("rows", default=None)


@contextmanager
def rows_shown(rows: npt.NDArray[np.int64] | None) -> Iterator[None]:
    """Let messages name rows by these numbers, one for each place; None: by their places."""
    token = _ROWS.set(rows)
    try:
        yield
    finally:
        _ROWS.reset(token)


def row_at(place: int) -> int:
    """Return a place in a column as what a message may show."""
    rows = _ROWS.get()
    if rows is None or place < 0:
        return place
    row = Row(place)
    row.shown = int(rows[place])
    return row


def first_row(mask: Any) -> int:
    """Return the first row where a mask is true, -1 if there is none; null is not true."""
    if not isinstance(mask, np.ndarray):
        mask = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    flags = np.asarray(mask, dtype=bool)
    return row_at(int(np.argmax(flags))) if flags.any() else -1


def refuse_null(column: Any, name: str) -> None:
    """Raise TableError where a value is missing."""
    if column.null_count:
        row = first_row(column.is_null())
        raise TableError(f"column {name!r} is empty in row {row}: every row needs one; leave out rows that have none")


def are_null_words(texts: Any) -> Any:
    """Return which texts are words for no value; null where there is no text."""
    return pc.is_in(pc.utf8_lower(pc.utf8_trim_whitespace(texts)), pa.array(NULL_WORDS, TEXT))


def without_null_words(column: Any, *, keep: bool) -> Any:
    """Return a column of texts with null in place of words for no value."""
    if keep or column.type != TEXT:
        return column
    return pc.if_else(pc.fill_null(are_null_words(column), False), pa.scalar(None, TEXT), column)


def id_texts(column: Any, name: str, what: str = "an id") -> Any:
    """Return ids as texts; a type that can no longer tell two of them apart is refused. `what` is for messages.

    Texts and integers of every width stay what they are, whole decimals and floats lose their point. A float that lies
    beyond its whole numbers (2^53 in float64) may have been another id before it was one.
    """
    kind = column.type
    if kind == TEXT:
        return column
    if pa.types.is_null(kind) or pa.types.is_integer(kind):
        return column.cast(TEXT)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
        refuse_imprecise(column, name)
        try:
            return column.cast(pa.float64()).cast(pa.int64()).cast(TEXT)
        except pa.ArrowInvalid:
            raise TableError(f"column {name!r} has fractions: {what} is a text or a whole number") from None
    if pa.types.is_decimal(kind):
        try:
            return whole_decimals(column).cast(TEXT)
        except pa.ArrowInvalid:
            raise TableError(f"column {name!r} has fractions: {what} is a text or a whole number") from None
    raise TableError(f"column {name!r} is of type {kind}: {what} is a text or a whole number")


def whole_decimals(column: Any) -> Any:
    """Return decimals without a point; pyarrow's ArrowInvalid where one has a fraction."""
    wide = pa.decimal256(76, 0) if pa.types.is_decimal256(column.type) else pa.decimal128(38, 0)
    return column.cast(wide)


def refuse_imprecise(column: Any, name: str) -> None:
    """Raise TableError where a float is so large that the one next to it is the same number."""
    bits = {pa.float16(): 11, pa.float32(): 24}.get(column.type, 53)
    size = pc.abs(column.cast(pa.float64()))
    if (row := first_row(pc.and_(pc.greater(size, float(2**bits)), pc.is_finite(size)))) >= 0:
        raise TableError(
            f"column {name!r} is {column[row].as_py():.17g} in row {row}: beyond 2^{bits} a {column.type} no longer "
            "tells two ids apart; write the column as integers or text (or name it in --number, if it is a measure)"
        )


def ids(table: pa.Table, name: str, bytes_max: int, *, keep_null_words: bool) -> Any:
    """Return a column of ids as texts of 1 to `bytes_max` bytes, large_string without a null."""
    column = column_of(table, name)
    refuse_null(column, name)
    column = id_texts(column, name)
    refuse_null(column, name)
    length = pc.binary_length(column).to_numpy()
    if (row := first_row((length == 0) | (length > bytes_max))) >= 0:
        raise TableError(f"column {name!r} has {length[row]} bytes in row {row}: an id has 1 to {bytes_max}")
    if not keep_null_words and (row := first_row(are_null_words(column))) >= 0:
        raise TableError(
            f"column {name!r} is {column[row].as_py()!r} in row {row}, a word for no value: leave such rows out, or "
            f"give {KEEP} if it is an id"
        )
    return column


UNIQUE = "an impression's id is unique; without --id the rows are numbered"


def refuse_repeated(texts: Any, name: str, rows: npt.NDArray[np.int64] | None = None, advice: str = UNIQUE) -> None:
    """Raise TableError where two rows have the same id; `rows` are the texts' rows, if not all."""
    coded = texts.dictionary_encode().indices.to_numpy()
    order = np.argsort(coded, kind="stable")
    again = np.flatnonzero(coded[order][1:] == coded[order][:-1])
    if len(again):
        text = texts[int(order[again[0]])].as_py()
        first, second = (int(each if rows is None else rows[each]) for each in order[again[0] : again[0] + 2])
        raise TableError(f"column {name!r} has {text!r} in rows {first} and {second}: {advice}")


def labels(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Return which rows are positive, bool [rows]."""
    column = column_of(table, name)
    refuse_null(column, name)
    kind = column.type
    if kind == TEXT:
        lower = pc.utf8_lower(column)
        positive = pc.is_in(lower, pa.array(["1", "1.0", "true"], TEXT))
        known = pc.or_(positive, pc.is_in(lower, pa.array(["0", "0.0", "false"], TEXT)))
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
        positive = pc.equal(numbers, 1.0)
        known = pc.or_(positive, pc.equal(numbers, 0.0))
    elif pa.types.is_boolean(kind):
        positive, known = column, pa.repeat(True, len(column))
    else:
        raise TableError(f"column {name!r} is of type {kind}: a label is 0 or 1, true or false")
    if (row := first_row(pc.invert(known))) >= 0:
        raise TableError(f"column {name!r} is {column[row].as_py()!r} in row {row}: a label is 0 or 1, true or false")
    found: npt.NDArray[np.bool_] = positive.to_numpy(zero_copy_only=False).astype(bool)
    return found


def base_scores(table: pa.Table, name: str, *, keep_null_words: bool) -> Any:
    """Return a column of probabilities, float64; missing and NaN are null."""
    numbers = measures(table, name, "a base score is a probability", keep_null_words=keep_null_words)
    if (row := first_row(pc.invert(pc.and_(pc.greater_equal(numbers, 0.0), pc.less_equal(numbers, 1.0))))) >= 0:
        raise TableError(f"column {name!r} is {numbers[row].as_py()} in row {row}: a base score lies within 0 and 1")
    return numbers


def measures(table: pa.Table, name: str, expected: str, *, keep_null_words: bool) -> Any:
    """Return a column of numbers, float64; missing and NaN are null. `expected` says in a refusal what would do."""
    column = without_null_words(column_of(table, name), keep=keep_null_words)
    kind = column.type
    if kind == TEXT:
        numbers = numbers_of(column)
        if (row := first_row(pc.and_(numbers.is_null(), column.is_valid()))) >= 0:
            raise TableError(f"column {name!r} is {column[row].as_py()!r} in row {row}: {expected}")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64(), safe=False)
    elif pa.types.is_null(kind):
        return column.cast(pa.float64())
    else:
        raise TableError(f"column {name!r} is of type {kind}: {expected}")
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
INFINITE = r"^[-+]?(?i:inf|infinity)$"


def numbers_of(texts: Any) -> Any:
    """Return texts as float64, with null where one is no number."""
    is_number = pc.or_(pc.match_substring_regex(texts, NUMBER), pc.match_substring_regex(texts, INFINITE))
    kept = pc.if_else(is_number, texts, pa.scalar(None, TEXT))
    return pc.replace_substring_regex(kept, r"^\+", "").cast(pa.float64())

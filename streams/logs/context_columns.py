"""Context columns: numbers, texts and lists of texts, none of which becomes equal to another on the way."""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.streams.logs.columns import (
    INFINITE,
    NUMBER,
    column_of,
    first_row,
    id_texts,
    is_list,
    numbers_of,
    plain_members,
    refuse_imprecise,
    row_at,
    whole_decimals,
    without_null_words,
)
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT, lists_of
from thalweg.streams.logs.tables import TableFile

INTEGER = r"^(0|-?[1-9]\d*)$"
CANONICAL = r"^-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?$"
LEADING_ZERO = r"^[-+]?0\d"
DIGITS = r"^[-+]?\d+$"
FLOAT_WHOLE_MAX = 2**53


class ContextRules(NamedTuple):
    """How context columns are read.

    `text`, `number`: columns that are taken as such, whatever their values look like; `split`: by column, what
    separates the members of its lists; `keep_null_words`: words for no value are values.
    """

    text: frozenset[str]
    number: frozenset[str]
    split: dict[str, str]
    keep_null_words: bool
    limits: LimitsConfiguration


class ContextColumn(NamedTuple):
    """A column as int64, float64, large_string or large_list of large_string; `note` tells why numbers stay texts."""

    values: Any
    note: str | None = None


def context_column(file: TableFile, name: str, rules: ContextRules) -> ContextColumn:
    """Return a context column with null for what is left out: what is missing, NaN, or a word for it among numbers.

    Raises TableError for types that a context can't hold and for values that replay would refuse.
    """
    column = column_of(file.table, name)
    if name in rules.split:
        found = ContextColumn(_split(column, name, rules.split[name]))
    elif is_list(column.type):
        found = ContextColumn(_lists(column, name))
    elif name in rules.text:
        found = ContextColumn(id_texts(column, name))
    elif name in rules.number:
        found = ContextColumn(_forced_numbers(without_null_words(column, keep=rules.keep_null_words), name))
    elif column.type == TEXT and not file.typed:
        found = _guessed(column, name, rules.keep_null_words)
    else:
        found = _typed(column, name)
    _refuse_over(found.values, name, rules.limits)
    return found


def _typed(column: Any, name: str) -> ContextColumn:
    """Return a column that has a type already."""
    kind = column.type
    if kind == TEXT:
        return ContextColumn(column)
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return ContextColumn(column.cast(pa.string()).cast(TEXT))
    if pa.types.is_floating(kind):
        refuse_imprecise(column, name)
        return ContextColumn(_finite(column.cast(pa.float64()), name))
    if pa.types.is_decimal(kind):
        try:
            return _integers(whole_decimals(column), name)
        except pa.ArrowInvalid:
            return _numbers_or_texts(column.cast(TEXT), name)
    if pa.types.is_integer(kind):
        return _integers(column, name)
    raise TableError(f"column {name!r} is of type {kind}: context is numbers, texts or lists of texts")


def _integers(column: Any, name: str) -> ContextColumn:
    """Return whole numbers as int64, or as texts where one is too large for that."""
    try:
        return ContextColumn(column.cast(pa.int64()))
    except pa.ArrowInvalid:
        texts = column.cast(TEXT)
        floats = texts.cast(pa.float64())
        row = first_row(pc.or_(pc.greater_equal(floats, 2.0**63), pc.less(floats, -(2.0**63))))
        return ContextColumn(texts, _note(texts, name, row, "does not fit 64 bits"))


def _guessed(column: Any, name: str, keep_null_words: bool) -> ContextColumn:
    """Return texts of a file without types as numbers, where all are numbers and stay as different as they were."""
    texts = without_null_words(column, keep=keep_null_words)
    if pc.all(pc.match_substring_regex(texts, INTEGER)).as_py():
        try:
            return ContextColumn(texts.cast(pa.int64()))
        except pa.ArrowInvalid:
            return _integers_of_texts(column, texts, name)
    is_number = pc.or_(pc.match_substring_regex(texts, NUMBER), pc.match_substring_regex(texts, INFINITE))
    if not pc.all(is_number).as_py():
        return ContextColumn(column)
    return _numbers_or_texts(texts, name, column)


def _integers_of_texts(column: Any, texts: Any, name: str) -> ContextColumn:
    floats = texts.cast(pa.float64())
    row = first_row(pc.greater_equal(pc.abs(floats), 2.0**63))
    return ContextColumn(column, _note(texts, name, row, "does not fit 64 bits"))


def _numbers_or_texts(texts: Any, name: str, original: Any = None) -> ContextColumn:
    """Return numbers as float64, or as the texts they were if one of them would be another one's number."""
    original = texts if original is None else original
    is_canonical = pc.or_(pc.match_substring_regex(texts, CANONICAL), pc.match_substring_regex(texts, INFINITE))
    if (row := first_row(pc.invert(is_canonical))) >= 0:
        has_zero = first_row(pc.match_substring_regex(texts[row : row + 1], LEADING_ZERO)) == 0
        why = "has a leading zero" if has_zero else "would be written otherwise as a number"
        return ContextColumn(original, _note(texts, name, row, why))
    numbers = _finite(numbers_of(texts), name)
    is_large = pc.greater(pc.abs(numbers), float(FLOAT_WHOLE_MAX))
    if (row := first_row(pc.and_(pc.match_substring_regex(texts, DIGITS), is_large))) >= 0:
        return ContextColumn(original, _note(texts, name, row, "is beyond 2^53 beside a fraction"))
    different = texts.drop_null().unique()
    _, first, counts = np.unique(numbers_of(different).to_numpy(), return_index=True, return_counts=True)
    if (counts > 1).any():
        row = row_at(pc.index(texts, different[int(first[np.argmax(counts > 1)])]).as_py())
        return ContextColumn(original, _note(texts, name, row, "is the same number as another text"))
    return ContextColumn(numbers)


def _note(texts: Any, name: str, row: int, why: str) -> str:
    return (
        f"column {name!r} is kept as text: {texts[row].as_py()!r} in row {row} {why} "
        f"(--number {name} takes it as numbers, --text {name} as text without this line)"
    )


def _forced_numbers(column: Any, name: str) -> Any:
    """Return a column as numbers, as its reader asks."""
    kind = column.type
    if kind == TEXT:
        if pc.all(pc.match_substring_regex(column, DIGITS)).as_py():
            try:
                return pc.replace_substring_regex(column, r"^\+", "").cast(pa.int64())
            except pa.ArrowInvalid:
                pass
        numbers = numbers_of(column)
        if (row := first_row(pc.and_(numbers.is_null(), column.is_valid()))) >= 0:
            raise TableError(f"column {name!r} is {column[row].as_py()!r} in row {row}, which is no number")
        return _finite(numbers, name)
    if pa.types.is_integer(kind) and kind != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _finite(column.cast(pa.float64(), safe=False), name)
    raise TableError(f"column {name!r} is of type {kind}, which is no number")


def _finite(numbers: Any, name: str) -> Any:
    """Return float64 without NaN, which is left out; refuse what is infinite."""
    if (row := first_row(pc.is_inf(numbers))) >= 0:
        raise TableError(f"column {name!r} is infinite in row {row}: a context number is finite")
    return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)


def _split(column: Any, name: str, separator: str) -> Any:
    """Return texts as lists of their parts, empty ones left out."""
    if column.type != TEXT:
        raise TableError(f"column {name!r} is of type {column.type}: only texts can be split")
    return _lists(pc.split_pattern(column, separator), name, without_empty=True)


def _lists(column: Any, name: str, *, without_empty: bool = False) -> Any:
    """Return lists of every kind as large lists of texts, without the members that are missing."""
    lengths = pc.list_value_length(column)
    counts = pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False)
    members = plain_members(column)
    if pa.types.is_nested(members.type):
        raise TableError(f"column {name!r} is of type {column.type}: context is numbers, texts or lists of texts")
    is_flag = pa.types.is_boolean(members.type)
    texts = members.cast(pa.string()).cast(TEXT) if is_flag else id_texts(members, name, "a member of a list")
    kept = texts.is_valid()
    if without_empty:
        kept = pc.fill_null(pc.and_(kept, pc.not_equal(texts, "")), False)
    flags = kept.to_numpy(zero_copy_only=False)
    if not flags.all():
        texts = texts.filter(kept)
        before = np.concatenate(([0], np.cumsum(flags)))
        ends = np.cumsum(counts)
        counts = before[ends] - before[ends - counts]
    found = lists_of(pa.array(counts), texts)
    return pc.if_else(lengths.is_null(), pa.scalar(None, found.type), found) if lengths.null_count else found


def _refuse_over(column: Any, name: str, limits: LimitsConfiguration) -> None:
    """Raise TableError where replay would refuse a value for its length."""
    texts = column
    if pa.types.is_large_list(column.type):
        lengths = pc.list_value_length(column)
        if (row := first_row(pc.greater(lengths, limits.list_length))) >= 0:
            raise TableError(
                f"column {name!r} has a list of {lengths[row].as_py()} in row {row}, at most {limits.list_length} "
                "(limits.list_length): shorten it, or raise the limit here and in replay"
            )
        texts = column.values
    if texts.type == TEXT:
        sizes = pc.binary_length(texts)
        if (place := first_row(pc.greater(sizes, limits.value_bytes))) >= 0:
            lists = None if texts is column else column.offsets.to_numpy()
            row = place if lists is None else row_at(int(np.searchsorted(lists, int(place), "right")) - 1)
            raise TableError(
                f"column {name!r} has a text of {sizes[place].as_py()} bytes in row {row}, at most "
                f"{limits.value_bytes} (limits.value_bytes): shorten it, or raise the limit here and in replay"
            )

"""Columns as JSON: the texts of values, and events as lines, a whole block at a time.

Lines are put together by Arrow's kernels, several times as fast as by a JSON encoder row by row; the bytes are those
that msgspec would write.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT = pa.large_string()
_ESCAPED = '["\\\\\\x00-\\x1f]'
_ENCODER = msgspec.json.Encoder()


def text_scalar(text: str) -> Any:
    """Return a text for every row."""
    return pa.scalar(text, TEXT)


def joined(*parts: Any) -> Any:
    """Return the parts of each row, one behind the other; a row is null where one of them is."""
    texts = [text_scalar(part) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, text_scalar(""))


def quoted(column: Any) -> Any:
    """Return texts as JSON strings; null stays null."""
    if pc.any(pc.match_substring_regex(column, _ESCAPED)).as_py():
        coded = column.dictionary_encode()
        encoded = [_ENCODER.encode(text).decode() for text in coded.dictionary.to_pylist()]
        return pa.array(encoded, TEXT).take(coded.indices)
    return joined('"', column, '"')


def values(column: Any) -> Any:
    """Return numbers, texts or lists of texts as JSON; null stays null.

    >>> values(pa.array([1.0, None])).to_pylist(), values(pa.array(['a"'], TEXT)).to_pylist()
    (['1.0', None], ['"a\\\\""'])
    """
    kind = column.type
    if pa.types.is_floating(kind):
        is_null = column.is_null()
        encoded = _ENCODER.encode(pc.fill_null(column, 0.0).to_pylist())[1:-1].decode().split(",")
        return pc.if_else(is_null, pa.scalar(None, TEXT), pa.array(encoded, TEXT)) if len(column) else column.cast(TEXT)
    if pa.types.is_large_list(kind):
        members = lists_of(pc.list_value_length(column), quoted(pc.list_flatten(column)))
        texts = joined("[", pc.binary_join(members, text_scalar(",")), "]")
        return pc.if_else(column.is_null(), pa.scalar(None, TEXT), texts)
    return quoted(column) if kind == TEXT else column.cast(TEXT)


def lists_of(lengths: Any, members: Any) -> Any:
    """Return lists that have so many of the members each; null has none."""
    ends = np.cumsum(pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate(([0], ends))), members)


def objects(names: Sequence[str], columns: Sequence[Any], length: int) -> Any:
    """Return columns of JSON as objects, what is null left out."""
    if not names:
        return pa.repeat(text_scalar("{}"), length)
    # Arrow's own way to skip nulls drops rows that have nothing else: so each field brings its comma.
    fields = [
        joined(f"{_ENCODER.encode(name).decode()}:", column, ",") for name, column in zip(names, columns, strict=True)
    ]
    inner = pc.binary_join_element_wise(*fields, text_scalar(""), null_handling="replace", null_replacement="")
    return joined("{", pc.ascii_rtrim(inner, characters=","), "}")


def data_of(lines: Any) -> bytes:
    """Return texts without a null as one piece of bytes."""
    offsets = np.frombuffer(lines.buffers()[1], np.int64)[lines.offset : lines.offset + len(lines) + 1]
    return bytes(lines.buffers()[2][int(offsets[0]) : int(offsets[-1])]) if len(lines) else b""

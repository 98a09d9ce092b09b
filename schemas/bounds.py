"""Bounds of settings: declared beside each field, checked in one place, shown in the documentation.

    rows_limit: Annotated[int, within(1_024, ROWS_MAX)] = 1 << 20
    alpha: Annotated[float, within(RATE_MIN, FACTOR_MAX)] = 0.1

Every number has both. No number within them overflows a sum with a time of the events, or wraps a row's number. None
makes an infinity where the fold divides by it.
"""

import math
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

MS_MAX = 100 * 366 * 86_400_000
"""A hundred years: added to any time of an event it stays far within 64 bits."""
ROWS_MAX = 1 << 30
"""Rows of anything: their numbers are int32, one more than the number is stored, and an index has room to spare."""
FACTOR_MAX = 1_000.0
"""Learning rates and initial weights: float32 holds what comes of them."""
RATE_MIN = 1e-9
"""Learning rates: float32 still tells what comes of them from nothing."""
PSEUDO_COUNT_MAX = 1e9
"""Pseudo-counts."""
SHARE_MIN = 1e-6
"""Shares and pseudo-counts that something is divided by."""
FREE_NAMES = "free names"
"""Annotates the field of a section that takes all keys which are no other field's, each a section by itself."""


def within(least: float, most: float) -> msgspec.Meta:
    """Return the bounds of a number that may equal both."""
    return msgspec.Meta(ge=least, le=most)


def check(section: Any) -> None:
    """Raise ValueError, naming the field, where a value of a section is not of its type, or out of its bounds."""
    kind: Any = type(section)
    for name, form in _forms(kind):
        value = getattr(section, name)
        try:
            msgspec.convert(value, form, strict=True)
            refuse_infinite(value)
        except (msgspec.ValidationError, ValueError):
            raise ValueError(f"{name} must {allowed(form)}, not {value!r}") from None


def refuse_infinite(value: Any) -> None:
    """Raise ValueError for a number that is infinite or none, in a list or a table too: no bound would catch NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number that can be used")
    if isinstance(value, list | tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            refuse_infinite(inner)


def allowed(form: Any) -> str:
    """Return the text for what a value of an annotated type may be, to follow the word `must`."""
    metas = list(_metas(form))
    each = "" if _is_single(form) else ", each"
    for meta in metas:
        if meta.description:
            return f"fit: {meta.description}"
        if meta.ge is not None:
            return f"lie within {shown_number(meta.ge)} and {shown_number(meta.le)}{each}"
    choices = [str(choice) for part in _parts(form) if get_origin(part) is Literal for choice in get_args(part)]
    if choices:
        return f"be {'one of' if _is_single(form) else 'some of'} {', '.join(choices)}"
    return f"be of type {getattr(form, '__name__', form)}"


def bounds(form: Any) -> tuple[float, float] | None:
    """Return the least and the most that numbers of a type may be; None: they have no bounds."""
    return next(((meta.ge, meta.le) for meta in _metas(form) if meta.ge is not None and meta.le is not None), None)


def without_bounds(form: Any) -> Any:
    """Return a type as it is without its annotations."""
    if get_origin(form) is Annotated:
        return without_bounds(get_args(form)[0])
    if get_origin(form) in (None, Literal):
        return form
    arms = tuple(without_bounds(arm) for arm in get_args(form))
    return Union[arms] if get_origin(form) in (Union, UnionType) else get_origin(form)[arms]  # noqa: UP007


def shown_number(number: Any) -> str:
    """Return a bound as a reader wants it.

    >>> [shown_number(number) for number in (0, 65_535, 0.5, 1e9, 1_000.0)]
    ['0', '65,535', '0.5', '1,000,000,000', '1,000']
    """
    return f"{int(number):,}" if number == int(number) else f"{number:g}"


@cache
def _forms(section: Any) -> tuple[tuple[str, Any], ...]:
    hints = get_type_hints(section, include_extras=True)
    return tuple((name, form) for name, form in hints.items() if not hasattr(form, "__dataclass_fields__"))


def _parts(form: Any) -> Iterator[Any]:
    """Give a type and all that it is made of, from the outside in."""
    yield form
    for part in get_args(form)[:1] if get_origin(form) is Annotated else get_args(form):
        if not isinstance(part, str | int | float):
            yield from _parts(part)


def _metas(form: Any) -> Iterator[msgspec.Meta]:
    for part in _parts(form):
        if get_origin(part) is Annotated:
            yield from (meta for meta in part.__metadata__ if isinstance(meta, msgspec.Meta))


def _is_single(form: Any) -> bool:
    form = get_args(form)[0] if get_origin(form) is Annotated else form
    return get_origin(form) in (None, Literal, Union, UnionType)

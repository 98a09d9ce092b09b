"""A dict of features as a vector of fixed size, and the labels, times and keys that estimators take."""

import datetime
import math
from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.hashing import Key, field_seed, key_of
from thalweg.operators.sdim import projections

DIRECTIONS_LIMIT = 1 << 12
SIZE_MAX = 1 << 16
SEED_MIN, SEED_MAX = -(2**31), 2**32 - 1

SALT_BITS = 63
NORM_MAX = 1_000.0
"""Length of a vector at most: squares of longer ones would leave float32, and one of them would hide all others."""
TIME_MAX = 1 << 62
TIMES = "a number, a datetime, a date or a numpy.datetime64"
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MILLISECOND = datetime.timedelta(milliseconds=1)


class FeatureVector:
    """Random projection of features, with directions that derive from their names.

    A number moves the vector along its name's direction, a text along the direction of its name and value; a list of
    texts along each. Directions are Gaussian, so that angles between vectors are those between the dicts, within about
    `1 / sqrt(size)`. A feature that is None adds nothing. A vector longer than `NORM_MAX` is scaled down to it: its
    direction stays.

    Parameters
    ----------
    size
        Coordinates of the vector.
    seed
        Seed of the directions.
    excluded
        Names of features that are left out.

    """

    def __init__(self, size: int, seed: int, excluded: Collection[str | None] = ()) -> None:
        """Make directions when they are first asked for; the parameters are the class's."""
        self._size = size
        self._seed = seed
        self._excluded = frozenset(excluded)
        self._directions: dict[str, npt.NDArray[np.float64]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the directions made so far, which are no state: they follow from the names."""
        return self.__dict__ | {"_directions": {}}

    def read(self, x: Mapping[Any, Any]) -> npt.NDArray[np.float32]:
        """Return the vector of a dict of features, float32 [size]; the order of its keys makes no difference.

        Raises ValueError for a number that is not finite, and for what is neither a number, a text nor a list of them.
        """
        parts: list[tuple[str, float]] = []
        for name in sorted(x, key=str):
            if name in self._excluded:
                continue
            for value in x[name] if isinstance(x[name], list | tuple) else (x[name],):
                if isinstance(value, str):
                    parts.append((f"{name}={value}", 1.0))
                elif value is not None:
                    parts.append((str(name), number_of(name, value)))
        longest = max((abs(scale) for _, scale in parts), default=0.0)
        shrink = NORM_MAX / longest if longest > NORM_MAX else 1.0
        total = np.zeros(self._size)
        for text, scale in parts:
            total += scale * shrink * self._direction(text)
        norm = math.sqrt(float((total * total).sum()))
        # `shrink` alone may have left the vector shorter than the bound: its length is that of the whole, up to it.
        target = min(norm / shrink, NORM_MAX)
        if target < norm or shrink < 1.0:
            total *= target / norm if norm > 0.0 else 0.0
        return total.astype(np.float32)

    def _direction(self, text: str) -> npt.NDArray[np.float64]:
        direction = self._directions.get(text)
        if direction is None:
            if len(self._directions) >= DIRECTIONS_LIMIT:
                self._directions.clear()
            salt = key_of(text, field_seed("direction", self._seed)) & ((1 << SALT_BITS) - 1)
            direction = self._directions[text] = projections(1, self._size, salt)[0].astype(np.float64)
        return direction


def number_of(name: object, value: Any) -> float:
    """Return a feature as a number.

    Raises ValueError where it is none, or not finite.
    """
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise ValueError(
            f"feature {name!r} is {value!r}: features are numbers, texts and lists of texts, None is left out"
        ) from None
    if not math.isfinite(number):
        raise ValueError(f"feature {name!r} is {number}: leave it out or give None where there is no number")
    return number


def label_of(label: Any) -> bool:
    """Return a label as what it says: true or false, 1 or 0.

    Raises ValueError for everything else.

    >>> label_of(True), label_of(0.0)
    (True, False)
    """
    if isinstance(label, bool | np.bool_ | int | float | np.number) and label in (0, 1):
        return bool(label)
    raise ValueError(f"a label is true or false, 1 or 0, not {label!r}: compare a rating with a threshold first")


def key_in(field: str, value: object, seed: int) -> Key:
    """Return the key of a field's value, of the one type that compiled code is made for.

    Raises ValueError for what is no category: a number that is not finite, what data frames have where nothing is, a
    collection, and an object whose text is its address. What is missing is None.
    """
    if isinstance(value, float | np.floating):
        number_of(field, value)
    if not isinstance(value, str | int):
        _refuse_no_category(field, value)
    return cast(Key, np.uint64(key_of(str(value), field_seed(field, seed))))


def _refuse_no_category(field: str, value: object) -> None:
    kind = type(value)
    try:
        is_missing = bool(value != value)
    except (TypeError, ValueError):  # pandas.NA, an array
        is_missing = True
    is_nameless = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if is_missing or is_nameless or isinstance(value, Mapping | list | set | frozenset | np.ndarray):
        raise ValueError(
            f"feature {field!r} is {value!r}: a category is a text, a number or the like, and None where there is none"
        )


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Raise ValueError unless an argument is a whole number within its bounds."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r}")


def time_of(x: Mapping[Any, Any], name: str | None, before: int) -> int:
    """Return the time of an example: its field `name` or, without one, a count of examples; never before `before`.

    As in the fold, time is the largest that was seen so far. An example whose field is missing or None is taken for one
    of now. Numbers are taken as they are, down to whole ones; moments become milliseconds since 1970, in UTC where they
    have no zone.

    Raises ValueError for other types, for numbers that are not finite, and for times before 0: time would stand still.

    >>> moment = datetime.datetime(2024, 3, 31, 2, 30, tzinfo=datetime.UTC)
    >>> time_of({"at": moment}, "at", 0), time_of({"at": np.datetime64("2024-03-31T02:30")}, "at", 0)
    (1711852200000, 1711852200000)
    """
    if name is None:
        return before + 1
    value = x.get(name)
    if value is None:
        return before
    found = _time(name, value)
    if found < 0:
        raise ValueError(f"the time {name!r} is {value!r}, before 0 (1970 for dates): count from an earlier moment")
    return max(before, found)


def _time(name: str, value: Any) -> int:
    is_moment = isinstance(value, datetime.date | np.datetime64)  # a datetime is a date, a pandas.Timestamp a datetime
    if is_moment and value != value:
        raise ValueError(f"the time {name!r} is {value!r}: give None where there is none")
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[ms]").astype(np.int64))
    if isinstance(value, datetime.date):
        if not isinstance(value, datetime.datetime):
            value = datetime.datetime(value.year, value.month, value.day)
        moment: datetime.datetime = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        return (moment - EPOCH) // MILLISECOND
    if isinstance(value, str | bytes | bool | np.bool_ | np.timedelta64) or not hasattr(value, "__float__"):
        raise ValueError(f"the time {name!r} is {value!r}: a time is {TIMES}")
    number = number_of(name, value)
    if abs(number) >= TIME_MAX:
        raise ValueError(f"the time {name!r} is {value!r}, beyond 2^62: choose a longer unit")
    return int(value)

"""A dict of features as a vector of fixed size, whatever the names are and however many."""

from collections.abc import Collection, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.hashing import Key, field_seed, key_of
from thalweg.operators.sdim import projections

DIRECTIONS_LIMIT = 1 << 12
SALT_BITS = 63


class FeatureVector:
    """Random projection of features, with directions that derive from their names.

    A number moves the vector along its name's direction, a text along the direction of its name and value; a list of
    texts along each. Directions are Gaussian, so that angles between vectors are those between the dicts, within about
    `1 / sqrt(size)`. What is missing or NaN adds nothing.

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
        """Return the vector of a dict of features, float32 [size]; the order of its keys makes no difference."""
        total = np.zeros(self._size)
        for name in sorted(x, key=str):
            if name in self._excluded:
                continue
            for value in x[name] if isinstance(x[name], list | tuple) else (x[name],):
                if isinstance(value, str):
                    total += self._direction(f"{name}={value}")
                elif value is not None and np.isfinite(scale := float(value)):
                    total += scale * self._direction(str(name))
        return total.astype(np.float32)

    def _direction(self, text: str) -> npt.NDArray[np.float64]:
        direction = self._directions.get(text)
        if direction is None:
            if len(self._directions) >= DIRECTIONS_LIMIT:
                self._directions.clear()
            salt = key_of(text, field_seed("direction", self._seed)) & ((1 << SALT_BITS) - 1)
            direction = self._directions[text] = projections(1, self._size, salt)[0].astype(np.float64)
        return direction


def key_in(field: str, value: object, seed: int) -> Key:
    """Return the key of a field's value, of the one type that compiled code is made for."""
    return cast(Key, np.uint64(key_of(str(value), field_seed(field, seed))))


def time_of(x: Mapping[Any, Any], name: str | None, before: int) -> int:
    """Return the time of an example: its field `name` or, without one, a count of examples; never before `before`.

    As in the fold, time is the largest that was seen so far. An example whose field is missing or not finite is taken
    for one of now.
    """
    if name is None:
        return before + 1
    value = x.get(name)
    return max(before, int(value)) if value is not None and np.isfinite(float(value)) else before

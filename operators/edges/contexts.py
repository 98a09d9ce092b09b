"""The fields of contexts: their places in the order in which they first appear, and the keys of their values."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.facts import HEAD, KEY_BYTES, REMOVED
from thalweg.operators.features import ITEM
from thalweg.operators.machine.hashing import Keys
from thalweg.operators.structures.names import field_names, write_name
from thalweg.schemas.events import Context, Facts, Value
from thalweg.schemas.kept import encode_fact

SHAPES_AT_ONCE = 4  # sets of names in a block up to which it is worth taking a field's values all at once


class Field(NamedTuple):
    """A field's place, the keys of its values, and the edges of its buckets."""

    place: int
    keys: Keys
    edges: tuple[float, ...] | None


class Values(NamedTuple):
    """Values of some contexts.

    `members` int64 [m], which contexts; `counts`, how many values each has, int64 [m] or one number for all; `places`,
    their fields', uint8 [values] or one for all; `keys` uint64 [values], context by context.
    """

    members: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64] | int
    places: npt.NDArray[np.uint8] | int
    keys: npt.NDArray[np.uint64]


class Fields:
    """The context fields of a partition; what fields there are is part of its state.

    `names` uint8 [fields, 256] holds the fields' names in their places, each ended by a zero. With no
    `features.context` configured, each context field gets the next free place when it first appears in the log.
    """

    def __init__(self, configuration: Configuration, names: npt.NDArray[np.uint8]) -> None:
        """Take over the fields that have a place already."""
        features = configuration.features
        self._names = names
        self._seed = configuration.seed
        self._takes_all = not features.context
        # A context field named like a field of another kind would share its keys, and so its rows; a name with a zero
        # would be another one when it is read back.
        self._exclude = frozenset((*features.exclude, "user", "item", *map("*".join, features.crosses)))
        self._edges = features.buckets
        self._fields: dict[str, Field] = {}
        taken = field_names(names)
        for place, name in enumerate(taken):
            if place > ITEM and not any(name == "*".join(pair) for pair in features.crosses):
                self._add(name, place)
        self._places = len(taken)

    def get(self, name: str) -> Field | None:
        """Return a field that has a place."""
        return self._fields.get(name)

    def values(self, contexts: Sequence[Context]) -> tuple[list[Values], npt.NDArray[np.uint64]]:
        """Return the values of a block's contexts, of each in its own order, and which places each brings, in bits."""
        names = [tuple(context) for context in contexts]
        shapes = dict.fromkeys(names, 0)
        self.add_names(chain.from_iterable(shapes))
        for shape in shapes:
            shapes[shape] = self.bits(shape)
        brought = np.array([shapes[each] for each in names], np.uint64)
        if len(shapes) > SHAPES_AT_ONCE:
            return [self._one_by_one(contexts)], brought
        found = []
        for shape in shapes:
            fields = [self._fields.get(name) for name in shape]
            members = np.array([number for number, each in enumerate(names) if each == shape])
            rows = [contexts[number].values() for number in members.tolist()]
            for field, values in zip(fields, zip(*rows, strict=True), strict=True):
                if field is not None:
                    counts, keys = keys_of(field, values)
                    found.append(Values(members, counts, field.place, keys))
        return found, brought

    def bits(self, names: Iterable[str]) -> int:
        """Return a bit for the place of each field that has one."""
        return sum({1 << field.place for name in names if (field := self._fields.get(name)) is not None})

    def packed(self, facts: Facts, without: int) -> tuple[bytes, int]:
        """Return facts as `operators.facts` packs them, without the field in a place, and how many values they have."""
        self.add_names(facts)
        entries: list[tuple[int, bytes]] = []
        count = 0
        for name, value in facts.items():
            field = self._fields.get(name)
            if field is None or field.place == without:
                continue
            if value is None:
                entries.append((field.place, HEAD.pack(field.place, REMOVED, 0)))
                continue
            values = value if isinstance(value, list) else [value]
            keys = [field.keys[category(field, each)] for each in values]
            text = encode_fact(name, value)
            head = HEAD.pack(field.place, len(keys), len(text))
            entries.append((field.place, b"".join((head, *(key.to_bytes(KEY_BYTES, "little") for key in keys), text))))
            count += len(keys)
        return b"".join(entry for _, entry in sorted(entries)), count

    def known(self, contexts: Sequence[Context]) -> Sequence[Context]:
        """Return the contexts without the fields that have no place."""
        fields = self._fields
        if all(map(fields.keys().__ge__, map(dict.keys, contexts))):
            return contexts
        return [{name: value for name, value in context.items() if name in fields} for context in contexts]

    def pairs(self, context: Context) -> list[tuple[int, int]]:
        """Return place and key of each value of a context, of the fields that have a place already.

        A field with an empty list has one key, 0: it is there, and has no value.
        """
        found = []
        for name, value in context.items():
            if (field := self._fields.get(name)) is not None:
                place, keys, _ = field
                if isinstance(value, list):
                    found += [(place, keys[category(field, each)]) for each in value] or [(place, 0)]
                else:
                    found.append((place, keys[category(field, value)]))
        return found

    def _one_by_one(self, contexts: Sequence[Context]) -> Values:
        """Return what contexts have that differ in their names."""
        counts: list[int] = []
        places: list[int] = []
        keys: list[int] = []
        for context in contexts:
            before = len(keys)
            self._add_known(context, places, keys)
            counts.append(len(keys) - before)
        return Values(
            np.arange(len(contexts)), np.array(counts, np.int64), np.array(places, np.uint8), np.array(keys, np.uint64)
        )

    def add_values(self, context: Context, places: list[int], keys: list[int]) -> None:
        """Append the places and keys of a context's values, in the order in which it has them."""
        for name in context:
            if name not in self._fields:
                self._add_new(name)
        self._add_known(context, places, keys)

    def _add_known(self, context: Context, places: list[int], keys: list[int]) -> None:
        for name, value in context.items():
            if (field := self._fields.get(name)) is not None:
                values = value if isinstance(value, list) else (value,)
                keys += [field.keys[category(field, each)] for each in values]
                places += [field.place] * len(values)

    def _add(self, name: str, place: int) -> None:
        self._fields[name] = Field(place, Keys(name, self._seed), self._edges.get(name))

    def add_names(self, names: Iterable[str]) -> None:
        """Give fields that appear for the first time their places."""
        for name in names:
            if name not in self._fields:
                self._add_new(name)

    def _add_new(self, name: str) -> None:
        """Give a field that appears for the first time its place, if it is to have one."""
        is_wanted = self._takes_all and name not in self._exclude and "\0" not in name
        if is_wanted and self._places < len(self._names):
            write_name(self._names, self._places, name)
            self._add(name, self._places)
            self._places += 1


def keys_of(field: Field, values: Sequence[Value]) -> tuple[npt.NDArray[np.int64] | int, npt.NDArray[np.uint64]]:
    """Return how many values each context has of a field, and their keys."""
    types = set(map(type, values))
    counts: npt.NDArray[np.int64] | int = 1
    flat: Sequence[Any] = values
    if list in types:
        lists = [value if isinstance(value, list) else (value,) for value in values]
        counts = np.fromiter(map(len, lists), np.int64, len(lists))
        flat = list(chain.from_iterable(lists))
    if field.edges is not None or float in types:
        flat = [category(field, value) for value in flat]
    return counts, np.fromiter(map(field.keys.__getitem__, flat), np.uint64, len(flat))


def category(field: Field, value: str | float) -> str | int:
    """Return the category of a value: a number's bucket where the field has any.

    >>> field = Field(2, Keys("price", 0), None)
    >>> category(field, 1), category(field, 1.0)  # equal, but not the same category
    (1, '1.0')
    >>> category(field._replace(edges=(0.5, 5.0)), 1.0)
    1
    """
    if field.edges is not None and not isinstance(value, str):
        return bisect_right(field.edges, value)
    return repr(value) if isinstance(value, float) else value

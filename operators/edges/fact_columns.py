"""Facts as columns: packed as the fold keeps them."""

from collections.abc import Iterable, Iterator

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import Fields
from thalweg.operators.edges.requests import names_shown
from thalweg.operators.features import HOUR_OF_DAY
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.schemas.events import Event, Impression, Item, Request, User
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable

ABOUT = {Item, User}
"""The events that bring facts."""


def names_of(events: Iterable[Event | None], limits: LimitsConfiguration) -> Iterator[str]:
    """Yield the names of the fields of facts and of contexts of what is shown, in the order of the log."""
    for event in events:
        if isinstance(event, Item | User):
            yield from event.fields
        elif isinstance(event, Impression):
            yield from event.context
        elif isinstance(event, Request) and event.shown is not None:
            yield from names_shown(event, limits)


class FactColumns:
    """Writes the facts of a block under one configuration; `fields` is the columnizer's."""

    def __init__(self, configuration: Configuration, fields: Fields) -> None:
        """Hash ids under the configuration's seed."""
        features = configuration.features
        self._fields = fields
        hour = fields.get(HOUR_OF_DAY) if features.hour_of_day else None
        self._hour = -1 if hour is None else hour.place
        self._values_limit = features.values_limit - len(features.crosses) - 2
        self._owner_bytes = configuration.facts.owner_bytes
        self._user_salt, self._item_salt = (field_seed(name, configuration.seed) for name in ("user", "item"))

    def write(self, columns: Columns, events: list[Event | None], refused: dict[int, Unusable]) -> Columns:
        """Return the columns with the block's facts; those that are too many for one impression are `refused`."""
        text = bytearray(columns.text.tobytes())
        for number, event in enumerate(events):
            if not isinstance(event, Item | User):
                continue
            packed, count = self._fields.packed(event.fields, self._hour)
            unusable = self._over(len(packed), count)
            if unusable is not None:
                refused[number] = unusable
                columns.kind[number] = Kind.UNUSABLE.value
                events[number] = None
                continue
            columns.ts_ms[number] = event.ts
            if isinstance(event, Item):
                columns.item[number] = key_of(event.item, self._item_salt)
            else:
                columns.user[number] = key_of(event.user, self._user_salt)
            columns.text_start[number] = len(text)
            text += packed
            columns.text_end[number] = len(text)
        return columns._replace(text=np.frombuffer(text, np.uint8))

    def _over(self, size: int, count: int) -> Unusable | None:
        """Return why facts of so many packed bytes and values cannot be used, None where they can."""
        if count > self._values_limit:
            detail = f"{count} values in all fields, at most {self._values_limit} besides user and item"
            return Unusable(Reason.TOO_MANY_VALUES, detail)
        if size > self._owner_bytes:
            return Unusable(Reason.TOO_LARGE, f"the facts take {size} bytes, at most {self._owner_bytes}")
        return None

"""How large, long, deep and late a record may be before it is dead-lettered."""

from dataclasses import dataclass
from typing import Annotated

from thalweg.schemas.bounds import check, within

NAME_BYTES_MAX = 255
"""Of a context field's name, which is kept in the state."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfiguration:
    """The section `[limits]`; lengths are bytes of UTF-8 after JSON escapes are resolved.

    Raises ValueError where a limit is out of its bounds.
    """

    record_bytes: Annotated[int, within(1, 1 << 24)] = 65_536
    """One record's value; far above any real event, small enough that no record can hold up a partition."""
    id_bytes: Annotated[int, within(1, 1 << 16)] = 256
    """Ids of events, users, items and candidates."""
    depth: Annotated[int, within(3, 64)] = 8
    """Nested objects and arrays, the record itself included. Known fields need 3, the rest is room for unknown ones."""
    context_fields: Annotated[int, within(1, 1 << 12)] = 64
    """Fields in one context."""
    name_bytes: Annotated[int, within(1, NAME_BYTES_MAX)] = 64
    """Names of context fields and of actions."""
    value_bytes: Annotated[int, within(1, 1 << 20)] = 256
    """One string in a context, alone or in a list."""
    list_length: Annotated[int, within(1, 1 << 12)] = 32
    """Strings in one list of a context."""
    candidates: Annotated[int, within(1, 1 << 16)] = 1_024
    """Items that one request may ask to rank."""
    shown: Annotated[int, within(1, 1 << 12)] = 256
    """Items that one request may take as shown."""

    @property
    def kept_bytes(self) -> int:
        """What one record that waits may take: no number's text grows as much when it is written again.

        A feedback is kept with its key and headers, which a transport limits apart, if at all: with more than this in
        all it is too large.
        """
        return 4 * self.record_bytes

    def __post_init__(self) -> None:
        """Refuse limits that are none: above 64 the JSON decoder's own recursion limit could decide."""
        check(self)

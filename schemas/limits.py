"""How large, long, deep and late a record may be before it is dead-lettered."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class LimitsConfiguration:
    """The section `[limits]`; lengths are bytes of UTF-8 after JSON escapes are resolved.

    Raises ValueError where a limit is not a positive integer or the depth cannot hold an event.
    """

    record_bytes: int = 65_536
    """One record's value; far above any real event, small enough that no record can hold up a partition."""
    id_bytes: int = 256
    """Ids of events, users, items and candidates."""
    depth: int = 8
    """Nested objects and arrays, the record itself included. Known fields need 3, the rest is room for unknown ones."""
    context_fields: int = 64
    """Fields in one context."""
    name_bytes: int = 64
    """Names of context fields and of actions."""
    value_bytes: int = 256
    """One string in a context, alone or in a list."""
    list_length: int = 32
    """Strings in one list of a context."""
    candidates: int = 1_024
    """Items that one request may ask to rank."""
    time_jump_ms: int = 86_400_000
    """How far one event may move stream time forward: a day, so that one broken clock does not close every window."""

    @property
    def kept_bytes(self) -> int:
        """What one record that waits may take: no number's text grows as much when it is written again.

        A feedback is kept with its key and headers, which a transport limits apart, if at all: with more than this in
        all it is too large.
        """
        return 4 * self.record_bytes

    def __post_init__(self) -> None:
        """Refuse limits that are no limits."""
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ValueError(f"limits.{field.name} must be a positive integer, not {value!r}")
        if not 3 <= self.depth <= 64:
            # Above 64 the JSON decoder's own recursion limit, which depends on the caller's stack, could decide.
            raise ValueError(f"limits.depth must lie in 3 to 64, not {self.depth}")

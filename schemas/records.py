"""What goes into a partition and what comes out of it, before and after any transport."""

from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes | None], ...]
"""Names and values; Kafka has headers without a value."""


class Record(Protocol):
    """One record of a partition's log; an aiokafka or kafka-python consumer record is one as it stands."""

    @property
    def offset(self) -> int:
        """Position in the partition's log."""

    @property
    def value(self) -> bytes | None:
        """The event as it lies on the wire; None where Kafka carries a tombstone."""

    @property
    def key(self) -> bytes | None:
        """The user's id in UTF-8; None where the transport has no keys (a log file)."""

    @property
    def headers(self) -> Headers:
        """Kafka headers in their order."""


class LogRecord(NamedTuple):
    """A record made by hand or read from a log file."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


class Cause(NamedTuple):
    """The input record whose arrival made an output happen, and the output's ordinal within it.

    Within one output partition causes strictly increase. So a reader drops every record whose cause is not above the
    highest seen. A recovering partition suppresses every output that is not above the last cause found on the topic.
    """

    offset: int
    ordinal: int


class Output(NamedTuple):
    """One record for an output topic's partition of the same number as the input's."""

    cause: Cause
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()


class Outputs(NamedTuple):
    """What a block of input records made, per topic in the order of their causes."""

    scores: list[Output]
    examples: list[Output]
    dead_letters: list[Output]
    rankings: list[Output]
    lessons: list[Output]


def no_outputs() -> Outputs:
    """Return outputs to be filled."""
    return Outputs([], [], [], [], [])

"""The text form of an origin, `topic-partition-offset`, and of a cause, `topic-partition-offset:ordinal`."""

from typing import NamedTuple

from thalweg.schemas.records import Cause


class Origin(NamedTuple):
    """Where a record lies: topic, partition number, offset."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return `topic-partition-offset`."""
        return f"{self.topic}-{self.partition}-{self.offset}"


def parse_origin(text: str) -> Origin:
    """Read `topic-partition-offset`, splitting from the right since topics may contain hyphens.

    >>> parse_origin("user-interactions-3-17")
    Origin(topic='user-interactions', partition=3, offset=17)

    Raises ValueError where the text is not an origin.
    """
    parts = text.rsplit("-", 2)
    if len(parts) != 3 or not parts[0] or not parts[1].isdecimal() or not parts[2].isdecimal():
        raise ValueError(f"not an origin (topic-partition-offset): {text!r}")
    return Origin(parts[0], int(parts[1]), int(parts[2]))


def parse_cause(text: str) -> tuple[Origin, Cause]:
    """Read `topic-partition-offset:ordinal` into the origin of the causing record and the comparable cause.

    >>> parse_cause("interactions-0-17:2")
    (Origin(topic='interactions', partition=0, offset=17), Cause(offset=17, ordinal=2))

    Raises ValueError where the text is not a cause.
    """
    origin_text, colon, ordinal = text.rpartition(":")
    if not colon or not ordinal.isdecimal():
        raise ValueError(f"not a cause (topic-partition-offset:ordinal): {text!r}")
    origin = parse_origin(origin_text)
    return origin, Cause(origin.offset, int(ordinal))

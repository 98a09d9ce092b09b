"""Dead letters, read from their topic or from a replay's file; `redrive.py` sends them back to the input."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.columns import Kind
from thalweg.operators.fold.state import new_state
from thalweg.operators.learner import BUILT_IN
from thalweg.schemas.origin import Origin, parse_origin
from thalweg.schemas.outputs import DeadLetter, decode_dead_letter
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import LogRecord
from thalweg.streams.kafka.consume import consume
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.sinks import LINE_BYTES_MAX, dead_letter_of
from thalweg.streams.mapping.reading import reader
from thalweg.streams.refusal import Refusal

REDRIVEN_HEADER = "thalweg.redriven"
"""Of a record that was sent back: the place of its letter. Of a mark: the offset of the letter it is for."""
REDRIVES_HEADER = "thalweg.redrives"
"""Of a record that was sent back: how often it was by now."""
COUNT_DIGITS_MAX = 9
STATE_DECIDES = frozenset((Reason.USER_MISMATCH, Reason.TOO_MANY_FEEDBACKS, Reason.NO_ROOM, Reason.WRONG_PARTITION))
"""Reasons that lie in the partition and its state, not in the record's bytes."""


class Letter(NamedTuple):
    """A dead letter and where it lies: `offset` in the partition of the dead-letter topic, or the line of a file."""

    topic: str
    partition: int
    offset: int
    letter: DeadLetter

    @property
    def place(self) -> str:
        """Return the place as one says it."""
        return str(Origin(self.topic, self.partition, self.offset))


class Wanted(NamedTuple):
    """Which letters are meant; what is empty or None takes all."""

    reasons: frozenset[str] = frozenset()
    partition: int | None = None
    first_offset: int = 0
    last_offset: int | None = None
    origins: frozenset[str] = frozenset()

    def takes(self, letter: Letter) -> bool:
        """Return whether a letter is meant."""
        return (
            (not self.reasons or letter.letter.reason in self.reasons)
            and self.partition in (None, letter.partition)
            and self.first_offset <= letter.offset
            and (self.last_offset is None or letter.offset <= self.last_offset)
            and (not self.origins or letter.letter.origin in self.origins or letter.place in self.origins)
        )


class Contents(NamedTuple):
    """What a pass over a dead-letter topic finds beside letters: marks by (partition, offset), and others' records."""

    redriven: frozenset[tuple[int, int]]
    foreign: int


def letters_of_topic(kafka: KafkaSection, topic: str, wanted: Wanted) -> Iterator[Letter]:
    """Give the letters of a topic that are meant, up to its end as it is now. Raises Refusal where it can't be read."""
    for record in consume(kafka, topic, partition=wanted.partition):
        letter = _letter(topic, record)
        if letter is not None and wanted.takes(letter):
            yield letter


def contents(kafka: KafkaSection, topic: str, partition: int | None = None) -> Contents:
    """Read a dead-letter topic for what was redriven. Raises Refusal where it can't be read."""
    redriven: set[tuple[int, int]] = set()
    foreign = 0
    for record in consume(kafka, topic, partition=partition):
        mark = next((value for name, value in record.headers or () if name == REDRIVEN_HEADER), None) or b""
        if _letter(topic, record) is not None:
            continue
        if mark.isdigit():
            redriven.add((record.partition, int(mark)))
        else:
            foreign += 1
    return Contents(frozenset(redriven), foreign)


def letters_of_file(path: str, wanted: Wanted) -> Iterator[Letter]:
    """Give the letters of a file that `thalweg replay --dead-letters` wrote. Raises LogError, or Refusal for a line
    that is none.
    """
    with LogReader(path, block_lines=1_000, line_bytes_max=LINE_BYTES_MAX) as reader:
        for block in reader:
            for record in block:
                try:
                    letter = decode_dead_letter(record.value or b"")
                    partition = parse_origin(letter.origin).partition
                except (ValueError, msgspec.MsgspecError):
                    raise Refusal(
                        f"line {record.offset} (from 0) of {reader.name} is no dead letter: name the file that "
                        "`thalweg replay --dead-letters` wrote"
                    ) from None
                each = Letter(path, partition, record.offset, letter)
                if wanted.takes(each):
                    yield each


def _letter(topic: str, record: Any) -> Letter | None:
    headers = tuple(record.headers or ())
    try:
        return Letter(topic, record.partition, record.offset, dead_letter_of(record.value, record.key, headers))
    except (ValueError, UnicodeDecodeError):
        return None


class Prospects:
    """What would become of letters if they were read again, as far as their bytes tell under a configuration."""

    def __init__(self, configuration: Configuration) -> None:
        """Read as the fold does under this configuration."""
        self._configuration = configuration
        self._names = new_state(configuration).names
        self._read = reader(configuration, "", 0)

    def reason(self, letter: DeadLetter) -> str | None:
        """Return the reason for which a letter is sure to be dead-lettered again, None where it is not sure."""
        record = LogRecord(0, letter.raw, letter.key, tuple(letter.headers))
        columns = Columnizer(self._configuration, self._names.copy(), 0, 0, self._read).columns([record]).columns
        if columns.reason[0]:
            return Reason.of_code(int(columns.reason[0])).value
        is_unsupported = columns.kind[0] == Kind.REQUEST and self._configuration.learner.model != BUILT_IN
        return Reason.REQUEST_UNSUPPORTED.value if is_unsupported else None


def redrives_of(letter: DeadLetter) -> int:
    """Return how often the record of a letter was sent back before."""
    found = dict(letter.headers)
    count = found.get(REDRIVES_HEADER) or b""
    if count.isdigit():
        return int(count[:COUNT_DIGITS_MAX])
    return int(REDRIVEN_HEADER in found)


def came_of(letter: DeadLetter) -> str | None:
    """Return the place of the letter that a letter's record was before it was sent back, None where it was none."""
    found = dict(letter.headers).get(REDRIVEN_HEADER)
    return found.decode(errors="replace") if found else None

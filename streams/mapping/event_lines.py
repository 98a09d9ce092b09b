"""JSON lines of foreign events as a log of ours: each line's event as `[mapping]` makes it, sorted by time."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Event, Feedback, Impression, Merge, encode_event
from thalweg.schemas.reasons import Unusable
from thalweg.streams.logs.columns import KEEP, NULL_WORDS
from thalweg.streams.logs.errors import LogReadError, TableError
from thalweg.streams.logs.ordered import Imported
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.mapping.reading import reader

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson")
LINES_A_BLOCK = 10_000


class EventLines:
    """The events of a file of JSON lines, in the order of (time, impression before others, line).

    An id that the mapping makes of the origin is made of the line's number.

    Parameters
    ----------
    path
        The file.
    configuration
        The fold's, with a `[mapping]`.
    keep_null_words
        Whether words such as NULL and NaN are ids like others.

    Raises
    ------
    TableError
        The file can't be read, or a line has no event; its number (from 0) is named.

    """

    def __init__(self, path: Path, configuration: Configuration, *, keep_null_words: bool = False) -> None:
        """Read and check the lines; the parameters are the class's."""
        self.notes: list[str] = []
        read = reader(configuration, "line", 0)
        assert read is not None
        lines: list[bytes] = []
        kinds: list[bool] = []
        times: list[int] = []
        feedback = 0
        try:
            with closing(LogReader(path, block_lines=LINES_A_BLOCK)) as log:
                for block in log:
                    for record in block:
                        try:
                            event = read(record)
                        except Unusable as unusable:
                            raise TableError(f"{path}: line {record.offset} has no event: {unusable}") from None
                        if event is not None and not isinstance(event, Merge):  # workers write these themselves
                            if not keep_null_words:
                                _refuse_null_words(event, path, record.offset)
                            lines.append(encode_event(event) + b"\n")
                            kinds.append(not isinstance(event, Impression))
                            times.append(event.ts)
                            feedback += isinstance(event, Feedback)
        except LogReadError as error:
            raise TableError(str(error)) from None
        if not lines:
            raise TableError(f"{path} has no event: every line is ignored")
        order = np.lexsort((np.arange(len(lines)), np.array(kinds), np.array(times)))
        self._lines = [lines[place] for place in order.tolist()]
        shown = kinds.count(False)
        self.imported = Imported(shown, feedback, min(times), max(times))

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time."""
        for start in range(0, len(self._lines), LINES_A_BLOCK):
            yield b"".join(self._lines[start : start + LINES_A_BLOCK])


def _refuse_null_words(event: Event, path: Path, line: int) -> None:
    """Raise TableError where a user or an item is a word for no value."""
    for name in ("user", "item"):
        text = getattr(event, name, None)
        if text is not None and text.strip().lower() in NULL_WORDS:
            raise TableError(
                f"{path}: line {line} has the {name} {text!r}, a word for no value: leave such lines out, or give "
                f"{KEEP} if it is an id"
            )

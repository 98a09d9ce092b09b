"""What a log's merges name, from files: lessons, and the shared part that the first merge begins with."""

from collections.abc import Iterable
from pathlib import Path

from thalweg.streams.checkpoints.format import MAGIC, CheckpointError, origin_of, read
from thalweg.streams.partition.lessons import LessonBook, lessons_in
from thalweg.streams.refusal import Refusal


def taught_in(paths: Iterable[str]) -> LessonBook:
    """Return what files hold: lessons, or a state as a checkpoint's file has it.

    Raises Refusal where one can't be read, or is neither.
    """
    paths = list(paths)
    states = [path for path in paths if is_checkpoint(path)]
    book = lessons_in(path for path in paths if path not in states)
    for path in states:
        try:
            checkpoint = read(Path(path))
        except CheckpointError as error:
            raise Refusal(str(error)) from None
        book.states[str(origin_of(checkpoint.header))] = checkpoint.part("")
    return book


def is_checkpoint(path: str) -> bool:
    """Whether a file begins as a checkpoint; not where it can't be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False

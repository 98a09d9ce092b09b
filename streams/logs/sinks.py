"""The files that a replay writes its outputs to: each output once, also where a replay resumes from a checkpoint."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from thalweg.schemas.lessons import BadLessonsError, read_batches
from thalweg.schemas.origin import parse_cause
from thalweg.schemas.outputs import DeadLetter, decode_caused, encode_dead_letter
from thalweg.schemas.records import Cause, Headers, Output
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.logs.errors import LogWriteError
from thalweg.streams.logs.writer import LogWriter

OWN_HEADERS = 8  # of a dead letter, after those of the record itself
OWN_PREFIXES = ("__streams.errors.", "thalweg.")
LINE_BYTES_MAX = 1 << 27
COMPRESSED = (".gz", ".zst")
_BACKWARDS_BYTES = 1 << 16


class Ending(NamedTuple):
    """Where the last whole line of a file ends, and its cause (None: there is no line)."""

    size: int
    cause: Cause | None


class Sink:
    """One kind of outputs to one file.

    A fresh replay overwrites the file. Where a replay resumes from a checkpoint its outputs may be there already, the
    last line perhaps in part. The file is cut after its last whole line, and outputs up to that line's cause are left
    out.

    Parameters
    ----------
    path
        The file, or `-`.
    inputs
        Files being read, which the output must not overwrite.
    goes_on
        Whether what is in the file stays.

    Raises
    ------
    LogWriteError
        The file can't be written, or its rest can't be appended.

    """

    def __init__(self, path: str, *, inputs: Iterable[str | Path] = (), goes_on: bool = False) -> None:
        """Open the file; the parameters are the class's."""
        ending = Ending(0, None)
        is_there = goes_on and path != STANDARD_STREAM and Path(path).is_file() and Path(path).stat().st_size > 0
        if is_there:
            if Path(path).suffix.lower() in COMPRESSED:
                raise LogWriteError(
                    f"{path} is there and compressed, and can't be continued: write the rest to another file"
                )
            ending = self.ending_of(Path(path))
        self._last = ending.cause
        self._writer = LogWriter(path, inputs=inputs, append_at=ending.size if is_there else None)

    def write(self, outputs: Sequence[Output]) -> None:
        """Write outputs, a line each, in their order."""
        if self._last is not None:
            outputs = [output for output in outputs if output.cause > self._last]
        if outputs:
            self._writer.write(self.joined(outputs))

    @staticmethod
    def ending_of(path: Path) -> "Ending":
        """Return where a file of outputs ends. Raises LogWriteError where it is not one, or can't be read."""
        return ending_of(path)

    @staticmethod
    def joined(outputs: Sequence[Output]) -> bytes:
        """Return outputs as a file has them: a line each."""
        return b"\n".join([output.value or b"" for output in outputs]) + b"\n"

    def flush(self) -> None:
        """Make what was written durable, as far as where it goes can be."""
        self._writer.sync()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class LessonSink(Sink):
    """Lessons to one file: batches as the topic has them, one behind the other."""

    @staticmethod
    def ending_of(path: Path) -> Ending:
        """Return where a file of lessons ends. Raises LogWriteError where it is not one, or can't be read."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LogWriteError(f"{path} can't be continued: {error.strerror}") from None
        ending = Ending(0, None)
        try:
            for start, batch in read_batches(data):
                ending = Ending(start + batch.length, batch.cause)
        except BadLessonsError:
            if ending.cause is None:
                raise LogWriteError(f"{path} is there and holds no lessons: write to another file") from None
        return ending

    @staticmethod
    def joined(outputs: Sequence[Output]) -> bytes:
        """Return outputs as a file has them: they know their length."""
        return b"".join([output.value or b"" for output in outputs])


def ending_of(path: Path) -> Ending:
    """Return where a file of outputs ends. Raises LogWriteError where it is not one, or can't be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            tail, start = b"", size
            while start and tail.count(b"\n") < 2 and len(tail) < LINE_BYTES_MAX:
                length = min(_BACKWARDS_BYTES, start)
                start = file.seek(start - length)
                tail = file.read(length) + tail
    except OSError as error:
        raise LogWriteError(f"{path} can't be continued: {error.strerror}") from None
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole:
        return Ending(0, None)
    try:
        cause = parse_cause(decode_caused(whole.rstrip(b"\n").rsplit(b"\n", 1)[-1]).cause)[1]
    except (ValueError, msgspec.MsgspecError):
        raise LogWriteError(f"{path} is there and holds no outputs: write to another file") from None
    return Ending(size - len(tail) + len(whole), cause)


def dead_letter_line(output: Output) -> Output:
    """Return a dead letter as the file of dead letters has it, from the record that goes to the topic.

    >>> from thalweg.schemas.outputs import dead_letter_headers
    >>> from thalweg.schemas.origin import Origin
    >>> from thalweg.schemas.reasons import Reason
    >>> cause = Cause(4, 0)
    >>> headers = dead_letter_headers((), Reason.NOT_JSON, "not JSON", Origin("interactions", 0, 4), cause)
    >>> dead_letter_line(Output(cause, b"???", None, headers)).value
    b'{"origin":"interactions-0-4","cause":"interactions-0-4:0","reason":"not_json","detail":"not JSON","raw":"Pz8/"}'
    """
    return Output(output.cause, encode_dead_letter(dead_letter_of(output.value, output.key, output.headers)))


def dead_letter_of(value: bytes | None, key: bytes | None, headers: Headers) -> DeadLetter:
    """Return the dead letter that a record of their topic is. Raises ValueError where it is none."""
    own = {
        name: value.decode()
        for name, value in headers[-OWN_HEADERS:]
        if value is not None and name.startswith(OWN_PREFIXES)
    }
    errors = "__streams.errors."
    try:
        return DeadLetter(
            origin=f"{own[errors + 'topic']}-{own[errors + 'partition']}-{own[errors + 'offset']}",
            cause=own["thalweg.cause"],
            reason=own["thalweg.reason"],
            detail=own[errors + "message"],
            raw=value,
            key=key,
            headers=list(headers[:-OWN_HEADERS]),
        )
    except KeyError as error:
        raise ValueError(f"it has no header {error}") from None

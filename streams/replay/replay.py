"""Replay: a log file through a partition, its outputs to files, in bounded memory."""

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointError, Identity, Store, header_of
from thalweg.streams.logs.errors import LogReadError
from thalweg.streams.logs.sinks import LessonSink, Sink, dead_letter_line
from thalweg.streams.partition.lessons import LessonSource
from thalweg.streams.partition.partition import BLOCK_EVENTS, Partition
from thalweg.streams.partition.seal import Seal
from thalweg.streams.partition.tally import Tally
from thalweg.streams.replay.regret import Truth
from thalweg.streams.replay.summary import Summary, summarize, with_regret

CHECKPOINT_EVENTS = 1_000_000
TALLY = "tally"

Kind = TypeVar("Kind", bound=Sink)


class Sinks(NamedTuple):
    """Where outputs go; None: nowhere."""

    scores: Sink | None = None
    examples: Sink | None = None
    dead_letters: Sink | None = None
    rankings: Sink | None = None
    lessons: LessonSink | None = None

    @classmethod
    def opened(
        cls, paths: Sequence[str | None], lessons: str | None, *, inputs: Sequence[str], goes_on: bool = False
    ) -> "Sinks":
        """Return sinks of files for scores, examples, dead letters and rankings, and for lessons; None: not wanted.

        `inputs`, `goes_on` as `Sink` has them. Raises LogWriteError where one can't be written; none is open then.
        """
        with ExitStack() as opening:

            def opened(kind: type[Kind], path: str | None) -> Kind | None:
                if path is None:
                    return None
                sink = kind(path, inputs=inputs, goes_on=goes_on)
                opening.callback(sink.close)
                return sink

            scores, examples, dead_letters, rankings = (opened(Sink, path) for path in paths)
            found = cls(scores, examples, dead_letters, rankings, opened(LessonSink, lessons))
            opening.pop_all()
        return found

    def write(self, outputs: Outputs) -> None:
        """Write outputs, each kind to its file."""
        if self.scores is not None:
            self.scores.write(outputs.scores)
        if self.examples is not None:
            self.examples.write(outputs.examples)
        if self.dead_letters is not None:
            self.dead_letters.write([dead_letter_line(output) for output in outputs.dead_letters])
        if self.rankings is not None:
            self.rankings.write(outputs.rankings)
        if self.lessons is not None:
            self.lessons.write(outputs.lessons)

    def flush(self) -> None:
        """Hand all that was written to the system."""
        for sink in self:
            if sink is not None:
                sink.flush()

    def close(self) -> None:
        """Close the files, each of them also where another one fails."""
        with ExitStack() as closing:
            for sink in self:
                if sink is not None:
                    closing.callback(sink.close)


class Replay:
    """One partition that is fed from a log file, from the newest checkpoint on where there is one.

    Parameters
    ----------
    configuration
        The fold's.
    topic, partition
        What origins are called after.
    store
        Where checkpoints lie; None: the replay starts empty and leaves none.
    examples
        Whether examples are wanted.
    block_events
        Events folded in one go.
    seal
        What checkpoints are signed with, see `thalweg.streams.partition.seal`.
    lessons
        Where the lessons come from that the log names; with it, lessons are made too.

    Raises
    ------
    CheckpointError
        A checkpoint is there that cannot be resumed.

    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        topic: str = "interactions",
        partition: int = 0,
        store: Store | None = None,
        examples: bool = True,
        block_events: int = BLOCK_EVENTS,
        seal: Seal | None = None,
        lessons: LessonSource | None = None,
    ) -> None:
        """Load the newest checkpoint; the parameters are the class's."""
        self.truth: Truth | None = None
        """True probabilities that scores are compared with; from a checkpoint on, those after it."""
        self._identity = Identity(topic, partition, configuration)
        self._store = store
        checkpoint = None if store is None else store.load(self._identity)
        self.goes_on = checkpoint is not None
        self.next_offset = 0 if checkpoint is None else checkpoint.header.next_offset
        self._saved_offset = self.next_offset if checkpoint is not None else -1
        self._expected = None if checkpoint is None else checkpoint.header.last_record
        self._last_value: bytes | None = None
        self._saved_events = 0
        self.tally = Tally()
        self.events = 0
        self.seconds = 0.0
        try:
            if checkpoint is not None and checkpoint.part(TALLY):
                self.tally = Tally.restored(checkpoint.part(TALLY))
            self.partition = Partition(
                configuration,
                topic=topic,
                partition=partition,
                arrays=None if checkpoint is None else checkpoint.part(""),
                examples=examples,
                tally=self.tally,
                block_events=block_events,
                seal=None if seal is None else seal.bound(None if checkpoint is None else checkpoint.header),
                lessons=lessons,
            )
        except ValueError as error:
            raise CheckpointError(
                f"the checkpoint does not fit this version ({error}): replay the log into another folder"
            ) from None

    def refuse_gap(self, first_offset: int) -> None:
        """Raise CheckpointError where a log starts behind the offset at which the checkpoint resumes."""
        if self.goes_on and first_offset > self.next_offset:
            raise CheckpointError(
                f"the checkpoint resumes at offset {self.next_offset}, the log starts at {first_offset}: replay "
                "the records between them first, or name another folder"
            )

    def run(
        self,
        blocks: Iterable[Sequence[LogRecord]],
        sinks: Sinks,
        *,
        checkpoint_events: int = CHECKPOINT_EVENTS,
        on_block: Callable[[int], object] = lambda events: None,
    ) -> None:
        """Fold a log's blocks, and leave a checkpoint at the end and every so many events.

        `on_block` gets the events folded so far. What was read before an error of reading is written and in the
        checkpoint. After a failed write the state is ahead of what was written: no checkpoint is left, and the next
        replay resumes from the one before.

        Raises LogReadError where the log can't be read, and LogWriteError where an output can't be written. Raises
        CheckpointError where a checkpoint can't be written, or is of another log.
        """
        started = time.perf_counter()
        last = -1
        try:
            for block in blocks:
                last = block[-1].offset
                fresh = self._after_checkpoint(block)
                if not fresh:
                    continue
                outputs = self.partition.process(fresh)
                sinks.write(outputs)
                self.events += len(fresh)
                self.next_offset = last + 1
                self._last_value = fresh[-1].value
                if self.truth is not None:
                    self.truth.add(outputs.scores)
                on_block(self.events)
                if self.events - self._saved_events >= checkpoint_events:
                    self._save(sinks)
            if self.goes_on and last + 1 < self.next_offset:
                raise CheckpointError(
                    f"the checkpoint resumes at offset {self.next_offset}, ahead of the log, which ends at {last + 1}: "
                    f"give --first-offset {self.next_offset} if this log follows, or name another folder"
                )
        except LogReadError:
            self._save(sinks)
            raise
        finally:
            self.seconds += time.perf_counter() - started
        self._save(sinks)

    def close_windows(self, sinks: Sinks) -> None:
        """Close every window that is open, as the log's end."""
        started = time.perf_counter()
        sinks.write(self.partition.close_all())
        self.seconds += time.perf_counter() - started

    def summary(self, *, letters: str = "--dead-letters F.jsonl writes them") -> Summary:
        """Return what the replay came to so far; `letters` is where dead letters can be seen."""
        summary = summarize(self.partition, self.tally, events_now=self.events, seconds=self.seconds, letters=letters)
        return summary if self.truth is None else with_regret(summary, self.truth.regret())

    def _after_checkpoint(self, block: Sequence[LogRecord]) -> Sequence[LogRecord]:
        """Return the records that the checkpoint has not seen, once its last one was found where it must be."""
        skipped = max(0, self.next_offset - block[0].offset)
        if not skipped:
            return block
        if skipped <= len(block) and self._expected is not None:
            value = block[skipped - 1].value
            if value is not None and hashlib.sha256(value).hexdigest() != self._expected:
                raise CheckpointError(
                    f"the checkpoint is of another log: the record at offset {self.next_offset - 1} differs. Give "
                    f"--first-offset {self.next_offset} if this log follows, or name another folder"
                )
            self._expected = None
        return block[skipped:]

    def _save(self, sinks: Sinks) -> None:
        """Leave a checkpoint, once the outputs up to it are out of our hands."""
        if self._store is None or self.next_offset == self._saved_offset:
            return
        sinks.flush()
        header = header_of(self._identity, self.next_offset, self.partition.digest(), last_record=self._last_value)
        tally = {f"{TALLY}/{name}": array for name, array in self.tally.snapshot().items()}
        self._store.save(Checkpoint(header, self.partition.snapshot(header) | tally))
        self._saved_offset = self.next_offset
        self._saved_events = self.events

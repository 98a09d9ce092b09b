"""One partition: records in, outputs out. A log file, Kafka, a test's driver and a simulator all come through here."""

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block, Columnizer
from thalweg.operators.edges.encoder import Encoder, Taught, scored_events
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.digest import digest
from thalweg.operators.fold.emitted import Emitted, Made, new_emitted, room_for_candidates
from thalweg.operators.fold.fold import close_all, fold
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.snapshot import restore, snapshot
from thalweg.operators.fold.state import Parameters, Scratch, State, new_scratch, new_state, parameters_of
from thalweg.operators.learner import BUILT_IN
from thalweg.operators.machine.reference import held
from thalweg.operators.structures.names import field_names
from thalweg.schemas.events import Request
from thalweg.schemas.records import Outputs, Record, no_outputs
from thalweg.streams.mapping.reading import reader
from thalweg.streams.partition.findings import Finding, Noticed, findings
from thalweg.streams.partition.lessons import Fold, Lessons, LessonSource, settled
from thalweg.streams.partition.memory import refusing_memory
from thalweg.streams.partition.questions import ANSWER_TIMEOUT_S, Position, Questions
from thalweg.streams.partition.river_model import RiverModel, without_model
from thalweg.streams.partition.seal import Seal, SignedHeader
from thalweg.streams.partition.showing import Showing, keys_shown
from thalweg.streams.partition.tally import Tally
from thalweg.streams.partition.turns import Turns

BLOCK_EVENTS = 2_500

Rooms = list[Emitted | None]
"""Where blocks put what they emit, by turns: one is written while the next is folded."""


class Partition:
    """The fold over one partition's log, with decoding before it and encoding after it.

    `process` is the only way in. The state after it depends on the configuration and the records so far, and on nothing
    else. `tally`, where there is one, gets every label with its scores.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        topic: str = "interactions",
        partition: int = 0,
        partitions: int = 0,
        arrays: dict[str, npt.NDArray[Any]] | None = None,
        next_offset: int = 0,
        examples: bool = True,
        tally: Tally | None = None,
        block_events: int = BLOCK_EVENTS,
        seal: Seal | None = None,
        rooms: Rooms | None = None,
        lessons: LessonSource | None = None,
    ) -> None:
        """Start empty, or from the `arrays` of a snapshot, before the input's `next_offset`.

        `partitions` is the number of the topic's partitions, 0 where a log has none: then no record is in the wrong
        one. `block_events`: events folded in one go; it bounds memory and changes no result. `seal`: the key of
        snapshots where a River classifier is the model, bound to the header of the checkpoint that `arrays` are of.
        `rooms`: shared with partitions of the same configuration that never fold at the same time. `lessons`: where
        those come from that merges name; where it is given, this partition makes lessons as well, unless
        `lessons.enabled` is false.

        Raises ValueError where a snapshot does not fit the configuration, Refusal where there is no such model, or no
        memory for such a state.
        """
        configuration = settled(configuration, has_others=lessons is not None)
        self.configuration = configuration
        self._lessons = Lessons(configuration, lessons)
        self.topic = topic
        self.partition = partition
        self.partitions = partitions
        self._model: RiverModel | None = None
        if configuration.learner.model != BUILT_IN:
            self._model = RiverModel(configuration, seal, arrays)
            arrays = None if arrays is None else without_model(arrays)
        self.turns = Turns()
        with refusing_memory(configuration):
            self.state: State = new_state(configuration) if arrays is None else restore(configuration, arrays)
        signed = None if self._model is None or arrays is None or seal is None else seal.digest
        if signed is not None and signed != self.digest():
            raise ValueError(f"its state is not the one that its {configuration.learner.model} was signed with")
        self.tally = tally
        self._first_offset = next_offset
        self._noticed = Noticed()
        self._examples = examples
        self._block_events = block_events
        self._read = reader(configuration, topic, partition)
        self._columnizer = self._new_columnizer()
        self._encoder = Encoder(configuration, topic, partition)
        self._names = field_names(self.state.names)
        self._rooms: Rooms = [None, None] if rooms is None else rooms
        self._rooms_used = 0
        self._executor: ThreadPoolExecutor | None = None

    # What compiled code takes for every block is held once; when first used, since holding compiles too.
    @cached_property
    def _held_state(self) -> State:
        return held(self.state)

    @cached_property
    def _parameters(self) -> Parameters:
        return held(parameters_of(self.configuration, self._names, self.partition))

    @cached_property
    def _scratch(self) -> Scratch:
        return held(new_scratch(self.configuration)._replace(halt=self.turns.halt))

    @cached_property
    def questions(self) -> Questions:
        """What answers questions."""
        position = Position(self._first_offset, self._names, self._parameters)
        return Questions(self.configuration, self.state, self._scratch, self.turns, position)

    def process(self, records: Sequence[Record]) -> Outputs:
        """Fold records, in the order of their offsets, and return what they made.

        While one block is folded, which holds no lock of Python's, the next one is read and the one before is written.
        """
        outputs = no_outputs()
        self._taught: list[Taught] = []
        self._rooms_used = 0  # what was emitted before is written: one room does where blocks come one at a time
        # without the garbage collector: nothing here makes cycles, and it would walk the outputs time and again
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            before: _Folding | None = None
            for folding in self._foldings(records):
                if before is not None:
                    self._complete(before, outputs)
                folding.start(self._thread() if len(records) > self._block_events else None)
                if before is not None:
                    self._encode(before, outputs)
                before = folding
            if before is not None:
                self._complete(before, outputs)
                self._encode(before, outputs)
            outputs.lessons.extend(self._encoder.batches(self._taught))
        finally:
            if is_collecting:
                gc.enable()
        return outputs

    def answer(
        self, request: bytes | Request, *, is_ordered: bool = True, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> bytes:
        """Return the answer to a request between two events, which changes nothing and counts as none.

        `request`: its record, or the event that `request_of` made of that. Any thread may ask, while another one folds.
        `offset` in the answer is the input offset whose request would get it. Unless `is_ordered`, the scores of all
        candidates come in the request's order.

        Raises Unusable where it is no request that can be answered, BusyError where it can't be now.
        """
        return self.questions.answer(request, is_ordered=is_ordered, timeout_s=timeout_s)

    def merge(self, upto: Mapping[int, int]) -> None:
        """Learn the lessons of other partitions up to these numbers, without a record: files have none.

        Raises Refusal where they are missing, damaged or of another layout.
        """
        with self.turns.taken():
            fold_ = Fold(self._held_state, self._parameters, self._scratch, self._room(0))
            for source, number in sorted(upto.items()):
                if source != self.partition:
                    self._lessons.learn(fold_, source, number, "this replay")

    def close_all(self) -> Outputs:
        """Close every window at the end of a log, and return the examples that this makes."""
        with self.turns.taken():
            return self._close_all()

    def _close_all(self) -> Outputs:
        outputs = no_outputs()
        self._taught = []
        emitted = self._room(0)
        is_done = False
        while not is_done:
            if self._model is None:
                is_done = close_all(self._held_state, self._parameters, self._scratch, emitted)
            else:
                is_done = self._model.close_all(self._held_state, self._parameters, self._scratch, emitted, self._names)
            self._drain_examples(emitted, self._names, outputs, None)
        outputs.lessons.extend(self._encoder.batches(self._taught))
        return outputs

    def warm_up(self) -> float:
        """Compile the fold, or load it from its cache, and return the seconds that took; the state stays as it is."""
        started = time.perf_counter()
        emitted = self._room(0)
        columns = self._columnizer.columns([]).columns
        fold(self._held_state, self._parameters, self._scratch, columns, emitted, 0)
        digest(self.state)
        return time.perf_counter() - started

    def snapshot(self, header: SignedHeader | None = None) -> dict[str, npt.NDArray[Any]]:
        """Return copies of the state's arrays by name, from which another partition can resume.

        `header`: that of the checkpoint they are for; a River classifier's part is signed for it.

        Raises ValueError where a River classifier is the model and there is no seal.
        """
        with self.turns.taken():
            arrays = snapshot(self.state)
        return arrays if self._model is None else arrays | self._model.snapshot(header)

    def findings(self, letters: str) -> list[Finding]:
        """Return what the log's owner should look at; `letters` is where dead letters can be seen."""
        return findings(self.state, self._noticed, self.configuration, letters=letters)

    def digest(self) -> str:
        """Return the SHA-256 of the state's logical content; of a River classifier, what it was taught and answered."""
        with self.turns.taken():
            found = digest(self.state)
        return found if self._model is None else self._model.digest(found)

    def _foldings(self, records: Sequence[Record]) -> Iterator["_Folding"]:
        """Yield records in blocks, read and ready to be folded."""
        rest = [records[first : first + self._block_events] for first in range(0, len(records), self._block_events)]
        rest.reverse()
        while rest:
            block = rest.pop()
            columnised = self._columnizer.columns(block)
            if self._has_new_names():
                if len(block) > 1:
                    # An event before the one that brings a context field must not see its name: fold them apart.
                    self._forget_new_names()
                    middle = len(block) // 2
                    rest += [block[middle:], block[:middle]]
                    continue
                self._learn_names()
            self._noticed.note_block(columnised)
            self._noticed.note_fields(columnised, self.state.names, self.configuration.features)
            emitted = self._room(len(block), int(columnised.columns.candidate_start[-1]))
            emitted.reason[: len(block)] = 0
            questions = self.questions
            position = Position(questions.position.next_offset, self._names, self._parameters)
            showing = Showing(columnised, self._columnizer, self._encoder)
            yield _Folding(
                Fold(self._held_state, position.parameters, self._scratch, emitted),
                columnised,
                self._model,
                questions,
                position,
                self._lessons,
                showing,
            )

    def _complete(self, folding: "_Folding", outputs: Outputs) -> None:
        """Wait until a block is folded, emptying what it emits as often as there is no more room."""
        while not folding.wait():
            self._encode(folding, outputs)
            folding.start(None)

    def _encode(self, folding: "_Folding", outputs: Outputs) -> None:
        """Turn what a block has emitted since the last time into outputs."""
        block, emitted, first, last = folding.block, folding.emitted, folding.encoded, folding.folded
        if block.has_impressions:
            outputs.scores.extend(self._encoder.scores(block, emitted, first, last, folding.names))
        if letters := self._encoder.dead_letters(block, emitted, first, last):
            outputs.dead_letters.extend(letters)
            self._noticed.note_reasons(emitted.reason[first:last])
            self._noticed.note_reasons(emitted.letter_reason[: int(emitted.counts[Made.LETTERS])])
        if block.asked:
            outputs.rankings.extend(self._encoder.rankings(block, emitted, first, last, folding.showing.answers))
        if self.tally is not None:
            self.tally.show(shown_of(block, emitted, first, last))
            for shown in folding.showing.take():
                self.tally.show(shown)
            self.tally.asked.add(block, emitted, first, last)
        self._drain_examples(emitted, folding.names, outputs, block.columns)
        folding.encoded = last

    def _drain_examples(self, emitted: Emitted, names: list[str], outputs: Outputs, columns: Columns | None) -> None:
        count = int(emitted.counts[Made.EXAMPLES])
        if count and self.tally is not None:
            first_time = emitted.example_revision[:count] == 0
            of = emitted.example_offset, emitted.example_cause, emitted.example_item.view(np.int64)
            closings = np.stack([each[:count] for each in of], axis=1)[first_time]
            labels, scores = emitted.example_label[:count], emitted.example_scores[:count]
            times_ms = np.full(len(closings), self.state.clock.stream_time_ms[0])
            if columns is not None:
                times_ms = columns.ts_ms[np.searchsorted(columns.offset, closings[:, 1])]
            self.tally.add(labels[first_time], scores[first_time], closings, times_ms)
            if self.configuration.objectives.heads:
                others = emitted.example_labels[:count], emitted.example_heads[:count]
                self.tally.add_others(*(each[first_time] for each in others))
        if count and self._examples:
            outputs.examples.extend(self._encoder.examples(emitted, names))
        self._taught += self._encoder.lessons(emitted, names)
        emitted.counts[:] = 0

    def _thread(self) -> ThreadPoolExecutor:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fold")
        return self._executor

    def _new_columnizer(self) -> Columnizer:
        return Columnizer(self.configuration, self.state.names, self.partition, self.partitions, self._read)

    def _has_new_names(self) -> bool:
        return len(self._names) < len(self.state.names) and bool(self.state.names[len(self._names), 0])

    def _forget_new_names(self) -> None:
        self.state.names[len(self._names) :] = 0
        self._columnizer = self._new_columnizer()

    def _learn_names(self) -> None:
        """Take notice of context fields that appeared for the first time."""
        self._names = field_names(self.state.names)
        self._parameters = held(parameters_of(self.configuration, self._names, self.partition))

    def _room(self, events: int, candidates: int = 0) -> Emitted:
        """Return room for what a block emits: one of two, since one block is written while the next is folded."""
        at = self._rooms_used % 2
        self._rooms_used += 1
        room = self._rooms[at]
        if room is None or len(room.fate) < events:
            # filled up, so that blocks a little larger than the last do not each need a new one
            size = max(events, min(1 << events.bit_length(), self._block_events))
            with refusing_memory(self.configuration):
                made = new_emitted(self.configuration, size, input_count(self.configuration))
            room = self._rooms[at] = held(made)
        if len(room.ranked) < candidates:
            with refusing_memory(self.configuration):
                heads = len(self.configuration.objectives.heads)
                room = self._rooms[at] = held(room._replace(**room_for_candidates(candidates, heads)))
        return room


class _Folding:
    """A block on its way through the fold: `folded` and `encoded` count the events that have come so far."""

    def __init__(
        self,
        fold: Fold,
        block: Block,
        model: RiverModel | None,
        questions: Questions,
        position: Position,
        lessons: Lessons,
        showing: Showing,
    ) -> None:
        self.block = block
        self.emitted = fold.emitted
        self.showing = showing
        self.names = position.names
        self.folded = 0
        self.encoded = 0
        self._with = fold
        self._model = model
        self._turns = questions.turns
        self._questions = questions
        self._position = position
        self._lessons = lessons
        self._is_amid = False
        self._future: Future[None] | None = None

    def start(self, executor: ThreadPoolExecutor | None) -> None:
        """Fold on, in the executor's thread or, without one, here and now."""
        if executor is None:
            self._fold()
        else:
            self._future = executor.submit(self._fold)

    def wait(self) -> bool:
        """Wait until the fold stops, and return whether all events are folded."""
        if self._future is not None:
            self._future.result()
            self._future = None
        return self.folded == len(self.block.records)

    def _fold(self) -> None:
        """Fold until the block's end, or until there is no more room; let questions in between two events."""
        while True:
            if not self._is_amid:
                self._turns.take()
            self._is_amid = False
            self._is_amid = not self._fold_some()
            if self._is_amid:
                return
            is_done = self.folded == len(self.block.records)
            if not is_done and not self._turns.is_halted:
                self._is_amid = True  # no more room in the middle of an event: nobody may look at the state
                return
            offset = int(self.block.columns.offset[self.folded - 1]) + 1
            _, names, parameters = self._position
            self._questions.position = Position(offset, names, parameters)
            self._turns.give()
            if is_done:
                return

    def _fold_some(self) -> bool:
        """Fold until it stops for more than lessons and what requests show; False: amid the latter, without room."""
        state, parameters, scratch, emitted = self._with
        arguments = state, parameters, scratch, self.block.columns, emitted
        if self._model is not None:
            self.folded = self._model.fold(*arguments, self.folded, self.names)
            return True
        while True:
            if self.showing.is_amid:
                if not self.showing.resume(self._with):
                    return False
                self.folded += 1
            self.folded = fold(*arguments, self.folded)
            if emitted.counts[Made.MERGE]:
                self._lessons.serve(self._with, self.block, self.folded)
            elif emitted.counts[Made.SHOWN]:
                self.showing.start(self._with, self.folded)
            else:
                return True


def shown_of(block: Block, emitted: Emitted, first: int, last: int) -> npt.NDArray[np.int64]:
    """Return what a tally keeps of the impressions scored among a block's events `first` to `last`, [n, 4]."""
    return keys_shown(block.columns, scored_events(emitted, first, last))

"""The worker: the fold of each assigned partition, between Kafka's input topic and its three output topics.

The steps are below; `docs/failures.md` states what happens if the worker dies at each of them.

    on `open`     1. load the newest checkpoint that is whole
                  2. refuse a checkpoint that cannot be resumed: see `refuse_log`
                  3. read each output topic from the end that the checkpoint recorded: our highest cause in it
                  4. read the input from the checkpoint's next offset; if no worker has folded it yet, let its log
                     name another partition's shared part to begin with: see `streams/worker/starts.py`
    on `fold`     5. bring the lessons together that the block names; fold it, off the event loop where it is not small
                  6. leave out each topic's outputs that are not above its highest cause, send the others
    when due      7. await every delivery
                  8. write a checkpoint: the state, the next offset, each output topic's end offset and last cause
                  9. acknowledge the next offset to Kafka
    on `close`    7 to 9

The checkpoint owns the offsets: what Kafka has committed for the group is for people to look at, and decides nothing.

In the mode `transactional` the outputs own them (see `streams/kafka/transactions.py`). Before 1 the outputs are taken
over, which tells the group's offset: nothing below it is sent again. After 6, every
`delivery.transaction_interval_ms` and before 8, outputs and next offset are committed as one; 9 never happens.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Cause, Output, Outputs, Record
from thalweg.streams.checkpoints.folders import store_at
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointError, Header, Identity, OutputEnd, header_of
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.kafka.delivery import Tail
from thalweg.streams.kafka.partition_run import LogBounds, TakenOverError
from thalweg.streams.partition.lessons import settled
from thalweg.streams.partition.seal import seal_of
from thalweg.streams.refusal import Refusal
from thalweg.streams.worker.lessons import (
    MergeSettings,
    PartitionLessons,
    SharedLessons,
    merges_in,
)
from thalweg.streams.worker.ports import Ports, ports_of
from thalweg.streams.worker.starts import Start, Starts

BELOW_ALL = -1
"""An ordinal below that of every output."""
REASON_HEADER = "thalweg.reason"
FIRST_RECORDS = 1_000
"""Of a partition's first records so many are looked at for keys that another hash placed."""
FEWEST_RECORDS = 50
LETTERS = "`thalweg dead-letters show` prints them"
MISPLACED_SHARE = 0.1


class CheckpointUnwritableError(Refusal):
    """The folder takes no checkpoint: the partition stops, and resumes from the last one."""


class Written(NamedTuple):
    """What one output topic's partition holds of ours: its end offset as last confirmed, and the highest cause."""

    end_offset: int
    cause: Cause | None


class AssignedPartition:
    """One partition while this worker has it: its fold, and its offsets in the input and in the outputs.

    Its methods are called one at a time; those that compute run in a thread.
    """

    def __init__(
        self, loaded: Loaded, ports: Ports, partition: int, partitions: int, lessons: PartitionLessons | None = None
    ) -> None:
        """Load the newest checkpoint that is whole. Raises Refusal where there is one that cannot be resumed.

        `lessons`: those that others teach, where partitions learn from each other.
        """
        topic = loaded.topics.interactions
        self.number = partition
        self.name = f"{topic}-{partition}"
        configuration = (
            loaded.configuration if lessons is None else settled(loaded.configuration, has_others=partitions > 1)
        )
        self._identity = Identity(topic, partition, configuration, partitions)
        self.lessons = lessons
        self.merged_at: float | None = None
        self._clock = ports.clock
        self.damaged: list[str] = []
        try:
            self.store = store_at(loaded.checkpoint, topic, partition, on_damage=self._on_damage, disk=ports.disk)
            checkpoint = self.store.load(self._identity)
            if checkpoint is not None:
                self.store.make_durable()
            self.header: Header | None = None if checkpoint is None else checkpoint.header
            self.next_offset = 0 if self.header is None else self.header.next_offset
            self.fold = ports.new_fold(
                configuration,
                topic=topic,
                partition=partition,
                partitions=partitions,
                arrays=None if checkpoint is None else checkpoint.part(""),
                next_offset=self.next_offset,
                seal=seal_of(loaded, header=self.header),
                **({} if lessons is None else {"lessons": lessons}),
            )
        except CheckpointError as error:
            raise Refusal(str(error)) from error
        except ValueError as error:
            raise Refusal(
                f"the checkpoint of {self.name} does not fit this version ({error}): rebuild from the log into another "
                "checkpoint.generation"
            ) from error
        self._last_value: bytes | None = None
        self.written: dict[str, Written] = {}
        self._suppressing: dict[str, Cause] = {}
        self.suppressed = 0
        self.dead_letters: dict[str, int] = {}
        self._looked_at = 0
        self._reported: set[str] = set()
        self.events_since_checkpoint = 0
        self._tried_at = self._clock.monotonic()
        self.checkpoint_at: float | None = None
        self.checkpoint_bytes = 0
        if self.header is not None:
            self._note_file(self.store.paths()[0])

    def recorded(self, topic: str) -> OutputEnd:
        """Return how far the checkpoint saw an output topic written; a checkpoint of a replay saw none of it."""
        none = OutputEnd(end_offset=0)
        return none if self.header is None else self.header.outputs.get(topic, none)

    def go_on(self, tails: dict[str, Tail], emitted: int | None) -> None:
        """Take as written what the output topics hold already, and all outputs of input below `emitted`.

        Those outputs are not sent again.
        """
        below = None if emitted is None else Cause(emitted, BELOW_ALL)
        for topic, found in tails.items():
            last = self.recorded(topic).last_cause
            highest = highest_of(last and Cause(*last), found.cause)
            self.written[topic] = Written(found.end_offset, highest)
            if (above := highest_of(highest, below)) is not None:
                self._suppressing[topic] = above

    def is_new(self, emitted: int | None) -> bool:
        """Whether no worker has folded it: there is no checkpoint, and the output topics have nothing of ours."""
        return self.header is None and not emitted and all(each.cause is None for each in self.written.values())

    def process(self, records: Sequence[Record], topics: Sequence[str]) -> Outputs:
        """Fold a block and return what of its outputs is to be sent."""
        outputs = self.fold.process(records)
        self.next_offset = records[-1].offset + 1
        self._last_value = records[-1].value
        self.events_since_checkpoint += len(records)
        for output in outputs.dead_letters:
            reason = next((value for name, value in reversed(output.headers) if name == REASON_HEADER), None)
            counted = (reason or b"").decode()
            self.dead_letters[counted] = self.dead_letters.get(counted, 0) + 1
        fresh = [self._above(topic, list_) for topic, list_ in zip(topics, outputs, strict=True)]
        return Outputs(*fresh)

    def learned(self) -> list[int]:
        """Return by partition the number of the last lesson learned."""
        found: list[int] = self.fold.state.lessons.learned.tolist()
        return found

    async def make_ready(self, records: Sequence[Record]) -> bool:
        """Bring the lessons together that a block's merges name; return whether there are merges.

        Raises Refusal where lessons are gone, or do not come.
        """
        if self.lessons is None or not (merges := merges_in(records)):
            return False
        has_begun = bool(self.fold.state.lessons.begun[0])
        await self.lessons.make_ready(merges, self.learned(), has_begun=has_begun)
        self.merged_at = self._clock.time()
        return True

    def misplaced(self, count: int) -> str | None:
        """Return a warning, once, where many of the first records are in the wrong partition.

        `count` is that of the records that were just folded.
        """
        if self._looked_at >= FIRST_RECORDS:
            return None
        self._looked_at += count
        wrong = self.dead_letters.get(Reason.WRONG_PARTITION.value, 0)
        if self._looked_at < FEWEST_RECORDS or wrong <= MISPLACED_SHARE * self._looked_at:
            return None
        told = (
            f"{self.name}: {wrong} of the first {self._looked_at} records do not belong into this partition "
            "(wrong_partition): their producer hashes keys another way; a client of librdkafka (C, Go, C#, Node, "
            "confluent-kafka for Python) needs partitioner=murmur2_random, see docs/kafka.md"
        )
        self._looked_at = FIRST_RECORDS
        return told

    def found(self, *, is_closing: bool) -> list[str]:
        """Return what the log's owner should look at, each finding once.

        Near the log's beginning a share means nothing yet, unless the partition is closing.
        """
        if not is_closing and self.next_offset < FIRST_RECORDS:
            return []
        new = [each for each in self.fold.findings(LETTERS) if each.kind not in self._reported]
        self._reported.update(each.kind for each in new)
        return [f"{self.name}: {each.message}" for each in new]

    def note_sent(self, topics: Sequence[str], outputs: Outputs) -> None:
        """Note the last cause of each topic that something was sent to."""
        for topic, sent in zip(topics, outputs, strict=True):
            if sent:
                self.written[topic] = self.written[topic]._replace(cause=sent[-1].cause)

    def is_due(self, interval_ms: int, interval_events: int) -> bool:
        """Whether there is something new and the time or the number of events for a checkpoint is over."""
        if not self.events_since_checkpoint:
            return False
        since_ms = (self._clock.monotonic() - self._tried_at) * 1000
        return self.events_since_checkpoint >= interval_events or since_ms >= interval_ms

    def save(self, end_offsets: dict[str, int]) -> None:
        """Write a checkpoint, all outputs up to it being confirmed. Raises Refusal where the folder takes none."""
        for topic, end in end_offsets.items():
            self.written[topic] = self.written[topic]._replace(end_offset=end)
        outputs = {
            topic: OutputEnd(each.end_offset, each.cause and (each.cause.offset, each.cause.ordinal))
            for topic, each in self.written.items()
        }
        header = header_of(
            self._identity, self.next_offset, self.fold.digest(), last_record=self._last_value, outputs=outputs
        )
        try:
            # A file is named for its next offset and the newest are kept, so that a worker that slept while another
            # one went on adds an old checkpoint to newer ones, which stay the newest.
            self._note_file(self.store.save(Checkpoint(header, self.fold.snapshot(header))))
        except CheckpointError as error:
            raise CheckpointUnwritableError(f"no checkpoint can be written: {error}") from error
        self.header = header
        self.events_since_checkpoint = 0
        self._tried_at = self._clock.monotonic()

    def _above(self, topic: str, outputs: list[Output]) -> list[Output]:
        """Leave out what the topic holds already; causes rise, so the first that is above ends it."""
        highest = self._suppressing.get(topic)
        if highest is None or not outputs:
            return outputs
        fresh = [output for output in outputs if output.cause > highest]
        self.suppressed += len(outputs) - len(fresh)
        if fresh:
            del self._suppressing[topic]
        return fresh

    def _note_file(self, path: Any) -> None:
        try:
            self.checkpoint_at, self.checkpoint_bytes = self.store.status(path)
        except CheckpointError:
            return  # another worker has newer ones and let it go

    def _on_damage(self, message: str) -> None:
        self.damaged.append(message)


class Scoring:
    """What `streams/kafka/blocks.py` calls: a fold for each assigned partition, and the delivery of their outputs."""

    def __init__(self, loaded: Loaded, *, log: Any, ports: Ports | None = None) -> None:
        """Make it for a configuration; `log`: logger; `ports`: replaces the real I/O, for simulation."""
        self._loaded = loaded
        self._ports = ports or ports_of(loaded)
        self._log = log
        self.topics = loaded.topics.outputs
        self.partitions: dict[int, AssignedPartition] = {}
        self.delivery = self._ports.delivery
        self.lessons: SharedLessons | None = None

    async def open(self, partition: int, log: LogBounds) -> int:
        """Steps 1 to 4. Raises Refusal, with a remedy, where resuming would lose or change outputs."""
        await self.delivery.start()
        emitted = await self.delivery.open(partition)
        brokers, in_thread = self._ports.brokers, self._ports.in_thread
        count = await brokers.partitions()
        lessons = await self._lessons(partition, count)
        assigned = await in_thread(AssignedPartition, self._loaded, self._ports, partition, count, lessons)
        for message in assigned.damaged:
            self._log.warning(message)
        log = await self._reaching(partition, log, assigned.next_offset, emitted or 0)
        refuse_log(assigned, log)
        refuse_offset(assigned, log, emitted)
        await self._refuse_other_log(assigned, log)
        tails: dict[str, Tail] = {}
        for topic in self.topics:
            recorded = assigned.recorded(topic).end_offset or 0
            tails[topic] = await brokers.tail(topic, partition, recorded)
            highest = tails[topic].cause
            log = await self._reaching(partition, log, 0 if highest is None else highest.offset + 1)
            refuse_outputs(topic, assigned, tails[topic], log)
        assigned.go_on(tails, emitted)
        where = "empty" if assigned.header is None else "from its checkpoint"
        if lessons is not None and self.lessons is not None:
            upto: dict[int, int] = {}
            if assigned.is_new(emitted):
                where, upto = await self._begin(self._starts(partition, count), self.lessons)
            self.lessons.attach(partition, assigned.learned, upto)
        self.partitions[partition] = assigned
        self._log.info("%s resumes at offset %d, %s", assigned.name, assigned.next_offset, where)
        return assigned.next_offset

    async def fold(self, partition: int, records: Sequence[Record]) -> int | None:
        """Steps 5 and 6, and a checkpoint if it is due."""
        assigned = self.partitions[partition]
        if not await assigned.make_ready(records) and len(records) <= self._ports.at_once_records:
            outputs = assigned.process(records, self.topics)
        else:
            outputs = await self._ports.in_thread(assigned.process, records, self.topics)
        await self.delivery.send(partition, outputs)
        assigned.note_sent(self.topics, outputs)
        if (told := assigned.misplaced(len(records))) is not None:
            self._log.warning(told)
        return await self.idle(partition)

    async def idle(self, partition: int) -> int | None:
        """Checkpoint or commit if it is due: also where nothing comes any more."""
        if self.lessons is not None:
            self.lessons.raise_failure()
        section, assigned = self._loaded.checkpoint, self.partitions[partition]
        if assigned.is_due(section.interval_ms, section.interval_events):
            return await self._checkpoint(assigned)
        if self.delivery.is_due(partition):
            await self.delivery.commit(partition, assigned.next_offset)
        return None

    async def close(self, partition: int) -> int | None:
        """Checkpoint what is new, unless another worker has the partition by now, and forget it."""
        assigned = self.partitions[partition]
        try:
            if assigned.events_since_checkpoint:
                return await self._checkpoint(assigned)
            return None if assigned.header is None else self._to_acknowledge(assigned)
        except TakenOverError as taken:
            self._log.warning("%s is given up: %s", assigned.name, taken.message)
            return None
        finally:
            self._report(assigned, is_closing=True)
            del self.partitions[partition]
            if self.lessons is not None:
                self.lessons.detach(partition)
            await self.delivery.close(partition)
            told = (assigned.name, assigned.next_offset, assigned.suppressed)
            self._log.info("%s closed at offset %d, %d outputs suppressed", *told)

    async def stop(self) -> None:
        """Disconnect, when all partitions are closed."""
        if self.lessons is not None:
            await self.lessons.stop()
        await self.delivery.stop()

    async def _lessons(self, partition: int, partitions: int) -> PartitionLessons | None:
        """Return where a partition's lessons come from; None where partitions learn nothing from each other."""
        topic = self._ports.lessons
        if topic is None or not settled(self._loaded.configuration, has_others=partitions > 1).lessons.enabled:
            return None
        if self.lessons is None:
            self.lessons = SharedLessons(topic, MergeSettings.of(self._loaded), self._ports.clock, self._log)
        await self.lessons.start(partitions)
        return self.lessons.of_partition(partition, self._starts(partition, partitions).state_at, self._ports.in_thread)

    def _starts(self, partition: int, partitions: int) -> Starts:
        configuration = settled(self._loaded.configuration, has_others=partitions > 1)
        identity = Identity(self._loaded.topics.interactions, partition, configuration, partitions)
        return Starts(self._loaded.checkpoint, identity, self._ports.disk, self._log)

    async def _begin(self, starts: Starts, lessons: SharedLessons) -> tuple[str, dict[int, int]]:
        """Let a new partition begin with another's shared part: keep that, then append the merge that names it.

        Return what to report, and the lessons that the merge names.
        """
        found = await self._ports.in_thread(starts.found)
        if not isinstance(found, Start):
            return f"empty: {found}", {}
        await lessons.begin(starts.identity.partition, found)
        return f"empty, to begin with what was learned before {found.origin}", found.upto

    async def _checkpoint(self, assigned: AssignedPartition) -> int | None:
        """Steps 7 to 9; the caller acknowledges what is returned."""
        await self.delivery.commit(assigned.number, assigned.next_offset)
        end_offsets = await self.delivery.flush(assigned.number)
        await self._ports.in_thread(assigned.save, end_offsets)
        self._report(assigned, is_closing=False)
        return self._to_acknowledge(assigned)

    def _report(self, assigned: AssignedPartition, *, is_closing: bool) -> None:
        for told in assigned.found(is_closing=is_closing):
            self._log.warning(told)

    def _to_acknowledge(self, assigned: AssignedPartition) -> int | None:
        return None if self.delivery.commits_offsets else assigned.next_offset

    async def _reaching(self, partition: int, log: LogBounds, *offsets: int) -> LogBounds:
        """Return the log's bounds, its end asked for again where something is behind it.

        The partition's last owner may have written since the end was read.
        """
        if max(offsets) <= log.end:
            return log
        return log._replace(end=await self._ports.brokers.end(partition))

    async def _refuse_other_log(self, assigned: AssignedPartition, log: LogBounds) -> None:
        """Refuse a log whose record before the checkpoint's next offset is another one: the topic was created again."""
        header = assigned.header
        if header is None or header.last_record is None or header.next_offset - 1 < log.begin:
            return
        value = await self._ports.brokers.record_at(assigned.number, header.next_offset - 1)
        if value is not None and hashlib.sha256(value).hexdigest() != header.last_record:
            raise Refusal(
                f"the record before offset {header.next_offset} of {assigned.name} is not the one that its checkpoint "
                f"saw: the topic was created again; remove {assigned.store.directory} and the output topics to start "
                "over"
            )


def refuse_log(assigned: AssignedPartition, log: LogBounds) -> None:
    """Raise Refusal where the log lacks what is needed to resume."""
    name, folder = assigned.name, assigned.store.directory
    if assigned.header is None and log.begin > 0:
        raise Refusal(
            f"there is no checkpoint in {folder}, and {name} starts at offset {log.begin} by now: bring the "
            f"checkpoints back, or replay the whole log from a file with `thalweg replay --checkpoint`"
        )
    if log.begin > assigned.next_offset:
        raise Refusal(
            f"{name} starts at offset {log.begin} by now, but the newest checkpoint in {folder} resumes at "
            f"{assigned.next_offset}: retention was shorter than the worker's absence; replay what is missing from a "
            "file with `thalweg replay --checkpoint`"
        )
    if assigned.next_offset > log.end:
        raise Refusal(
            f"the newest checkpoint in {folder} resumes at offset {assigned.next_offset}, ahead of {name}, which ends "
            f"at {log.end}: the topic was created again or lost records; name another folder, or restore the topic"
        )


def refuse_offset(assigned: AssignedPartition, log: LogBounds, emitted: int | None) -> None:
    """Raise Refusal where the group's offset, which records what was emitted, contradicts the log or the checkpoint.

    A worker's own checkpoint may be ahead of it: the offset expired, was reset, or the mode was another one. It
    resumes: what is below a checkpoint was emitted before it was written, and the topics hold what is behind it. A
    replay's checkpoint records nothing of the topics.
    """
    if emitted is None:
        return
    name = assigned.name
    if emitted > log.end:
        raise Refusal(
            f"the group has committed offset {emitted} of {name}, which ends at {log.end}: the input topic was "
            "created again; give it another worker.group and new output topics"
        )
    header = assigned.header
    if header is not None and not header.outputs and header.next_offset > emitted:
        raise Refusal(
            f"the checkpoint in {assigned.store.directory} is a replay's and resumes at offset {header.next_offset} of "
            f"{name}, but outputs are on their topics up to {emitted} only: remove it to have them made, or reset the "
            f"group's offset to {header.next_offset} to leave them out"
        )


def highest_of(*causes: Cause | None) -> Cause | None:
    """Return the highest of those that are there."""
    return max((cause for cause in causes if cause is not None), default=None)


def refuse_outputs(topic: str, assigned: AssignedPartition, found: Tail, log: LogBounds) -> None:
    """Raise Refusal where an output topic holds outputs of input that does not exist."""
    if found.cause is not None and found.cause.offset >= log.end:
        raise Refusal(
            f"{topic}-{assigned.number} holds an output of offset {found.cause.offset} of {assigned.name}, which ends "
            f"at {log.end}: the input topic was created again; give it new output topics"
        )

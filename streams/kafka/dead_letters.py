"""Dead letters: read from their topic or from a replay's file, counted, and sent back to the input.

A letter that was sent back is marked: a record in the dead-letter topic, behind the letter and in its partition, names
the letter's offset in the header `thalweg.redriven`. Record and mark are one Kafka transaction, so a redrive that dies
has done both or neither, and one that is begun meanwhile ends the other. The record that goes back carries the place of
its letter in the same header: what comes of it can be followed.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaProducer
from kafka.errors import InvalidProducerEpochError, KafkaError, ProducerFencedError
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.columns import Kind
from thalweg.operators.fold.state import new_state
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.origin import Origin, parse_origin
from thalweg.schemas.outputs import DeadLetter, decode_dead_letter
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Headers, LogRecord
from thalweg.streams.kafka.consume import consume
from thalweg.streams.kafka.produce import key_of
from thalweg.streams.kafka.refusals import one_line, refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments
from thalweg.streams.kafka.topics import DEAD_LETTER_BYTES_MAX, TopicsSection, check
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.sinks import LINE_BYTES_MAX, dead_letter_of
from thalweg.streams.refusal import Refusal

REDRIVEN_HEADER = "thalweg.redriven"
BATCH_LETTERS = 500
BATCH_BYTES = 8 << 20
TRANSACTION_TIMEOUT_MS = 30_000
STATE_DECIDES = frozenset(
    (Reason.TIME_JUMP, Reason.USER_MISMATCH, Reason.TOO_MANY_FEEDBACKS, Reason.NO_ROOM, Reason.WRONG_PARTITION)
)
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
        """Tell whether a letter is meant."""
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
        mark = next((value for name, value in record.headers or () if name == REDRIVEN_HEADER), None)
        if _letter(topic, record) is not None:
            continue
        if mark is not None and mark.isdigit():
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
    headers = tuple((name, value or b"") for name, value in record.headers or ())
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

    def reason(self, letter: DeadLetter) -> str | None:
        """Return the reason for which a letter is sure to be dead-lettered again, None where it is not sure."""
        record = LogRecord(0, letter.raw, letter.key, tuple(letter.headers))
        columns = Columnizer(self._configuration, self._names.copy(), 0, 0).columns([record]).columns
        if columns.reason[0]:
            return Reason.of_code(int(columns.reason[0])).value
        return Reason.REQUEST_UNSUPPORTED.value if columns.kind[0] == Kind.REQUEST else None


class Plan(NamedTuple):
    """What a redrive does, in numbers by reason: letters sent back, left out as redriven before, as unusable still.

    `again` has, for each reason, why those sent or left out would be dead letters again.
    """

    sent: Counter[str]
    redriven: Counter[str]
    unusable: Counter[str]
    again: dict[str, Counter[str]]

    @property
    def found(self) -> int:
        """Return how many letters were meant."""
        return sum(map(Counter.total, (self.sent, self.redriven, self.unusable)))


class Redrive:
    """Letters on their way back to the input topic.

    Parameters
    ----------
    kafka, topics
        The brokers, and the topics of input and dead letters.
    configuration
        Under which the worker will read the records.
    wanted
        Which letters.
    redriven, unusable
        Whether to send those too that were redriven before, or are sure to be dead-lettered again.

    """

    def __init__(
        self,
        kafka: KafkaSection,
        topics: TopicsSection,
        configuration: Configuration,
        wanted: Wanted,
        *,
        redriven: bool = False,
        unusable: bool = False,
    ) -> None:
        """Look at nothing yet; the parameters are the class's."""
        self._kafka, self._topics, self._wanted = kafka, topics, wanted
        self._prospects = Prospects(configuration)
        self._sends_redriven, self._sends_unusable = redriven, unusable

    def plan(self) -> Plan:
        """Return what would be done, and do nothing. Raises Refusal where the topics can't be read."""
        check(self._kafka, self._topics, (self._topics.interactions, self._topics.dead_letters))
        plan = Plan(Counter(), Counter(), Counter(), {})
        for _ in self._chosen(plan):
            pass
        return plan

    def run(self, on_sent: Callable[[int], object] = lambda count: None) -> Plan:
        """Send the letters back and mark them, a batch a transaction; `on_sent` is told how many are committed.

        Raises Refusal where a batch fails: those before it are sent and marked, those behind are not.
        """
        partitions = check(self._kafka, self._topics, (self._topics.interactions, self._topics.dead_letters))
        plan = Plan(Counter(), Counter(), Counter(), {})
        sent = 0
        with refusing(self._kafka), closing(self._producer()) as producer:
            try:
                # ends a redrive that runs or hangs elsewhere, before its marks are read
                producer.init_transactions()
                for batch in batches(self._chosen(plan)):
                    self._send(producer, batch, partitions)
                    sent += len(batch)
                    on_sent(sent)
            except (ProducerFencedError, InvalidProducerEpochError):
                raise Refusal(
                    f"another redrive of {self._topics.dead_letters} was begun: this one ends, {sent} letters were "
                    "sent back"
                ) from None
            except KafkaError as error:
                raise Refusal(
                    f"the letters behind the first {sent} can't be sent back ({one_line(error)}): mend it, and "
                    "the same command goes on with them"
                ) from None
        return plan

    def _chosen(self, plan: Plan) -> Iterator[Letter]:
        """Give the letters to send and count all that are meant into the plan."""
        topic, wanted = self._topics.dead_letters, self._wanted
        redriven = contents(self._kafka, topic, wanted.partition).redriven
        for letter in letters_of_topic(self._kafka, topic, wanted):
            reason = letter.letter.reason
            if (letter.partition, letter.offset) in redriven and not self._sends_redriven:
                plan.redriven[reason] += 1
                continue
            again = self._prospects.reason(letter.letter)
            if again is not None:
                plan.again.setdefault(reason, Counter())[again] += 1
                if not self._sends_unusable:
                    plan.unusable[reason] += 1
                    continue
            plan.sent[reason] += 1
            yield letter

    def _send(self, producer: Any, batch: list[Letter], partitions: int) -> None:
        producer.begin_transaction()
        try:
            futures = []
            for each in batch:
                letter = each.letter
                partition = input_partition(letter, partitions)
                headers = [*kept_headers(letter), (REDRIVEN_HEADER, each.place.encode())]
                futures.append(
                    producer.send(
                        self._topics.interactions, letter.raw, key=letter.key, headers=headers, partition=partition
                    )
                )
                mark = [(REDRIVEN_HEADER, str(each.offset).encode())]
                value = msgspec.json.encode({"redriven": each.place, "origin": letter.origin})
                futures.append(producer.send(self._topics.dead_letters, value, headers=mark, partition=each.partition))
            producer.flush()
            for future in futures:
                future.get(timeout=60)
            producer.commit_transaction()
        except (ProducerFencedError, InvalidProducerEpochError):
            raise
        except KafkaError:
            producer.abort_transaction()
            raise

    def _producer(self) -> Any:
        return KafkaProducer(
            **kafka_python_arguments(self._kafka),
            transactional_id=f"thalweg-redrive-{self._topics.dead_letters}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            acks="all",
            enable_idempotence=True,
            linger_ms=20,
            batch_size=128 * 1024,
            max_request_size=DEAD_LETTER_BYTES_MAX,
            allow_auto_create_topics=False,
            delivery_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=TRANSACTION_TIMEOUT_MS // 2,
            max_block_ms=60_000,
            metrics_enabled=False,
        )


def input_partition(letter: DeadLetter, partitions: int) -> int:
    """Return the input partition that a letter goes back to: its key's, without a key that of its user or its own."""
    key = key_of(letter.raw or b"") if letter.key is None else letter.key
    return min(parse_origin(letter.origin).partition, partitions - 1) if key is None else partition_of(key, partitions)


def kept_headers(letter: DeadLetter) -> Headers:
    """Return the record's own headers, without the place of a redrive before."""
    return tuple((name, value) for name, value in letter.headers if name != REDRIVEN_HEADER)


def batches(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    """Give letters in batches that one transaction holds."""
    batch: list[Letter] = []
    size = 0
    for letter in letters:
        batch.append(letter)
        size += len(letter.letter.raw or b"")
        if len(batch) == BATCH_LETTERS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

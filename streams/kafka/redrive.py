"""Dead letters back to the input.

A letter that was sent back is marked: a record in the dead-letter topic, behind the letter and in its partition, names
the letter's offset in the header `thalweg.redriven`. Record and mark are one Kafka transaction, so a redrive that dies
has done both or neither. A redrive that begins meanwhile fences the other. The record that goes back carries the place
of its letter in the same header. `thalweg.redrives` counts how often it was sent back: at a limit it is left alone.

A letter that the brokers refuse does not block the others of its batch: the batch is halved until it is found.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import BrokerResponseError, KafkaError, MessageSizeTooLargeError
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.origin import parse_origin
from thalweg.schemas.outputs import DeadLetter
from thalweg.schemas.records import Cause, Headers, Output
from thalweg.streams.kafka.dead_letters import (
    REDRIVEN_HEADER,
    REDRIVES_HEADER,
    Letter,
    Prospects,
    Wanted,
    contents,
    letters_of_topic,
    redrives_of,
)
from thalweg.streams.kafka.delivery import STOP_TIMEOUT_S, fill
from thalweg.streams.kafka.refusals import ABSENT, FORBIDDEN, LOGIN, explained, one_line, refusal_of
from thalweg.streams.kafka.security import KafkaSection, aiokafka_arguments
from thalweg.streams.kafka.topics import DEAD_LETTER_BYTES_MAX, TopicsSection, check
from thalweg.streams.kafka.transactions import FENCING
from thalweg.streams.mapping.keys import EVERYWHERE, Everywhere, key_of
from thalweg.streams.refusal import Refusal

BATCH_LETTERS = 500
BATCH_BYTES = 8 << 20
TRANSACTION_TIMEOUT_MS = 30_000
NO_CAUSE = Cause(0, 0)


class Plan(NamedTuple):
    """What a redrive does, in numbers by reason.

    `sent` back, left out as `redriven` before, as `unusable` still, as `exhausted`: sent back as often as may be.
    `again` has, for each reason, why those sent or left out would be dead letters again; `refused` has by place why the
    brokers did not take a letter.
    """

    sent: Counter[str]
    redriven: Counter[str]
    unusable: Counter[str]
    exhausted: Counter[str]
    again: dict[str, Counter[str]]
    refused: dict[str, str]

    @property
    def found(self) -> int:
        """Return how many letters were meant."""
        counts = (self.sent, self.redriven, self.unusable, self.exhausted)
        return sum(map(Counter.total, counts)) + len(self.refused)


def new_plan() -> Plan:
    """Return a plan without letters."""
    return Plan(Counter(), Counter(), Counter(), Counter(), {}, {})


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
    redrives_max
        How often one record is sent back at most.

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
        redrives_max: int = 3,
    ) -> None:
        """Look at nothing yet; the parameters are the class's."""
        self._kafka, self._topics, self._wanted = kafka, topics, wanted
        self._prospects = Prospects(configuration)
        self._sends_redriven, self._sends_unusable = redriven, unusable
        self._redrives_max = redrives_max

    def plan(self) -> Plan:
        """Return what would be done, and do nothing. Raises Refusal where the topics can't be read."""
        check(self._kafka, self._topics, (self._topics.interactions, self._topics.dead_letters))
        plan = new_plan()
        for _ in self._chosen(plan):
            pass
        return plan

    def run(self, on_sent: Callable[[int], object] = lambda count: None) -> Plan:
        """Send the letters back and mark them, a batch a transaction; `on_sent` gets the number of those committed.

        Raises Refusal where the brokers fail: the batches before are sent and marked, those behind are not.
        """
        return asyncio.run(self._run(on_sent))

    async def _run(self, on_sent: Callable[[int], object]) -> Plan:
        partitions = await asyncio.to_thread(
            check, self._kafka, self._topics, (self._topics.interactions, self._topics.dead_letters)
        )
        plan = new_plan()
        sent = 0
        try:
            # ends a redrive that runs or hangs elsewhere, before its marks are read
            async with Sender(self._kafka, self._topics, partitions) as sender:
                for batch in batches(self._chosen(plan)):
                    refused = await sender.send(batch)
                    for letter in batch:
                        if letter.place in refused:
                            plan.sent[letter.letter.reason] -= 1
                    plan.refused.update(refused)
                    sent += len(batch) - len(refused)
                    on_sent(sent)
        except FENCING:
            raise Refusal(
                f"another redrive of {self._topics.dead_letters} was begun: this one ends, {sent} were sent back"
            ) from None
        except (KafkaError, TimeoutError) as error:
            raise Refusal(
                f"the letters behind the first {sent} can't be sent back ({explained(error)}): repair it, and run "
                "the same command again to send them"
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
            if redrives_of(letter.letter) >= self._redrives_max:
                plan.exhausted[reason] += 1
                continue
            again = self._prospects.reason(letter.letter)
            if again is not None:
                plan.again.setdefault(reason, Counter())[again] += 1
                if not self._sends_unusable:
                    plan.unusable[reason] += 1
                    continue
            plan.sent[reason] += 1
            yield letter


class Sender:
    """The producer of a redrive: letters and their marks, a transaction for each batch."""

    def __init__(self, kafka: KafkaSection, topics: TopicsSection, partitions: int) -> None:
        """Take the brokers, the topics, and how many partitions these have."""
        self._kafka, self._topics, self._partitions = kafka, topics, partitions
        self._producer: Any = None

    async def __aenter__(self) -> "Sender":
        """Take over the transactional id, which fences its last owner. Raises Refusal where that fails."""
        await self._renew()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._stop()

    async def send(self, batch: list[Letter]) -> dict[str, str]:
        """Send letters and marks; return by place why the brokers refused those that they refused.

        Raises what the client raises where it is not for a letter that they are refused.
        """
        try:
            await self._transaction(batch)
        except BrokerResponseError as error:
            if isinstance(error, (*FENCING, *FORBIDDEN, *LOGIN, *ABSENT)):
                raise
            # a producer whose batch was refused has lost count of what it sent
            await self._renew()
            if len(batch) == 1:
                return {batch[0].place: explained(error)}
            half = len(batch) // 2
            return await self.send(batch[:half]) | await self.send(batch[half:])
        return {}

    async def _transaction(self, batch: list[Letter]) -> None:
        async with asyncio.timeout(TRANSACTION_TIMEOUT_MS / 1000):
            await self._producer.begin_transaction()
            try:
                for delivered in [await each for each in self._handed_over(batch)]:
                    await delivered
                await self._producer.commit_transaction()
            except FENCING:
                raise
            except KafkaError:
                with suppress(KafkaError, AssertionError):
                    await self._producer.abort_transaction()
                raise

    def _handed_over(self, letters: list[Letter]) -> Iterator[Any]:
        """Give what hands each batch of a partition over; awaited, it gives what tells of its delivery."""
        records: dict[tuple[str, int], list[Output]] = {}
        for each in letters:
            back = (self._topics.interactions, input_partition(each.letter, self._partitions))
            records.setdefault(back, []).append(sent_back(each))
            records.setdefault((self._topics.dead_letters, each.partition), []).append(mark_of(each))
        for (topic, partition), outputs in records.items():
            sent = 0
            while sent < len(outputs):
                batch = self._producer.create_batch()
                count = fill(batch, outputs, sent)
                if count == 0:
                    raise MessageSizeTooLargeError
                yield self._producer.send_batch(batch, topic, partition=partition)
                sent += count

    async def _renew(self) -> None:
        await self._stop()
        producer = AIOKafkaProducer(
            **aiokafka_arguments(self._kafka),
            acks="all",
            transactional_id=f"thalweg-redrive-{self._topics.dead_letters}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            request_timeout_ms=TRANSACTION_TIMEOUT_MS // 2,
            max_batch_size=DEAD_LETTER_BYTES_MAX,
            max_request_size=DEAD_LETTER_BYTES_MAX,
        )
        self._producer = producer
        try:
            async with asyncio.timeout(TRANSACTION_TIMEOUT_MS / 1000):
                await producer.start()
                # start may return before the brokers have given us the id; whoever begins waits for it
                await producer.begin_transaction()
                await producer.abort_transaction()
        except (KafkaError, TimeoutError) as error:
            await self._stop()
            refusal = await asyncio.to_thread(refusal_of, error, self._kafka)
            raise refusal or Refusal(one_line(error)) from error

    async def _stop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, TimeoutError):
                await asyncio.wait_for(producer.stop(), STOP_TIMEOUT_S)


def sent_back(letter: Letter) -> Output:
    """Return the record that goes back: bytes, key and headers as they came, its letter's place, how often it went."""
    again = str(redrives_of(letter.letter) + 1).encode()
    headers = (
        *kept_headers(letter.letter),
        (REDRIVEN_HEADER, letter.place.encode()),
        (REDRIVES_HEADER, again),
    )
    return Output(NO_CAUSE, letter.letter.raw, letter.letter.key, headers)


def mark_of(letter: Letter) -> Output:
    """Return the mark of a letter; it has a key, so that a compacted topic takes it."""
    value = msgspec.json.encode({"redriven": letter.place, "origin": letter.letter.origin})
    return Output(NO_CAUSE, value, letter.place.encode(), ((REDRIVEN_HEADER, str(letter.offset).encode()),))


def input_partition(letter: DeadLetter, partitions: int) -> int:
    """Return the input partition that a letter goes back to: its key's, without a key that of its user or its own.

    Facts about an item go back to their own: the other partitions have theirs.
    """
    found = key_of(letter.raw or b"")
    key = letter.key if letter.key is not None and found is not EVERYWHERE else found
    if key is None or isinstance(key, Everywhere):
        return min(parse_origin(letter.origin).partition, partitions - 1)
    return partition_of(key, partitions)


def kept_headers(letter: DeadLetter) -> Headers:
    """Return the record's own headers, without those of a redrive before."""
    return tuple((name, value) for name, value in letter.headers if name not in (REDRIVEN_HEADER, REDRIVES_HEADER))


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

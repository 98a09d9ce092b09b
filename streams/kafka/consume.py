"""From an output topic, each record once.

A worker that was paused while its partitions moved may append outputs that are there already, byte for byte. Within
an output partition causes strictly increase, so a reader drops every record whose cause is not above the highest it
has seen. `Reader` does this for any consumer; `consume` is what `thalweg consume` runs.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, Protocol

import msgspec
from kafka import KafkaConsumer, TopicPartition
from thalweg.schemas.origin import parse_cause
from thalweg.schemas.outputs import decode_caused
from thalweg.schemas.records import Cause
from thalweg.streams.kafka.refusals import refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments

CAUSE_HEADER = "thalweg.cause"


class ConsumedRecord(Protocol):
    """What a reader needs of a consumer's record; kafka-python's and aiokafka's have it."""

    @property
    def partition(self) -> int:
        """Partition number."""

    @property
    def value(self) -> bytes | None:
        """The record's bytes."""

    @property
    def headers(self) -> Any:
        """Pairs of name and bytes; kafka-python and aiokafka differ in the sequence's type."""


def cause_of(record: Any) -> tuple[str, Cause] | None:
    """Return the input topic and the cause that a record of an output topic carries, or None if it carries none.

    Dead letters keep their bytes untouched and carry it in the header `thalweg.cause`; scores and examples have it
    in the field `cause`. A record that came in with such a header has it twice: the last one is ours.
    """
    header = next((value for name, value in reversed(tuple(record.headers or ())) if name == CAUSE_HEADER), None)
    try:
        text = decode_caused(record.value or b"").cause if header is None else header.decode()
        origin, cause = parse_cause(text)
    except (msgspec.DecodeError, UnicodeError, ValueError):
        return None
    return origin.topic, cause


class Reader:
    """Say of each record of one output topic whether it is new.

    >>> reader = Reader()
    >>> [reader.keep(0, f"interactions-0-{cause}") for cause in ("7:0", "7:1", "7:0", "9:0")]
    [True, True, False, True]

    A record without a cause is none of ours and is kept. Wrap a consumer's iterator, of kafka-python for one, or ask
    record by record:

        for record in Reader().new(KafkaConsumer("scores", isolation_level="read_committed", ...)): ...
    """

    def __init__(self) -> None:
        """Start with nothing seen; `seen` may be filled from where one's own work is stored."""
        self.seen: dict[int, Cause] = {}
        self.dropped = 0

    def keep(self, partition: int, cause: str) -> bool:
        """Whether a record with this cause text is above all seen of its partition. Raises ValueError if no cause."""
        return self._keep(partition, parse_cause(cause)[1])

    def keep_record(self, record: ConsumedRecord) -> bool:
        """Whether a consumer's record is above all seen of its partition; True for one that carries no cause."""
        found = cause_of(record)
        return found is None or self._keep(record.partition, found[1])

    def new(self, records: Iterable[Any]) -> Iterator[Any]:
        """Give of a consumer's records those that are new."""
        return filter(self.keep_record, records)

    def _keep(self, partition: int, cause: Cause) -> bool:
        highest = self.seen.get(partition)
        if highest is not None and cause <= highest:
            self.dropped += 1
            return False
        self.seen[partition] = cause
        return True


def consume(
    kafka: KafkaSection,
    topic: str,
    *,
    partition: int | None = None,
    from_beginning: bool = True,
    follow: bool = False,
    reader: Reader | None = None,
) -> Generator[Any, None, None]:
    """Give the records of a topic that are new, up to the end there is now, or without end to `follow` it.

    Without `from_beginning` it starts at the end there is now. Aborted transactions are not read. Raises Refusal
    where no broker answers.
    """
    reader = reader or Reader()
    with refusing(kafka), closing(_consumer(kafka)) as consumer:
        numbers = [partition] if partition is not None else sorted(consumer.partitions_for_topic(topic) or ())
        places = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(places)
        end = consumer.end_offsets(places)
        for place in places:
            if from_beginning:
                consumer.seek_to_beginning(place)
            else:
                consumer.seek(place, end[place])
        while follow or any(consumer.position(place) < end[place] for place in places):
            for place, records in consumer.poll(timeout_ms=500, max_records=5000).items():
                yield from reader.new(r for r in records if follow or r.offset < end[place])


def _consumer(kafka: KafkaSection) -> Any:
    return KafkaConsumer(
        **kafka_python_arguments(kafka),
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )

"""From a log file to the input topic: keyed by user, facts about items to every partition, every delivery confirmed.

Lines are sent byte for byte as they are. A line that names no user (not JSON, or `user` is no string) has no key to
hash. It is still sent, to partition 0 without a key. So it ends among the dead letters with its reason,
and the count of records is the count of lines.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError
from thalweg.streams.kafka.refusals import one_line, refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments
from thalweg.streams.mapping.keys import EVERYWHERE, Key, key_of
from thalweg.streams.refusal import Refusal

UNCONFIRMED_MAX = 20_000
_PACE_S = 0.01


class Produced(NamedTuple):
    """How many records the brokers have confirmed, and how many of them had no user to key by."""

    confirmed: int
    unkeyed: int


def send_everywhere(producer: Any, topic: str, value: bytes) -> list[Any]:
    """Send a record to every partition of a topic by a `KafkaProducer`, without a key; return its futures."""
    partitions = sorted(producer.partitions_for(topic))
    return [producer.send(topic, value=value, partition=partition) for partition in partitions]


def produce(
    kafka: KafkaSection,
    topic: str,
    lines: Iterable[bytes],
    *,
    rate: float | None = None,
    key: Callable[[bytes], Key] = key_of,
    on_progress: Callable[[Produced], object] = lambda produced: None,
) -> Produced:
    """Send lines to the topic, at most `rate` a second, and wait until the brokers have confirmed every one.

    `key` returns a line's key.
    `on_progress` is called a thousand times a million lines.

    Raises Refusal, saying how many were confirmed, at the first delivery that fails.
    """
    with refusing(kafka):
        producer = _producer(kafka)
    sending = _Sending(producer, topic, key)
    try:
        with refusing(kafka):
            for number, line in enumerate(_paced(lines, rate)):
                sending.send(line)
                if number % 1000 == 0:
                    on_progress(sending.produced)
            producer.flush()
            sending.confirm(0)
        on_progress(sending.produced)
        return sending.produced
    except _UnfitLineError as error:
        with suppress(KafkaError):
            producer.flush(timeout=30)
            sending.confirm(0)
        raise Refusal(f"{error}; the {sending.produced.confirmed} before it are confirmed") from error
    except Refusal as error:
        # what is still buffered would be retried for a minute, and nobody waits for it any more
        producer.close(timeout=0)
        raise Refusal(f"{error.message}; {sending.produced.confirmed} events were confirmed before") from error
    finally:
        producer.close(timeout=10)


def _producer(kafka: KafkaSection) -> Any:
    # A batch waits 20 ms to fill and is compressed: kafka-python reckons the checksum in Python unless `crc32c` is
    # installed, so fewer bytes and fewer batches are what makes it fast (12 000 events/s without, 37 000 with).
    return KafkaProducer(
        **kafka_python_arguments(kafka),
        acks="all",
        enable_idempotence=True,
        linger_ms=20,
        batch_size=128 * 1024,
        compression_type="gzip",
        allow_auto_create_topics=False,
        delivery_timeout_ms=60_000,
        max_block_ms=60_000,
        metrics_enabled=False,
    )


class _UnfitLineError(Exception):
    """A line that the client does not take, being too large."""


class _Sending:
    """Records on their way, oldest first, and the count of those that arrived."""

    def __init__(self, producer: Any, topic: str, key: Callable[[bytes], Key]) -> None:
        self._producer, self._topic, self._key_of = producer, topic, key
        self._unconfirmed: deque[Any] = deque()
        self._sent = self._unkeyed = 0
        self._lines = -1  # number of the line that is sent

    @property
    def produced(self) -> Produced:
        return Produced(self._sent - len(self._unconfirmed), self._unkeyed)

    def send(self, line: bytes) -> None:
        key = self._key_of(line)
        self._lines += 1
        try:
            if key is None:
                self._unkeyed += 1
                futures = [self._producer.send(self._topic, value=line, partition=0)]
            elif key is EVERYWHERE:
                futures = send_everywhere(self._producer, self._topic, line)
            else:
                futures = [self._producer.send(self._topic, value=line, key=key)]
        except MessageSizeTooLargeError as error:
            raise _UnfitLineError(f"line {self._lines} (from 0) can't be sent: {one_line(error)}") from error
        self._sent += len(futures)
        self._unconfirmed.extend(futures)
        if len(self._unconfirmed) > UNCONFIRMED_MAX:
            self.confirm(UNCONFIRMED_MAX // 2)

    def confirm(self, leave: int) -> None:
        """Wait for the oldest deliveries until no more than `leave` are open."""
        while len(self._unconfirmed) > leave:
            self._unconfirmed[0].get(timeout=90)
            self._unconfirmed.popleft()


def _paced(lines: Iterable[bytes], rate: float | None) -> Iterator[bytes]:
    if rate is None:
        yield from lines
        return
    start = time.monotonic()
    for number, line in enumerate(lines):
        ahead_s = start + number / rate - time.monotonic()
        if ahead_s > _PACE_S:
            time.sleep(ahead_s)
        yield line

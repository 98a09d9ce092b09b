"""A writer of facts for services: about items to every partition, about users to their own."""

import time
import uuid
from typing import Any, Self

from thalweg.schemas.events import Facts, Item, User, encode_event
from thalweg.streams.kafka.produce import send_everywhere

TIMEOUT_S = 60.0


class FactWriter:
    """Sends facts to the input topic.

    Parameters
    ----------
    producer
        A `kafka.KafkaProducer` without serializers. The writer does not close it.
    topic
        The input topic.

    Examples
    --------
    >>> from kafka import KafkaProducer  # doctest: +SKIP
    >>> with FactWriter(KafkaProducer(bootstrap_servers="localhost:9092"), "interactions") as writer:  # doctest: +SKIP
    ...     writer.item("v9", {"author": "a3", "tags": ["new"]})
    ...     writer.user("u1", {"country": "FR"})

    """

    def __init__(self, producer: Any, topic: str = "interactions") -> None:
        """Write by a producer; the parameters are the class's."""
        self._producer, self._topic = producer, topic
        self._unconfirmed: list[Any] = []

    def item(self, item: str, fields: Facts, *, ts: int | None = None, id: str | None = None) -> None:  # noqa: A002
        """Send facts about an item to every partition; None as a value removes a fact. `ts` is now if not given."""
        event = encode_event(Item(id or str(uuid.uuid4()), item, _now_ms() if ts is None else ts, fields))
        self._unconfirmed += send_everywhere(self._producer, self._topic, event)

    def user(self, user: str, fields: Facts, *, ts: int | None = None, id: str | None = None) -> None:  # noqa: A002
        """Send facts about a user to the user's partition; None as a value removes a fact."""
        event = encode_event(User(id or str(uuid.uuid4()), user, _now_ms() if ts is None else ts, fields))
        self._unconfirmed.append(self._producer.send(self._topic, value=event, key=user.encode()))

    def flush(self) -> None:
        """Wait until the brokers have confirmed everything.

        Raises kafka.errors.KafkaError for the first record that they did not take.
        """
        self._producer.flush()
        waiting, self._unconfirmed = self._unconfirmed, []
        for future in waiting:
            future.get(timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        """Return the writer."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait until everything is confirmed."""
        self.flush()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

"""The topics: section `[topics]`, and how they are created, checked and described.

Every output topic has exactly as many partitions as the input, since outputs go to the partition number of their
input. Topics are created ahead of a worker's start: Faust ignores, for ever, a source topic that is absent then.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import msgspec
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import InvalidReplicationFactorError, UnknownTopicOrPartitionError, for_code
from thalweg.schemas.bounds import within
from thalweg.streams.kafka.refusals import refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments
from thalweg.streams.kafka.topic_names import TopicName
from thalweg.streams.refusal import Refusal

WEEK_MS = 7 * 24 * 3600 * 1000
DEAD_LETTER_BYTES_MAX = 2 * 1024 * 1024


class TopicsSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section `[topics]`: names, and what `thalweg topics create` asks the brokers for."""

    interactions: TopicName = "interactions"
    scores: TopicName = "scores"
    examples: TopicName = "examples"
    dead_letters: TopicName = "interactions.dlq"
    rankings: TopicName = "rankings"
    lessons: TopicName = "lessons"
    partitions: Annotated[int, within(1, 1_000_000)] = 1
    replication_factor: Annotated[int, within(1, 32_767)] = 1
    retention_ms: Annotated[int, within(-1, (1 << 63) - 1)] = WEEK_MS
    """How long records are kept, -1 for ever. A worker needs the input back to its newest checkpoint that verifies.
    An explanation, an import or a rebuild from the start needs all of it."""

    @property
    def names(self) -> tuple[str, ...]:
        """All topics: the input, then the outputs."""
        return (self.interactions, *self.outputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The output topics, in the order of `Outputs`."""
        return (self.scores, self.examples, self.dead_letters, self.rankings, self.lessons)


class TopicDescription(NamedTuple):
    """What the brokers say of one topic; begin and end offsets are per partition."""

    name: str
    replication_factor: int
    begin_offsets: tuple[int, ...]
    end_offsets: tuple[int, ...]

    @property
    def partitions(self) -> int:
        """Number of partitions."""
        return len(self.end_offsets)


def create(kafka: KafkaSection, topics: TopicsSection) -> list[str]:
    """Create the topics that are absent and return their names; those that are there stay as they are.

    Raises Refusal where no broker answers, the brokers say no, or existing topics do not fit the section.
    """
    with _admin(kafka) as admin:
        present = _partition_counts(admin, topics.names)
        absent = [name for name in topics.names if name not in present]
        for name, partitions in present.items():
            if partitions != topics.partitions:
                raise Refusal(
                    f"topic {name!r} is there with {partitions} partitions, not topics.partitions = "
                    f"{topics.partitions}: set that, or delete the topic, or choose other names"
                )
        if absent:
            try:
                admin.create_topics({name: _options(topics, name) for name in absent}, wait_for_metadata=True)
            except InvalidReplicationFactorError as error:
                raise Refusal(
                    f"the brokers can't keep {topics.replication_factor} copies: lower topics.replication_factor"
                ) from error
        return absent


def check(kafka: KafkaSection, topics: TopicsSection, names: Iterable[str] | None = None) -> int:
    """Return the number of partitions of the topics, by default of all of them.

    Raises Refusal, naming the command that creates them, where one is absent or their partition counts differ.
    """
    wanted = list(topics.names if names is None else names)
    with _admin(kafka) as admin:
        present = _partition_counts(admin, wanted)
    if absent := [name for name in wanted if name not in present]:
        plural = "topics are" if len(absent) > 1 else "topic is"
        raise Refusal(f"{plural} not there: {', '.join(absent)}: run `thalweg topics create` first")
    counts = {name: present[name] for name in wanted}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise Refusal(
            f"outputs go to the partition of their input, but the topics' partition counts differ ({told}): delete "
            "those that are wrong and run `thalweg topics create`"
        )
    return counts[wanted[0]]


def describe(kafka: KafkaSection, topics: TopicsSection) -> list[TopicDescription]:
    """Describe those of the section's topics that are there. Raises Refusal where no broker answers."""
    with _admin(kafka) as admin:
        found = [topic for topic in admin.describe_topics(list(topics.names)) if not topic["error_code"]]
        places = [
            TopicPartition(topic["name"], number) for topic in found for number in range(len(topic["partitions"]))
        ]
        begin = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST)) if places else {}
        end = admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)) if places else {}
    order = {name: rank for rank, name in enumerate(topics.names)}
    described = []
    for topic in sorted(found, key=lambda topic: order[topic["name"]]):
        own = [place for place in places if place.topic == topic["name"]]
        copies = min(len(partition["replica_nodes"]) for partition in topic["partitions"])
        described.append(
            TopicDescription(
                topic["name"], copies, tuple(begin[p].offset for p in own), tuple(end[p].offset for p in own)
            )
        )
    return described


@contextmanager
def _admin(kafka: KafkaSection) -> Iterator[Any]:
    with refusing(kafka):
        admin = KafkaAdminClient(**kafka_python_arguments(kafka))
        try:
            yield admin
        finally:
            admin.close()


def _options(topics: TopicsSection, name: str) -> dict[str, Any]:
    configs = {"cleanup.policy": "delete", "retention.ms": str(topics.retention_ms)}
    if name == topics.dead_letters:
        # A dead letter is a record as it came, and headers that tell why: the largest that the input takes must fit.
        configs["max.message.bytes"] = str(DEAD_LETTER_BYTES_MAX)
    return {"num_partitions": topics.partitions, "replication_factor": topics.replication_factor, "configs": configs}


def _partition_counts(admin: Any, names: Iterable[str]) -> dict[str, int]:
    found = admin.describe_topics(list(names))
    for topic in found:
        if topic["error_code"] not in (0, UnknownTopicOrPartitionError.errno):
            raise for_code(topic["error_code"])(topic["name"])
    return {topic["name"]: len(topic["partitions"]) for topic in found if topic["error_code"] == 0}

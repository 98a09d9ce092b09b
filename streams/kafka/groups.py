"""What the brokers know of a consumer group."""

from contextlib import closing

from kafka.admin import KafkaAdminClient
from thalweg.streams.kafka.refusals import refusing
from thalweg.streams.kafka.security import KafkaSection, kafka_python_arguments


def members_of(kafka: KafkaSection, group: str) -> int:
    """Return how many workers are in a group now. Raises Refusal where no broker answers."""
    with refusing(kafka), closing(KafkaAdminClient(**kafka_python_arguments(kafka))) as admin:
        return len(admin.describe_groups([group])[group].get("members") or ())

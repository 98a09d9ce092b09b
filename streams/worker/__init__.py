"""The worker: partitions of a Kafka topic, their metrics and their checkpoints."""

"""Everything about Kafka, tested on a real broker."""

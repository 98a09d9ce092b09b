"""Kafka: topics, blocks of records, delivery, transactions, readers and dead letters."""

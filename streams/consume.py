"""The reader for your own consumers: `Reader` keeps each record of an output topic once."""

from thalweg.streams.kafka.consume import Reader

__all__ = ["Reader"]

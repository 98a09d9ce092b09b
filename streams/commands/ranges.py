"""What numbers the commands take for partitions and offsets: those that Kafka can have, with room to count on."""

import click

PARTITION = click.IntRange(0, (1 << 31) - 1)
OFFSET = click.IntRange(0, 1 << 62)

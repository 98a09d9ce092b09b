"""`thalweg consume`: an output topic as JSON lines."""

import itertools
import sys

import click
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.kafka.consume import Reader, consume
from thalweg.streams.kafka.topic_names import topic_option
from thalweg.streams.kafka.topics import check
from thalweg.streams.printable import printable_bytes


@click.command("consume")
@click.option("--topic", callback=topic_option, help="Topic to read.  [default: scores]")
@click.option("--partition", type=click.IntRange(min=0), help="This partition only.")
@click.option("--from-beginning/--from-end", default=True, show_default=True, help="Where to start.")
@click.option("--follow", "-f", is_flag=True, help="Wait for more instead of ending at the topic's end.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many records.")
@configuration_options
@click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers).")
def command(
    topic: str | None,
    partition: int | None,
    from_beginning: bool,
    follow: bool,
    limit: int | None,
    bootstrap_servers: str | None,
    loaded: Loaded,
) -> None:
    """Print an output topic as JSON lines, each record once.

    Records whose `cause` is not above the highest seen in their partition are dropped: a worker that was paused while
    its partitions moved may have written them twice. On a terminal, what is not printable is escaped. The topic of
    lessons is binary: it gives a file for `thalweg replay --lessons`.

    \b
    Example:
        thalweg consume --topic scores --follow
    """
    kafka, topics = loaded.kafka.reached_at(bootstrap_servers), loaded.topics
    name = topic or topics.scores
    partitions = check(kafka, topics, [name])
    if partition is not None and partition >= partitions:
        raise click.BadParameter(f"{name} has partitions 0 to {partitions - 1}", param_hint="--partition")
    if name == topics.lessons and sys.stdout.isatty():
        raise click.UsageError(f"{name} is binary: write it to a file, for `thalweg replay --lessons`")
    reader = Reader()
    records = consume(kafka, name, partition=partition, from_beginning=from_beginning, follow=follow, reader=reader)
    out = sys.stdout.buffer
    count = 0
    try:
        for record in itertools.islice(records, limit):
            count += 1
            value = record.value or b""
            if name == topics.lessons:
                out.write(value)  # batches one behind the other are a file of lessons
            else:
                out.write((printable_bytes(value) if out.isatty() else value) + b"\n")
            if follow:
                out.flush()
        out.flush()
    except BrokenPipeError:
        # `| head` has seen enough; what is left in the buffer must not raise at exit again
        sys.stdout = None
    except KeyboardInterrupt:
        out.flush()
    finally:
        records.close()
    dropped = f", {reader.dropped} written twice dropped" if reader.dropped else ""
    click.echo(f"{count} records{dropped}", err=True)

"""`thalweg produce`: a log file to the input topic."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.kafka.produce import Produced, produce
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.kafka.topic_names import topic_option
from thalweg.streams.kafka.topics import check
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.mapping.keys import Key, key_of
from thalweg.streams.mapping.reading import key_reader
from thalweg.streams.refusal import Refusal


@click.command("produce")
@click.argument("log", metavar="LOG")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Events a second at most.")
@click.option("--topic", callback=topic_option, help="Topic to send to.  [default: interactions]")
@configuration_options
@click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers).")
def command(log: str, rate: float | None, topic: str | None, bootstrap_servers: str | None, loaded: Loaded) -> None:
    """Send a log file to Kafka: keyed by user, every delivery confirmed.

    LOG is `.jsonl`, `.jsonl.gz` or `.jsonl.zst`, or `-` for stdin. Lines are sent byte for byte. One that names no
    user goes to partition 0 without a key, for the worker to dead-letter. Facts about an item go to every partition.
    With a [mapping] user and item are where it says.

    \b
    Example:
        thalweg produce examples/kuairand.jsonl.zst --rate 2000
    """
    kafka, topics = loaded.kafka.reached_at(bootstrap_servers), loaded.topics
    name = topic or topics.interactions
    started = time.monotonic()
    try:
        with closing(LogReader(log, block_lines=1000)) as reader:
            partitions = check(kafka, topics, [name])
            produced = _produce_with_progress(kafka, name, reader, rate, key_reader(loaded.configuration) or key_of)
    except LogError as error:
        raise Refusal(str(error)) from error
    taken_s = time.monotonic() - started
    told = f", {produced.unkeyed} without a user among them" if produced.unkeyed else ""
    click.echo(
        f"{produced.confirmed} events confirmed on {name} ({partitions} partition{'s' * (partitions > 1)}){told}, "
        f"{produced.confirmed / taken_s:.0f} a second",
        err=True,
    )


def _produce_with_progress(
    kafka: KafkaSection, topic: str, reader: LogReader, rate: float | None, key: Callable[[bytes], Key]
) -> Produced:
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[events]}")]
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), transient=True, console=console, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(f"→ {topic}", total=reader.bytes_total, events="")

        def advance(produced: Produced) -> None:
            progress.update(task, completed=reader.bytes_read, events=f"{produced.confirmed} confirmed")

        return produce(kafka, topic, _values(reader), rate=rate, key=key, on_progress=advance)


def _values(reader: LogReader) -> Iterator[bytes]:
    for block in reader:
        for record in block:
            yield record.value or b""

"""`thalweg topics`: create, check and describe the topics."""

import click
import msgspec
from rich.console import Console
from rich.table import Table
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.kafka.topics import check, create, describe


@click.group("topics")
def command() -> None:
    """Create and describe the Kafka topics.

    \b
    Example:
        thalweg topics create --partitions 4
        thalweg topics describe
    """


@command.command("create")
@configuration_options
@click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers).")
@click.option("--partitions", type=click.IntRange(min=1), help="Partitions of every topic (topics.partitions).")
@click.option(
    "--replication-factor", type=click.IntRange(min=1), help="Copies of every partition (topics.replication_factor)."
)
def create_command(
    loaded: Loaded, bootstrap_servers: str | None, partitions: int | None, replication_factor: int | None
) -> None:
    """Create the topics that are absent; those that are there stay as they are."""
    kafka, topics = loaded.kafka.reached_at(bootstrap_servers), loaded.topics
    given = {"partitions": partitions, "replication_factor": replication_factor}
    topics = msgspec.structs.replace(topics, **{name: value for name, value in given.items() if value is not None})
    created = create(kafka, topics)
    for name in topics.names:
        click.echo(f"{'created' if name in created else 'there already'}: {name}", err=True)
    if topics.partitions > 1:
        click.echo(
            f"{topics.partitions} partitions learn separately for now: each sees only its own users' events.", err=True
        )


@command.command("describe")
@configuration_options
@click.option("--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers).")
def describe_command(loaded: Loaded, bootstrap_servers: str | None) -> None:
    """Show every topic's partitions and offsets; refuse where one is absent or partition counts differ."""
    kafka, topics = loaded.kafka.reached_at(bootstrap_servers), loaded.topics
    table = Table("topic", "partition", "first offset", "end offset", "copies")
    for topic in describe(kafka, topics):
        for number, (begin, end) in enumerate(zip(topic.begin_offsets, topic.end_offsets, strict=True)):
            table.add_row(topic.name, str(number), str(begin), str(end), str(topic.replication_factor))
    if table.row_count:
        Console(stderr=True).print(table)
    check(kafka, topics)

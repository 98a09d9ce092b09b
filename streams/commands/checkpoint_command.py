"""`thalweg checkpoint`: list and verify checkpoints, roll back to one, rebuild a state."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from thalweg.streams.commands.ranges import OFFSET, PARTITION
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.configuration.sections import without_secrets
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal

partition_option = click.option("--partition", type=PARTITION, metavar="P", help="This partition only.")
offset_option = click.option(
    "--offset",
    type=OFFSET,
    metavar="N",
    help="The one that resumes at this offset.  [default: the newest]",
)
servers_option = click.option(
    "--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers)."
)


@click.group("checkpoint")
def command() -> None:
    """List, show, verify and roll back checkpoints, and rebuild states after a change of configuration.

    Which are meant is said by checkpoint.directory and checkpoint.generation.

    \b
    Example:
        thalweg checkpoint list
        thalweg checkpoint verify --set checkpoint.directory=s3://bucket/thalweg
        thalweg checkpoint rollback --partition 0
    """


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line to stdout.")
@partition_option
@configuration_options
def list_command(as_json: bool, partition: int | None, loaded: Loaded) -> None:
    """List every checkpoint: where it resumes, its age and size, and whether every byte of it is whole.

    \b
    Example:
        thalweg checkpoint list --partition 0
    """
    from thalweg.streams.checkpoints.format import differences, plain, said
    from thalweg.streams.checkpoints.verify import look_at

    table = Table("partition", "next offset", "age", "bytes", "state")
    configuration = plain(loaded.configuration)
    count = 0
    with refusing():
        for number, store in stores(loaded, partition):
            for path in store.paths():
                found = look_at(store, path)
                count += 1
                changed = (
                    "" if found.header is None else next(differences(found.header.configuration, configuration), "")
                )
                state = found.problem or ("whole" if not changed else f"whole, made with {said(changed)}")
                age_s = max(0.0, time.time() - found.modified_at_s) if found.modified_at_s else None
                if as_json:
                    told = {
                        "partition": number,
                        "next_offset": found.next_offset,
                        "age_s": age_s and round(age_s, 1),
                        "bytes": found.bytes,
                        "whole": found.header is not None,
                        "same_configuration": found.header is not None and not changed,
                        "problem": found.problem or None,
                        "path": printable(str(found.path)),
                    }
                    click.echo(printable(msgspec.json.encode(told).decode()))
                age = "unknown" if age_s is None else f"{age_s:,.0f} s"
                cells = (str(number), str(found.next_offset), age, f"{found.bytes:,}", state)
                table.add_row(*(Text(printable(cell)) for cell in cells))
    if not as_json and count:
        Console(stderr=True).print(table)
    click.echo(f"{count} checkpoints in {place_of(loaded)}", err=True)


@command.command("show")
@partition_option
@offset_option
@configuration_options
def show_command(partition: int | None, offset: int | None, loaded: Loaded) -> None:
    """Print what one checkpoint says of itself, as JSON: output ends, configuration, digest, and its arrays.

    \b
    Example:
        thalweg checkpoint show --partition 0
    """
    from thalweg.streams.checkpoints.verify import read

    with refusing():
        store, path = chosen(loaded, partition, offset)
        checkpoint = read(store, path)
        status = store.status(path)
    arrays = {name: f"{array.dtype} {list(array.shape)}" for name, array in sorted(checkpoint.arrays.items())}
    header = msgspec.to_builtins(checkpoint.header)
    header["configuration"] = without_secrets(header["configuration"])
    told = {"path": printable(str(path)), "bytes": status.bytes, "header": header, "arrays": arrays}
    click.echo(printable(msgspec.json.format(msgspec.json.encode(told), indent=2).decode(), lines=True))


@command.command("verify")
@click.option("--all", "takes_all", is_flag=True, help="Every checkpoint, not the newest of each partition only.")
@partition_option
@configuration_options
def verify_command(takes_all: bool, partition: int | None, loaded: Loaded) -> None:
    """Read every byte, restore the state and compare its digest with the one in the header.

    Ends with status 1 where one is not whole. A state needs the memory that a worker needs for it.

    \b
    Example:
        thalweg checkpoint verify --all
    """
    from thalweg.streams.checkpoints.format import CheckpointError
    from thalweg.streams.checkpoints.verify import verify
    from thalweg.streams.partition.seal import seal_of

    count = failures = 0
    seal = None
    try:
        seal = seal_of(loaded)
    except Refusal as refusal:
        click.echo(f"signatures of River classifiers are not verified: {refusal.message}", err=True)
    with refusing():
        for number, store in stores(loaded, partition):
            for path in store.paths()[: None if takes_all else 1]:
                count += 1
                try:
                    header = verify(store, path, seal)
                    click.echo(f"whole: partition {number}, offset {header.next_offset}, {header.digest}", err=True)
                except CheckpointError as error:
                    failures += 1
                    click.echo(f"not whole: {error}", err=True)
    if failures:
        raise Refusal(f"{failures} of {count} checkpoints are not whole; a worker passes over damaged ones")
    if not count:
        raise Refusal(f"there is no checkpoint in {place_of(loaded)}: name checkpoint.directory and its generation")
    click.echo(f"{count} checkpoints, each with the state that its header says", err=True)


@command.command("rollback")
@click.option("--to", type=OFFSET, metavar="N", help="The next offset to go back to.  [default: one before]")
@click.option("--offline", is_flag=True, help="Ask no broker: you know that no worker uses the folder.")
@partition_option
@configuration_options
@servers_option
def rollback_command(
    to: int | None, offline: bool, partition: int | None, loaded: Loaded, bootstrap_servers: str | None
) -> None:
    """Go back to the checkpoint before the newest: newer ones are set aside, in the folder `aside`, not deleted.

    Refused while workers are in the group, since theirs would be the newest again. Also refused where the input topic
    no longer holds the records to be read again. A worker then folds the records since that checkpoint again. It does
    not send outputs again that are on their topics.

    \b
    Example:
        thalweg checkpoint rollback --partition 0
    """
    from thalweg.streams.checkpoints.verify import roll_back

    with refusing():
        found = list(stores(loaded, partition))
        if not found:
            raise Refusal(f"there is no checkpoint in {place_of(loaded)}: name checkpoint.directory and its generation")
        if len(found) > 1:
            numbers = ", ".join(str(number) for number, _ in found)
            raise Refusal(f"there are partitions {numbers}: choose one with --partition")
        [(number, store)] = found
        check_log = (lambda offset: None) if offline else idle_log(loaded, bootstrap_servers, number)
        rolled = roll_back(store, to, on_target=check_log)
    for path in rolled.aside:
        click.echo(f"set aside: {path}", err=True)
    name = f"{loaded.topics.interactions}-{number}"
    click.echo(
        f"{name} resumes at offset {rolled.target.next_offset}. A worker folds what is behind it again and sends only "
        "what is not on the output topics yet: what readers got stays as it is. To undo this, move the files back. To "
        "get other outputs, rebuild into another checkpoint.generation with new output topics.",
        err=True,
    )


@command.command("rebuild")
@click.option(
    "--from-generation",
    type=click.IntRange(0),
    metavar="G",
    help="The one in use.  [default: checkpoint.generation - 1]",
)
@click.option(
    "--first-offset",
    type=OFFSET,
    default=0,
    metavar="N",
    help="Start here, without what came before: for a log that no longer starts at 0.",
)
@click.option(
    "--without-lessons",
    is_flag=True,
    help="Pass over the lessons that the log's merges name: for a configuration that they can't be read under.",
)
@partition_option
@configuration_options
@servers_option
def rebuild_command(
    from_generation: int | None,
    first_offset: int,
    without_lessons: bool,
    partition: int | None,
    loaded: Loaded,
    bootstrap_servers: str | None,
) -> None:
    """Rebuild each partition's state from the log, under this configuration, while workers run under the old one.

    Emits nothing and touches no topic. It ends where the generation in use has its newest checkpoint; run again it
    resumes from where it ended. Then stop the workers and start them with the new configuration and generation.

    \b
    Example:
        thalweg checkpoint rebuild --config new.toml --set checkpoint.generation=1
    """
    from thalweg.streams.checkpoints.folders import partitions_at, store_at
    from thalweg.streams.kafka.topics import check
    from thalweg.streams.partition.lessons import settled
    from thalweg.streams.worker.rebuild import lessons_on_topic, rebuild

    section = loaded.checkpoint
    number = section.generation - 1 if from_generation is None else from_generation
    if number < 0 or number == section.generation:
        raise Refusal(
            f"checkpoint.generation is {section.generation}, the one in use: choose another one for the new "
            "configuration"
        )
    old = msgspec.structs.replace(section, generation=number)
    topic = loaded.topics.interactions
    reached = dataclasses.replace(loaded, kafka=loaded.kafka.reached_at(bootstrap_servers))
    partitions = check(reached.kafka, reached.topics, [topic])
    learns = bool(settled(loaded.configuration, has_others=partitions > 1).lessons.enabled) and not without_lessons
    with refusing(), lessons_on_topic(reached, partitions) if learns else nullcontext() as lessons_of:
        there = [each for each in partitions_at(old, topic) if partition in (None, each)]
        if not there:
            raise Refusal(
                f"generation {number} has no checkpoints: start a worker, which starts at the log's beginning"
            )
        for each in there:
            lessons = None if lessons_of is None else lessons_of(each)
            store = store_at(old, topic, each)
            rebuilt = rebuild(reached, store, each, partitions, first_offset=first_offset, lessons=lessons)
            click.echo(
                f"{topic}-{each}: generation {section.generation} resumes at offset {rebuilt.next_offset}, "
                f"{rebuilt.next_offset - rebuilt.first_offset} offsets further than before",
                err=True,
            )
    click.echo(
        f"stop the workers, and start them with this configuration and checkpoint.generation={section.generation}",
        err=True,
    )


def idle_log(loaded: Loaded, bootstrap_servers: str | None, partition: int) -> Callable[[int], None]:
    """Return a check that the log still holds an offset; raise Refusal where workers are in the group."""
    from thalweg.streams.kafka.groups import members_of
    from thalweg.streams.kafka.topics import describe

    kafka = loaded.kafka.reached_at(bootstrap_servers)
    try:
        members = members_of(kafka, loaded.worker.group)
        topics = describe(kafka, loaded.topics)
    except Refusal as error:
        raise Refusal(f"{error.message}; if no worker uses the folder, give --offline") from None
    if members:
        raise Refusal(
            f"{members} workers are in group {loaded.worker.group}: stop them first, or theirs is the newest "
            "checkpoint again"
        )
    source = next((topic for topic in topics if topic.name == loaded.topics.interactions), None)

    def check_log(offset: int) -> None:
        if source is None or not source.begin_offsets[partition] <= offset <= source.end_offsets[partition]:
            bounds = "is not there" if source is None else f"starts at offset {source.begin_offsets[partition]} by now"
            raise Refusal(
                f"{loaded.topics.interactions}-{partition} {bounds}: a worker could not resume at offset {offset}; "
                "choose a newer checkpoint with --to"
            )

    return check_log


def stores(loaded: Loaded, partition: int | None) -> Iterator[tuple[int, Any]]:
    """Give the stores of the partitions that have one."""
    from thalweg.streams.checkpoints.folders import partitions_at, store_at

    topic = loaded.topics.interactions
    for number in partitions_at(loaded.checkpoint, topic):
        if partition in (None, number):
            yield number, store_at(loaded.checkpoint, topic, number)


def chosen(loaded: Loaded, partition: int | None, offset: int | None) -> tuple[Any, Any]:
    """Return one checkpoint and its store. Raises Refusal where there is none, or more than one is meant."""
    found = list(stores(loaded, partition))
    if len(found) > 1:
        raise Refusal(
            f"there are partitions {', '.join(str(number) for number, _ in found)}: choose one with --partition"
        )
    for _, store in found:
        for path in store.paths():
            if offset is None or path.stem == f"{offset:020d}":
                return store, path
    raise Refusal(f"there is no such checkpoint in {place_of(loaded)}: see `thalweg checkpoint list`")


def place_of(loaded: Loaded) -> str:
    """Return where checkpoints are looked for, without credentials."""
    from thalweg.streams.checkpoints.folders import folder_of
    from thalweg.streams.printable import redacted

    return redacted(folder_of(loaded.checkpoint))


@contextmanager
def refusing() -> Iterator[None]:
    """Turn what a store refuses into the command's one line."""
    from thalweg.streams.checkpoints.format import CheckpointError

    try:
        yield
    except CheckpointError as error:
        raise Refusal(str(error)) from None

"""`thalweg dead-letters`: what could not be used, and back to the input with it."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from thalweg.schemas.outputs import encode_dead_letter
from thalweg.schemas.reasons import Reason
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.printable import printable, printable_bytes
from thalweg.streams.refusal import Refusal

REASONS = [reason.value for reason in Reason]
file_option = click.option(
    "--file", "path", metavar="F", help="A file of `thalweg replay --dead-letters`, instead of the topic."
)
servers_option = click.option(
    "--bootstrap-servers", metavar="HOST:PORT,…", help="Brokers to ask first (kafka.bootstrap_servers)."
)


class Filters(NamedTuple):
    """Which letters are meant, as the flags say it."""

    reasons: tuple[str, ...]
    partition: int | None
    first_offset: int
    last_offset: int | None
    origins: tuple[str, ...]


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the flags that choose letters."""
    for option in (
        click.option("--origin", "origins", multiple=True, metavar="TOPIC-P-N", help="This record. Can be repeated."),
        click.option("--last-offset", type=click.IntRange(0), metavar="N", help="Up to this letter."),
        click.option("--first-offset", type=click.IntRange(0), default=0, metavar="N", help="From this letter on."),
        click.option("--partition", type=click.IntRange(0), metavar="P", help="This partition only."),
        click.option(
            "--reason", "reasons", multiple=True, type=click.Choice(REASONS), metavar="R", help="Can be repeated."
        ),
    ):
        command = option(command)
    return command


@click.group("dead-letters")
def command() -> None:
    """List, show and send back the records that could not be used.

    \b
    Example:
        thalweg dead-letters list
        thalweg dead-letters show interactions-0-4711
        thalweg dead-letters redrive --reason too_large
    """


@command.command("list")
@click.option("--each", is_flag=True, help="A line each, to stdout, instead of counts.")
@click.option("--json", "as_json", is_flag=True, help="JSON to stdout; with --each one object a line.")
@filter_options
@file_option
@configuration_options
@servers_option
def list_command(
    each: bool, as_json: bool, path: str | None, loaded: Loaded, bootstrap_servers: str | None, **filters: Any
) -> None:
    """Count the dead letters by reason and partition, with the first and last offset in their topic.

    In a file, offsets are line numbers.

    \b
    Example:
        thalweg dead-letters list --each --reason not_json
    """
    from thalweg.streams.kafka.dead_letters import Contents, Letter, came_of, contents, redrives_of

    letters = chosen(loaded, bootstrap_servers, path, Filters(**filters))
    found = Contents(frozenset(), 0)
    if path is None:
        kafka = loaded.kafka.reached_at(bootstrap_servers)
        found = contents(kafka, loaded.topics.dead_letters, filters["partition"])
    counts: dict[tuple[str, int], list[int]] = {}

    def is_redriven(letter: Letter) -> bool:
        return (letter.partition, letter.offset) in found.redriven

    try:
        for letter in letters:
            row = counts.setdefault((letter.letter.reason, letter.partition), [0, 0, letter.offset, letter.offset])
            row[0] += 1
            row[1] += is_redriven(letter)
            row[3] = letter.offset
            if each:
                line = {
                    "offset": letter.offset,
                    "partition": letter.partition,
                    "reason": letter.letter.reason,
                    "origin": letter.letter.origin,
                    "cause": letter.letter.cause,
                    "detail": letter.letter.detail,
                    "bytes": len(letter.letter.raw or b""),
                    "redriven": is_redriven(letter),
                    "came_of": came_of(letter.letter),
                    "redrives": redrives_of(letter.letter),
                }
                click.echo(json_text(line) if as_json else printable("\t".join(map(str, list(line.values())[:7]))))
    except BrokenPipeError:
        sys.stdout = None
        return
    rows = [
        {"reason": reason, "partition": partition}
        | dict(zip(("letters", "redriven", "first", "last"), row, strict=True))
        for (reason, partition), row in sorted(counts.items())
    ]
    if as_json and not each:
        click.echo(json_text(rows))
    elif not each and rows:
        table = Table("reason", "partition", "letters", "redriven", "first offset", "last offset")
        for row_ in rows:
            table.add_row(*(Text(printable(str(value))) for value in row_.values()))
        Console(stderr=True).print(table)
    total, redriven = (sum(int(str(row_[name])) for row_ in rows) for name in ("letters", "redriven"))
    foreign = f"; {found.foreign} other records lie in the topic" if found.foreign else ""
    click.echo(f"{total} dead letters, {redriven} redriven{foreign}", err=True)


@command.command("show")
@click.argument("origin", metavar="TOPIC-P-N")
@click.option("--json", "as_json", is_flag=True, help="One JSON object with all of it to stdout; bytes are base64.")
@file_option
@configuration_options
@servers_option
def show_command(origin: str, as_json: bool, path: str | None, loaded: Loaded, bootstrap_servers: str | None) -> None:
    """Show one dead letter: why it is one to stderr, its bytes as they came to stdout.

    TOPIC-P-N is the record's place in the input topic, or the letter's in the dead-letter topic. On a terminal, bytes
    that are not printable are escaped; into a file or a pipe they go as they are.

    \b
    Example:
        thalweg dead-letters show interactions-0-4711 > record.json
    """
    letters = chosen(loaded, bootstrap_servers, path, Filters((), None, 0, None, (origin,)))
    letter = next(letters, None)
    letters.close()
    if letter is None:
        where = path or loaded.topics.dead_letters
        raise Refusal(f"{where} has no dead letter {origin}: see `thalweg dead-letters list --each`")
    content = letter.letter
    if as_json:
        click.echo(printable(encode_dead_letter(content).decode()))
        return
    told = {
        "dead letter": letter.place if path is None else f"line {letter.offset} of {path}",
        "reason": f"{content.reason}: {content.detail}",
        "origin": content.origin,
        "cause": content.cause,
        "key": "none" if content.key is None else content.key.decode(errors="backslashreplace"),
        **{f"header {name}": text_of(value) for name, value in content.headers},
        "bytes": "none (a tombstone)" if content.raw is None else str(len(content.raw)),
    }
    for name, text in told.items():
        click.echo(printable(f"{name}: {text}"), err=True)
    out = click.get_binary_stream("stdout")
    raw = content.raw or b""
    out.write(printable_bytes(raw) + b"\n" if out.isatty() else raw)
    out.flush()


@command.command("redrive")
@click.option("--execute", is_flag=True, help="Do it; without, only show what would be done.")
@click.option("--redriven", is_flag=True, help="Send those too that were redriven before: they are then read twice.")
@click.option("--unusable", is_flag=True, help="Send those too that are sure to be dead-lettered again.")
@click.option("--json", "as_json", is_flag=True, help="What is done, or would be, as one JSON object to stdout.")
@filter_options
@configuration_options
@servers_option
def redrive_command(
    execute: bool,
    redriven: bool,
    unusable: bool,
    as_json: bool,
    loaded: Loaded,
    bootstrap_servers: str | None,
    **filters: Any,
) -> None:
    """Send dead letters back to the input topic: their bytes, key and headers as they came.

    Without --execute nothing is sent. What was redriven before is left out, and so is what this configuration is sure
    to turn down again. A record that was sent back dead_letters.redrives_max times is left out for good. A redriven
    record lies at the end of the log: it is read as late as it comes, and does not move stream time back. Status 1: the
    brokers refused some letters; the others were sent.

    \b
    Example:
        thalweg dead-letters redrive --reason too_large --set limits.record_bytes=200000
        thalweg dead-letters redrive --reason too_large --set limits.record_bytes=200000 --execute
    """
    from thalweg.streams.kafka.dead_letters import STATE_DECIDES
    from thalweg.streams.kafka.redrive import Redrive

    kafka = loaded.kafka.reached_at(bootstrap_servers)
    redrive = Redrive(
        kafka,
        loaded.topics,
        loaded.configuration,
        wanted(Filters(**filters)),
        redriven=redriven,
        unusable=unusable,
        redrives_max=loaded.dead_letters.redrives_max,
    )
    plan = redrive.run() if execute else redrive.plan()
    if as_json:
        click.echo(
            msgspec.json.encode(
                {"executed": execute} | {name: dict(getattr(plan, name)) for name in plan._fields}, order="sorted"
            )
        )
    show_plan(plan, execute=execute)
    for reason, again in sorted(plan.again.items()):
        whys = ", ".join(f"{count} as {why}" for why, count in sorted(again.items()))
        click.echo(printable(f"{reason}: under this configuration dead letters again: {whys}"), err=True)
    for reason in sorted(STATE_DECIDES & set(plan.sent)):
        click.echo(f"{reason}: what the partition knows by then decides", err=True)
    sent = plan.sent.total()
    if execute:
        click.echo(f"{sent} of {plan.found} sent back to {loaded.topics.interactions} and marked", err=True)
    else:
        more = "; nothing was sent: give --execute" if sent else "; nothing to do"
        click.echo(f"{sent} of {plan.found} would be sent to {loaded.topics.interactions}{more}", err=True)
    if plan.refused:
        raise SystemExit(1)


def show_plan(plan: Any, *, execute: bool) -> None:
    """Print a redrive's numbers by reason, and each letter that the brokers refused with why."""
    table = Table(
        "reason", "sent back" if execute else "would be sent", "redriven before", "unusable still", "at the limit"
    )
    counts = (plan.sent, plan.redriven, plan.unusable, plan.exhausted)
    for reason in sorted({reason for each in counts for reason in each}):
        table.add_row(Text(printable(reason)), *(str(each[reason]) for each in counts))
    if table.row_count:
        Console(stderr=True).print(table)
    for place, why in plan.refused.items():
        click.echo(printable(f"{place} can't be sent back: {why}"), err=True)


def wanted(filters: Filters) -> Any:
    """Return the flags as the reading side takes them. Raises UsageError where no letter can be meant."""
    from thalweg.schemas.origin import parse_origin
    from thalweg.streams.kafka.dead_letters import Wanted

    for origin in filters.origins:
        try:
            parse_origin(origin)
        except ValueError:
            raise click.UsageError(
                f"{origin!r} is no place of a record: write TOPIC-P-N, as interactions-0-17"
            ) from None
    if filters.last_offset is not None and filters.last_offset < filters.first_offset:
        raise click.UsageError(f"--last-offset {filters.last_offset} is before --first-offset {filters.first_offset}")
    return Wanted(
        frozenset(filters.reasons),
        filters.partition,
        filters.first_offset,
        filters.last_offset,
        frozenset(filters.origins),
    )


def chosen(loaded: Loaded, bootstrap_servers: str | None, path: str | None, filters: Filters) -> Any:
    """Return the letters that are meant, of a file or of the topic. Raises Refusal where that can't be read."""
    from thalweg.streams.kafka.dead_letters import letters_of_file, letters_of_topic
    from thalweg.streams.kafka.topics import check
    from thalweg.streams.logs.errors import LogError

    if path is None:
        kafka = loaded.kafka.reached_at(bootstrap_servers)
        check(kafka, loaded.topics, [loaded.topics.dead_letters])
        return letters_of_topic(kafka, loaded.topics.dead_letters, wanted(filters))

    def of_file() -> Iterator[Any]:
        try:
            yield from letters_of_file(path, wanted(filters))
        except LogError as error:
            raise Refusal(str(error)) from None

    return of_file()


def json_text(value: Any) -> str:
    """Return a value as JSON in printable characters."""
    return printable(msgspec.json.encode(value).decode())


def text_of(value: bytes | None) -> str:
    """Return a header's value as a text; a header without one is null."""
    return "null" if value is None else value.decode(errors="backslashreplace")

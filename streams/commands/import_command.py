"""`thalweg import`: a table of impressions with labels, or one of events as they are, as a log."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
from thalweg.streams.commands.columns import among, names, refuse_both, split_of
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal

if TYPE_CHECKING:
    from thalweg.operators.configuration import Configuration
    from thalweg.streams.logs.ordered import Imported


@click.command(name="import")
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--actions", type=click.Path(path_type=Path), metavar="TABLE", help="Table of feedback ([mapping]).")
@click.option("--action", metavar="A", help="Action of the rows of --actions, if no column says it.")
@click.option("--user", metavar="C", help="Column of the user's id.")
@click.option("--item", metavar="C", help="Column of the item's id.")
@click.option("--time", "time", metavar="C[:s|ms|us|ns]", help="Column of the time; numbers are ms.")
@click.option("--label", metavar="C", help="Column of the outcome: 0 or 1, true or false.")
@click.option("--id", "id_", metavar="C", help="Column of the impression's id; without, rows are numbered from 0.")
@click.option("--context", multiple=True, metavar="C,...", help="Columns of the context. Can be repeated.")
@click.option("--split", multiple=True, metavar="C:SEP", help="Context column that is a list. Can be repeated.")
@click.option("--text", multiple=True, metavar="C,...", help="Context columns that are texts, digits too.")
@click.option("--number", multiple=True, metavar="C,...", help="Context columns that are numbers, however written.")
@click.option("--keep-null-words", is_flag=True, help="Take NULL, NaN, None, NA and \\N as ids and categories.")
@click.option("--base-score", metavar="C", help="Column of a slower model's probability.")
@click.option("--feedback-delay-ms", type=click.IntRange(0), default=1000, show_default=True, metavar="MS")
@click.option("--out", required=True, metavar="LOG", help="Log to write: .jsonl, .jsonl.gz, .jsonl.zst, - for stdout.")
@configuration_options
def command(
    table: Path,
    actions: Path | None,
    action: str | None,
    text: tuple[str, ...],
    number: tuple[str, ...],
    keep_null_words: bool,
    feedback_delay_ms: int,
    out: str,
    loaded: Loaded,
    **labelled: Any,
) -> None:
    """Turn a CSV, Parquet or Arrow TABLE, or foreign JSON lines, into a log of events.

    With --user, --item, --time and --label each row becomes an impression, and where its label is positive also a
    feedback "click" after the delay. Without them a [mapping] in the configuration defines the rows: impressions and
    feedback as they happened, from one table, or from two with --actions. Feedback that names no impression belongs to
    the user's latest impression of the item.

    Events are sorted by time, at one time impressions before feedback, then by row. Context numbers stay numbers and
    texts stay texts; empty values are left out. A CSV column is numbers if all of its values are, and if no two of them
    would become one: with a leading zero, or beyond 64 bits, it stays text. Times are milliseconds unless a unit is
    given, or ISO 8601 dates (UTC where they have no zone). The limits of the configuration hold, so replay takes every
    event.

    \b
    Example:
      thalweg import events.parquet --user user --item item --time time_ms:ms --label label \\
        --context tab,author,tag --split tag:, --out events.jsonl.zst

    \b
      thalweg import views.csv --actions purchases.csv --config shop.toml --out shop.jsonl.zst
    """
    from thalweg.streams.logs.errors import TableError

    refuse_both(text, number)
    try:
        if any(labelled.values()):
            if actions is not None or action is not None:
                raise click.UsageError(
                    "--actions and --action belong to a [mapping]: labelled rows (--user, --item, --time, --label) "
                    "have their actions in --label"
                )
            source = _labelled(
                table, text, number, keep_null_words, feedback_delay_ms, loaded.configuration, **labelled
            )
        else:
            source = _mapped(table, actions, action, text, number, keep_null_words, loaded.configuration)
        for note in source.notes:
            click.echo(printable(f"{table}: {note}"), err=True)
        inputs = [table] if actions is None else [table, actions]
        with LogWriter(out, inputs=inputs) as log, _progress(source) as blocks:
            for block in blocks:
                log.write(block)
    except (TableError, LogError) as error:
        raise Refusal(str(error)) from None
    imported = source.imported
    first, last = (datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M") for ts in imported[2:])
    click.echo(
        f"{imported.impressions} impressions and {imported.feedback} feedback, {first} to {last} UTC: {log.name}",
        err=True,
    )


class _Source(Protocol):
    """What a log is made of."""

    notes: list[str]
    imported: "Imported"

    def blocks(self) -> Iterator[bytes]: ...


def _labelled(
    table: Path,
    text: tuple[str, ...],
    number: tuple[str, ...],
    keep_null_words: bool,
    feedback_delay_ms: int,
    configuration: "Configuration",
    **options: Any,
) -> _Source:
    """Return the events of a table of impressions with labels."""
    from thalweg.streams.logs.importing import Columns, Events
    from thalweg.streams.logs.times import TICKS_PER_S

    missing = [f"--{name}" for name in ("user", "item", "time", "label") if not options[name]]
    if missing:
        raise click.UsageError(
            f"Missing option {missing[0]!r}: labelled rows need --user, --item, --time and --label; for events as they "
            "are, give a [mapping] by --config and none of these"
        )
    time_column, colon, unit = options["time"].rpartition(":")
    named = bool(colon) and unit in TICKS_PER_S
    fields = names(options["context"])
    columns = Columns(
        user=options["user"],
        item=options["item"],
        time=time_column if named else options["time"],
        time_unit=unit if named else None,
        label=options["label"],
        id=options["id_"],
        context=fields,
        split=tuple(split_of(text, fields) for text in options["split"]),
        text=among(text, fields, "--text"),
        number=among(number, fields, "--number"),
        base_score=options["base_score"],
        keep_null_words=keep_null_words,
    )
    return Events(table, columns, feedback_delay_ms=feedback_delay_ms, configuration=configuration)


def _mapped(
    table: Path,
    actions: Path | None,
    action: str | None,
    text: tuple[str, ...],
    number: tuple[str, ...],
    keep_null_words: bool,
    configuration: "Configuration",
) -> _Source:
    """Return the events that a mapping finds in tables or lines."""
    from thalweg.streams.logs.event_tables import EventTables, Options
    from thalweg.streams.mapping.event_lines import ENDINGS, EventLines

    if not configuration.mapping.user:
        raise click.UsageError(
            "Missing option '--user': give --user, --item, --time and --label for labelled rows, or --config with a "
            "[mapping] for events as they are (`thalweg mapping suggest` prints one)"
        )
    if table.name.lower().endswith(ENDINGS):
        if actions is not None or action is not None:
            raise click.UsageError(
                "--actions belongs to tables, and so does --action: JSON lines of both kinds can be in one file"
            )
        if text or number:
            raise click.UsageError("--text and --number belong to tables: JSON itself tells texts from numbers")
        return EventLines(table, configuration, keep_null_words=keep_null_words)
    if action is not None and actions is None:
        raise click.UsageError("--action is the action of the rows of --actions: give that table, too")
    options = Options(action, names(text), names(number), keep_null_words)
    return EventTables(table, configuration, actions=actions, options=options)


@contextmanager
def _progress(source: _Source) -> Iterator[Iterator[bytes]]:
    """Show how many of the events are written; nothing where there is no terminal."""
    console = Console(stderr=True)
    total = source.imported.impressions + source.imported.feedback
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} events"),
        transient=True,
        console=console,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("writing", total=total)

        def counted() -> Iterator[bytes]:
            for block in source.blocks():
                yield block
                progress.advance(task, block.count(b"\n"))

        yield counted()

"""`thalweg facts`: a table of items or users as facts, alone or at the head of a log."""

import time
from contextlib import closing
from pathlib import Path

import click
from thalweg.streams.commands.columns import among, names, refuse_both, split_of
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal


@click.command("facts")
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--item", metavar="C", help="Column of the item's id: facts about items.")
@click.option("--user", metavar="C", help="Column of the user's id: facts about users.")
@click.option("--fields", multiple=True, required=True, metavar="[NAME=]C,...", help="Columns that are facts.")
@click.option("--split", multiple=True, metavar="C:SEP", help="Column that is a list. Can be repeated.")
@click.option("--text", multiple=True, metavar="C,...", help="Columns that are texts, digits too.")
@click.option("--number", multiple=True, metavar="C,...", help="Columns that are numbers, however written.")
@click.option("--keep-null-words", is_flag=True, help="Take NULL, NaN, None, NA and \\N as ids and categories.")
@click.option("--log", type=click.Path(path_type=Path), metavar="LOG", help="Log that the facts are to go before.")
@click.option("--out", required=True, metavar="LOG", help="Log to write: .jsonl, .jsonl.gz, .jsonl.zst, - for stdout.")
@configuration_options
def command(
    table: Path,
    item: str | None,
    user: str | None,
    fields: tuple[str, ...],
    split: tuple[str, ...],
    text: tuple[str, ...],
    number: tuple[str, ...],
    keep_null_words: bool,
    log: Path | None,
    out: str,
    loaded: Loaded,
) -> None:
    """Turn a CSV, Parquet or Arrow TABLE of items or users into facts.

    Facts fill in context fields that an impression does not bring. With --log they are about those who occur
    in LOG, begin when it begins, and OUT has them before its lines. Without it OUT has a fact of each row, as of now,
    ready for `thalweg produce`. A fact has the name of its column unless another one is given. An empty value is left
    out. Columns are read as `thalweg import` reads those of a context.

    \b
    Example:
      thalweg facts videos.csv --item video_id --fields author=author_id,tag --split tag:, --text author_id \\
        --log events.jsonl.zst --out with_facts.jsonl.zst
    """
    from thalweg.streams.logs.errors import TableError
    from thalweg.streams.logs.fact_tables import FactColumns, FactTable, occurring_in

    if (item is None) == (user is None):
        raise click.UsageError("give one of --item and --user: the column that says whom a row is about")
    if log is not None and str(log) == STANDARD_STREAM:
        raise click.UsageError("--log is read twice, so it is a file, not standard input")
    refuse_both(text, number)
    named = tuple(_named(each) for each in names(fields))
    if not named:
        raise click.UsageError("--fields is empty: name the columns that are facts")
    if twice := [name for name, _ in named if [each for each, _ in named].count(name) > 1]:
        raise click.UsageError(f"--fields has the name {twice[0]!r} twice")
    known = tuple(column for _, column in named)
    columns = FactColumns(
        about="user" if item is None else "item",
        key=item or user or "",
        fields=named,
        split=tuple(split_of(each, known, "--fields") for each in split),
        text=among(text, known, "--text", "--fields"),
        number=among(number, known, "--number", "--fields"),
        keep_null_words=keep_null_words,
    )
    try:
        found = None if log is None else occurring_in(log)
        owners = None if found is None else found.items if columns.about == "item" else found.users
        now_ms = time.time_ns() // 1_000_000
        made = FactTable(table, columns, owners, now_ms if found is None else found.first_ms, loaded.configuration)
        for note in made.notes:
            click.echo(printable(f"{table}: {note}"), err=True)
        with LogWriter(out, inputs=[table] if log is None else [table, log]) as written:
            for lines in made.blocks():
                written.write(lines)
            if log is not None:
                with closing(LogReader(log)) as reader:
                    for block in reader:
                        written.write(b"".join((record.value or b"") + b"\n" for record in block))
    except (TableError, LogError) as error:
        raise Refusal(str(error)) from None
    click.echo(f"{made.facts} facts about {columns.about}s: {written.name}", err=True)


def _named(text: str) -> tuple[str, str]:
    """Return a field's name and its column."""
    name, equals, column = text.partition("=")
    return (name.strip(), column.strip()) if equals else (text, text)

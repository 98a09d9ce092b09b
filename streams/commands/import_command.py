"""`thalweg import`: a table of impressions with labels as a log."""

from datetime import UTC, datetime
from pathlib import Path

import click
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal


@click.command(name="import")
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--user", required=True, metavar="C", help="Column of the user's id.")
@click.option("--item", required=True, metavar="C", help="Column of the item's id.")
@click.option("--time", "time", required=True, metavar="C[:s|ms|us|ns]", help="Column of the time; numbers are ms.")
@click.option("--label", required=True, metavar="C", help="Column of the outcome: 0 or 1, true or false.")
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
    user: str,
    item: str,
    time: str,
    label: str,
    id_: str | None,
    context: tuple[str, ...],
    split: tuple[str, ...],
    text: tuple[str, ...],
    number: tuple[str, ...],
    keep_null_words: bool,
    base_score: str | None,
    feedback_delay_ms: int,
    out: str,
    loaded: Loaded,
) -> None:
    """Turn a CSV, Parquet or Arrow TABLE into a log of events.

    Each row becomes an impression, and where its label is positive also a feedback "click" after the delay. Events are
    sorted by time, at one time impressions before feedback, then by row. Context numbers stay numbers and texts stay
    texts; empty values are left out. A CSV column is numbers if all of its values are, and if no two of them would
    become one: with a leading zero, or beyond 64 bits, it stays text. Times are milliseconds unless a unit is given, or
    ISO 8601 dates (UTC where they have no zone). The limits of the configuration hold, so replay takes every event.

    \b
    Example:
      thalweg import events.parquet --user user --item item --time time_ms:ms --label label \\
        --context tab,author,tag --split tag:, --out events.jsonl.zst
    """
    from thalweg.streams.logs.importing import Columns, Events
    from thalweg.streams.logs.tables import TableError
    from thalweg.streams.logs.times import TICKS_PER_S

    time_column, colon, unit = time.rpartition(":")
    named = bool(colon) and unit in TICKS_PER_S
    fields = _names(context)
    columns = Columns(
        user=user,
        item=item,
        time=time_column if named else time,
        time_unit=unit if named else None,
        label=label,
        id=id_,
        context=fields,
        split=tuple(_split(text, fields) for text in split),
        text=_among(text, fields, "--text"),
        number=_among(number, fields, "--number"),
        base_score=base_score,
        keep_null_words=keep_null_words,
    )
    try:
        events = Events(table, columns, feedback_delay_ms=feedback_delay_ms, configuration=loaded.configuration)
        for note in events.notes:
            click.echo(printable(f"{table}: {note}"), err=True)
        with LogWriter(out, inputs=[table]) as log:
            for block in events.blocks():
                log.write(block)
    except (TableError, LogError) as error:
        raise Refusal(str(error)) from None
    imported = events.imported
    first, last = (datetime.fromtimestamp(ts / 1000, UTC).strftime("%Y-%m-%d %H:%M") for ts in imported[2:])
    click.echo(
        f"{imported.impressions} impressions and {imported.feedback} feedback, {first} to {last} UTC: {log.name}",
        err=True,
    )


def _names(options: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in options that take several, each once."""
    return tuple(dict.fromkeys(name.strip() for names in options for name in names.split(",") if name.strip()))


def _among(options: tuple[str, ...], fields: tuple[str, ...], option: str) -> tuple[str, ...]:
    names = _names(options)
    for name in names:
        if name not in fields:
            raise click.BadParameter(f"{name!r} is not among --context", param_hint=option)
    return names


def _split(text: str, fields: tuple[str, ...]) -> tuple[str, str]:
    name, _, separator = text.partition(":")
    if not separator:
        raise click.BadParameter(f"{text!r}: give it as COLUMN:SEPARATOR, for instance tag:,", param_hint="--split")
    if name not in fields:
        raise click.BadParameter(f"{name!r} is not among --context", param_hint="--split")
    return name, separator

"""`thalweg mapping`: suggest a mapping for the user's events, and try one."""

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal

if TYPE_CHECKING:
    from thalweg.operators.configuration import Configuration

SHOWN = 10
SHOWN_CHARACTERS = 1_000


@click.group("mapping")
def command() -> None:
    """Map the records of another system to events.

    A [mapping] in the configuration says where our fields are in foreign records. `suggest` prints one for a file, to
    be edited; `try` shows what it makes of the file.

    \b
    Example:
        thalweg mapping suggest events.jsonl > shop.toml
        thalweg mapping try events.jsonl --config shop.toml
    """


@command.command("suggest")
@click.argument("file", type=click.Path(path_type=Path))
def suggest_command(file: Path) -> None:
    """Print a [mapping] for FILE, guessed from its first 10 000 records.

    FILE is a table (CSV, Parquet, Arrow) or JSON lines. Every line has its reason, and what was left out is listed too.
    Check and edit it: names do not reveal what was shown and what was done.
    """
    from thalweg.streams.logs.errors import TableError
    from thalweg.streams.mapping.sample import paths_of, sample
    from thalweg.streams.mapping.suggest import suggest

    try:
        click.echo(printable(suggest(paths_of(sample(file))), lines=True), nl=False)
    except TableError as error:
        raise Refusal(str(error)) from None


@command.command("try")
@click.argument("file", type=click.Path(path_type=Path))
@configuration_options
def try_command(file: Path, loaded: Loaded) -> None:
    """Show ten records of FILE and what the [mapping] makes of each.

    A record that would be a dead letter is shown with its reason; one that is left alone as ignored. Ends with the
    counts over the first 10 000 records.
    """
    from thalweg.streams.logs.errors import TableError

    if not loaded.configuration.mapping.is_on:
        raise Refusal("there is no [mapping]: give one by --config (`thalweg mapping suggest` prints one)")
    try:
        tried = _tried(file, loaded.configuration)
    except TableError as error:
        raise Refusal(str(error)) from None
    counts: dict[str, int] = {}
    for number, (before, after, kind) in enumerate(tried):
        counts[kind] = counts.get(kind, 0) + 1
        if number < SHOWN:
            click.echo(printable(f"{_cut(before)}\n  → {_cut(after)}", lines=True))
    click.echo(", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items())), err=True)


def _tried(file: Path, configuration: "Configuration") -> list[tuple[str, str, str]]:
    """Return the first records as they are, what becomes of each, and which kind of event or reason that is."""
    from thalweg.schemas.events import encode_event
    from thalweg.schemas.reasons import Unusable
    from thalweg.schemas.records import LogRecord
    from thalweg.streams.logs.tables import ENDINGS
    from thalweg.streams.mapping.reading import reader
    from thalweg.streams.mapping.sample import RECORDS, sample

    read = reader(configuration, "line", 0)
    assert read is not None
    found: list[tuple[str, str, str]] = []
    records: Any
    if file.name.lower().endswith(ENDINGS):
        records = (msgspec.json.encode(row) for row in sample(file))
    else:
        records = _values(file)
    for number, value in enumerate(islice(records, RECORDS)):
        before = value.decode(errors="backslashreplace")
        try:
            event = read(LogRecord(number, value))
        except Unusable as unusable:
            found.append((before, f"dead letter: {unusable}", f"dead letters ({unusable.reason.value})"))
            continue
        if event is None:
            found.append((before, "ignored", "ignored"))
        else:
            found.append((before, encode_event(event).decode(), type(event).__name__.lower()))
    return found


def _values(file: Path) -> Any:
    from contextlib import closing

    from thalweg.streams.logs.errors import LogReadError, TableError
    from thalweg.streams.logs.reader import LogReader

    try:
        with closing(LogReader(file, block_lines=1_000)) as log:
            for block in log:
                for record in block:
                    yield record.value or b""
    except LogReadError as error:
        raise TableError(str(error)) from None


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"

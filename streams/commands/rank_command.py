"""`thalweg rank`: a user's candidates, ranked by a worker or from a checkpoint."""

import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text
from thalweg.schemas.outputs import Answer, decode_answer
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.printable import printable
from thalweg.streams.refusal import Refusal

CANDIDATES_BYTES_MAX = 1 << 24
_decode_context = msgspec.json.Decoder(dict[str, Any]).decode


@click.command("rank")
@click.option("--user", required=True, metavar="U", help="Whom to rank for.")
@click.option(
    "--candidates",
    required=True,
    metavar="F",
    help="Items, one a line, or JSON objects with an item and its context; - for stdin.",
)
@click.option("--url", metavar="URL", help="Worker to ask.  [default: that of http.host and http.port]")
@click.option("--checkpoint", metavar="DIR", help="Ask the newest checkpoint in this folder or URL, without a worker.")
@click.option("--context", metavar="JSON", default="{}", help="Context that all candidates share.")
@click.option("--ts", type=click.IntRange(0), metavar="MS", help="When, for `hour_of_day` alone.  [default: now]")
@click.option("--top", type=click.IntRange(1, (1 << 31) - 1), metavar="K", help="Answer with so many.  [default: all]")
@click.option("--drop-seen", is_flag=True, help="Leave out what the user acted on lately.")
@click.option("--explain", is_flag=True, help="Add the parts of each score.")
@click.option("--json", "as_json", is_flag=True, help="The answer as one JSON object to stdout.")
@configuration_options
def command(
    user: str,
    candidates: str,
    url: str | None,
    checkpoint: str | None,
    context: str,
    ts: int | None,
    top: int | None,
    drop_seen: bool,
    explain: bool,
    as_json: bool,
    loaded: Loaded,
) -> None:
    """Rank a user's candidates, as of the last event.

    A worker answers from live state, whichever of its group has the user. With --checkpoint the partition's newest
    checkpoint answers instead.

    \b
    Example:
        thalweg rank --user u1 --candidates items.txt --top 10
        thalweg rank --user u1 --candidates items.txt --checkpoint thalweg-checkpoints
    """
    if url is not None and checkpoint is not None:
        raise click.UsageError("--url and --checkpoint exclude each other")
    if checkpoint == "":
        raise click.UsageError("--checkpoint is empty: name a folder or a URL")
    body: dict[str, Any] = {"user": user, "candidates": read_candidates(candidates), "context": read_context(context)}
    body |= {"explain": explain, "seen": "drop" if drop_seen else "keep"} | ({} if top is None else {"top": top})
    body |= {} if ts is None else {"ts": ts}
    raw = msgspec.json.encode(body)
    answer = from_worker(loaded, url, raw) if checkpoint is None else from_checkpoint(loaded, checkpoint, raw)
    if as_json:
        click.echo(printable(answer.decode()))
        return
    print_answer(decode_answer(answer), explain=explain)


def read_candidates(path: str) -> list[Any]:
    """Return the candidates of a file. Raises Refusal where it can't be read, or has none."""
    try:
        if path == STANDARD_STREAM:
            raw = sys.stdin.buffer.read(CANDIDATES_BYTES_MAX + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(CANDIDATES_BYTES_MAX + 1)
    except OSError as error:
        raise Refusal(f"{printable(path)} can't be read: {error.strerror}") from None
    if len(raw) > CANDIDATES_BYTES_MAX:
        raise Refusal(f"{printable(path)} has more than {CANDIDATES_BYTES_MAX} bytes: give fewer candidates")
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise Refusal(f"{printable(path)} is not UTF-8 text (byte {error.start})") from None
    found = [candidate_of(number, line) for number, line in enumerate(lines, 1) if line]
    if not found:
        raise Refusal(f"{printable(path)} has no candidates: write an item a line")
    return found


def candidate_of(number: int, line: str) -> Any:
    """Return a line's candidate: JSON where it begins so, else an item."""
    if not line.startswith(("{", '"')):
        return line
    try:
        return msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise Refusal(f"line {number} of the candidates is not JSON: {printable(str(error))}") from None


def read_context(text: str) -> dict[str, Any]:
    """Return the context of `--context`. Raises Refusal where it is none."""
    try:
        return _decode_context(text)
    except msgspec.MsgspecError as error:
        raise Refusal(f"--context is not a JSON object: {printable(str(error))}") from None


def from_worker(loaded: Loaded, url: str | None, body: bytes) -> bytes:
    """Return a worker's answer. Raises Refusal where there is none."""
    from thalweg.streams.client import Client, WorkerError
    from thalweg.streams.serving.security import token_of, url_of

    section = loaded.http
    token = token_of(section) if section.token_file else ""
    asked = url or url_of(section, section.port)
    try:
        return Client(asked, token=token, timeout_s=section.timeout_ms / 1000).ask("POST", "/rank", body)
    except ValueError as error:
        raise Refusal(printable(str(error))) from None
    except WorkerError as error:
        advice = "" if error.status else ": start a worker, name one with --url, or ask a checkpoint with --checkpoint"
        raise Refusal(f"{printable(asked)}: {error.detail}{advice}") from None


def from_checkpoint(loaded: Loaded, directory: str, body: bytes) -> bytes:
    """Return the answer of the newest checkpoint that has the user. Raises Refusal where there is none."""
    from thalweg.schemas.reasons import Unusable
    from thalweg.streams.partition.questions import request_of
    from thalweg.streams.partition.readiness import make_ready
    from thalweg.streams.worker.restored import restored_partition

    section = msgspec.structs.replace(loaded.checkpoint, directory=directory)
    try:
        request, record = request_of(body, loaded.configuration, time.time_ns() // 1_000_000)
        partition = restored_partition(loaded, section, request.user)
        make_ready(partition, Console(stderr=True))
        return partition.answer(record)
    except Unusable as unusable:
        raise Refusal(f"no such request can be answered ({unusable.reason.value}): {unusable.detail}") from None


def print_answer(answer: Answer, *, explain: bool) -> None:
    """Print an answer as a table to stderr, and what was refused below it."""
    parts = sorted({name for item in answer.items for name in item.parts or {}})
    # Without a box all numbers fit 80 columns; only an item that is long is folded.
    title = Text(f"{printable(answer.user)} as of offset {answer.offset}")
    table = Table("", title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1))
    table.add_column("item", overflow="fold")
    for name in ("score", *(("model", "correction", *parts) if explain else ())):
        table.add_column(name, justify="right", no_wrap=True, min_width=len(name))
    for place, item in enumerate(answer.items, 1):
        cells = [str(place), printable(item.item), f"{item.score:.6f}"]
        if explain:
            cells += [f"{item.model_score:.6f}", f"{item.correction:+.6f}"]
            cells += [f"{(item.parts or {})[name]:+.3f}" for name in parts]
        table.add_row(*map(Text, cells))
    Console(stderr=True).print(table)
    for refused in answer.refused:
        click.echo(f"candidate {refused.candidate} ({refused.reason}): {printable(refused.detail)}", err=True)

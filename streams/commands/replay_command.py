"""`thalweg replay`: a log file through the fold."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from thalweg.streams.commands.ranges import OFFSET, PARTITION
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.kafka.topic_names import topic_option
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.logs.errors import LogError, LogReadError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter, refuse_output
from thalweg.streams.refusal import Refusal

BATCH_EVENTS = 1_000


@click.command("replay")
@click.argument("logs", metavar="LOG...", nargs=-1, required=True)
@click.option(
    "--out", metavar="F", help="Scores: .jsonl, .jsonl.gz, .jsonl.zst, - for stdout.  [default: LOG.scores.jsonl]"
)
@click.option("--examples", metavar="F", help="Impressions with their outcome and features, the same kinds of file.")
@click.option("--dead-letters", metavar="F", help="Records that could not be used, with reason and raw bytes (base64).")
@click.option("--rankings", metavar="F", help="Answers to requests, the same kinds of file.")
@click.option(
    "--merge-every",
    type=click.IntRange(1),
    metavar="N",
    help="Of several logs: each is a partition, and they teach each other every N events of all logs.",
)
@click.option(
    "--lessons",
    multiple=True,
    metavar="F",
    help="Lessons that the log's `merge` events name, or the state that the first names; may be given repeatedly.",
)
@click.option("--lessons-out", metavar="F", help="What the partition teaches others, as the topic has it.")
@click.option("--truth", metavar="F", help="True probabilities of `thalweg generate --truth`: report the regret.")
@click.option("--summary", "summary_path", metavar="F.json", help="The table at the end as JSON.")
@click.option("--report", metavar="F.html", help="A page with the table and plots over stream time (needs matplotlib).")
@click.option(
    "--checkpoint",
    metavar="DIR",
    help="Resume from the newest checkpoint in this folder or URL, and leave one; a worker resumes from it too.",
)
@click.option("--batch-size", type=click.IntRange(1, 1_000_000), default=BATCH_EVENTS, show_default=True, metavar="N")
@click.option("--until-end-of-windows", is_flag=True, help="Close all windows at the end, and count their labels.")
@click.option(
    "--strict", is_flag=True, help="End with status 1 if the table has a warning; outputs are written all the same."
)
@click.option(
    "--topic", metavar="T", callback=topic_option, help="Topic of the origins.  [default: topics.interactions]"
)
@click.option(
    "--partition",
    type=PARTITION,
    default=0,
    show_default=True,
    metavar="P",
    help="Its partition.",
)
@click.option("--first-offset", type=OFFSET, default=0, show_default=True, metavar="N", help="Of line 0.")
@configuration_options
def command(
    logs: tuple[str, ...],
    out: str | None,
    examples: str | None,
    dead_letters: str | None,
    rankings: str | None,
    merge_every: int | None,
    lessons: tuple[str, ...],
    lessons_out: str | None,
    truth: str | None,
    summary_path: str | None,
    report: str | None,
    checkpoint: str | None,
    batch_size: int,
    until_end_of_windows: bool,
    strict: bool,
    topic: str | None,
    partition: int,
    first_offset: int,
    loaded: Loaded,
) -> None:
    """Run a log file through the fold and write its scores.

    LOG is `.jsonl`, `.jsonl.gz` or `.jsonl.zst`, or `-` for stdin (scores then go to stdout). Progress and the table at
    the end go to stderr. With --checkpoint, records that a checkpoint has seen are skipped, and outputs that are in
    their files already are not written again.

    Several logs are partitions 0, 1, 2, ... of one model: give --merge-every N. A file of outputs then has {partition}
    in its name, which stands for the number.

    \b
    Example:
      thalweg replay examples/kuairand/kuairand_sample.jsonl.gz --config examples/kuairand/thalweg.toml
    """
    if len(logs) > 1 or merge_every is not None:
        from thalweg.streams.commands.replay_partitions import Wanted, replay_partitions

        given = {"--checkpoint": checkpoint, "--truth": truth, "--report": report, "--partition": partition or None}
        given |= {"--first-offset": first_offset or None, "--lessons": "given" if lessons else None}
        wanted = Wanted(out, examples, dead_letters, rankings, lessons_out, summary_path)
        replay_partitions(logs, merge_every, wanted, given, batch_size, until_end_of_windows, topic, loaded)
        return
    (log,) = logs
    from thalweg.streams.checkpoints.folders import store_at
    from thalweg.streams.checkpoints.format import CheckpointError
    from thalweg.streams.checkpoints.objects import is_remote
    from thalweg.streams.partition.readiness import make_ready
    from thalweg.streams.partition.seal import seal_of
    from thalweg.streams.replay.regret import Truth
    from thalweg.streams.replay.replay import CHECKPOINT_EVENTS, Replay, Sinks
    from thalweg.streams.replay.report import require_matplotlib, write_report
    from thalweg.streams.replay.summary import print_table
    from thalweg.streams.replay.taught import taught_in

    out = out or (STANDARD_STREAM if log == STANDARD_STREAM else f"{log}.scores.jsonl")
    paths = [out, examples, dead_letters, rankings]
    refuse_same([path for path in (*paths, lessons_out, summary_path, report) if path])
    topic = topic or loaded.topics.interactions
    console = Console(stderr=True)
    try:
        if report is not None:
            require_matplotlib()
        inputs = [log, *lessons, *([truth] if truth else [])]
        for path in (summary_path, report):
            refuse_output(path, inputs)
        with ExitStack() as files:
            # Several batches at a time: one is folded while the next is read.
            reader = files.enter_context(
                closing(LogReader(log, block_lines=16 * batch_size, first_offset=first_offset))
            )
            store = seal = None
            if checkpoint is not None:
                if not checkpoint:
                    raise click.UsageError("--checkpoint is empty: name a folder, or leave it out")
                if not is_remote(checkpoint):
                    refuse_inner_folder(Path(checkpoint))
                seal = seal_of(loaded)
                section = msgspec.structs.replace(loaded.checkpoint, directory=checkpoint, generation=0)
                store = store_at(section, topic, partition, on_damage=partial(click.echo, err=True))
            replay = Replay(
                loaded.configuration,
                topic=topic,
                partition=partition,
                store=store,
                examples=examples is not None,
                block_events=batch_size,
                seal=seal,
                lessons=taught_in(lessons) if lessons or lessons_out else None,
            )
            if truth is not None:
                replay.truth = files.enter_context(Truth(truth))
            replay.refuse_gap(first_offset)
            make_ready(replay.partition, console)
            sinks = Sinks.opened(paths, lessons_out, inputs=inputs, goes_on=replay.goes_on)
            damage = None
            with closing(sinks):
                try:
                    with following(console, log, reader) as advance:
                        replay.run(reader, sinks, checkpoint_events=CHECKPOINT_EVENTS, on_block=advance)
                except LogReadError as error:
                    if not replay.events:
                        raise
                    damage = error
                if until_end_of_windows and damage is None:
                    replay.close_windows(sinks)
        summary = replay.summary(letters=where_letters_are(dead_letters))
        print_table(summary, replay.tally, console)
        if summary_path is not None:
            write_summary(summary_path, summary.to_json())
        if report is not None:
            write_report(report, f"Replay of {Path(log).name}", summary, replay.tally)
    except (LogError, CheckpointError) as error:
        raise Refusal(str(error)) from None
    if damage is not None:
        raise Refusal(str(damage))
    if strict and summary.warnings:
        raise Refusal(f"--strict: the table has {len(summary.warnings)} of these warnings, the outputs are written")


def where_letters_are(dead_letters: str | None) -> str:
    """Return where the dead letters of this run can be seen."""
    if dead_letters is None:
        return "--dead-letters F.jsonl writes them with reason and bytes"
    return f"they are in {'stdout' if dead_letters == STANDARD_STREAM else dead_letters}"


def refuse_same(paths: list[str]) -> None:
    """Raise UsageError where two outputs go to one place."""
    for number, path in enumerate(paths):
        for other in paths[:number]:
            if path == other or (
                STANDARD_STREAM not in (path, other) and Path(path).resolve() == Path(other).resolve()
            ):
                raise click.UsageError(f"two outputs go to {path}: give each its own")


def refuse_inner_folder(folder: Path) -> None:
    """Raise Refusal where a folder holds one partition's checkpoints: the one to name has a folder for each."""
    if any(folder.glob("*.checkpoint")):
        raise Refusal(f"{folder} is the folder of one partition: name the one above it, {folder.resolve().parent}")


def write_summary(path: str, text: bytes) -> None:
    """Write the summary to a file or stdout. Raises LogWriteError where that fails."""
    with LogWriter(path) as file:
        file.write(text)


@contextmanager
def following(console: Console, log: str, reader: LogReader) -> "Iterator[Progressing]":
    """Show how far a log is read, how fast, and how long it will take; nothing where there is no terminal."""
    columns = [TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}")]
    with Progress(
        *columns, TimeRemainingColumn(), transient=True, console=console, disable=not console.is_terminal
    ) as progress:
        yield Progressing(progress, log, reader)


class Progressing:
    """Moves a progress bar on by the bytes read."""

    def __init__(self, progress: Progress, log: str, reader: LogReader) -> None:
        """Add the bar of one log."""
        self._progress = progress
        self._reader = reader
        self._task = progress.add_task(Path(log).name, total=reader.bytes_total, rate="")

    def __call__(self, events: int) -> None:
        """Show that so many events are folded."""
        elapsed = self._progress.tasks[0].elapsed
        rate = f"{events:,} events, {events / elapsed:,.0f}/s" if elapsed else ""
        self._progress.update(self._task, completed=self._reader.bytes_read, rate=rate)

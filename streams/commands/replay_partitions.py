"""`thalweg replay` of several logs: each is a partition of one model."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from thalweg.streams.configuration.loading import Loaded
from thalweg.streams.logs.compression import STANDARD_STREAM
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.writer import LogWriter, refuse_output
from thalweg.streams.partition.readiness import make_ready
from thalweg.streams.refusal import Refusal
from thalweg.streams.replay.partitions import PartitionsReplay
from thalweg.streams.replay.replay import Sinks
from thalweg.streams.replay.summary import print_table

PLACE = "{partition}"
BLOCK_LINES = 1_000


class Wanted(NamedTuple):
    """The files that are wanted, each with `{partition}` in its name; None: not wanted."""

    scores: str | None
    examples: str | None
    dead_letters: str | None
    rankings: str | None
    lessons: str | None
    summary: str | None

    def of(self, partition: int) -> "Wanted":
        """Return the files of one partition."""
        return Wanted(*(path and path.replace(PLACE, str(partition)) for path in self))


def replay_partitions(
    logs: Sequence[str],
    merge_every: int | None,
    wanted: Wanted,
    others: Mapping[str, Any],
    batch_size: int,
    until_end_of_windows: bool,
    topic: str | None,
    loaded: Loaded,
) -> None:
    """Replay logs as partitions, and print the table of each; `others` are options that need one log.

    Raises Refusal where a file can't be read or written, UsageError where options do not go together.
    """
    refuse_options(logs, merge_every, wanted, others)
    console = Console(stderr=True)
    replay = PartitionsReplay(
        loaded.configuration,
        len(logs),
        merge_every or 1,
        examples=wanted.examples is not None,
        block_events=batch_size,
        topic=topic or loaded.topics.interactions,
    )
    make_ready(replay.partitions.all[0], console)
    try:
        with ExitStack() as files:
            for number in range(len(logs)):
                refuse_output(wanted.of(number).summary, logs)
            readers = [files.enter_context(closing(LogReader(log, block_lines=BLOCK_LINES))) for log in logs]
            sinks = [files.enter_context(closing(opened(wanted.of(n), log, logs))) for n, log in enumerate(logs)]
            replay.run(readers, sinks)
            if until_end_of_windows:
                replay.close_windows(sinks)
        letters = f"they are in {wanted.dead_letters}" if wanted.dead_letters else "--dead-letters writes them"
        summaries = replay.summaries(letters)
        for number, (log, summary) in enumerate(zip(logs, summaries, strict=True)):
            path = wanted.of(number).summary
            if path is not None:
                with LogWriter(path) as file:
                    file.write(summary.to_json())
            console.print(f"\npartition {number}: {Path(log).name}", style="bold", highlight=False)
            print_table(summary, replay.tallies[number], console)
    except LogError as error:
        raise Refusal(str(error)) from None
    whole = replay.quality()
    if whole.auc is not None and whole.log_loss is not None:
        told = f"AUC {whole.auc:.5f}, log loss {whole.log_loss:.5f}"
        console.print(f"\nall {len(logs)} partitions, merged every {merge_every:,} events: {told}", highlight=False)


def refuse_options(logs: Sequence[str], merge_every: int | None, wanted: Wanted, others: Mapping[str, Any]) -> None:
    """Raise UsageError where the options do not go together."""
    if merge_every is None:
        raise click.UsageError("several logs are partitions of one model: give --merge-every N")
    if STANDARD_STREAM in logs:
        raise click.UsageError("with --merge-every, each log is a file, not standard input")
    if twice := [log for log in logs if logs.count(log) > 1]:
        raise click.UsageError(f"{twice[0]} is named twice: with --merge-every, each log is another partition")
    for option, given in others.items():
        if given:
            raise click.UsageError(f"{option} needs one log without --merge-every")
    for path in wanted:
        if path is not None and PLACE not in path:
            raise click.UsageError(f"{path} would get what several partitions made: put {PLACE} into its name")


def opened(wanted: Wanted, log: str, logs: Sequence[str]) -> Sinks:
    """Return the files of one partition, opened. Raises LogWriteError where one can't be."""
    scores = wanted.scores or f"{log}.scores.jsonl"
    paths = (scores, wanted.examples, wanted.dead_letters, wanted.rankings)
    return Sinks.opened(paths, wanted.lessons, inputs=logs)

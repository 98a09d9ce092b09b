"""`thalweg generate`: a made-up log whose true probabilities are known."""

from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
from thalweg.streams.logs.errors import LogError
from thalweg.streams.logs.generate import CANDIDATES_MAX, DRIFTS, FIRST_MS, RANKS_MAX, GenerateError, Generator, Stream
from thalweg.streams.logs.writer import LogWriter
from thalweg.streams.refusal import Refusal

SHARE = click.FloatRange(0, 1)


@click.command("generate")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="S", help="Same seed, same log.")
@click.option("--users", type=click.IntRange(1, 100_000_000), default=1_000, show_default=True, metavar="N")
@click.option("--items", type=click.IntRange(1, 10_000_000), default=1_000, show_default=True, metavar="N")
@click.option(
    "--events",
    "impressions",
    type=click.IntRange(1, 1_000_000_000),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Impressions; their clicks come on top.",
)
@click.option("--interval-ms", type=click.IntRange(0), default=1_000, show_default=True, metavar="MS", help="Mean.")
@click.option("--zipf", type=click.FloatRange(0, 4), default=1.0, show_default=True, help="Exponent of popularity.")
@click.option("--drift", type=click.Choice(DRIFTS), default="none", show_default=True, help="How tastes change.")
@click.option("--drift-at", type=SHARE, default=0.5, show_default=True, help="After which share of the impressions.")
@click.option("--drift-length", type=SHARE, default=0.2, show_default=True, help="Over which share, if gradual.")
@click.option("--new-items-per-hour", type=click.FloatRange(0), default=0, show_default=True, metavar="N")
@click.option(
    "--feedback-delay-ms",
    type=click.IntRange(0),
    default=30_000,
    show_default=True,
    metavar="MS",
    help="Mean time from an impression to its click.",
)
@click.option("--missing-feedback", type=SHARE, default=0, show_default=True, help="Share of clicks never sent.")
@click.option(
    "--candidates",
    type=click.IntRange(0, CANDIDATES_MAX),
    default=0,
    show_default=True,
    metavar="N",
    help="Items of a request before each impression, of which one is shown; 0: no requests.",
)
@click.option(
    "--rank",
    type=click.IntRange(0, RANKS_MAX),
    default=0,
    show_default=True,
    metavar="R",
    help="Rank of dense tastes without groups and context; 0: tastes near those of segments and genres.",
)
@click.option("--out", required=True, metavar="LOG", help="Log to write: .jsonl, .jsonl.gz, .jsonl.zst, - for stdout.")
@click.option("--truth", metavar="FILE", help="The true probability of each impression, the same kinds of file.")
def command(
    seed: int,
    users: int,
    items: int,
    impressions: int,
    interval_ms: int,
    zipf: float,
    drift: str,
    drift_at: float,
    drift_length: float,
    new_items_per_hour: float,
    feedback_delay_ms: int,
    missing_feedback: float,
    candidates: int,
    rank: int,
    out: str,
    truth: str | None,
) -> None:
    """Make a log of impressions and clicks whose true probabilities are known.

    Users have tastes near their segment's, items a genre, an appeal and a popularity; a drift gives segments and users
    other tastes. With --candidates, a request with that many items goes before each impression. The one shown is drawn
    from them, all alike, and the impression carries that probability. With --rank, tastes are dense and of that rank,
    as in logs of ratings: nothing but user and item is known. Delays of clicks are exponential. The truth is
    one JSON object a line, {"impression": id, "probability": p}, in the order of the impressions. The same options give
    the same bytes on every machine.

    \b
    Example:
      thalweg generate --seed 7 --events 200000 --drift sudden --out drift.jsonl.zst --truth truth.jsonl.zst
    """
    if truth is not None and Path(truth).resolve() == Path(out).resolve():
        raise Refusal(f"--out and --truth are both {out}: name two files")
    try:
        stream = Stream(
            seed=seed,
            users=users,
            items=items,
            impressions=impressions,
            interval_ms=interval_ms,
            zipf=zipf,
            drift=drift,
            drift_at=drift_at,
            drift_length=drift_length,
            new_items_per_hour=new_items_per_hour,
            feedback_delay_ms=feedback_delay_ms,
            missing_feedback=missing_feedback,
            candidates=candidates,
            rank=rank,
        )
        generator = Generator(stream)
        with ExitStack() as files:
            log = files.enter_context(LogWriter(out))
            side = None if truth is None else files.enter_context(LogWriter(truth))
            for lines, probabilities in generator.blocks():
                log.write(lines)
                if side is not None:
                    side.write(probabilities)
    except (GenerateError, LogError) as error:
        raise Refusal(str(error)) from None
    end = datetime.fromtimestamp(generator.last_ms / 1000, UTC)
    begin = datetime.fromtimestamp(FIRST_MS / 1000, UTC)
    click.echo(
        f"{generator.impressions} impressions and {generator.feedback} clicks ({generator.missing} more are missing), "
        f"{begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC: {log.name}",
        err=True,
    )

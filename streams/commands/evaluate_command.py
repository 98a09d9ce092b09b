"""`thalweg evaluate`: what another policy would have earned on a log."""

import tomllib
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from thalweg.streams.configuration.loading import Loaded, configuration_options
from thalweg.streams.refusal import Refusal

if TYPE_CHECKING:
    from thalweg.operators.policies import RankingConfiguration
    from thalweg.streams.evaluation.estimators import Estimates

BATCH_EVENTS = 1_000


@click.command("evaluate")
@click.argument("log", metavar="LOG")
@click.option("--policy", required=True, metavar="F.toml", help="The policy in question: a file with [ranking] alone.")
@click.option("--summary", "summary_path", metavar="F.json", help="The table at the end as JSON; - for stdout.")
@click.option(
    "--samples", type=click.IntRange(100, 100_000), default=1_000, show_default=True, help="Of the bootstrap."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option(
    "--unanswered",
    type=click.IntRange(1, 1_000_000),
    default=10_000,
    show_default=True,
    metavar="N",
    help="Requests kept at most until the impression of their first place comes.",
)
@click.option("--until-end-of-windows", is_flag=True, help="Close all windows at the end, and count their labels.")
@configuration_options
def command(
    log: str,
    policy: str,
    summary_path: str | None,
    samples: int,
    seed: int,
    unanswered: int,
    until_end_of_windows: bool,
    loaded: Loaded,
) -> None:
    """Estimate what another policy would have earned a request, from a log that a policy with propensities made.

    LOG has requests, and impressions that name theirs: `request`, `position` 1 and `propensity`. The fold replays it
    and ranks each request under the policy of F.toml. IPS, SNIPS and DR have a 95% bootstrap interval each. Below an
    effective sample size of 100 nothing is estimated. The table goes to stderr.

    \b
    Example:
      thalweg evaluate shown.jsonl.zst --policy thompson.toml --config thalweg.toml
    """
    from thalweg.streams.evaluation.estimators import EvaluationError, estimate
    from thalweg.streams.evaluation.logged import decisions_of
    from thalweg.streams.logs.errors import LogError
    from thalweg.streams.logs.reader import LogReader
    from thalweg.streams.logs.writer import LogWriter, refuse_output

    target = policy_of(policy)
    try:
        refuse_output(summary_path, [log, policy])
        with closing(LogReader(log, block_lines=BATCH_EVENTS)) as reader:
            decisions, logged = decisions_of(
                reader, loaded.configuration, target, unanswered_max=unanswered, closes_windows=until_end_of_windows
            )
        found = estimate(decisions, samples=samples, seed=seed)
        print_estimates(found, logged.requests, dict(logged.passed_over))
        if summary_path is not None:
            with LogWriter(summary_path) as file:
                whole = {"requests": logged.requests, "passed_over": logged.passed_over, **_as_dict(found)}
                file.write(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
    except (EvaluationError, LogError) as error:
        raise Refusal(str(error)) from None


def policy_of(path: str) -> "RankingConfiguration":
    """Return the policy of a file. Raises Refusal where it has anything but `[ranking]`."""
    from thalweg.streams.configuration.loading import ConfigurationError, load

    try:
        sections = set(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        found = load(Path(path), environment={}, flags=[]).configuration.ranking
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Refusal(f"{path} is no policy: {getattr(error, 'strerror', None) or error}") from None
    except ConfigurationError as error:
        raise Refusal(str(error)) from None
    if sections != {"ranking"}:
        raise Refusal(f"{path} must have the section [ranking] and no other: give the fold's by --config")
    return found


def print_estimates(found: "Estimates", requests: int, passed_over: dict[str, int]) -> None:
    """Print the estimates as people read them."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    table.add_row("requests", f"{requests:,}", "")
    table.add_row("decisions", f"{found.decisions:,}", "impressions in the first place, outcome known")
    for reason, count in passed_over.items():
        if count:
            table.add_row("  passed over", f"{count:,}", reason)
    table.add_row("effective sample", f"{found.effective_sample_size:,.1f}", "what they are worth under the policy")
    notes = ("as it was shown", "inverse propensity scores", "self-normalised", "doubly robust, with the fold's scores")
    for name, estimate, note in zip(("logged", "IPS", "SNIPS", "DR"), found[2:], notes, strict=True):
        table.add_row(name, f"{estimate.value:.5f}", f"{estimate.low:.5f} to {estimate.high:.5f}, {note}")
    Console(stderr=True).print(table)


def _as_dict(found: "Estimates") -> dict[str, object]:
    plain = found._asdict()
    return {name: value._asdict() if hasattr(value, "_asdict") else value for name, value in plain.items()}

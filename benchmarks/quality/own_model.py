"""Somebody else's model, frozen after the first half of a log and corrected over the second (`examples/own_model`)."""

import sys

from benchmarks.quality.tables import Options, number
from benchmarks.real_logs import RealLog
from examples.own_model.own_model import MODELS, Outcome, corrected, halves, read_events, trained, with_base_scores

HEADER = "| model | frozen | corrected | Thalweg's own, from nothing |\n|---|---|---|---|"
NAMES = {"river": "River, logistic regression (AdaGrad .1)", "vw": "Vowpal Wabbit, its defaults"}


def tables(options: Options) -> str:
    """Return a table for each log: AUC / logloss over the impressions of its second half."""
    return "\n".join(line for log in options.logs() for line in on(log))


def on(log: RealLog) -> list[str]:
    """Return the table of one log."""
    first, second = halves(read_events(str(log.path)))
    rows = []
    for name, model in MODELS.items():
        scored = with_base_scores(trained(model(), first), second)
        rows.append(row(NAMES[name], corrected(scored, log.config)))
    return [f"### {log.name}, second half, `correction.base=base_score`", "", HEADER, *rows, ""]


def row(name: str, outcome: Outcome) -> str:
    """Return a line of the table, told to standard error as well."""
    cells = [f"{number(quality.auc or 0.0)} / {number(quality.log_loss or 0.0)}" for quality in outcome]
    text = f"| {name} | {' | '.join(cells)} |"
    print(text, file=sys.stderr)
    return text

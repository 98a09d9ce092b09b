"""Made-up streams with and without a sudden drift: what the error memory does there.

Regret is the mean of the logloss that is to be expected under the true probability, less what that itself would have.
"""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from thalweg.streams.logs.generate import Stream

from benchmarks.generated import made, regrets_of, scores_of
from benchmarks.quality.replays import Array
from benchmarks.quality.tables import PLOTS, Options, number, said, told

SEED, IMPRESSIONS, USERS, ITEMS = 7, 300_000, 300, 300
BIN = 2_500
FLAGS: dict[str, list[str]] = {"with the memory": [], "without": ["correction.lambda_max=0"]}
HEADER = "| | regret before | at its worst | impressions until 90% are regained | regret, all |\n|---|---|---|---|---|"


def tables(options: Options) -> str:
    """Return a table of a stationary stream and one of a sudden drift, and draw the latter."""
    del options
    size = f"{IMPRESSIONS:,} impressions, {USERS} users, {ITEMS} items, seed {SEED}"
    out = [f"### Stationary, {size}", "", "| | regret, all |", "|---|---|"]
    for name, flags in FLAGS.items():
        out.append(told(f"{name} {said(flags)} | {number(float(regrets('none', flags).mean()), 5)}"))
    out += ["", f"### Sudden drift after half of them, {size}", "", HEADER]
    drawn = {name: regrets("sudden", flags) for name, flags in FLAGS.items()}
    for name, found in drawn.items():
        out.append(told(f"{name} {said(FLAGS[name])} | {recovery(found)}"))
    draw(drawn)
    return "\n".join([*out, "", "![Regret around a sudden drift](plots/drift.svg)"])


def regrets(drift: str, flags: Sequence[str]) -> Array:
    """Return the regret of each impression of a stream."""
    stream = Stream(seed=SEED, users=USERS, items=ITEMS, impressions=IMPRESSIONS, drift=drift)
    log = made(stream)
    return regrets_of(log.truths, scores_of(log, flags))


def recovery(found: Array) -> str:
    """Return the cells of a line: what was lost at the drift, and how soon nine tenths of it are regained."""
    bins = found.reshape(-1, BIN).mean(axis=1)
    middle = len(bins) // 2
    before = float(bins[middle - 10 : middle].mean())
    worst = float(bins[middle : middle + 4].max())
    regained = np.flatnonzero(bins[middle:] <= before + 0.1 * (worst - before))
    after = f"{BIN * (int(regained[0]) + 1):,}" if len(regained) else "not within the log"
    return f"{number(before, 5)} | {number(worst, 5)} | {after} | {number(float(found.mean()), 5)}"


def draw(drawn: dict[str, Array]) -> None:
    """Draw the regret of each contestant, bin by bin."""
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "thalweg"
    figure, axes = plt.subplots(figsize=(8, 4))
    for name, found in drawn.items():
        bins = found.reshape(-1, BIN).mean(axis=1)
        axes.plot(np.arange(1, len(bins) + 1) * BIN, bins, label=name)
    axes.set_xlabel("impressions")
    axes.set_ylabel(f"regret, mean of {BIN:,}")
    axes.set_ylim(bottom=0)
    axes.legend()
    PLOTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOTS / "drift.svg", metadata={"Date": None})
    plt.close(figure)

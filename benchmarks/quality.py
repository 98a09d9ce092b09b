"""How good the scores are: Thalweg and Vowpal Wabbit over the same logs, and Thalweg with parts switched off.

    python -m benchmarks.quality [--data FOLDER] [--log KuaiRand] [--only peers|settings|delays]

Every impression is scored when it arrives, and the score counts as it was given. Vowpal Wabbit learns from Thalweg's
`examples`, in the order in which they come out: an example whose cause is the event at offset c is learned before the
impression at offset c is scored. Figures are exact and repeat bit for bit; nothing here is timed.
"""

import argparse
import gc
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score
from vowpalwabbit import Workspace

from benchmarks.real_logs import DATA, GLOBO_CLICKS, RealLog, real_logs
from benchmarks.vowpal_wabbit import CONFIGURATIONS, FIXED, Lines
from schemas.events import Event, Impression
from schemas.origin import parse_cause
from schemas.outputs import Example
from schemas.records import LogRecord, Output
from streams.partition import Partition
from streams.tally import Tally

BLOCK = 10_000
OFF = "1e12"  # pseudo-exposures beside which nothing that is counted shows

SETTINGS: list[tuple[str, list[str]]] = [
    ("the defaults", []),
    ("without the error memory's correction", ["correction.lambda_max=0"]),
    ("without recent items", ["learner.recent_items=0"]),
    ("without sequences: no interests, no recent items", ["behaviors.kinds=[]"]),
    ("without rates and residuals", [f"learner.rate_prior={OFF}"]),
    ("without residuals", ["learner.residual_half_life_ms=1"]),
    ("without latent vectors to speak of", ["learner.latent_size=1"]),
    ("short sequences of 8, longer ones in SDIM", ["behaviors.short_length=8"]),
    ("skipped items as a second sequence", ['behaviors.kinds=["acted","skipped"]']),
    ("rows after 2 sightings", ["table.occurrence_threshold=2"]),
    ("rows after 5 sightings", ["table.occurrence_threshold=5"]),
    ("half of the negatives learned", ["joiner.negative_sample_rate=0.5"]),
]
WINDOWS = [
    ("10 minutes", ["joiner.attribution_window_ms=600000"]),
    ("1 hour", ["joiner.attribution_window_ms=3600000"]),
    ("1 day", ["joiner.attribution_window_ms=86400000", "joiner.waiting_limit=2000000"]),
]
DELAYS = [("1 second", 1_000), ("1 minute", 60_000), ("10 minutes", 599_000)]

Array = npt.NDArray[Any]
Moment = tuple[str, int]
"""A user and a time: what is shown to one user at one time is one page."""


class Figures(NamedTuple):
    """Quality over all impressions, and over the first that each user was shown at a time."""

    auc: float
    log_loss: float
    first_auc: float
    first_log_loss: float
    calibration: float


class Run(NamedTuple):
    """What a replay gave: figures, each impression's label by id, and the examples (id, cause offset, label)."""

    figures: Figures
    examples: list[tuple[str, int, int]]
    lines: dict[str, str]


class _Scored(msgspec.Struct, gc=False):
    id: str
    user: str
    ts: int
    score: float


_scored = msgspec.json.Decoder(_Scored).decode
_example = msgspec.json.Decoder(Example).decode
_event = msgspec.json.Decoder(Event).decode


def figures(labels: Array, scores: Array, moments: Sequence[Moment]) -> Figures:
    """Return the figures of scores in the order of the log."""
    first = np.array([True, *(one != other for one, other in pairwise(moments))])
    return Figures(
        float(roc_auc_score(labels, scores)),
        float(log_loss(labels, scores)),
        float(roc_auc_score(labels[first], scores[first])),
        float(log_loss(labels[first], scores[first])),
        float(scores.mean() / labels.mean()),
    )


def replayed(log: RealLog, records: Sequence[LogRecord], flags: Sequence[str] = (), *, keep: bool = False) -> Run:
    """Replay a log to the end of its windows; with `keep`, keep what a peer learns from."""
    configuration = log.configuration(*flags)
    lines = Lines(configuration)
    partition = Partition(configuration, block_events=BLOCK, tally=Tally())
    ids: list[str] = []
    scores: list[float] = []
    moments: list[Moment] = []
    labels: dict[str, int] = {}
    examples: list[tuple[str, int, int]] = []
    seen: dict[str, str] = {}

    def take(outputs: Iterable[Output]) -> None:
        for output in outputs:
            example = _example(output.value or b"")
            if example.revision:
                continue
            labels[example.id] = example.label
            if keep:
                context = {name: value for name, value in example.features.items() if name in _fields(partition)}
                seen[example.id] = lines.line(example.user, example.item, example.ts, context)
                examples.append((example.id, parse_cause(example.cause)[1].offset, example.label))

    for first in range(0, len(records), BLOCK):
        outputs = partition.process(records[first : first + BLOCK])
        for output in outputs.scores:
            scored = _scored(output.value or b"")
            ids.append(scored.id)
            scores.append(scored.score)
            moments.append((scored.user, scored.ts))
        take(outputs.examples)
    take(partition.close_all().examples)
    found = np.array([labels[one] for one in ids])  # KeyError: closed unlearned, joiner.waiting_limit is too low
    return Run(figures(found, np.array(scores), moments), examples, seen)


def _fields(partition: Partition) -> set[str]:
    return set(partition._names) - {"user", "item"}


def vowpal_wabbit(log: RealLog, records: Sequence[LogRecord], run: Run, arguments: str) -> Figures:
    """Score each impression when it arrives; learn each example before whatever follows its cause."""
    peer = Workspace(f"{FIXED} {arguments}")
    lines = Lines(log.configuration())
    label_of = {one: label for one, _, label in run.examples}
    waiting = iter(run.examples)
    due = next(waiting, None)
    scores: list[float] = []
    labels: list[int] = []
    moments: list[Moment] = []
    for record in records:
        while due is not None and due[1] <= record.offset:
            example = peer.parse(f"{2 * due[2] - 1} {run.lines[due[0]]}")
            peer.learn(example)
            peer.finish_example(example)
            due = next(waiting, None)
        event = _event(record.value or b"")
        if isinstance(event, Impression):
            line = lines.line(event.user, event.item, event.ts, event.context)
            assert line == run.lines[event.id], "the example is not what was scored"
            example = peer.parse(line)
            scores.append(peer.predict(example))
            peer.finish_example(example)
            labels.append(label_of[event.id])
            moments.append((event.user, event.ts))
    peer.finish()
    return figures(np.array(labels), np.clip(np.array(scores), 1e-7, 1 - 1e-7), moments)


def row(name: str, value: Figures) -> str:
    """Return a line of a table, told to standard error as well."""
    text = f"| {name} | {number(value.auc)} / {number(value.log_loss)} | "
    text += f"{number(value.first_auc)} / {number(value.first_log_loss)} | {value.calibration:.3f} |"
    print(text, file=sys.stderr)
    return text


def number(value: float) -> str:
    """Return a figure as tables here write it: four places, no zero before the point."""
    return f"{value:.4f}".removeprefix("0")


HEADER = "| | AUC / logloss | first of each page | calibration |\n|---|---|---|---|"


def compared(log: RealLog) -> list[str]:
    """Return Thalweg beside Vowpal Wabbit's configurations."""
    records = log.records()
    run = replayed(log, records, keep=True)
    rows = [row("**Thalweg**", run.figures)]
    for name, arguments in CONFIGURATIONS.items():
        told = f"Vowpal Wabbit, `{name}`" if arguments else "Vowpal Wabbit, default"
        rows.append(row(told, vowpal_wabbit(log, records, run, arguments)))
    return [f"### {log.name}", "", HEADER, *rows, ""]


def with_settings(log: RealLog, wanted: str) -> list[str]:
    """Return Thalweg with parts switched off or set otherwise; `wanted` is part of the settings' names."""
    records = log.records()
    rows = []
    for name, flags in ((name, flags) for name, flags in SETTINGS if wanted in name):
        told = " ".join(f"`{flag}`" for flag in flags)
        rows.append(row(f"{name} {told}".strip(), replayed(log, records, flags).figures))
        gc.collect()
    return [f"### {log.name}", "", HEADER, *rows, ""]


def with_delays(data: Path, names: Sequence[str]) -> list[str]:
    """Return Thalweg with other windows, and with feedback that comes later."""
    out: list[str] = []
    for log in chosen(real_logs(data), names):
        records = log.records()
        rows = [
            row(f"window {name} {' '.join(f'`{flag}`' for flag in flags)}", replayed(log, records, flags).figures)
            for name, flags in WINDOWS
        ]
        out += [f"### {log.name}, feedback after 1 second", "", HEADER, *rows, ""]
    for name, delay_ms in DELAYS[1:]:
        for log in chosen(real_logs(data, delay_ms), names):
            figures_of = replayed(log, log.records()).figures
            out += [row(f"{log.name}, feedback after {name}", figures_of)]
    return out


def chosen(logs: Sequence[RealLog], names: Sequence[str]) -> list[RealLog]:
    """Return the logs asked for, all where none is."""
    return [log for log in logs if not names or log.name in names]


def main() -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of kuairand14d and globo_dev")
    parser.add_argument("--log", action="append", default=[], help="KuaiRand or Globo; both by default")
    parser.add_argument("--setting", default="", help="of the settings only those with this in their name")
    parser.add_argument("--only", choices=("peers", "settings", "delays"))
    options = parser.parse_args()
    started = time.monotonic()
    logs = chosen(real_logs(options.data), options.log)
    print(f"<!-- Globo: sampled negatives, first {GLOBO_CLICKS} clicks -->")
    if options.only in (None, "peers"):
        print("## Beside Vowpal Wabbit\n", *(line for log in logs for line in compared(log)), sep="\n")
    if options.only in (None, "settings"):
        print("## Settings\n", *(line for log in logs for line in with_settings(log, options.setting)), sep="\n")
    if options.only in (None, "delays"):
        print("## Windows and delays\n", *with_delays(options.data, options.log), sep="\n")
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

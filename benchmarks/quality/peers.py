"""Thalweg beside Vowpal Wabbit's configurations.

Vowpal Wabbit learns from Thalweg's `examples`, in the order in which they come out: an example whose cause is the event
at offset c is learned before the impression at offset c is scored.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Impression
from thalweg.schemas.records import LogRecord
from vowpalwabbit import Workspace

from benchmarks.quality.replays import Array, Moment, Run, figures, replayed
from benchmarks.quality.tables import HEADER, Options, row
from benchmarks.real_logs import RealLog
from benchmarks.vowpal_wabbit import CONFIGURATIONS, FIXED, Lines


def tables(options: Options) -> str:
    """Return a table for each log."""
    return "\n".join(line for log in options.logs() for line in compared(log))


class Peer(NamedTuple):
    """What a peer gave: `labels` and `scores` [impressions] in the order of the log, and where each is on a page."""

    labels: Array
    scores: Array
    moments: list[Moment]


def vowpal_wabbit(log: RealLog, records: Sequence[LogRecord], run: Run, arguments: str) -> Peer:
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
        event = decode_plain(record.value or b"")
        if isinstance(event, Impression):
            line = lines.line(event.user, event.item, event.ts, event.context)
            assert line == run.lines[event.id], "the example is not what was scored"
            example = peer.parse(line)
            scores.append(peer.predict(example))
            peer.finish_example(example)
            labels.append(label_of[event.id])
            moments.append((event.user, event.ts))
    peer.finish()
    return Peer(np.array(labels), np.clip(np.array(scores), 1e-7, 1 - 1e-7), moments)


def compared(log: RealLog) -> list[str]:
    """Return Thalweg beside Vowpal Wabbit's configurations."""
    records = log.records()
    run = replayed(log, records, keep=True)
    rows = [row("**Thalweg**", run.figures)]
    for name, arguments in CONFIGURATIONS.items():
        told = f"Vowpal Wabbit, `{name}`" if arguments else "Vowpal Wabbit, default"
        rows.append(row(told, figures(*vowpal_wabbit(log, records, run, arguments))))
    return [f"### {log.name}", "", HEADER, *rows, ""]

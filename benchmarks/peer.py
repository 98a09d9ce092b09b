"""How fast: the fold alone, a replay and Vowpal Wabbit over KuaiRand's impressions, in one run.

    python -m benchmarks.peer [--data FOLDER] [--runs 5]

Contestants take turns; the table has the median and the spread of each.

- Vowpal Wabbit's predict + learn, one impression at a time, through its Python interface in three forms: text (its line
  is parsed twice), one parse (`parse`, then predict and learn of the same example), and parsed (the parsing outside the
  timing). Lines are made outside the timing. It learns at once and keeps nothing waiting.
- The fold alone: impressions and feedback, columns made outside the timing, window and late window as shipped.
- A replay: a plain JSONL file to a plain JSONL file of scores, in this process and as a process of its own (start
  included, machine code from the cache).

Without the table of KuaiRand the shipped sample takes its place.
"""

import argparse
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.encoder import Encoder
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import new_emitted
from thalweg.operators.fold.fold import fold
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import new_scratch, new_state, parameters_of
from thalweg.operators.machine.reference import held
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Feedback, Impression
from thalweg.schemas.records import LogRecord
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.sinks import Sink
from thalweg.streams.partition.partition import BLOCK_EVENTS, Partition
from thalweg.streams.replay.replay import Replay, Sinks
from vowpalwabbit import Workspace

from benchmarks.real_logs import DATA, ROOT, THALWEG, RealLog, kuairand
from benchmarks.vowpal_wabbit import FIXED, Lines

BLOCK = BLOCK_EVENTS
READ = 16 * BLOCK  # lines read at a time, as `thalweg replay` does: one block is folded while the next is read
PARSED_AT_ONCE = 10_000
CONFIG = ROOT / "examples" / "kuairand" / "thalweg.toml"
SAMPLE = ROOT / "examples" / "kuairand" / "kuairand_sample.jsonl.gz"

Contestant = Callable[[], float]


def lines_of(log: RealLog, records: Sequence[LogRecord]) -> list[tuple[str, str]]:
    """Return each impression as Vowpal Wabbit's line, without and with its label."""
    events = [decode_plain(record.value or b"") for record in records]
    clicked = {event.impression for event in events if isinstance(event, Feedback)}
    lines = Lines(log.configuration())
    out = []
    for event in events:
        if isinstance(event, Impression):
            line = lines.line(event.user, event.item, event.ts, event.context)
            out.append((line, f"{1 if event.id in clicked else -1} {line}"))
    return out


def vw_text(lines: Sequence[tuple[str, str]]) -> float:
    """Return the seconds of predict(line) and learn(line with label)."""
    peer = Workspace(FIXED)
    predict, learn = peer.predict, peer.learn
    started = time.perf_counter()
    for line, labelled in lines:
        predict(line)
        learn(labelled)
    seconds = time.perf_counter() - started
    peer.finish()
    return seconds


def vw_one_parse(lines: Sequence[tuple[str, str]]) -> float:
    """Return the seconds of parse, predict, learn and finish of one example."""
    peer = Workspace(FIXED)
    parse, predict, learn, finish = peer.parse, peer.predict, peer.learn, peer.finish_example
    started = time.perf_counter()
    for _, labelled in lines:
        example = parse(labelled)
        predict(example)
        learn(example)
        finish(example)
    seconds = time.perf_counter() - started
    peer.finish()
    return seconds


def vw_parsed(lines: Sequence[tuple[str, str]]) -> float:
    """Return the seconds of predict and learn of examples that are parsed already."""
    peer = Workspace(FIXED)
    predict, learn = peer.predict, peer.learn
    seconds = 0.0
    for first in range(0, len(lines), PARSED_AT_ONCE):
        examples = [peer.parse(labelled) for _, labelled in lines[first : first + PARSED_AT_ONCE]]
        started = time.perf_counter()
        for example in examples:
            predict(example)
            learn(example)
        seconds += time.perf_counter() - started
        for example in examples:
            peer.finish_example(example)
    peer.finish()
    return seconds


class FoldAlone:
    """The fold over columns that are made already, as `Partition` calls it."""

    def __init__(self, log: RealLog, records: Sequence[LogRecord]) -> None:
        """Make the columns of every block."""
        self._configuration = log.configuration()
        state = new_state(self._configuration)
        columnizer = Columnizer(self._configuration, state.names, 0, 0)
        self._names = list(self._configuration.features.declared_fields())
        self._blocks: list[Columns] = [
            columnizer.columns(records[first : first + BLOCK]).columns for first in range(0, len(records), BLOCK)
        ]

    def __call__(self) -> float:
        """Return the seconds of folding all blocks into a new state."""
        state = held(new_state(self._configuration))
        parameters = held(parameters_of(self._configuration, self._names))
        scratch = held(new_scratch(self._configuration))
        emitted = held(new_emitted(self._configuration, BLOCK, input_count(self._configuration)))
        started = time.perf_counter()
        for columns in self._blocks:
            emitted.reason[:] = 0
            done = 0
            while done < len(columns.kind):
                done = fold(state, parameters, scratch, columns, emitted, done)
                emitted.counts[:] = 0
        return time.perf_counter() - started


def replay_here(log: Path, out: Path, configuration: Any) -> float:
    """Return the seconds of a replay from file to file in this process."""
    started = time.perf_counter()
    replay = Replay(configuration, examples=False, block_events=BLOCK)
    with closing(LogReader(str(log), block_lines=READ)) as reader, closing(Sinks(Sink(str(out)))) as sinks:
        replay.run(reader, sinks)
    return time.perf_counter() - started


def replay_process(log: Path, out: Path) -> float:
    """Return the seconds of `thalweg replay` from its start to its end."""
    command = [*THALWEG, "replay", str(log), "--config", str(CONFIG), "--out", str(out)]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - started


def stages(log: Path, out: Path, configuration: Any) -> dict[str, float]:
    """Return the seconds of each stage of a replay: the same calls as `Partition.process`, timed one by one."""
    spent = dict.fromkeys(("read the file", "decode, columns", "fold", "encode scores", "write the file"), 0.0)
    partition = Partition(configuration, block_events=BLOCK, examples=False)
    partition.warm_up()
    encoder = Encoder(configuration, "interactions", 0)
    names = list(configuration.features.declared_fields())
    columnizer = Columnizer(configuration, partition.state.names, 0, 0)
    state, parameters = held(partition.state), held(parameters_of(configuration, names))
    scratch = held(new_scratch(configuration))
    emitted = held(new_emitted(configuration, BLOCK, input_count(configuration)))
    gc.disable()  # as a partition does
    with closing(LogReader(str(log), block_lines=BLOCK)) as reader, closing(Sink(str(out))) as sink:
        for block in timed(iter(reader), spent):
            clock = time.perf_counter()
            made = columnizer.columns(block)
            clock = lap(spent, "decode, columns", clock)
            emitted.reason[:] = 0
            first = 0
            while first < len(block):
                last = fold(state, parameters, scratch, made.columns, emitted, first)
                emitted.counts[:] = 0
                clock = lap(spent, "fold", clock)
                outputs = encoder.scores(made, emitted, first, last, names)
                clock = lap(spent, "encode scores", clock)
                sink.write(outputs)
                clock = lap(spent, "write the file", clock)
                first = last
    gc.enable()
    return spent


def timed(blocks: Iterator[list[LogRecord]], spent: dict[str, float]) -> Iterator[list[LogRecord]]:
    """Pass blocks on, and add up what getting them takes."""
    while True:
        started = time.perf_counter()
        block = next(blocks, None)
        spent["read the file"] += time.perf_counter() - started
        if block is None:
            return
        yield block


def lap(spent: dict[str, float], stage: str, since: float) -> float:
    """Add the time since a moment to a stage, and return the time now."""
    now = time.perf_counter()
    spent[stage] += now - since
    return now


def main() -> int:
    """Let the contestants take turns, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer", description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of kuairand14d")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    log = kuairand(options.data) or RealLog("KuaiRand's sample", SAMPLE, CONFIG)
    records = log.records()
    configuration = log.configuration()
    with tempfile.TemporaryDirectory() as folder:
        plain, out = Path(folder, "log.jsonl"), Path(folder, "scores.jsonl")
        plain.write_bytes(b"".join((record.value or b"") + b"\n" for record in records))
        lines = lines_of(log, records)
        fold_alone = FoldAlone(log, records)
        contestants: dict[str, Contestant] = {
            "Vowpal Wabbit, text": lambda: vw_text(lines),
            "Vowpal Wabbit, one parse": lambda: vw_one_parse(lines),
            "Vowpal Wabbit, parsed": lambda: vw_parsed(lines),
            "the fold alone": fold_alone,
            "replay, in process": lambda: replay_here(plain, out, configuration),
            "replay, whole process": lambda: replay_process(plain, out),
        }
        Partition(configuration).warm_up()
        replay_process(plain, out)
        taken: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(options.runs):
            for name, contestant in contestants.items():
                taken[name].append(contestant())
            print(f"run {number + 1} of {options.runs}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
        parts = [stages(plain, out, configuration) for _ in range(options.runs)]
    show(log.name, taken, rows=len(lines), events=len(records))
    show_stages(parts, len(records))
    return 0


def show(name: str, taken: dict[str, list[float]], *, rows: int, events: int) -> None:
    """Print medians, spreads and ratios."""
    median = {contestant: statistics.median(seconds) for contestant, seconds in taken.items()}
    peers = [contestant for contestant in median if contestant.startswith("Vowpal")]
    table = Table("contestant", "s, median", "spread", "µs a row", "rows/s", "events/s", *(p[15:] for p in peers))
    table.title = f"{name}: {rows:,} impressions, {events:,} events; last columns: times as fast as Vowpal Wabbit with"
    for contestant, seconds in taken.items():
        is_peer = contestant in peers
        per_event = "" if is_peer else f"{events / median[contestant]:,.0f}"
        table.add_row(
            contestant,
            f"{median[contestant]:.2f}",
            f"{min(seconds):.2f} to {max(seconds):.2f}",
            f"{1e6 * median[contestant] / rows:.1f}",
            f"{rows / median[contestant]:,.0f}",
            per_event,
            *(ratios(median, contestant, peer, rows, events) for peer in peers),
        )
    console = Console(width=150)
    console.print(table)
    console.print("a / b: by impression row / by event (a feedback is an event of its own for us, none for the peer)")


def ratios(median: dict[str, float], contestant: str, peer: str, rows: int, events: int) -> str:
    """Return how many times as fast as a peer, per impression row and per event."""
    if contestant.startswith("Vowpal"):
        return ""
    by_row = median[peer] / median[contestant]
    return f"{by_row:.2f} / {by_row * events / rows:.2f}"


def show_stages(parts: Sequence[dict[str, float]], events: int) -> None:
    """Print where the time of a replay goes."""
    table = Table("stage", "s, median", "spread", "µs an event", "share")
    medians = {stage: statistics.median(part[stage] for part in parts) for stage in parts[0]}
    for stage, seconds in medians.items():
        spread = [part[stage] for part in parts]
        share = f"{100 * seconds / sum(medians.values()):.0f}%"
        table.add_row(
            stage, f"{seconds:.2f}", f"{min(spread):.2f} to {max(spread):.2f}", f"{1e6 * seconds / events:.2f}", share
        )
    table.add_row("sum", f"{sum(medians.values()):.2f}", "", f"{1e6 * sum(medians.values()) / events:.2f}", "")
    Console(width=150).print(table)


if __name__ == "__main__":
    raise SystemExit(main())

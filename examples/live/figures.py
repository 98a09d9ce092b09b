"""What `make live` shows: counted from the worker's metrics and its output topics, and drawn as a table."""

import json
import time
import urllib.request
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from threading import Lock

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

RECENT = 5_000
LAST = 8
RATE_WINDOW_S = 5.0


@dataclass
class Figures:
    """What is known so far; scores and examples come from threads of their own."""

    servers: str
    started_at: float = field(default_factory=time.monotonic)
    status: str = "starting"
    lag: int | None = None
    events: int = 0
    scored: int = 0
    positives: int = 0
    labelled: int = 0
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    outcomes: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RECENT))
    last: deque[dict[str, object]] = field(default_factory=lambda: deque(maxlen=LAST))
    _counts: deque[tuple[float, int]] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def add_score(self, value: bytes) -> None:
        """Count a record of the topic `scores`."""
        score = json.loads(value)
        with self._lock:
            self.scored += 1
            self.scores.append(score["score"])
            self.last.append(score)

    def add_example(self, value: bytes) -> None:
        """Count a record of the topic `examples`: an impression with its outcome."""
        example = json.loads(value)
        with self._lock:
            self.labelled += 1
            self.positives += example["label"]
            self.outcomes.append((example["score"], example["label"]))

    def ask(self, address: str) -> None:
        """Ask a worker how far it is; one that does not answer yet changes nothing."""
        try:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except OSError:
            return
        if "thalweg_events_total" in text:
            self.status = "running"
        self.events = int(total(text, "thalweg_events_total"))
        self.lag = int(total(text, "thalweg_lag_records")) if "\nthalweg_lag_records{" in text else None
        self._counts.append((time.monotonic(), self.events))
        while self._counts[-1][0] - self._counts[0][0] > RATE_WINDOW_S:
            self._counts.popleft()

    @property
    def events_per_s(self) -> float:
        """Events folded a second, over the last seconds."""
        if len(self._counts) < 2:
            return 0.0
        (first_at, first), (last_at, last) = self._counts[0], self._counts[-1]
        return (last - first) / (last_at - first_at)

    @property
    def mean_score(self) -> float | None:
        """Mean of the recent scores."""
        with self._lock:
            return sum(self.scores) / len(self.scores) if self.scores else None

    @property
    def auc(self) -> float | None:
        """AUC of the recent outcomes: how often a positive had a higher score than a negative."""
        with self._lock:
            outcomes = list(self.outcomes)
        return auc_of(outcomes)

    def line(self) -> str:
        """Return all but the last scores on one line, for where there is no terminal."""
        return ", ".join((f"worker {self.status}", *(f"{name} {value}" for name, value in self._values())))

    def _values(self) -> Iterable[tuple[str, str]]:
        share = f" ({self.positives / self.labelled:.1%})" if self.labelled else ""
        yield "events/s", f"{self.events_per_s:,.0f}"
        yield "lag", "unknown" if self.lag is None else f"{self.lag:,}"
        yield "scored", f"{self.scored:,}"
        yield "positives", f"{self.positives:,} of {self.labelled:,}{share}"
        yield "mean score", decimals(self.mean_score)
        yield "AUC", decimals(self.auc)

    def draw(self) -> RenderableType:
        """Return the whole as rich draws it; it fits 80 columns and 24 rows."""
        seconds = int(time.monotonic() - self.started_at)
        title = line_of(f"Thalweg on {self.servers}, {seconds} s: {self.status}", style="bold")
        numbers = Table.grid(padding=(0, 2))
        notes = {
            "events/s": "folded, over the last 5 s",
            "lag": "events that wait to be folded",
            "positives": "of those whose window closed",
            "mean score": f"of the last {RECENT:,} scores",
            "AUC": f"of the last {RECENT:,} outcomes; chance: .5",
        }
        for name, value in self._values():
            numbers.add_row(name, line_of(value, style="bold"), line_of(notes.get(name, ""), style="dim"))
        scores = Table("user", "item", "score", "offset", title="last scores", title_justify="left", box=None)
        with self._lock:
            last = list(self.last)
        for score in reversed(last):
            offset = str(score["origin"]).rsplit("-", 1)[-1]
            scores.add_row(line_of(str(score["user"])), line_of(str(score["item"])), f"{score['score']:.4f}", offset)
        return Group(title, numbers, Text(), scores, Text(), Text("Ctrl-C ends it", style="dim"))


def line_of(text: str, *, style: str = "") -> Text:
    """Return a text that ends with an ellipsis where it has no room, and never takes a second line."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def total(text: str, name: str) -> float:
    """Return the sum of a metric's samples in Prometheus' text.

    >>> total('x{partition="0"} 2.0\\nx{partition="1"} 3.0\\nxy 9\\n', "x")
    5.0
    """
    return sum(
        float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} "))
    )


def auc_of(outcomes: Iterable[tuple[float, int]]) -> float | None:
    """Return the AUC of scores with their labels, None where one of the labels is missing.

    >>> auc_of([(0.9, 1), (0.2, 0), (0.5, 1), (0.6, 0)]), auc_of([(0.5, 1)])
    (0.75, None)
    """
    pairs = list(outcomes)
    negatives = sorted(score for score, label in pairs if not label)
    positives = [score for score, label in pairs if label]
    if not negatives or not positives:
        return None
    above = sum(bisect_left(negatives, score) + bisect_right(negatives, score) for score in positives)
    return above / 2 / len(negatives) / len(positives)


def decimals(value: float | None) -> str:
    """Return a share with four decimals, or that it is not known yet."""
    return "not yet" if value is None else f"{value:.4f}"

"""The page of a replay: its figures over stream time, its calibration and its fates, in one file by itself."""

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.fates import FATES
from thalweg.streams.logs.errors import LogError, LogWriteError
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import KEPT, Tally, quality
from thalweg.streams.replay.summary import Summary, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS_MAX = 2_048
PARTS = 40
PART_LABELS_MIN = 200
DECILES = 10
NAMES = ("final score", "model alone", "base score")

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "td{padding:0 1rem 0 0}td:nth-child(2){text-align:right}td:nth-child(3){color:#666}svg{max-width:100%;height:auto}"
)


class Point(NamedTuple):
    """Where a replay stood: stream time, and labels so far."""

    stream_time_ms: int
    labelled: int


class Course:
    """How stream time and labels went on: at most POINTS_MAX points, thinned evenly."""

    def __init__(self) -> None:
        """Start without points."""
        self.points: list[Point] = []
        self._every = 1
        self._calls = 0

    def add(self, partition: Partition, tally: Tally) -> None:
        """Note where a partition stands."""
        self._calls += 1
        if self._calls % self._every:
            return
        self.points.append(Point(int(partition.state.clock.stream_time_ms[0]), tally.labelled))
        if len(self.points) > POINTS_MAX:
            self.points = self.points[1::2]
            self._every *= 2


class Part(NamedTuple):
    """A stretch of a replay: when it ends, and AUC and log loss of each score in it (None where undefined)."""

    end_ms: int
    auc: tuple[float | None, ...]
    log_loss: tuple[float | None, ...]


def parts(course: Course, tally: Tally) -> list[Part]:
    """Return a replay in at most PARTS stretches of as many labels; none where its labels are not kept one by one."""
    labels, scores = tally.arrays()
    size = max(PART_LABELS_MIN, len(labels) // PARTS)
    found: list[Part] = []
    first = 0
    for point in course.points:
        last = min(point.labelled, len(labels))
        if last - first < size:
            continue
        qualities = [quality(labels[first:last], scores[first:last, which]) for which in range(len(KEPT))]
        found.append(Part(point.stream_time_ms, tuple(q.auc for q in qualities), tuple(q.log_loss for q in qualities)))
        first = last
    return found


def reliability(
    labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean score and mean label of each tenth of the scores, by rising score."""
    order = np.argsort(scores, kind="stable")
    tenths = [tenth for tenth in np.array_split(order, DECILES) if len(tenth)]
    means = [(scores[tenth].mean(), labels[tenth].mean()) for tenth in tenths]
    return np.array([m[0] for m in means]), np.array([m[1] for m in means])


def require_matplotlib() -> None:
    """Raise LogError where the library for plots is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise LogError("--report needs matplotlib: pip install matplotlib") from None


def write_report(path: str, title: str, summary: Summary, tally: Tally, course: Course) -> None:
    """Write the page. Raises LogWriteError where the file can't be written."""
    figures = [("Over stream time", over_time(parts(course, tally))), ("Fates", fates(summary))]
    labels, scores = tally.arrays()
    if len(labels):
        figures.insert(1, ("Calibration", calibration(labels, scores)))
    table = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(summary, tally)
    )
    plots = "".join(f"<h2>{name}</h2>{svg(figure)}" for name, figure in figures)
    name = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{STYLE}</style>'
        f"<h1>{name}</h1><table>{table}</table>{plots}</html>\n"
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise LogWriteError(f"{path} can't be written: {error.strerror}") from None


def over_time(stretches: Sequence[Part]) -> "Figure":
    """Return AUC and log loss of each score over stream time."""
    figure, axes = blank(2)
    times: Any = [datetime.fromtimestamp(part.end_ms / 1000, UTC) for part in stretches]
    for axis, name, of in ((axes[0], "AUC", "auc"), (axes[1], "log loss", "log_loss")):
        for which, label in enumerate(NAMES):
            values = [getattr(part, of)[which] for part in stretches]
            known = [(at, value) for at, value in zip(times, values, strict=True) if value is not None]
            if known:
                axis.plot([at for at, _ in known], [value for _, value in known], label=label)
        axis.set_ylabel(name)
        if axis.lines:
            axis.legend(loc="best", frameon=False)
        axis.tick_params(axis="x", rotation=30)
    return figure


def calibration(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> "Figure":
    """Return mean label over mean score by tenths, for each score that there is."""
    figure, (axis,) = blank(1)
    for which, label in enumerate(NAMES):
        known = ~np.isnan(scores[:, which])
        if known.any():
            axis.plot(*reliability(labels[known], scores[known, which]), marker="o", label=label)
    axis.axline((0, 0), slope=1, color="#aaa", linewidth=1)
    axis.set_xlabel("mean score of a tenth")
    axis.set_ylabel("mean label")
    axis.legend(loc="best", frameon=False)
    return figure


def fates(summary: Summary) -> "Figure":
    """Return how many events had each fate."""
    figure, (axis,) = blank(1)
    counts = [getattr(summary, fate) for fate in FATES]
    bars = axis.barh(FATES, counts)
    axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def blank(columns: int) -> tuple["Figure", Sequence[Any]]:
    """Return an empty figure and its axes, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def svg(figure: "Figure") -> str:
    """Return a figure as an element of a page; the same figure gives the same text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "thalweg"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]

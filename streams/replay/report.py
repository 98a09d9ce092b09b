"""The page of a replay: its figures over stream time, its calibration and its fates, in one file by itself."""

import html
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.fates import FATES
from thalweg.streams.logs.errors import LogError, LogWriteError
from thalweg.streams.partition.tally import KEPT, Curve, Tally, quality
from thalweg.streams.replay.summary import Summary, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = 40
PART_LABELS_MIN = 200
DECILES = 10
NAMES = ("final score", "model alone", "base score")

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:1rem auto;padding:0 1rem}"
    "h1{font-size:1.4rem;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:1.5rem 0 0}"
    "td{padding:0 .8rem 0 0;vertical-align:top}td:nth-child(2){text-align:right;white-space:nowrap}"
    "td:nth-child(3){color:#555;font-size:.85rem}"
    "main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:0 2rem}"
    "figure{margin:0}figcaption,.warning{font-size:.9rem}.warning{border-left:4px solid #c60;padding-left:.6rem}"
    "svg{width:100%;height:auto}"
    "@media(max-width:40rem){tr{display:grid;grid-template-columns:1fr auto}td:nth-child(3){grid-column:1/-1}}"
)
HOW_TO_READ = {
    "AUC": "How often a clicked impression was scored above one that was not: .5 is chance, 1 is perfect. Each point "
    "covers the latest labels up to its time. A line that rises learns; a fall is a change in the log.",
    "Log loss": "What the scores cost on average against the outcomes; lower is better. A coin's is .693, and always "
    "scoring the mean of the labels costs less.",
    "Calibration": "Impressions in ten groups of equal size by their score: on the grey line, outcomes are as frequent "
    "as the scores say. Below it, scores are too high; above it, too low.",
    "Fates": "What became of each event of the log. More than a few in a hundred that are neither scored nor joined "
    "are worth a look.",
}


class Part(NamedTuple):
    """A stretch of a replay: when it ends, and AUC and log loss of each score in it (None where undefined)."""

    end_ms: int
    auc: tuple[float | None, ...]
    log_loss: tuple[float | None, ...]


def parts(curve: Curve) -> list[Part]:
    """Return PARTS stretches that end evenly spaced among the labels, each of a PARTS-th of them or a few hundred."""
    labels, scores, times_ms = curve.arrays()
    size = max(PART_LABELS_MIN, len(labels) // PARTS)
    found: list[Part] = []
    for end in np.unique(np.linspace(len(labels) / PARTS, len(labels), PARTS).round().astype(int)).tolist():
        if end:
            first = max(0, end - size)
            qualities = [quality(labels[first:end], scores[first:end, which]) for which in range(len(KEPT))]
            part = Part(int(times_ms[end - 1]), tuple(q.auc for q in qualities), tuple(q.log_loss for q in qualities))
            found.append(part)
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


def write_report(path: str, title: str, summary: Summary, tally: Tally) -> None:
    """Write the page. Raises LogWriteError where the file can't be written."""
    stretches = parts(tally.curve)
    figures = {"AUC": over_time(stretches, "auc"), "Log loss": over_time(stretches, "log_loss")}
    labels, scores = tally.arrays()
    if len(labels):
        figures["Calibration"] = calibration(labels, scores)
    figures["Fates"] = fates(summary)
    table = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows(summary, tally)
    )
    warnings = "".join(f'<p class="warning">{html.escape(warning)}</p>' for warning in summary.warnings)
    plots = "".join(
        f"<figure><h2>{name}</h2>{svg(figure)}<figcaption>{HOW_TO_READ[name]}</figcaption></figure>"
        for name, figure in figures.items()
    )
    name = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style>'
        f"<h1>{name}</h1>{warnings}<main>{plots}</main><h2>Figures</h2><table>{table}</table></html>\n"
    )
    try:
        Path(path).write_text(page, encoding="utf-8")
    except OSError as error:
        raise LogWriteError(f"{path} can't be written: {error.strerror}") from None


def over_time(stretches: Sequence[Part], of: str) -> "Figure":
    """Return one figure of each score, `auc` or `log_loss`, over stream time."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    figure, axis = blank()
    times: Any = [datetime.fromtimestamp(part.end_ms / 1000, UTC) for part in stretches]
    for which, label in enumerate(NAMES):
        values = [getattr(part, of)[which] for part in stretches]
        known = [(at, value) for at, value in zip(times, values, strict=True) if value is not None]
        if known:
            axis.plot([at for at, _ in known], [value for _, value in known], label=label, marker=".", markersize=4)
    if axis.lines:
        axis.legend(loc="best", frameon=False)
        locator = cast(Any, AutoDateLocator)(minticks=2, maxticks=6)
        axis.xaxis.set_major_locator(locator)
        axis.xaxis.set_major_formatter(cast(Any, ConciseDateFormatter)(locator))
    axis.set_xlabel("stream time, UTC")
    return figure


def calibration(labels: npt.NDArray[np.uint8], scores: npt.NDArray[np.float64]) -> "Figure":
    """Return mean label over mean score by tenths, for each score that there is."""
    figure, axis = blank()
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
    figure, axis = blank()
    counts = [getattr(summary, fate) for fate in FATES]
    bars = axis.barh(FATES, counts)
    axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axis.invert_yaxis()
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def blank() -> tuple["Figure", Any]:
    """Return an empty figure, small enough that its letters can be read on a telephone, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    return figure, figure.subplots()


def svg(figure: "Figure") -> str:
    """Return a figure as an element of a page; the same figure gives the same text."""
    import matplotlib

    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "thalweg"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]

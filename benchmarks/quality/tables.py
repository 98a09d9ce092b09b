"""Tables as docs/quality.md has them, what a part is told, and where its text goes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.quality.replays import Figures
from benchmarks.real_logs import ROOT, RealLog, real_logs

PAGE = ROOT / "docs" / "quality.md"
PLOTS = ROOT / "docs" / "plots"
HEADER = "| | AUC / logloss | first of each page | calibration |\n|---|---|---|---|"


class Options(NamedTuple):
    """What every part is told: `data`, the folder of the tables; `names`, the logs wanted, all where there are none."""

    data: Path
    names: Sequence[str] = ()

    def logs(self, delay_ms: int = 1_000) -> list[RealLog]:
        """Return the logs that are wanted and there; feedback comes `delay_ms` after its impression."""
        return [log for log in real_logs(self.data, delay_ms) if not self.names or log.name in self.names]


def row(name: str, value: Figures) -> str:
    """Return a line of a table, told to standard error as well."""
    text = f"| {name} | {number(value.auc)} / {number(value.log_loss)} | "
    text += f"{number(value.first_auc)} / {number(value.first_log_loss)} | {value.calibration:.3f} |"
    print(text, file=sys.stderr)
    return text


def number(value: float, places: int = 4) -> str:
    """Return a figure as tables here write it: no zero before the point.

    >>> number(0.73374), number(-0.00149), number(1.0)
    ('.7337', '-.0015', '1.0000')
    """
    return f"{value:.{places}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{places}f}"


def told(cells: str) -> str:
    """Return cells as a line of a table, told to standard error as well."""
    text = f"| {cells} |"
    print(text, file=sys.stderr)
    return text


def said(flags: Sequence[str]) -> str:
    """Return flags as a table's line shows them."""
    return " ".join(f"`{flag}`" for flag in flags)


def write_part(name: str, text: str, page: Path = PAGE) -> None:
    """Put a part's tables in the place of its last ones. Raises ValueError where the page has no place for them."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    whole = page.read_text()
    if begin not in whole or end not in whole:
        raise ValueError(f"{page} has no lines {begin} and {end}")
    before, rest = whole.split(begin, 1)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end, 1)[1]}")

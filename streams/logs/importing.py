"""Tables of impressions with labels as a log: an impression a row, a feedback where positive."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import END_TS_MS
from thalweg.streams.logs.columns import base_scores, ids, labels, refuse_repeated
from thalweg.streams.logs.context_columns import ContextRules, context_column
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT, joined
from thalweg.streams.logs.ordered import Happened, OrderedLog, Rows
from thalweg.streams.logs.tables import read_table
from thalweg.streams.logs.times import Times

ACTION = "click"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Which column of the table is what.

    Parameters
    ----------
    user, item
        Columns of the user's and the item's id; they become text.
    time, time_unit
        Column of the event time and its unit, `s`, `ms`, `us` or `ns`; None where the column has dates, or
        milliseconds.
    label
        Column of the outcome: 0 or 1, true or false.
    id
        Column of the impression's id; None numbers the rows from 0.
    context
        Columns that become context fields.
    split
        Context columns that are lists, with what separates their elements.
    text, number
        Context columns that are taken as texts, or as numbers, whatever their values look like.
    base_score
        Column of a slower model's probability.
    keep_null_words
        Whether words such as NULL and NaN are ids and categories like others.

    """

    user: str
    item: str
    time: str
    time_unit: str | None = None
    label: str
    id: str | None = None
    context: tuple[str, ...] = ()
    split: tuple[tuple[str, str], ...] = ()
    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    base_score: str | None = None
    keep_null_words: bool = False

    @property
    def names(self) -> list[str]:
        """All columns that are read, each once."""
        named = [self.user, self.item, self.time, self.label, self.id, self.base_score, *self.context]
        return list(dict.fromkeys(name for name in named if name is not None))


class Events:
    """A table's events in the order of (time, impression before feedback, row), every value checked.

    Replay under the same configuration refuses none of them. `notes` tells, a line each, what was decided about the
    table that its owner may not expect.

    Parameters
    ----------
    path
        The table: `.csv`, `.csv.gz`, `.csv.zst`, `.parquet`, `.arrow`, `.feather`.
    columns
        Which column is what.
    feedback_delay_ms
        Time from an impression to its feedback.
    configuration
        The fold's that will read the log: its limits hold.

    Raises
    ------
    TableError
        The file can't be read, a column is missing, or a value can't be used: the row (from 0) is named.

    """

    def __init__(
        self,
        path: Path,
        columns: Columns,
        *,
        feedback_delay_ms: int = 1000,
        configuration: Configuration | None = None,
    ) -> None:
        """Read and check the table; the parameters are the class's."""
        configuration = configuration or Configuration()
        limits, keep = configuration.limits, columns.keep_null_words
        self.notes: list[str] = []
        file = read_table(path, columns.names)
        users = ids(file.table, columns.user, limits.id_bytes, keep_null_words=keep)
        items = ids(file.table, columns.item, limits.id_bytes, keep_null_words=keep)
        names = None
        if columns.id is not None:
            # A feedback's id is the impression's with ":click" after it, and must fit too.
            bytes_max = limits.id_bytes - len(f":{ACTION}")
            names = ids(file.table, columns.id, bytes_max, keep_null_words=keep)
            refuse_repeated(names, columns.id)

        def id_texts(rows: Any) -> Any:
            return rows.cast(TEXT) if names is None else names.take(rows)

        rules = ContextRules(
            frozenset(columns.text), frozenset(columns.number), dict(columns.split), columns.keep_null_words, limits
        )
        context: dict[str, Any] = {}
        for name in columns.context:
            context[name], note = context_column(file, name, rules)
            self.notes += [note] if note else []
        scores = (
            None if columns.base_score is None else base_scores(file.table, columns.base_score, keep_null_words=keep)
        )
        times = Times(file.table, columns.time, columns.time_unit)
        if times.without_zone:
            self.notes.append(f"column {columns.time!r} has no zone: its times are taken as UTC")
        rows = Rows(
            users,
            items,
            id_texts,
            context,
            scores,
            lambda rows: joined(id_texts(rows), f":{ACTION}"),
            id_texts,
            ACTION,
        )
        happened = _happened(times.ms, labels(file.table, columns.label), feedback_delay_ms, columns.time)
        self._log = OrderedLog(rows, happened, configuration)
        self.imported = self._log.imported

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time."""
        return self._log.blocks()


def _happened(ts_ms: npt.NDArray[np.int64], is_positive: npt.NDArray[np.bool_], delay_ms: int, time: str) -> Happened:
    """Return an impression a row, and a feedback where positive."""
    positive = np.flatnonzero(is_positive)
    delay_ms = min(delay_ms, END_TS_MS)  # no sum overflows
    if (late := np.flatnonzero(ts_ms[positive] >= END_TS_MS - delay_ms)).size:
        first = int(positive[late[0]])
        raise TableError(f"column {time!r}: the feedback of row {first} would lie beyond 2099: shorten the delay")
    rows = np.arange(len(ts_ms))
    kind = np.concatenate([np.zeros(len(rows), np.int8), np.ones(len(positive), np.int8)])
    return Happened(kind, np.concatenate([rows, positive]), np.concatenate([ts_ms, ts_ms[positive] + delay_ms]))

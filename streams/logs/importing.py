"""Tables of impressions with labels as a log: an impression a row, a feedback where positive."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import END_TS_MS
from thalweg.streams.logs.columns import base_scores, ids, labels, refuse_repeated
from thalweg.streams.logs.context_columns import ContextRules, context_column
from thalweg.streams.logs.lines import TEXT, data_of, joined, objects, quoted, values
from thalweg.streams.logs.tables import TableError, read_table
from thalweg.streams.logs.times import Times

EVENTS_A_BLOCK = 1 << 15
ACTION = "click"
ESCAPE_BYTES_MAX = 6  # of one character: \u0001


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


class Imported(NamedTuple):
    """What a table became: counts of events, and the first and last event time."""

    impressions: int
    feedback: int
    first_ms: int
    last_ms: int


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
        self._configuration = configuration or Configuration()
        self.notes: list[str] = []
        limits = self._configuration.limits
        file = read_table(path, columns.names)
        keep = columns.keep_null_words
        self._users = ids(file.table, columns.user, limits.id_bytes, keep_null_words=keep)
        self._items = ids(file.table, columns.item, limits.id_bytes, keep_null_words=keep)
        self._ids = None
        if columns.id is not None:
            # A feedback's id is the impression's with ":click" after it, and must fit too.
            bytes_max = limits.id_bytes - len(f":{ACTION}")
            self._ids = ids(file.table, columns.id, bytes_max, keep_null_words=keep)
            refuse_repeated(self._ids, columns.id)
        rules = ContextRules(
            frozenset(columns.text), frozenset(columns.number), dict(columns.split), columns.keep_null_words, limits
        )
        self._context: dict[str, Any] = {}
        for name in columns.context:
            self._context[name], note = context_column(file, name, rules)
            self.notes += [note] if note else []
        self._base_scores = None
        if columns.base_score is not None:
            self._base_scores = base_scores(file.table, columns.base_score, keep_null_words=keep)
        times = Times(file.table, columns.time, columns.time_unit)
        if times.without_zone:
            self.notes.append(f"column {columns.time!r} has no zone: its times are taken as UTC")
        self._order(times.ms, labels(file.table, columns.label), feedback_delay_ms, columns.time)
        self._refuse_contexts()
        self._refuse_large_records()

    def _order(
        self, ts_ms: npt.NDArray[np.int64], is_positive: npt.NDArray[np.bool_], delay_ms: int, time: str
    ) -> None:
        """Put impressions and feedback in their order: rows, kinds and times of all events."""
        positive = np.flatnonzero(is_positive)
        if (late := np.flatnonzero(ts_ms[positive] + delay_ms >= END_TS_MS)).size:
            first = int(positive[late[0]])
            raise TableError(f"column {time!r}: the feedback of row {first} would lie beyond 2099: shorten the delay")
        rows = np.arange(len(ts_ms))
        row = np.concatenate([rows, positive])
        kind = np.concatenate([np.zeros(len(rows), np.int8), np.ones(len(positive), np.int8)])
        ts = np.concatenate([ts_ms, ts_ms[positive] + delay_ms])
        order = np.lexsort((row, kind, ts))
        self._row, self._kind, self._ts = row[order], kind[order], ts[order]
        self.imported = Imported(len(rows), len(positive), int(self._ts[0]), int(self._ts[-1]))

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time."""
        for start in range(0, len(self._row), EVENTS_A_BLOCK):
            yield data_of(self._lines(slice(start, start + EVENTS_A_BLOCK)))

    def _lines(self, block: slice) -> Any:
        """Return some events as lines, large_string [events]."""
        # Only the block's rows become JSON: a table of some millions would fill the memory.
        kind = self._kind[block]
        at = [np.flatnonzero(kind == each) for each in (0, 1)]
        impressions, feedback = (self._row[block][places] for places in at)
        ts = pa.array(self._ts[block])
        lines = [
            self._impressions(impressions, ts.take(pa.array(at[0]))),
            self._feedback(feedback, ts.take(pa.array(at[1]))),
        ]
        back = np.empty(len(kind), np.int64)
        back[np.concatenate(at)] = np.arange(len(kind))
        return pa.concat_arrays(lines).take(pa.array(back))

    def _impressions(self, row: npt.NDArray[np.int64], ts: Any) -> Any:
        rows = pa.array(row)
        names = list(self._context)
        context = objects(names, [values(self._context[name].take(rows)) for name in names], len(row))
        end: Any = "}\n"
        if self._base_scores is not None:
            score = values(self._base_scores.take(rows))
            end = pc.coalesce(joined(',"base_score":', score, "}\n"), pa.scalar("}\n", TEXT))
        return joined(
            '{"type":"impression","id":',
            quoted(rows.cast(TEXT) if self._ids is None else self._ids.take(rows)),
            ',"user":',
            quoted(self._users.take(rows)),
            ',"item":',
            quoted(self._items.take(rows)),
            ',"ts":',
            ts.cast(TEXT),
            ',"context":',
            context,
            end,
        )

    def _feedback(self, row: npt.NDArray[np.int64], ts: Any) -> Any:
        rows = pa.array(row)
        names = rows.cast(TEXT) if self._ids is None else self._ids.take(rows)
        return joined(
            '{"type":"feedback","id":',
            quoted(joined(names, f":{ACTION}")),
            ',"impression":',
            quoted(names),
            ',"user":',
            quoted(self._users.take(rows)),
            ',"item":',
            quoted(self._items.take(rows)),
            ',"ts":',
            ts.cast(TEXT),
            f',"action":"{ACTION}"}}\n',
        )

    def _refuse_contexts(self) -> None:
        """Raise TableError where a context would have more fields, names or values than replay takes."""
        limits, features = self._configuration.limits, self._configuration.features
        for name in self._context:
            if not 1 <= len(name.encode()) <= limits.name_bytes:
                raise TableError(f"column {name!r}: a context field's name has 1 to {limits.name_bytes} bytes")
        counts = {name: _counts(column) for name, column in self._context.items()}
        none = np.zeros(self.imported.impressions, np.int64)
        fields = sum((~column.is_null().to_numpy(zero_copy_only=False) for column in self._context.values()), none)
        if (fields > limits.context_fields).any():
            row = int(np.argmax(fields > limits.context_fields))
            raise TableError(
                f"row {row} has {fields[row]} context fields, at most {limits.context_fields} (limits.context_fields)"
            )
        most = features.values_limit - len(features.crosses) - 2 - features.hour_of_day
        total = sum((counts[name] for name in self._fields_with_a_place()), none)
        if (total > most).any():
            row = int(np.argmax(total > most))
            raise TableError(
                f"row {row} has {total[row]} values in its context, at most {most}: shorten its lists, name fewer "
                "columns, or raise features.values_limit here and in replay"
            )

    def _fields_with_a_place(self) -> list[str]:
        """Return the context columns that the fold will take as features, as it does: the first to appear."""
        features = self._configuration.features
        declared = features.declared_fields()
        if features.context:
            return [name for name in self._context if name in declared]
        taken = {*features.exclude, "user", "item", *map("*".join, features.crosses)}
        known = [name for name in self._context if name in declared and name not in taken]
        rows = self._row[self._kind == 0]
        first: list[tuple[int, str]] = []
        for name, column in self._context.items():
            present = column.is_valid().to_numpy(zero_copy_only=False)[rows]
            if name not in taken and name not in known and "\0" not in name and present.any():
                first.append((int(np.argmax(present)), name))
        first.sort(key=lambda each: each[0])
        return known + [name for _, name in first[: features.fields_limit - len(declared)]]

    def _refuse_large_records(self) -> None:
        """Raise TableError where a line would be larger than a record may be."""
        limit = self._configuration.limits.record_bytes
        columns = [self._users, self._items, self._users if self._ids is None else self._ids, *self._context.values()]
        names = sum(len(name.encode()) for name in self._context)
        most = 200 + ESCAPE_BYTES_MAX * (names + sum(map(_bytes_max, columns)))
        if most <= limit:
            return
        for start in range(0, len(self._row), EVENTS_A_BLOCK):
            sizes = pc.binary_length(self._lines(slice(start, start + EVENTS_A_BLOCK))).to_numpy()
            if (sizes - 1 > limit).any():
                place = int(np.argmax(sizes - 1 > limit))
                raise TableError(
                    f"row {self._row[start + place]} makes an event of {sizes[place] - 1} bytes, at most {limit} "
                    "(limits.record_bytes): name fewer columns, or raise the limit here and in replay"
                )


def _counts(column: Any) -> npt.NDArray[np.int64]:
    """Return how many values each row has, int64 [rows]."""
    if pa.types.is_large_list(column.type):
        found: npt.NDArray[np.int64] = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        return found
    return column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)  # type: ignore[no-any-return]


def _bytes_max(column: Any) -> int:
    """Return a bound on the bytes of the longest value, separators of lists included."""
    if pa.types.is_large_list(column.type):
        longest = pc.max(pc.list_value_length(column)).as_py() or 0
        return longest * (3 + (pc.max(pc.binary_length(column.values)).as_py() or 0))
    return 32 if column.type != TEXT else pc.max(pc.binary_length(column)).as_py() or 0

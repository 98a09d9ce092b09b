"""Events of a table in their order, as lines; what replay would refuse of them is refused before."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.operators.configuration import Configuration
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT, data_of, joined, objects, quoted, values

EVENTS_A_BLOCK = 1 << 15
THREADS = 2
"""So many blocks are made at once, and one more waits to be written: each takes some tens of MB."""
ESCAPE_BYTES_MAX = 6  # of one character: \u0001
IMPRESSION, FEEDBACK = range(2)

Texts = Callable[[Any], Any]
"""From numbers of rows to texts, large_string."""


class Imported(NamedTuple):
    """What a table became: counts of events, and the first and last event time."""

    impressions: int
    feedback: int
    first_ms: int
    last_ms: int


class Rows(NamedTuple):
    """What the rows of a table say of events, by row.

    `users`, `items` large_string; `ids`, `feedback_ids`, `impressions` return the texts of rows; `context` by name,
    int64, float64, large_string or large_list of large_string; `base_scores`, `values` float64; `actions` large_string,
    or one action for all; `null_category`: whether a value that is missing in the context is the text `null`.
    """

    users: Any
    items: Any
    ids: Texts
    context: dict[str, Any]
    base_scores: Any | None
    feedback_ids: Texts
    impressions: Texts
    actions: Any | str
    values: Any | None = None
    null_category: bool = False


class Happened(NamedTuple):
    """Events of a table: `kind` int8, `row` int64 and `ts_ms` int64, all [events]."""

    kind: npt.NDArray[np.int8]
    row: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]


class OrderedLog:
    """A table's events in the order of (time, impression before feedback, row).

    Parameters
    ----------
    rows
        What the table says.
    happened
        Which events it has, in any order.
    configuration
        The fold's that will read the log: its limits hold.

    Raises
    ------
    TableError
        An event is larger than replay takes; its row is named.

    """

    def __init__(self, rows: Rows, happened: Happened, configuration: Configuration) -> None:
        """Order the events and check their sizes; the parameters are the class's."""
        self._rows = rows
        self._configuration = configuration
        order = np.lexsort((happened.row, happened.kind, happened.ts_ms))
        self._kind, self._row, self._ts = (column[order] for column in happened)
        feedback = int(np.count_nonzero(self._kind))
        self.imported = Imported(len(order) - feedback, feedback, int(self._ts[0]), int(self._ts[-1]))
        self._context = rows.context
        self._refuse_contexts()
        self._refuse_large_records()

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time.

        Blocks are made ahead, in threads: Arrow's kernels hold no lock of Python's.
        """

        def made(start: int) -> bytes:
            return data_of(self._lines(slice(start, start + EVENTS_A_BLOCK)))

        ahead: deque[Future[bytes]] = deque()
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="import")
        try:
            for start in range(0, len(self._row), EVENTS_A_BLOCK):
                ahead.append(threads.submit(made, start))
                if len(ahead) > THREADS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _lines(self, block: slice) -> Any:
        """Return some events as lines, large_string [events]."""
        # Only the block's rows become JSON: a table of some millions would fill the memory.
        kind = self._kind[block]
        at = [np.flatnonzero(kind == each) for each in (IMPRESSION, FEEDBACK)]
        rows = [pa.array(self._row[block][places]) for places in at]
        ts = [pa.array(self._ts[block][places]).cast(TEXT) for places in at]
        lines = [self._impressions(rows[0], ts[0]), self._feedback(rows[1], ts[1])]
        back = np.empty(len(kind), np.int64)
        back[np.concatenate(at)] = np.arange(len(kind))
        return pa.concat_arrays(lines).take(pa.array(back))

    def _impressions(self, rows: Any, ts: Any) -> Any:
        names = list(self._context)
        fields = [values(self._context[name].take(rows)) for name in names]
        if self._rows.null_category:
            fields = [pc.fill_null(field, pa.scalar('"null"', TEXT)) for field in fields]
        context = objects(names, fields, len(rows))
        return joined(
            '{"type":"impression","id":',
            quoted(self._rows.ids(rows)),
            *self._who(rows),
            ',"ts":',
            ts,
            ',"context":',
            context,
            _optional("base_score", self._rows.base_scores, rows),
        )

    def _feedback(self, rows: Any, ts: Any) -> Any:
        actions = self._rows.actions
        action = f'"{actions}"' if isinstance(actions, str) else quoted(actions.take(rows))
        return joined(
            '{"type":"feedback","id":',
            quoted(self._rows.feedback_ids(rows)),
            ',"impression":',
            quoted(self._rows.impressions(rows)),
            *self._who(rows),
            ',"ts":',
            ts,
            ',"action":',
            action,
            _optional("value", self._rows.values, rows),
        )

    def _who(self, rows: Any) -> tuple[Any, ...]:
        return ',"user":', quoted(self._rows.users.take(rows)), ',"item":', quoted(self._rows.items.take(rows))

    def _refuse_contexts(self) -> None:
        """Raise TableError where a context would have more fields, names or values than replay takes."""
        limits, features = self._configuration.limits, self._configuration.features
        for name in self._context:
            if not 1 <= len(name.encode()) <= limits.name_bytes:
                raise TableError(f"column {name!r}: a context field's name has 1 to {limits.name_bytes} bytes")
        length = max(map(len, self._context.values()), default=0)
        none = np.zeros(length, np.int64)
        is_shown = np.zeros(length, bool)
        if length:
            is_shown[self._row[self._kind == IMPRESSION]] = True
        counts = {name: np.where(is_shown, self._counts(column), 0) for name, column in self._context.items()}
        there = (self._is_there(column) & is_shown for column in self._context.values())
        fields = sum(there, none)
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

    def _is_there(self, column: Any) -> npt.NDArray[np.bool_]:
        """Return which rows have a context field, bool [rows]."""
        if self._rows.null_category:
            return np.ones(len(column), bool)
        found: npt.NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
        return found

    def _counts(self, column: Any) -> npt.NDArray[np.int64]:
        """Return how many values a context field has in each row, int64 [rows]."""
        counts = self._is_there(column).astype(np.int64)
        if pa.types.is_large_list(column.type):
            lengths = pc.list_value_length(column)
            counts = np.where(lengths.is_null(), counts, pc.fill_null(lengths, 0)).astype(np.int64)
        return counts

    def _fields_with_a_place(self) -> list[str]:
        """Return the context columns that the fold will take as features, as it does: the first to appear."""
        features = self._configuration.features
        declared = features.declared_fields()
        if features.context:
            return [name for name in self._context if name in declared]
        taken = {*features.exclude, "user", "item", *map("*".join, features.crosses)}
        known = [name for name in self._context if name in declared and name not in taken]
        rows = self._row[self._kind == IMPRESSION]
        first: list[tuple[int, str]] = []
        for name, column in self._context.items():
            present = self._is_there(column)[rows]
            if name not in taken and name not in known and "\0" not in name and present.any():
                first.append((int(np.argmax(present)), name))
        first.sort(key=lambda each: each[0])
        return known + [name for _, name in first[: features.fields_limit - len(declared)]]

    def _refuse_large_records(self) -> None:
        """Raise TableError where a line would be larger than a record may be."""
        limit = self._configuration.limits.record_bytes
        columns = [self._rows.users, self._rows.items, *self._context.values()]
        names = sum(len(name.encode()) for name in self._context)
        ids = 3 * self._configuration.limits.id_bytes
        most = 200 + ESCAPE_BYTES_MAX * (ids + names + sum(map(_bytes_max, columns)))
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


def _bytes_max(column: Any) -> int:
    """Return a bound on the bytes of the longest value, separators of lists included."""
    if pa.types.is_large_list(column.type):
        longest = pc.max(pc.list_value_length(column)).as_py() or 0
        return longest * (3 + (pc.max(pc.binary_length(column.values)).as_py() or 0))
    return 32 if column.type != TEXT else pc.max(pc.binary_length(column)).as_py() or 0


def _optional(name: str, column: Any | None, rows: Any) -> Any:
    """Return the end of a line: a number that only some events have."""
    if column is None:
        return "}\n"
    return pc.coalesce(joined(f',"{name}":', values(column.take(rows)), "}\n"), pa.scalar("}\n", TEXT))

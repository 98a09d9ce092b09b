"""Tables of events as they are, a view, a click or a purchase a row, as a log: `[mapping]` defines the columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.operators.configuration import Configuration
from thalweg.schemas.mapping import CATEGORY, NUMBER, REST, MappingConfiguration
from thalweg.schemas.paths import Part, parse
from thalweg.streams.logs.columns import (
    base_scores,
    column_of,
    first_row,
    id_texts,
    ids,
    measures,
    refuse_repeated,
    rows_shown,
)
from thalweg.streams.logs.context_columns import ContextRules, context_column
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT
from thalweg.streams.logs.ordered import FEEDBACK, IMPRESSION, Happened, OrderedLog, Rows
from thalweg.streams.logs.tables import Layout, Place, TableFile
from thalweg.streams.logs.times import Times

IGNORED = 2
UNIT_OF_DATES = "iso"

Mask = npt.NDArray[np.bool_]


class Options(NamedTuple):
    """How tables of events are read: `action` is that of rows that name none, the rest as in `Columns`."""

    action: str | None = None
    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    keep_null_words: bool = False


class EventTables:
    """The events of one table, or of one of impressions and one of actions, in the order of a log.

    `notes` tells, a line each, what was decided about the tables that their owner may not expect.

    Parameters
    ----------
    path
        The table; `mapping.type` decides what its rows are; without it they are impressions.
    configuration
        The fold's, with a `[mapping]`; paths name columns.
    actions
        A table of feedback.
    options
        How they are read.

    Raises
    ------
    TableError
        A file can't be read, a column is missing, or a value can't be used: the row (from 0) is named.

    """

    def __init__(
        self, path: Path, configuration: Configuration, *, actions: Path | None = None, options: Options | None = None
    ) -> None:
        """Read and check the tables; the parameters are the class's."""
        options = options or Options()
        self.notes: list[str] = []
        tables = [_Table(path, configuration, options, is_of_actions=False)]
        if actions is not None:
            tables.append(_Table(actions, configuration, options, is_of_actions=True))
        first = tables[0]
        users, items, impression, names, action, values = (
            pa.concat_arrays(columns)
            for columns in zip(
                *[(each.users, each.items, each.impressions, each.ids, each.actions, each.values) for each in tables],
                strict=True,
            )
        )
        kind = np.concatenate([each.kind for each in tables])
        ts_ms = np.concatenate([each.ts_ms for each in tables])
        row = np.flatnonzero(kind != IGNORED)
        happened = Happened(kind[row].astype(np.int8), row, ts_ms[row])
        impression, happened = self._joined(impression, names, users, items, happened)
        if not len(happened.row):
            raise TableError(f"{path} has no event: no action follows an impression of its item")
        for each in tables:
            self.notes += each.notes
        rows = Rows(
            users,
            items,
            names.take,
            first.context,
            first.base_scores,
            names.take,
            impression.take,
            action,
            None if values.null_count == len(values) else values,
            null_category=configuration.mapping.nulls == CATEGORY,
        )
        self._log = OrderedLog(rows, happened, configuration)
        self.imported = self._log.imported

    def blocks(self) -> Iterator[bytes]:
        """Give the log, some thousands of lines at a time."""
        return self._log.blocks()

    def _joined(self, impression: Any, names: Any, users: Any, items: Any, happened: Happened) -> tuple[Any, Happened]:
        """Give feedback that names no impression the user's latest of the item before it; leave out what has none."""
        lacks = impression.is_null().to_numpy(zero_copy_only=False)[happened.row] & (happened.kind == FEEDBACK)
        if not lacks.any():
            return impression, happened
        latest = latest_impressions(users, items, happened)
        found = np.arange(len(impression))
        found[happened.row[lacks]] = latest[lacks]
        is_lost = lacks & (latest < 0)
        filled = pc.if_else(impression.is_null(), names.take(pa.array(np.maximum(found, 0))), impression)
        self.notes.append(
            f"{lacks.sum() - is_lost.sum():,} actions without an impression's id belong to the user's latest "
            f"impression of the item; {is_lost.sum():,} came before any and are left out"
        )
        return filled, Happened(*(column[~is_lost] for column in happened))


def latest_impressions(users: Any, items: Any, happened: Happened) -> npt.NDArray[np.int64]:
    """Return for each event the row of its user's latest impression of its item until then; -1 if there is none."""
    item = items.dictionary_encode()
    pair = users.dictionary_encode().indices.to_numpy().astype(np.int64) * len(item.dictionary)
    pair = (pair + item.indices.to_numpy())[happened.row]
    order = np.lexsort((happened.row, happened.kind, happened.ts_ms, pair))
    place = np.where(happened.kind[order] == IMPRESSION, np.arange(len(order)), -1)
    last = np.maximum.accumulate(place)
    is_same = (last >= 0) & (pair[order][last] == pair[order])
    latest = np.full(len(order), -1, np.int64)
    latest[order[is_same]] = happened.row[order[last[is_same]]]
    return latest


class _Table:
    """One table's rows as events: `kind`, `ts_ms` and all columns by row."""

    def __init__(self, path: Path, configuration: Configuration, options: Options, *, is_of_actions: bool) -> None:
        self.notes: list[str] = []
        self._path = path
        self._mapping = mapping = configuration.mapping
        self._limits = limits = configuration.limits
        self._options = options
        self._is_of_actions = is_of_actions
        self._layout = Layout(path)
        self._file = self._read()
        table = self._file.table
        self._count = table.num_rows
        self.kind, self.actions = self._kinds()
        if (self.kind == IGNORED).all():
            raise TableError(f"{path} has no event: every row is ignored")
        keep = options.keep_null_words
        with self._only(self.kind != IGNORED, table) as used:
            self.users = ids(used, mapping.user, limits.id_bytes, keep_null_words=keep)
            self.items = ids(used, mapping.item, limits.id_bytes, keep_null_words=keep)
            self.ts_ms = self._times(used)
            self.ids = self._ids(used)
        self.impressions = self._impressions(table)
        self._refuse_repeated()
        self.values = self._measures(table, mapping.value, FEEDBACK)
        self.context: dict[str, Any] = {}
        self.base_scores: Any | None = None
        if not is_of_actions:
            with self._only(self.kind == IMPRESSION, table) as impressions:
                self._read_context(impressions)

    def _read(self) -> TableFile:
        """Read what paths lead to, each under its path; alternatives become one column."""
        mapping = self._mapping
        named = [path for _, path in mapping.named_context()] if not self._is_of_actions else []
        wanted = {path: self._found(path) for path in (*mapping.paths(), *named)}
        if not mapping.time:
            raise TableError("mapping.time is missing: a table's rows have no time without it")
        for path in (mapping.user, mapping.item, mapping.time):
            if path and not wanted[path]:
                raise self._layout.missing(path)
        self._note_missing(wanted, named)
        takes_rest = REST in mapping.context and not self._is_of_actions
        places = {".".join(leaf): tuple(map(Part, leaf)) for leaf in self._rest(named)} if takes_rest else {}
        keys = {(path, number): each for path, found in wanted.items() for number, each in enumerate(found)}
        file = self._layout.read(places | {f"{number}|{path}": each for (path, number), each in keys.items()})
        columns: dict[str, Any] = {name: file.table.column(name) for name in places}
        for path, found in wanted.items():
            names = [f"{number}|{path}" for number in range(len(found))]
            if len(names) == 1:
                columns[path] = file.table.column(names[0])
            elif names:
                columns[path] = first_of([column_of(file.table, name) for name in names], path)
        return TableFile(pa.table(columns), file.typed)

    def _found(self, path: str) -> list[Place]:
        """Return where a path's alternatives lead, of those for which the table has something."""
        return [found for parts in parse(path) if (found := self._layout.find(parts)) is not None]

    def _note_missing(self, wanted: dict[str, list[Place]], context: list[str]) -> None:
        """Note paths that lead to nothing in a table of impressions: a name may be misspelt."""
        if self._is_of_actions:
            return
        for path in context:
            if not wanted[path]:
                self.notes.append(f"{self._layout.missing(path)}; mapping.context goes without it")
        if self._mapping.type and not wanted[self._mapping.type]:
            self.notes.append(f"no column {self._mapping.type!r} (mapping.type): every row is an impression")

    def _rest(self, context: list[str]) -> list[tuple[str, ...]]:
        """Return the values that `*` takes: those that no other key names, nor anything above them."""
        paths = (*self._mapping.paths(), *context, *self._mapping.context_except)
        used = {".".join(part.name for part in parts) for path in paths for parts in parse(path)}
        leaves = self._layout.leaves()
        return [leaf for leaf in leaves if used.isdisjoint(".".join(leaf[:end]) for end in range(1, len(leaf) + 1))]

    def _has(self, path: str) -> bool:
        return bool(path) and path in self._file.table.column_names

    @contextmanager
    def _only(self, wanted: Mask, table: pa.Table) -> Iterator[pa.Table]:
        """Give a table with a wanted row's values in place of every other row's, so that only those are judged."""
        if wanted.all() or not wanted.any():
            yield table
            return
        rows = np.where(wanted, np.arange(len(wanted)), np.argmax(wanted))
        with rows_shown(rows):
            yield table.take(rows)

    def _kinds(self) -> tuple[npt.NDArray[np.int8], Any]:
        """Return what each row is, and its action."""
        mapping = self._mapping
        if not self._has(mapping.type):
            every = FEEDBACK if self._is_of_actions else IMPRESSION
            action = self._only_action() if self._is_of_actions else ""
            return np.full(self._count, every, np.int8), pa.repeat(pa.scalar(action, TEXT), self._count)
        column = column_of(self._file.table, mapping.type)
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.string()).cast(TEXT)
        coded = id_texts(column, mapping.type, "a type").dictionary_encode()
        words = [*coded.dictionary.to_pylist(), None]
        kinds = [_kind_of(mapping, word) for word in words]
        codes = pc.fill_null(coded.indices, len(words) - 1).to_numpy()
        for number, (word, found) in enumerate(zip(words, kinds, strict=True)):
            if isinstance(found, str) and (row := first_row(codes == number)) >= 0:
                raise TableError(f"column {mapping.type!r} is {word!r} in row {row}, {found}")
        kind = np.array([each if isinstance(each, int) else IGNORED for each in kinds], np.int8)[codes]
        if self._is_of_actions and (row := first_row(kind == IMPRESSION)) >= 0:
            raise TableError(f"{self._path} has an impression in row {row}: name it as the table, without --actions")
        actions = pa.array([mapping.feedback.get(word or "", "") for word in words], TEXT)
        return kind, actions.take(pa.array(codes))

    def _only_action(self) -> str:
        """Return the action of a table whose rows name none."""
        named = set(self._mapping.feedback.values())
        if self._options.action is None and len(named) != 1:
            raise TableError(
                f"{self._path} does not name the action of its rows: give --action purchase, for instance, or a "
                "column at mapping.type"
            )
        action = self._options.action or named.pop()
        if len(action.encode()) > self._limits.name_bytes:
            raise TableError(f"the action {action!r} has more than {self._limits.name_bytes} bytes")
        return action

    def _times(self, table: pa.Table) -> npt.NDArray[np.int64]:
        path, unit = self._mapping.time, self._mapping.time_unit
        kind = table.column(path).type
        is_dates = unit == UNIT_OF_DATES or pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        times = Times(table, path, None if is_dates else unit)
        if unit == UNIT_OF_DATES and not times.has_dates:
            raise TableError(f"column {path!r} has numbers: mapping.time_unit is their unit, s, ms, us or ns")
        if times.without_zone:
            self.notes.append(f"column {path!r} has no zone: its times are taken as UTC")
        return times.ms

    def _ids(self, table: pa.Table) -> Any:
        """Return the events' ids; without a column for them the rows are numbered, actions apart."""
        if not self._has(self._mapping.id):
            prefix = "action-" if self._is_of_actions else ""
            return pc.binary_join_element_wise(
                pa.scalar(prefix, TEXT), pa.array(np.arange(self._count)).cast(TEXT), pa.scalar("", TEXT)
            )
        keep = self._options.keep_null_words
        return ids(table, self._mapping.id, self._limits.id_bytes, keep_null_words=keep)

    def _refuse_repeated(self) -> None:
        """Give impressions that name it their own id, and refuse one that two have."""
        shown = self.kind == IMPRESSION
        path = self._mapping.impression if self._has(self._mapping.impression) else self._mapping.id
        if not self._has(path) or not shown.any():
            return
        named = pa.array(shown & self.impressions.is_valid().to_numpy(zero_copy_only=False))
        self.ids = pc.if_else(named, self.impressions, self.ids)
        refuse_repeated(self.ids.filter(pa.array(shown)), path, np.flatnonzero(shown))

    def _impressions(self, table: pa.Table) -> Any:
        """Return the ids of impressions, their own and of feedback, null where a row names none."""
        path, none = self._mapping.impression, pa.nulls(self._count, TEXT)
        if not self._has(path):
            return none
        column = id_texts(column_of(table, path), path)
        is_named = column.is_valid().to_numpy(zero_copy_only=False) & (self.kind != IGNORED)
        if not is_named.any():
            return none
        with self._only(is_named, table) as named:
            checked = ids(named, path, self._limits.id_bytes, keep_null_words=self._options.keep_null_words)
        return pc.if_else(pa.array(is_named), checked, pa.scalar(None, TEXT))

    def _measures(self, table: pa.Table, path: str, kind: int) -> Any:
        none = pa.nulls(self._count, pa.float64())
        wanted = self.kind == kind
        if not self._has(path) or not wanted.any():
            return none
        keep = self._options.keep_null_words
        with self._only(wanted, table) as feedback:
            numbers = measures(feedback, path, "a value is a number", keep_null_words=keep)
            if (row := first_row(pc.is_inf(numbers))) >= 0:
                raise TableError(f"column {path!r} is infinite in row {row}: a value is finite")
        return pc.if_else(pa.array(wanted), numbers, pa.scalar(None, pa.float64()))

    def _read_context(self, table: pa.Table) -> None:
        """Read context and base scores, of impressions."""
        if not (self.kind == IMPRESSION).any():
            return
        mapping, options = self._mapping, self._options
        fields = [(name, path) for name, path in mapping.named_context() if self._has(path)]
        taken = {*mapping.paths(), *(path for _, path in fields)}
        if REST in mapping.context:
            fields += [(name, name) for name in self._file.table.column_names if name not in taken]
        rules = ContextRules(
            frozenset(options.text), frozenset(options.number), {}, options.keep_null_words, self._limits
        )
        paths = {path for _, path in fields}
        for option, named in (("--text", options.text), ("--number", options.number)):
            if unknown := [path for path in named if path not in paths]:
                raise TableError(f"{option} names {unknown[0]!r}, which is no path of mapping.context in the table")
        for name, path in fields:
            if pa.types.is_boolean(table.column(path).type) and mapping.booleans != CATEGORY:
                if mapping.booleans == NUMBER:
                    self.context[name] = column_of(table, path).cast(pa.int64())
                continue
            self.context[name], note = context_column(TableFile(table, self._file.typed), path, rules)
            self.notes += [note] if note else []
        if self._has(mapping.base_score):
            self.base_scores = base_scores(table, mapping.base_score, keep_null_words=options.keep_null_words)


def first_of(columns: list[Any], path: str) -> Any:
    """Return the first value that there is of some columns, row by row: numbers as numbers, else as texts.

    Raises TableError where columns of different types can't be one.
    """
    kinds = {column.type for column in columns}
    if len(kinds) == 1:
        return pc.coalesce(*columns)
    is_number = all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds)
    if is_number and any(map(pa.types.is_floating, kinds)):
        try:
            return pc.coalesce(*(column.cast(pa.float64()) for column in columns))
        except pa.ArrowInvalid:
            told = "are integers beyond 2^53 and fractions: write them as texts"
            raise TableError(f"the columns of {path!r} {told}") from None
    return pc.coalesce(*(id_texts(column, path, "what has alternatives") for column in columns))


def _kind_of(mapping: MappingConfiguration, word: str | None) -> int | str:
    """Return what rows with such a value of `mapping.type` are, or why they can't be imported."""
    if word in mapping.impressions:
        return IMPRESSION
    if word in mapping.feedback:
        return FEEDBACK
    if word in mapping.ignore:
        return IGNORED
    for name in ("requests", "erase", "facts"):
        if word in getattr(mapping, name):
            return f"one of mapping.{name}: tables have impressions and feedback; put the value into mapping.ignore"
    return IGNORED if REST in mapping.ignore else "which mapping does not name: put it into mapping.ignore if need be"

"""A table of items or users as facts, events at the head of a log."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.state import new_state
from thalweg.schemas.records import LogRecord
from thalweg.streams.logs.columns import ids, refuse_repeated
from thalweg.streams.logs.context_columns import ContextRules, context_column
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.lines import TEXT, data_of, joined, objects, quoted, values
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.tables import read_table

FACTS_A_BLOCK = 1 << 13
About = Literal["item", "user"]


class Occurring(NamedTuple):
    """Who occurs in a log, and the time of its first event."""

    items: set[str]
    users: set[str]
    first_ms: int


class _Named(msgspec.Struct):
    """What an event says of whom it is about."""

    ts: int
    user: str | None = None
    item: str | None = None
    candidates: list[Any] = []


_DECODE = msgspec.json.Decoder(_Named).decode


def occurring_in(path: Path) -> Occurring:
    """Return who occurs in a log, candidates of its requests included.

    Raises LogReadError where it can't be read, and TableError where it has no event.
    """
    items: set[str | None] = set()
    users: set[str | None] = set()
    first_ms: int | None = None
    with closing(LogReader(path)) as log:
        for block in log:
            for record in block:
                try:
                    event = _DECODE(record.value or b"")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    continue  # replay will say why
                first_ms = event.ts if first_ms is None else first_ms
                items.add(event.item)
                users.add(event.user)
                for each in event.candidates:
                    items.add(each if isinstance(each, str) else each.get("item") if isinstance(each, dict) else None)
    if first_ms is None:
        raise TableError(f"{path} has no event in Thalweg's own form: `thalweg import` makes a log of your events")
    named = [{each for each in found if isinstance(each, str)} for found in (items, users)]
    return Occurring(named[0], named[1], first_ms)


@dataclass(frozen=True, kw_only=True, slots=True)
class FactColumns:
    """Which column of a table of facts is what.

    Parameters
    ----------
    about, key
        Whom a row is about, and the column of that id.
    fields
        Each field's name and its column.
    split, text, number, keep_null_words
        How they are read, as in `importing.Columns`.

    """

    about: About
    key: str
    fields: tuple[tuple[str, str], ...]
    split: tuple[tuple[str, str], ...] = ()
    text: tuple[str, ...] = ()
    number: tuple[str, ...] = ()
    keep_null_words: bool = False


class FactTable:
    """Facts about those who occur in a log, an event a row, all at one time.

    `facts` is how many there are. `notes` tells, a line each, what was decided that the table's owner may not expect.

    Parameters
    ----------
    path
        The table; an empty value is a fact that is not known.
    columns
        Which column is what.
    occurring
        Ids in the log: rows about others are left out. None takes every row.
    ts_ms
        From when on the facts are known.
    configuration
        The fold's that will read the log: its limits hold.

    Raises
    ------
    TableError
        The table can't be read, two rows are about one id, or replay would not take a fact; the row is named.

    """

    def __init__(
        self, path: Path, columns: FactColumns, occurring: set[str] | None, ts_ms: int, configuration: Configuration
    ) -> None:
        """Read and check the table; the parameters are the class's."""
        self._configuration, self._about, self._ts_ms = configuration, columns.about, ts_ms
        limits, keep = configuration.limits, columns.keep_null_words
        file = read_table(path, list(dict.fromkeys((columns.key, *(column for _, column in columns.fields)))))
        owners = ids(file.table, columns.key, limits.id_bytes, keep_null_words=keep)
        refuse_repeated(owners, columns.key, advice=f"a table has one row for each {columns.about}")
        rules = ContextRules(frozenset(columns.text), frozenset(columns.number), dict(columns.split), keep, limits)
        self.notes: list[str] = []
        self._fields: dict[str, Any] = {}
        for name, column in columns.fields:
            self._fields[name], note = context_column(file, column, rules)
            self.notes += [note] if note else []
        is_known = np.ones(len(owners), bool)
        if occurring is not None:
            wanted = pa.array(list(occurring), TEXT)
            is_known = pc.is_in(owners, value_set=wanted).to_numpy(zero_copy_only=False)
            self.notes.append(
                f"facts about {is_known.sum():,} of the log's {len(occurring):,} {columns.about}s; "
                f"{(~is_known).sum():,} rows are about others and left out"
            )
        self._owners, self._rows = owners, np.flatnonzero(is_known)
        self.facts = len(self._rows)
        self._refuse_what_replay_refuses(path)

    def blocks(self) -> Iterator[bytes]:
        """Give the facts, some thousands of lines at a time."""
        for start in range(0, self.facts, FACTS_A_BLOCK):
            yield data_of(self._lines(self._rows[start : start + FACTS_A_BLOCK]))

    def _lines(self, rows: Any) -> Any:
        """Return rows as lines, large_string [rows]."""
        chosen = pa.array(rows)
        names = list(self._fields)
        fields = objects(names, [values(self._fields[name].take(chosen)) for name in names], len(rows))
        owners = quoted(self._owners.take(chosen))
        return joined(
            f'{{"type":"{self._about}","id":',
            quoted(joined(f"facts-{self._about}-", chosen.cast(TEXT))),
            f',"{self._about}":',
            owners,
            f',"ts":{self._ts_ms},"fields":',
            fields,
            "}\n",
        )

    def _refuse_what_replay_refuses(self, path: Path) -> None:
        """Raise TableError where replay would refuse a fact, or forget it for another one."""
        if self._about == "item" and self.facts > self._configuration.facts.items_limit:
            raise TableError(
                f"{path} has facts about {self.facts:,} items, at most {self._configuration.facts.items_limit:,} are "
                "kept (facts.items_limit): raise it here and in replay"
            )
        columnizer = Columnizer(self._configuration, new_state(self._configuration).names, 0, 0)
        for start in range(0, self.facts, FACTS_A_BLOCK):
            rows = self._rows[start : start + FACTS_A_BLOCK]
            lines = data_of(self._lines(rows)).splitlines()
            block = columnizer.columns([LogRecord(place, line) for place, line in enumerate(lines)])
            if block.details:
                place = min(block.details)
                raise TableError(f"{path}: row {rows[place]} makes no usable fact: {block.details[place]}")

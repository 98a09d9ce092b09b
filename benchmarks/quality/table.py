"""The collisionless table by itself, timed: an operation's cost by size, the longest insertion, and ever new ids.

Times depend on the machine and on what else it does; the longest insertion is also given in the thread's own time,
which what else the machine does cannot lengthen.
"""

import gc
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.snapshot import arrays_of, used
from thalweg.operators.fold.state import State, new_state
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.reserve import reserved_bytes
from thalweg.operators.structures.index import BUCKET_CELLS, Size
from thalweg.operators.structures.pool import Stock
from thalweg.operators.structures.table import Loss, Table, claim_row, find_row, new_table, release_row
from thalweg.schemas.records import LogRecord
from thalweg.streams.configuration.loading import load
from thalweg.streams.partition.partition import Partition

from benchmarks.quality.tables import Options

SIZES = (100_000, 1_000_000, 10_000_000)
AT_ONCE = 8
NEVER_MS = np.array([1 << 60], np.int64)
EVER_NEW = (1_000_000, 10_000_000)
EVER_NEW_FLAGS = [
    "table.expire_time_ms=60000",
    "behaviors.expire_time_ms=60000",
    "joiner.attribution_window_ms=10000",
    "joiner.late_window_ms=10000",
]
BLOCK = 10_000
STEP_MS = 10

ROW_PARTS = {
    "index": ("features.lookup.",),
    "table": ("features.",),
    "owner": ("private.owner", "private.next", "private.previous"),
    "learned": ("learner.features", "learner.rates."),
}

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]


@compiled
def claim_all(table: Table, keys: Keys, rows: Rows) -> None:
    """Give each key a row, and write which."""
    for i in range(keys.shape[0]):
        rows[i] = claim_row(table, keys[i], 0, 1)


@compiled
def find_all(table: Table, keys: Keys, rows: Rows, expire_time_ms: npt.NDArray[np.int64]) -> None:
    """Write each key's row, or -1."""
    for i in range(keys.shape[0]):
        rows[i] = find_row(table, keys[i], 1, expire_time_ms)


@compiled
def release_all(table: Table, rows: Rows) -> None:
    """Free rows."""
    for i in range(rows.shape[0]):
        release_row(table, rows[i])


def tables(options: Options) -> str:
    """Return what the table costs in time and in bytes; no log is needed."""
    del options
    return "\n".join([*by_size(), "", *longest_insertion(), "", *bytes_of_a_row(), "", *ever_new()])


def distinct_keys(first: int, count: int) -> Keys:
    """Return different keys without a sort: SplitMix64's mixing of counters, which is one to one."""
    keys = np.arange(first + 1, first + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ keys >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ keys >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return keys ^ keys >> np.uint64(31)


def by_size() -> list[str]:
    """Return nanoseconds an operation, and how full the index is, at each size."""
    out = ["| ids | insert | find | absent | free and insert another | load factor |", "|---|---|---|---|---|---|"]
    for count in (1_000, *SIZES):  # the first one compiles
        keys, others = distinct_keys(0, count), distinct_keys(count, count)
        table = new_table(count, 1)
        rows, found, absent = (np.empty(count, np.int64) for _ in range(3))
        started = [time.perf_counter_ns()]
        claim_all(table, keys, rows)
        started += [time.perf_counter_ns()]
        find_all(table, keys, found, NEVER_MS)
        started += [time.perf_counter_ns()]
        find_all(table, others, absent, NEVER_MS)
        started += [time.perf_counter_ns()]
        load_factor = float(table.lookup.size[Size.COUNT] / (BUCKET_CELLS * table.lookup.size[Size.BUCKETS]))
        assert np.array_equal(found, rows), "an id was lost"
        assert np.array_equal(table.key[rows], keys), "two ids share a row"
        assert (absent == -1).all(), "an absent id was found"
        between = time.perf_counter_ns()
        release_all(table, rows)
        claim_all(table, others, rows)
        reuse_ns = time.perf_counter_ns() - between
        assert np.array_equal(table.key[rows], others), "two ids share a row"
        ns = [*np.diff(started), reuse_ns]
        if count >= SIZES[0]:
            shown = " | ".join(f"{each / count:.0f} ns" for each in ns)
            out += [f"| {count:,} | {shown} | {load_factor:.3f} |".replace(",", " ")]
    return out


def longest_insertion() -> list[str]:
    """Return the longest time that a few insertions took while a table grew to its largest size, growth included."""
    count = SIZES[-1]
    keys = distinct_keys(0, count).reshape(-1, AT_ONCE)
    table, rows = new_table(count, 1), np.empty(AT_ONCE, np.int64)
    wall_ns, own_ns = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    gc.collect()
    for number, few in enumerate(keys):
        started, own_started = time.perf_counter_ns(), time.thread_time_ns()
        claim_all(table, few, rows)
        own_ns[number] = time.thread_time_ns() - own_started
        wall_ns[number] = time.perf_counter_ns() - started
    out = [f"Growing to {count:,} ids, {AT_ONCE} insertions at a time:".replace(",", " "), ""]
    out += ["| | median | 99.9% | longest |", "|---|---|---|---|"]
    for name, ns in (("the thread's time", own_ns), ("wall clock", wall_ns)):
        median, most, longest = np.quantile(ns, [0.5, 0.999, 1.0]) / 1e6
        out += [f"| {name} | {median:.4f} ms | {most:.3f} ms | {longest:.2f} ms |"]
    return out


def row_bytes(state: State) -> dict[str, int]:
    """Return the bytes of all rows of values that were ever used, by part: index, table, owner, what is learned."""
    found: dict[str, list[Any]] = {part: [] for part in ROW_PARTS}
    for name, array in arrays_of(used(state)):
        part = next((part for part, names in ROW_PARTS.items() if name.startswith(names)), None)
        if part is not None:
            found[part].append(array)
    return {part: reserved_bytes(arrays) for part, arrays in found.items()}


def bytes_of_a_row() -> list[str]:
    """Return what one more value costs at the defaults."""
    configuration = Configuration()
    rows = 1_000_000
    state = new_state(configuration)
    claim_all(state.features, distinct_keys(0, rows), np.empty(rows, np.int64))
    sizes = row_bytes(state)
    sizes["table"] += rows * state.features.pool.freed.itemsize  # each is freed at some time
    told = ", ".join(f"{name} {size / rows:.1f}" for name, size in sizes.items())
    return [f"Bytes a row at the defaults: {sum(sizes.values()) / rows:.1f} ({told})."]


def ever_new() -> list[str]:
    """Return what a partition holds while every impression is of a user and an item that never were before."""
    partition = Partition(load(None, environment={}, flags=EVER_NEW_FLAGS).configuration)
    shown = b'{"type":"impression","id":"%d","user":"u%d","item":"i%d","ts":%d,"context":{}}'
    out = ["Impressions of ever new users and items, a hundred a second, forgotten after a minute:", ""]
    out += ["| ids so far | rows ever used | users ever used | rows expired | resident |", "|---|---|---|---|---|"]
    for first in range(0, EVER_NEW[-1] // 2, BLOCK):
        block = [LogRecord(n, shown % (n, n, n, 1_700_000_000_000 + n * STEP_MS)) for n in range(first, first + BLOCK)]
        partition.process(block)
        ids = 2 * (first + BLOCK)
        if ids in EVER_NEW:
            out += [ever_new_row(ids, partition.state)]
    return out


def ever_new_row(ids: int, state: State) -> str:
    """Return a line of the table of ever new ids."""
    rows, users = (int(table.pool.counts[Stock.EVER_USED]) for table in (state.features, state.users))
    expired = int(state.features.counts[Loss.EXPIRED])
    return f"| {ids:,} | {rows:,} | {users:,} | {expired:,} | {resident_bytes() / 2**20:.1f} MiB |".replace(",", " ")


def resident_bytes() -> int:
    """Return what of this process lies in memory, without what is shared with files."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024

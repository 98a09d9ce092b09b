"""Monolith's questions: what the frequency filter saves and costs, what collisions cost, whether sampling biases.

Collisions as in the paper's experiment: ids are hashed into too few, so that those that collide are one to the table.
That is done to the log, for users and items alike, before it is replayed; nothing of it is in the product.
"""

import gc
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec.structs import replace
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.structures.table import rows_by_key
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord

from benchmarks.quality.replays import Run, replayed
from benchmarks.quality.table import row_bytes
from benchmarks.quality.tables import HEADER, Options, row, said
from benchmarks.real_logs import RealLog

THRESHOLDS = (2, 5, 10)
SHARES = (0.077, 0.3, 0.6)
RATES = (0.5, 0.1)
SEED = field_seed("collisions", 0)


def tables(options: Options) -> str:
    """Return three tables for each log; they share the replay with the defaults."""
    out: list[str] = []
    for log in options.logs():
        records = log.records()
        base = replayed(log, records)
        out += [f"### {log.name}", "", *filtered(log, records, base), ""]
        out += [*collided(log, records, base), "", *sampled(log, records, base), ""]
        gc.collect()
    return "\n".join(out)


def filtered(log: RealLog, records: Sequence[LogRecord], base: Run) -> list[str]:
    """Return rows, bytes and figures by `occurrence_threshold`."""
    out = ["Rows after so many sightings (`table.occurrence_threshold`); bytes are of rows, index and filter:", ""]
    out += ["| threshold | rows | MB | saved | AUC / logloss | first of each page | calibration |"]
    out += ["|---|---|---|---|---|---|---|"]
    whole = sum(row_bytes(base.state).values())
    for threshold in (1, *THRESHOLDS):
        run = base if threshold == 1 else replayed(log, records, [f"table.occurrence_threshold={threshold}"])
        filter_bytes = sum(array.nbytes for array in run.state.admission) if threshold > 1 else 0
        size = sum(row_bytes(run.state).values()) + filter_bytes
        told = "0, 1" if threshold == 1 else str(threshold)
        counts = f"{len(rows_by_key(run.state.features)):,} | {size / 1e6:.1f} | {1 - size / whole:.0%}".replace(
            ",", " "
        )
        out += [row(f"{told} | {counts}", run.figures)]
        del run
        gc.collect()
    return out


def collided(log: RealLog, records: Sequence[LogRecord], base: Run) -> list[str]:
    """Return figures by the share of users who collide with another."""
    out = ["Ids hashed into too few; the paper has 7.7% of users and 2.9% of items colliding:", ""]
    out += [
        "| ids | users, items colliding | AUC / logloss | first of each page | calibration |",
        "|---|---|---|---|---|",
    ]
    out += [row("collisionless | 0, 0", base.figures)]
    users, items = ids_of(records)
    for share in SHARES:
        size = size_for(len(users), share)
        colliding = ", ".join(f"{share_colliding(ids, size):.1%}" for ids in (users, items))
        run = replayed(log, hashed(records, size))
        out += [row(f"{size} | {colliding}", run.figures)]
        del run
        gc.collect()
    return out


def sampled(log: RealLog, records: Sequence[LogRecord], base: Run) -> list[str]:
    """Return figures by `negative_sample_rate`."""
    out = ["Negatives sampled, the log-odds corrected:", "", HEADER, row("all negatives", base.figures)]
    for rate in RATES:
        flags = [f"joiner.negative_sample_rate={rate}"]
        out += [row(said(flags), replayed(log, records, flags).figures)]
        gc.collect()
    return out


def ids_of(records: Iterable[LogRecord]) -> tuple[set[str], set[str]]:
    """Return the users and the items of a log's impressions."""
    users: set[str] = set()
    items: set[str] = set()
    for record in records:
        event = decode_plain(record.value or b"")
        if isinstance(event, Impression):
            users.add(event.user)
            items.add(event.item)
    return users, items


def size_for(ids: int, share: float) -> int:
    """Return into how many `ids` must be hashed for this share of them to meet another."""
    return round(1 / (1 - (1 - share) ** (1 / (ids - 1))))


def place_of(name: str, size: int) -> str:
    """Return the id that stands for all that collide with `name` among `size`."""
    return str(key_of(name, SEED) % size)


def share_colliding(ids: set[str], size: int) -> float:
    """Return the share of ids that share their place with another."""
    counts = np.array(list(Counter(place_of(one, size) for one in ids).values()))
    return float(counts[counts > 1].sum() / counts.sum())


def hashed(records: Iterable[LogRecord], size: int) -> list[LogRecord]:
    """Return a log whose users and items are hashed into `size` each; other fields are as they were."""
    out: list[LogRecord] = []
    for record in records:
        event = decode_plain(record.value or b"")
        if isinstance(event, Impression | Feedback):
            event = replace(event, user=place_of(event.user, size), item=place_of(event.item, size))
        out.append(record._replace(value=encode_event(event)))
    return out

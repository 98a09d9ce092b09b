"""What a partition keeps resident, in a process of its own: `empty`, or `endless` with ever new users and items."""

import gc
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

BLOCK_EVENTS = 1_000
EARLY_EVENTS = 200_000


def resident_bytes() -> int:
    """Return what of this process lies in memory, without what is shared with files."""
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def narrow() -> Configuration:
    """Return the narrowest limits: everything is full after a few thousand events."""
    c = Configuration()
    return replace(
        c,
        features=replace(c.features, context=("tab",), fields_limit=3, values_limit=4),
        table=replace(c.table, rows_limit=4_096, occurrence_threshold=2, filter_cells=4_096),
        behaviors=replace(c.behaviors, users_limit=2_048, short_length=4),
        sdim=replace(c.sdim, groups=2, tau=2, histories_limit=64),
        joiner=replace(c.joiner, waiting_limit=512, feedback_limit=256, text_bytes=1 << 19),
        learner=replace(c.learner, latent_size=2, cross_pairs_limit=1_024),
        error_memory=replace(c.error_memory, arrays=1, bits=4),
    )


def endless(events: int) -> Iterator[list[LogRecord]]:
    """Give blocks of events: each four a new user with new items; the last is a click, now and then on nothing."""
    shown = b'{"type":"impression","id":"%d","user":"u%d","item":"i%d","ts":%d,"context":{"tab":"t%d"}}'
    clicked = b'{"type":"feedback","id":"%d:c","impression":"%d","user":"u%d","item":"i%d","ts":%d,"action":"click"}'
    for first in range(0, events, BLOCK_EVENTS):
        block = []
        for offset in range(first, first + BLOCK_EVENTS):
            user, part = divmod(offset, 4)
            # Every fifth block comes all at once, and more than may wait.
            ts = START_MS + (offset // 5_000 * 5_000 + min(offset % 5_000, 4_000)) * 1_000
            if part == 3:
                # Mostly on an impression just shown; now and then on an old one, and on one that will never be.
                of = {0: offset, 1: offset - 642}.get(user % 50, offset - 2)
                value = clicked % (offset, of, of // 4, of // 4, ts)
            else:
                value = shown % (offset, user, user - part, ts, offset if part == 2 else 1)
            block.append(LogRecord(offset, value))
        yield block


def measure_endless(events: int) -> dict[str, int]:
    """Return bytes resident after EARLY_EVENTS and after all, and what became of the events."""
    partition = Partition(narrow())
    measured: dict[str, int] = {}
    folded = 0
    for block in endless(events):
        partition.process(block)
        folded += len(block)
        assert int(partition.state.fates.sum()) == folded
        if folded in (EARLY_EVENTS, events):
            measured[f"resident_{folded}"] = resident_bytes()
            measured[f"state_{folded}"] = state_bytes(partition.state)
    state = partition.state
    return measured | {
        "evicted": int(state.features.counts[0]),
        "users_evicted": int(state.users.counts[0]),
        "scored": int(state.fates[Fate.SCORED]),
        "orphaned": int(state.fates[Fate.ORPHANED]),
        "late": int(state.fates[Fate.LATE]),
        "labelled": int(state.tallies[Tallied.LABELLED]),
        "closed_unlearned": int(state.tallies[Tallied.CLOSED_UNLEARNED]),
    }


def measure_empty() -> dict[str, int]:
    """Return bytes resident beside the program with an empty partition at the defaults, its code loaded."""
    Partition(narrow()).warm_up()
    before = resident_bytes()
    partition = Partition(Configuration())
    partition.warm_up()
    return {"resident": resident_bytes() - before, "state": state_bytes(partition.state)}


if __name__ == "__main__":
    measured = measure_empty() if sys.argv[1] == "empty" else measure_endless(int(sys.argv[2]))
    print(json.dumps(measured | {"pid": os.getpid()}))  # noqa: T201

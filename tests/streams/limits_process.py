"""A log that fills every limit of a partition to the brim and goes on: prints what was full, and the state's digest.

Arguments: how many events, and the occurrence threshold (at 1 rows run out, above it the frequency filter is full).
In a process of its own, so that `NUMBA_BOUNDSCHECK=1` holds for all that is compiled.
"""

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace

from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES, TALLIES
from thalweg.operators.fold.room import has_page_room
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.operators.fold.state import State
from thalweg.operators.objectives import ObjectiveConfiguration, ObjectivesConfiguration
from thalweg.operators.structures.index import Size
from thalweg.operators.structures.pool import available
from thalweg.schemas.events import Erase, Event, Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.streams.crafted import colliding_ids
from tests.streams.private_state import unwiped

CRAFTED = 100


SEVERAL = 3
"""The occurrence threshold beside which there are several objectives."""


def narrowest(threshold: int) -> Configuration:
    """Return limits that a few hundred events fill, all of them."""
    c = Configuration()
    named = {
        "click": ObjectiveConfiguration(actions=("click",), window_ms=60_000),
        "pause": ObjectiveConfiguration(actions=("pause",), window_ms=20_000, weight="value"),
    }
    return replace(
        c,
        objectives=ObjectivesConfiguration(named=named if threshold == SEVERAL else {}),
        features=replace(
            c.features, crosses=(("user", "tab"),), fields_limit=6, values_limit=10, hour_of_day=True, emit=True
        ),
        table=replace(
            c.table, rows_limit=1_024, filter_cells=64, occurrence_threshold=threshold, expire_time_ms=400_000
        ),
        behaviors=replace(
            c.behaviors, users_limit=192, short_length=2, kinds=("acted", "skipped"), expire_time_ms=400_000
        ),
        sdim=replace(c.sdim, groups=2, tau=2, histories_limit=4, window_behaviors=8, window_ms=60_000),
        joiner=replace(
            c.joiner,
            waiting_limit=128,
            feedback_limit=48,
            feedbacks_per_impression=4,
            text_bytes=1 << 18,
            attribution_window_ms=60_000,
            late_window_ms=60_000,
            user_share=1.0,
        ),
        learner=replace(c.learner, latent_size=2, cross_rank=2, cross_pairs_limit=1_024),
        error_memory=replace(c.error_memory, arrays=1, bits=3),
        facts=replace(c.facts, items_limit=64, items_bytes=1 << 16, users_bytes=1 << 16),
    )


def overfull(count: int) -> Iterator[LogRecord]:
    """Give events that are too many of everything: users, values, names, text, feedback, and ids that collide."""
    chance = random.Random(3)
    crafted = {field: list(colliding_ids(field, CRAFTED)) for field in ("user", "item", "impression")}
    shown: list[tuple[str, str, str]] = []
    ts = START_MS
    for offset in range(count):
        phase = offset * 12 // count
        ts += chance.choice((0, 0, 100, 1_000)) if phase % 3 else 10
        ts += 500_000 if chance.random() < 0.001 else 0
        user, item = f"user-{chance.randrange(20 if phase % 2 else 4_000)}", f"item-{chance.randrange(3_000)}"
        if phase in (4, 10):
            user, item = (chance.choice(crafted[field]) for field in ("user", "item"))
        known = chance.choice(crafted["impression"]) if phase in (5, 11) else f"{user}/{chance.randrange(40)}"
        context = {"tab": chance.randrange(5), f"name-{chance.randrange(40)}": ["v" * 250, str(offset), "é" * 120]}
        choice = chance.random()
        if shown and choice < 0.3:
            known, user, item = chance.choice(shown[-30:])
        elif choice >= 0.42:
            shown.append((known, user, item))
        of = known if choice < 0.3 else f"never-{chance.randrange(300)}"
        event: Event = Impression(known, user, item, ts - chance.choice((0, 0, 50_000, 10**9)), context)
        if choice < 0.4 and phase not in (1, 7):
            event = Feedback.of(f"{of}:{chance.randrange(6)}", of, user, item, ts, chance.choice(("click", "pause")))
        elif choice < 0.41:
            event = Erase(str(offset), user, ts)
        elif choice < 0.42:
            event = Impression(known, user, item, ts + 10**9, context)
        value = encode_event(event)
        padding = 60_000 if choice > 0.99 or (choice < 0.4 and chance.random() < 0.02) else 0
        headers = (("trace", b"\xff" * 190_000),) if choice < 0.002 else ()
        yield LogRecord(offset, value[:-1] + b',"unknown":"%s"}' % (b"x" * padding), None, headers)


def full(state: State) -> set[str]:
    """Return the names of the limits that are reached right now."""
    waiting, histories = state.waiting, state.behaviors.histories
    pools = {"users": state.users.pool, "waiting": waiting.pool}
    pools |= {"feedback": waiting.feedbacks.pool, "histories": histories.pool}
    found = {name for name, pool in pools.items() if available(pool) == 0}
    # What is free of these is kept for a page that begins; behind its rows there is less.
    tables = {"rows": state.features, "pairs": state.cross.pairs}
    found |= {name for name, table in tables.items() if not has_page_room(table)}
    # Of text there is always less free than the longest record needs.
    found |= {"text"} if available(waiting.texts.pool) < 1_024 else set()
    found |= {"names"} if state.names[-1].any() else set()
    indices = {"rows": state.features.lookup, "users": state.users.lookup, "waiting": waiting.lookup}
    found |= {
        f"stash of {name}" for name, index in indices.items() if index.size[Size.STASHED] == len(index.stash_keys)
    }
    return found | ({"sightings"} if state.admission.counts.all() else set())


def run(events: int, threshold: int) -> dict[str, object]:
    """Fold the log in small blocks and return what was full in each half of it, and what it came to."""
    partition = Partition(narrowest(threshold), block_events=50)
    halves: list[set[str]] = [set(), set()]
    sizes = [0, 0]
    records = list(overfull(events))
    for first in range(0, events, 50):
        partition.process(records[first : first + 50])
        half = 2 * first // events
        halves[half] |= full(partition.state)
        sizes[half] = state_bytes(partition.state)
        assert int(partition.state.fates.sum()) == min(first + 50, events)
        if first % 500 == 0:
            assert unwiped(partition.state) == []
            partition = Partition(narrowest(threshold), block_events=50, arrays=partition.snapshot())
    partition.close_all()
    return {
        "full": [sorted(half) for half in halves],
        "bytes": sizes,
        "fates": dict(zip(FATES, partition.state.fates.tolist(), strict=True)),
        "tallies": dict(zip(TALLIES, partition.state.tallies.tolist(), strict=True)),
        "freed": [partition.state.features.counts.tolist(), partition.state.users.counts.tolist()],
        "digest": partition.digest(),
    }


if __name__ == "__main__":
    print(json.dumps(run(*map(int, sys.argv[1:]))))  # noqa: T201

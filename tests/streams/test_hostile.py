"""Who wants to do harm costs no more than ten benign users, takes no more memory, and moves nobody else's state."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import msgspec
import numpy as np
import pytest
from thalweg.operators.fold.fates import FATES
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.structures.index import BUCKET_CELLS, Index, Size, find
from thalweg.operators.structures.table import Loss
from thalweg.schemas.events import Erase, Event, Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.streams.attacks import attacks
from tests.streams.crafted import colliding_ids, id_of
from tests.streams.logs_for_tests import small
from tests.streams.private_state import private_state, unwiped

EVENTS = 16_000
BLOCK = 2_000
ATTACKS = attacks()


def recorded(events: Sequence[Event], first: int) -> list[LogRecord]:
    return [LogRecord(first + n, encode_event(event)) for n, event in enumerate(events)]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_less_than_ten_benign_events_each(name: str) -> None:
    """The events of an attack must take less than ten times as long as benign ones, and no memory beyond the limits."""
    c = small(rows=4_096, users=2_048, waiting=1_024)
    c = replace(c, learner=replace(c.learner, cross_pairs_limit=4_096))
    partitions = [Partition(c) for _ in range(2)]
    logs = [ATTACKS[name].hostile(), ATTACKS[name].benign()]
    seconds: list[list[float]] = [[], []]
    sizes = []
    for first in range(0, EVENTS, BLOCK):
        for partition, log, spent in zip(partitions, logs, seconds, strict=True):
            records = recorded(list(islice(log, BLOCK)), first)
            started = time.thread_time()
            partition.process(records)
            spent.append(time.thread_time() - started)
            assert int(partition.state.fates.sum()) == first + BLOCK
        sizes.append(state_bytes(partitions[0].state))
    hostile, benign = map(np.median, seconds)
    assert hostile < 10 * benign, seconds
    assert sizes[-1] <= 1.05 * sizes[len(sizes) // 2 - 1], sizes
    state = partitions[0].state
    assert all(np.isfinite(each).all() for each in (state.learner.features, state.learner.pairs, state.learner.dense))
    assert unwiped(state) == []


def test_ids_of_one_bucket_fill_it_and_the_stash_and_nothing_else() -> None:
    """Beyond bucket and stash crafted users must be refused, and all others found, admitted and evicted as ever."""
    partition = Partition(small())
    count = 200
    crafted = list(colliding_ids("user", count))
    benign = [f"user-{n}" for n in range(800)]
    events = [Impression(str(n), user, "film", START_MS + n, {}) for n, user in enumerate([*crafted, *benign])]
    outputs = partition.process(recorded(events, 0))
    reasons = {dict(letter.headers)["thalweg.reason"] for letter in outputs.dead_letters}
    lookup = partition.state.users.lookup
    held = BUCKET_CELLS + len(lookup.stash_keys)
    assert reasons == {b"no_room"}
    assert len(outputs.dead_letters) == count - held == partition.state.users.counts[Loss.REFUSED]
    assert lookup.size[Size.STASHED] == len(lookup.stash_keys)
    assert sum(known(lookup, user) for user in crafted) == held
    # The values of refused users were never asked for; all 1 024 rows of users are not taken yet.
    assert all(known(lookup, user) for user in benign)
    # Erased, they leave the stash to others, and the next of their kind find room again.
    erases = [Erase(f"e{n}", user, START_MS + 2_000) for n, user in enumerate(crafted)]
    partition.process(recorded(erases, 2_000))
    assert lookup.size[Size.STASHED] == 0
    assert not any(known(lookup, user) for user in crafted)
    again = [Impression(f"again-{n}", user, "film", START_MS + 2_000, {}) for n, user in enumerate(crafted[-held:])]
    assert len(partition.process(recorded(again, 4_000)).scores) == held
    assert unwiped(partition.state) == []


def known(lookup: Index, user: str) -> bool:
    """Tell whether a user has a row."""
    return find(lookup, np.uint64(key_of(user, field_seed("user", 0)))) >= 0


def test_a_context_field_cannot_pose_as_the_user() -> None:
    """A context field named `user` or `item` must not reach the rows of users and items, nor of a cross."""
    partition = Partition(small())
    events: list[Event] = [Impression("1", "ann", "film", START_MS, {})]
    events += [Impression(f"2{n}", "eve", "song", START_MS, {"user": "ann", "item": "film"}) for n in range(5)]
    partition.process(recorded(events, 0))
    partition.close_all()  # an exposure counts once its outcome is known
    row = find(partition.state.features.lookup, np.uint64(key_of("ann", field_seed("user", 0))))
    assert partition.state.learner.rates.sums[row, 0] == 1.0
    assert [name for name in partition.state.names[:, 0] if name] == [ord("u"), ord("i")]


def test_an_early_feedback_is_kept_with_its_headers_only_so_far() -> None:
    """Feedback whose headers would outgrow what is kept of a record must be refused, and leave all others alone."""
    partition = Partition(small())
    kept = small().limits.kept_bytes
    value = encode_event(Feedback.of("f", "1", "ann", "film", START_MS, "click"))
    records = [LogRecord(n, value, b"ann", (("trace", b"\xff" * size),)) for n, size in enumerate((kept, kept // 2))]
    (letter,) = partition.process(records).dead_letters
    assert (letter.cause.offset, dict(letter.headers)["thalweg.reason"]) == (0, b"too_large")
    other = Impression("1", "bob", "film", START_MS, {})
    (letter,) = partition.process(recorded([other], 5)).dead_letters
    assert letter.headers[0] == ("trace", b"\xff" * (kept // 2))


def bystanders() -> list[Event]:
    """Return what some benign users do."""
    events: list[Event] = []
    for n in range(400):
        user, item, ts = f"user-{n % 5}", f"item-{n % 7}", START_MS + n * 5_000
        events.append(Impression(f"{n}", user, item, ts, {"tab": n % 3}))
        if n % 3 == 0:
            events.append(Feedback.of(f"{n}:click", f"{n}", user, item, ts, "click"))
    return events


FLOODS: dict[str, Callable[[int, int], Event]] = {
    "feedback on nothing": lambda n, ts: Feedback.of(f"x{n}", f"y{n}", "eve", "item-1", ts, "click"),
    "erases of strangers": lambda n, ts: Erase(f"x{n}", f"stranger-{n}", ts),
    "feedback of another user": lambda n, ts: Feedback.of(f"x{n}", f"{n // 50}", "eve", "item-1", ts, "click"),
    "clocks ahead": lambda n, ts: Impression(f"x{n}", "eve", "item-1", ts + 40 * 86_400_000, {}),
    "too many values": lambda n, ts: Impression(f"x{n}", "eve", "item-1", ts, {"tab": [str(i) for i in range(32)]}),
    "impressions": lambda n, ts: Impression(f"x{n}", "eve", f"evil-{n}", ts, {"tab": f"evil-{n}"}),
    "crafted users": lambda n, ts: Impression(f"x{n}", f"{n}", f"evil-{n}", ts, {"tab": f"evil-{n}"}),
}


STILL = ("feedback on nothing", "erases of strangers", "feedback of another user")
"""Floods that nothing is learned of."""


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_within_the_limits_moves_nobody_else(name: str) -> None:
    """Others' labels, sequences and waiting impressions must be what they were, and their scores byte for byte.

    Impressions that are learned from move what is everybody's (the overall rate, the pairs, the dense level, the error
    memory), and so scores: of these floods only the former is asked. Limits are everybody's too: a flood beyond the
    limit of waiting impressions closes others' unlearned. A user who floods is heard by the clock as one who does not,
    so that the calm log has one record of each three.
    """
    c = small(rows=4_096, waiting=1_000)
    calm, flooded = Partition(c), Partition(c)
    crafted = [id_of(n << 32 | 7, "user") for n in range(1, 200)] if name == "crafted users" else []
    mixed: list[LogRecord] = []
    benign: list[LogRecord] = []
    for n, event in enumerate(bystanders()):
        benign.append(LogRecord(10 * n, encode_event(event)))
        mixed.append(benign[-1])
        for i in range(3):
            hostile = FLOODS[name](3 * n + i, event.ts)
            if crafted:
                hostile = msgspec.structs.replace(hostile, user=crafted[(3 * n + i) % len(crafted)])
            mixed.append(LogRecord(10 * n + 1 + i, encode_event(hostile)))
            if i == 0 and name in STILL:
                benign.append(mixed[-1])
    calm_outputs, flooded_outputs = calm.process(benign), flooded.process(mixed)
    theirs = [output for output in flooded_outputs.scores if output.cause.offset % 10 == 0]
    assert len(theirs) == len(calm_outputs.scores)
    if name in STILL:
        assert theirs == calm_outputs.scores
    users = {event.user for event in bystanders()}
    assert outcomes(flooded, flooded_outputs.examples, users) == outcomes(calm, calm_outputs.examples, users)
    hostile_keys = {key_of(user, field_seed("user", 0)) for user in {"eve", *crafted}}
    assert set(private_state(flooded.state)["users"]) - hostile_keys == (
        set(private_state(calm.state)["users"]) - hostile_keys
    )
    assert sum(dict(zip(FATES, flooded.state.fates, strict=True)).values()) == len(mixed)


def outcomes(partition: Partition, examples: Sequence[object], users: set[str]) -> list[tuple[str, int]]:
    """Return the labels of users' impressions, by id."""
    decoded = [msgspec.json.decode(output.value) for output in (*examples, *partition.close_all().examples)]  # type: ignore[attr-defined]
    return sorted((each["id"], each["label"]) for each in decoded if each["user"] in users)

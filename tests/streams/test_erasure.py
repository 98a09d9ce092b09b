"""After an erase nothing that was the user's alone is left: not in memory, not in any later checkpoint's bytes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from thalweg.operators.admission import SET_CELLS
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import Fate
from thalweg.operators.machine.hashing import cross, field_seed, key_of
from thalweg.operators.structures.table import Loss
from thalweg.schemas.events import Erase, Event, Feedback, Impression, User, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.checkpoints.format import Checkpoint, CheckpointStore, Identity, header_of
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small
from tests.streams.private_state import private_state, unwiped

ANN = "ann-whom-nobody-may-find"
STAND_IN = "stand-in"
STEPS = 400
STEP_MS = 1_000
WINDOW_MS = 60_000
TABS = 3


def configuration(threshold: int) -> Configuration:
    """Keep all that can be kept of a user: crosses, both sequences, long histories."""
    c = small(histories=64)
    return replace(
        c,
        features=replace(c.features, crosses=(("user", "tab"), ("item", "user"))),
        table=replace(c.table, occurrence_threshold=threshold, filter_cells=1 << 12),
        behaviors=replace(c.behaviors, kinds=("acted", "skipped"), short_length=2),
        joiner=replace(c.joiner, attribution_window_ms=WINDOW_MS, late_window_ms=WINDOW_MS),
        facts=replace(c.facts, items_limit=1_024, items_bytes=1 << 20, users_bytes=1 << 20),
    )


def acts(user: str, number: int, ts: int) -> Iterator[Event]:
    """Give what a user does at one step: all kinds of events, in and out of order, some of them twice."""
    item, context = f"item-{number % 5}", {"tab": number % TABS, "tags": ["a", "b"]}
    this, old, early = f"{user}/{number}", f"{user}/{number - 90}", f"{user}/{number + 7}"
    yield Impression(this, user, item, ts, context)
    if number % 2:
        yield Feedback.of(f"{this}:click", this, user, item, ts, "click")
    if number % 13 == 0:
        yield User(f"{this}:facts", user, ts, {"name": f"{user} himself", "town": ["here", user], "tags": None})
    if number % 5 == 0:
        yield Feedback.of(f"{early}:click", early, user, item, ts, "click")  # before its impression, or without any
        yield Feedback.of(f"{old}:late", old, user, item, ts, "click")
    if number % 11 == 0:
        yield Impression(this, user, item, ts, context)
        yield Feedback.of(f"{this}:click", this, user, item, ts, "click")
        yield Feedback.of(f"{user}/none/{number}:click", f"{user}/none/{number}", user, item, ts, "click")


def log() -> list[tuple[int, str, Event]]:
    """Return offsets, users and events: Ann among others, who set the time and do everything that she does."""
    events: list[tuple[str, Event]] = []
    for number in range(STEPS):
        ts = START_MS + number * STEP_MS
        users = [f"user-{number % 3}", f"user-{number % 7 + 3}"] + [ANN] * (number % 4 != 3)
        events += [(user, event) for user in users for event in acts(user, number, ts)]
    return [(offset, user, event) for offset, (user, event) in enumerate(events)]


def keys_of(threshold: int) -> dict[str, int]:
    """Return every 64-bit key that is Ann's alone, by what it is of."""
    seed = {name: field_seed(name, 0) for name in ("user", "item", "tab", "impression", "feedback")}
    ann = key_of(ANN, seed["user"])
    found = {"user": ann}
    for tab in range(TABS):
        key = cross(np.uint64(ann), np.uint64(key_of(str(tab), seed["tab"])), np.uint64(field_seed("user*tab", 0)))
        found[f"user*tab {tab}"] = int(key)
    for _, user, event in log():
        if user == ANN and isinstance(event, Impression | Feedback):
            kind = "impression" if isinstance(event, Impression) else "feedback"
            found[f"{kind} {event.id}"] = key_of(event.id, seed[kind])
    return found


@pytest.mark.parametrize("threshold", [1, 2])
def test_an_erased_user_never_was(threshold: int, tmp_path: Path) -> None:
    """All that is private must be as in a log without the user, at once and later, and no byte may speak of them.

    Time is what users have reached: in that log a stand-in has something to say whenever the user has, and goes too.
    """
    c = configuration(threshold)
    with_ann, without = Partition(c), Partition(c)
    records = [(user, LogRecord(offset, encode_event(event))) for offset, user, event in log()]
    with_ann.process([record for _, record in records])
    without.process([record if user != ANN else stand_in(record) for user, record in records])
    assert all(with_ann.state.fates[fate] > without.state.fates[fate] for fate in (Fate.JOINED, Fate.LATE, Fate.EARLY))
    assert private_state(with_ann.state) != private_state(without.state)
    secrets = {"id": ANN.encode()} | {name: key.to_bytes(8, "little") for name, key in keys_of(threshold).items()}
    before = checkpoint_of(with_ann, tmp_path / "before", len(records))
    assert found_in(before, secrets) > {"id", "user"}
    ts = START_MS + STEPS * STEP_MS
    with_ann.process([LogRecord(len(records), encode_event(Erase("erase", ANN, ts)))])
    without.process([LogRecord(len(records), encode_event(Erase("erase", STAND_IN, ts)))])
    for step in range(4):
        assert private_state(with_ann.state) == private_state(without.state)
        assert unwiped(with_ann.state) == []
        saved = checkpoint_of(with_ann, tmp_path / str(step), len(records) + 1 + step)
        assert found_in(saved, secrets) == set()
        assert not remembers_sightings(with_ann, keys_of(threshold)["user"])
        # The others go on, into what was freed.
        more = [event for n in range(20) for event in acts(f"user-{step}", 1_000 + 20 * step + n, ts + step * STEP_MS)]
        later = [LogRecord(10_000 * (step + 1) + n, encode_event(event)) for n, event in enumerate(more)]
        with_ann.process(later)
        without.process(later)
    for partition in (with_ann, without):
        partition.close_all()
    assert private_state(with_ann.state) == private_state(without.state)


def stand_in(record: LogRecord) -> LogRecord:
    """Return a record at the same time that moves nothing but time: the same feedback on what was never shown."""
    ts = json.loads(record.value or b"")["ts"]
    return record._replace(value=encode_event(Feedback.of("same", "nothing", STAND_IN, "nothing", ts, "none")))


def checkpoint_of(partition: Partition, folder: Path, next_offset: int) -> bytes:
    """Return the bytes of a partition's checkpoint, with the arrays whole: also what is reserved and not used."""
    identity = Identity("interactions", 0, partition.configuration)
    header = header_of(identity, next_offset, partition.digest(), last_record=b"erase")
    return CheckpointStore(folder).save(Checkpoint(header, partition.snapshot())).read_bytes()


def found_in(content: bytes, secrets: dict[str, bytes]) -> set[str]:
    """Return the names of the secrets whose bytes occur; those of eight bytes are looked for all at once."""
    keys = np.sort(np.frombuffer(b"".join(secret for secret in secrets.values() if len(secret) == 8), "<u8"))
    present: set[int] = set()
    for at in range(8):
        words = np.frombuffer(content, "<u8", (len(content) - at) // 8, at)
        nearest = keys[np.minimum(np.searchsorted(keys, words), len(keys) - 1)]
        present |= set(words[words == nearest].tolist())
    return {
        name
        for name, secret in secrets.items()
        if (int.from_bytes(secret, "little") in present if len(secret) == 8 else secret in content)
    }


def remembers_sightings(partition: Partition, key: int) -> bool:
    """Tell whether the frequency filter holds a count for a key."""
    admission = partition.state.admission
    at = key % len(admission.tags)
    assert admission.tags.shape[1] == SET_CELLS
    return bool(((admission.tags[at] == key >> 32) & (admission.counts[at] > 0)).any())


def test_the_clock_forgets_an_erased_user() -> None:
    """The hash of a user that the clock was read from is the user's too."""
    partition = Partition(small())
    key = key_of(ANN, field_seed("user", 0))
    far = START_MS + 400 * 86_400_000
    events = [Impression("1", "bob", "film", START_MS, {}), Impression("2", ANN, "film", far, {})]
    partition.process([LogRecord(n, encode_event(event)) for n, event in enumerate(events)])
    assert key in partition.state.clock.witness
    partition.process([LogRecord(2, encode_event(Erase("erase", ANN, START_MS)))])
    assert key not in partition.state.clock.witness


@pytest.mark.parametrize(("users", "evicted"), [(192, "users"), (1_024, "features")])
def test_what_expires_or_is_evicted_leaves_nothing_either(users: int, evicted: str) -> None:
    """Rows that are freed by expiry, by the limits or by a full index must be wiped as well as erased ones."""
    c = configuration(1)
    c = replace(
        c,
        table=replace(c.table, rows_limit=1_024, expire_time_ms=100_000),
        behaviors=replace(c.behaviors, users_limit=users, expire_time_ms=100_000),
        joiner=replace(c.joiner, waiting_limit=128, feedback_limit=128),
    )
    partition = Partition(c)
    offset = 0
    for number in range(300):
        ts = START_MS + number * STEP_MS + number // 100 * 150_000
        block = [event for n in range(5) for event in acts(f"user-{number * 5 + n}", number, ts)]
        partition.process([LogRecord(offset + n, encode_event(event)) for n, event in enumerate(block)])
        offset += len(block)
        if number % 10 == 0:
            assert unwiped(partition.state) == []
    assert partition.state.features.counts[Loss.EXPIRED] > 0
    assert partition.state.users.counts[Loss.EXPIRED] > 0
    assert getattr(partition.state, evicted).counts[Loss.EVICTED] > 0

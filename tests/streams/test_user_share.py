"""What one user may fill of what all share: whoever floods it pays alone, and others get what they would without."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import msgspec
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES, TALLIES
from thalweg.operators.joiner import JoinerConfiguration
from thalweg.schemas.events import Event, Feedback, Impression, encode_event
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small
from tests.streams.plain_joiner import PlainJoiner
from tests.streams.private_state import unwiped

FOREVER = 1_000_000


def crowded(slots: int, feedback: int, user_share: float) -> Configuration:
    """Return limits that a few hundred events reach, with windows of a minute."""
    c = small()
    joiner = replace(
        c.joiner,
        waiting_limit=slots,
        feedback_limit=feedback,
        feedbacks_per_impression=3,
        user_share=user_share,
        attribution_window_ms=60_000,
        late_window_ms=40_000,
    )
    return replace(c, joiner=joiner)


def quarrels(seed: int, count: int) -> Iterator[Impression | Feedback]:
    """Give what some users do who know each other's impressions, one of them ten times as much as any other."""
    chance = random.Random(seed)
    ts = START_MS
    for n in range(count):
        ts += chance.choice((0, 500, 1_000, 20_000 if chance.random() < 0.1 else 0))
        user = "eve" if chance.random() < 0.7 else f"user-{chance.randrange(6)}"
        of = f"{user if chance.random() < 0.9 else 'eve'}/{chance.randrange(60)}"
        if chance.random() < 0.5:
            yield Impression(of, user, f"item-{n % 5}", ts - chance.choice((0, 0, 30_000)), {})
        else:
            yield Feedback.of(f"{of}:{chance.randrange(5)}", of, user, f"item-{n % 5}", ts, "click")


def a_sixteenth_each() -> Configuration:
    """Return small limits of which one user may fill what is the default."""
    c = small(rows=4_096, waiting=1_000)
    return replace(c, joiner=replace(c.joiner, user_share=JoinerConfiguration().user_share))


@pytest.mark.parametrize(("slots", "feedback", "user_share"), [(16, 24, 0.25), (40, 20, 0.25), (12, 12, 1.0)])
@pytest.mark.parametrize("seed", range(3))
def test_fates_are_those_of_the_plain_rules(slots: int, feedback: int, user_share: float, seed: int) -> None:
    """After every event the fates, and what went unlearned, must be those that the rules give, told again plainly."""
    partition = Partition(crowded(slots, feedback, user_share))
    shares = (int(slots * user_share), int(feedback * user_share)) if user_share < 1.0 else (FOREVER, FOREVER)
    rules = PlainJoiner(60_000, 40_000, slots, feedback, 3, *shares)
    for n, event in enumerate(quarrels(seed, 700)):
        partition.process([LogRecord(n, encode_event(event))])
        rules.process(event)
        found = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
        assert {fate: count for fate, count in found.items() if count} == +rules.fates, (n, event)
        assert sum(found.values()) == n + 1
    tallies = dict(zip(TALLIES, partition.state.tallies.tolist(), strict=True))
    for name in ("closed_unlearned", "over_user_share"):
        assert tallies[name] == rules.counts[name]
    assert bool(rules.counts["over_user_share"]) == (user_share < 1.0)
    some = ("scored", "joined", "late", "duplicate", "orphaned", "dead_lettered") if user_share < 1.0 else ("scored",)
    assert all(rules.fates[fate] for fate in some)
    assert unwiped(partition.state) == []


def calm() -> list[Event]:
    """Return what five users do within an hour, and where a flood of the sixth would hurt."""
    events: list[Event] = []
    for n in range(500):
        user, item, ts = f"user-{n % 5}", f"item-{n % 7}", START_MS + n * 6_000
        events.append(Impression(f"{n}", user, item, ts, {"tab": n % 3}))
        if n % 3 == 0:
            events.append(Feedback.of(f"{n}:click", f"{n}", user, item, ts + 1_000, "click"))
        if n % 11 == 0 and n > 130:
            # of an impression whose window has long been over, one sent again, and a click ahead of its impression
            events.append(Feedback.of(f"{n}:late", f"{n - 125}", f"user-{(n - 125) % 5}", item, ts + 2_000, "click"))
            events.append(msgspec.structs.replace(events[-2], ts=ts + 2_000))
            ahead = n + 4
            events.append(Feedback.of(f"{n}:early", f"{ahead}", f"user-{ahead % 5}", item, ts + 3_000, "click"))
    return events


LONG = {"tags": ["x" * 250 + str(n) for n in range(20)]}
FLOODS: dict[str, Callable[[int, int], Event]] = {
    "impressions": lambda n, ts: Impression(f"x{n}", "eve", f"item-{n % 7}", ts, {"tab": n % 3}),
    "long records": lambda n, ts: Impression(f"x{n}", "eve", f"item-{n % 7}", ts, LONG),
    "feedback on nothing": lambda n, ts: Feedback.of(f"x{n}", f"y{n}", "eve", "item-1", ts, "click"),
    "long feedback on nothing": lambda n, ts: Feedback.of(f"x{n}", f"y{n}", "eve", "i" * 200, ts, "c" * 100),
    "feedback on everything": lambda n, ts: (
        Impression(f"x{n // 30}", "eve", "item-1", ts, {})
        if n % 30 == 0
        else Feedback.of(f"x{n}", f"x{n // 30}", "eve", "item-1", ts, "click")
    ),
}


def outcome_of(records: list[LogRecord]) -> tuple[list[tuple[object, ...]], Partition]:
    """Return all that others than eve get: scored impressions, examples with their labels, dead letters."""
    partition = Partition(a_sixteenth_each())
    outputs = [partition.process(records), partition.close_all()]
    found: list[tuple[object, ...]] = []
    for each in outputs:
        found += [("letter", letter.value) for letter in each.dead_letters if b'"eve"' not in (letter.value or b"")]
        for kind in (each.scores, each.examples):
            decoded = [msgspec.json.decode(output.value or b"") for output in kind]
            found += [
                tuple(one.get(name) for name in ("id", "user", "item", "ts", "label", "revision", "origin"))
                for one in decoded
                if one["user"] != "eve"
            ]
    return sorted(found, key=repr), partition


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_one_user_beyond_the_limits_changes_nobody_elses_outcomes(name: str) -> None:
    """Scored impressions, joined, late and early feedback, duplicates and labels of others must be what they were."""
    flood = 12
    benign, mixed = [], []
    for n, event in enumerate(calm()):
        benign.append(LogRecord(100 * n, encode_event(event)))
        hostile = [FLOODS[name](flood * n + i, event.ts) for i in range(flood)]
        mixed += [LogRecord(100 * n + 1 + i, encode_event(each)) for i, each in enumerate(hostile)]
        mixed.append(benign[-1]._replace(offset=100 * n + flood + 1))
    # the same offset in both logs, so that origins and causes can be compared
    benign = [record._replace(offset=record.offset + flood + 1) for record in benign]
    theirs, calm_partition = outcome_of(benign)
    flooded, partition = outcome_of(mixed)
    assert flooded == theirs
    assert len(theirs) > 1_000
    counts = dict(zip(TALLIES, calm_partition.state.tallies.tolist(), strict=True))
    assert counts["late_positives"] > 20
    assert counts["over_user_share"] == counts["closed_unlearned"] == 0
    flooded_counts = dict(zip(TALLIES, partition.state.tallies.tolist(), strict=True))
    assert flooded_counts["closed_unlearned"] == 0
    assert flooded_counts["over_user_share"] or "feedback" in name
    assert unwiped(partition.state) == []


def test_what_is_beyond_a_users_share_moves_nobodys_scores() -> None:
    """A user who sends twenty times the share in a window must move others' scores as one who sends the share does."""
    share = 62
    found: list[list[tuple[str, float]]] = []
    for burst in (share, 20 * share):
        log: list[Event] = []
        for n, event in enumerate(calm()):
            if n % 220 == 0:  # a new window each
                log += [
                    Impression(f"x{n}-{i}", "eve", f"item-{i % 7}", event.ts, {"tab": i % 3} if i < share else {"z": i})
                    for i in range(burst)
                ]
            log.append(event)
        partition = Partition(a_sixteenth_each())
        outputs = partition.process([LogRecord(n, encode_event(event)) for n, event in enumerate(log)])
        scores = [msgspec.json.decode(output.value or b"") for output in outputs.scores]
        found.append([(each["id"], each["score"]) for each in scores if each["user"] != "eve"])
        assert bool(partition.state.tallies[TALLIES.index("over_user_share")]) == (burst > share)
    assert found[0] == found[1]

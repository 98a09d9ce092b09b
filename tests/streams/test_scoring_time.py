"""What was so when an impression was scored stays with it: its features bit for bit, its rows until they are freed."""

from dataclasses import replace

import msgspec
import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.delay import Time
from thalweg.schemas.outputs import Example, Score
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import sample, shipped, small

EVENTS = 6_000
MINUTE_MS = 60_000
EXPIRE_MS, WINDOW_MS = 30 * MINUTE_MS, 45 * MINUTE_MS


def test_an_example_carries_the_features_of_scoring_time_bit_for_bit() -> None:
    """Score and features of an example must read as the score's own did, whatever was learned between the two."""
    c = small(base=shipped(), waiting=8_000, users=9_000, rows=1 << 14)
    partition = Partition(replace(c, features=replace(c.features, emit=True)))
    outputs = partition.process(sample(EVENTS))
    scores = {s.id: s for s in (msgspec.json.decode(output.value or b"", type=Score) for output in outputs.scores)}
    released = [*outputs.examples, *partition.close_all().examples]
    examples = [msgspec.json.decode(output.value or b"", type=Example) for output in released]
    assert len(examples) == len(scores) > EVENTS // 2
    for example in examples:
        score = scores[example.id]
        assert repr(example.features) == repr(score.features)
        assert (example.score, example.origin, example.ts) == (score.score, score.origin, score.ts)
    shown = {
        (s.item, repr([s.features["rates.item"], s.features["machine_logit"]])) for s in scores.values() if s.features
    }
    assert len(shown) > 1.5 * len({score.item for score in scores.values()}), "nothing moved between the scores"


def expiring() -> Configuration:
    """Return a configuration in which items expire long before windows close, and nothing else does."""
    c = small()
    return replace(
        c,
        features=replace(c.features, emit=True),
        table=replace(c.table, expire_time_ms_by_field={"item": EXPIRE_MS}),
        joiner=replace(c.joiner, attribution_window_ms=WINDOW_MS),
    )


def test_a_fields_values_expire_at_exactly_its_own_time() -> None:
    """At its expire time an item that nothing was learned of must be gone, its user and its tab not."""
    driver = Driver(expiring())
    driver.impression("1", user="ann", item="film", ts=START_MS, context={"tab": "home"})
    driver.impression("2", user="ann", item="song", ts=START_MS + EXPIRE_MS - 1)
    assert driver.value("item", "film") is not None
    driver.impression("3", user="ann", item="song", ts=START_MS + EXPIRE_MS)
    assert driver.value("item", "film") is None
    assert driver.value("user", "ann") is not None
    assert driver.value("tab", "home") is not None
    driver.impression("4", user="ann", item="play", ts=START_MS + 2 * EXPIRE_MS - 2)
    assert driver.value("item", "song") is not None
    driver.impression("5", user="ann", item="play", ts=START_MS + 2 * EXPIRE_MS - 1)
    assert driver.value("item", "song") is None, "an impression alone is no update"


def test_who_waits_for_a_freed_row_neither_reads_nor_teaches_its_next_owner() -> None:
    """An impression and a sequence that remember an expired item's row must know nothing of the item that has it."""
    driver = Driver(expiring())
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.impression("2", user="bob", item="film", ts=START_MS)
    driver.impression("2 too", user="cid", item="film", ts=START_MS)
    driver.feedback("1", user="ann", item="film", ts=START_MS + 1)
    film = driver.value("item", "film")
    assert film is not None
    driver.impression("3", user="bob", item="film", ts=START_MS + EXPIRE_MS)
    driver.impression("3 too", user="cid", item="song", ts=START_MS + EXPIRE_MS)
    song = driver.value("item", "song")
    assert song is not None
    assert song.row == film.row, "the test needs the row to be taken again"
    assert driver.sequence("ann") == [None]
    (score,) = driver.impression("4", user="ann", item="play", ts=START_MS + EXPIRE_MS + 1).scores
    assert score.features is not None
    assert not np.any(score.features["interest.acted.short"])
    learner = driver.partition.state.learner
    before = learner.features[song.row].tobytes(), learner.rates.sums[song.row].tobytes()
    ann = driver.value("user", "ann")
    examples = driver.impression("5", user="bob", item="play", ts=START_MS + WINDOW_MS + 1).examples
    examples += driver.impression("6", user="cid", item="play", ts=START_MS + WINDOW_MS + 1).examples
    assert [(example.id, example.label) for example in examples] == [("1", 1), ("2", 0), ("2 too", 0)]
    assert (learner.features[song.row].tobytes(), learner.rates.sums[song.row].tobytes()) == before
    after = driver.value("user", "ann")
    assert ann is not None
    assert after is not None
    assert not np.array_equal(ann.coordinates, after.coordinates), "the others did learn"


def test_a_skipped_item_whose_row_was_taken_again_is_not_remembered_as_its_next_owner() -> None:
    """A negative that was learned for certain before its window closes must not put another item into the sequence."""
    c = expiring()
    driver = Driver(replace(c, behaviors=replace(c.behaviors, kinds=("acted", "skipped"))))
    delays = driver.partition.state.delays
    delays.times_ms[Time.ELAPSED] = MINUTE_MS
    delays.within[:] = 1.0  # all positives come within a minute
    driver.impression("1", user="ann", item="film", ts=START_MS)
    for user in ("bob", "cid"):
        driver.impression(f"2 {user}", user=user, item="song", ts=START_MS + 2 * MINUTE_MS)
    film = driver.value("item", "film")
    driver.impression("3 cid", user="cid", item="song", ts=START_MS + 2 * MINUTE_MS + EXPIRE_MS)
    driver.impression("4 bob", user="bob", item="play", ts=START_MS + 2 * MINUTE_MS + EXPIRE_MS)
    play = driver.value("item", "play")
    assert film is not None
    assert play is not None
    assert play.row == film.row, "the test needs the row to be taken again"
    driver.impression("5 cid", user="cid", item="play", ts=START_MS + WINDOW_MS + 1)
    examples = driver.impression("5 bob", user="bob", item="play", ts=START_MS + WINDOW_MS + 1).examples
    assert [(example.id, example.label) for example in examples] == [("1", 0)]
    assert driver.sequence("ann", "skipped") == []
    driver.impression("6 cid", user="cid", item="play", ts=START_MS + 3 * WINDOW_MS)
    driver.impression("6 bob", user="bob", item="play", ts=START_MS + 3 * WINDOW_MS)
    assert driver.sequence("bob", "skipped")[-2:] == ["play", "play"]

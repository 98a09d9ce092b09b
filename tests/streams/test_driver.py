"""The joiner's meaning from end to end, as a user of the test driver sees it, and what the driver itself promises."""

from dataclasses import replace

import pytest
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Erase, Event, Feedback, Impression, encode_event
from thalweg.schemas.outputs import Example
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import CRASH, SNAPSHOT, START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.streams.logs_for_tests import small

WINDOW_MS = 600_000
SECOND_MS = 1_000


@pytest.fixture
def driver() -> Driver:
    return Driver(small())


def later(driver: Driver, ms: int) -> list[Example]:
    """Let stream time pass by an event of each of three others, and return the examples that this releases."""
    ts = driver.stream_time_ms + ms
    piped = [driver.impression(f"{user}-{ts}", user=user, item="tick", ts=ts) for user in ("c", "d", "e")]
    return [example for each in piped for example in each.examples]


def accounted(driver: Driver) -> dict[str, int]:
    """Return the fates that occurred; they must sum to the records."""
    assert sum(driver.fates.values()) == len(driver.log)
    return {fate: count for fate, count in driver.fates.items() if count}


def test_an_impression_is_scored_at_once_and_its_example_comes_when_its_window_closes(driver: Driver) -> None:
    """A click within the window must make a positive example of the features and the score of scoring time."""
    scored = driver.impression("1", user="ann", item="film", ts=START_MS, context={"tab": 1}, base_score=0.25)
    assert [(score.id, score.base_score, score.cause) for score in scored.scores] == [("1", 0.25, "interactions-0-0:0")]
    assert driver.waiting == 1
    assert not driver.feedback("1", user="ann", item="film", ts=START_MS + SECOND_MS).examples
    assert not later(driver, WINDOW_MS - SECOND_MS)
    (example,) = later(driver, 1)
    assert (example.id, example.label, example.revision, example.origin) == ("1", 1, 0, "interactions-0-0")
    assert (example.score, example.base_score) == (scored.scores[0].score, 0.25)
    assert example.features["tab"] == 1
    assert example.cause == "interactions-0-7:0"
    assert accounted(driver) == {"scored": 7, "joined": 1}


def test_an_impression_without_a_click_is_a_negative(driver: Driver) -> None:
    """What nobody clicked within the window must become an example with label 0, whatever else the user did."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.feedback("1", user="ann", item="film", ts=START_MS + SECOND_MS, action="pause")
    (example,) = later(driver, WINDOW_MS + 1)
    assert example.label == 0
    assert driver.sequence("ann") == ["film"]
    assert accounted(driver) == {"scored": 4, "joined": 1}


def test_an_early_feedback_waits_for_its_impression(driver: Driver) -> None:
    """A feedback before its impression must be held as early, and joined when the impression comes."""
    driver.feedback("1", user="ann", item="film", ts=START_MS)
    assert accounted(driver) == {"early": 1}
    driver.impression("1", user="ann", item="film", ts=START_MS)
    assert accounted(driver) == {"scored": 1, "joined": 1}
    (example,) = later(driver, WINDOW_MS + 1)
    assert example.label == 1


def test_an_early_feedback_whose_impression_never_comes_is_orphaned(driver: Driver) -> None:
    """A held feedback must be given up as orphaned once its window is over, and make no example."""
    driver.feedback("1", user="ann", item="film", ts=START_MS)
    assert later(driver, WINDOW_MS + 1) == []
    assert accounted(driver) == {"scored": 3, "orphaned": 1}


def test_a_late_positive_makes_a_second_example(driver: Driver) -> None:
    """A click behind the window must be late, and make one example of revision 1 beside the negative one."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    (negative,) = later(driver, WINDOW_MS + 1)
    (positive,) = driver.feedback("1", user="ann", item="film", ts=driver.stream_time_ms).examples
    assert (negative.label, negative.revision) == (0, 0)
    assert (positive.label, positive.revision, positive.id) == (1, 1, "1")
    assert positive.features == negative.features
    again = driver.feedback("1", user="ann", item="film", ts=driver.stream_time_ms, id="another")
    assert not again.examples
    assert accounted(driver) == {"scored": 4, "late": 2}


def test_a_positive_behind_the_late_window_is_an_early_one_that_will_be_orphaned(driver: Driver) -> None:
    """When an impression is forgotten, its feedback must be held like any whose impression is unknown."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    later(driver, WINDOW_MS + 1)
    later(driver, WINDOW_MS)
    driver.feedback("1", user="ann", item="film", ts=driver.stream_time_ms)
    assert driver.fates["early"] == 1
    later(driver, WINDOW_MS + 1)
    assert accounted(driver) == {"scored": 10, "orphaned": 1}


def test_duplicates_are_counted_and_change_nothing(driver: Driver) -> None:
    """A second impression or feedback of the same id must be a duplicate, waiting or closed, without any output."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.feedback("1", user="ann", item="film", ts=START_MS)
    again = [
        driver.impression("1", user="ann", item="film", ts=START_MS),
        driver.feedback("1", user="ann", item="film", ts=START_MS),
    ]
    assert driver.sequence("ann") == ["film"]
    assert len(later(driver, WINDOW_MS + 1)) == 1
    again += [driver.impression("1", user="ann", item="film", ts=driver.stream_time_ms)]
    again += [driver.feedback("1", user="ann", item="film", ts=driver.stream_time_ms)]
    assert all(piped == ([], [], [], []) for piped in again)
    assert accounted(driver) == {"scored": 4, "joined": 1, "duplicate": 4}


def test_a_feedback_of_another_user_is_refused(driver: Driver) -> None:
    """A feedback whose user is not its impression's must be dead-lettered and teach nothing."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    (letter,) = driver.feedback("1", user="bob", item="film", ts=START_MS).dead_letters
    assert (letter.reason, letter.origin, letter.cause) == ("user_mismatch", "interactions-0-1", "interactions-0-1:0")
    (example,) = later(driver, WINDOW_MS + 1)
    assert example.label == 0
    assert accounted(driver) == {"scored": 4, "dead_lettered": 1}


def test_an_early_feedback_of_another_user_is_refused_when_the_impression_comes(driver: Driver) -> None:
    """A held feedback of another user must be dead-lettered: its own origin and bytes, caused by the impression."""
    driver.feedback("1", user="bob", item="film", ts=START_MS)
    piped = driver.impression("1", user="ann", item="film", ts=START_MS)
    (letter,) = piped.dead_letters
    assert (letter.reason, letter.origin, letter.cause) == ("user_mismatch", "interactions-0-0", "interactions-0-1:0")
    assert letter.raw == driver.log[0].value
    assert len(piped.scores) == 1
    (example,) = later(driver, WINDOW_MS + 1)
    assert (example.user, example.label) == ("ann", 0)
    assert accounted(driver) == {"scored": 4, "dead_lettered": 1}


def test_a_request_is_answered(driver: Driver) -> None:
    """A request must get its fate and its answer."""
    (ranking,) = driver.request("ann", ["film"], ts=START_MS).rankings
    assert [each.item for each in ranking.items] == ["film"]
    assert accounted(driver) == {"ranked": 1}


def test_records_of_another_partition_are_refused() -> None:
    """With partitions, a record whose user hashes elsewhere must be dead-lettered, and the others scored."""
    drivers = [Driver(small(), partition=number, partitions=4) for number in range(4)]
    for number in range(40):
        for driver in drivers:
            driver.impression(str(number), user=f"user-{number}", item="film", ts=START_MS)
    assert all(driver.fates["scored"] > 0 for driver in drivers)
    assert sum(driver.fates["scored"] for driver in drivers) == 40
    assert {letter.reason for driver in drivers for letter in driver.dead_letters} == {"wrong_partition"}
    assert [accounted(driver)["dead_lettered"] for driver in drivers] == [40 - d.fates["scored"] for d in drivers]


def test_at_its_limit_the_oldest_waiting_impression_is_closed_unlearned() -> None:
    """One more impression than may wait must close the one that is due first, without an example, and count it."""
    driver = Driver(small(waiting=8))
    for number in range(9):
        driver.impression(str(number), user=f"u{number}", item="film", ts=START_MS + number)
    assert driver.waiting == 8
    assert driver.counts["closed_unlearned"] == 1
    assert not driver.examples
    driver.feedback("0", user="u0", item="film", ts=START_MS + 9)
    assert driver.fates["early"] == 1
    assert "0" not in {example.id for example in driver.close_windows().examples}


def life(user: str, item: str, at_ms: int) -> list[Event]:
    """Everything that can be kept of a user: a closed impression, waiting ones, an early feedback, sequences."""
    return [
        Impression(f"{user}1", user, item, at_ms, {"tab": 1}),
        Feedback.of(f"{user}1:click", f"{user}1", user, item, at_ms + 1, "click"),
        Impression(f"{user}2", user, item, at_ms + 2, {"tab": 2}),
        Feedback.of(f"{user}9:click", f"{user}9", user, item, at_ms + 3, "click"),
    ]


def test_erase_forgets_the_user_and_nobody_else(driver: Driver) -> None:
    """After erase a user's impressions, sequence, early feedback and rows must be gone, and make no example."""
    driver.pipe(*life("ann", "film", START_MS), *life("bob", "film", START_MS + 10))
    driver.erase("ann", ts=START_MS + 20)
    assert not driver.knows("ann")
    assert driver.sequence("ann") == []
    assert driver.value("user", "ann") is None
    assert driver.knows("bob")
    assert driver.sequence("bob") == ["film", "film"]
    assert {example.user for example in later(driver, WINDOW_MS + 1_000)} == {"bob"}
    driver.impression("ann1", user="ann", item="film", ts=driver.stream_time_ms)
    assert driver.fates["duplicate"] == 0
    assert accounted(driver) == {"scored": 8, "joined": 2, "orphaned": 2, "erased": 1}


def test_erase_leaves_the_private_rows_of_a_log_without_the_user() -> None:
    """The users' rows, sequences and waiting impressions must be those of a run in which the user never was."""
    crossed = small()
    crossed = replace(crossed, features=replace(crossed.features, crosses=(("user", "tab"),)))
    with_ann, without = Driver(crossed), Driver(crossed)
    with_ann.pipe(*life("bob", "film", START_MS), *life("ann", "film", START_MS + 10), Erase("e", "ann", START_MS + 20))
    without.pipe(*life("bob", "film", START_MS))
    for driver in (with_ann, without):
        driver.impression("3", user="bob", item="film", ts=START_MS + 30)
    assert with_ann.sequence("bob") == without.sequence("bob")
    assert with_ann.waiting == without.waiting
    assert keys(with_ann, "users") == keys(without, "users")
    # What the two have in common, the item and the tabs, is many users': of all else nothing may be left.
    assert keys(with_ann, "features") == keys(without, "features")
    assert len(keys(with_ann, "features")) > len({"bob", "film", "tab 1", "tab 2"})


def keys(driver: Driver, table: str) -> set[int]:
    """Return the keys of a table's rows."""
    return set(getattr(driver.partition.state, table).key.tolist()) - {0}


def test_a_crash_is_not_seen_by_readers() -> None:
    """Crashes and snapshots anywhere must leave outputs, state and accounts as they are without them."""
    events = [*life("ann", "film", START_MS), b"junk", *life("bob", "song", START_MS + 400_000)]
    events += [*life("eve", "film", START_MS + 800_000), b"", *life("dan", "song", START_MS + 1_200_000)]
    events += life("fay", "film", START_MS + 1_600_000)
    calm = Driver(small())
    calm.pipe(*events)
    for place in range(len(events)):
        rough = Driver(small())
        rough.pipe(*events[: place // 2], SNAPSHOT, *events[place // 2 : place], CRASH, *events[place:], CRASH)
        assert rough.bytes == calm.bytes
        assert rough.digest == calm.digest
        assert rough.fates == calm.fates
    assert calm.examples
    assert calm.dead_letters


def test_a_crashed_driver_says_so(driver: Driver) -> None:
    """Between crash and restore the state must not be readable as if nothing had been."""
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.crash()
    with pytest.raises(RuntimeError, match="restore"):
        driver.impression("2", user="ann", item="film", ts=START_MS)
    driver.restore()
    assert accounted(driver) == {"scored": 1}
    assert len(driver.scores) == 1


def test_records_may_be_structs_dicts_bytes_or_records(driver: Driver) -> None:
    """Whatever form an event is piped in, the log and the outputs must be the same; offsets must rise."""
    event = Impression("1", "ann", "film", START_MS, {})
    fields = {"type": "impression", "id": "1", "user": "ann", "item": "film", "ts": START_MS, "context": {}}
    others = [Driver(small()) for _ in range(3)]
    driver.pipe(event)
    for other, item in zip(others, (fields, encode_event(event), LogRecord(0, encode_event(event))), strict=True):
        other.pipe(item)
        assert (other.log, other.bytes, other.digest) == (driver.log, driver.bytes, driver.digest)
    driver.pipe(LogRecord(7, b"junk"))
    assert driver.dead_letters[-1].origin == "interactions-0-7"
    with pytest.raises(ValueError, match="offset 7 is not above 7"):
        driver.pipe(LogRecord(7, b"junk"))


def test_looking_into_the_state_moves_nothing(driver: Driver) -> None:
    """Reading sequences, values and counts must leave the digest as it is."""
    driver.pipe(*life("ann", "film", START_MS))
    before = driver.digest
    assert driver.sequence("ann") == ["film", "film"]
    assert driver.sequence("nobody") == []
    assert driver.value("item", "film") is not None
    assert driver.value("tab", "2") is not None
    assert driver.value("tab", "3") is None
    assert driver.fields == ["user", "item", "tab"]
    with pytest.raises(KeyError, match="skipped"):
        driver.sequence("ann", "skipped")
    assert driver.digest == before


def test_an_unadmitted_value_has_no_row() -> None:
    """Below the occurrence threshold an item must have no row, and no place in the user's sequence."""
    c = small()
    driver = Driver(replace(c, table=replace(c.table, occurrence_threshold=2)))
    driver.impression("1", user="ann", item="film", ts=START_MS)
    driver.feedback("1", user="ann", item="film", ts=START_MS)
    assert driver.value("item", "film") is None
    assert driver.sequence("ann") == []
    driver.impression("2", user="bob", item="film", ts=START_MS)
    assert driver.value("item", "film") is not None


def test_the_driver_is_the_partition(driver: Driver) -> None:
    """What a driver gives must be what the partition gives for the same log in one batch."""
    driver.pipe(*life("ann", "film", START_MS), b"{}", *life("bob", "film", START_MS + 700_000))
    partition = Partition(small())
    assert partition.process(driver.log) == driver.bytes
    assert partition.digest() == driver.digest
    assert isinstance(driver.configuration, Configuration)

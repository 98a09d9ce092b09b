"""Facts fill in the fields that an impression does not bring: to the bit as if it had brought them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thalweg.operators import facts
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.contexts import Fields
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.snapshot import restore, snapshot
from thalweg.operators.fold.state import new_state
from thalweg.operators.machine.compiled import INTERPRETED
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.records import LogRecord, no_outputs
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.logs.fact_tables import FactColumns, FactTable
from thalweg.streams.partition.partition import Partition

from tests.fold.configurations import configurations
from tests.fold.logs import generated
from tests.streams.logs_for_tests import ROOT, sample, small

EVENTS = 300 if INTERPRETED else 3_000
FIELDS = ("tab", "author", "tags", "price", "country")
VIDEOS = ROOT / "examples" / "kuairand" / "videos.csv"
KNOWN = ("author", "tag", "duration_ms", "music", "upload_day")


def configuration(**limits: int) -> Configuration:
    """Return one that puts features on scores; prices have buckets."""
    c = small(rows=1_024, users=600, waiting=128, histories=16)
    features = replace(c.features, context=FIELDS, buckets={"price": (1.0, 10.0)}, emit=True)
    return replace(c, features=features, facts=replace(c.facts, items_bytes=1 << 16, users_bytes=1 << 16, **limits))


class Log:
    """A driver that is shown items and returns which context an impression was scored with."""

    def __init__(self, **limits: int) -> None:
        self.driver = Driver(configuration(**limits))
        self.number = 0

    def seen(self, item: str = "i", user: str = "u", **context: Any) -> dict[str, Any]:
        self.number += 1
        ts = START_MS + self.number * 1_000
        [score] = self.driver.impression(str(self.number), user=user, item=item, ts=ts, context=context).scores
        assert score.features is not None
        return {name: value for name, value in score.features.items() if name in FIELDS}

    def item(self, name: str = "i", **fields: Any) -> Any:
        return self.driver.item(name, fields, ts=START_MS)

    def user(self, name: str = "u", **fields: Any) -> Any:
        return self.driver.user(name, fields, ts=START_MS)

    def tally(self, which: Tallied) -> int:
        return int(self.driver.partition.state.tallies[which])


def videos(c: Configuration, records: tuple[LogRecord, ...]) -> list[dict[str, Any]]:
    """Return facts about the videos of KuaiRand's sample, as `thalweg facts` makes them of the data set's table."""
    shown = {event["item"] for event in map(json.loads, (record.value or b"" for record in records))}
    fields = {"author": "author_id", "tag": "tag", "duration_ms": "video_duration", "music": "music_id"}
    fields |= {"upload_day": "upload_dt"}
    columns = FactColumns(about="item", key="video_id", fields=tuple(fields.items()), split=(("tag", ","),))
    table = FactTable(VIDEOS, columns, shown, START_MS, c)
    return [json.loads(line) for block in table.blocks() for line in block.splitlines()]


def with_tabs(records: tuple[LogRecord, ...], known: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a log whose impressions bring their tab, and what is known of their item."""
    events = [json.loads(record.value or b"") for record in records]
    for event in events:
        if event["type"] == "impression":
            event["context"] = {"tab": event["context"]["tab"]} | known.get(event["item"], {})
    return events


def log_of(events: list[dict[str, Any]]) -> list[LogRecord]:
    """Return events as records."""
    return [LogRecord(number, json.dumps(event).encode()) for number, event in enumerate(events)]


def decoded(outputs: list[Any]) -> list[dict[str, Any]]:
    """Return outputs without what names offsets."""
    events = [json.loads(output.value or b"") for output in outputs]
    return [{name: value for name, value in event.items() if name not in ("origin", "cause")} for event in events]


@pytest.mark.parametrize("name", ["shipped", "own scores"])
def test_facts_give_the_scores_of_the_same_fields_in_the_context(name: str) -> None:
    """KuaiRand with author, tag, duration, music and upload day as facts: all numbers of scores and examples stay."""
    given_fields, context = configurations()[name].features, ("tab", *KNOWN)
    c = replace(configurations()[name], features=replace(given_fields, context=context, crosses=(), emit=True))
    records = sample(EVENTS)
    facts_of = videos(c, records)
    known = {each["item"]: each["fields"] for each in facts_of}
    assert all(any(name in fields for fields in known.values()) for name in KNOWN)
    found, expected = Partition(c), Partition(c)
    outputs = found.process(log_of(facts_of + with_tabs(records, {})))
    straight = expected.process(log_of(with_tabs(records, known)))
    assert decoded(outputs.scores) == decoded(straight.scores)
    assert decoded(outputs.examples + found.close_all().examples) == decoded(
        straight.examples + expected.close_all().examples
    )
    assert found.state.features.key.any()


def test_the_impressions_own_field_wins_then_the_users_fact_then_the_items() -> None:
    """Each fact fills in only where nothing before it does; an empty list is a field too."""
    log = Log()
    log.item(author="a", country="item's", tags=["x"], price=3)
    assert log.seen(tab="t") == {"tab": "t", "author": "a", "country": "item's", "tags": ["x"], "price": 3}
    log.user(country="user's")
    assert log.seen() == {"author": "a", "country": "user's", "tags": ["x"], "price": 3}
    own = {"country": "own", "tags": [], "price": 2.5}
    assert log.seen(**own) == own | {"author": "a"}
    assert log.seen(item="another") == {"country": "user's"}
    assert log.seen(user="another", author="own") == {"author": "own", "country": "item's", "tags": ["x"], "price": 3}


def test_a_later_fact_replaces_field_by_field_and_null_removes() -> None:
    """What a later event does not name stays; where all is removed, no row is left."""
    log = Log()
    log.item(author="a", tags=["x", "y"])
    log.item(tags=["z"], price=1.5)
    assert log.seen() == {"author": "a", "tags": ["z"], "price": 1.5}
    log.item(author=None, country=None)
    assert log.seen() == {"tags": ["z"], "price": 1.5}
    log.item(tags=None, price=None)
    assert log.seen() == {}
    assert not log.driver.partition.state.facts.items.key.any()
    assert log.driver.fates["known"] == 4


def test_a_fact_has_the_keys_of_its_field() -> None:
    """Buckets hold for facts, fields without a place and the names of user and item are none."""
    log = Log()
    log.item(price=3, user="u2", item="i2", unknown="x")
    log.seen("i")
    log.seen("j", price=9.5)  # the same bucket
    seen, state = log.driver.partition.state.features_seen, log.driver.partition.state
    place = 2 + FIELDS.index("price")
    rows = [int(seen.row[slot][seen.field[slot] == place][0]) for slot in range(2)]
    assert rows[0] == rows[1] >= 0
    assert seen.counts[0] + 1 == seen.counts[1]  # the item that was shown before is one more
    assert state.waiting.length[0] > 0


def test_facts_hold_from_their_place_in_the_log_on_however_it_is_cut() -> None:
    """A block of all events gives the bytes of blocks of one; an impression before a fact does not see it."""
    events = [json.loads(record.value or b"") for record in generated()[:200]]
    assert {"item", "user"} <= {event["type"] for event in events}
    whole, single = Partition(configurations()["any context"]), Partition(configurations()["any context"])
    outputs = no_outputs()
    for record in generated()[:200]:
        for kind, more in zip(outputs, single.process([record]), strict=True):
            kind.extend(more)
    assert whole.process(generated()[:200]) == outputs
    assert whole.digest() == single.digest()


def test_one_owners_facts_are_limited() -> None:
    """Facts beyond `owner_bytes`, alone or with those before, are dead letters, and those before stay."""
    log = Log(owner_bytes=64)
    log.item(author="a" * 20)
    [letter] = log.item(country="c" * 30).dead_letters
    assert (letter.reason, letter.detail) == (
        "too_large",
        "with those already known, the facts take more than facts.owner_bytes",
    )
    [letter] = log.user(country="c" * 60).dead_letters
    assert letter.reason == "too_large"
    assert (letter.detail or "").endswith("bytes, at most 64")
    assert log.seen() == {"author": "a" * 20}


def test_the_items_whose_facts_were_used_least_recently_make_room() -> None:
    """At `items_limit` the facts of the item go that was neither shown nor written for longest; a warning counts."""
    log = Log(items_limit=3)
    for name in "abc":
        log.item(name, author=name)
    assert log.seen("a") == {"author": "a"}
    log.driver.impression("later", user="v", item="b", ts=START_MS + 60_000)
    log.item("d", author="d")
    assert log.tally(Tallied.FACTS_EVICTED) == 1
    assert [log.seen(name) for name in "abcd"] == [{"author": "a"}, {"author": "b"}, {}, {"author": "d"}]
    [finding] = log.driver.partition.findings("")
    assert "items and users whose facts made room: 1" in finding.message


def test_all_users_facts_are_limited() -> None:
    """At `users_bytes` the facts go that were not used for longest, not those that are being written."""
    log = Log()
    owners = [f"u{number}" for number in range(520)]
    for name in owners:
        log.user(name, country="c" * 70, tab=name)  # two blocks of 64 bytes, of 1 024
        log.user(name, tab=f"{name}!")
    assert log.tally(Tallied.FACTS_EVICTED) == 8
    assert log.seen(user="u7") == {}
    assert log.seen(user="u8") == {"country": "c" * 70, "tab": "u8!"}


def test_a_fact_without_room_in_an_impression_is_left_out_and_counted() -> None:
    """An impression is never refused for its facts: the field that does not fit is left out, others fill in."""
    log = Log()
    many = [str(number) for number in range(26)]
    log.user(tags=many)
    log.item(author="a", price=1, country="c")
    assert log.seen(tab="t") == {"tab": "t", "tags": many, "author": "a", "price": 1, "country": "c"}
    c = configuration()
    log.driver = Driver(replace(c, features=replace(c.features, values_limit=16)))
    log.user(tags=many[:12])
    log.item(author="a", price=1, country="c")
    assert log.seen(tab="t") == {"tab": "t", "tags": many[:12], "author": "a"}
    assert log.tally(Tallied.FACTS_LEFT_OUT) == 2
    [letter] = log.user(tags=many).dead_letters
    assert letter.reason == "too_many_values"
    assert any("left out of impressions: 2" in finding.message for finding in log.driver.partition.findings(""))


def test_erase_and_forgetting_take_a_users_facts() -> None:
    """Neither the facts nor a byte of their text is left."""
    log = Log()
    log.user(country="nobody may find this")
    log.user("v", author="w")
    assert b"nobody may find this" in log.driver.partition.state.facts.of_users.texts.blocks.tobytes()
    log.driver.erase("u", ts=START_MS)
    held = log.driver.partition.state.facts.of_users
    assert b"nobody" not in held.texts.blocks.tobytes()
    assert np.count_nonzero(held.length) == 1
    assert log.seen() == {}
    assert log.seen(user="v") == {"author": "w"}


def test_facts_about_an_item_belong_to_every_partition_and_move_no_time() -> None:
    """An `item` event is never in the wrong partition, a `user` event may be; only the latter advances the clock."""
    driver = Driver(configuration(), partition=1, partitions=2)
    user = next(name for name in "abcdefgh" if partition_of(name.encode(), 2) == 0)
    driver.item("i", {"author": "a"}, ts=START_MS + 5_000)
    assert driver.fates["known"] == 1
    assert driver.partition.state.clock.stream_time_ms[0] == 0
    [letter] = driver.user(user, {"country": "c"}, ts=START_MS).dead_letters
    assert letter.reason == "wrong_partition"
    mine = next(name for name in "abcdefgh" if partition_of(name.encode(), 2) == 1)
    driver.user(mine, {"country": "c"}, ts=START_MS)
    assert driver.partition.state.clock.stream_time_ms[0] == START_MS


def test_a_candidate_gets_facts_as_an_impression_does_and_changes_nothing() -> None:
    """Ranked items with and without facts, with and without fields of their own, have the scores of impressions."""
    log = Log()
    for name, author in (("a", "x"), ("b", "y"), ("c", "x")):
        log.item(name, author=author, price=3, tags=[author, "z"])
    log.user(country="c")
    for number in range(12):
        log.seen("abcd"[number % 4], tab="t")
        if number % 3 == 0:
            log.driver.feedback(str(log.number), user="u", item="abcd"[number % 4], ts=START_MS + log.number * 1_000)
    log.driver.impression("much later", user="w", item="a", ts=START_MS + 2_000_000)
    now_ms = int(log.driver.partition.state.clock.stream_time_ms[0])
    before = log.driver.partition.digest()
    candidates = ["d", "e", "a", "b", {"item": "c", "context": {"tags": [], "price": 50}}, "new", "c"]
    log.driver.pipe(
        {"type": "request", "id": "r", "user": "u", "candidates": candidates, "ts": now_ms, "context": {"tab": "t"}}
    )
    assert log.driver.partition.digest() == before
    ranked = sorted((each.item, each.score) for each in log.driver.rankings[0].items)
    shown = []
    for each in candidates:
        item, own = (each, {}) if isinstance(each, str) else (each["item"], each["context"])
        alone = Partition(log.driver.configuration, arrays=log.driver.partition.snapshot())
        event = {
            "type": "impression",
            "id": "s",
            "user": "u",
            "item": item,
            "ts": now_ms,
            "context": {"tab": "t"} | own,
        }
        [output] = alone.process([LogRecord(1_000, json.dumps(event).encode())]).scores
        shown.append((item, json.loads(output.value or b"")["score"]))
    assert ranked == sorted(shown)
    assert len({score for _, score in ranked}) == len(candidates)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("facts.of_items.length", (0,), 10),
        ("facts.of_items.text", (0,), 2),
        ("facts.of_items.texts.blocks", (0, 0), 200),
        ("facts.of_items.texts.blocks", (0, 1), 200),
        ("facts.of_users.length", (0,), 0),
        ("facts.ends", (0,), 0),
    ],
)
def test_crafted_facts_are_refused(name: str, at: tuple[int, ...], value: int) -> None:
    """Facts that are not packed as the fold packs them never get to compiled code."""
    log = Log()
    log.item(author="a")
    log.user(country="c")
    arrays = snapshot(log.driver.partition.state)
    restore(configuration(), arrays)
    crafted = arrays | {name: arrays[name].copy()}
    crafted[name][at] = value
    with pytest.raises(ValueError, match=r"contradict each other|numbers outside|was ever used"):
        restore(configuration(), crafted)


FACTS = st.dictionaries(
    st.sampled_from("abcdef"), st.one_of(st.none(), st.text("xy", max_size=3), st.lists(st.text("z", max_size=2)))
)


@given(st.lists(FACTS, max_size=5))
def test_merged_facts_are_a_dictionarys(events: list[dict[str, Any]]) -> None:
    """Facts merged event by event are those of a dictionary that is updated, packed at once."""
    fields = Fields(Configuration(), new_state(Configuration()).names)
    fields.add_names("abcdef")
    kept: dict[str, Any] = {}
    old, out = np.zeros(4_096, np.uint8), np.zeros(4_096, np.uint8)
    size = 0
    for event in events:
        new = np.frombuffer(bytearray(fields.packed(event, -1)[0]), np.uint8)
        size = facts.merge(old, size, new, 0, len(new), out)
        old, out = out, old
        kept = {name: value for name, value in (kept | event).items() if value is not None}
    assert old[:size].tobytes() == fields.packed(kept, -1)[0]
    assert facts.is_packed(old, 0, size, 64)
    if size:
        assert facts.merge(old[:0], 0, old, 0, size, np.zeros(size - 1, np.uint8)) == facts.TOO_MANY

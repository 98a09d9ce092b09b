"""Requests: their scores are those of impressions, bit for bit, and what comes later is as without them."""

import random
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.schemas.events import Impression, Request, encode_event
from thalweg.schemas.outputs import Ranking, decode_ranking, decode_score
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.fold.logs import generated
from tests.streams.logs_for_tests import small

EVENTS, CUTS = 1_500, (0, 3, 200, 700, 1_500)
MANY = 1 << 14
OFFSET = 100_000
USERS, ITEMS = 230, 110


def configurations() -> dict[str, Configuration]:
    """Return configurations that differ in what makes a score."""
    c = small(rows=MANY, users=MANY, waiting=MANY // 2)
    twice = replace(c.table, occurrence_threshold=3, admission="linear")
    return {
        "defaults": c,
        "no network": replace(c, learner=replace(c.learner, cross_rank=0)),
        "crosses": replace(
            c,
            features=replace(c.features, crosses=(("user", "device"), ("item", "device")), hour_of_day=True),
            behaviors=replace(c.behaviors, kinds=("acted", "skipped"), short_length=4),
        ),
        "admission": replace(c, table=twice),
        "expiry": replace(
            c,
            table=replace(c.table, expire_time_ms=600_000),
            behaviors=replace(c.behaviors, expire_time_ms=900_000),
        ),
        "base score": replace(c, correction=replace(c.correction, base="base_score")),
        "no eights": replace(
            c,
            learner=replace(c.learner, latent_size=11, cross_rank=3),
            behaviors=replace(c.behaviors, short_length=13),
            sdim=replace(c.sdim, groups=5, tau=3),
            error_memory=replace(c.error_memory, arrays=3, bits=5, gamma=0.5),
        ),
    }


@cache
def saved(name: str, cut: int) -> dict[str, Any]:
    """Return a snapshot behind so many events."""
    partition = Partition(configurations()[name])
    partition.process(generated(EVENTS)[:cut])
    return partition.snapshot()


def restored(name: str, cut: int) -> Partition:
    """Return a partition behind so many events."""
    return Partition(configurations()[name], arrays=saved(name, cut))


values = st.sampled_from(["a", "b", "phone", "tablet", "new"]) | st.integers(0, 3) | st.just(2.5)
contexts = st.dictionaries(
    st.sampled_from(["device", "price", "tags"]), values | st.lists(st.sampled_from(["a", "b", "new"]), max_size=3)
)
items = st.integers(0, ITEMS).map(lambda number: f"i{number}") | st.sampled_from(["never", "seen"])
users = st.integers(0, USERS).map(lambda number: f"u{number}") | st.just("nobody")
plain = st.lists(items, min_size=2, max_size=7).map(lambda found: [(item, {}) for item in found])
candidates = st.lists(st.tuples(items, contexts), min_size=1, max_size=3) | plain


@pytest.mark.parametrize("name", configurations())
@settings(max_examples=15, deadline=None)
@given(cut=st.sampled_from(CUTS), user=users, context=contexts, asked=candidates)
def test_a_ranked_score_is_that_of_an_impression_bit_for_bit(
    name: str, cut: int, user: str, context: dict[str, Any], asked: list[tuple[str, dict[str, Any]]]
) -> None:
    """Each candidate must get the score that an impression of it would get there, new ids and own contexts included."""
    partition = restored(name, cut)
    before = partition.digest()
    ts_ms = max(int(partition.state.clock.stream_time_ms[0]), START_MS)
    known = set(partition_names(partition))
    context = {field: value for field, value in context.items() if field in known}
    asked = [(item, {field: value for field, value in own.items() if field in known}) for item, own in asked]
    request = Request(
        "r", user, [{"item": item, "context": own} if own else item for item, own in asked], ts_ms, context
    )
    found = answer(partition, request)
    assert partition.digest() == before
    scores = {}
    for item, own in asked:
        other = restored(name, cut)
        event = Impression("x", user, item, ts_ms, context | own)
        made = other.process([LogRecord(OFFSET, encode_event(event))]).scores[0]
        scores.setdefault(item, []).append(decode_score(made.value or b"").score)
    ranked: dict[str, list[float]] = {}
    for each in found.items:
        ranked.setdefault(each.item, []).append(each.score)
    assert {item: sorted(each) for item, each in ranked.items()} == {
        item: sorted(each) for item, each in scores.items()
    }
    assert [each.score for each in found.items] == sorted((each.score for each in found.items), reverse=True)


def partition_names(partition: Partition) -> list[str]:
    """Return the names of the fields that have a place."""
    names = [bytes(name).split(b"\0")[0].decode() for name in partition.state.names]
    return [name for name in names if name]


def answer(partition: Partition, request: Request) -> Ranking:
    """Return the answer to one request."""
    outputs = partition.process([LogRecord(OFFSET, encode_event(request))])
    assert not outputs.dead_letters
    return decode_ranking(outputs.rankings[0].value or b"")


@pytest.mark.parametrize("batch", [1, 97, 4_000])
def test_requests_change_nothing_that_comes_later(batch: int) -> None:
    """Every other output, and the state's digest, must be the same bytes with and without requests in between."""
    log = [record._replace(offset=2 * record.offset) for record in generated(EVENTS)]
    chance = random.Random(3)
    asked = []
    for record in log[::3]:
        who = chance.choice(["nobody", f"u{chance.randrange(USERS)}"])
        wanted = [f"i{chance.randrange(ITEMS + 9)}" for _ in range(chance.randrange(6))]
        ts_ms = START_MS + chance.randrange(-10_000_000, 100_000_000)
        request = Request(
            f"r{record.offset}", who, wanted, ts_ms, {"device": chance.choice(["phone", "tablet", "x"]), "unknown": "x"}
        )
        asked.append(LogRecord(record.offset + 1, encode_event(request)))
    without, found = folded(log, 4_000)
    mixed, others = folded(sorted(log + asked, key=lambda record: record.offset), batch)
    assert len(others.rankings) == len(asked) == int(mixed.state.fates[7])
    assert not found.rankings
    assert others[:3] == found[:3]
    assert mixed.digest() == without.digest()
    used, unused = mixed.snapshot(), without.snapshot()
    assert {name for name in used if not np.array_equal(used[name], unused[name], equal_nan=True)} == {"fates"}


def folded(log: list[LogRecord], batch: int) -> tuple[Partition, Outputs]:
    """Return a partition behind a log in batches, and all that it made."""
    partition = Partition(configurations()["admission"])
    made = Outputs([], [], [], [], [])
    for first in range(0, len(log), batch):
        for kind, more in zip(made, partition.process(log[first : first + batch]), strict=True):
            kind.extend(more)
    return partition, made


def test_what_a_request_may_ask_for() -> None:
    """Top, excluded items, items acted on, caps by value and the parts of a score must come as asked for."""
    driver = Driver(small())
    for number in range(60):
        user, item, ts = f"u{number % 4}", f"v{number % 12}", START_MS + number * 20_000
        driver.impression(f"{number}", user=user, item=item, ts=ts, context={"author": f"a{number % 3}"})
        if number % 5 == 0:
            driver.feedback(f"{number}", user=user, item=item, ts=ts + 500)
    wanted = [{"item": f"v{n}", "context": {"author": f"a{n % 3}"}} for n in range(12)]
    ts = START_MS + 60 * 20_000

    def ask(**options: Any) -> list[Any]:
        return driver.request("u0", wanted, ts=ts, **options).rankings[0].items

    every = ask()
    assert len(every) == 12
    scores = [each.score for each in every]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    assert ask(top=3) == every[:3]
    assert ask(exclude=[every[0].item, "other"]) == every[1:]
    acted = {f"v{n % 12}" for n in range(0, 60, 20)}
    assert {each.item for each in every} - {each.item for each in ask(seen="drop")} == acted
    author = {f"v{n}": n % 3 for n in range(12)}
    capped = ask(at_most={"author": 2, "nothing": 1}, top=5)
    assert [author[each.item] for each in capped].count(author[every[0].item]) == 2
    expected: list[str] = []
    for each in every:
        if [author[item] for item in expected].count(author[each.item]) < 2 and len(expected) < 5:
            expected.append(each.item)
    assert [each.item for each in capped] == expected
    assert sorted(author[each.item] for each in ask(at_most={"author": 1})) == [0, 1, 2]
    explained = ask(explain=True)
    assert [each.score for each in explained] == [each.score for each in every]
    assert set(explained[0].parts) == {"overall", "machine", "linear", "cross"}
    assert explained[0].score == pytest.approx(explained[0].model_score + explained[0].correction)


def test_a_bad_candidate_is_refused_by_itself() -> None:
    """The others are ranked, and the answer names place, reason and what is wrong of each bad one."""
    driver = Driver(small())
    driver.impression("1", user="u", item="v", ts=START_MS, context={"tab": 1})
    wide = {"item": "v", "context": {"tab": ["x"] * 32}}
    bad = ["v", "", 5, None, {"context": {}}, {"item": "v", "context": {"tab": None}}, "v" * 300, wide]
    found = driver.request("u", bad, ts=START_MS, context={"tab": 2}).rankings[0]
    assert [each.item for each in found.items] == ["v"]
    assert [(each.candidate, each.reason) for each in found.refused] == [
        (1, "id_empty"),
        (2, "wrong_type"),
        (3, "wrong_type"),
        (4, "missing_field"),
        (5, "wrong_type"),
        (6, "id_too_long"),
        (7, "too_many_values"),
    ]
    assert driver.request("u", [], ts=START_MS).rankings[0].items == []

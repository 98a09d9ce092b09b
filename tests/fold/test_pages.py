"""Impressions of one user with one `ts` are a page: no score depends on the order of its rows."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.delay import Time, bucket_of
from thalweg.operators.joiner import find_slot
from thalweg.operators.machine.compiled import INTERPRETED
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.structures.table import Loss, Table
from thalweg.schemas.outputs import decode_score
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.fold.pages import logged, made, shuffled, told
from tests.streams.logs_for_tests import small

PAGES = 36


@cache
def configurations() -> dict[str, Configuration]:
    """Return configurations that differ in what rows read of the state, and of what there is little."""
    c = small(rows=8_192, users=2_048, waiting=1_024, histories=16)
    c = replace(c, features=replace(c.features, context=("tab", "tags"), emit=True))
    learner = replace(c.learner, cross_pairs_limit=8_192)
    c = replace(c, learner=learner, joiner=replace(c.joiner, provisional_share=0.5, attribution_window_ms=60_000))
    return {
        "defaults": c,
        "admission": replace(
            c,
            table=replace(c.table, occurrence_threshold=3, admission="linear"),
            behaviors=replace(c.behaviors, kinds=("acted", "skipped"), short_length=2),
            features=replace(c.features, crosses=(("user", "tab"), ("item", "tab"))),
        ),
        "expiry": replace(
            c,
            table=replace(c.table, expire_time_ms=300_000),
            behaviors=replace(c.behaviors, expire_time_ms=600_000),
            learner=replace(learner, cross_rank=0),
        ),
        "full tables": replace(
            c,
            table=replace(c.table, rows_limit=1_024),
            features=replace(c.features, context=("tab", "tags", *(f"other_{number}" for number in range(4)))),
            learner=replace(learner, cross_pairs_limit=1_024),
            joiner=replace(c.joiner, attribution_window_ms=600_000_000),
        ),
    }


def tables(partition: Partition) -> tuple[Table, Table]:
    """Return the tables of values and of pairs."""
    return partition.state.features, partition.state.cross.pairs


def kept(partition: Partition) -> list[list[int]]:
    """Return the keys of all values and pairs whose time is not over, as which of the others are freed is no matter."""
    values, pairs = tables(partition)
    age_ms = partition.state.clock.stream_time_ms[0] - values.updated_ms
    is_alive = age_ms < partition.configuration.table.expire_time_ms
    return [np.sort(values.key[is_alive]).tolist(), np.sort(pairs.key).tolist()]


@pytest.mark.parametrize("name", configurations())
@settings(max_examples=1 if INTERPRETED else 5, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.sampled_from([1, 3, 1_000]))
def test_the_order_of_a_pages_rows_changes_no_score(name: str, seed: int, batch: int) -> None:
    """With the rows of each page shuffled, every score, example and ranking must have the same bits, to the end."""
    compare_orders(name, seed, batch)


@pytest.mark.parametrize(
    ("name", "seed"), [("expiry", 226), ("expiry", 246), ("expiry", 290822012), ("defaults", 15), ("full tables", 2)]
)
def test_logs_on_which_the_order_of_rows_once_mattered(name: str, seed: int) -> None:
    """A value expired with the sweep; rows swapped over facts; what one page updated last was evicted one by one."""
    compare_orders(name, seed, 1_000)


def compare_orders(name: str, seed: int, batch: int) -> None:
    """Fold a log and the same with the rows of each page shuffled, and compare all that comes of them."""
    is_full = name == "full tables"
    events = made(seed, 2 * PAGES, users=30, items=400, tags=2_000) if is_full else made(seed, PAGES)
    found, expected = (Partition(configurations()[name]) for _ in range(2))
    records = logged(shuffled(events, seed))
    outputs = [found.process(records[at : at + batch]) for at in range(0, len(records), batch)]
    whole = Outputs(*([output for part in kinds for output in part] for kinds in zip(*outputs, strict=True)))
    assert told(whole) == told(expected.process(logged(events)))
    assert kept(found) == kept(expected)
    assert told(found.close_all()) == told(expected.close_all())
    assert kept(found) == kept(expected)
    assert all((table.counts[Loss.EVICTED] > 0) == is_full for table in tables(found))
    assert found.state.fates.tolist() == expected.state.fates.tolist()


def driver(**table: int) -> Driver:
    """Return a driver under small limits."""
    c = configurations()["defaults"]
    return Driver(replace(c, table=replace(c.table, **table)))


def show(log: Driver, number: int, at_ms: int, *, user: str = "u", item: str = "i") -> tuple[float, float]:
    """Show an item, and return both of its scores."""
    shown = {"user": user, "item": item, "ts": START_MS + at_ms}
    [score] = log.impression(str(number), context={"tab": "home"}, **shown).scores
    return score.model_score, score.score


def taught() -> Driver:
    """Return a driver behind enough pages that each number of an exposure weighs in a score."""
    log = driver()
    for number in range(60):
        show(
            log, number, 61_000 * number, item=f"i{number % 3}" if number % 2 else "i", user="v" if number % 3 else "u"
        )
        if number % 4 == 0:
            log.feedback(str(number), user="v" if number % 3 else "u", item="i", ts=START_MS + 61_000 * number)
    return log


AT_MS = 61_000 * 61


def test_rows_do_not_see_each_other_but_the_next_page_sees_them_all() -> None:
    """The same item in the same context thrice on a page gets one score; on the next page another."""
    log = taught()
    scores = [show(log, 100 + row, AT_MS) for row in range(3)]
    assert len(set(scores)) == 1
    state = log.partition.state
    [user] = [row for row in range(3) if state.visits.shown[row] == 23]
    assert state.visits.shown_before[user] == 20
    assert show(log, 200, AT_MS + 1) != scores[0]


def test_what_each_number_weighs_when_rows_see_each_other() -> None:
    """Gap, exposures of the user, of the item and of their pairs are those before the page, each by itself."""
    log = taught()
    features = []
    for row in range(2):
        [score] = log.impression(
            str(row + 100), user="u", item="i", ts=START_MS + AT_MS, context={"tab": "home"}
        ).scores
        features.append(score.features)
    assert features[0] == features[1]
    for name in ("statistics.user", "statistics.item", "pairs.tab"):
        assert any(features[0][name])


@pytest.mark.parametrize(
    ("between", "ends"),
    [
        ({"type": "request", "id": "r", "candidates": ["i"], "context": {}}, False),
        ({"type": "impression", "id": "bad"}, False),
        ({"type": "feedback", "id": "f", "impression": "100", "item": "i", "action": "like"}, True),
        ({"type": "impression", "id": "other user", "user": "w", "item": "i", "context": {}}, True),
        ({"type": "impression", "id": "other time", "item": "i", "context": {}, "ts": START_MS + AT_MS + 1}, True),
        ({"type": "item", "id": "k", "item": "j", "fields": {"tags": "x"}}, False),
        ({"type": "user", "id": "k", "fields": {"device": "x"}}, True),
    ],
)
def test_what_ends_a_page(between: dict[str, object], *, ends: bool) -> None:
    """Requests, facts about items and records that cannot be used are on the page; any other event is behind it."""
    log = taught()
    first = show(log, 100, AT_MS)
    event = {"user": "u", "ts": START_MS + AT_MS} | between
    log.pipe(event if between["id"] != "bad" else between)
    assert (show(log, 101, AT_MS) != first) == ends


def test_a_request_is_on_the_page_of_its_user_and_ts() -> None:
    """Behind a row of a page it gets what a further row gets; at another `ts` what the next page gets."""
    log = taught()
    first = show(log, 100, AT_MS)[1]
    asked = {"type": "request", "user": "u", "candidates": ["i"], "context": {"tab": "home"}}
    [now] = log.pipe(asked | {"id": "r1", "ts": START_MS + AT_MS}).rankings
    [later] = log.pipe(asked | {"id": "r2", "ts": START_MS + AT_MS + 1}).rankings
    assert now.items[0].score == first != later.items[0].score
    assert show(log, 101, AT_MS)[1] == first


def test_a_page_is_one_sighting_of_a_value() -> None:
    """At a threshold of 3 an item has no row behind two pages of three rows each, and has one on the third page."""
    log = driver(occurrence_threshold=3)
    for page in range(3):
        found = [log.value("item", "i")]
        for row in range(3):
            show(log, 10 * page + row, 1_000 * page)
            found.append(log.value("item", "i"))
        assert all(each is None for each in found) == (page < 2)
    assert all(each is not None for each in found[1:])


def test_only_the_first_row_moves_time() -> None:
    """A user who is silent for eight pages is no witness any more, however many rows they have."""
    few, many = driver(), driver()
    for log, rows in ((few, 1), (many, 9)):
        show(log, 0, 0, user="v")
        for page in range(4):
            for row in range(rows):
                show(log, 100 * page + row + 1, 1_000 * page)
    assert few.partition.state.clock.turns[0] == many.partition.state.clock.turns[0]
    assert few.partition.state.clock.stream_time_ms[0] == many.partition.state.clock.stream_time_ms[0]


def test_rows_of_a_page_are_released_by_their_keys() -> None:
    """Examples of a page come in the order of keys, whatever that of the rows; those of pages in that of arrival."""
    orders = []
    for rows in ([1, 2, 3, 4], [3, 1, 4, 2]):
        log = driver()
        for row in rows:
            show(log, row, 0)
        show(log, 9, 0, user="w")
        orders.append([example.id for example in log.close_windows().examples])
    assert orders[0] == orders[1]
    assert orders[0][-1] == "9"


def test_a_page_has_one_elapsed_time() -> None:
    """Early clicks of its rows, counted as they join, do not change when others of it are learned provisionally."""
    log = driver()
    for number in range(400):
        show(log, number, 1_000 * number, user=f"u{number % 9}")
        click = {"user": f"u{number % 9}", "item": "i", "action": "click"}
        log.feedback(str(number), ts=START_MS + 1_000 * number + 100, **click)
    state = log.partition.state
    at_ms = 1_000 * 400 + 70_000
    for number in range(8):
        show(log, 800 + number, at_ms, user=f"u{number}")
    log.feedback("900", user="u", item="i", ts=START_MS + at_ms + 100, action="click")
    before_ms = int(state.delays.times_ms[Time.ELAPSED])
    state.delays.counts[:] = 0.0
    state.delays.counts[bucket_of(20_000)] = 500.0
    for row in (900, 901):
        show(log, row, at_ms)
    assert state.delays.times_ms[Time.ELAPSED] != before_ms
    slots = [find_slot(state.waiting, np.uint64(key_of(row, field_seed("impression", 0)))) for row in ("900", "901")]
    assert len(set(state.waiting.provisional.deadline_ms[slots].tolist())) == 1


def test_a_page_goes_on_behind_a_checkpoint_and_an_erased_user_leaves_nothing_of_it() -> None:
    """Its rows before and behind a snapshot get one score. An erasure ends the page."""
    log = taught()
    first = show(log, 100, AT_MS)
    again = Partition(configurations()["defaults"], arrays=log.partition.snapshot())
    event = {
        "type": "impression",
        "id": "101",
        "user": "u",
        "item": "i",
        "ts": START_MS + AT_MS,
        "context": {"tab": "home"},
    }
    [score] = again.process([LogRecord(1_000, json.dumps(event).encode())]).scores
    assert decode_score(score.value or b"").score == first[1]
    assert log.partition.state.page.user[0] != 0
    log.erase("u", ts=START_MS + AT_MS)
    page = log.partition.state.page
    assert page.user[0] == page.ts_ms[0] == 0


def test_facts_that_one_page_used_last_are_evicted_together() -> None:
    """Whatever the order of its rows, the facts of the same items are left."""
    left = []
    for items in ([0, 1, 2, 3], [3, 2, 0, 1]):
        c = configurations()["defaults"]
        log = Driver(replace(c, facts=replace(c.facts, items_limit=8)))
        for item in range(8):
            log.pipe({"type": "item", "id": f"k{item}", "item": f"i{item}", "ts": START_MS, "fields": {"tags": "x"}})
        for item in range(4, 8):
            show(log, item, 1_000 * item, item=f"i{item}")
        for item in items:
            show(log, 10 + item, 20_000, item=f"i{item}")
        for item in range(8, 14):
            log.pipe({"type": "item", "id": f"k{item}", "item": f"i{item}", "ts": START_MS, "fields": {"tags": "x"}})
        keys = log.partition.state.facts.items.key
        left.append(sorted(keys[keys != 0].tolist()))
    assert left[0] == left[1]

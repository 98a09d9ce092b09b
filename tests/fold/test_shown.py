"""Requests that show: the first of their answer are impressions of a page, as if they were sent behind the request."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.machine.compiled import INTERPRETED
from thalweg.schemas.events import shown_id
from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.driver import START_MS, Driver
from thalweg.streams.partition.partition import Partition

from tests.fold.pages import Event, made
from tests.fold.test_pages import configurations

APART = 32
"""Offsets between two records, so that others have room there."""
PAGES = 30
OPTIONS: list[Event] = [
    *({}, {}, {"top": 2}, {"exclude": ["i1", "i4"]}, {"seen": "drop"}, {"at_most": {"tab": 1}}),
    *({"policy": "epsilon", "epsilon": 0.5}, {"policy": "gumbel"}, {"policy": "thompson", "floor": 0.1}),
]


def showing(seed: int, pages: int) -> list[Event]:
    """Return a log of pages in which requests show, some in the midst of a page, and feedback names some of them."""
    chance = random.Random(seed)
    events: list[Event] = []
    for event in made(seed, pages):
        if event["type"] == "request" or (event["type"] == "impression" and chance.random() < 0.15):
            asked = _asked(chance, event, len(events))
            clicks = list(_clicks(chance, asked))
            is_early = chance.random() < 0.2
            events += [*(clicks if is_early else []), asked]
            if event["type"] == "impression":
                events.append(event)
            events += [] if is_early else clicks
        else:
            events.append(event)
    return events


def _asked(chance: random.Random, event: Event, number: int) -> Event:
    items: list[Any] = chance.sample([f"i{n}" for n in range(9)], chance.randrange(2, 6))
    if chance.random() < 0.5:
        items = [{"item": item, "context": {"tab": chance.choice("abc")}} for item in items]
    if chance.random() < 0.2:
        items.append(items[0])  # asked for twice
    own = {name: event[name] for name in ("user", "ts", "context")}
    asked = {"type": "request", "id": f"r{number}", "candidates": items, **own, **chance.choice(OPTIONS)}
    return asked if chance.random() < 0.2 else asked | {"shown": chance.choice([1, 2, 2, 3, 40])}


def _clicks(chance: random.Random, asked: Event) -> Iterator[Event]:
    for number, candidate in enumerate(asked["candidates"]):
        if chance.random() < 0.5:
            item = candidate if isinstance(candidate, str) else candidate["item"]
            delay_ms = chance.choice([0, 3_000, 30_000, 900_000])
            named = {"request": asked["id"]} if chance.random() < 0.8 else {}
            click = {"type": "feedback", "id": f"{asked['id']}.{number}", "item": item, "action": "click"}
            yield click | {"user": asked["user"], "ts": asked["ts"] + delay_ms} | named


def records_of(events: list[Event]) -> list[LogRecord]:
    """Return events as records, offsets apart."""
    return [LogRecord(APART * number, json.dumps(event).encode()) for number, event in enumerate(events)]


def spelled_out(events: list[Event], rankings: dict[int, Any]) -> list[LogRecord]:
    """Return the log in which no request shows: behind each are the impressions of what it was answered with."""
    records = []
    for record, event in zip(records_of(events), events, strict=True):
        answer = rankings.get(record.offset)
        if not event.get("shown") or not answer["items"]:
            records.append(record)
            continue
        plain = {name: value for name, value in event.items() if name != "shown"}
        records.append(record._replace(value=json.dumps(plain).encode()))
        contexts = {each["item"]: each["context"] for each in event["candidates"] if not isinstance(each, str)}
        for place, each in enumerate(answer["items"][: event["shown"]], 1):
            row = {"type": "impression", "id": shown_id(event["id"], each["item"]), "item": each["item"]}
            row |= {"user": event["user"], "ts": event["ts"], "request": event["id"], "position": place}
            row["context"] = event["context"] | contexts.get(each["item"], {})
            records.append(LogRecord(record.offset + place, json.dumps(row).encode()))
    return records


def folded(partition: Partition, records: list[LogRecord], batch: int) -> Outputs:
    """Return all that a log makes, in batches."""
    made = Outputs([], [], [], [], [])
    for first in range(0, len(records), batch):
        for kind, more in zip(made, partition.process(records[first : first + batch]), strict=True):
            kind.extend(more)
    return made


def moved(value: bytes | None) -> Any:
    """Return an output with its origin and cause at the offset of the request."""
    output = json.loads(value or b"")
    for name in ("origin", "cause"):
        place, _, ordinal = output[name].partition(":")
        topic, _, offset = place.rpartition("-")
        output[name] = f"{topic}-{int(offset) // APART}:{ordinal}"
    return output


def digest_of(partition: Partition) -> str:
    """Return the digest of a state in which impressions are at the offsets of their requests, and fates are none."""
    state = partition.state
    for offsets in (state.waiting.offset, state.waiting.feedbacks.offset, state.clock.offset):
        offsets[:] = offsets // APART * APART
    state.fates[:] = 0
    state.tallies[[Tallied.SHOWN, Tallied.SHOWN_PASSED_OVER]] = 0
    return partition.digest()


LAST = {"type": "feedback", "id": "last", "user": "v", "item": "i1", "ts": START_MS, "action": "like"}


@pytest.mark.parametrize("name", ["defaults", "admission", "expiry"])
@settings(max_examples=2 if INTERPRETED else 8, deadline=None)
@given(seed=st.integers(0, 2**32), batch=st.sampled_from([1, 3, 20, 1_000]))
def test_a_request_that_shows_is_the_request_and_its_impressions(name: str, seed: int, batch: int) -> None:
    """The state and all examples must be those of the log with the impressions spelled out, bit for bit."""
    events = [*showing(seed, PAGES), LAST]
    found, expected = (Partition(configurations()[name]) for _ in range(2))
    outputs = folded(found, records_of(events), batch)
    answers = {output.cause.offset: json.loads(output.value or b"") for output in outputs.rankings}
    others = folded(expected, spelled_out(events, answers), 1_000)
    assert list(map(moved, (each.value for each in outputs.examples))) == [
        moved(each.value) for each in others.examples
    ]
    scores = {score["id"]: score["score"] for each in others.scores for score in [json.loads(each.value or b"")]}
    for event in events:
        if event.get("shown"):
            [answer] = [each for each in answers.values() if each["id"] == event["id"]]
            for each in answer["items"][: event["shown"]]:
                assert scores[shown_id(event["id"], each["item"])] == each["score"]
    shown, passed = (int(found.state.tallies[which]) for which in (Tallied.SHOWN, Tallied.SHOWN_PASSED_OVER))
    assert shown > 0
    difference = expected.state.fates - found.state.fates
    assert difference[Fate.SCORED] == shown
    assert difference[Fate.DUPLICATE] == passed
    assert difference.sum() == shown + passed
    assert int(found.state.fates.sum()) == len(events)
    assert found.state.tallies[Tallied.IMPRESSIONS] == expected.state.tallies[Tallied.IMPRESSIONS]
    assert digest_of(found) == digest_of(expected)
    lasts = [[moved(each.value) for each in partition.close_all().examples] for partition in (found, expected)]
    assert lasts[0] == lasts[1]


def driver() -> Driver:
    """Return a driver that has seen a few impressions and clicks."""
    log = Driver(configurations()["defaults"])
    for number in range(40):
        user, item, ts = f"u{number % 3}", f"i{number % 5}", START_MS + 20_000 * number
        log.impression(f"{number}", user=user, item=item, ts=ts, context={"tab": "ab"[number % 2]})
        if number % 4 == 0:
            log.feedback(f"{number}", user=user, item=item, ts=ts + 900)
    return log


AT_MS = START_MS + 20_000 * 40
ASKED = {"type": "request", "id": "r", "user": "u1", "candidates": [f"i{n}" for n in range(5)], "ts": AT_MS}


def ask(log: Driver, **more: Any) -> Any:
    """Return the answer to a request that shows two items, unless said otherwise."""
    return log.pipe(ASKED | {"context": {"tab": "a"}, "shown": 2} | more).rankings[0]


def click(log: Driver, item: str, at_ms: int = 900, **more: Any) -> Any:
    """Return what a click on an item of a request makes."""
    event = {"type": "feedback", "id": f"c-{item}", "user": "u1", "item": item, "ts": AT_MS + at_ms, "action": "click"}
    return log.pipe(event | {"request": "r"} | more)


def test_the_first_of_the_answer_wait_and_have_their_scores_as_served() -> None:
    """Examples must have the answer's scores and the request's origin; the third of the answer has none."""
    log = driver()
    waiting, impressions = log.waiting, log.counts["impressions"]
    answer = ask(log)
    assert log.waiting - waiting == 2 - 1  # the request moves time, which closes a window
    assert log.counts["impressions"] - impressions == log.counts["shown"] == 2
    first, second, third = (each.item for each in answer.items[:3])
    click(log, first)
    assert log.fates["joined"] == 11
    examples = {example.item: example for example in log.close_windows().examples if example.ts == AT_MS}
    assert set(examples) == {first, second}
    assert [(examples[item].score, examples[item].label) for item in (first, second)] == [
        (answer.items[0].score, 1),
        (answer.items[1].score, 0),
    ]
    assert {(example.id, example.origin) for example in examples.values()} == {
        (f"r:{item}", answer.origin) for item in (first, second)
    }
    assert examples[first].features["tab"] == "a"
    assert third not in examples


@pytest.mark.parametrize(
    ("options", "count"),
    [({"shown": 99}, 5), ({"top": 1}, 1), ({"exclude": ["i0", "i1", "i2", "i3"]}, 1), ({"candidates": []}, 0)],
)
def test_what_is_not_answered_is_not_shown(options: Event, count: int) -> None:
    """More than the answer has can't be shown: all of it is."""
    log = driver()
    assert len(ask(log, **options).items) >= count
    assert log.counts["shown"] == count
    assert sum(log.fates.values()) == len(log.log)


def test_a_request_that_only_asks_changes_no_digest() -> None:
    """Without `shown` the state is as it was, and so it is behind a question with `shown` to a live partition."""
    log = driver()
    before = log.digest
    ask(log, shown=None)
    question = json.dumps(ASKED | {"context": {"new field": "x"}, "shown": 2}).encode()
    answer = json.loads(log.partition.answer(question))
    assert len(answer["items"]) == 5
    assert log.digest == before


def test_feedback_finds_what_a_request_showed() -> None:
    """Early, in time, twice, late or of another user: as for an impression that was sent."""
    log = driver()
    for item in ("i0", "i3"):
        click(log, item)
    assert log.fates["early"] == 2
    answer = ask(log, shown=5)
    assert (log.fates["early"], log.fates["joined"]) == (0, 12)
    click(log, "i0")
    assert log.fates["duplicate"] == 1
    click(log, "i1", 70_000)
    assert log.fates["late"] == 1
    click(log, "i2", id="named", impression="r:i2", request="other")
    assert log.fates["joined"] == 13
    assert click(log, "i4", user="u2").dead_letters[0].reason == "user_mismatch"
    examples = [example for example in log.close_windows().examples if example.ts == AT_MS]
    labels = {(example.item, example.revision): example.label for example in examples}
    assert labels == {("i0", 0): 1, ("i1", 0): 0, ("i1", 1): 1, ("i2", 0): 1, ("i3", 0): 1, ("i4", 0): 0}
    assert len(answer.items) == 5


def test_a_request_sent_twice_takes_nothing_again() -> None:
    """Even if its answer is another one by then."""
    log = driver()
    first = {each.item for each in ask(log).items[:2]}
    waiting = log.waiting
    rest = sorted({f"i{n}" for n in range(5)} - first)
    assert len(ask(log, exclude=sorted(first)).items) == len(rest)
    assert (log.waiting, log.counts["shown"], log.counts["shown_passed_over"]) == (waiting, 2, 2)
    assert log.fates["ranked"] == 2


def test_an_impression_of_what_its_request_showed_is_a_duplicate() -> None:
    """One of another item of the answer is scored. Where impressions answer a request first, it shows nothing."""
    log = driver()
    answer = ask(log)
    row = {"type": "impression", "user": "u1", "ts": AT_MS, "context": {"tab": "a"}, "request": "r"}
    log.pipe(row | {"id": "x0", "item": answer.items[0].item})
    assert log.fates["duplicate"] == 1
    [score] = log.pipe(row | {"id": "x3", "item": answer.items[3].item}).scores
    assert score.score == answer.items[3].score
    scored = log.fates["scored"]
    log.pipe(row | {"id": "y", "item": "i0", "request": "r2"})
    ask(log, id="r2")
    assert log.fates["scored"] == scored + 1
    assert (log.counts["shown"], log.counts["shown_passed_over"]) == (2, 2)


def test_what_was_shown_counts_once_the_page_is_over() -> None:
    """The next page of the user has one exposure more for each item; a further row of this page has not."""
    log = driver()
    state = log.partition.state
    before = int(state.visits.shown.sum())
    ask(log, shown=3)
    assert int(state.visits.shown.sum()) == before + 3
    assert ask(log, id="r2", shown=None).items == ask(log, id="r3", shown=None).items
    row = {"type": "impression", "id": "x", "user": "u1", "item": "i4", "context": {"tab": "a"}}
    on_the_page = ask(log, id="r4", shown=None, candidates=["i4"]).items[0].score
    assert log.pipe(row | {"ts": AT_MS}).scores[0].score == on_the_page
    assert log.pipe(row | {"id": "z", "ts": AT_MS + 1}).scores[0].score != on_the_page


def test_a_user_who_is_erased_leaves_nothing_that_was_shown() -> None:
    """Its impressions are gone, with the request that they answer."""
    log = driver()
    ask(log)
    assert (log.partition.state.waiting.request_key != 0).sum() == 2
    log.erase("u1", ts=AT_MS)
    assert not log.partition.state.waiting.request_key.any()
    click(log, "i0")
    assert log.fates["early"] == 1


def test_a_field_may_appear_first_in_what_is_shown() -> None:
    """A request that shows brings fields as impressions do, its candidates too; one that only asks does not."""
    c = configurations()["defaults"]
    log = Driver(replace(c, features=replace(c.features, context=())))
    for number in range(2):
        log.pipe(ASKED | {"id": f"q{number}", "context": {"a": "x"}})
    own = [{"item": "i0", "context": {"b": 1}}, "i1", {"item": "i2", "context": {"c": None}}]
    ask(log, context={"d": "y"}, candidates=own)
    names = [bytes(name).split(b"\0")[0].decode() for name in log.partition.state.names]
    assert [name for name in names if name] == ["user", "item", "d", "b"]
    examples = {example.item: example.features for example in log.close_windows().examples}
    assert (examples["i0"]["b"], examples["i0"]["d"], "b" in examples["i1"]) == (1, "y", False)


@cache
def crowded() -> tuple[LogRecord, ...]:
    """Return a log in which what is shown contradicts more early feedback than the fold emits at once."""
    rows = range(6)
    events = [
        {"type": "feedback", "id": f"f{row}.{n}", "user": "w", "item": f"i{row}", "ts": AT_MS, "action": "click"}
        | ({"impression": f"p{row}"} if n % 2 else {"request": "r"})
        for row in rows
        for n in range(80)
    ]
    events.append(ASKED | {"candidates": [f"i{row}" for row in rows], "context": {}, "shown": 6})
    page = {"type": "impression", "user": "u1", "ts": AT_MS + 1, "context": {}}
    events += [page | {"id": f"p{row}", "item": f"i{row}"} for row in rows]
    return tuple(records_of(events))


@pytest.mark.parametrize("batch", [1, 7, 1_000])
def test_rows_of_a_page_that_contradict_much_feedback(batch: int) -> None:
    """All of it must be dead-lettered, each once and in order, whatever fits into the room that the fold has."""
    c = configurations()["defaults"]
    partition = Partition(replace(c, joiner=replace(c.joiner, feedbacks_per_impression=40)))
    outputs = folded(partition, list(crowded()), batch)
    assert len(outputs.dead_letters) == 480
    causes = [each.cause for each in outputs.dead_letters]
    assert causes == sorted(set(causes))
    assert partition.state.tallies[Tallied.SHOWN] == 6
    assert partition.state.tallies[Tallied.IMPRESSIONS] == 12
    assert int(partition.state.fates.sum()) == len(crowded())

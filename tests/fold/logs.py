"""Real and generated logs on which the fold is compared with itself and with its specification."""

import json
import random
from functools import cache
from typing import Any

from thalweg.schemas.records import LogRecord
from thalweg.streams.logs.generate import Generator, Stream

from tests.streams.logs_for_tests import sample

EVENTS = 3_000
STREAM = Stream(
    seed=11,
    users=220,
    items=90,
    impressions=2_600,
    interval_ms=4_000,
    feedback_delay_ms=240_000,
    new_items_per_hour=4.0,
)


def kuairand(events: int = EVENTS) -> list[LogRecord]:
    """Return the first events of the sample that is shipped: true impressions with clicks."""
    return list(sample(events))


@cache
def _generated() -> tuple[LogRecord, ...]:
    chance, facts, pages, values = (random.Random(seed) for seed in (7, 8, 9, 10))
    lines = [json.loads(line) for log, _ in Generator(STREAM).blocks() for line in log.splitlines()]
    events = []
    for event in lines:
        if event["type"] == "impression":
            event["context"] |= {"tags": chance.sample(["a", "b", "c", "d", "e"], chance.randrange(3))}
            if chance.random() < 0.3:
                event["context"] |= {"price": chance.choice([1, 2.5, 40, "none"])}
            if chance.random() < 0.4:
                event["base_score"] = round(chance.uniform(0.01, 0.99), 3)
        elif chance.random() < 0.2:
            event["action"] = chance.choice(["like", "buy"])
        if event["type"] == "feedback" and values.random() < 0.5:
            event["value"] = values.choice([0, 0.25, 2, 7])
        events.append(event)
        if event["type"] == "impression" and pages.random() < 0.12:
            events += _further_rows(pages, event)
        if chance.random() < 0.01:
            events.append(chance.choice(events[-40:]))  # sent twice
        if event["type"] == "feedback" and chance.random() < 0.1:
            events.append(event)
        if event["type"] == "feedback" and facts.random() < 0.15:
            del event["impression"]
            if facts.random() < 0.4:
                event["item"] = f"found-{facts.randrange(9)}"
        if facts.random() < 0.04:
            events.append(_facts(facts, event, len(events)))
        if chance.random() < 0.01:
            events.append({"type": "erase", "id": f"x{len(events)}", "user": event["user"], "ts": event["ts"]})
    for _ in range(60):  # feedback before its impression, and out of order
        at = chance.randrange(len(events) - 30)
        events.insert(at + chance.randrange(30), events.pop(at))
    return tuple(LogRecord(n, json.dumps(event).encode()) for n, event in enumerate(events))


def _further_rows(chance: random.Random, event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return further rows of the page of an impression, sometimes of its item, sometimes in another context."""
    rows = []
    for number in range(chance.randrange(1, 4)):
        item = chance.choice([event["item"], f"i{chance.randrange(90)}"])
        context = event["context"] | ({"device": "watch"} if chance.random() < 0.3 else {})
        rows.append(event | {"id": f"{event['id']}.{number}", "item": item, "context": context})
    return rows


def _facts(chance: random.Random, event: dict[str, Any], number: int) -> dict[str, Any]:
    """Return facts about an event's item or user: fields that impressions have only sometimes, or never."""
    of = chance.choice(["item", "user"])
    possible = {
        "price": chance.choice([1, 2.5, 40, "none", None]),
        "tags": chance.choice([[], ["a"], ["f", "e"], None]),
        "device": "tablet",
        f"{of}_fact": chance.choice(["x", "y"]),
    }
    fields = {name: value for name, value in possible.items() if chance.random() < 0.6}
    return {"type": of, "id": f"k{number}", of: event[of], "ts": event["ts"], "fields": fields}


def generated(events: int = EVENTS) -> list[LogRecord]:
    """Return events that are made up: pages, lists, missing fields, base scores, erasures, clicks early and late."""
    found = list(_generated()[:events])
    assert len(found) == events
    return found


def showing(events: int) -> list[LogRecord]:
    """Return the first of the events that are made up, with requests that show among them, and feedback on these."""
    chance, found = random.Random(10), []
    for record in generated(events):
        event = json.loads(record.value or b"")
        found.append(event)
        if event["type"] == "impression" and chance.random() < 0.1:
            items = chance.sample([f"i{n}" for n in range(90)], 4)
            own = {name: event[name] for name in ("user", "ts", "context")}
            asked = {"type": "request", "id": f"r{len(found)}", "candidates": items, "explain": True} | own
            found.append(asked | {"shown": chance.randrange(1, 4)})
            if chance.random() < 0.5:
                click = {"type": "feedback", "id": f"c{len(found)}", "request": asked["id"], "action": "click"}
                found.append(click | {"user": event["user"], "item": chance.choice(items), "ts": event["ts"] + 9_000})
    return [LogRecord(n, json.dumps(event).encode()) for n, event in enumerate(found)]


LOGS = {"kuairand": kuairand, "generated": generated}

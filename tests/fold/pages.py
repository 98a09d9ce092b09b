"""Logs of pages, and the same logs with the rows of each page in another order."""

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from thalweg.schemas.records import LogRecord, Outputs
from thalweg.streams.driver import START_MS

Event = dict[str, Any]
ROWS_MAX = 6


def logged(events: list[Event]) -> list[LogRecord]:
    """Return events as the records of a log."""
    return [LogRecord(offset, json.dumps(event).encode()) for offset, event in enumerate(events)]


def made(seed: int, pages: int, *, users: int = 4, items: int = 7, tags: int = 3) -> list[Event]:
    """Return a log of pages, with feedback before, between and after them, facts, requests and erasures."""
    chance = random.Random(seed)
    events: list[Event] = []
    now_ms = START_MS
    for page in range(pages):
        now_ms += chance.choice([0, 0, 1_000, 20_000, 70_000, 400_000])
        user, ts_ms = f"u{chance.randrange(users)}", now_ms - chance.choice([0, 0, 0, 5_000])
        rows = [
            {"type": "impression", "id": f"{page}.{row}", "user": user, "item": f"i{chance.randrange(items)}",
             "ts": ts_ms, "context": _context(chance, tags)}
            for row in range(chance.randrange(1, ROWS_MAX))
        ]  # fmt: skip
        clicks = [_click(chance, row, number) for number, row in enumerate(rows) if chance.random() < 0.5]
        early = [click for click in clicks if chance.random() < 0.3]
        events += early
        for row in rows:
            events.append(row)
            if chance.random() < 0.1:
                events.append(_request(chance, row, len(events)))  # ends no page
            if chance.random() < 0.05:
                events.append(row)  # sent twice
        events += [click for click in clicks if click not in early]
        if chance.random() < 0.2:
            events.append(_facts(chance, rows[0], len(events)))
        if chance.random() < 0.03:
            events.append({"type": "erase", "id": f"x{page}", "user": user, "ts": ts_ms})
    return events


def _context(chance: random.Random, tags: int) -> Event:
    given = [f"t{chance.randrange(tags)}" for _ in range(chance.randrange(4) if tags < 10 else 9)]
    context: Event = {"tab": chance.choice("ab"), "tags": given}
    context |= {f"other_{number}": f"{chance.randrange(tags)}" for number in range(4 if tags >= 10 else 0)}
    return {name: value for name, value in context.items() if chance.random() < 0.7}


def _click(chance: random.Random, row: Event, number: int) -> Event:
    delay_ms = chance.choice([0, 700, 3_000, 30_000, 900_000])
    click = {key: row[key] for key in ("user", "item")} | {"type": "feedback", "id": f"f{number}", "action": "click"}
    named = {"impression": row["id"]} if chance.random() < 0.7 else {}
    return click | {"id": f"f{row['id']}", "ts": row["ts"] + delay_ms} | named


def _request(chance: random.Random, row: Event, number: int) -> Event:
    candidates = [f"i{chance.randrange(9)}" for _ in range(3)]
    user = {"user": row["user"], "ts": row["ts"], "context": row["context"]}
    return {"type": "request", "id": f"r{number}", "candidates": candidates} | user


def _facts(chance: random.Random, row: Event, number: int) -> Event:
    of = chance.choice(["item", "user"])
    return {
        "type": of,
        "id": f"k{number}",
        of: row[of],
        "ts": row["ts"],
        "fields": {"tags": ["t1", "other"]},
    }


def page_of(event: Event, page: object = None) -> object:
    """Return what tells pages apart: user and `ts` of an impression; requests and facts are on the page before."""
    if event["type"] == "impression":
        return (event["user"], event["ts"])
    return page if event["type"] in ("request", "item") else None


def _runs(events: list[Event]) -> Iterator[list[Event]]:
    """Yield pages, and what is on none, piece by piece."""
    page: object = None
    numbers = []
    for number, event in enumerate(events):
        page = page_of(event, page)
        numbers.append(page if page is not None else number)
    for _, group in groupby(zip(numbers, events, strict=True), key=lambda pair: pair[0]):
        yield [event for _, event in group]


def shuffled(events: list[Event], seed: int) -> list[Event]:
    """Return a log with the rows of each page in another order; what else is between them stays where it is.

    A row stays on its side of facts about items, as these hold for the rows behind them.
    """
    chance = random.Random(seed)
    found: list[Event] = []
    for run in _runs(events):
        for _, part in groupby(run, key=lambda event: event["type"] == "item"):
            found += _shuffled(list(part), chance)
    return found


def _shuffled(part: list[Event], chance: random.Random) -> list[Event]:
    """Return a part of a log with its impressions in another order, in the places of impressions."""
    rows = [event for event in part if event["type"] == "impression"]
    others = iter(chance.sample(rows, len(rows)))
    return [next(others) if event["type"] == "impression" else event for event in part]


def told(outputs: Outputs) -> dict[str, Any]:
    """Return what was scored, learned and ranked, by ids: without the offsets, which another order changes."""
    found: dict[str, Any] = defaultdict(list)
    for name, each in zip(Outputs._fields, outputs, strict=True):
        for output in each:
            value = json.loads(output.value or b"")
            if name == "dead_letters":
                found[name].append(value)
                continue
            kept = {key: field for key, field in value.items() if key not in ("origin", "cause")}
            found[f"{name} {value['id']} {value.get('revision', 0)}"].append(kept)
    found["order of examples"] = [json.loads(output.value or b"")["id"] for output in outputs.examples]
    return found

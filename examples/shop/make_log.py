"""Write a made-up shop's log: tables of views, carts and purchases, facts of items, and all of it as JSON lines.

    python examples/shop/make_log.py FOLDER [--views 20000] [--seed 7]

Customers like some categories and some brands more than others, and new items come in every day. Nothing of it is in
Thalweg's own shape but the facts. It needs the standard library only.
"""

import argparse
import csv
import json
import math
import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

CUSTOMERS, ITEMS = 900, 300
CATEGORIES = ("shoes", "jackets", "bags", "tents", "lamps")
BRANDS = ("Alba", "Borea", "Cairn", "Delta", "Ember", "Fjell")
DEVICES = ("phone", "desktop", "tablet")
START = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PAGE_ROWS = 4
CART_SHARE = 0.5
COLUMNS = {
    "views": ("view_id", "customer", "sku", "seen_at", "device", "list_name"),
    "carts": ("view_id", "customer", "sku", "seen_at"),
    "purchases": ("customer", "sku", "seen_at", "price"),
}
PROPERTIES = ("category", "brand", "price")
Row = dict[str, Any]


def taste(customer: int, of: str) -> float:
    """Return how much a customer likes a category or a brand, in log-odds."""
    return random.Random(f"{customer} {of}").gauss(0.0, 1.1)


def item(number: int) -> Row:
    """Return one item of the shop."""
    chance = random.Random(f"item {number}")
    since = START + timedelta(hours=max(0, number - ITEMS // 2) * 0.8)
    return {
        "sku": f"SKU-{1000 + number}",
        "since": since,
        "category": chance.choice(CATEGORIES),
        "brand": chance.choice(BRANDS),
        "price": round(chance.lognormvariate(3.4, 0.6), 2),
        "appeal": chance.gauss(0.0, 0.6),
    }


def events(views: int, seed: int) -> Iterator[tuple[str, datetime, Row]]:
    """Yield (kind, time, row) of all events; only rows of one page have equal times."""
    chance = random.Random(seed)
    items = [item(number) for number in range(ITEMS)]
    now, number = START, 0
    while number < views:
        now += timedelta(seconds=chance.expovariate(1 / 24))
        customer = int(CUSTOMERS * chance.random() ** 1.6)
        device = chance.choice(DEVICES)
        there = [each for each in items if each["since"] <= now]
        for each in chance.sample(there, PAGE_ROWS):
            number += 1
            seen = {"customer": f"c-{customer:04}", "sku": each["sku"], "seen_at": now}
            view = {"view_id": f"v{number:06}", "device": device, "list_name": chance.choice(("home", "search"))}
            yield "view", now, view | seen
            logit = -2.4 + each["appeal"] + taste(customer, each["category"]) + 0.7 * taste(customer, each["brand"])
            if chance.random() < 1 / (1 + math.exp(-logit)):
                at = now + timedelta(seconds=chance.expovariate(1 / 45))
                yield "cart", at, seen | {"view_id": view["view_id"], "seen_at": at}
                if chance.random() < CART_SHARE:
                    at += timedelta(seconds=chance.expovariate(1 / 90))
                    yield "purchase", at, seen | {"seen_at": at, "price": each["price"]}


def told(value: Any) -> Any:
    """Return a value as the shop writes it."""
    return value.isoformat(timespec="milliseconds") if isinstance(value, datetime) else value


def write_table(path: Path, columns: tuple[str, ...], rows: list[Row]) -> None:
    """Write a CSV table."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({name: told(value) for name, value in row.items()} for row in rows)


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write JSON, one object a line."""
    with path.open("w") as file:
        file.writelines(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)


def fact(row: Row) -> Row:
    """Return what is known of an item as Thalweg's own event."""
    fields = {name: row[name] for name in PROPERTIES}
    ts = int(START.timestamp() * 1_000)
    return {"type": "item", "id": f"fact-{row['sku']}", "item": row["sku"], "ts": ts, "fields": fields}


def event(kind: str, row: Row) -> Row:
    """Return an event as the shop sends it to a topic."""
    known = ("sku", *PROPERTIES) if kind == "item" else ("sku",)
    product = {name: told(row[name]) for name in known}
    found: Row = {"event": kind, "product": product, "at": told(row["seen_at"])}
    if kind != "item":
        found["who"] = {"id": row["customer"]}
        found["view"] = row.get("view_id")
        found["page"] = {name: row[name] for name in ("device", "list_name") if name in row}
    return found


def main() -> None:
    """Write the tables and the JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--views", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    found = sorted(events(arguments.views, arguments.seed), key=lambda each: each[1])
    for kind in ("view", "cart", "purchase"):
        rows = [row for each, _, row in found if each == kind]
        write_table(arguments.folder / f"{kind}s.csv", COLUMNS[f"{kind}s"], rows)
    items = [item(number) for number in range(ITEMS)]
    write_lines(arguments.folder / "items.jsonl", map(fact, items))
    started = [("item", each["since"], each | {"seen_at": each["since"]}) for each in items]
    together = sorted([*started, *found], key=lambda each: each[1])
    write_lines(arguments.folder / "events.jsonl", (event(kind, row) for kind, _, row in together))


if __name__ == "__main__":
    main()

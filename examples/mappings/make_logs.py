"""Write the made-up logs of this folder: 2 000 events each, in the shapes of four systems; same seed, same bytes.

python -m examples.mappings.make_logs
"""

import csv
import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent
EVENTS = 2_000
FIRST_MS = 1_717_400_000_000  # 3 June 2024
USERS, ITEMS = 150, 60
CATEGORIES = ("shoes", "shirts", "books", "toys", "garden")
LIKED = {True: (0.8, 0.6, 0.3, 0.1, 0.05), False: (0.6, 0.3, 0.1, 0.05, 0.02)}  # by category
COUNTRIES = ("Germany", "France", "India", "Brazil")


class Made(NamedTuple):
    """What happened: `kind` view, click, purchase or ping; `view` is the number of the view that it follows."""

    number: int
    kind: str
    ts_ms: int
    user: int
    item: int
    view: int


def made(seed: int) -> list[Made]:
    """Return what users did, in the order of time; some categories are liked more than others."""
    chance = random.Random(seed)
    found: list[Made] = []
    ts_ms = FIRST_MS
    pending: list[Made] = []
    while len(found) < EVENTS:
        ts_ms += chance.randrange(200, 4_000)
        due = [each for each in pending if each.ts_ms <= ts_ms]
        pending = [each for each in pending if each.ts_ms > ts_ms]
        found += sorted(due, key=lambda each: each.ts_ms)
        if chance.random() < 0.05:
            found.append(Made(0, "ping", ts_ms, chance.randrange(USERS), 0, 0))
            continue
        user, item = chance.randrange(USERS), min(int(chance.expovariate(0.06)), ITEMS - 1)
        view = Made(len(found), "view", ts_ms, user, item, chance.getrandbits(30))
        found.append(view)
        if chance.random() < LIKED[(user + item) % 2 == 0][item % len(CATEGORIES)]:
            pending.append(view._replace(kind="click", ts_ms=ts_ms + chance.randrange(1_000, 60_000)))
            if chance.random() < 0.2:
                pending.append(view._replace(kind="purchase", ts_ms=ts_ms + chance.randrange(60_000, 300_000)))
    return [each._replace(number=number) for number, each in enumerate(found[:EVENTS])]


def category(item: int) -> str:
    """Return an item's category."""
    return CATEGORIES[item % len(CATEGORIES)]


def price(item: int) -> float:
    """Return an item's price."""
    return 5 + item * 7 % 90 + 0.99


def moment(ts_ms: int) -> datetime:
    """Return a time with its zone."""
    return datetime.fromtimestamp(ts_ms / 1000, UTC)


def ga4(event: Made) -> dict[str, Any]:
    """Return an event as GA4 exports it to BigQuery; 64-bit numbers are texts, as `bq extract` writes them."""
    names = {"view": "view_item", "click": "select_item", "purchase": "purchase", "ping": "user_engagement"}

    def parameter(key: str, **value: Any) -> dict[str, Any]:
        return {"key": key, "value": value}

    parameters = [
        parameter("ga_session_id", int_value=str(event.user * 1_000 + event.ts_ms // 86_400_000)),
        parameter("page_location", string_value=f"https://shop.example/{category(event.item)}/{event.item}"),
    ]
    items = []
    if event.kind != "ping":
        parameters.append(parameter("impression_id", string_value=f"v{event.view}"))
        items = [
            {
                "item_id": f"SKU_{event.item:03}",
                "item_name": f"Thing {event.item}",
                "item_category": category(event.item),
                "price": price(event.item),
                "quantity": None,
            }
        ]
    return {
        "event_date": moment(event.ts_ms).strftime("%Y%m%d"),
        "event_timestamp": str(event.ts_ms * 1000 + 123),
        "event_name": names[event.kind],
        "event_params": parameters,
        "user_id": f"member-{event.user}" if event.user % 3 == 0 else None,
        "user_pseudo_id": f"{event.user * 7919 % 10_007}.{event.user}",
        "device": {"category": ("mobile", "desktop", "tablet")[event.user % 3], "operating_system": "Android"},
        "geo": {"country": COUNTRIES[event.user % 4], "city": ""},
        "traffic_source": {"medium": "organic" if event.user % 2 else "cpc", "source": "google"},
        "platform": "WEB",
        "items": items,
    }


def snowplow(event: Made) -> dict[str, Any]:
    """Return an enriched event as Snowplow's analytics SDKs turn it into JSON."""
    action = "com_shop_product_action_1"
    kinds = {"view": "view", "click": "click", "purchase": "purchase"}
    found: dict[str, Any] = {
        "app_id": "shop",
        "platform": "web",
        "collector_tstamp": moment(event.ts_ms + 80).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "derived_tstamp": moment(event.ts_ms).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        "event": "page_ping" if event.kind == "ping" else "unstruct",
        "event_id": f"{event.number:08x}-0000-4000-8000-000000000000",
        "event_name": "page_ping" if event.kind == "ping" else "product_action",
        "user_id": f"u{event.user}" if event.user % 2 else None,
        "domain_userid": f"d{event.user}",
        "geo_country": COUNTRIES[event.user % 4],
        "dvce_ismobile": event.user % 3 == 0,
        "br_lang": "de-DE",
        "page_urlpath": f"/{category(event.item)}",
    }
    if event.kind != "ping":
        found[f"unstruct_event_{action}"] = {"type": kinds[event.kind], "impression_id": f"v{event.view}"}
        found["contexts_com_shop_product_1"] = [
            {"sku": f"{event.item:05}", "category": category(event.item), "price": price(event.item), "tags": ["new"]}
        ]
    return found


def segment(event: Made) -> dict[str, Any]:
    """Return a call of Segment's `track`, or a `page` call."""
    names = {"view": "Product Viewed", "click": "Product Clicked", "purchase": "Order Completed"}
    common = {
        "messageId": f"msg-{event.number}",
        "userId": f"{event.user:04}" if event.user % 4 else None,
        "anonymousId": f"anon-{event.user}",
        "timestamp": moment(event.ts_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "context": {
            "locale": "de-DE",
            "page": {"path": f"/{category(event.item)}"},
            "app": {"beta": event.user % 2 == 0},
        },
    }
    if event.kind == "ping":
        return {"type": "page", "name": "Home", **common, "properties": {"title": "Home"}}
    properties = {
        "product_id": f"p-{event.item}",
        "category": category(event.item),
        "price": price(event.item),
        "impression_id": f"v{event.view}",
        "coupon": None,
    }
    return {"type": "track", "event": names[event.kind], **common, "properties": properties}


def retailrocket(events: list[Made]) -> str:
    """Return events as the data set of RetailRocket has them: a table, and no impression's id."""
    kinds = {"view": "view", "click": "addtocart", "purchase": "transaction"}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["timestamp", "visitorid", "event", "itemid", "transactionid"])
    for event in events:
        if event.kind != "ping":
            order = event.number if event.kind == "purchase" else ""
            table.writerow([event.ts_ms, event.user, kinds[event.kind], event.item + 100_000, order])
    return text.getvalue()


def logs() -> Iterator[tuple[str, bytes]]:
    """Give the name and the bytes of each log."""
    shapes: dict[str, Callable[[Made], dict[str, Any]]] = {"ga4": ga4, "snowplow": snowplow, "segment": segment}
    for seed, (name, shape) in enumerate(shapes.items()):
        lines = "".join(json.dumps(shape(event)) + "\n" for event in made(seed))
        yield f"{name}.jsonl.gz", gzip.compress(lines.encode(), 9, mtime=0)
    yield "retailrocket.csv", retailrocket(made(3)).encode()


def main() -> None:
    """Write the logs."""
    for name, data in logs():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()

"""A log to play with: users with tastes, shown items, and clicks where a taste meets an item.

The same seed gives the same log. Half a second of event time passes between two impressions, so that outcomes are
decided, and learned, within seconds of a log that is produced at 2 000 events a second.
"""

import heapq
import json
import random
from collections.abc import Iterator

START_MS = 1_700_000_000_000
STEP_MS = 500


def events(count: int, seed: int = 0, users: int = 500, items: int = 200, tastes: int = 8) -> Iterator[bytes]:
    """Give `count` events as JSON lines, in the order of their time."""
    chance = random.Random(seed)
    taste_of = [chance.randrange(tastes) for _ in range(users)]
    kind_of = [chance.randrange(tastes) for _ in range(items)]
    clicks: list[tuple[int, int, dict[str, object]]] = []
    for number in range(count):
        now = START_MS + number * STEP_MS
        if clicks and clicks[0][0] <= now:
            yield _line(heapq.heappop(clicks)[2])
            continue
        user, item = chance.randrange(users), min(chance.randrange(items), chance.randrange(items))
        shown: dict[str, object] = {"user": f"u{user}", "item": f"v{item}", "ts": now}
        context = {"device": chance.choice(["phone", "tablet", "tv"]), "kind": f"k{kind_of[item]}"}
        yield _line({"type": "impression", "id": f"i{number}", **shown, "context": context})
        if chance.random() < (0.45 if taste_of[user] == kind_of[item] else 0.05):
            after = now + chance.randrange(1_000, 60_000)
            click = {"type": "feedback", "id": f"f{number}", "impression": f"i{number}", **shown, "ts": after}
            heapq.heappush(clicks, (after, number, click | {"action": "click"}))


def _line(event: dict[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"

"""Policies in a closed loop: rank, show, click, learn, with delay, in made-up worlds whose truth is known.

python -m benchmarks.explore                                      five seeds, 8 000 requests each
python -m benchmarks.explore --requests 1500 --seeds 2            a look

A pool of items is shown, and new ones take over from old ones all the time. Each request ranks some of the pool for a
user. The first places are shown, and each is clicked with its true probability, after an exponential delay. The
partition learns from this and from nothing else. There are two worlds:

- tastes, that of `thalweg generate`: users like what is near their segment, items have a genre and a little appeal
- appeals: clicks are rare, and how often an item is clicked is its own, a normal number around log-odds of -3. No field
  says anything about a new item

Regret is the sum of true probabilities that the best places would have had, less those that were shown. A good new item
is one whose mean true probability over all users is above the 90th percentile of the pool; it reaches the top ten when
an answer first has it there.
"""

import argparse
import heapq
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.policies import RankingConfiguration
from thalweg.schemas.events import Feedback, Impression, Request, encode_event
from thalweg.schemas.outputs import decode_ranking
from thalweg.schemas.records import LogRecord
from thalweg.streams.driver import START_MS
from thalweg.streams.logs.generate import DEVICES, GENRES, SEGMENTS, Generator, Stream
from thalweg.streams.partition.partition import Partition

POLICIES = {
    "greedy": {"policy": "none"},
    "epsilon .05": {"policy": "epsilon", "epsilon": 0.05},
    "epsilon .2": {"policy": "epsilon", "epsilon": 0.2},
    "gumbel .05": {"policy": "gumbel", "temperature": 0.05},
    "gumbel .1": {"policy": "gumbel", "temperature": 0.1},
    "gumbel .3": {"policy": "gumbel", "temperature": 0.3},
    "thompson .1": {"policy": "thompson", "deviation": 0.1},
    "thompson .25": {"policy": "thompson", "deviation": 0.25},
    "thompson .5": {"policy": "thompson", "deviation": 0.5},
    "thompson 1": {"policy": "thompson", "deviation": 1.0},
    "thompson 2": {"policy": "thompson", "deviation": 2.0},
}
USERS, TOP = 300, 10
INTERVAL_MS, DELAY_MS = 5_000, 60_000
FEW_IMPRESSIONS = 10
ITEMS_MAX = 100_000
GOOD_QUANTILE = 0.9
MARKS = (0.1, 0.5, 1.0)


class Setting(NamedTuple):
    """What a world is like: how many items it has at a time, a request ranks and shows; how often a new one comes."""

    world: str
    requests: int
    pool: int
    candidates: int
    shown: int
    new_every: int


class Run(NamedTuple):
    """One policy in one world.

    Regret up to each mark; share of places for items with few impressions; of good new items the median of requests
    until they are in the top ten, and how many get there.
    """

    regret: tuple[float, ...]
    share_new: float
    until_top: float
    found: float


class World:
    """The users, the pool of items, and the truth."""

    def __init__(self, setting: Setting, seed: int) -> None:
        """Start a pool; an item is replaced every so many requests."""
        self._appeals = (
            None if setting.world == "tastes" else np.random.default_rng(seed).standard_normal(ITEMS_MAX) - 3.0
        )
        stream = Stream(seed=seed, users=USERS, items=setting.pool, impressions=1, new_items_per_hour=1.0)
        self._truth = Generator(stream)
        self._chance = np.random.default_rng(seed)
        self._setting = setting
        self.pool = list(range(setting.pool))
        self.born: dict[int, int] = {}

    def probabilities(self, user: int, items: list[int], device: int) -> np.ndarray:
        """Return the true probabilities that a user clicks on items."""
        if self._appeals is not None:
            return 1.0 / (1.0 + np.exp(-self._appeals[items]))
        count = len(items)
        users, devices = np.full(count, user), np.full(count, device)
        return self._truth.probabilities(np.zeros(count, np.int64), users, np.array(items), devices)

    def mean_probability(self, item: int) -> float:
        """Return an item's mean true probability over all users."""
        if self._appeals is not None:
            return float(self.probabilities(0, [item], 0)[0])
        users = np.arange(USERS)
        item_of_all, devices = np.full(USERS, item), users % len(DEVICES)
        return float(self._truth.probabilities(np.zeros(USERS, np.int64), users, item_of_all, devices).mean())

    def ask(self, number: int) -> tuple[int, int, list[int]]:
        """Return user, device and candidates of a request, having renewed the pool."""
        pool, new_every = self._setting.pool, self._setting.new_every
        if number % new_every == 0:
            newest = pool + number // new_every
            self.pool[int(self._chance.integers(pool))] = newest
            self.born[newest] = number
        user, device = int(self._chance.integers(USERS)), int(self._chance.integers(len(DEVICES)))
        places = self._chance.choice(pool, self._setting.candidates, replace=False)
        return user, device, [self.pool[place] for place in places]

    def clicks(self, probabilities: np.ndarray) -> list[tuple[int, int]]:
        """Return which of the places are clicked, each with its delay in ms."""
        chances, delays = (
            self._chance.random(len(probabilities)),
            self._chance.exponential(DELAY_MS, len(probabilities)),
        )
        return [(place, int(delays[place])) for place in np.flatnonzero(chances < probabilities).tolist()]


class Loop:
    """A partition that is shown what it ranks, and what is clicked of it."""

    def __init__(self, ranking: dict[str, Any], seed: int) -> None:
        """Start empty."""
        policy = RankingConfiguration(**ranking, seed=seed)
        tables = replace(Configuration().table, rows_limit=1 << 15)
        joiner = replace(Configuration().joiner, waiting_limit=1 << 14)
        behaviors = replace(Configuration().behaviors, users_limit=1 << 15)
        configuration = Configuration(ranking=policy, table=tables, joiner=joiner, behaviors=behaviors)
        self._partition = Partition(configuration, examples=False)
        self._due: list[tuple[int, int, bytes]] = []
        self._offset = 0

    def rank(self, request: Request) -> list[Any]:
        """Return the items of the answer, once what came before is learned."""
        values = []
        while self._due and self._due[0][0] <= request.ts:
            values.append(heapq.heappop(self._due)[2])
        records = [LogRecord(self._offset + at, value) for at, value in enumerate([*values, encode_event(request)])]
        self._offset += len(records)
        return decode_ranking(self._partition.process(records).rankings[0].value or b"").items

    def tell(self, event: Impression | Feedback) -> None:
        """Put an event on its way; of one time, the one told first comes first."""
        heapq.heappush(self._due, (event.ts, self._offset + len(self._due), encode_event(event)))


def run(setting: Setting, ranking: dict[str, Any], seed: int) -> Run:
    """Return how a policy did in the world of a seed; each policy meets the same users, candidates and new items."""
    requests, count = setting.requests, setting.shown
    world, loop, luck = World(setting, seed), Loop(ranking, seed), np.random.default_rng(seed + 1_000)
    world_clicks = World(setting, seed + 500).clicks  # of another chance, so that clicks do not move the candidates
    exposures: dict[int, int] = {}
    regrets, places_new, reached = [], 0, {}
    for number in range(requests):
        user, device, asked = world.ask(number)
        ts = START_MS + number * INTERVAL_MS + int(luck.integers(INTERVAL_MS // 2))
        context = {"device": DEVICES[device], "segment": f"s{user % SEGMENTS}"}
        wanted = [{"item": f"i{item}", "context": {"genre": f"g{item % GENRES}"}} for item in asked]
        answer = loop.rank(Request(f"r{number}", f"u{user}", wanted, ts, context, top=TOP))
        ranked = [int(item.item[1:]) for item in answer]
        for item in ranked:
            reached.setdefault(item, number)
        shown = ranked[:count]
        true, best = world.probabilities(user, shown, device), world.probabilities(user, asked, device)
        regrets.append(np.sort(best)[-count:].sum() - true.sum())
        for place, item in enumerate(shown):
            places_new += exposures.get(item, 0) < FEW_IMPRESSIONS
            exposures[item] = exposures.get(item, 0) + 1
            answers = {"request": f"r{number}", "position": place + 1, "propensity": answer[place].propensity or None}
            own = context | {"genre": f"g{item % GENRES}"}
            loop.tell(Impression(f"{number}-{place}", f"u{user}", f"i{item}", ts, own, **answers))
        for place, delay in world_clicks(true):
            told = f"{number}-{place}"
            loop.tell(Feedback.of(f"{told}:c", told, f"u{user}", f"i{shown[place]}", ts + 1 + delay, "click"))
    bar = np.quantile([world.mean_probability(item) for item in world.pool], GOOD_QUANTILE)
    good = [item for item, born in world.born.items() if born < 0.8 * requests and world.mean_probability(item) > bar]
    waited = [reached[item] - world.born[item] for item in good if item in reached]
    sums = np.cumsum(regrets)
    return Run(
        tuple(float(sums[int(mark * requests) - 1]) for mark in MARKS),
        places_new / (count * requests),
        float(np.median(waited)) if waited else float("nan"),
        len(waited) / max(1, len(good)),
    )


def runs(names: list[str], setting: Setting, seeds: int) -> Iterator[tuple[str, list[Run]]]:
    """Yield each policy with its runs."""
    for name in names:
        yield name, [run(setting, POLICIES[name], seed) for seed in range(seeds)]


def main() -> None:
    """Run the policies and print a table; the regret's share is of greedy's at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--requests", type=int, default=8_000)
    parser.add_argument("--world", choices=["tastes", "appeals"], default="appeals")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=50, help="items at a time")
    parser.add_argument("--candidates", type=int, default=50, help="of a request, out of the pool")
    parser.add_argument("--shown", type=int, default=1, help="places")
    parser.add_argument("--new-every", type=int, default=1_000, help="requests between two new items")
    parser.add_argument("--policies", nargs="*", choices=list(POLICIES), default=list(POLICIES))
    parser.add_argument("--json", metavar="F", help="write every run")
    given = parser.parse_args()
    of_world = (given.pool, given.candidates, given.shown, given.new_every)
    setting = Setting(given.world, given.requests, *of_world)
    heads = ["policy", *(f"regret at {mark:.0%}" for mark in MARKS), "of greedy's", "places of new items"]
    print("| " + " | ".join([*heads, "requests until a good new item is in the top ten"]) + " |")
    print("|---" * (len(heads) + 1) + "|")
    greedy, every = float("nan"), {}
    for name, found in runs(given.policies, setting, given.seeds):
        every[name] = [one._asdict() for one in found]
        regret = np.mean([one.regret for one in found], axis=0)
        greedy = regret[-1] if name == "greedy" else greedy
        share = np.mean([one.share_new for one in found])
        waits = [one.until_top for one in found if one.until_top == one.until_top]
        until = f"{np.mean(waits):.0f}" if waits else "no such item"
        sums = " | ".join(f"{value:,.0f}" for value in regret)
        print(f"| {name} | {sums} | {regret[-1] / greedy:.0%} | {share:.1%} | {until} |", flush=True)
    if given.json:
        Path(given.json).write_text(json.dumps(every, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()

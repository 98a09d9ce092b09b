"""Dense tastes of low rank, as in logs of ratings: the product beside a factorisation of the truth's own form.

    p = sigmoid(bias + bias_user + bias_item + <v_user, v_item>), v of the truth's rank

The *online* factorisation predicts each impression and learns its label at once, in one pass. The *offline* one takes
many passes over the first nine tenths and is measured in the last. Both learn by AdaGrad. Step size, initial size and
regularisation are the best of a grid, chosen by the truth. Regret is the mean of the logloss that is to be expected
under the true probability, less what that itself would have; a ratio is the product's regret over the online one's.
"""

from itertools import product
from typing import Any, NamedTuple

import numba
import numpy as np
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Impression
from thalweg.streams.logs.generate import Stream

from benchmarks.generated import Made, made, regrets_of, scores_of
from benchmarks.quality.replays import Array

SEED, IMPRESSIONS, USERS, ITEMS, RANK = 7, 300_000, 3_000, 3_000, 5
WORLDS = {"shown uniformly": 0.0, "shown by popularity, exponent .8": 0.8}
SETTINGS: dict[str, list[str]] = {
    "the defaults": [],
    "almost without latent vectors": ["learner.latent_size=1"],
    "without the cross network": ["learner.cross_rank=0"],
    "neither": ["learner.latent_size=1", "learner.cross_rank=0"],
}
RATES, BIAS_RATES, INITIALS, STARTS, DECAYS = (
    (0.2, 0.3, 0.5, 0.8),
    (0.1, 0.2),
    (0.03, 0.1, 0.3),
    (0.1, 1.0),
    (0.0, 0.01, 0.03),
)
OFFLINE_RATES, OFFLINE_DECAYS, OFFLINE_PASSES = (0.1, 0.2), (0.01, 0.02, 0.03, 0.05), 30
HEADER = (
    "| | logloss, all | last tenth | regret, all | last tenth | ratio, all | last tenth |\n"
    "|---|---|---|---|---|---|---|"
)


class Log(NamedTuple):
    """A log, and of its impressions the users' and items' numbers int64 and the labels float64 [impressions]."""

    made: Made
    users: Array
    items: Array
    labels: Array


class Parts(NamedTuple):
    """A factorisation: bias and vector of each user and item, float64 [users or items, 1 + rank], and their squares."""

    users: Array
    items: Array
    of_users: Array
    of_items: Array


class Learning(NamedTuple):
    """How fast vectors and biases learn, and how fast both decay."""

    rate: float
    of_biases: float
    decay: float


def main() -> None:
    """Print a table for each world."""
    print(f"{IMPRESSIONS:,} impressions, {USERS:,} users, {ITEMS:,} items, rank {RANK}, seed {SEED}", flush=True)
    for name, zipf in WORLDS.items():
        log = log_of(zipf)
        online, how = best_online(log)
        print(f"\n### {name}\n\n{HEADER}", flush=True)
        for setting, flags in SETTINGS.items():
            said = " ".join(f"`{flag}`" for flag in flags)
            print(row(f"{setting} {said}".strip(), log, scores_of(log.made, flags), online), flush=True)
        print(row("online factorisation", log, online, online))
        overall = (1.0 + np.cumsum(log.labels) - log.labels) / (2.0 + np.arange(IMPRESSIONS))
        print(row("the overall rate so far", log, overall, online))
        found, passes = best_offline(log)
        print(f"\nOnline: {how}. Offline, the last tenth: regret {found:.5f} ({passes}).", flush=True)


def log_of(zipf: float) -> Log:
    """Make a world's log."""
    tastes = {"seed": SEED, "users": USERS, "items": ITEMS, "impressions": IMPRESSIONS, "rank": RANK}
    log = made(Stream(**tastes, zipf=zipf, feedback_delay_ms=1_000))
    shown, acted = [], set()
    for record in log.records:
        event = decode_plain(record.value or b"")
        if isinstance(event, Impression):
            shown.append((int(event.user[1:]), int(event.item[1:])))
        else:
            acted.add(int(event.impression))
    users, items = np.array(shown).T
    labels = np.isin(np.arange(len(shown)), list(acted)).astype(np.float64)
    return Log(log, users.copy(), items.copy(), labels)


def row(name: str, log: Log, scores: Array, online: Array) -> str:
    """Return a contestant's line."""
    labels, truths, last = log.labels, log.made.truths, slice(-(IMPRESSIONS // 10), None)
    losses = -np.log(np.where(labels == 1.0, scores, 1.0 - scores))
    found, best = regrets_of(truths, scores), regrets_of(truths, online)
    ratios = [found[part].mean() / best[part].mean() for part in (slice(None), last)]
    cells = [losses.mean(), losses[last].mean(), found.mean(), found[last].mean()]
    return f"| {name} | " + " | ".join([f"{x:.5f}" for x in cells] + [f"{x:.3f}" for x in ratios]) + " |"


def best_online(log: Log) -> tuple[Array, str]:
    """Return the scores of the online factorisation with the least regret over all, and how it learns."""
    runs = []
    for rate, of_biases, initial, start, decay in product(RATES, BIAS_RATES, INITIALS, STARTS, DECAYS):
        learning = Learning(rate, of_biases, decay)
        scores = factorise(log.users, log.items, log.labels, started(initial, start), learning)
        how = f"rate {rate}, of biases {of_biases}, initial {initial}, sums from {start}, decay {decay}"
        runs.append((float(regrets_of(log.made.truths, scores).mean()), how, scores))
    _, how, scores = min(runs, key=lambda run: run[0])
    return scores, how


def best_offline(log: Log) -> tuple[float, str]:
    """Return the least regret in the last tenth of what has learned the rest in many passes, and how it was learned."""
    end = IMPRESSIONS - IMPRESSIONS // 10
    runs = []
    for rate, decay in product(OFFLINE_RATES, OFFLINE_DECAYS):
        parts = started(0.3, 1.0)
        for passes in range(1, OFFLINE_PASSES + 1):
            factorise(log.users[:end], log.items[:end], log.labels[:end], parts, Learning(rate, rate, decay))
            scores = factorise(log.users[end:], log.items[end:], log.labels[end:], parts, Learning(0.0, 0.0, 0.0))
            regret = float(regrets_of(log.made.truths[end:], scores).mean())
            runs.append((regret, f"rate {rate}, decay {decay}, {passes} passes"))
    return min(runs)


def started(initial: float, start: float) -> Parts:
    """Return a factorisation that has learned nothing: vectors of that deviation, sums of squares that begin there."""
    chance = np.random.default_rng(SEED)
    users, items = (np.zeros((count, 1 + RANK)) for count in (USERS, ITEMS))
    for parts in (users, items):
        parts[:, 1:] = initial * chance.standard_normal((len(parts), RANK))
    return Parts(users, items, np.full_like(users, start), np.full_like(items, start))


@numba.njit  # type: ignore[untyped-decorator]
def factorise(users: Any, items: Any, labels: Any, parts: Any, learning: Any) -> Any:
    """Predict each impression, then learn its label by AdaGrad; biases and vectors decay. Return the scores."""
    scores = np.zeros(len(labels))
    for n in range(len(labels)):
        u, v = parts.users[users[n]], parts.items[items[n]]
        us, vs = parts.of_users[users[n]], parts.of_items[items[n]]
        logit = u[0] + v[0]
        for i in range(1, len(u)):
            logit += u[i] * v[i]
        scores[n] = 1.0 / (1.0 + np.exp(-logit))
        error = scores[n] - labels[n]
        for i in range(len(u)):
            mine, its = u[i], v[i]
            rate = learning.rate if i else learning.of_biases
            g = error * (its if i else 1.0) + learning.decay * mine
            h = error * (mine if i else 1.0) + learning.decay * its
            us[i] += g * g
            vs[i] += h * h
            u[i] -= rate * g / np.sqrt(us[i])
            v[i] -= rate * h / np.sqrt(vs[i])
    return scores


if __name__ == "__main__":
    main()

"""How a ranking explores: which of the candidates takes each place, and with which probability.

All policies share one form. There is a base order of the candidates, and each place takes the best one that is left in
it. With another probability, the share, a place takes one of those left at random instead, all alike:

- none: the base order is that of the scores, and the share is 0
- epsilon: the order of the scores; the share is `epsilon` (Sutton and Barto, "Reinforcement Learning", 2.2)
- gumbel: the order of logit / temperature + Gumbel noise. This draws without replacement in proportion to
  exp(logit / temperature), as Plackett and Luce have it. (Kool et al., "Stochastic Beams and Where to Find Them", 2019)
- thompson: the order of one normal number for each candidate, around its logit (Thompson, 1933). With n the item's
  exposures whose outcome is known and p its score, its variance is 1 / (1 / deviation**2 + n p (1 - p)). This is
  Laplace's for an intercept of the item, whose prior has that deviation

The share is raised to n times `floor` where n are left. So each of these has at least the probability `floor`, or 1 / n
if that is less.

**The same request has the same answer.** Chance is a hash of the configuration's seed, the request's id and the item's.
So it depends neither on the process, nor on how the log was cut, nor on the order of the candidates.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, float64, int64, uint64, wrapping
from thalweg.operators.machine.hashing import cross, mix, uniform
from thalweg.operators.machine.normal import distribution, quantile
from thalweg.operators.machine.numerics import exp, log, log_odds
from thalweg.schemas.bounds import check, within
from thalweg.schemas.events import DEVIATION_MAX, DEVIATION_MIN, TEMPERATURE_MAX, TEMPERATURE_MIN, PolicyName, Request

NOISE_SALT, DRAW_SALT, PLACE_SALT, POLICY_SALT = 0xE0, 0xE1, 0xE2, 0xE3
TAIL = 6.5
"""Deviations beyond which a normal number is not looked for: 4e-11 of it."""
NEGLIGIBLE = 1e-9
GROWTH_MIN = 0.02
"""The least part that F may have at a panel's left end of what it has at the right one."""
PANEL_DEVIATIONS = 1.5
PANELS_DEPTH = 40
NODES = (0.2386191860831969, 0.6612093864662645, 0.9324695142031521)
WEIGHTS = (0.4679139345726910, 0.3607615730481386, 0.1713244923791704)
"""Gauss and Legendre's rule of six nodes, which lie on both sides of the middle."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Keys = npt.NDArray[np.uint64]


class Policy(IntEnum):
    """What the base order is made of."""

    NONE = 0
    EPSILON = 1
    GUMBEL = 2
    THOMPSON = 3


BY_SCORE = Policy.NONE.name.lower()
"""What a configuration or a request calls the policy that explores nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankingConfiguration:
    """How the answers to requests explore (`[ranking]`); a request may bring each value but the seed itself.

    `policy`: "none" (by the score), "epsilon" (sometimes at random), "gumbel" (in proportion to odds) or "thompson" (by
    what the score may be). `epsilon`: how often a place goes to any candidate. `temperature`: log-odds are divided by
    it under "gumbel". `deviation`: of the log-odds of an item never shown, under "thompson". `floor`: the least
    probability of each candidate at each place; 1 / n of n candidates if that is less. `seed`: another one draws other
    rankings and changes no score.
    """

    policy: PolicyName = "none"
    epsilon: Annotated[float, within(0.0, 1.0)] = 0.1
    temperature: Annotated[float, within(TEMPERATURE_MIN, TEMPERATURE_MAX)] = 0.2
    deviation: Annotated[float, within(DEVIATION_MIN, DEVIATION_MAX)] = 0.5
    floor: Annotated[float, within(0.0, 1.0)] = 0.0
    seed: Annotated[int, within(0, (1 << 32) - 1)] = 0

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds."""
        check(self)


class Parameters(NamedTuple):
    """A policy as compiled code takes it; without exploration `epsilon` and `floor` are 0."""

    policy: int
    epsilon: float
    temperature: float
    deviation: float
    floor: float
    seed: int


class Candidates(NamedTuple):
    """The n candidates that may be shown.

    `logits`, `exposures` float64 [n]: their scores' log-odds, and how often each item was shown with a known outcome.
    `keys` uint64 [n] of the items, `repeats` int64 [n]: how many before have the same item. `capped` uint64 [n, 4]:
    their values in the capped fields, 0 for none.
    """

    logits: Floats
    exposures: Floats
    keys: Keys
    repeats: Integers
    capped: Keys


class Chosen(NamedTuple):
    """What a policy chose, for each place up to `size` [1]; the arrays have room for each candidate.

    `candidate` int64 [n]; `propensity` float64 [n]: the probability of this candidate at this place, given those before
    it; nan where no closed form has it. `first` float64 [n], by candidate: the probability of the first place.
    """

    candidate: Integers
    propensity: Floats
    first: Floats
    size: Integers


class Scratch(NamedTuple):
    """Scratch for n candidates: compiled code asks for no memory.

    `last` int64 [n]: the last place that a candidate could have taken, -1 where it still can. By place, [n]: `lefts`
    int64, how many were left, and `bests` int64, the best of them. `weights`, `sums` float64 [n, n + 1]. Of the
    quadrature: `near` int64 [n], who may be the largest; `ends`, `products` float64 [panels], where panels end, and how
    probable it is that all are below.
    """

    last: Integers
    lefts: Integers
    bests: Integers
    weights: Floats
    sums: Floats
    near: Integers
    ends: Floats
    products: Floats


def new_scratch(count: int, policy: int) -> Scratch:
    """Return scratch for so many candidates under a policy."""
    panels = PANELS_DEPTH + 2 if policy == Policy.THOMPSON else 0
    return Scratch(
        last=np.full(count, -1),
        lefts=np.zeros(count, np.int64),
        bests=np.zeros(count, np.int64),
        weights=np.zeros(count),
        sums=np.zeros(count + 1),
        near=np.zeros(count, np.int64),
        ends=np.zeros(panels),
        products=np.zeros(panels),
    )


def name_of(configuration: RankingConfiguration, request: Request) -> str:
    """Return the name of a request's policy: its own goes before the configuration."""
    return request.policy or configuration.policy


def parameters_of(configuration: RankingConfiguration, request: Request) -> Parameters:
    """Return the policy of one request: what it brings itself goes before the configuration."""
    c = configuration
    policy = Policy[name_of(c, request).upper()]
    explores = policy != Policy.NONE
    epsilon = c.epsilon if request.epsilon is None else request.epsilon
    floor = c.floor if request.floor is None else request.floor
    return Parameters(
        int(policy),
        float(epsilon) if policy == Policy.EPSILON else 0.0,
        float(c.temperature if request.temperature is None else request.temperature),
        float(c.deviation if request.deviation is None else request.deviation),
        float(floor) if explores else 0.0,
        c.seed,
    )


def choose(parameters: Parameters, request_key: int, candidates: Candidates, top: int, caps: Integers) -> Chosen:
    """Return which candidates take the first `top` places; `caps` int64 [c]: how many of one value a field takes."""
    count = len(candidates.keys)
    chosen = Chosen(np.zeros(count, np.int64), np.full(count, np.nan), np.zeros(count), np.zeros(1, np.int64))
    if count:
        base, drawn, seeds = np.zeros(count), np.zeros(count), np.zeros(1, np.uint64)
        key: Any = np.uint64(request_key)
        draw(parameters, key, candidates, base, drawn, seeds)
        # Sorted here: numpy's stable order is that of comparisons alone.
        orders = np.argsort(-base, kind="stable"), np.argsort(drawn, kind="stable")
        scratch = new_scratch(count, parameters.policy)
        take(parameters, seeds, candidates, orders, top, caps, scratch, chosen)
        expect(parameters, candidates, int(orders[0][0]), scratch, chosen.first)
    return chosen


@compiled
def draw(
    parameters: Parameters, request_key: int, candidates: Candidates, base: Floats, drawn: Floats, seeds: Keys
) -> None:
    """Write what the base order goes by, what the order at random goes by, and the key of the request's own chance."""
    seed = seeds[0] = cross(request_key, uint64(parameters.seed), POLICY_SALT)
    for i in range(candidates.keys.shape[0]):
        own = cross(seed, cross(candidates.keys[i], uint64(candidates.repeats[i]), POLICY_SALT), POLICY_SALT)
        drawn[i] = uniform(own, DRAW_SALT)
        noise = between(own)
        if parameters.policy == Policy.GUMBEL:
            base[i] = candidates.logits[i] / parameters.temperature - log(-log(noise))
        elif parameters.policy == Policy.THOMPSON:
            base[i] = candidates.logits[i] + deviation_of(parameters, candidates, i) * quantile(noise)
        else:
            base[i] = candidates.logits[i]


@wrapping
def between(key: int) -> float:
    """Return a float64 in (0, 1) derived from a key: neither end has a logarithm."""
    return (float64(mix(key, NOISE_SALT) >> uint64(12)) + 0.5) * (1.0 / 4503599627370496.0)


@compiled
def deviation_of(parameters: Parameters, candidates: Candidates, i: int) -> float:
    """Return the deviation of a candidate's logit."""
    p = 1.0 / (1.0 + exp(-candidates.logits[i]))
    precision = 1.0 / (parameters.deviation * parameters.deviation) + candidates.exposures[i] * p * (1.0 - p)
    return float64(np.sqrt(1.0 / precision))


@compiled
def share_of(parameters: Parameters, left: int) -> float:
    """Return the probability that a place takes one of those left at random."""
    return max(parameters.epsilon, min(1.0, parameters.floor * left))


@compiled
def take(
    parameters: Parameters,
    seeds: Keys,
    candidates: Candidates,
    orders: tuple[Integers, Integers],
    top: int,
    caps: Integers,
    scratch: Scratch,
    chosen: Chosen,
) -> None:
    """Fill the places one by one: by the base order or, with the probability of the share, by the one at random."""
    order, at_random = orders
    last, count = scratch.last, int64(order.shape[0])
    left, best, next_drawn, places = count, 0, 0, 0
    while places < min(top, count) and left > 0:
        while last[order[best]] >= 0:
            best += 1
        while last[at_random[next_drawn]] >= 0:
            next_drawn += 1
        scratch.lefts[places], scratch.bests[places] = left, order[best]
        is_drawn = uniform(cross(seeds[0], uint64(places), PLACE_SALT), PLACE_SALT) < share_of(parameters, left)
        taken = at_random[next_drawn] if is_drawn else order[best]
        chosen.candidate[places] = taken
        last[taken] = places
        left -= 1 + drop_capped(candidates.capped, caps, chosen.candidate, places, last)
        places += 1
    chosen.size[0] = places
    write_propensities(parameters, candidates.logits, scratch, chosen)


@compiled
def drop_capped(capped: Keys, caps: Integers, taken: Integers, place: int, last: Integers) -> int:
    """Drop the candidates with a value of which this place brings the last that may be shown; return how many."""
    dropped = 0
    for cap in range(caps.shape[0]):
        value = capped[taken[place], cap]
        if value == uint64(0):
            continue
        shown = 0
        for before in range(place + 1):
            shown += capped[taken[before], cap] == value
        if shown < caps[cap]:
            continue
        for i in range(last.shape[0]):
            if last[i] < 0 and capped[i, cap] == value:
                last[i] = place
                dropped += 1
    return dropped


@compiled
def write_propensities(parameters: Parameters, logits: Floats, scratch: Scratch, chosen: Chosen) -> None:
    """Write the probability of each place's candidate, given those before it.

    In the base order it is 1 for the best one left. Under "gumbel" it is exp(logit / temperature) over the sum of those
    left. What was taken before has no effect: the order of what is left is again one of Plackett and Luce.
    """
    places = int64(chosen.size[0])
    last, weights, sums = scratch.last, scratch.weights, scratch.sums
    if parameters.policy == Policy.GUMBEL:
        weigh(logits, parameters.temperature, weights)
        for i in range(last.shape[0]):
            sums[last[i] if last[i] >= 0 else places - 1] += weights[i]
        for place in range(places - 1, -1, -1):
            sums[place] += sums[place + 1]
    for place in range(places):
        candidate = chosen.candidate[place]
        base = 1.0 if candidate == scratch.bests[place] else 0.0
        if parameters.policy == Policy.GUMBEL:
            base = weights[candidate] / sums[place]
        elif parameters.policy == Policy.THOMPSON:
            base = np.nan
        left = scratch.lefts[place]
        share = share_of(parameters, left)
        chosen.propensity[place] = (1.0 - share) * base + share / left


@compiled
def weigh(logits: Floats, temperature: float, weights: Floats) -> None:
    """Write exp(logit / temperature), in parts of the largest: scores within 1e-6 of 0 and 1 leave each above 0."""
    largest = logits[0]
    for i in range(logits.shape[0]):
        largest = max(largest, logits[i])
    for i in range(logits.shape[0]):
        weights[i] = exp((logits[i] - largest) / temperature)


@compiled
def expect(parameters: Parameters, candidates: Candidates, best: int, scratch: Scratch, first: Floats) -> None:
    """Write the probability of each candidate to have the first place."""
    count = first.shape[0]
    if parameters.policy == Policy.GUMBEL:
        weigh(candidates.logits, parameters.temperature, first)
        total = 0.0
        for i in range(count):
            total += first[i]
        for i in range(count):
            first[i] /= total
    elif parameters.policy == Policy.THOMPSON:
        for i in range(count):
            scratch.weights[i] = deviation_of(parameters, candidates, i)
        expect_normal(candidates.logits, scratch.weights, scratch, first)
    else:
        first[best] = 1.0
    share = share_of(parameters, count)
    for i in range(count):
        first[i] = (1.0 - share) * first[i] + share / count


@compiled
def expect_normal(means: Floats, deviations: Floats, scratch: Scratch, first: Floats) -> None:
    """Write the probability that each of n normal numbers is the largest, within 1e-6.

    With f_i their densities, F_i their distribution functions and F the product of these, it is the integral of f_i F /
    F_i. Panels are halved until each is narrow beside the deviation of every number that changes in it, and F grows by
    little. Gauss and Legendre's rule is nearly exact then.
    """
    low, high, count = find_near(means, deviations, scratch)
    near, ends, products = scratch.near[:count], scratch.ends, scratch.products  # in place 0 left ends, then right ones
    ends[0], products[0] = low, product_at(means, deviations, near, low)
    ends[1], products[1] = high, product_at(means, deviations, near, high)
    top = 1
    while top > 0:
        if products[top] > NEGLIGIBLE:
            is_wide = products[0] < GROWTH_MIN * products[top]
            for place in range(count):
                i = near[place]
                is_changing = ends[0] < means[i] + TAIL * deviations[i]
                is_wide |= is_changing and ends[top] - ends[0] > PANEL_DEVIATIONS * deviations[i]
            if is_wide and top < PANELS_DEPTH:
                ends[top + 1] = 0.5 * (ends[0] + ends[top])
                products[top + 1] = product_at(means, deviations, near, ends[top + 1])
                top += 1
                continue
            half = 0.5 * (ends[top] - ends[0])
            for node in range(len(NODES)):
                add_node(
                    means, deviations, near, ends[0] + half * (1.0 - NODES[node]), half * WEIGHTS[node], scratch, first
                )
                add_node(
                    means, deviations, near, ends[0] + half * (1.0 + NODES[node]), half * WEIGHTS[node], scratch, first
                )
        ends[0], products[0] = ends[top], products[top]
        top -= 1
    total = 0.0
    for i in range(first.shape[0]):
        total += first[i]
    for i in range(first.shape[0]):
        first[i] /= total


@compiled
def find_near(means: Floats, deviations: Floats, scratch: Scratch) -> tuple[float, float, int]:
    """Return the bounds between which the largest number is, and how many may be it: these are in `near`."""
    low, high = means[0] - TAIL * deviations[0], means[0] + TAIL * deviations[0]
    for i in range(means.shape[0]):
        low = max(low, means[i] - TAIL * deviations[i])
        high = max(high, means[i] + TAIL * deviations[i])
    count = 0
    for i in range(means.shape[0]):
        if means[i] + TAIL * deviations[i] > low:
            scratch.near[count] = i
            count += 1
    return low, high, count


@compiled
def product_at(means: Floats, deviations: Floats, near: Integers, x: float) -> float:
    """Return the probability that all of those that may be the largest are below x."""
    product = 1.0
    for place in range(near.shape[0]):
        product *= distribution((x - means[near[place]]) / deviations[near[place]])
    return product


@compiled
def add_node(
    means: Floats, deviations: Floats, near: Integers, x: float, weight: float, scratch: Scratch, first: Floats
) -> None:
    """Add to each its density at x, where all others are below, with the weight of a node."""
    product = 1.0
    for place in range(near.shape[0]):
        i = near[place]
        z = (x - means[i]) / deviations[i]
        below = distribution(z)
        product *= below
        scratch.sums[place] = exp(-0.5 * z * z) / (below * deviations[i])
    for place in range(near.shape[0]):
        first[near[place]] += weight * product * scratch.sums[place]


def logits_of(scores: Floats) -> Floats:
    """Return the log-odds of scores [n]."""
    logits = np.zeros(len(scores))
    write_logits(np.ascontiguousarray(scores), logits)
    return logits


@compiled
def write_logits(scores: Floats, logits: Floats) -> None:
    """Write the log-odds of scores."""
    for i in range(scores.shape[0]):
        logits[i] = log_odds(scores[i])

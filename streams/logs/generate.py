"""Made-up streams with a known truth: users with tastes, popular items, drift, delayed and missing feedback.

Users and items have vectors of length 1, a user's near its segment's and an item's near its genre's; the probability
that user u clicks item i is

    p = sigmoid(-1.5 + 3 <u, i> + appeal_i + device),

and the item of popularity rank r is shown in proportion to `r ** -zipf`. A drift gives segments and users other
vectors, at once or little by little; items keep theirs, so that not all that was learned is lost. A new item takes over
the rank of an old one, which is not shown again.

With `rank` R, tastes are dense and of low rank, as in logs of ratings: users and items have vectors of R independent
nearly normal coordinates, no groups, and nothing else is known of an impression. Then

    p = sigmoid(leniency_u + appeal_i + 2 <u, i> / sqrt(R)).

With `candidates`, each impression answers a request: so many items are drawn by popularity, and one of them is shown,
each with the same probability, which the impression carries as its `propensity`.

**Same seed, same bytes.** All chance is the raw output of numpy's PCG64, the only part of its generators that numpy
promises to keep. What is made of it are sums, products, quotients and square roots, element by element, which IEEE 754
fixes to the bit; exponentials and logarithms are series of these. Nothing is reduced in an order that a library
chooses. Impressions are made in blocks with a seed each, so that memory does not grow with their number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

DRIFTS = ("none", "sudden", "gradual")
DEVICES = ("phone", "tablet", "desktop")
DEVICE_LOGITS = np.array([0.3, 0.0, -0.3])
SEGMENTS, GENRES = 6, 12
BIAS, SLOPE = -1.5, 3.0
TASTE_SIZE = 8
DENSE_SLOPE = 2.0  # the deviation that tastes of low rank have in log-odds
RANKS_MAX = 64
TASTES_LIMIT = 60_000  # beyond so many users or items, tastes repeat; a multiple of segments and genres
BLOCK_IMPRESSIONS = 1 << 15
HOUR_MS = 3_600_000
FIRST_MS = 1_700_000_000_000
LAST_MS = 4_102_444_800_000  # 2100: no event may lie later
LN2_HIGH, LN2_LOW = 0.693147180369123816490, 1.90821492927058770002e-10
WORLD, BLOCK, REQUESTS, DENSE = range(4)
CANDIDATES_MAX = 1_024


class GenerateError(ValueError):
    """Such a stream can't be made; the message is one line with the reason and a remedy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stream:
    """What a stream is like.

    `impressions`: how many; the feedback comes on top. `interval_ms`: mean time between two. `zipf`: exponent of
    popularity. `drift`: none, sudden or gradual, from `drift_at` of the impressions on and, if gradual, over
    `drift_length` of them. `feedback_delay_ms`: mean of the exponential delay of a click. `missing_feedback`: share of
    the clicks that are never sent. `candidates`: items drawn for the request before each impression, 0 for no requests.
    `rank`: rank of dense tastes without groups and context, 0 for tastes near those of segments and genres.
    """

    seed: int
    users: int
    items: int
    impressions: int
    interval_ms: int = 1_000
    zipf: float = 1.0
    drift: str = "none"
    drift_at: float = 0.5
    drift_length: float = 0.2
    new_items_per_hour: float = 0.0
    feedback_delay_ms: int = 30_000
    missing_feedback: float = 0.0
    candidates: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        """Raise GenerateError where a value makes no sense."""
        if min(self.users, self.items, self.impressions) < 1 or self.interval_ms < 0 or self.seed < 0:
            raise GenerateError("users, items and events must be at least 1, seed and interval not below 0")
        if self.drift not in DRIFTS:
            raise GenerateError(f"drift must be one of {', '.join(DRIFTS)}")
        if not (0 <= self.drift_at <= 1 and 0 < self.drift_length <= 1 and 0 <= self.missing_feedback <= 1):
            raise GenerateError(
                "drift at, drift length and missing feedback are shares, within 0 and 1; the drift's length is above 0"
            )
        if not (0 <= self.zipf <= 4 and 0 <= self.new_items_per_hour <= 1e9 and 0 <= self.feedback_delay_ms <= 1 << 40):
            raise GenerateError(
                "zipf must lie within 0 and 4, new items an hour within 0 and 1,000,000,000, "
                "the feedback's delay within 0 and 2^40 ms"
            )
        if not 0 <= self.candidates <= CANDIDATES_MAX:
            raise GenerateError(f"candidates must lie within 0 and {CANDIDATES_MAX:,}")
        if not 0 <= self.rank <= RANKS_MAX:
            raise GenerateError(f"rank must lie within 0 and {RANKS_MAX}")
        if FIRST_MS + 2 * self.interval_ms * self.impressions + 64 * self.feedback_delay_ms > LAST_MS:
            raise GenerateError("such a stream could end after 2100: take fewer events, or a shorter interval or delay")


class Generator:
    """Make the blocks of a stream: the lines of its log, and the lines of its truth.

    Parameters
    ----------
    stream
        What it is like.

    """

    def __init__(self, stream: Stream) -> None:
        """Make the users and the items; the parameters are the class's."""
        self.impressions = 0
        self.feedback = 0
        self.missing = 0
        self.last_ms = FIRST_MS
        self._stream = stream
        world = _Chance(stream.seed, WORLD, 0)
        users, items = min(stream.users, TASTES_LIMIT), min(stream.items, TASTES_LIMIT)
        kinds = items if stream.new_items_per_hour == 0 else TASTES_LIMIT
        if stream.rank:
            dense = _Chance(stream.seed, DENSE, 0)
            self._before, self._after = dense.normals(users, stream.rank), dense.normals(users, stream.rank)
            self._items = dense.normals(kinds, stream.rank)
            self._leniencies = 1.5 * (dense.uniforms(users) - 0.5)
        else:
            self._before = world.near(SEGMENTS, users)
            self._after = world.near(SEGMENTS, users)
            self._items = world.near(GENRES, kinds)
        self._appeals = 1.5 * (world.uniforms(kinds) - 0.5)
        ranks = np.arange(1, stream.items + 1, dtype=np.float64)
        self._popularity = np.cumsum(exponential(-stream.zipf * logarithm(ranks)))
        # Who takes over which rank, in an order that has nothing to do with popularity.
        self._takeover = np.argsort(world.uniforms(stream.items), kind="stable")

    def blocks(self) -> Iterator[tuple[bytes, bytes]]:
        """Give the log's lines and the truth's, block by block; once only."""
        pending = np.zeros((4, 0), np.int64)
        count = self._stream.impressions
        for number, start in enumerate(range(0, count, BLOCK_IMPRESSIONS)):
            chance = _Chance(self._stream.seed, BLOCK, number)
            ids = np.arange(start, min(start + BLOCK_IMPRESSIONS, count))
            is_last = int(ids[-1]) == count - 1
            ts = self.last_ms + np.cumsum(chance.integers(len(ids), 2 * self._stream.interval_ms + 1))
            self.last_ms = int(ts[-1])
            users = chance.integers(len(ids), self._stream.users)
            devices = chance.integers(len(ids), len(DEVICES))
            requests, items = self._asked(number, ids, ts) if self._stream.candidates else ([], self._shown(chance, ts))
            truth = self.probabilities(ids, users, items, devices)
            clicked = chance.uniforms(len(ids)) < truth
            told = chance.uniforms(len(ids)) >= self._stream.missing_feedback
            delays = -logarithm(1.0 - chance.uniforms(len(ids))) * self._stream.feedback_delay_ms
            clicks = np.stack([ts + np.floor(delays).astype(np.int64), ids, users, items])[:, clicked & told]
            self.missing += int((clicked & ~told).sum())
            pending = np.concatenate((pending, clicks), axis=1)
            # At one time impressions come first, so a click at the block's last moment waits for the next block's.
            due = (pending[0] < self.last_ms) | is_last
            shown = self._impressions(ids, ts, users, items, devices, requests)
            yield self._log(ids, ts, shown, pending[:, due]), _truth(ids, truth)
            pending = pending[:, ~due]

    def probabilities(self, ids: Integers, users: Integers, items: Integers, devices: Integers) -> Floats:
        """Return the true probabilities of impressions by their numbers, users, items and devices."""
        tastes = self._tastes(ids, users % len(self._before))
        vectors = self._items[items % len(self._items)]
        product = np.zeros(len(ids))
        for i in range(tastes.shape[1]):
            product += tastes[:, i] * vectors[:, i]
        logit = self._appeals[items % len(self._items)]
        if self._stream.rank:
            slope = DENSE_SLOPE / np.sqrt(float(self._stream.rank))
            logit = slope * product + logit + self._leniencies[users % len(self._before)]
        else:
            logit = BIAS + SLOPE * product + logit + DEVICE_LOGITS[devices]
        truth: Floats = 1.0 / (1.0 + exponential(-logit))
        return truth

    def _tastes(self, ids: Integers, users: Integers) -> Floats:
        """Return the users' vectors as they are at impressions of these numbers."""
        begin = self._stream.drift_at * self._stream.impressions
        if self._stream.drift == "none":
            return self._before[users]
        if self._stream.drift == "sudden":
            return np.where((ids >= begin)[:, None], self._after[users], self._before[users])
        length = self._stream.drift_length * self._stream.impressions
        share = np.clip((ids - begin) / length, 0.0, 1.0)[:, None]
        mixed: Floats = (1.0 - share) * self._before[users] + share * self._after[users]
        return mixed / np.sqrt((1.0 - share) ** 2 + share**2) if self._stream.rank else _unit(mixed)

    def _shown(self, chance: "_Chance", ts: Integers) -> Integers:
        """Return the items shown at these times: ranks by popularity, each held by its newest item."""
        drawn = chance.uniforms(len(ts)) * self._popularity[-1]
        ranks: Integers = np.minimum(np.searchsorted(self._popularity, drawn, side="right"), self._stream.items - 1)
        if self._stream.new_items_per_hour == 0:
            return ranks
        born = np.floor((ts - FIRST_MS) * (self._stream.new_items_per_hour / HOUR_MS)).astype(np.int64)
        turn = self._takeover[ranks]
        rounds = (born - turn + self._stream.items - 1) // self._stream.items
        items: Integers = np.where(rounds > 0, turn + rounds * self._stream.items, ranks)
        return items

    def _asked(self, number: int, ids: Integers, ts: Integers) -> tuple[list[list[int]], Integers]:
        """Return the candidates of the request before each impression of a block, and which of them is shown."""
        chance = _Chance(self._stream.seed, REQUESTS, number)
        drawn = [self._shown(chance, ts).tolist() for _ in range(self._stream.candidates)]
        requests = [list(dict.fromkeys(each)) for each in zip(*drawn, strict=True)]
        places = chance.uniforms(len(ids)).tolist()
        shown = [each[int(place * len(each))] for each, place in zip(requests, places, strict=True)]
        return requests, np.array(shown, np.int64)

    def _impressions(
        self,
        ids: Integers,
        ts: Integers,
        users: Integers,
        items: Integers,
        devices: Integers,
        requests: list[list[int]],
    ) -> list[str]:
        """Return the lines of impressions, each behind that of its request where there are requests."""
        has_groups = not self._stream.rank
        # The context of an impression in order: its user's and its device's parts, with its item's between them.
        of_items = [f'"genre":"g{genre}"' if has_groups else "" for genre in range(GENRES)]
        rest = [
            (f'"device":"{DEVICES[device]}"', f'"segment":"s{user % SEGMENTS}"') if has_groups else ()
            for device, user in zip(devices.tolist(), users.tolist(), strict=True)
        ]
        shown = list(zip(ids.tolist(), users.tolist(), items.tolist(), ts.tolist(), rest, strict=True))
        lines = [
            f'{{"type":"impression","id":"{id_}","user":"u{user}","item":"i{item}","ts":{at},'
            f'"context":{{{f",{of_items[item % GENRES]},".join(given)}}}}}\n'
            for id_, user, item, at, given in shown
        ]
        for place, asked in enumerate(requests):
            id_, user, _, at, given = shown[place]
            wanted = ",".join(f'{{"item":"i{item}","context":{{{of_items[item % GENRES]}}}}}' for item in asked)
            answers = f',"request":"r{id_}","position":1,"propensity":{1.0 / len(asked)!r}}}\n'
            lines[place] = (
                f'{{"type":"request","id":"r{id_}","user":"u{user}","candidates":[{wanted}],"ts":{at},'
                f'"context":{{{",".join(given)}}}}}\n{lines[place][:-2]}{answers}'
            )
        return lines

    def _log(self, ids: Integers, ts: Integers, shown: list[str], clicks: Integers) -> bytes:
        """Return the lines of impressions and clicks in the order of time, then impressions first, then number."""
        self.impressions += len(ids)
        self.feedback += clicks.shape[1]
        lines = shown + [
            f'{{"type":"feedback","id":"{id_}:click","impression":"{id_}","user":"u{user}","item":"i{item}","ts":{at},'
            f'"action":"click"}}\n'
            for at, id_, user, item in zip(*clicks.tolist(), strict=True)
        ]
        kinds = np.repeat([0, 1], [len(ids), clicks.shape[1]])
        order = np.lexsort((np.concatenate((ids, clicks[1])), kinds, np.concatenate((ts, clicks[0]))))
        return "".join(map(lines.__getitem__, order.tolist())).encode()


class _Chance:
    """Uniform numbers of one purpose: PCG64's raw output, 53 bits of each word."""

    def __init__(self, seed: int, purpose: int, number: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, purpose, number]))

    def uniforms(self, count: int) -> Floats:
        """Return float64 [count] in [0, 1)."""
        words = np.asarray(self._bits.random_raw(count), np.uint64)
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def integers(self, count: int, end: int) -> Integers:
        """Return int64 [count] in [0, end)."""
        return np.floor(self.uniforms(count) * end).astype(np.int64)

    def normals(self, rows: int, size: int = TASTE_SIZE) -> Floats:
        """Return nearly normal float64 [rows, size]: sums of twelve uniform numbers."""
        total = np.full(rows * size, -6.0)
        for _ in range(12):
            total += self.uniforms(len(total))
        return total.reshape(rows, size)

    def near(self, groups: int, rows: int) -> Floats:
        """Return directions float64 [rows, TASTE_SIZE], each near that of its group, which is row % groups."""
        return _unit(2.0 * _unit(self.normals(groups))[np.arange(rows) % groups] + _unit(self.normals(rows)))


def _unit(vectors: Floats) -> Floats:
    """Return vectors [rows, TASTE_SIZE] divided by their lengths."""
    square = np.zeros(len(vectors))
    for i in range(TASTE_SIZE):
        square += vectors[:, i] * vectors[:, i]
    unit: Floats = vectors / np.sqrt(np.maximum(square, 1e-30))[:, None]
    return unit


def exponential(x: Floats) -> Floats:
    """Return e to the power of x, within 4 ulp for -700 to 700: the same bits everywhere.

    >>> exponential(np.array([0.0, 1.0])).round(12).tolist()
    [1.0, 2.718281828459]
    """
    power = np.rint(x / (LN2_HIGH + LN2_LOW))
    rest = (x - power * LN2_HIGH) - power * LN2_LOW
    total = np.ones_like(x)
    for n in range(14, 0, -1):
        total = 1.0 + total * rest / n
    scaled: Floats = np.ldexp(total, power.astype(np.int64))
    return scaled


def logarithm(x: Floats) -> Floats:
    """Return the natural logarithm of positive x, within 4 ulp away from 1: the same bits everywhere.

    >>> logarithm(np.array([1.0, 2.0])).round(12).tolist()
    [0.0, 0.69314718056]
    """
    mantissa, power = np.frexp(x)
    small = mantissa < 0.7071067811865476
    mantissa = np.where(small, 2.0 * mantissa, mantissa)
    power = power - small
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = np.zeros_like(s)
    for n in range(23, 0, -2):
        total = total * square + 1.0 / n
    whole: Floats = power * LN2_HIGH + (power * LN2_LOW + 2.0 * s * total)
    return whole


def _truth(ids: Integers, truth: Floats) -> bytes:
    lines = zip(ids.tolist(), map(repr, truth.tolist()), repeat("\n"), strict=False)
    return "".join(f'{{"impression":"{id_}","probability":{p}}}{end}' for id_, p, end in lines).encode()

"""What becomes of a long history whose items' vectors move after they were added, by what is done about it.

The fold replays a log in small blocks. After each, every mechanism extends and reads long histories of its own with
the vectors as the fold has them then. All but the last four behaviours of a user count as long: there is more to see.
"""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score
from thalweg.operators.ftrl import Part
from thalweg.operators.machine.compiled import clear, compiled, float32
from thalweg.operators.machine.hashing import hasher
from thalweg.operators.sdim import (
    LONG_AGO_MS,
    Histories,
    SdimConfiguration,
    Window,
    add_behavior,
    kernel,
    new_histories,
    projections,
    read_interest,
    signature,
    window_of,
    wipe_history,
)
from thalweg.operators.structures.index import find
from thalweg.schemas.decode import decode_plain
from thalweg.schemas.events import Event, Feedback, Impression
from thalweg.streams.partition.partition import Partition

from benchmarks.quality.tables import Options, number
from benchmarks.real_logs import RealLog

BLOCK = 500
SHORT_LENGTH = 4
REBUILT, REBUILT_EVERY = 64, 16
SLOWNESS = 0.1
RATE = 0.05
AS_ADDED, REBUILD, FROZEN, AVERAGED, INITIALS, WINDOWED, FRESH, EXACT = range(8)
MECHANISMS = (
    "nothing: the vector as it left the ring",
    f"buckets rebuilt from the last {REBUILT}, after every {REBUILT_EVERY}",
    "signatures of the vector as the item first left a ring, values as they left",
    f"signatures of a moving average (a {SLOWNESS:g} a time), values as they left",
    "signatures of the initial vector, values as they left",
    f"a window of {REBUILT} behaviours",
    "SDIM over all of them with the vectors of now (cannot be had)",
    "exact attention over all of them with the vectors of now",
)
KEPT = len(MECHANISMS) - 2  # those before it have buckets of their own, it is scratch

Array = npt.NDArray[Any]


class Long(NamedTuple):
    """Every behaviour of every user, and what the mechanisms keep.

    `item`, `before` int32 [behaviours], the item's number and the user's behaviour before (+ 1); `last`, `length` int32
    [users]; `slow` float32 [2, items, d], vectors frozen and averaged; `known` uint8 [items]; `weights`, `squares`
    float64 [mechanisms, 2 + d], of a logistic regression each.
    """

    item: Array
    before: Array
    last: Array
    length: Array
    slow: Array
    known: Array
    weights: Array
    squares: Array


class Scratch(NamedTuple):
    """Fixed matrices and scratch: `projection` [d, m], `signs` [m], `total` [d], `read` float32 [mechanisms, d]."""

    projection: Array
    signs: Array
    total: Array
    read: Array


@compiled
def leave(
    long: Long,
    scratch: Scratch,
    kept: tuple[Histories, ...],
    windows: tuple[Window, ...],
    vectors: Array,
    initials: Array,
    row_of: Array,
    user: int,
) -> None:
    """Move what leaves a user's ring into every mechanism's buckets."""
    node = long.last[user]
    for _ in range(SHORT_LENGTH):
        node = long.before[node - 1]
    item = long.item[node - 1]
    row = row_of[item]
    if row < 0:
        return
    vector = vectors[row]
    own = signature(scratch.projection, vector, scratch.signs)
    for i in range(vector.shape[0]):
        if long.known[item] == 0:
            long.slow[0, item, i] = vector[i]
            long.slow[1, item, i] = vector[i]
        long.slow[1, item, i] += float32(SLOWNESS) * (vector[i] - long.slow[1, item, i])
    long.known[item] = 1
    add_behavior(kept[AS_ADDED], user, own, vector, 0, windows[0])
    add_behavior(kept[WINDOWED], user, own, vector, 0, windows[1])
    add_behavior(
        kept[FROZEN], user, signature(scratch.projection, long.slow[0, item], scratch.signs), vector, 0, windows[0]
    )
    add_behavior(
        kept[AVERAGED], user, signature(scratch.projection, long.slow[1, item], scratch.signs), vector, 0, windows[0]
    )
    add_behavior(
        kept[INITIALS], user, signature(scratch.projection, initials[row], scratch.signs), vector, 0, windows[0]
    )
    if (long.length[user] - SHORT_LENGTH) % REBUILT_EVERY == 0:
        rebuild(long, scratch, kept[REBUILD], user, windows[0], vectors, row_of, user, REBUILT)
    else:
        add_behavior(kept[REBUILD], user, own, vector, 0, windows[0])


@compiled
def rebuild(
    long: Long,
    scratch: Scratch,
    histories: Histories,
    history: int,
    window: Window,
    vectors: Array,
    row_of: Array,
    user: int,
    count: int,
) -> None:
    """Make a history anew of a user's last `count` long behaviours, with the vectors of now."""
    wipe_history(histories, history)
    node = long.last[user]
    for _ in range(SHORT_LENGTH):
        node = long.before[node - 1]
    while node != 0 and count > 0:
        row = row_of[long.item[node - 1]]
        if row >= 0:
            add_behavior(
                histories, history, signature(scratch.projection, vectors[row], scratch.signs), vectors[row], 0, window
            )
        node = long.before[node - 1]
        count -= 1


@compiled
def attend(long: Long, vectors: Array, row_of: Array, user: int, q: Array, tau: int, out: Array) -> None:
    """Write exact attention over a user's long behaviours, with the vectors of now, to `out`."""
    clear(out)
    q_square = 0.0
    for i in range(q.shape[0]):
        q_square += float(q[i]) * float(q[i])
    node = long.last[user]
    for _ in range(SHORT_LENGTH):
        node = long.before[node - 1]
    while node != 0:
        row = row_of[long.item[node - 1]]
        if row >= 0:
            dot, square = 0.0, 0.0
            for i in range(q.shape[0]):
                dot += float(q[i]) * float(vectors[row, i])
                square += float(vectors[row, i]) ** 2
            if square > 0.0 and q_square > 0.0:
                weight = float32(kernel(dot / np.sqrt(square * q_square), tau))
                for i in range(q.shape[0]):
                    out[i] += weight * vectors[row, i]
        node = long.before[node - 1]


@compiled
def stack(long: Long, mechanism: int, logit: float, q: Array, interest: Array, label: int) -> float:
    """Score by the served logit and the interest, coordinate by coordinate, then learn from the label (AdaGrad)."""
    weights, squares = long.weights[mechanism], long.squares[mechanism]
    z = logit + weights[0] + weights[1] * logit
    for i in range(q.shape[0]):
        z += weights[2 + i] * float(q[i]) * float(interest[i])
    error = 1.0 / (1.0 + np.exp(-z)) - label
    for i in range(weights.shape[0]):
        x = 1.0 if i == 0 else logit if i == 1 else float(q[i - 2]) * float(interest[i - 2])
        squares[i] += (error * x) ** 2
        weights[i] -= RATE * error * x / np.sqrt(squares[i] + 1e-8)
    return z


@compiled
def shadow(
    long: Long,
    scratch: Scratch,
    kept: tuple[Histories, ...],
    windows: tuple[Window, ...],
    vectors: Array,
    initials: Array,
    row_of: Array,
    events: Array,
    logits: Array,
    behaviours: int,
    cosines: Array,
    matches: Array,
    stacked: Array,
) -> int:
    """Take a block of events [n, 4] (feedback or not, user, item, label) and return how many behaviours there are."""
    size = vectors.shape[1]
    for event in range(events.shape[0]):
        user, item = events[event, 1], events[event, 2]
        if events[event, 0] == 1:
            long.item[behaviours] = item
            long.before[behaviours] = long.last[user]
            behaviours += 1
            long.last[user] = behaviours
            long.length[user] += 1
            if long.length[user] > SHORT_LENGTH:
                leave(long, scratch, kept, windows, vectors, initials, row_of, user)
            continue
        row = row_of[item]
        if long.length[user] <= SHORT_LENGTH or row < 0:
            continue
        q = vectors[row]
        own = signature(scratch.projection, q, scratch.signs)
        for mechanism in range(EXACT + 1):
            read = scratch.read[mechanism]
            if mechanism == EXACT:
                attend(long, vectors, row_of, user, q, 3, read)
            elif mechanism == FRESH:
                rebuild(long, scratch, kept[KEPT], 0, windows[0], vectors, row_of, user, 1 << 30)
                read_interest(kept[KEPT], 0, own, LONG_AGO_MS, scratch.total, read)
            else:
                bits = own
                if mechanism in (FROZEN, AVERAGED) and long.known[item] == 1:
                    bits = signature(scratch.projection, long.slow[mechanism - FROZEN, item], scratch.signs)
                elif mechanism == INITIALS:
                    bits = signature(scratch.projection, initials[row], scratch.signs)
                read_interest(kept[mechanism], user, bits, LONG_AGO_MS, scratch.total, read)
        for mechanism in range(EXACT + 1):
            read = scratch.read[mechanism]
            fresh = scratch.read[FRESH]
            dot, a, b, c, match = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(size):
                dot += float(read[i]) * float(fresh[i])
                a += float(read[i]) ** 2
                b += float(fresh[i]) ** 2
                c += float(q[i]) ** 2
                match += float(read[i]) * float(q[i])
            if a > 0.0:
                for i in range(size):
                    read[i] /= np.sqrt(a)
                match /= np.sqrt(a * c)
            cosines[event, mechanism] = dot / np.sqrt(a * b) if a > 0.0 and b > 0.0 else 0.0
            matches[event, mechanism] = match
            stacked[event, mechanism] = stack(long, mechanism, logits[event], q, read, events[event, 3])
    return behaviours


class _Scored(msgspec.Struct, gc=False):
    id: str
    model_score: float


_scored = msgspec.json.Decoder(_Scored).decode


class Followed(NamedTuple):
    """What the mechanisms read at impressions of users with a long history, [impressions, mechanisms], in log order."""

    label: Array
    cosine: Array
    match: Array
    stacked: Array


def followed(log: RealLog) -> Followed:
    """Replay a log and let the mechanisms follow it."""
    configuration = log.configuration()
    records = log.records()
    events = [decode_plain(record.value or b"") for record in records]
    clicked = {event.impression for event in events if isinstance(event, Feedback)}
    users = {user: number for number, user in enumerate(dict.fromkeys(event.user for event in events))}
    items = {item: number for number, item in enumerate(dict.fromkeys(_item(event) for event in events))}
    keys = hasher("item", configuration.seed)(list(items))
    row_of = np.full(len(items), -1, np.int32)
    size, sdim = configuration.learner.latent_size, configuration.sdim
    limited = SdimConfiguration(histories_limit=len(users))
    windowed = SdimConfiguration(histories_limit=len(users), window_behaviors=REBUILT)
    kept = tuple(new_histories(limited, size) for _ in range(KEPT + 1))
    kept = (*kept[:WINDOWED], new_histories(windowed, size), kept[KEPT])
    windows = (window_of(limited), window_of(windowed))
    many = len(MECHANISMS)
    long = Long(
        np.zeros(len(events), np.int32),
        np.zeros(len(events), np.int32),
        np.zeros(len(users), np.int32),
        np.zeros(len(users), np.int32),
        np.zeros((2, len(items), size), np.float32),
        np.zeros(len(items), np.uint8),
        np.zeros((many, 2 + size)),
        np.zeros((many, 2 + size)),
    )
    signs = sdim.groups * sdim.tau
    projection = projections(size, signs, 0x5D1)
    scratch = Scratch(projection, np.zeros(signs, np.float32), np.zeros(size), np.zeros((many, size), np.float32))
    partition = Partition(configuration, block_events=BLOCK)
    behaviours = 0
    found: list[tuple[Array, ...]] = []
    for first in range(0, len(records), BLOCK):
        block = events[first : first + BLOCK]
        scores = map(
            _scored, (output.value or b"" for output in partition.process(records[first : first + BLOCK]).scores)
        )
        score_of = {scored.id: scored.model_score for scored in scores}
        told = np.array(
            [
                (isinstance(event, Feedback), users[event.user], items[_item(event)], event.id in clicked)
                for event in block
            ],
            np.int64,
        )
        score = np.array([score_of.get(event.id, 0.5) for event in block])
        state = partition.state
        for item in np.unique(told[:, 2]):
            row_of[item] = find(state.features.lookup, keys[item])
        vectors, initials = state.learner.features[:, Part.WEIGHT, 1:], state.learner.features[:, Part.INITIAL, 1:]
        read = tuple(np.full((len(block), many), np.nan) for _ in range(3))
        logits = np.log(score / (1.0 - score))
        behaviours = shadow(long, scratch, kept, windows, vectors, initials, row_of, told, logits, behaviours, *read)
        taken = ~np.isnan(read[0][:, 0])
        found.append((told[taken, 3], *(array[taken] for array in read)))
    return Followed(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _item(event: Event) -> str:
    assert isinstance(event, Impression | Feedback)
    return event.item


HEADER = (
    "| mechanism | cosine to a fresh evaluation, median (lowest tenth) | AUC of the match | with the model's score |"
    "\n|---|---|---|---|"
)


def tables(options: Options) -> str:
    """Return a table for each log."""
    out: list[str] = []
    for log in options.logs():
        read = followed(log)
        out += [
            f"### {log.name}: {len(read.label)} impressions of users with more than {SHORT_LENGTH} behaviours",
            "",
            HEADER,
        ]
        for mechanism, name in enumerate(MECHANISMS):
            cosine = read.cosine[:, mechanism]
            match = number(float(roc_auc_score(read.label, read.match[:, mechanism])))
            stacked = number(float(roc_auc_score(read.label, read.stacked[:, mechanism])))
            out.append(
                f"| {name} | {number(float(np.median(cosine)), 3)} ({number(float(np.quantile(cosine, 0.1)), 3)}) "
                f"| {match} | {stacked} |"
            )
        out.append("")
    return "\n".join(out)

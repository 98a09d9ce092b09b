"""Monolith's online joiner: impressions that wait for their outcome, and feedback in any order.

A slot is what is known of one impression. It is `EARLY` while only feedback has come, `WAITING` until its attribution
window closes, `CLOSED` until the late window is over too, and then free. The slot holds all that belongs to the
impression: its text, the features that it was scored with, the ids of its feedback. Freeing the slot forgets it all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, float64, int64, numbered, uint64
from thalweg.operators.machine.declare import Float64, Int32, Int64, UInt8, UInt64, made, part, per, side_by_side, wiper
from thalweg.operators.machine.numerics import log
from thalweg.operators.structures import deadlines, index, ownership, pool, recency, texts
from thalweg.operators.structures.deadlines import Deadlines
from thalweg.operators.structures.index import Index
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.pool import Pool
from thalweg.operators.structures.texts import BLOCK_BYTES, Texts
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, SHARE_MIN, check, within

UNLEARNED = -1.0
NOT_FOUND, SEEN_BEFORE = -1, -2


@numbered
class Status(IntEnum):
    """How far an impression has come."""

    FREE = 0
    EARLY = 1
    WAITING = 2
    CLOSED = 3


class Score(IntEnum):
    """The numbers of `Waiting.scores`: base score, raw logit, model score, correction, score."""

    BASE = 0
    LOGIT = 1
    MODEL = 2
    CORRECTION = 3
    SCORE = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinerConfiguration:
    """How impressions and feedback meet (`[joiner]`).

    `attribution_window_ms`: how long an impression waits for its outcome; `attribution_window_ms_by_action`: until when
    single positive actions make the label positive. The impression waits for the longest of the positive actions'
    windows. `late_window_ms`: how long after its own window a late positive still counts, and after the last
    duplicates are known. `provisional_share`: an impression is learned from provisionally once such a share of the
    positives would have come, and corrected when its window closes (`delay`); 1: every label waits for its window.
    `positive_actions`: the actions that make a label positive; others extend the user's sequences only.
    `negative_sample_rate`: the share of negatives that is learned, with the log-odds corrected. `waiting_limit`:
    impressions kept at most, waiting and late; at the limit the late ones go first, then the oldest waiting one is
    closed unlearned. `feedback_limit`, `feedbacks_per_impression`: feedback kept at most, in all and for one
    impression. `text_bytes`: original text kept at most. `user_share`: the part of `waiting_limit`, `feedback_limit`
    and `text_bytes` that one user may fill; beyond it the user's late impressions go first, then new ones are only
    scored: neither kept, nor counted, nor learned from. 1: there is no limit for each user. `search_limit`: how many of
    a user's latest impressions and behaviours are searched for that of a feedback without `impression`.
    """

    attribution_window_ms: Annotated[int, within(1, MS_MAX)] = 600_000
    attribution_window_ms_by_action: dict[str, Annotated[int, within(1, MS_MAX)]] = field(default_factory=dict)
    late_window_ms: Annotated[int, within(0, MS_MAX)] = 600_000
    positive_actions: tuple[str, ...] = ("click",)
    negative_sample_rate: Annotated[float, within(SHARE_MIN, 1.0)] = 1.0
    waiting_limit: Annotated[int, within(1, ROWS_MAX)] = 1 << 20
    provisional_share: Annotated[float, within(SHARE_MIN, 1.0)] = 0.9
    feedback_limit: Annotated[int, within(2, ROWS_MAX)] = 1 << 20
    feedbacks_per_impression: Annotated[int, within(1, 1 << 20)] = 64
    text_bytes: Annotated[int, within(1 << 18, ROWS_MAX * BLOCK_BYTES)] = 1 << 29
    user_share: Annotated[float, within(SHARE_MIN, 1.0)] = 1 / 16
    search_limit: Annotated[int, within(1, 1 << 16)] = 256

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or an action has a window and is not positive."""
        check(self)
        for action in self.attribution_window_ms_by_action:
            if action not in self.positive_actions:
                raise ValueError(f"attribution_window_ms_by_action must name positive_actions only, not {action!r}")
        if not self.positive_actions:
            raise ValueError("positive_actions must name at least one action")

    def sizes(self) -> dict[str, int]:
        """Return the sizes of the joiner's arrays."""
        blocks = self.text_bytes // BLOCK_BYTES
        slots = {"slots": self.waiting_limit + 1, "slots_limit": self.waiting_limit}  # one more is a candidate's
        return slots | {"nodes": self.feedback_limit, "blocks": max(1, blocks)}

    def windows_ms(self) -> dict[str, int]:
        """Return the attribution window of each positive action."""
        own = self.attribution_window_ms_by_action
        return {action: own.get(action, self.attribution_window_ms) for action in self.positive_actions}


class JoinerParameters(NamedTuple):
    """The configuration as the compiled code takes it.

    `window_ms` int64 [objectives]: the window of each; `closing_ms` int64: the different ones, rising. `weight_max`
    float64 [objectives]: how much a value weighs at most, 0 where it does not; `is_joint`: there are several
    objectives, or values that weigh. The first window, which is `attribution_window_ms`, is the longest of the positive
    actions' windows; `log_rate` is ln(negative_sample_rate); `slots_per_user`, `feedbacks_per_user` and
    `blocks_per_user` are one user's share of impressions, feedback and blocks of text.
    """

    window_ms: npt.NDArray[np.int64]
    closing_ms: npt.NDArray[np.int64]
    weight_max: npt.NDArray[np.float64]
    is_joint: bool
    attribution_window_ms: int
    late_window_ms: int
    negative_sample_rate: float
    log_rate: float
    provisional_share: float
    feedbacks_per_impression: int
    search_limit: int
    slots_per_user: int
    feedbacks_per_user: int
    blocks_per_user: int


@side_by_side()
class Feedbacks(NamedTuple):
    """Feedback known of each impression, chained."""

    key: Annotated[UInt64, per("nodes", "of its id")]
    offset: Annotated[Int64, per("nodes")]
    ts_ms: Annotated[Int64, per("nodes")]
    positive: Annotated[UInt8, per("nodes", "a bit for each objective that its action is a positive of")]
    window_ms: Annotated[Int64, per("nodes", "its action's attribution window")]
    value: Annotated[Float64, per("nodes valued", "its value where that may weigh; nan: none", apart=True)]
    length: Annotated[Int32, per("nodes", "bytes of its record", text="text", upto="kept_bytes")]
    text: Annotated[Int32, per("nodes", "first block + 1 of its record while it is early", digest=False)]
    next: Annotated[Int32, per("nodes", "the impression's next one + 1", digest=False)]
    pool: Annotated[Pool, part(limit="nodes")]


wipe_feedback = wiper(Feedbacks, "nodes")


SOME_WAIT: dict[str, dict[str, Any]] = {
    "place": {"digest": True, "seen_as": lambda slots: slots.place > 0},
    "deadline_ms": {"where": lambda slots: slots.place > 0},
    "arrival": {"digest": False},
}


@side_by_side()
class Waiting(NamedTuple):
    """Impressions and their feedback."""

    lookup: Annotated[Index, part(buckets=(index.buckets_of, "slots"))]
    key: Annotated[UInt64, per("slots", "of its id")]
    user_key: Annotated[UInt64, per("slots")]
    status: Annotated[UInt8, per("slots", "`Status`", below=len(Status))]
    label: Annotated[UInt8, per("slots", below=2)]
    labels: Annotated[UInt8, per("slots heads", "those of the other objectives", below=2, apart=True)]
    weights: Annotated[Float64, per("slots weighed", "what the labels learned so far weigh", apart=True)]
    closings: Annotated[UInt8, per("slots stages", "windows that have closed", upto="closings_most", apart=True)]
    closed_ms: Annotated[Int64, per("slots", where=lambda slots: slots.status == Status.CLOSED)]
    users: Annotated[Owned, part(owners="users", members="slots")]
    deadlines: Annotated[Deadlines, part()]
    provisional: Annotated[Deadlines, part(SOME_WAIT)]
    pending: Annotated[Owned, part(owners="users", members="slots")]
    learned: Annotated[Float64, per("slots", "the label learned from so far, or `UNLEARNED`")]
    offset: Annotated[Int64, per("slots", over="scored")]
    item_key: Annotated[UInt64, per("slots", over="scored")]
    request_key: Annotated[UInt64, per("slots", "of the request that it answers; 0: it names none", over="scored")]
    ts_ms: Annotated[Int64, per("slots", over="scored")]
    scores: Annotated[Float64, per("slots 5", "`Score`; a base score of nan is none", over="scored")]
    length: Annotated[Int32, per("slots", "bytes of its record", text="text", upto="kept_bytes")]
    text: Annotated[Int32, per("slots", "first block + 1 of its record", digest=False)]
    feedback_count: Annotated[Int32, per("slots", upto="feedbacks_per_impression")]
    feedback: Annotated[Int32, per("slots", "its latest feedback + 1", digest=False)]
    older: Annotated[Int32, per("slots", "its neighbour by closing + 1", digest=False)]
    newer: Annotated[Int32, per("slots", "its neighbour by closing + 1", digest=False)]
    ends: Annotated[Int32, per("2", "closed first and last, + 1", digest=False)]
    doubted_turn: Annotated[Int64, per("slots", "of the clock, since when its window is doubted; 0: it is not")]
    doubted: Annotated[Int32, per("2", "doubted first and last, + 1, by the same neighbours", digest=False)]
    held_feedbacks: Annotated[Int32, per("users", "feedback that the user fills", digest=False)]
    held_blocks: Annotated[Int32, per("users", "blocks of text that the user fills", digest=False)]
    pool: Annotated[Pool, part(limit="slots_limit")]
    feedbacks: Annotated[Feedbacks, part()]
    texts: Annotated[Texts, part()]


wipe_slot = wiper(Waiting, "slots")


def joiner_parameters(
    configuration: JoinerConfiguration, heads_ms: Sequence[int] = (), weights_max: Sequence[float] = (0.0,)
) -> JoinerParameters:
    """Return what the compiled code needs of the configuration: a share is at least one of each.

    `heads_ms`: the windows of further objectives; `weights_max`: how much a value weighs for each, or 0.
    """
    limits = (configuration.waiting_limit, configuration.feedback_limit, configuration.text_bytes // BLOCK_BYTES)
    # a whole share is no limit: nobody gets to twice what there is
    part = configuration.user_share if configuration.user_share < 1.0 else 2.0
    shares = (max(1, int(limit * part)) for limit in limits)
    first_ms = max(configuration.windows_ms().values())
    return JoinerParameters(
        np.array([first_ms, *heads_ms], np.int64),
        np.array(sorted({first_ms, *heads_ms}), np.int64),
        np.array(weights_max, np.float64),
        len(heads_ms) > 0 or any(weights_max),
        first_ms,
        configuration.late_window_ms,
        configuration.negative_sample_rate,
        float(log(configuration.negative_sample_rate)),
        configuration.provisional_share,
        configuration.feedbacks_per_impression,
        configuration.search_limit,
        *shares,
    )


def new_waiting(configuration: JoinerConfiguration, users: int) -> Waiting:
    """Return a joiner that has seen nothing, for at most `users` users and one objective."""
    return made(Waiting, users=users, heads=0, stages=0, valued=0, weighed=0, **configuration.sizes())


@compiled
def find_slot(waiting: Waiting, key: int) -> int:
    """Return the slot of an impression's key, or -1."""
    return index.find(waiting.lookup, key)


@compiled
def open_slot(waiting: Waiting, key: int, user_key: int, status: int) -> int:
    """Return a fresh slot for an impression that has none, or -1 where none is free or the index refuses its key."""
    if pool.available(waiting.pool) == 0:
        return -1
    slot = pool.take(waiting.pool)
    if not index.insert(waiting.lookup, key, slot):
        pool.give(waiting.pool, slot)
        return -1
    waiting.status[slot] = status
    waiting.key[slot] = key
    waiting.user_key[slot] = user_key
    waiting.learned[slot] = UNLEARNED
    return slot


@compiled
def wait_until(waiting: Waiting, slot: int, deadline_ms: int, arrival: int) -> None:
    """Set when a slot is due; `arrival`, then the key, orders slots of one deadline."""
    deadlines.remove_deadline(waiting.deadlines, waiting.key, slot)
    deadlines.push_deadline(waiting.deadlines, waiting.key, slot, deadline_ms, arrival)


@compiled
def begins_ms(waiting: Waiting, slot: int, parameters: JoinerParameters) -> int:
    """Return when the windows of a waiting impression begin: mostly at its `ts`."""
    closing_ms = parameters.closing_ms[closings_of(waiting, slot)]
    return waiting.deadlines.deadline_ms[slot] - closing_ms  # type: ignore[no-any-return]


@compiled
def closings_of(waiting: Waiting, slot: int) -> int:
    """Return how many of the different windows of a waiting impression have closed."""
    return int64(waiting.closings[slot, 0]) if waiting.closings.shape[1] > 0 else int64(0)


@compiled
def is_open(waiting: Waiting, slot: int, objective: int, parameters: JoinerParameters) -> bool:
    """Return whether an objective's window of an impression is still open."""
    return bool(
        waiting.status[slot] == Status.WAITING
        and parameters.window_ms[objective] >= parameters.closing_ms[closings_of(waiting, slot)]
    )


@compiled
def is_closing(waiting: Waiting, slot: int, objective: int, parameters: JoinerParameters) -> bool:
    """Return whether an objective's window is the next of an impression's to close."""
    return bool(parameters.window_ms[objective] == parameters.closing_ms[closings_of(waiting, slot)])


@compiled
def is_last_closing(waiting: Waiting, slot: int, parameters: JoinerParameters) -> bool:
    """Return whether an impression waits for no window behind the next one."""
    return bool(closings_of(waiting, slot) + 1 == parameters.closing_ms.shape[0])


@compiled
def await_closing(waiting: Waiting, slot: int, parameters: JoinerParameters) -> None:
    """Let an impression wait for the window behind the one that closes."""
    before_ms = parameters.closing_ms[closings_of(waiting, slot)]
    waiting.closings[slot, 0] += np.uint8(1)
    by_ms = parameters.closing_ms[closings_of(waiting, slot)] - before_ms
    deadlines.move_deadline(waiting.deadlines, waiting.key, slot, by_ms)


@compiled
def last_closing(waiting: Waiting, parameters: JoinerParameters) -> int:
    """Return when the last window of all closes, or when the last early feedback is given up; -1 where none waits."""
    last = int64(-1)
    for place in range(waiting.deadlines.size[0]):
        slot = int64(waiting.deadlines.heap[place])
        last_ms = waiting.deadlines.deadline_ms[slot]
        if waiting.status[slot] == Status.WAITING:
            last_ms = begins_ms(waiting, slot, parameters) + parameters.closing_ms[-1]
        last = max(last, last_ms)
    return last


@compiled
def label_of(waiting: Waiting, slot: int, objective: int) -> int:
    """Return an objective's label of an impression, as it is so far."""
    return int64(waiting.label[slot] if objective == 0 else waiting.labels[slot, objective - 1])


@compiled
def set_label(waiting: Waiting, slot: int, objective: int) -> None:
    """Make an objective's label of an impression positive."""
    if objective == 0:
        waiting.label[slot] = 1
    else:
        waiting.labels[slot, objective - 1] = 1


@compiled
def is_behind(waiting: Waiting, slot: int, parameters: JoinerParameters) -> bool:
    """Return whether the window of a waiting impression begins behind its `ts`, which others had passed."""
    return bool(begins_ms(waiting, slot, parameters) > waiting.ts_ms[slot])


@compiled
def await_label(waiting: Waiting, user: int, slot: int, deadline_ms: int, arrival: int) -> None:
    """Let a user's impression wait for a provisional label."""
    deadlines.push_deadline(waiting.provisional, waiting.key, slot, deadline_ms, arrival)
    ownership.attach(waiting.pending, user, slot)


@compiled
def await_no_label(waiting: Waiting, slot: int) -> None:
    """Let an impression wait for no provisional label, if it does."""
    deadlines.remove_deadline(waiting.provisional, waiting.key, slot)
    ownership.detach(waiting.pending, slot)


@compiled
def hasten_labels(waiting: Waiting, user: int, ts_ms: int, elapsed_ms: int, now_ms: int) -> None:
    """Let those labels of a user be due at `now_ms` that are so by the user's clock, which is at `ts_ms`."""
    slot = ownership.last_of(waiting.pending, user)
    while slot >= 0 and ts_ms - waiting.ts_ms[slot] > elapsed_ms:
        late_ms = waiting.provisional.deadline_ms[slot] - now_ms
        if late_ms >= 0:
            deadlines.move_deadline(waiting.provisional, waiting.key, slot, -late_ms - 1)
        slot = int64(waiting.pending.previous[slot]) - 1


@compiled
def close_slot(waiting: Waiting, slot: int, now_ms: int) -> None:
    """Close an impression's window; its slot stays for late feedback and for duplicates."""
    deadlines.remove_deadline(waiting.deadlines, waiting.key, slot)
    await_no_label(waiting, slot)
    believe(waiting, slot)
    waiting.status[slot] = Status.CLOSED
    waiting.closed_ms[slot] = now_ms
    recency.link(waiting.older, waiting.newer, waiting.ends, slot)


@compiled
def doubt(waiting: Waiting, slot: int, turn: int) -> None:
    """Mark an impression that is not where others are: its clock, or a gap in the log, or what comes out of order."""
    if waiting.doubted_turn[slot] == 0:
        waiting.doubted_turn[slot] = turn
        recency.link(waiting.older, waiting.newer, waiting.doubted, slot)


@compiled
def believe(waiting: Waiting, slot: int) -> None:
    """Take the mark of `doubt` from an impression that may have it."""
    if waiting.doubted_turn[slot] != 0:
        waiting.doubted_turn[slot] = 0
        recency.unlink(waiting.older, waiting.newer, waiting.doubted, slot)


@compiled
def is_doubted(waiting: Waiting, slot: int) -> bool:
    """Return whether an impression has the mark of `doubt`."""
    return bool(waiting.doubted_turn[slot] != 0)


@compiled
def oldest_doubted(waiting: Waiting) -> int:
    """Return the slot that was doubted first, or -1."""
    return recency.oldest(waiting.doubted)


@compiled
def open_closed(waiting: Waiting, key: int, user_key: int, now_ms: int) -> int:
    """Return a fresh slot for a behaviour, closed from the start, or -1 where none is free; it remembers the key."""
    slot = open_slot(waiting, key, user_key, Status.CLOSED)
    if slot >= 0:
        waiting.closed_ms[slot] = now_ms
        recency.link(waiting.older, waiting.newer, waiting.ends, slot)
    return slot


@compiled
def find_waiting(
    waiting: Waiting, user: int, item_key: int, feedback_key: int, ts_ms: int, window_ms: int, search_limit: int
) -> int:
    """Return the slot of a user's latest waiting impression of an item, within its window, or `NOT_FOUND`.

    `SEEN_BEFORE` where an impression of the item has this feedback. `search_limit` slots are looked at, newest first.
    """
    found = int64(NOT_FOUND)
    slot = ownership.first_of(waiting.users, user)
    for _ in range(search_limit):
        if slot < 0:
            break
        if waiting.item_key[slot] == uint64(item_key) and waiting.status[slot] != Status.EARLY:
            if knows_feedback(waiting, slot, feedback_key):
                return SEEN_BEFORE
            is_open = waiting.status[slot] == Status.WAITING and ts_ms <= waiting.ts_ms[slot] + window_ms
            if is_open and (found < 0 or is_later(waiting, slot, found)):
                found = slot
        slot = int64(waiting.users.next[slot]) - 1
    return found


@compiled
def knows_answer(waiting: Waiting, user: int, request_key: int, search_limit: int) -> bool:
    """Return whether an impression of a user answers a request; `search_limit` slots are looked at, newest first."""
    slot = ownership.first_of(waiting.users, user)
    for _ in range(search_limit):
        if slot < 0:
            break
        if waiting.request_key[slot] == uint64(request_key):
            return True
        slot = int64(waiting.users.next[slot]) - 1
    return False


@compiled
def is_later(waiting: Waiting, slot: int, other: int) -> bool:
    """Return whether a waiting impression arrived behind another one; on one page the larger key is the later."""
    arrival = waiting.deadlines.arrival
    if arrival[slot] != arrival[other]:
        return bool(arrival[slot] > arrival[other])
    return bool(waiting.key[slot] > waiting.key[other])


@compiled
def oldest_closed(waiting: Waiting) -> int:
    """Return the slot that was closed first, or -1."""
    return recency.oldest(waiting.ends)


@compiled
def add_to_share(waiting: Waiting, slot: int, feedbacks: int, blocks: int) -> None:
    """Count what the owner of a slot fills: so much more feedback, so many more blocks of text."""
    owner = int64(waiting.users.owner[slot]) - 1
    if owner >= 0:
        waiting.held_feedbacks[owner] += feedbacks
        waiting.held_blocks[owner] += blocks


@compiled
def fits_share(waiting: Waiting, user: int, slots: int, length: int, parameters: JoinerParameters) -> bool:
    """Return whether so many more impressions and a text of `length` bytes fit into a user's share.

    A user who has none may keep one, however long its text is.
    """
    held = int64(waiting.users.held[user])
    blocks = waiting.held_blocks[user] + texts.blocks_of(length)
    return bool(held == 0 or (held + slots <= parameters.slots_per_user and blocks <= parameters.blocks_per_user))


@compiled
def drop_feedback(waiting: Waiting, slot: int) -> None:
    """Forget a slot's feedback."""
    node = int64(waiting.feedback[slot])
    while node != 0:
        following = int64(waiting.feedbacks.next[node - 1])
        add_to_share(waiting, slot, -1, -texts.blocks_of(int64(waiting.feedbacks.length[node - 1])))
        texts.release_text(waiting.texts, waiting.feedbacks.text[node - 1])
        wipe_feedback(waiting.feedbacks, node - 1)
        pool.give(waiting.feedbacks.pool, node - 1)
        node = following
    waiting.feedback[slot] = 0
    waiting.feedback_count[slot] = 0


@compiled
def drop_slot(waiting: Waiting, slot: int) -> None:
    """Forget an impression and all that it brought, and take it from its user; nothing of it is left in memory."""
    if waiting.status[slot] == Status.CLOSED:
        recency.unlink(waiting.older, waiting.newer, waiting.ends, slot)
    else:
        deadlines.remove_deadline(waiting.deadlines, waiting.key, slot)
        await_no_label(waiting, slot)
        believe(waiting, slot)
    drop_feedback(waiting, slot)
    add_to_share(waiting, slot, 0, -texts.blocks_of(int64(waiting.length[slot])))
    texts.release_text(waiting.texts, waiting.text[slot])
    index.remove(waiting.lookup, waiting.key[slot])
    ownership.detach(waiting.users, slot)
    wipe_slot(waiting, slot)
    pool.give(waiting.pool, slot)


@compiled
def knows_feedback(waiting: Waiting, slot: int, key: int) -> bool:
    """Return whether a feedback of this id has come for the impression before."""
    node = waiting.feedback[slot]
    while node != 0:
        if waiting.feedbacks.key[node - 1] == uint64(key):
            return True
        node = waiting.feedbacks.next[node - 1]
    return False


@compiled
def fits(waiting: Waiting, length: int) -> bool:
    """Return whether there is room for one more slot and a text of `length` bytes."""
    return bool(pool.available(waiting.pool) > 0 and texts.has_room(waiting.texts, length))


@compiled
def can_remember(waiting: Waiting, slot: int, parameters: JoinerParameters) -> bool:
    """Return whether one more feedback of the impression, which has an owner, can be remembered."""
    held = waiting.held_feedbacks[int64(waiting.users.owner[slot]) - 1]
    return bool(
        waiting.feedback_count[slot] < parameters.feedbacks_per_impression
        and held < parameters.feedbacks_per_user
        and pool.available(waiting.feedbacks.pool) > 0
    )


@compiled
def add_feedback(waiting: Waiting, slot: int, key: int, offset: int, ts_ms: int, positive: int, window_ms: int) -> int:
    """Remember a feedback of an impression, for which there is room, and return its node."""
    node = pool.take(waiting.feedbacks.pool)
    feedbacks = waiting.feedbacks
    feedbacks.key[node] = key
    feedbacks.offset[node] = offset
    feedbacks.ts_ms[node] = ts_ms
    feedbacks.positive[node] = positive
    feedbacks.window_ms[node] = window_ms
    feedbacks.next[node] = waiting.feedback[slot]
    waiting.feedback[slot] = node + 1
    waiting.feedback_count[slot] += 1
    add_to_share(waiting, slot, 1, 0)
    return node


@compiled
def is_in_time(waiting: Waiting, slot: int, node: int, grace_ms: int) -> bool:
    """Return whether a feedback came within its own action's window after its impression, or `grace_ms` behind it."""
    feedbacks = waiting.feedbacks
    return bool(feedbacks.ts_ms[node] <= waiting.ts_ms[slot] + feedbacks.window_ms[node] + grace_ms)


@compiled
def is_positive(
    waiting: Waiting, slot: int, node: int, objective: int, grace_ms: int, parameters: JoinerParameters
) -> bool:
    """Return whether a feedback is a positive of an objective, in time or at most `grace_ms` too late for it."""
    if (waiting.feedbacks.positive[node] >> np.uint8(objective)) & np.uint8(1) == np.uint8(0):
        return False
    if parameters.window_ms.shape[0] == 1:
        return is_in_time(waiting, slot, node, grace_ms)
    latest_ms = waiting.ts_ms[slot] + parameters.window_ms[objective] + grace_ms
    return bool(waiting.feedbacks.ts_ms[node] <= latest_ms)


@compiled
def has_positive(waiting: Waiting, slot: int, objective: int, grace_ms: int, parameters: JoinerParameters) -> bool:
    """Return whether any positive feedback of an impression came in time, or at most `grace_ms` too late."""
    node = int64(waiting.feedback[slot])
    while node != 0:
        if is_positive(waiting, slot, node - 1, objective, grace_ms, parameters):
            return True
        node = int64(waiting.feedbacks.next[node - 1])
    return False


@compiled
def weight_of(waiting: Waiting, slot: int, objective: int, grace_ms: int, parameters: JoinerParameters) -> float:
    """Return what a positive of an objective weighs: the largest value among those in time, 1 where none has any."""
    most = parameters.weight_max[objective]
    if most == 0.0:
        return 1.0
    found = -1.0
    node = int64(waiting.feedback[slot])
    while node != 0:
        if is_positive(waiting, slot, node - 1, objective, grace_ms, parameters):
            value = waiting.feedbacks.value[node - 1, 0]
            found = max(found, min(value, most) if value == value else 1.0)
        node = int64(waiting.feedbacks.next[node - 1])
    return found if found >= 0.0 else 1.0


@compiled
def write_value(waiting: Waiting, node: int, value: float) -> None:
    """Remember the value of a feedback, where any weighs."""
    for i in range(waiting.feedbacks.value.shape[1]):
        waiting.feedbacks.value[node, i] = value


@compiled
def learned_weight(waiting: Waiting, slot: int, objective: int) -> float:
    """Return what the label that an objective has learned weighs."""
    return float64(waiting.weights[slot, objective]) if waiting.weights.shape[1] > 0 else 1.0


@compiled
def positive_ms(waiting: Waiting, slot: int, objective: int, parameters: JoinerParameters) -> int:
    """Return when the first positive of an impression came in time, by its own `ts`; that of the impression if none."""
    found = int64(-1)
    node = int64(waiting.feedback[slot])
    while node != 0:
        if is_positive(waiting, slot, node - 1, objective, 0, parameters):
            ts_ms = waiting.feedbacks.ts_ms[node - 1]
            found = min(found, ts_ms) if found >= 0 else ts_ms
        node = int64(waiting.feedbacks.next[node - 1])
    return found if found >= 0 else waiting.ts_ms[slot]


@compiled
def write_record(waiting: Waiting, slot: int, text: npt.NDArray[np.uint8], start: int, end: int) -> None:
    """Keep the record `text[start:end]` of an impression that has none kept."""
    waiting.length[slot] = end - start
    waiting.text[slot] = texts.write_text(waiting.texts, text, start, end)
    add_to_share(waiting, slot, 0, texts.blocks_of(end - start))


@compiled
def write_early(waiting: Waiting, slot: int, node: int, text: npt.NDArray[np.uint8], start: int, end: int) -> None:
    """Keep the record `text[start:end]` of an early feedback in place of what was kept; an empty one keeps nothing."""
    feedbacks = waiting.feedbacks
    add_to_share(waiting, slot, 0, texts.blocks_of(end - start) - texts.blocks_of(int64(feedbacks.length[node])))
    texts.release_text(waiting.texts, feedbacks.text[node])
    feedbacks.text[node] = texts.write_text(waiting.texts, text, start, end)
    feedbacks.length[node] = end - start


@compiled
def list_feedback(feedbacks: Feedbacks, first: npt.NDArray[np.int32], out: npt.NDArray[np.int64]) -> None:
    """Write the nodes of chains that start at `first` (node + 1), one chain after the other, to `out`."""
    count = 0
    for i in range(first.shape[0]):
        node = int64(first[i])
        while node != 0:
            out[count] = node - 1
            count += 1
            node = int64(feedbacks.next[node - 1])

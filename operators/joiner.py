"""Monolith's online joiner: impressions that wait for their outcome, and feedback in any order.

A slot is what is known of one impression. It is `EARLY` while only feedback has come, `WAITING` until its attribution
window closes, `CLOSED` until the late window is over too, and then gone. Everything an impression brought hangs on its
slot (its text, the features that it was scored with, the ids of its feedback), so that forgetting it is one act.
"""

from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled, int64, uint64
from thalweg.operators.machine.numerics import log
from thalweg.operators.machine.reserve import reserve, reserve_rows
from thalweg.operators.structures.deadlines import Deadlines, new_deadlines, push_deadline, remove_deadline
from thalweg.operators.structures.index import Index, find, insert, new_index, remove
from thalweg.operators.structures.ownership import Owned, detach, new_owned
from thalweg.operators.structures.pool import Pool, available, give, new_pool, take
from thalweg.operators.structures.recency import link, oldest, unlink
from thalweg.operators.structures.texts import (
    BLOCK_BYTES,
    Texts,
    blocks_of,
    has_room,
    new_texts,
    release_text,
    write_text,
)
from thalweg.schemas.bounds import MS_MAX, ROWS_MAX, SHARE_MIN, check, within

FREE, EARLY, WAITING, CLOSED = range(4)
UNLEARNED = -1.0
BASE, LOGIT, MODEL, CORRECTION, SCORE = range(5)


@dataclass(frozen=True, kw_only=True, slots=True)
class JoinerConfiguration:
    """How impressions and feedback meet (`[joiner]`).

    `attribution_window_ms`: how long an impression waits for its outcome; `attribution_window_ms_by_action`: until when
    single positive actions make the label positive. The impression waits for the longest of the positive actions'
    windows. `late_window_ms`: how long after its own window a late positive still counts, and after the last
    duplicates are known. `provisional_share`: an impression is learned from provisionally once such a share of the
    positives would have come, and set right when its window closes (`delay`); 1: every label waits for its window.
    `positive_actions`: the actions that make a label positive; others extend the user's sequences only.
    `negative_sample_rate`: the share of negatives that is learned, with the log-odds corrected. `waiting_limit`:
    impressions kept at most, waiting and late; at the limit the late ones go first, then the oldest waiting one is
    closed unlearned. `feedback_limit`, `feedbacks_per_impression`: feedback kept at most, in all and for one
    impression. `text_bytes`: original text kept at most. `user_share`: the part of `waiting_limit`, `feedback_limit`
    and `text_bytes` that one user may fill; beyond it the user's late impressions go first, then new ones are scored
    and no more: neither kept, nor counted, nor learned from. 1: users have no limit of their own.
    """

    attribution_window_ms: Annotated[int, within(1, MS_MAX)] = 600_000
    attribution_window_ms_by_action: dict[str, Annotated[int, within(1, MS_MAX)]] = field(default_factory=dict)
    late_window_ms: Annotated[int, within(0, MS_MAX)] = 600_000
    positive_actions: tuple[str, ...] = ("click",)
    negative_sample_rate: Annotated[float, within(SHARE_MIN, 1.0)] = 1.0
    waiting_limit: Annotated[int, within(1, ROWS_MAX)] = 1 << 20
    provisional_share: Annotated[float, within(SHARE_MIN, 1.0)] = 0.9
    feedback_limit: Annotated[int, within(1, ROWS_MAX)] = 1 << 20
    feedbacks_per_impression: Annotated[int, within(1, 1 << 20)] = 64
    text_bytes: Annotated[int, within(1 << 18, ROWS_MAX * BLOCK_BYTES)] = 1 << 29
    user_share: Annotated[float, within(SHARE_MIN, 1.0)] = 1 / 16

    def __post_init__(self) -> None:
        """Raise ValueError where a value is out of its bounds, or an action has a window and is not positive."""
        check(self)
        for action in self.attribution_window_ms_by_action:
            if action not in self.positive_actions:
                raise ValueError(f"attribution_window_ms_by_action must name positive_actions only, not {action!r}")
        if not self.positive_actions:
            raise ValueError("positive_actions must name at least one action")

    def windows_ms(self) -> dict[str, int]:
        """Return the attribution window of each positive action."""
        own = self.attribution_window_ms_by_action
        return {action: own.get(action, self.attribution_window_ms) for action in self.positive_actions}


class JoinerParameters(NamedTuple):
    """The configuration as the compiled code takes it.

    `attribution_window_ms` is the longest of the positive actions' windows; `log_rate` is ln(negative_sample_rate);
    `slots_per_user`, `feedbacks_per_user` and `blocks_per_user` are one user's share of impressions, feedback and
    blocks of text.
    """

    attribution_window_ms: int
    late_window_ms: int
    negative_sample_rate: float
    log_rate: float
    provisional_share: float
    feedbacks_per_impression: int
    slots_per_user: int
    feedbacks_per_user: int
    blocks_per_user: int


class Feedbacks(NamedTuple):
    """Feedback known of each impression, chained: `key` uint64 of its id; `next` int32 (node + 1); `offset`, `ts_ms`
    int64; `positive` uint8; `window_ms` int64, its action's attribution window; `text`, `length` int32, its record in
    `Texts` while it is early; `pool`.
    """

    key: npt.NDArray[np.uint64]
    next: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    positive: npt.NDArray[np.uint8]
    window_ms: npt.NDArray[np.int64]
    text: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    pool: Pool


class Waiting(NamedTuple):
    """Impressions and their feedback, [slots] unless said otherwise.

    `lookup`: impression key to slot; `status` uint8; `key`, `user_key` uint64; `users`: which user owns the slot;
    `deadlines`: when `EARLY` and `WAITING` slots are due; `provisional`: when `WAITING` slots get a provisional label;
    `learned` float64: the label learned from so far, or `UNLEARNED`; `older`, `newer` int32 and `ends` int32 [2]:
    `CLOSED` slots in the order of closing; `closed_ms` int64; `label` uint8; `offset`, `ts_ms` int64; `feedback`,
    `feedback_count` int32; `text`, `length` int32; `scores` float64 [slots, 5]: base score (nan is none), raw logit,
    model score, correction, score; `held_feedbacks`, `held_blocks` int32 [users]: feedback and blocks of text that each
    user fills.
    """

    lookup: Index
    status: npt.NDArray[np.uint8]
    key: npt.NDArray[np.uint64]
    user_key: npt.NDArray[np.uint64]
    users: Owned
    deadlines: Deadlines
    provisional: Deadlines
    learned: npt.NDArray[np.float64]
    older: npt.NDArray[np.int32]
    newer: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int32]
    closed_ms: npt.NDArray[np.int64]
    label: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.int64]
    ts_ms: npt.NDArray[np.int64]
    feedback: npt.NDArray[np.int32]
    feedback_count: npt.NDArray[np.int32]
    text: npt.NDArray[np.int32]
    length: npt.NDArray[np.int32]
    scores: npt.NDArray[np.float64]
    held_feedbacks: npt.NDArray[np.int32]
    held_blocks: npt.NDArray[np.int32]
    pool: Pool
    feedbacks: Feedbacks
    texts: Texts


def joiner_parameters(configuration: JoinerConfiguration) -> JoinerParameters:
    """Return what the compiled code needs of the configuration: a share is at least one of each."""
    limits = (configuration.waiting_limit, configuration.feedback_limit, configuration.text_bytes // BLOCK_BYTES)
    # a whole share is no limit: nobody gets to twice what there is
    part = configuration.user_share if configuration.user_share < 1.0 else 2.0
    shares = (max(1, int(limit * part)) for limit in limits)
    return JoinerParameters(
        max(configuration.windows_ms().values()),
        configuration.late_window_ms,
        configuration.negative_sample_rate,
        float(log(configuration.negative_sample_rate)),
        configuration.provisional_share,
        configuration.feedbacks_per_impression,
        *shares,
    )


def new_waiting(configuration: JoinerConfiguration, users: int) -> Waiting:
    """Return a joiner that has seen nothing, for at most `users` users."""
    slots = configuration.waiting_limit
    nodes = configuration.feedback_limit
    of_feedbacks = reserve_rows(
        nodes,
        key=np.uint64,
        next=np.int32,
        offset=np.int64,
        ts_ms=np.int64,
        positive=np.uint8,
        window_ms=np.int64,
        text=np.int32,
        length=np.int32,
    )
    of_slots = reserve_rows(
        slots,
        status=np.uint8,
        key=np.uint64,
        user_key=np.uint64,
        learned=np.float64,
        older=np.int32,
        newer=np.int32,
        closed_ms=np.int64,
        label=np.uint8,
        offset=np.int64,
        ts_ms=np.int64,
        feedback=np.int32,
        feedback_count=np.int32,
        text=np.int32,
        length=np.int32,
        scores=(np.float64, (5,)),
    )
    return Waiting(
        **of_slots,
        lookup=new_index(slots),
        users=new_owned(users, slots),
        deadlines=new_deadlines(slots),
        provisional=new_deadlines(slots),
        ends=reserve(2, np.int32),
        held_feedbacks=reserve(users, np.int32),
        held_blocks=reserve(users, np.int32),
        pool=new_pool(slots),
        feedbacks=Feedbacks(**of_feedbacks, pool=new_pool(nodes)),
        texts=new_texts(configuration.text_bytes),
    )


@compiled
def find_slot(waiting: Waiting, key: int) -> int:
    """Return the slot of an impression's key, or -1."""
    return find(waiting.lookup, key)


@compiled
def open_slot(waiting: Waiting, key: int, user_key: int, status: int) -> int:
    """Return a fresh slot for an impression that has none, or -1 where none is free or the index refuses its key."""
    if available(waiting.pool) == 0:
        return -1
    slot = take(waiting.pool)
    if not insert(waiting.lookup, key, slot):
        give(waiting.pool, slot)
        return -1
    waiting.status[slot] = status
    waiting.key[slot] = key
    waiting.user_key[slot] = user_key
    waiting.label[slot] = 0
    waiting.learned[slot] = UNLEARNED
    waiting.feedback[slot] = 0
    waiting.feedback_count[slot] = 0
    waiting.text[slot] = 0
    waiting.length[slot] = 0
    return slot


@compiled
def wait_until(waiting: Waiting, slot: int, deadline_ms: int, arrival: int) -> None:
    """Set when a slot is due; `arrival` orders slots of the same deadline."""
    remove_deadline(waiting.deadlines, slot)
    push_deadline(waiting.deadlines, slot, deadline_ms, arrival)


@compiled
def close_slot(waiting: Waiting, slot: int, now_ms: int) -> None:
    """Close an impression's window; its slot stays for late feedback and for duplicates."""
    remove_deadline(waiting.deadlines, slot)
    remove_deadline(waiting.provisional, slot)
    waiting.status[slot] = CLOSED
    waiting.closed_ms[slot] = now_ms
    link(waiting.older, waiting.newer, waiting.ends, slot)


@compiled
def oldest_closed(waiting: Waiting) -> int:
    """Return the slot that was closed first, or -1."""
    return oldest(waiting.ends)


@compiled
def _wipe_feedback(feedbacks: Feedbacks, node: int) -> None:
    feedbacks.key[node] = 0
    feedbacks.next[node] = 0
    feedbacks.offset[node] = 0
    feedbacks.ts_ms[node] = 0
    feedbacks.positive[node] = 0
    feedbacks.window_ms[node] = 0
    feedbacks.text[node] = 0
    feedbacks.length[node] = 0


@compiled
def hold(waiting: Waiting, slot: int, feedbacks: int, blocks: int) -> None:
    """Count what the owner of a slot fills: so much more feedback, so many more blocks of text."""
    owner = int64(waiting.users.owner[slot]) - 1
    if owner >= 0:
        waiting.held_feedbacks[owner] += feedbacks
        waiting.held_blocks[owner] += blocks


@compiled
def fits_share(waiting: Waiting, user: int, slots: int, length: int, parameters: JoinerParameters) -> bool:
    """Return whether so many more impressions and a text of `length` bytes fit into a user's share.

    Whoever has nothing may keep one, however long its text is.
    """
    held = int64(waiting.users.held[user])
    blocks = waiting.held_blocks[user] + blocks_of(length)
    return bool(held == 0 or (held + slots <= parameters.slots_per_user and blocks <= parameters.blocks_per_user))


@compiled
def drop_feedback(waiting: Waiting, slot: int) -> None:
    """Forget a slot's feedback."""
    node = int64(waiting.feedback[slot])
    while node != 0:
        following = int64(waiting.feedbacks.next[node - 1])
        hold(waiting, slot, -1, -blocks_of(int64(waiting.feedbacks.length[node - 1])))
        release_text(waiting.texts, waiting.feedbacks.text[node - 1])
        _wipe_feedback(waiting.feedbacks, node - 1)
        give(waiting.feedbacks.pool, node - 1)
        node = following
    waiting.feedback[slot] = 0
    waiting.feedback_count[slot] = 0


@compiled
def drop_slot(waiting: Waiting, slot: int) -> None:
    """Forget an impression and all that it brought, and take it from its user; nothing of it is left in memory."""
    if waiting.status[slot] == CLOSED:
        unlink(waiting.older, waiting.newer, waiting.ends, slot)
    else:
        remove_deadline(waiting.deadlines, slot)
        remove_deadline(waiting.provisional, slot)
    drop_feedback(waiting, slot)
    hold(waiting, slot, 0, -blocks_of(int64(waiting.length[slot])))
    release_text(waiting.texts, waiting.text[slot])
    remove(waiting.lookup, waiting.key[slot])
    detach(waiting.users, slot)
    waiting.status[slot] = FREE
    waiting.key[slot] = 0
    waiting.user_key[slot] = 0
    waiting.deadlines.deadline_ms[slot] = 0
    waiting.deadlines.arrival[slot] = 0
    waiting.provisional.deadline_ms[slot] = 0
    waiting.provisional.arrival[slot] = 0
    waiting.learned[slot] = 0.0
    waiting.closed_ms[slot] = 0
    waiting.label[slot] = 0
    waiting.offset[slot] = 0
    waiting.ts_ms[slot] = 0
    waiting.text[slot] = 0
    waiting.length[slot] = 0
    clear(waiting.scores[slot])
    give(waiting.pool, slot)


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
    return bool(available(waiting.pool) > 0 and has_room(waiting.texts, length))


@compiled
def can_remember(waiting: Waiting, slot: int, parameters: JoinerParameters) -> bool:
    """Return whether one more feedback of the impression, which has an owner, can be remembered."""
    held = waiting.held_feedbacks[int64(waiting.users.owner[slot]) - 1]
    return bool(
        waiting.feedback_count[slot] < parameters.feedbacks_per_impression
        and held < parameters.feedbacks_per_user
        and available(waiting.feedbacks.pool) > 0
    )


@compiled
def add_feedback(waiting: Waiting, slot: int, key: int, offset: int, ts_ms: int, positive: bool, window_ms: int) -> int:
    """Remember a feedback of an impression, for which there is room, and return its node."""
    node = take(waiting.feedbacks.pool)
    feedbacks = waiting.feedbacks
    feedbacks.key[node] = key
    feedbacks.offset[node] = offset
    feedbacks.ts_ms[node] = ts_ms
    feedbacks.positive[node] = positive
    feedbacks.window_ms[node] = window_ms
    feedbacks.text[node] = 0
    feedbacks.length[node] = 0
    feedbacks.next[node] = waiting.feedback[slot]
    waiting.feedback[slot] = node + 1
    waiting.feedback_count[slot] += 1
    hold(waiting, slot, 1, 0)
    return node


@compiled
def is_in_time(waiting: Waiting, slot: int, node: int, grace_ms: int) -> bool:
    """Return whether a feedback came within its own action's window after its impression, or `grace_ms` behind it."""
    feedbacks = waiting.feedbacks
    return bool(feedbacks.ts_ms[node] <= waiting.ts_ms[slot] + feedbacks.window_ms[node] + grace_ms)


@compiled
def has_positive(waiting: Waiting, slot: int, grace_ms: int) -> bool:
    """Return whether any positive feedback of an impression came in time, or at most `grace_ms` too late."""
    node = int64(waiting.feedback[slot])
    while node != 0:
        if waiting.feedbacks.positive[node - 1] == 1 and is_in_time(waiting, slot, node - 1, grace_ms):
            return True
        node = int64(waiting.feedbacks.next[node - 1])
    return False


@compiled
def write_record(waiting: Waiting, slot: int, text: npt.NDArray[np.uint8], start: int, end: int) -> None:
    """Keep the record `text[start:end]` of an impression that has none kept."""
    waiting.length[slot] = end - start
    waiting.text[slot] = write_text(waiting.texts, text, start, end)
    hold(waiting, slot, 0, blocks_of(end - start))


@compiled
def write_early(waiting: Waiting, slot: int, node: int, text: npt.NDArray[np.uint8], start: int, end: int) -> None:
    """Keep the record `text[start:end]` of an early feedback in place of what was kept; an empty one keeps nothing."""
    feedbacks = waiting.feedbacks
    hold(waiting, slot, 0, blocks_of(end - start) - blocks_of(int64(feedbacks.length[node])))
    release_text(waiting.texts, feedbacks.text[node])
    feedbacks.text[node] = write_text(waiting.texts, text, start, end)
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

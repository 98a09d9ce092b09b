"""Users and everything that is theirs alone: sequences, waiting impressions, private rows. Forgetting one forgets all.

A user with waiting impressions is pinned: neither expiry nor the limit takes the user away from under them.
"""

from thalweg.operators import behaviors, cross_pairs, facts, features, joiner
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.state import Parameters, State, wipe_slot, wipe_user, wipe_value
from thalweg.operators.joiner import Status
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.structures import index, ownership, table


@compiled
def find_user(state: State, parameters: Parameters, key: int) -> int:
    """Return a user's row, or -1 where there is none; a user whose time is over is forgotten."""
    row = index.find(state.users.lookup, key)
    if row >= 0 and table.is_expired(state.users, row, state.clock.stream_time_ms[0], parameters.user_expire_time_ms):
        forget_user(state, row)
        state.users.counts[table.Loss.EXPIRED] += 1
        return -1
    return row


@compiled
def ensure_user(state: State, parameters: Parameters, key: int) -> int:
    """Return a user's row, made where there is none; -1 only where crafted keys fill the index."""
    now_ms = state.clock.stream_time_ms[0]
    row = find_user(state, parameters, key)
    if row >= 0:
        return row
    if table.is_full(state.users):
        forget_user(state, table.oldest_row(state.users))
        state.users.counts[table.Loss.EVICTED] += 1
    return table.claim_row(state.users, key, 0, now_ms)


@compiled
def forget_user(state: State, row: int) -> None:
    """Free a user's row and all that is the user's alone; sums over many users stay."""
    while True:
        slot = ownership.first_of(state.waiting.users, row)
        if slot < 0:
            break
        if state.waiting.status[slot] == Status.EARLY:
            orphan(state, slot)
        else:
            forget_slot(state, slot)
    while True:
        feature = ownership.first_of(state.user_rows, row)
        if feature < 0:
            break
        features.free_feature(state.features, state.user_rows, feature)
        wipe_value(state, feature)
    facts.forget_user(state.facts, row)
    cross_pairs.forget_pairs(state.cross, row)
    behaviors.forget_histories(state.behaviors, row)
    table.release_row(state.users, row)
    wipe_user(state, row)


@compiled
def forget_slot(state: State, slot: int) -> None:
    """Free an impression's slot and leave nothing of the impression."""
    joiner.drop_slot(state.waiting, slot)
    wipe_slot(state, slot)


@compiled
def own_slot(state: State, row: int, slot: int) -> None:
    """Give a user a waiting impression, which pins the user."""
    ownership.attach(state.waiting.users, row, slot)
    table.pin_row(state.users, row)


@compiled
def owner_of(state: State, slot: int) -> int:
    """Return the row of the user whose impression a slot is, or -1."""
    return int64(state.waiting.users.owner[slot]) - 1


@compiled
def release_slot(state: State, slot: int) -> None:
    """Forget an impression; a user whose last one it was is no longer pinned."""
    owner = owner_of(state, slot)
    forget_slot(state, slot)
    if owner >= 0 and ownership.first_of(state.waiting.users, owner) < 0:
        table.update_row(state.users, owner, state.clock.stream_time_ms[0])


@compiled
def orphan(state: State, slot: int) -> None:
    """Give up on an impression that never came: its early feedback is orphaned."""
    count = int64(state.waiting.feedback_count[slot])
    state.fates[Fate.EARLY] -= count
    state.fates[Fate.ORPHANED] += count
    release_slot(state, slot)


@compiled
def sweep_users(state: State, parameters: Parameters) -> None:
    """Forget at most one user whose time is over."""
    row = table.expired_row(state.users, state.clock.stream_time_ms[0], parameters.user_expire_time_ms)
    if row >= 0:
        forget_user(state, row)
        state.users.counts[table.Loss.EXPIRED] += 1


@compiled
def sweep_values(state: State, parameters: Parameters) -> None:
    """Free at most two rows of values whose time is over: faster than one event can make new ones outlive theirs.

    The rows of a page behind its first one free theirs with the next event.
    """
    due = 2 + 2 * state.page.further[0]
    state.page.further[0] = 0
    for _ in range(due):
        row = features.sweep_feature(
            state.features, state.user_rows, parameters.expire_time_ms, state.clock.stream_time_ms[0]
        )
        if row < 0:
            return
        wipe_value(state, row)

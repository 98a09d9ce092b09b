"""Users and everything that is theirs alone: sequences, waiting impressions, private rows. Forgetting one forgets all.

A user with waiting impressions is pinned: neither expiry nor the limit takes the user away from under them.
"""

from thalweg.operators.behaviors import forget_sequences
from thalweg.operators.features import free_feature, sweep_feature
from thalweg.operators.fold.state import FATE_EARLY, FATE_ORPHANED, Parameters, State
from thalweg.operators.joiner import EARLY, drop_slot
from thalweg.operators.machine.compiled import clear, compiled, int64
from thalweg.operators.structures.index import find
from thalweg.operators.structures.ownership import attach, first_of
from thalweg.operators.structures.table import (
    EVICTED,
    EXPIRED,
    claim_row,
    expired_row,
    is_expired,
    is_full,
    oldest_row,
    pin_row,
    release_row,
    update_row,
)


@compiled
def ensure_user(state: State, parameters: Parameters, key: int) -> int:
    """Return a user's row, made where there is none; -1 only where crafted keys fill the index."""
    now_ms = state.clock.stream_time_ms[0]
    row = find(state.users.lookup, key)
    if row >= 0 and is_expired(state.users, row, now_ms, parameters.user_expire_time_ms):
        forget_user(state, row)
        state.users.counts[EXPIRED] += 1
        row = -1
    if row >= 0:
        return row
    if is_full(state.users):
        forget_user(state, oldest_row(state.users))
        state.users.counts[EVICTED] += 1
    return claim_row(state.users, key, 0, now_ms)


@compiled
def forget_user(state: State, row: int) -> None:
    """Free a user's row and all that is the user's alone; sums over many users stay."""
    while True:
        slot = first_of(state.waiting.users, row)
        if slot < 0:
            break
        if state.waiting.status[slot] == EARLY:
            orphan(state, slot)
        else:
            forget_slot(state, slot)
    while True:
        feature = first_of(state.private, row)
        if feature < 0:
            break
        free_feature(state.features, state.private, feature)
        forget_values(state, feature)
    forget_sequences(state.behaviors, row)
    release_row(state.users, row)


@compiled
def forget_values(state: State, row: int) -> None:
    """Wipe what was learned of a value whose row is free now."""
    state.learner.features[row] = 0.0
    clear(state.learner.rates.sums[row])
    state.learner.rates.at_ms[row] = 0


@compiled
def forget_slot(state: State, slot: int) -> None:
    """Free an impression's slot and wipe what it was scored with."""
    drop_slot(state.waiting, slot)
    state.seen.counts[slot] = 0
    clear(state.seen.field[slot])
    clear(state.seen.row[slot])
    clear(state.seen.generation[slot])
    clear(state.seen.inputs[slot])
    clear(state.recalled.near[slot])
    clear(state.recalled.keyed[slot])
    clear(state.recalled.before[slot])
    clear(state.recalled.estimate[slot])


@compiled
def own_slot(state: State, row: int, slot: int) -> None:
    """Give a user a waiting impression, which pins the user."""
    attach(state.waiting.users, row, slot)
    pin_row(state.users, row)


@compiled
def release_slot(state: State, slot: int) -> None:
    """Forget an impression; a user whose last one it was is no longer pinned."""
    owner = int64(state.waiting.users.owner[slot]) - 1
    forget_slot(state, slot)
    if owner >= 0 and first_of(state.waiting.users, owner) < 0:
        update_row(state.users, owner, state.clock.stream_time_ms[0])


@compiled
def orphan(state: State, slot: int) -> None:
    """Give up on an impression that never came: its early feedback is orphaned."""
    count = int64(state.waiting.feedback_count[slot])
    state.fates[FATE_EARLY] -= count
    state.fates[FATE_ORPHANED] += count
    release_slot(state, slot)


@compiled
def sweep_users(state: State, parameters: Parameters) -> None:
    """Forget at most one user whose time is over."""
    row = expired_row(state.users, state.clock.stream_time_ms[0], parameters.user_expire_time_ms)
    if row >= 0:
        forget_user(state, row)
        state.users.counts[EXPIRED] += 1


@compiled
def sweep_values(state: State, parameters: Parameters) -> None:
    """Free at most two rows of values whose time is over: faster than one event can make new ones outlive theirs."""
    for _ in range(2):
        row = sweep_feature(state.features, state.private, parameters.expire_time_ms, state.clock.stream_time_ms[0])
        if row < 0:
            return
        forget_values(state, row)

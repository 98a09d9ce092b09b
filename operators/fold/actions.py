"""A feedback that names no impression arrives: one that waits is found for it, or it is a behaviour by itself."""

from thalweg.operators import cross, cross_pairs, cross_statistics, features, joiner, seen
from thalweg.operators.behaviors import Behavior
from thalweg.operators.features import Value
from thalweg.operators.fold import fates, feedback, learning, reading, room, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, dead_letter, set_fate
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.machine import hashing
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.structures import index

BEHAVIOUR_SALT = 0xBE


@compiled
def on_action(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, event: int
) -> None:
    """Take a feedback without an impression: the user's latest waiting one of the item, within its window, gets it."""
    waiting = state.waiting
    state.tallies[Tallied.FEEDBACK] += 1
    own = hashing.cross(columns.key[event], columns.user[event], BEHAVIOUR_SALT)
    user = index.find(state.users.lookup, columns.user[event])
    slot = int64(joiner.SEEN_BEFORE)
    if joiner.find_slot(waiting, own) < 0:
        slot = int64(joiner.NOT_FOUND)
        if user >= 0:
            slot = joiner.find_waiting(
                waiting,
                user,
                columns.item[event],
                columns.key[event],
                columns.ts_ms[event],
                columns.window_ms[event],
                parameters.joiner.search_limit,
            )
    if slot == joiner.SEEN_BEFORE:
        set_fate(state, emitted, event, Fate.DUPLICATE)
    elif slot >= 0:
        feedback.take_feedback(state, parameters, scratch, columns, emitted, event, slot)
    else:
        behave(state, parameters, scratch, columns, emitted, event, own)


@compiled
def behave(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    own: int,
) -> None:
    """Extend the user's sequence, and count the item as if it had been shown once more; it may be new.

    A closed slot remembers the behaviour by its `own` key until the late window is over. So one sent twice is known,
    and a user has no more of them than the share allows.
    """
    moment = reading.moment_on(state, parameters, state.clock.arrivals[0])  # a page by itself
    if not room.make_own_room(state, parameters, columns.user[event], int64(1), int64(0)):
        dead_letter(state, emitted, event, fates.TOO_MANY_FEEDBACKS)
        return
    room.make_room(state, int64(0))
    user = users.ensure_user(state, parameters, columns.user[event])
    slot = int64(-1)
    if user >= 0:
        slot = joiner.open_closed(state.waiting, own, columns.user[event], moment.now_ms)
    if slot < 0:
        dead_letter(state, emitted, event, fates.NO_ROOM)
        return
    users.own_slot(state, user, slot)
    cross_pairs.see_no_pairs(state.cross, slot)
    value = Value(columns.item[event], int64(features.ITEM), int64(-1))
    item = reading.ensure_row(state, parameters, value, moment)
    if item >= 0 and cross.is_on(state.cross):
        cross_statistics.count_one(state.cross, item, moment)
    behavior = Behavior(user, parameters.acted, item, columns.ts_ms[event])
    learning.extend_with_item(state, parameters, scratch.sdim, behavior, moment.now_ms)
    seen.remember(state.seen_items, user, columns.item[event], parameters.seen_length)
    set_fate(state, emitted, event, Fate.BEHAVIOUR)

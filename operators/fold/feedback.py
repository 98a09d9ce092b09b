"""A feedback arrives: it joins its impression and extends the user's sequence."""

from thalweg.operators import delay, heads, joiner, seen
from thalweg.operators.behaviors import Behavior
from thalweg.operators.fold import fates, learning, objectives, releases, room, teaching, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, dead_letter, set_fate
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Status
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.structures import table


@compiled
def on_feedback(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
) -> None:
    """Join a feedback to its impression, whether that waits, was closed, or is still to come."""
    waiting = state.waiting
    state.tallies[Tallied.FEEDBACK] += 1
    slot = joiner.find_slot(waiting, columns.impression[event])
    if slot >= 0 and waiting.user_key[slot] != columns.user[event]:
        dead_letter(state, emitted, event, fates.USER_MISMATCH)
        return
    if slot >= 0 and joiner.knows_feedback(waiting, slot, columns.key[event]):
        set_fate(state, emitted, event, Fate.DUPLICATE)
        return
    if slot < 0 or waiting.status[slot] == Status.EARLY:
        length = columns.text_end[event] - columns.text_start[event]
        if not room.make_own_room(state, parameters, columns.user[event], int64(slot < 0), length):
            dead_letter(state, emitted, event, fates.TOO_MANY_FEEDBACKS)
            return
        room.make_room(state, length)
    user = users.ensure_user(state, parameters, columns.user[event])
    slot = joiner.find_slot(waiting, columns.impression[event])
    if slot < 0 and user >= 0:
        slot = joiner.open_slot(waiting, columns.impression[event], columns.user[event], Status.EARLY)
        if slot >= 0:
            users.own_slot(state, user, slot)
            joiner.wait_until(
                waiting,
                slot,
                state.clock.stream_time_ms[0] + parameters.joiner.closing_ms[-1],
                state.clock.arrivals[0],
            )
    if slot < 0:
        dead_letter(state, emitted, event, fates.NO_ROOM)
        return
    take_feedback(state, parameters, scratch, columns, emitted, event, slot)


@compiled
def take_feedback(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    slot: int,
) -> None:
    """Join a feedback that is new to its impression's slot, and extend the user's sequence."""
    if not joiner.can_remember(state.waiting, slot, parameters.joiner):
        dead_letter(state, emitted, event, fates.TOO_MANY_FEEDBACKS)
        return
    user = users.owner_of(state, slot)
    join(state, parameters, scratch, columns, emitted, event, slot)
    now_ms = state.clock.stream_time_ms[0]
    item = table.find_row(state.features, columns.item[event], now_ms, parameters.expire_time_ms)
    behavior = Behavior(user, parameters.acted, int64(item), columns.ts_ms[event])
    learning.extend_with_item(state, parameters, scratch.sdim, behavior, now_ms)
    seen.remember(state.seen_items, user, columns.item[event], parameters.seen_length)


@compiled
def join(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    slot: int,
) -> None:
    """Remember a feedback with its impression and set the label, as the impression's status asks."""
    waiting = state.waiting
    node = joiner.add_feedback(
        waiting,
        slot,
        columns.key[event],
        columns.offset[event],
        columns.ts_ms[event],
        columns.positive[event],
        columns.window_ms[event],
    )
    joiner.write_value(waiting, node, columns.value[event])
    if waiting.status[slot] == Status.EARLY:
        joiner.write_early(waiting, slot, node, columns.text, columns.text_start[event], columns.text_end[event])
        set_fate(state, emitted, event, Fate.EARLY)
        return
    is_waiting = waiting.status[slot] == Status.WAITING
    is_joined = is_waiting and joiner.is_in_time(waiting, slot, node, 0)
    if columns.positive[event] != 0:
        is_joined = take_positives(state, parameters, scratch, emitted, slot, node)
    set_fate(state, emitted, event, Fate.JOINED if is_joined else Fate.LATE)


@compiled
def take_positives(
    state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, slot: int, node: int
) -> bool:
    """Set the label of each objective that a feedback is a positive of; return whether it was in time for any."""
    waiting, p = state.waiting, parameters.joiner
    is_joined = False
    for objective in range(p.window_ms.shape[0]):
        is_first = joiner.label_of(waiting, slot, objective) == 0
        if joiner.is_open(waiting, slot, objective, p):
            if joiner.is_positive(waiting, slot, node, objective, 0, p):
                is_joined = True
                if is_first:
                    joiner.set_label(waiting, slot, objective)
                    take_positive(state, parameters, emitted, slot, objective)
        elif is_first and joiner.is_positive(waiting, slot, node, objective, p.late_window_ms, p):
            learning.drop_gone(state, parameters, slot, int64(state.clock.stream_time_ms[0]))
            if not p.is_joint:
                releases.take_late_positive(state, parameters, scratch, emitted, slot)
            else:
                is_emitted = waiting.status[slot] == Status.CLOSED
                objectives.take_late_positive(state, parameters, scratch, emitted, slot, objective, is_emitted)
    return is_joined


@compiled
def take_positive(state: State, parameters: Parameters, emitted: Emitted, slot: int, objective: int) -> None:
    """Count how long an impression's first positive of an objective took by its user's own clock, and report it."""
    now_ms, share = state.clock.stream_time_ms[0], parameters.joiner.provisional_share
    delay_ms = joiner.positive_ms(state.waiting, slot, objective, parameters.joiner) - state.waiting.ts_ms[slot]
    window_ms = parameters.joiner.window_ms[objective]
    if objective == 0:
        delay.count_delay(state.delays, delay_ms, now_ms, window_ms, share)
        teaching.tell_delay(state, parameters, emitted, delay_ms)
    else:
        delay.count_delay(heads.delays_of(state.heads, objective - 1), delay_ms, now_ms, window_ms, share)

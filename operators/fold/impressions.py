"""An impression arrives: it is scored, emitted, and waits for its outcome."""

from thalweg.operators import clock, cross, cross_statistics, derived, error_memory, joiner
from thalweg.operators.facts import Filling, Size
from thalweg.operators.fold import fates, feedback, objectives, reading, room, scoring, teaching, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, copy_row, dead_letter, emit_early_letter, emit_facts, set_fate
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.heads import SCORE
from thalweg.operators.joiner import Score, Status
from thalweg.operators.machine.compiled import compiled, int64, uint64

DUPLICATE, NO_ROOM = -1, -2
"""In place of a slot: why an impression has none."""


@compiled
def on_impression(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
) -> int:
    """Read all that an impression is scored by, score it, and return its slot; below 0 where it is not to be scored."""
    slot = take_impression(state, parameters, scratch, columns, emitted, event)
    if slot == DUPLICATE:
        set_fate(state, emitted, event, Fate.DUPLICATE)
    elif slot == NO_ROOM:
        dead_letter(state, emitted, event, fates.NO_ROOM)
    return slot


@compiled
def take_impression(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
) -> int:
    """Read all that an impression is scored by, score it, and return its slot, `DUPLICATE` or `NO_ROOM`."""
    waiting = state.waiting
    slot = joiner.find_slot(waiting, columns.key[event])
    if (slot >= 0 and waiting.status[slot] != Status.EARLY) or is_shown_already(state, columns, event):
        return int64(DUPLICATE)
    is_new = slot < 0 or waiting.user_key[slot] != columns.user[event]
    moment = reading.moment_on(state, parameters, state.page.arrival[0])
    length = reading.gather_values(state, parameters, scratch, columns, event, moment)
    is_kept = room.make_own_room(state, parameters, columns.user[event], int64(is_new), length)
    length = length if is_kept else int64(0)
    slot = open_impression(state, parameters, columns, emitted, event, length)
    if slot < 0:
        return int64(NO_ROOM)
    keep_text(state, scratch.filling, columns, event, slot, length)
    reading.resolve_values(state, parameters, scratch, slot, reading.KEPT if is_kept else reading.FOUND, moment)
    teaching.keep_keys(state, scratch.given, slot)
    reading.gather_recent(state, scratch, users.owner_of(state, slot), moment)
    reading.read_features(state, parameters, scratch, slot, moment)
    scoring.score_slot(state, parameters, scratch, slot, False)
    return int64(slot)


@compiled
def is_shown_already(state: State, columns: Columns, event: int) -> bool:
    """Return whether the request that an impression answers took its item as shown."""
    if columns.impression[event] == uint64(0):
        return False
    slot = joiner.find_slot(state.waiting, columns.impression[event])
    return bool(slot >= 0 and state.waiting.status[slot] != Status.EARLY)


@compiled
def complete_impression(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    slot: int,
) -> None:
    """Correct an impression's score and emit it, and keep it."""
    waiting = state.waiting
    scoring.correct_slot(state, parameters, scratch, slot, error_memory.scaled_prior(state.memory, parameters.memory))
    copy_row(waiting.scores[slot], emitted.scores[event])
    for head in range(emitted.heads.shape[1]):
        emitted.heads[event, head] = state.heads.scores[slot, head, SCORE]
    if emitted.inputs.shape[0] > 0:
        copy_row(state.features_seen.inputs[slot], emitted.inputs[event])
        emit_facts(emitted, event, scratch.filling)
    set_fate(state, emitted, event, Fate.SCORED)
    keep_impression(state, parameters, columns, emitted, event, slot)


@compiled
def keep_impression(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, slot: int
) -> None:
    """Count an impression whose score is corrected; it waits for its outcome, unless its user has no room."""
    waiting = state.waiting
    state.tallies[Tallied.IMPRESSIONS] += 1
    if waiting.length[slot] == 0:  # nothing of it is kept
        state.tallies[Tallied.OVER_USER_SHARE] += 1
        users.release_slot(state, slot)
        return
    user = users.owner_of(state, slot)
    moment = reading.moment_on(state, parameters, state.page.arrival[0])
    derived.count_exposure(state.visits, user, columns.item[event], moment)
    if cross.is_on(state.cross):
        cross_statistics.count_shown(state.cross, slot, state.features_seen.row[slot], moment)
    for objective in range(parameters.joiner.window_ms.shape[0]):
        if joiner.label_of(waiting, slot, objective) == 1:
            feedback.take_positive(state, parameters, emitted, slot, objective)


@compiled
def open_impression(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, length: int
) -> int:
    """Return an impression's slot, early feedback joined; -1 where there is no room for it and so much text."""
    waiting = state.waiting
    key = columns.key[event]
    room.make_room(state, length)
    user = users.ensure_user(state, parameters, columns.user[event])
    if user < 0:
        return -1
    slot = joiner.find_slot(waiting, key)
    if slot < 0:
        slot = joiner.open_slot(waiting, key, columns.user[event], Status.WAITING)
        if slot < 0:
            return -1
        users.own_slot(state, user, slot)
    else:
        slot = join_early(state, parameters, columns, emitted, event, slot, user)
    waiting.status[slot] = Status.WAITING
    waiting.offset[slot] = columns.offset[event]
    waiting.item_key[slot] = columns.item[event]
    waiting.request_key[slot] = columns.request[event]
    waiting.ts_ms[slot] = columns.ts_ms[event]
    waiting.scores[slot, Score.BASE] = columns.base_score[event]
    objectives.begin_slot(state, slot)
    # a user whose clock is behind, or whose records come late, has a whole window from now on
    begins_ms = max(columns.ts_ms[event], state.clock.apparent_time_ms[0])
    arrival = state.page.arrival[0]
    joiner.wait_until(waiting, slot, begins_ms + parameters.joiner.closing_ms[0], arrival)
    elapsed_ms = state.page.elapsed_ms[0]
    if elapsed_ms > 0:
        joiner.await_label(waiting, user, slot, begins_ms + elapsed_ms, arrival)
    if clock.is_doubtful(state.clock, columns.ts_ms[event]):
        joiner.doubt(waiting, slot, state.clock.turns[0])
    return slot


@compiled
def keep_text(state: State, filling: Filling, columns: Columns, event: int, slot: int, length: int) -> None:
    """Keep an impression's text, facts that fill in included; of one that is not kept it is empty."""
    if filling.sizes[Size.WHOLE] > 0:
        joiner.write_record(state.waiting, slot, filling.text, 0, length)
    else:
        start = columns.text_start[event]
        joiner.write_record(state.waiting, slot, columns.text, start, start + length)


@compiled
def join_early(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, slot: int, user: int
) -> int:
    """Join the feedback that came before its impression, or dead-letter it where its user is not the impression's."""
    waiting = state.waiting
    feedbacks = waiting.feedbacks
    is_same_user = waiting.user_key[slot] == columns.user[event]
    waiting.ts_ms[slot] = columns.ts_ms[event]
    node = int64(waiting.feedback[slot])
    while node != 0:
        state.fates[Fate.EARLY] -= 1
        if not is_same_user:
            state.fates[Fate.DEAD_LETTERED] += 1
            emit_early_letter(state, emitted, node - 1)
        elif joiner.is_in_time(waiting, slot, node - 1, 0):
            state.fates[Fate.JOINED] += 1
            for objective in range(parameters.joiner.window_ms.shape[0]):
                if joiner.is_positive(waiting, slot, node - 1, objective, 0, parameters.joiner):
                    joiner.set_label(waiting, slot, objective)
        else:
            state.fates[Fate.LATE] += 1
        joiner.write_early(waiting, slot, node - 1, columns.text, 0, 0)
        node = int64(feedbacks.next[node - 1])
    if is_same_user:
        return slot
    key = waiting.key[slot]
    joiner.drop_feedback(waiting, slot)
    users.release_slot(state, slot)
    slot = joiner.open_slot(waiting, key, columns.user[event], Status.WAITING)
    users.own_slot(state, user, slot)
    return slot

"""The fold: (state, events) -> (state, outputs). One partition is one deterministic fold over its log.

Every event first moves stream time, then lets go on what has waited long enough, then is processed itself:

    impression   resolve ids -> read features -> score -> correct -> emit -> keep it waiting for its outcome
    feedback     join -> set the label -> extend the user's sequence
    erase        forget the user
    provisional  learn -> remember the error -> update the rows, once most positives would have come
    released     the same, or set right what was learned -> emit the example

Nothing here reads a clock, a file or chance, and nothing depends on how the log was cut into batches.
"""

from thalweg.operators.admission import forget_sightings
from thalweg.operators.behaviors import look_ahead_at_user
from thalweg.operators.clock import DEAD_LETTERS, EXAMPLES, accept_time
from thalweg.operators.delay import ELAPSED, count_delay, provisional_label
from thalweg.operators.edges.columnizer import ERASE, FEEDBACK, IMPRESSION, Columns
from thalweg.operators.edges.encoder import (
    DEAD_LETTER_COUNT,
    EXAMPLE_COUNT,
    TEXT_USED,
    UNSCORED,
    Emitted,
    copy_row,
    has_room,
)
from thalweg.operators.fold.scoring import (
    correct_slot,
    count_exposure,
    count_outcome,
    extend_with_item,
    is_sampled,
    learn_label,
    look_ahead_at_rows,
    look_ahead_at_slot,
    look_ahead_at_value,
    read_features,
    resolve_values,
    score_replaced,
    score_slot,
    take_label,
)
from thalweg.operators.fold.state import (
    CLOSED_UNLEARNED,
    FATE_DEAD_LETTERED,
    FATE_DUPLICATE,
    FATE_EARLY,
    FATE_ERASED,
    FATE_JOINED,
    FATE_LATE,
    FATE_SCORED,
    FEEDBACKS,
    IMPRESSIONS,
    LABELLED,
    LATE_POSITIVES,
    OVER_USER_SHARE,
    POSITIVES,
    Parameters,
    State,
)
from thalweg.operators.fold.users import (
    ensure_user,
    forget_user,
    orphan,
    own_slot,
    release_slot,
    sweep_users,
    sweep_values,
)
from thalweg.operators.joiner import (
    BASE,
    CLOSED,
    EARLY,
    MODEL,
    UNLEARNED,
    WAITING,
    add_feedback,
    can_remember,
    close_slot,
    drop_feedback,
    find_slot,
    fits,
    fits_share,
    has_positive,
    is_in_time,
    knows_feedback,
    oldest_closed,
    open_slot,
    wait_until,
    write_early,
    write_record,
)
from thalweg.operators.machine.compiled import clear, compiled, int64
from thalweg.operators.machine.reference import by_reference
from thalweg.operators.structures.deadlines import last_deadline, next_due, push_deadline, remove_deadline
from thalweg.operators.structures.index import find, look_ahead
from thalweg.operators.structures.ownership import last_of
from thalweg.operators.structures.table import find_row
from thalweg.operators.structures.texts import read_text
from thalweg.schemas.reasons import Reason

TIME_JUMP = Reason.TIME_JUMP.code
USER_MISMATCH = Reason.USER_MISMATCH.code
REQUEST_UNSUPPORTED = Reason.REQUEST_UNSUPPORTED.code
TOO_MANY_FEEDBACKS = Reason.TOO_MANY_FEEDBACKS.code
NO_ROOM = Reason.NO_ROOM.code


@compiled
def fold(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, first: int) -> int:
    """Fold the events from `first` on and return the first one not yet folded.

    That is the number of events, or fewer where `emitted` has no more room: empty it and call again. An event that
    stopped half way through its releases goes on where it stopped. Where another model than the built-in one scores,
    it is also an impression that waits for its score: call `complete` and go on behind it.
    """
    return fold_events(
        by_reference(state), by_reference(parameters), by_reference(columns), by_reference(emitted), first
    )


@compiled
def fold_events(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, first: int) -> int:
    """Fold the events from `first` on, state and all by reference."""
    for event in range(first, columns.kind.shape[0]):
        look_ahead_of(state, columns, event)
        if columns.reason[event] != 0:
            dead_letter(state, emitted, event, columns.reason[event])
            continue
        begin_event(state, columns, event)
        if not accept_time(state.clock, parameters.time_jump_ms, columns.ts_ms[event], columns.user[event]):
            dead_letter(state, emitted, event, TIME_JUMP)
            continue
        if not release_due(state, parameters, emitted):
            return event
        sweep_users(state, parameters)
        sweep_values(state, parameters)
        if columns.kind[event] == IMPRESSION:
            slot = on_impression(state, parameters, columns, emitted, event)
            if slot >= 0 and parameters.learner.is_replaced:
                emitted.counts[UNSCORED] = slot + 1
                return event
            if slot >= 0:
                complete_impression(state, parameters, columns, emitted, event, slot)
        elif columns.kind[event] == FEEDBACK:
            on_feedback(state, parameters, columns, emitted, event)
        elif columns.kind[event] == ERASE:
            on_erase(state, columns, emitted, event)
        else:
            dead_letter(state, emitted, event, REQUEST_UNSUPPORTED)
    return columns.kind.shape[0]  # type: ignore[no-any-return]


@compiled
def complete(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, probability: float
) -> None:
    """Give the impression that `fold` stopped at the probability of another model than the built-in one."""
    complete_unscored(
        by_reference(state), by_reference(parameters), by_reference(columns), by_reference(emitted), event, probability
    )


@compiled
def complete_unscored(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, probability: float
) -> None:
    """Give an impression its probability, state and all by reference."""
    slot = emitted.counts[UNSCORED] - 1
    emitted.counts[UNSCORED] = 0
    score_replaced(state, parameters, slot, probability)
    complete_impression(state, parameters, columns, emitted, event, slot)


@compiled
def close_all(state: State, parameters: Parameters, emitted: Emitted) -> bool:
    """Close every window, as an event far in the future would; False: empty `emitted` and call again."""
    return close_windows(by_reference(state), by_reference(parameters), by_reference(emitted))


@compiled
def close_windows(state: State, parameters: Parameters, emitted: Emitted) -> bool:
    """Close every window, state and all by reference."""
    end_ms = last_deadline(state.waiting.deadlines) + 1
    state.clock.stream_time_ms[0] = max(state.clock.stream_time_ms[0], end_ms)
    return release_due(state, parameters, emitted)


@compiled
def begin_event(state: State, columns: Columns, event: int) -> None:
    """Start counting what an event causes, unless it is gone on with."""
    if state.clock.offset[0] != columns.offset[event]:
        state.clock.offset[0] = columns.offset[event]
        clear(state.clock.ordinals)
        state.clock.arrivals[0] += 1


@compiled
def look_ahead_of(state: State, columns: Columns, event: int) -> None:
    """Ask for what the next events will read: where ids will be looked for, two ahead; their rows, one ahead."""
    following = event + 2
    if following < columns.kind.shape[0]:
        look_ahead(state.users.lookup, columns.user[following])
        is_feedback = columns.kind[following] == FEEDBACK
        look_ahead(state.waiting.lookup, columns.impression[following] if is_feedback else columns.key[following])
        for value in range(columns.value_start[following], columns.value_start[following + 1]):
            look_ahead(state.features.lookup, columns.value_key[value])
    if event + 1 < columns.kind.shape[0]:
        user = find(state.users.lookup, columns.user[event + 1])
        if user >= 0:
            look_ahead_at_user(state.behaviors, user)
        for value in range(columns.value_start[event + 1], columns.value_start[event + 2]):
            look_ahead_at_value(state, find(state.features.lookup, columns.value_key[value]))


@compiled
def settle(state: State, emitted: Emitted, event: int, fate: int) -> None:
    """Give an event its fate."""
    emitted.fate[event] = fate
    state.fates[fate] += 1


@compiled
def dead_letter(state: State, emitted: Emitted, event: int, reason: int) -> None:
    """Give an event up, for a reason that goes with it to the dead letters."""
    emitted.reason[event] = reason
    settle(state, emitted, event, FATE_DEAD_LETTERED)


@compiled
def release_due(state: State, parameters: Parameters, emitted: Emitted) -> bool:
    """Release all whose deadline lies before stream time, by (deadline, arrival); False where `emitted` is full.

    What is to be learned of them provisionally is learned in between, in the same order.
    """
    waiting = state.waiting
    now_ms = state.clock.stream_time_ms[0]
    while True:
        learn_due(state, parameters)
        if not has_room(emitted):
            return False
        slot = next_due(waiting.deadlines)
        if slot < 0 or waiting.deadlines.deadline_ms[slot] >= now_ms:
            break
        if waiting.status[slot] == EARLY:
            orphan(state, slot)
        else:
            release(state, parameters, emitted, slot)
            close_slot(waiting, slot, now_ms)
    look_ahead_at_slot(state, slot)
    slot = oldest_closed(waiting)
    while slot >= 0 and now_ms - waiting.closed_ms[slot] >= parameters.joiner.late_window_ms:
        release_slot(state, slot)
        slot = oldest_closed(waiting)
    return True


@compiled
def learn_due(state: State, parameters: Parameters) -> None:
    """Learn a provisional label of each impression that is due for one before the next window closes."""
    waiting = state.waiting
    now_ms = state.clock.stream_time_ms[0]
    closing = next_due(waiting.deadlines)
    while True:
        slot = next_due(waiting.provisional)
        if slot < 0 or waiting.provisional.deadline_ms[slot] >= min(now_ms, waiting.deadlines.deadline_ms[closing] + 1):
            look_ahead_at_slot(state, slot)
            return
        remove_deadline(waiting.provisional, slot)
        look_ahead_at_rows(state, slot)
        label = float(waiting.label[slot])
        if label == 0.0:
            elapsed_ms = now_ms - waiting.ts_ms[slot]
            label = provisional_label(state.delays, waiting.scores[slot, MODEL], elapsed_ms)
        take_label(state, parameters, slot, label)


@compiled
def release(state: State, parameters: Parameters, emitted: Emitted, slot: int) -> None:
    """Take an impression's outcome: learn it, unless it is what was learned provisionally -> emit the example."""
    look_ahead_at_rows(state, slot)
    positive = state.waiting.label[slot] == 1
    take_label(state, parameters, slot, float(state.waiting.label[slot]))
    if not positive:
        user = int64(state.waiting.users.owner[slot]) - 1
        item = state.seen.row[slot, 1]
        extend_with_item(state, parameters, user, parameters.skipped, item, state.waiting.ts_ms[slot])
    state.tallies[LABELLED] += 1
    state.tallies[POSITIVES] += positive
    emit_example(state, emitted, slot, 0, positive or is_sampled(state, parameters, slot))
    if not positive and has_positive(state.waiting, slot, parameters.joiner.late_window_ms):
        take_late_positive(state, parameters, emitted, slot)


@compiled
def on_impression(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int) -> int:
    """Read all that an impression is scored by, score it, and return its slot; -1 where it is not to be scored."""
    waiting = state.waiting
    slot = find_slot(waiting, columns.key[event])
    if slot >= 0 and waiting.status[slot] != EARLY:
        settle(state, emitted, event, FATE_DUPLICATE)
        return -1
    is_new = slot < 0 or waiting.user_key[slot] != columns.user[event]
    length = columns.text_end[event] - columns.text_start[event]
    is_kept = make_own_room(state, parameters, columns.user[event], int64(is_new), length)
    user, slot = open_impression(state, parameters, columns, emitted, event, is_kept)
    if slot < 0:
        dead_letter(state, emitted, event, NO_ROOM)
        return -1
    resolve_values(state, parameters, columns, event, slot, user, is_kept)
    read_features(state, parameters, slot, user, is_kept)
    score_slot(state, parameters, slot)
    return slot


@compiled
def complete_impression(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, slot: int
) -> None:
    """Correct an impression's score and emit it; it counts, and waits for its outcome, unless its user has no room."""
    waiting = state.waiting
    correct_slot(state, parameters, columns, event, slot)
    copy_row(waiting.scores[slot], emitted.scores[event])
    if emitted.inputs.shape[0] > 0:
        copy_row(state.seen.inputs[slot], emitted.inputs[event])
    state.tallies[IMPRESSIONS] += 1
    settle(state, emitted, event, FATE_SCORED)
    if waiting.length[slot] == 0:  # nothing of it is kept
        state.tallies[OVER_USER_SHARE] += 1
        release_slot(state, slot)
        return
    count_exposure(state, slot, int64(waiting.users.owner[slot]) - 1)
    if waiting.label[slot] == 1:
        take_positive(state, parameters, slot)


@compiled
def open_impression(
    state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, is_kept: bool
) -> tuple[int, int]:
    """Return the user's row and the impression's slot, early feedback joined; slot -1 where there is no room.

    Of an impression that is not kept the text is not either.
    """
    waiting = state.waiting
    key = columns.key[event]
    start = columns.text_start[event]
    end = columns.text_end[event] if is_kept else start
    make_room(state, end - start)
    user = ensure_user(state, parameters, columns.user[event])
    if user < 0:
        return -1, -1
    slot = find_slot(waiting, key)
    if slot < 0:
        slot = open_slot(waiting, key, columns.user[event], WAITING)
        if slot < 0:
            return user, -1
        own_slot(state, user, slot)
    else:
        slot = join_early(state, parameters, columns, emitted, event, slot, user)
    waiting.status[slot] = WAITING
    waiting.offset[slot] = columns.offset[event]
    waiting.ts_ms[slot] = columns.ts_ms[event]
    waiting.scores[slot, BASE] = columns.base_score[event]
    write_record(waiting, slot, columns.text, start, end)
    deadline_ms = columns.ts_ms[event] + parameters.joiner.attribution_window_ms
    wait_until(waiting, slot, deadline_ms, state.clock.arrivals[0])
    elapsed_ms = state.delays.times_ms[ELAPSED]
    if elapsed_ms > 0:
        push_deadline(waiting.provisional, slot, columns.ts_ms[event] + elapsed_ms, state.clock.arrivals[0])
    return user, slot


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
        state.fates[FATE_EARLY] -= 1
        if not is_same_user:
            state.fates[FATE_DEAD_LETTERED] += 1
            emit_early_letter(state, emitted, node - 1)
        elif is_in_time(waiting, slot, node - 1, 0):
            state.fates[FATE_JOINED] += 1
            if feedbacks.positive[node - 1] == 1:
                waiting.label[slot] = 1
        else:
            state.fates[FATE_LATE] += 1
        write_early(waiting, slot, node - 1, columns.text, 0, 0)
        node = int64(feedbacks.next[node - 1])
    if is_same_user:
        return slot
    key = waiting.key[slot]
    drop_feedback(waiting, slot)
    release_slot(state, slot)
    slot = open_slot(waiting, key, columns.user[event], WAITING)
    own_slot(state, user, slot)
    return slot


@compiled
def on_feedback(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int) -> None:
    """Join a feedback to its impression, whether that waits, was closed, or is still to come."""
    waiting = state.waiting
    state.tallies[FEEDBACKS] += 1
    slot = find_slot(waiting, columns.impression[event])
    if slot >= 0 and waiting.user_key[slot] != columns.user[event]:
        dead_letter(state, emitted, event, USER_MISMATCH)
        return
    if slot >= 0 and knows_feedback(waiting, slot, columns.key[event]):
        settle(state, emitted, event, FATE_DUPLICATE)
        return
    if slot < 0 or waiting.status[slot] == EARLY:
        length = columns.text_end[event] - columns.text_start[event]
        if not make_own_room(state, parameters, columns.user[event], int64(slot < 0), length):
            dead_letter(state, emitted, event, TOO_MANY_FEEDBACKS)
            return
        make_room(state, length)
    user = ensure_user(state, parameters, columns.user[event])
    slot = find_slot(waiting, columns.impression[event])
    if slot < 0 and user >= 0:
        slot = open_slot(waiting, columns.impression[event], columns.user[event], EARLY)
        if slot >= 0:
            own_slot(state, user, slot)
            wait_until(
                waiting,
                slot,
                state.clock.stream_time_ms[0] + parameters.joiner.attribution_window_ms,
                state.clock.arrivals[0],
            )
    if slot < 0:
        dead_letter(state, emitted, event, NO_ROOM)
        return
    if not can_remember(waiting, slot, parameters.joiner):
        dead_letter(state, emitted, event, TOO_MANY_FEEDBACKS)
        return
    join(state, parameters, columns, emitted, event, slot)
    now_ms = state.clock.stream_time_ms[0]
    item = find_row(state.features, columns.item[event], now_ms, parameters.expire_time_ms)
    extend_with_item(state, parameters, user, parameters.acted, item, columns.ts_ms[event])


@compiled
def join(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int, slot: int) -> None:
    """Remember a feedback with its impression and set the label, as the impression's status asks."""
    waiting = state.waiting
    positive = columns.positive[event] == 1
    node = add_feedback(
        waiting,
        slot,
        columns.key[event],
        columns.offset[event],
        columns.ts_ms[event],
        columns.positive[event],
        columns.window_ms[event],
    )
    if waiting.status[slot] == EARLY:
        write_early(waiting, slot, node, columns.text, columns.text_start[event], columns.text_end[event])
        settle(state, emitted, event, FATE_EARLY)
        return
    is_first = positive and waiting.label[slot] == 0
    if waiting.status[slot] == WAITING and is_in_time(waiting, slot, node, 0):
        if is_first:
            waiting.label[slot] = 1
            take_positive(state, parameters, slot)
        settle(state, emitted, event, FATE_JOINED)
        return
    settle(state, emitted, event, FATE_LATE)
    is_closed = waiting.status[slot] == CLOSED
    if is_first and is_closed and is_in_time(waiting, slot, node, parameters.joiner.late_window_ms):
        take_late_positive(state, parameters, emitted, slot)


@compiled
def take_late_positive(state: State, parameters: Parameters, emitted: Emitted, slot: int) -> None:
    """Learn a positive of an impression that was learned as a negative: one more step of its own, no undo."""
    state.waiting.label[slot] = 1
    count_outcome(state, parameters, slot, 0.0, 1.0)
    state.tallies[LATE_POSITIVES] += 1
    state.waiting.learned[slot] = UNLEARNED
    learn_label(state, parameters, slot, 1.0)
    emit_example(state, emitted, slot, 1, True)


@compiled
def take_positive(state: State, parameters: Parameters, slot: int) -> None:
    """Count how long an impression's first positive took."""
    now_ms = state.clock.stream_time_ms[0]
    joiner = parameters.joiner
    delay_ms = now_ms - state.waiting.ts_ms[slot]
    count_delay(state.delays, delay_ms, now_ms, joiner.attribution_window_ms, joiner.provisional_share)


@compiled
def on_erase(state: State, columns: Columns, emitted: Emitted, event: int) -> None:
    """Forget a user, and all that is the user's alone."""
    user = find(state.users.lookup, columns.user[event])
    if user >= 0:
        forget_user(state, user)
    forget_sightings(state.admission, columns.user[event])
    settle(state, emitted, event, FATE_ERASED)


@compiled
def make_room(state: State, length: int) -> None:
    """Make room for one more impression and its text: closed ones go first, then the next due, unlearned."""
    waiting = state.waiting
    while not fits(waiting, length):
        slot = oldest_closed(waiting)
        if slot < 0:
            slot = next_due(waiting.deadlines)
        if slot < 0:
            return
        give_up(state, slot)


@compiled
def make_own_room(state: State, parameters: Parameters, user_key: int, slots: int, length: int) -> bool:
    """Make room in a user's share, at the user's own cost: the oldest go first, but none that waits; False: no room.

    The order in which a user's came is that of their first records, impression or early feedback.
    """
    waiting = state.waiting
    user = find(state.users.lookup, user_key)
    while user >= 0 and not fits_share(waiting, user, slots, length, parameters.joiner):
        slot = last_of(waiting.users, user)
        if waiting.status[slot] == WAITING:
            return False
        give_up(state, slot)
    return True


@compiled
def give_up(state: State, slot: int) -> None:
    """Forget an impression before its time: what waits stays unlearned, what never came is orphaned."""
    if state.waiting.status[slot] == EARLY:
        orphan(state, slot)
        return
    state.tallies[CLOSED_UNLEARNED] += state.waiting.status[slot] == WAITING
    release_slot(state, slot)


@compiled
def emit_example(state: State, emitted: Emitted, slot: int, revision: int, is_learned: bool) -> None:
    """Emit an impression with its outcome, and with the features as they were when it was scored."""
    waiting = state.waiting
    place = emitted.counts[EXAMPLE_COUNT]
    emitted.example_cause[place] = state.clock.offset[0]
    emitted.example_ordinal[place] = state.clock.ordinals[EXAMPLES]
    emitted.example_offset[place] = waiting.offset[slot]
    emitted.example_label[place] = waiting.label[slot]
    emitted.example_revision[place] = revision
    emitted.example_learned[place] = is_learned
    copy_row(waiting.scores[slot], emitted.example_scores[place])
    copy_row(state.seen.inputs[slot], emitted.example_inputs[place])
    start = emitted.counts[TEXT_USED]
    length = int64(waiting.length[slot])
    read_text(waiting.texts, waiting.text[slot], length, emitted.text, start)
    emitted.example_text[place, 0] = start
    emitted.example_text[place, 1] = start + length
    emitted.counts[TEXT_USED] = start + length
    emitted.counts[EXAMPLE_COUNT] = place + 1
    state.clock.ordinals[EXAMPLES] += 1


@compiled
def emit_early_letter(state: State, emitted: Emitted, node: int) -> None:
    """Emit a feedback that waited for its impression and turned out to contradict it."""
    feedbacks = state.waiting.feedbacks
    place = emitted.counts[DEAD_LETTER_COUNT]
    emitted.letter_cause[place] = state.clock.offset[0]
    emitted.letter_ordinal[place] = state.clock.ordinals[DEAD_LETTERS]
    emitted.letter_offset[place] = feedbacks.offset[node]
    emitted.letter_reason[place] = USER_MISMATCH
    start = emitted.counts[TEXT_USED]
    length = int64(feedbacks.length[node])
    read_text(state.waiting.texts, feedbacks.text[node], length, emitted.text, start)
    emitted.letter_text[place, 0] = start
    emitted.letter_text[place, 1] = start + length
    emitted.counts[TEXT_USED] = start + length
    emitted.counts[DEAD_LETTER_COUNT] = place + 1
    state.clock.ordinals[DEAD_LETTERS] += 1

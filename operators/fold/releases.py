"""What happens as stream time passes: labels are learned, windows close, examples are emitted."""

from thalweg.operators import clock, delay, joiner
from thalweg.operators.fold import learning, objectives, prefetching, teaching, users
from thalweg.operators.fold.emitted import Emitted, emit_example, has_room, has_room_for_lessons
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score, Status
from thalweg.operators.machine.compiled import compiled, float64, int64
from thalweg.operators.structures import deadlines, index


@compiled
def release_due(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted) -> bool:
    """Release all whose deadline lies before stream time, by (deadline, arrival, key); False where `emitted` is full.

    What is to be learned of them provisionally is learned in between, in the same order.
    """
    waiting = state.waiting
    now_ms = state.clock.stream_time_ms[0]
    while True:
        learn_due(state, parameters, scratch, emitted)
        if not has_room(emitted):
            return False
        slot = deadlines.next_due(waiting.deadlines)
        if slot < 0 or waiting.deadlines.deadline_ms[slot] >= now_ms:
            break
        if waiting.status[slot] == Status.EARLY:
            users.orphan(state, slot)
        elif joiner.is_doubted(waiting, slot) and joiner.is_behind(waiting, slot, parameters.joiner):
            restart_window(state, parameters, slot)  # time has jumped since it arrived
        else:
            learning.drop_gone(state, parameters, slot, deadlines.over_ms(waiting.deadlines, slot))
            if not parameters.joiner.is_joint:
                release(state, parameters, scratch, emitted, slot)
            else:
                prefetching.prefetch_rows(state, slot)
                objectives.release(state, parameters, scratch, emitted, slot)
            if joiner.is_last_closing(waiting, slot, parameters.joiner):
                joiner.close_slot(waiting, slot, now_ms)
            else:
                joiner.await_closing(waiting, slot, parameters.joiner)
    prefetching.prefetch_slot(state, slot)
    slot = joiner.oldest_closed(waiting)
    while slot >= 0 and now_ms - waiting.closed_ms[slot] >= parameters.joiner.late_window_ms:
        users.release_slot(state, slot)
        slot = joiner.oldest_closed(waiting)
    return True


@compiled
def confirm_windows(state: State, parameters: Parameters) -> None:
    """Correct the windows of impressions whose clocks turn out to be ahead or behind by those heard since."""
    waiting = state.waiting
    slot = joiner.oldest_doubted(waiting)
    while slot >= 0 and clock.heard_since(state.clock, waiting.doubted_turn[slot]):
        begins_ms = joiner.begins_ms(waiting, slot, parameters.joiner)
        if begins_ms > state.clock.apparent_time_ms[0] or joiner.is_behind(waiting, slot, parameters.joiner):
            restart_window(state, parameters, slot)
        joiner.believe(waiting, slot)
        slot = joiner.oldest_doubted(waiting)


@compiled
def hasten_own(state: State, user_key: int, ts_ms: int) -> None:
    """Let labels of a user be due that are so by the user's clock, whatever it shows: it moves no time of others.

    Else who is alone for a while would learn nothing of what was just done.
    """
    user = index.find(state.users.lookup, user_key)
    elapsed_ms = state.delays.times_ms[delay.Time.ELAPSED]
    if user >= 0 and elapsed_ms > 0:
        joiner.hasten_labels(state.waiting, user, ts_ms, elapsed_ms, state.clock.stream_time_ms[0])


@compiled
def restart_window(state: State, parameters: Parameters, slot: int) -> None:
    """Let a doubted impression's window begin at apparent time, for good."""
    waiting = state.waiting
    joiner.believe(waiting, slot)
    by_ms = state.clock.apparent_time_ms[0] - joiner.begins_ms(waiting, slot, parameters.joiner)
    deadlines.move_deadline(waiting.deadlines, waiting.key, slot, by_ms)
    deadlines.move_deadline(waiting.provisional, waiting.key, slot, by_ms)


@compiled
def learn_due(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted) -> None:
    """Learn a provisional label of each impression that is due for one before the next window closes.

    It stops where `emitted` has no room for lessons.
    """
    waiting = state.waiting
    now_ms = state.clock.stream_time_ms[0]
    due_ms = max(now_ms, state.lessons.due_ms[0])
    closing = deadlines.next_due(waiting.deadlines)
    while True:
        slot = deadlines.next_due(waiting.provisional)
        if not has_room_for_lessons(emitted):
            return
        if slot < 0 or waiting.provisional.deadline_ms[slot] >= min(due_ms, waiting.deadlines.deadline_ms[closing] + 1):
            prefetching.prefetch_slot(state, slot)
            return
        prefetching.prefetch_rows(state, slot)
        learning.drop_gone(state, parameters, slot, deadlines.over_ms(waiting.provisional, slot))
        joiner.await_no_label(waiting, slot)
        by_the_clock_ms = now_ms - joiner.begins_ms(waiting, slot, parameters.joiner)
        elapsed_ms = max(by_the_clock_ms, state.delays.times_ms[delay.Time.ELAPSED])
        if parameters.joiner.is_joint:
            objectives.take_provisional(state, parameters, scratch, slot, elapsed_ms)
            continue
        label = float(waiting.label[slot])
        if label == 0.0:
            probability = float64(waiting.scores[slot, Score.MODEL])
            label = delay.provisional_label(state.delays, probability, elapsed_ms, delay.CERTAIN)
        teaching.teach(state, parameters, scratch, emitted, slot, label, teaching.PROVISIONAL)
        learning.take_label(state, parameters, scratch, slot, learning.own_step(state, parameters, slot, label))


@compiled
def release(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, slot: int) -> None:
    """Take an impression's outcome: learn it, unless it is what was learned provisionally -> emit the example."""
    prefetching.prefetch_rows(state, slot)
    positive = state.waiting.label[slot] == 1
    label = float(state.waiting.label[slot])
    teaching.teach(state, parameters, scratch, emitted, slot, label, teaching.FINAL)
    learning.take_label(state, parameters, scratch, slot, learning.own_step(state, parameters, slot, label))
    if not positive:
        learning.skip_item(state, parameters, scratch, slot)
    state.tallies[Tallied.LABELLED] += 1
    state.tallies[Tallied.POSITIVES] += positive
    emit_example(state, emitted, slot, 0, positive or learning.is_sampled(state, parameters, slot))
    grace_ms = parameters.joiner.late_window_ms
    if not positive and joiner.has_positive(state.waiting, slot, int64(0), grace_ms, parameters.joiner):
        take_late_positive(state, parameters, scratch, emitted, slot)


@compiled
def take_late_positive(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted, slot: int) -> None:
    """Learn a positive of an impression that was learned as a negative: one more step, no undo."""
    state.waiting.label[slot] = 1
    state.tallies[Tallied.LATE_POSITIVES] += 1
    teaching.teach(state, parameters, scratch, emitted, slot, 1.0, teaching.LATE)
    learning.take_late_label(state, parameters, scratch, slot, learning.own_step(state, parameters, slot, 1.0))
    emit_example(state, emitted, slot, 1, True)

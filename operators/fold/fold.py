"""The fold: (state, events) -> (state, outputs). One partition is one deterministic fold over its log.

Every event but a request that only asks first moves stream time, then releases what has waited long enough, then is
processed itself. The impressions of one page (`pages`) do so once, with the first of them.

- impression: resolve ids -> read features -> score -> correct -> emit -> keep it waiting for its outcome
- feedback: join -> set the label -> extend the user's sequence
- request: score each candidate as an impression would be, before any time moves, and change nothing
- request that shows: begin a page -> score each candidate -> take the first ones as impressions of that page
- feedback without an impression: find the one that waits for it -> join, or extend the user's sequence alone
- item, user: know these facts from now on
- erase: forget the user
- merge: learn what other partitions taught, up to where it names, and move no time
- provisional: learn -> remember the error -> update the rows, once most positives would have come
- released: the same, or correct what was learned -> emit the example

Nothing here reads a clock, a file or chance, and nothing depends on how the log was cut into batches.
"""

from thalweg.operators import admission, clock, delay, joiner, pages
from thalweg.operators.fold import (
    actions,
    feedback,
    impressions,
    knowing,
    merging,
    prefetching,
    ranking,
    releases,
    room,
    scoring,
    showing,
    users,
)
from thalweg.operators.fold.columns import Columns, Kind, new_columns
from thalweg.operators.fold.emitted import Emitted, Made, dead_letter, has_room, set_fate
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.machine.compiled import clear, compiled, int64, uint64
from thalweg.operators.machine.reference import by_reference
from thalweg.operators.structures import index

FOLD, COMPLETE, CLOSE, LEARN, CLAIM, SHOW = range(6)
NO_PROBABILITY = 0.0
NO_COLUMNS = new_columns(0)


def fold(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    first: int,
) -> int:
    """Fold the events from `first` on and return the first one not yet folded.

    That is the number of events, or fewer where `emitted` has no more room: empty it and call again. An event that
    stopped half way through its releases resumes where it stopped. It is fewer also where another thread asks for the
    state between two events (`scratch.halt`); one event at least is folded first. If another model than the built-in
    one scores, it may also be an impression that waits for its score: call `complete` and continue behind it. Or it is
    a merge that names lessons: call `learn` with these and continue with it. Or it is a request that shows: call `show`
    with what it is answered with and continue behind it.

    State, parameters, scratch and `emitted` are to be `held`, here and in the functions below.
    """
    return run(state, parameters, scratch, columns, emitted, FOLD, first, NO_PROBABILITY)


def complete(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    probability: float,
) -> None:
    """Give the impression that `fold` stopped at the probability of another model than the built-in one."""
    run(state, parameters, scratch, columns, emitted, COMPLETE, event, probability)


def close_all(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted) -> bool:
    """Close every window, as an event far in the future would; False: empty `emitted` and call again."""
    return bool(run(state, parameters, scratch, NO_COLUMNS, emitted, CLOSE, 0, NO_PROBABILITY))


def learn(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted
) -> "merging.Learned":
    """Learn the lessons of the first partition that `columns` merge, up to there, from batches in their text."""
    return merging.Learned(run(state, parameters, scratch, columns, emitted, LEARN, 0, NO_PROBABILITY))


def claim(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, is_pairs: bool
) -> None:
    """Give the keys of another partition's values, or pairs, their rows here: see `merging.claim_rows`."""
    run(state, parameters, scratch, columns, emitted, CLAIM, int(is_pairs), NO_PROBABILITY)


def show(state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, first: int) -> int:
    """Take what a request shows, as impressions from `first` on, and return the first one not yet taken.

    That is their number, or fewer where `emitted` has no more room: empty it and call again. See `showing.show`.
    """
    return run(state, parameters, scratch, columns, emitted, SHOW, first, NO_PROBABILITY)


@compiled
def run(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    task: int,
    event: int,
    probability: float,
) -> int:
    """Do what `fold` and the others above ask: one program, so that what they share is compiled once."""
    read = by_reference(columns)
    if task == CLAIM:
        merging.claim_rows(state, read, event)
        return 0
    if task == SHOW:
        return showing.show(state, parameters, scratch, read, emitted, event)
    if task == LEARN:
        learned = merging.learn_lessons(state, parameters, scratch, read)
        merging.settle_due(state)
        return learned
    if task == CLOSE:
        return int64(close_windows(state, parameters, scratch, emitted))
    if task == COMPLETE:
        complete_unscored(state, parameters, scratch, read, emitted, event, probability)
        return event + 1
    return fold_events(state, parameters, scratch, read, emitted, event)


@compiled
def fold_events(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    first: int,
) -> int:
    """Fold the events from `first` on, state and all by reference."""
    for event in range(first, columns.kind.shape[0]):
        if scratch.halt[0] != 0 and event > first:
            scratch.halt[1] = 1
            return event
        prefetching.prefetch_events(state, scratch, columns, event)
        if columns.kind[event] == Kind.IGNORED:
            set_fate(state, emitted, event, Fate.IGNORED)
            continue
        if columns.reason[event] != 0:
            dead_letter(state, emitted, event, columns.reason[event])
            continue
        is_shown = showing.is_shown(parameters, columns, event)
        is_further = is_shown and showing.continues_page(state, columns, event)
        if not is_further and (is_shown or not showing.is_between(columns, event)):
            pages.end(state.page)
        if columns.kind[event] == Kind.REQUEST and not is_shown:
            ranking.on_request(state, parameters, scratch, columns, emitted, event)
            continue
        if columns.kind[event] == Kind.MERGE:  # moves no time, and waits for lessons
            if not merging.on_merge(state, parameters, columns, emitted, event):
                return event
            continue
        begin_event(state, parameters, columns, event, is_shown, is_further)
        if columns.kind[event] == Kind.ITEM:  # comes to every partition, from no user: it moves no time
            knowing.on_item(state, scratch, columns, emitted, event)
            continue
        if not is_further:
            if not releases.release_due(state, parameters, scratch, emitted):
                return event
            users.sweep_users(state, parameters)
            users.sweep_values(state, parameters)
        elif not has_room(emitted):
            return event
        if is_shown and not is_further:
            begin_page(state, columns, event)
        if columns.kind[event] == Kind.REQUEST:  # waits for what it shows
            ranking.on_request(state, parameters, scratch, columns, emitted, event)
            emitted.counts[Made.SHOWN] = 1
            return event
        if columns.kind[event] == Kind.IMPRESSION:
            if not score_impression(state, parameters, scratch, columns, emitted, event):
                return event
        elif columns.kind[event] == Kind.FEEDBACK and columns.impression[event] == uint64(0):
            actions.on_action(state, parameters, scratch, columns, emitted, event)
        elif columns.kind[event] == Kind.FEEDBACK:
            feedback.on_feedback(state, parameters, scratch, columns, emitted, event)
        elif columns.kind[event] == Kind.USER:
            knowing.on_user(state, parameters, scratch, columns, emitted, event)
        else:
            on_erase(state, columns, emitted, event)
    return columns.kind.shape[0]  # type: ignore[no-any-return]


@compiled
def score_impression(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, event: int
) -> bool:
    """Take an impression in, and return whether it is done: else it waits for the score of another model."""
    slot = impressions.on_impression(state, parameters, scratch, columns, emitted, event)
    if slot >= 0 and parameters.learner.is_replaced:
        emitted.counts[Made.UNSCORED] = slot + 1
        return False
    if slot >= 0:
        impressions.complete_impression(state, parameters, scratch, columns, emitted, event, slot)
    return True


@compiled
def complete_unscored(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    columns: Columns,
    emitted: Emitted,
    event: int,
    probability: float,
) -> None:
    """Give an impression its probability, state and all by reference."""
    slot = emitted.counts[Made.UNSCORED] - 1
    emitted.counts[Made.UNSCORED] = 0
    scoring.score_replaced(state, parameters, slot, probability)
    impressions.complete_impression(state, parameters, scratch, columns, emitted, event, slot)


@compiled
def close_windows(state: State, parameters: Parameters, scratch: Scratch, emitted: Emitted) -> bool:
    """Close every window, state and all by reference."""
    pages.end(state.page)
    end_ms = joiner.last_closing(state.waiting, parameters.joiner) + 1
    state.clock.stream_time_ms[0] = max(state.clock.stream_time_ms[0], end_ms)
    return releases.release_due(state, parameters, scratch, emitted)


@compiled
def begin_event(
    state: State, parameters: Parameters, columns: Columns, event: int, is_shown: bool, is_further: bool
) -> None:
    """Let an event move stream time, and start counting what it causes, unless the event is resumed.

    One further row of a page moves no time.
    """
    if state.clock.offset[0] != columns.offset[event]:
        state.clock.offset[0] = columns.offset[event]
        clear(state.clock.ordinals)
        state.clock.arrivals[0] += 1
        if is_further:
            state.page.further[0] += 1
            return
        if columns.kind[event] != Kind.ITEM:
            clock.advance(state.clock, columns.ts_ms[event], columns.user[event])
            releases.confirm_windows(state, parameters)
        if is_shown:
            releases.hasten_own(state, columns.user[event], columns.ts_ms[event])


@compiled
def begin_page(state: State, columns: Columns, event: int) -> None:
    """Begin a page with an impression that continues none, and make room for what is new on it."""
    elapsed_ms = state.delays.times_ms[delay.Time.ELAPSED]
    pages.begin(state.page, columns.user[event], columns.ts_ms[event], state.clock.arrivals[0], elapsed_ms)
    room.make_page_room(state)


@compiled
def on_erase(state: State, columns: Columns, emitted: Emitted, event: int) -> None:
    """Forget a user, and all that is the user's alone."""
    user = index.find(state.users.lookup, columns.user[event])
    if user >= 0:
        users.forget_user(state, user)
    clock.forget_witness(state.clock, columns.user[event])
    admission.forget_sightings(state.admission, columns.user[event])
    set_fate(state, emitted, event, Fate.ERASED)

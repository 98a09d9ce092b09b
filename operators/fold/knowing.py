"""Facts arrive: from now on they fill in what an impression does not bring."""

from thalweg.operators import facts
from thalweg.operators.fold import fates, users
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, dead_letter, set_fate
from thalweg.operators.fold.fates import Fate, Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.structures import table


@compiled
def on_item(state: State, scratch: Scratch, columns: Columns, emitted: Emitted, event: int) -> None:
    """Take facts about an item."""
    start, end = columns.text_start[event], columns.text_end[event]
    now_ms = state.clock.stream_time_ms[0]
    size, evicted = facts.write_item(
        state.facts, columns.item[event], columns.text, start, end, scratch.filling, now_ms
    )
    settle(state, emitted, event, size, evicted)


@compiled
def on_user(
    state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, event: int
) -> None:
    """Take facts about a user, who is known from now on."""
    user = users.ensure_user(state, parameters, columns.user[event])
    if user < 0:
        dead_letter(state, emitted, event, fates.NO_ROOM)
        return
    if state.users.linked[user] == 1:
        table.update_row(state.users, user, state.clock.stream_time_ms[0])
    start, end = columns.text_start[event], columns.text_end[event]
    size, evicted = facts.write_user(state.facts, user, columns.text, start, end, scratch.filling)
    settle(state, emitted, event, size, evicted)


@compiled
def settle(state: State, emitted: Emitted, event: int, size: int, evicted: int) -> None:
    """Give facts their fate: their owner has `size` bytes of them now, or why not."""
    state.tallies[Tallied.FACTS_EVICTED] += evicted
    if size == facts.TOO_MANY:
        dead_letter(state, emitted, event, fates.TOO_LARGE)
    elif size == facts.NO_ROW:
        dead_letter(state, emitted, event, fates.NO_ROOM)
    else:
        set_fate(state, emitted, event, Fate.KNOWN)

"""What is shown: impressions, and requests that take the first of their answer as impressions of a page.

Such a request moves time and begins a page, or continues one, as an impression would. Then its candidates are scored as
rows of the page, so that the answer has the scores which are learned from. The fold stops there, since its caller knows
the order: policies, caps and what is left out. `show` takes the first of them.
"""

from thalweg.operators import error_memory, joiner, pages
from thalweg.operators.fold import impressions, scoring
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.fold.emitted import Emitted, has_room
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.structures import index


@compiled
def is_shown(parameters: Parameters, columns: Columns, event: int) -> bool:
    """Return whether an event is an impression, or a request that takes what it is answered with as shown."""
    kind = columns.kind[event]
    shows = columns.shown[event] > 0 and not parameters.learner.is_replaced
    return bool(kind == Kind.IMPRESSION or (kind == Kind.REQUEST and shows))


@compiled
def is_between(columns: Columns, event: int) -> bool:
    """Return whether an event that shows nothing leaves the page open: another row may follow."""
    return bool(columns.kind[event] == Kind.REQUEST or columns.kind[event] == Kind.ITEM)


@compiled
def continues_page(state: State, columns: Columns, event: int) -> bool:
    """Return whether what an event shows is on the page of what was shown before."""
    return bool(pages.continues(state.page, columns.user[event], columns.ts_ms[event]))


@compiled
def show(state: State, parameters: Parameters, scratch: Scratch, columns: Columns, emitted: Emitted, first: int) -> int:
    """Take the impressions in `columns`, which a request shows, from `first` on; return the first one not yet taken.

    They are kept as those of its page behind it would be, at the request's offset. What is passed over becomes
    `Kind.IGNORED`: all of it if the request was answered before, an impression that was taken before, or has no room.
    """
    count = columns.kind.shape[0]
    if first == 0 and count > 0 and is_answered(state, parameters, columns):
        for row in range(count):
            pass_over(state, columns, row)
        return count  # type: ignore[no-any-return]
    for row in range(first, count):
        if not has_room(emitted):
            return row
        if row > 0:  # the first came with the request
            state.clock.arrivals[0] += 1
            state.page.further[0] += 1
        slot = impressions.take_impression(state, parameters, scratch, columns, emitted, row)
        if slot < 0:
            pass_over(state, columns, row)
            continue
        prior = error_memory.scaled_prior(state.memory, parameters.memory)
        scoring.correct_slot(state, parameters, scratch, slot, prior)
        impressions.keep_impression(state, parameters, columns, emitted, row, slot)
        state.tallies[Tallied.SHOWN] += 1
    return count  # type: ignore[no-any-return]


@compiled
def pass_over(state: State, columns: Columns, row: int) -> None:
    """Count an impression that is not taken, and mark it."""
    columns.kind[row] = Kind.IGNORED
    state.tallies[Tallied.SHOWN_PASSED_OVER] += 1


@compiled
def is_answered(state: State, parameters: Parameters, columns: Columns) -> bool:
    """Return whether impressions that answer the same request came before it: it was sent twice, or they were sent."""
    user = index.find(state.users.lookup, columns.user[0])
    if user < 0:
        return False
    return bool(joiner.knows_answer(state.waiting, user, columns.request[0], parameters.joiner.search_limit))

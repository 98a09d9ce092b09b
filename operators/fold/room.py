"""Room for what arrives, made by forgetting the oldest before its time."""

from thalweg.operators import cross_pairs, features, joiner
from thalweg.operators.fold import users
from thalweg.operators.fold.fates import Tallied
from thalweg.operators.fold.state import Parameters, State, wipe_value
from thalweg.operators.joiner import Status
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.structures import deadlines, index, ownership, pool, table
from thalweg.operators.structures.table import Table

PAGE_ROWS_MAX = 4_096  # kept free for what is new on a page: so nothing that another row of it reads makes room
PAGE_SHARE = 8  # or so much less of a small table


@compiled
def make_room(state: State, length: int) -> None:
    """Make room for one more impression and its text: closed ones go first, then the next due, unlearned."""
    waiting = state.waiting
    while not joiner.fits(waiting, length):
        slot = joiner.oldest_closed(waiting)
        if slot < 0:
            slot = deadlines.next_due(waiting.deadlines)
        if slot < 0:
            return
        give_up(state, slot)


@compiled
def make_own_room(state: State, parameters: Parameters, user_key: int, slots: int, length: int) -> bool:
    """Make room in a user's share, at the user's own cost: the oldest go first, but none that waits; False: no room.

    The order in which a user's came is that of their first records, impression or early feedback.
    """
    waiting = state.waiting
    user = index.find(state.users.lookup, user_key)
    while user >= 0 and not joiner.fits_share(waiting, user, slots, length, parameters.joiner):
        slot = ownership.last_of(waiting.users, user)
        if waiting.status[slot] == Status.WAITING:
            return False
        give_up(state, slot)
    return True


@compiled
def give_up(state: State, slot: int) -> None:
    """Forget an impression before its time: what waits stays unlearned, what never came is orphaned."""
    if state.waiting.status[slot] == Status.EARLY:
        users.orphan(state, slot)
        return
    state.tallies[Tallied.CLOSED_UNLEARNED] += state.waiting.status[slot] == Status.WAITING
    users.release_slot(state, slot)


@compiled
def make_page_room(state: State) -> None:
    """Make room for the new values and pairs of a page that begins, at the cost of those that were longest not updated.

    What one page updated last goes together, as the order of its rows must not decide.
    """
    while not has_page_room(state.features):
        row = table.oldest_row(state.features)
        list_of, page = state.features.list_of[row], state.features.page[row]
        while row >= 0:
            features.free_feature(state.features, state.user_rows, row)
            state.features.counts[table.Loss.EVICTED] += 1
            wipe_value(state, row)
            row = table.next_of_page(state.features, list_of, page)
    while not has_page_room(state.cross.pairs):
        cross_pairs.evict_pairs(state.cross)


@compiled
def has_page_room(rows: Table) -> bool:
    """Return whether a table has room for what may be new on a page."""
    limit = rows.pool.freed.shape[0]
    return bool(pool.available(rows.pool) >= min(PAGE_ROWS_MAX, limit // PAGE_SHARE))

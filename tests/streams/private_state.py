"""What of a state is some user's alone, in an order that no row decides, and what freed rows still hold."""

from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.state import State
from thalweg.operators.joiner import Status
from thalweg.operators.machine.declare import walk
from thalweg.operators.structures.index import Index, Size
from thalweg.operators.structures.pool import Pool, Stock
from thalweg.operators.structures.table import rows_by_key
from thalweg.operators.structures.texts import read_texts

Array = npt.NDArray[Any]


def private_state(state: State) -> dict[str, Any]:
    """Return all that users own, by their keys: equal where the same users did the same."""
    users = rows_by_key(state.users)
    found: dict[str, Any] = {
        "users": state.users.key[users].tolist(),
        "users updated": np.where(state.users.linked[users], state.users.updated_ms[users], 0).tolist(),
    }
    behaviors, histories = state.behaviors, state.behaviors.histories
    current = state.features.generation[behaviors.row[users]] == behaviors.generation[users]
    filled = np.arange(behaviors.row.shape[2]) < behaviors.counts[users][:, :, None]
    found["sequences"] = np.where(current & filled, state.features.key[behaviors.row[users]], 0).tolist()
    found["sequence times"] = behaviors.ts_ms[users].tolist()
    found["behaviours"] = behaviors.counts[users].tolist()
    found["shown"] = [state.visits.shown[users].tolist(), state.visits.shown_ms[users].tolist()]
    long = behaviors.history[users]
    found["histories"] = (long > 0).tolist()
    # Which bucket a behaviour fell into hangs on the item's vector, which is everybody's.
    found["history lengths"] = histories.lengths[long[long > 0] - 1].tolist()
    owned = np.flatnonzero(state.user_rows.owner)
    found["rows"] = sorted(
        zip(_owners(state, state.user_rows.owner[owned]), state.features.key[owned].tolist(), strict=True)
    )
    cross = state.cross
    # How often each was shown is the user's; what was learned of it follows provisional labels, which all share.
    owned = np.flatnonzero(cross.owners.owner)
    pairs = cross.pairs.key[owned].tolist(), cross.counted.counts[owned, 2].tolist()
    found["pairs"] = sorted(zip(_owners(state, cross.owners.owner[owned]), *pairs, strict=True))
    facts = state.facts.of_users
    kept = np.zeros(int(facts.length[users].sum()), np.uint8)
    read_texts(facts.texts, facts.text[users], facts.length[users], kept)
    found["facts"] = [facts.length[users].tolist(), kept.tobytes()]
    return found | _waiting(state)


def _owners(state: State, owner: Array) -> list[int]:
    """Return the keys of users by what owns a row: the user's row and one."""
    keys: list[int] = state.users.key[owner - 1].tolist()
    return keys


def _waiting(state: State) -> dict[str, Any]:
    waiting, feedbacks = state.waiting, state.waiting.feedbacks
    slots = np.flatnonzero(waiting.status != Status.FREE)
    slots = slots[np.argsort(waiting.key[slots])]
    closed = waiting.status[slots] == Status.CLOSED
    found = {
        name: getattr(waiting, name)[slots].tolist()
        for name in ("key", "user_key", "status", "label", "offset", "ts_ms", "closed_ms", "feedback_count")
    }
    found["owner"] = state.users.key[waiting.users.owner[slots] - 1].tolist()
    found["deadline"] = np.where(closed, 0, waiting.deadlines.deadline_ms[slots]).tolist()
    found["order"] = np.argsort(waiting.deadlines.arrival[slots], kind="stable").tolist()
    found["texts"] = [text_of(state, waiting.text[slot], waiting.length[slot]) for slot in slots]
    found["feedback"] = []
    for slot in slots:
        node = int(waiting.feedback[slot])
        while node:
            of = feedbacks.key[node - 1], feedbacks.offset[node - 1], feedbacks.ts_ms[node - 1]
            text = text_of(state, feedbacks.text[node - 1], feedbacks.length[node - 1])
            found["feedback"].append((*map(int, of), int(feedbacks.positive[node - 1]), text))
            node = int(feedbacks.next[node - 1])
    return found


def text_of(state: State, head: int, length: int) -> bytes:
    """Return a kept text."""
    out = np.zeros(int(length), np.uint8)
    read_texts(state.waiting.texts, np.array([head]), np.array([length]), out)
    return out.tobytes()


def unwiped(state: State) -> list[str]:
    """Return the names of arrays of which a row that nobody owns holds anything but zeros.

    Which arrays there are and what indexes them is what is declared, so a new array is looked at too.
    """
    free = {
        each.field.shape[0]: _free(each.owner)
        for each in walk(state)
        if isinstance(each.owner, Pool) and each.field.used
    }
    found = [
        each.path
        for each in walk(state)
        if each.field.shape[0] in free and not each.field.keeps and _holds(each.array, *free[each.field.shape[0]])
    ]
    for name in ("deadlines", "provisional"):
        deadlines = getattr(state.waiting, name)
        found += [f"waiting.{name}.heap"] if deadlines.heap[int(deadlines.size[0]) :].any() else []
    indices = {"features": state.features.lookup, "users": state.users.lookup, "waiting": state.waiting.lookup}
    indices["pairs"] = state.cross.pairs.lookup
    return found + [f"{name}.lookup" for name, index in indices.items() if _has_left(index)]


def _free(pool: Pool) -> tuple[Array, int]:
    """Return the rows of a pool that are free again, and the first of those that were never used."""
    return pool.freed[: int(pool.counts[Stock.FREED])], int(pool.counts[Stock.EVER_USED])


def _holds(array: Array, freed: Array, ever_used: int) -> bool:
    """Return whether an array holds anything in rows that are free; most were never used, and are not copied."""
    return bool(array[freed].any() or array[ever_used:].any())


def _has_left(index: Index) -> bool:
    """Return whether an index has a key without a row, a row without a key, or anything where nothing lies."""
    buckets, stashed = int(index.size[Size.BUCKETS]), int(index.size[Size.STASHED])
    return bool(
        ((index.keys == 0) != (index.rows == 0)).any()
        or index.keys[buckets:].any()
        or index.stash_keys[stashed:].any()
        or index.stash_rows[stashed:].any()
    )

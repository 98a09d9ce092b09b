"""What of a state is some user's alone, in an order that no row decides, and what freed rows still hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.state import State, arrays_of
from thalweg.operators.joiner import CLOSED, FREE
from thalweg.operators.structures.index import BUCKETS, STASHED, Index
from thalweg.operators.structures.ownership import Owned
from thalweg.operators.structures.pool import EVER_USED, FREED, Pool
from thalweg.operators.structures.table import Table, rows_by_key
from thalweg.operators.structures.texts import read_texts

Array = npt.NDArray[Any]
OF_OWNERS = ("first", "last", "held")


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
    found["shown"] = [behaviors.shown[users].tolist(), behaviors.shown_ms[users].tolist()]
    long = behaviors.history[users]
    found["histories"] = (long > 0).tolist()
    # Which bucket a behaviour fell into hangs on the item's vector, which is everybody's.
    found["history lengths"] = histories.lengths[long[long > 0] - 1].tolist()
    found["rows"] = sorted(
        (int(state.users.key[owner - 1]), int(key))
        for owner, key in zip(state.private.owner, state.features.key, strict=True)
        if owner
    )
    return found | _waiting(state)


def _waiting(state: State) -> dict[str, Any]:
    waiting, feedbacks = state.waiting, state.waiting.feedbacks
    slots = np.flatnonzero(waiting.status != FREE)
    slots = slots[np.argsort(waiting.key[slots])]
    closed = waiting.status[slots] == CLOSED
    found = {
        name: getattr(waiting, name)[slots].tolist()
        for name in ("key", "user_key", "status", "label", "offset", "ts_ms", "closed_ms", "feedback_count")
    }
    found["owner"] = state.users.key[waiting.users.owner[slots] - 1].tolist()
    found["deadline"] = np.where(closed, 0, waiting.deadlines.deadline_ms[slots]).tolist()
    found["order"] = np.argsort(waiting.deadlines.arrival[slots]).tolist()
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
    """Return the names of arrays of which a row that nobody owns holds anything but zeros."""
    found: list[str] = []
    for name, pool, arrays in _pools(state):
        free = np.ones(len(pool.freed), np.bool_)
        free[: int(pool.counts[EVER_USED])] = False
        free[pool.freed[: int(pool.counts[FREED])]] = True
        found += [f"{name}.{path}" for path, array in arrays.items() if array[free].any()]
    for name in ("deadlines", "provisional"):
        deadlines = getattr(state.waiting, name)
        found += [f"waiting.{name}.heap"] if deadlines.heap[int(deadlines.size[0]) :].any() else []
    indices = {"features": state.features.lookup, "users": state.users.lookup, "waiting": state.waiting.lookup}
    return found + [f"{name}.lookup" for name, index in indices.items() if _has_left(index)]


def _pools(state: State) -> Iterator[tuple[str, Pool, dict[str, Array]]]:
    """Give each pool with all that goes with its rows."""
    waiting, behaviors, rates = state.waiting, state.behaviors, state.learner.rates
    learned = {"learned": state.learner.features, "rates": rates.sums, "rates at": rates.at_ms}
    yield "features", state.features.pool, _rows_of(state.features) | learned | _things(state.private)
    held = {name: getattr(waiting, name) for name in ("held_feedbacks", "held_blocks")}
    for what, owned in (("private", state.private), ("slots", waiting.users)):
        held |= {f"{what} {name}": getattr(owned, name) for name in OF_OWNERS}
    yield "users", state.users.pool, _rows_of(state.users) | _arrays(behaviors) | held
    due = {
        f"{when} {name}": array
        for when in ("deadlines", "provisional")
        for name, array in _arrays(getattr(waiting, when)).items()
        if name not in ("heap", "size")
    }
    slots = {name: array for name, array in _arrays(waiting).items() if name != "ends" and name not in held}
    scored = dict(arrays_of(state.seen, "seen.")) | dict(arrays_of(state.recalled, "recalled."))
    yield "waiting", waiting.pool, slots | due | scored | _things(waiting.users)
    yield "feedbacks", waiting.feedbacks.pool, _arrays(waiting.feedbacks)
    yield "texts", waiting.texts.pool, _arrays(waiting.texts)
    histories = {name: array for name, array in _arrays(behaviors.histories).items() if name != "ends"}
    yield "histories", behaviors.histories.pool, histories


def _arrays(tree: Any) -> dict[str, Array]:
    return {name: part for name, part in zip(tree._fields, tree, strict=True) if isinstance(part, np.ndarray)}


def _rows_of(table: Table) -> dict[str, Array]:
    """Return a table's arrays by row, but for those that speak of no owner: generations, and what was touched."""
    beside = ("generation", "touched", "ends", "counts")
    return {name: array for name, array in _arrays(table).items() if name not in beside}


def _things(owned: Owned) -> dict[str, Array]:
    return {f"owned {name}": array for name, array in _arrays(owned).items() if name not in OF_OWNERS}


def _has_left(index: Index) -> bool:
    """Return whether an index has a key without a row, a row without a key, or anything where nothing lies."""
    buckets, stashed = int(index.size[BUCKETS]), int(index.size[STASHED])
    return bool(
        ((index.keys == 0) != (index.rows == 0)).any()
        or index.keys[buckets:].any()
        or index.stash_keys[stashed:].any()
        or index.stash_rows[stashed:].any()
    )

"""The logical content of a state in one order: rows by key, references as the keys that they mean, nothing derived."""

import hashlib
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.state import State
from thalweg.operators.joiner import Status, list_feedback
from thalweg.operators.machine.declare import Declared, walk
from thalweg.operators.structures.pool import Stock
from thalweg.operators.structures.table import Table, rows_by_key
from thalweg.operators.structures.texts import read_texts

Array = npt.NDArray[Any]
LAST = ("waiting.length", "waiting.feedback_count", "waiting.feedbacks.")  # behind what impressions were scored with


def digest(state: State) -> str:
    """Return the SHA-256 of the state's logical content: nothing in it depends on where a row happens to lie."""
    sha = hashlib.sha256()
    rows = Rows(state)
    for each in sorted(walk(state), key=lambda each: each.path.startswith(LAST)):
        if each.field.digest:
            _add(sha.update, state, each, getattr(rows, each.field.over or str(each.field.shape[0]), None))
    return sha.hexdigest()


class Rows:
    """The rows in use in an order that does not depend on where they are, by what indexes them."""

    def __init__(self, state: State) -> None:
        """Look at a state; an order is found when it is asked for."""
        self._state = state

    @cached_property
    def values(self) -> Array:
        """Values by their keys."""
        return rows_by_key(self._state.features)

    @cached_property
    def users(self) -> Array:
        """Users by their keys."""
        return rows_by_key(self._state.users)

    @cached_property
    def cross_pairs(self) -> Array:
        """Pairs by their keys."""
        return rows_by_key(self._state.cross.pairs)

    @cached_property
    def fact_items(self) -> Array:
        """Items with facts by their keys."""
        return rows_by_key(self._state.facts.items)

    @cached_property
    def slots(self) -> Array:
        """Impressions by their keys."""
        waiting = self._state.waiting
        slots = np.flatnonzero(waiting.status[: int(waiting.pool.counts[Stock.EVER_USED])] != Status.FREE)
        return slots[np.argsort(waiting.key[slots], kind="stable")]

    @cached_property
    def scored(self) -> Array:
        """Impressions that have come: an early one has feedback only."""
        scored: Array = self.slots[self._state.waiting.length[self.slots] > 0]
        return scored

    @cached_property
    def nodes(self) -> Array:
        """Feedback, impression by impression."""
        waiting = self._state.waiting
        nodes = np.zeros(int(waiting.feedback_count[self.slots].sum()), np.int64)
        list_feedback(waiting.feedbacks, waiting.feedback[self.slots], nodes)
        return nodes

    @cached_property
    def histories(self) -> Array:
        """Long histories, user by user."""
        history = self._state.behaviors.history[self.users].ravel()
        return history[history > 0] - 1


class _Gathered:
    """A named tuple's arrays at some rows."""

    def __init__(self, owner: Any, rows: Array) -> None:
        self._owner, self._rows = owner, rows

    def __getattr__(self, name: str) -> Array:
        gathered: Array = getattr(self._owner, name)[self._rows]
        return gathered


def _add(update: Callable[[Any], object], state: State, each: Declared, rows: Array | None) -> None:
    """Add what the digest sees of an array, at these rows or, where they are None, all of it."""
    field = each.field
    if rows is None:
        update(np.ascontiguousarray(each.array if field.seen_as is None else field.seen_as(each.owner)))
        return
    gathered = _Gathered(each.owner, rows)
    seen = each.array[rows] if field.seen_as is None else field.seen_as(gathered)
    if field.refers:
        members = state.cross.pairs if field.refers == "cross_pairs" else state.features
        seen = _keys_of(members, seen, gathered.generation)
    if field.where is not None:
        seen = np.where(field.where(gathered), seen, seen.dtype.type(0))
    update(np.ascontiguousarray(seen))
    if field.text:
        out = np.zeros(int(seen.sum()), np.uint8)
        kept_in = getattr(each.owner, "texts", state.waiting.texts)
        read_texts(kept_in, getattr(gathered, field.text), seen, out)
        update(out)


def _keys_of(members: Table, row: Array, generation: Array) -> Array:
    """Return the keys that remembered rows mean, 0 where they are gone."""
    known = row >= 0
    at = np.where(known, row, 0)
    current = known & (members.generation[at] == generation)
    return np.where(current, members.key[at], np.uint64(0))

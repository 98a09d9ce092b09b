"""The logical content of a state in one order: rows by key, references as the keys that they mean, nothing derived."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.fold.state import State
from thalweg.operators.ftrl import INITIAL
from thalweg.operators.joiner import CLOSED, FREE, list_feedback
from thalweg.operators.structures.table import Table, rows_by_key
from thalweg.operators.structures.texts import read_texts

Update = Callable[[Any], object]
Array = npt.NDArray[Any]


def digest(state: State) -> str:
    """Return the SHA-256 of the state's logical content: nothing in it depends on where a row happens to lie."""
    sha = hashlib.sha256()
    _add_state(sha.update, state)
    return sha.hexdigest()


def _add_state(update: Update, state: State) -> None:
    _add(update, state.names, *state.clock, state.fates, state.tallies)
    features = _add_table(update, state.features)
    learner = state.learner
    _add(update, np.delete(learner.features[features], INITIAL, axis=1), learner.rates.sums[features])
    _add(update, learner.rates.at_ms[features], learner.rates.overall, learner.rates.overall_at_ms)
    _add(update, learner.pairs, learner.dense)
    _add(update, *state.admission, *state.memory, *state.delays)
    users = _add_table(update, state.users)
    _add_behaviors(update, state, users)
    _add_waiting(update, state)


def _add(update: Update, *arrays: Array) -> None:
    for array in arrays:
        update(np.ascontiguousarray(array))


def _add_table(update: Update, table: Table) -> Array:
    rows = rows_by_key(table)
    _add(update, table.key[rows], table.list_of[rows], table.updated_ms[rows], table.linked[rows], table.counts)
    return rows


def _keys_of(state: State, row: Array, generation: Array) -> Array:
    """Return the keys that remembered rows mean, 0 where they are gone."""
    known = row >= 0
    at = np.where(known, row, 0)
    current = known & (state.features.generation[at] == generation)
    return np.where(current, state.features.key[at], np.uint64(0))


def _add_behaviors(update: Update, state: State, users: Array) -> None:
    behaviors = state.behaviors
    count = behaviors.counts[users]
    keys = _keys_of(state, behaviors.row[users], behaviors.generation[users])
    places = np.arange(behaviors.row.shape[2])
    empty = places >= np.minimum(count, len(places))[:, :, None]
    keys[empty] = 0
    _add(
        update,
        behaviors.shown[users],
        behaviors.shown_ms[users],
        count,
        keys,
        np.where(empty, 0, behaviors.ts_ms[users]),
    )
    history = behaviors.history[users].ravel()
    long = history[history > 0] - 1
    histories = behaviors.histories
    _add(update, history > 0, histories.sums[long], histories.unit[long])
    _add(
        update, histories.lengths[long], histories.started_ms[long], histories.newest_ms[long], histories.current[long]
    )


def _add_waiting(update: Update, state: State) -> None:
    waiting = state.waiting
    slots = np.flatnonzero(waiting.status[: int(waiting.pool.counts[0])] != FREE)
    slots = slots[np.argsort(waiting.key[slots], kind="stable")]
    _add(update, waiting.key[slots], waiting.user_key[slots], waiting.status[slots], waiting.label[slots])
    closed = waiting.status[slots] == CLOSED
    _add(update, np.where(closed, waiting.closed_ms[slots], 0))
    _add(update, waiting.deadlines.deadline_ms[slots], waiting.deadlines.arrival[slots])
    provisional = waiting.provisional.place[slots] > 0
    _add(update, provisional, np.where(provisional, waiting.provisional.deadline_ms[slots], 0), waiting.learned[slots])
    scored = slots[waiting.length[slots] > 0]
    _add(update, waiting.offset[scored], waiting.ts_ms[scored], waiting.scores[scored])
    seen = state.seen
    beyond = np.arange(seen.row.shape[1]) >= seen.counts[scored][:, None]
    keys = _keys_of(state, seen.row[scored], seen.generation[scored])
    _add(update, seen.counts[scored], np.where(beyond, 0, seen.field[scored]), np.where(beyond, 0, keys))
    _add(
        update,
        seen.inputs[scored],
        *(part[scored] for part in state.recalled),
    )
    _add_texts(update, state, waiting.text[slots], waiting.length[slots])
    feedbacks = waiting.feedbacks
    nodes = np.zeros(int(waiting.feedback_count[slots].sum()), np.int64)
    list_feedback(feedbacks, waiting.feedback[slots], nodes)
    _add(update, waiting.feedback_count[slots], feedbacks.key[nodes], feedbacks.offset[nodes], feedbacks.ts_ms[nodes])
    _add(update, feedbacks.positive[nodes], feedbacks.window_ms[nodes])
    _add_texts(update, state, feedbacks.text[nodes], feedbacks.length[nodes])


def _add_texts(update: Update, state: State, head: Array, length: Array) -> None:
    out = np.zeros(int(length.sum()), np.uint8)
    read_texts(state.waiting.texts, head, length, out)
    _add(update, length, out)

"""What the fold will read soon, fetched ahead: rows of large tables are anywhere in memory."""

import numpy as np
import numpy.typing as npt
from thalweg.operators import behaviors, cross, cross_pairs, error_memory, ftrl, pairs_ahead, rates
from thalweg.operators.derived import DerivedValues
from thalweg.operators.fold.columns import Columns, Kind
from thalweg.operators.fold.state import Scratch, State
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.structures import deadlines, index, ownership

LINE_INPUTS = 16  # float32 in a cache line


@compiled
def prefetch_events(state: State, scratch: Scratch, columns: Columns, event: int) -> None:
    """Ask for what the next events will read: where ids will be looked for, two ahead; their rows, one ahead.

    Also for the rows of impressions whose labels are due next.
    """
    prefetch_due(state, scratch)
    following = event + 2
    has_pairs = cross.is_on(state.cross)
    if following < columns.kind.shape[0]:
        index.prefetch_key(state.users.lookup, columns.user[following])
        is_feedback = columns.kind[following] == Kind.FEEDBACK
        index.prefetch_key(
            state.waiting.lookup, columns.impression[following] if is_feedback else columns.key[following]
        )
        for value in range(columns.value_start[following], columns.value_start[following + 1]):
            index.prefetch_key(state.features.lookup, columns.value_key[value])
        if has_pairs:
            field, keys = values_of(columns, following)
            pairs_ahead.prefetch_pairs(state.cross, scratch.cross, field, keys, False)
    if event + 1 < columns.kind.shape[0]:
        user = index.find(state.users.lookup, columns.user[event + 1])
        if user >= 0:
            behaviors.prefetch_user(state.behaviors, user)
            prefetch(state.visits.shown, user)
            ownership.prefetch_owner(state.user_rows, user)
            ownership.prefetch_owner(state.cross.owners, user)
        for value in range(columns.value_start[event + 1], columns.value_start[event + 2]):
            prefetch_value(state, index.find(state.features.lookup, columns.value_key[value]))
        if has_pairs:
            field, keys = values_of(columns, event + 1)
            pairs_ahead.prefetch_pairs(state.cross, scratch.cross, field, keys, True)


@compiled
def values_of(columns: Columns, event: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint64]]:
    """Return the fields and the keys of an event's values, both [values]."""
    start, end = columns.value_start[event], columns.value_start[event + 1]
    return columns.value_field[start:end], columns.value_key[start:end]


@compiled
def prefetch_derived(state: State, values: DerivedValues, user: int) -> None:
    """Ask for where an impression's derived values are looked for, and for what changes where the user's are new."""
    for value in range(values.size[0]):
        index.prefetch_key(state.features.lookup, values.key[value])
    ownership.prefetch_newest(state.user_rows, user)
    ownership.prefetch_newest(state.cross.owners, user)


@compiled
def prefetch_found(state: State, values: DerivedValues) -> None:
    """Ask for the rows of an impression's derived values."""
    for value in range(values.size[0]):
        prefetch_value(state, int64(index.find(state.features.lookup, values.key[value])))


@compiled
def prefetch_candidates(state: State, columns: Columns, candidate: int, end: int) -> None:
    """Ask for what the candidates behind this one will read: where items will be looked for, and their rows."""
    if candidate + 4 < end:
        index.prefetch_key(state.features.lookup, columns.candidate_item[candidate + 4])
    if candidate + 2 < end:
        row = int64(index.find(state.features.lookup, columns.candidate_item[candidate + 2]))
        prefetch_value(state, row)


@compiled
def prefetch_pairs_ahead(
    state: State, scratch: Scratch, columns: Columns, candidate: int, end: int, is_alike: bool
) -> None:
    """Ask for the pairs of the next two candidates, if they differ from this one in the item alone.

    Unless it `is_alike`, nothing is noted of the next one yet.
    """
    if not cross.is_on(state.cross):
        return
    item, keys = columns.candidate_item, scratch.keys
    if candidate + 1 < end:
        if not is_alike:
            pairs_ahead.note_keys(state.cross, scratch.cross, candidate + 1, item[candidate + 1], keys)
        pairs_ahead.find_rows(state.cross, scratch.cross, candidate + 1)
    if candidate + 2 < end:
        pairs_ahead.note_keys(state.cross, scratch.cross, candidate + 2, item[candidate + 2], keys)


@compiled
def prefetch_value(state: State, row: int) -> None:
    """Ask for what is read of a value when it is scored; -1 is none."""
    if row >= 0:
        prefetch(state.features.key, row)  # and what else the table has of it
        prefetch(state.learner.rates.sums, row)
        prefetch(state.learner.features, row)
        prefetch(state.cross.embedded.parts, row)
        prefetch(state.cross.embedded.before, row)  # the second line of the same
        prefetch_heads(state, row)


@compiled
def prefetch_heads(state: State, row: int) -> None:
    """Ask for what the heads have of a value."""
    count = state.heads.mix.shape[0]
    if count > 0:
        for head in range(count):
            prefetch(state.heads.rates[row], head)
        prefetch(state.heads.rates[row, count - 1], rates.SUMS - 1)  # a row begins anywhere in a cache line
        prefetch(state.heads.rates_at_ms, row)
        prefetch(state.heads.weights, row)
        prefetch(state.heads.weights[row], ftrl.PARTS - 1)
        prefetch(state.heads.network, row)
        prefetch(state.heads.network[row], count - 1)


@compiled
def prefetch_slot(state: State, slot: int) -> None:
    """Ask for what will be read of an impression when its window closes; -1 is none."""
    if slot >= 0:
        seen = state.features_seen
        prefetch(seen.counts, slot)
        prefetch(seen.row, slot)
        prefetch(seen.field, slot)
        prefetch(seen.generation, slot)
        prefetch(state.waiting.scores, slot)
        prefetch(state.waiting.label, slot)
        prefetch(state.cross.pairs_seen.row, slot)
        prefetch(state.cross.pairs_seen.generation, slot)
        for part in range(0, state.memory_reads.keyed.shape[1], LINE_INPUTS):
            prefetch(state.memory_reads.keyed[slot], part)
            prefetch(state.memory_reads.before[slot], part)
            prefetch(state.memory_reads.estimate[slot], part)
        for part in range(0, seen.inputs.shape[1], LINE_INPUTS):
            prefetch(seen.inputs[slot], part)


@compiled
def prefetch_due(state: State, scratch: Scratch) -> None:
    """Ask for the rows of the impressions whose labels are due next, unless they were asked for."""
    waiting = state.waiting
    for which in range(2):
        slot = deadlines.next_due(waiting.provisional if which == 0 else waiting.deadlines)
        if slot >= 0 and scratch.asked[which] != slot:
            scratch.asked[which] = slot
            prefetch_rows(state, slot)


@compiled
def prefetch_rows(state: State, slot: int) -> None:
    """Ask for the rows that will learn from an impression, all cache lines of each, and the errors near it."""
    error_memory.prefetch_errors(state.memory, state.memory_reads, slot)
    cross_pairs.prefetch_pairs(state.cross, slot)
    for value in range(state.features_seen.counts[slot]):
        prefetch_learned(state, int64(state.features_seen.row[slot, value]))


@compiled
def prefetch_learned(state: State, row: int) -> None:
    """Ask for what is read and written of a value when it learns; -1 is none."""
    if row >= 0:
        prefetch(state.features.generation, row)
        coordinates = state.learner.features[row]
        for part in range(coordinates.shape[0]):
            prefetch(coordinates, part)
        prefetch(state.cross.embedded.parts, row)
        prefetch(state.cross.embedded.before, row)
        prefetch_heads(state, row)

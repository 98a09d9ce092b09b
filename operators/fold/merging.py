"""A merge arrives: what other partitions taught is learned, up to where it names, through the code of own steps.

The fold stops at a merge that names lessons it has not learned, and resumes behind them: its caller brings the
bytes (`learn_lessons`). A lesson is read into the spare slot, as a request's candidate is. Its private values get spare
rows that are emptied again. It moves no stream time. Where something decays it is learned at its own time.
"""

from enum import IntEnum

import numpy as np
import numpy.typing as npt
from thalweg.operators import (
    clock,
    cross,
    cross_pairs,
    cross_statistics,
    delay,
    derived,
    error_memory,
    features,
    ftrl,
    joiner,
    lessons,
    pages,
)
from thalweg.operators.features import Value
from thalweg.operators.fold import fates, layout, learning, prefetching, ranking, reading, scoring
from thalweg.operators.fold.columns import Columns
from thalweg.operators.fold.emitted import Emitted, Made, dead_letter, set_fate
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.learning import Step
from thalweg.operators.fold.state import Parameters, Scratch, State
from thalweg.operators.joiner import Score
from thalweg.operators.lessons import UNKNOWN, At, Flag, Head
from thalweg.operators.machine.compiled import clear, compiled, float64, int64, uint64
from thalweg.operators.machine.lanes import LANES
from thalweg.operators.machine.numerics import log_odds
from thalweg.operators.pages import Moment
from thalweg.operators.structures import index, table

BEGINS = -1
"""In place of an entry: the merge names another partition's shared part, which comes first."""


class Learned(IntEnum):
    """How far lessons could be learned."""

    ALL = 0
    DAMAGED = 1
    OTHER_LAYOUT = 2
    MISSING = 3


@compiled
def on_merge(state: State, parameters: Parameters, columns: Columns, emitted: Emitted, event: int) -> bool:
    """Return whether all is learned that a merge names; if not, `emitted` names the entry that comes next."""
    first, last = columns.merge_start[event], columns.merge_start[event + 1]
    for entry in range(first, last):
        if columns.merge_source[entry] >= state.lessons.learned.shape[0]:
            dead_letter(state, emitted, event, fates.UNKNOWN_SOURCE)
            return True
    if parameters.lessons.is_ignored:
        set_fate(state, emitted, event, Fate.IGNORED)
        return True
    if columns.merge_begins[event] != 0 and state.lessons.begun[0] == 0:
        emitted.counts[Made.MERGE] = BEGINS
        return False
    for entry in range(first, last):
        source, upto = columns.merge_source[entry], columns.merge_upto[entry]
        if source != parameters.lessons.own and upto > state.lessons.learned[source]:
            if columns.merge_passed[entry] == 0:
                emitted.counts[Made.MERGE] = entry + 1
                return False
            state.lessons.learned[source] = upto
    state.lessons.begun[0] = 1
    set_fate(state, emitted, event, Fate.MERGED)
    return True


@compiled
def claim_rows(state: State, columns: Columns, is_pairs: int) -> None:
    """Give keys (`columns.user`) of another partition their rows here, in this order, and write these to its offsets.

    A value's field is its `columns.kind`, when it was updated its `ts_ms`. -1: there is no room.
    """
    for place in range(columns.user.shape[0]):
        key, now_ms = columns.user[place], columns.ts_ms[place]
        if is_pairs != 0:
            columns.offset[place] = row_for(state.cross.pairs, key, int64(0), now_ms)
        else:
            columns.offset[place] = row_for(state.features, key, int64(columns.kind[place]), now_ms)


@compiled
def row_for(members: table.Table, key: int, field: int, now_ms: int) -> int:
    """Return a key's row, made where there is none; -1 where there is no room."""
    row = int64(index.find(members.lookup, key))
    return row if row >= 0 else int64(table.claim_row(members, key, field, now_ms))


@compiled
def learn_lessons(state: State, parameters: Parameters, scratch: Scratch, columns: Columns) -> int:
    """Learn lessons of the first partition that `columns` merge, up to there, from batches in their text: `Learned`."""
    source, upto, data = columns.merge_source[0], columns.merge_upto[0], columns.text
    at = int64(0)
    while at < data.shape[0]:
        end = end_of_batch(data, at, source)
        if end < 0:
            return int64(Learned.DAMAGED)
        if lessons.take(data, at + Head.LAYOUT, 8) != parameters.lessons.layout:
            return int64(Learned.OTHER_LAYOUT)
        find_places(state, parameters, scratch.lessons.places, data, at)
        prefetch_batches(state, scratch, data, end)
        number = lessons.take(data, at + Head.FIRST, 8)
        place = at + Head.END + lessons.NAME_BYTES * lessons.take(data, at + Head.NAMES, 1)
        for _ in range(lessons.take(data, at + Head.COUNT, 4)):
            length = length_of_lesson(state, scratch, data, place, end)
            if length < 0:
                return int64(Learned.DAMAGED)
            if number > upto:
                return int64(Learned.ALL)
            if number > state.lessons.learned[source]:
                if number != state.lessons.learned[source] + 1:
                    return int64(Learned.MISSING)
                hear(state, parameters, data, place, source)
                if lessons.take(data, place + At.FLAGS, 1) & Flag.HEARD == 0:
                    learn_lesson(state, parameters, scratch, data, place, page_of(state, source, number))
                state.lessons.learned[source] = number
            place += length
            number += 1
        at = end
    return int64(Learned.ALL)


@compiled
def hear(state: State, parameters: Parameters, data: npt.NDArray[np.uint8], at: int, source: int) -> None:
    """Take from a lesson how far its partition is in time and, where it has one, how long a positive took."""
    now_ms, ahead_ms = lessons.take(data, at + At.TIME, 8), lessons.take(data, at + At.AHEAD, 4)
    state.lessons.heard_ms[source] = now_ms + ahead_ms - ((ahead_ms >> 31) << 32)
    if lessons.take(data, at + At.FLAGS, 1) & Flag.HEARD != 0:
        window_ms, share = parameters.joiner.attribution_window_ms, parameters.joiner.provisional_share
        delay.count_delay(state.delays, lessons.take(data, at + At.DELAY, 4), now_ms, window_ms, share)


@compiled
def settle_due(state: State) -> None:
    """Let provisional labels be due by the latest time that more than half of the partitions have heard of."""
    heard_ms, own_ms = state.lessons.heard_ms, clock.heard_last_ms(state.clock)
    count, found_ms = int64(1), int64(0)
    for source in range(heard_ms.shape[0]):
        count += int64(heard_ms[source] > 0)
    for source in range(-1, heard_ms.shape[0]):
        ms = own_ms if source < 0 else heard_ms[source]
        if ms > found_ms:
            reached = int64(own_ms >= ms)
            for other in range(heard_ms.shape[0]):
                reached += int64(heard_ms[other] >= ms)
            if 2 * reached > count:
                found_ms = ms
    state.lessons.due_ms[0] = found_ms


@compiled
def end_of_batch(data: npt.NDArray[np.uint8], at: int, source: int) -> int:
    """Return where a batch of a partition's lessons ends; -1 where none begins."""
    if at + Head.END > data.shape[0] or lessons.take(data, at, 2) != lessons.MAGIC:
        return int64(-1)
    end = at + lessons.take(data, at + Head.LENGTH, 4)
    least = Head.END + lessons.NAME_BYTES * lessons.take(data, at + Head.NAMES, 1)
    is_ours = (
        lessons.take(data, at + Head.SOURCE, 4) == source
        and lessons.take(data, at + Head.VERSION, 1) == lessons.VERSION
    )
    return end if is_ours and at + least <= end <= data.shape[0] else int64(-1)


@compiled
def length_of_lesson(state: State, scratch: Scratch, data: npt.NDArray[np.uint8], at: int, end: int) -> int:
    """Return the length of a lesson of which each byte is accounted for; -1 where that is not so."""
    if at + At.HEARD_END > end:
        return int64(-1)
    length = lessons.take(data, at, 2)
    if lessons.take(data, at + At.FLAGS, 1) & Flag.HEARD != 0:
        return length if length == At.HEARD_END else int64(-1)
    if at + At.END > end:
        return int64(-1)
    private, shared = lessons.take(data, at + At.PRIVATE, 1), lessons.take(data, at + At.SHARED, 2)
    each = 1 + lessons.HALF_BYTES * scratch.lessons.halves.shape[0]
    blocks = scratch.lessons.inputs.shape[0] // LANES
    recalled = At.END + 4 * state.memory_reads.near.shape[1]
    memories = scratch.lessons.memories.shape[0]
    if at + recalled + (memories + 7) // 8 > end:
        return int64(-1)
    bits = recalled + lessons.length_of_memories(data, at + recalled, memories)
    bits += private * each + shared * lessons.VALUE_BYTES
    whole = bits + (blocks + 7) // 8
    if whole > length or at + length > end or private + shared > state.features_seen.row.shape[1]:
        return int64(-1)
    for block in range(blocks):
        if (data[at + bits + block // 8] >> np.uint8(block % 8)) & np.uint8(1):
            whole += LANES * lessons.HALF_BYTES
    return length if whole == length else int64(-1)


@compiled
def prefetch_batches(state: State, scratch: Scratch, data: npt.NDArray[np.uint8], at: int) -> None:
    """Ask for what the first lesson of the batch at this place will read, and where ids of the one behind are found."""
    for ahead in range(2):
        if at + Head.END > data.shape[0]:
            return
        place = at + Head.END + lessons.NAME_BYTES * lessons.take(data, at + Head.NAMES, 1)
        end = at + lessons.take(data, at + Head.LENGTH, 4)
        if end > data.shape[0] or length_of_lesson(state, scratch, data, place, end) < 0:
            return
        at = end
        if lessons.take(data, place + At.FLAGS, 1) & Flag.HEARD != 0:
            continue
        each = 1 + lessons.HALF_BYTES * scratch.lessons.halves.shape[0]
        values = place + At.END + 4 * state.memory_reads.near.shape[1]
        values += lessons.length_of_memories(data, values, scratch.lessons.memories.shape[0])
        values += lessons.take(data, place + At.PRIVATE, 1) * each
        for value in range(lessons.take(data, place + At.SHARED, 2)):
            key = lessons.take_key(data, values + lessons.VALUE_BYTES * value + 1, 8)
            if ahead == 0:
                prefetching.prefetch_learned(state, int64(index.find(state.features.lookup, key)))
            else:
                index.prefetch_key(state.features.lookup, key)


@compiled
def find_places(
    state: State, parameters: Parameters, places: npt.NDArray[np.int64], data: npt.NDArray[np.uint8], at: int
) -> None:
    """Write the own place of each field that a batch's lessons may have; one that was not met here has none."""
    p = parameters.lessons
    derived_from = layout.first_derived(state.learner)
    names = lessons.take(data, at + Head.NAMES, 1)
    for field in range(places.shape[0]):
        places[field] = field if field < p.declared or field >= derived_from else UNKNOWN
        if p.declared <= field < min(p.declared + names, derived_from):
            name = lessons.take(data, at + Head.END + lessons.NAME_BYTES * (field - p.declared), 4)
            if name == p.names[field]:
                places[field] = field
                continue
            for own in range(p.declared, derived_from):
                if name == p.names[own]:
                    places[field] = own


@compiled
def page_of(state: State, source: int, number: int) -> int:
    """Return what stands for the page of a lesson: below all arrivals, and no other's."""
    return int64(pages.NO_PAGE - 1 - source - number * state.lessons.learned.shape[0])


@compiled
def learn_lesson(
    state: State, parameters: Parameters, scratch: Scratch, data: npt.NDArray[np.uint8], at: int, page: int
) -> None:
    """Learn one lesson, whose bytes are whole; its exposure is a page by itself."""
    slot = ranking.spare_slot(state)
    scores, now_ms = state.waiting.scores[slot], lessons.take(data, at + At.TIME, 8)
    flags, learned = lessons.take(data, at + At.FLAGS, 1), lessons.take_float(data, at + At.LEARNED)
    scores[Score.MODEL] = lessons.take_float(data, at + At.MODEL)
    scores[Score.BASE] = lessons.take_float(data, at + At.BASE)
    state.waiting.users.owner[slot] = 0
    state.waiting.learned[slot] = learned
    is_first = learned == joiner.UNLEARNED and flags & Flag.LATE == 0
    end = read_memory(state, parameters, scratch, slot, data, at + At.END)
    end = read_values(state, parameters, scratch, data, at, end, page if is_first else int64(pages.NO_PAGE))
    lessons.take_inputs(data, end, scratch.lessons.inputs)
    place_inputs(state, scratch, slot)
    resolve_rest(state, parameters, scratch, slot, Moment(now_ms, page, int64(0)), is_first)
    step = Step(
        float64(lessons.take_float(data, at + At.LABEL)),
        now_ms,
        float64(lessons.take_float(data, at + At.WEIGHT)),
        flags & Flag.LEARNED != 0,
    )
    learning.drop_gone(state, parameters, slot, int64(state.clock.stream_time_ms[0]))
    if flags & Flag.LATE != 0:
        learning.take_late_label(state, parameters, scratch, slot, step)
    else:
        learning.take_label(state, parameters, scratch, slot, step)
    reading.forget_foreseen(state, slot)


@compiled
def read_memory(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, data: npt.NDArray[np.uint8], at: int
) -> int:
    """Read what the teacher read of its error memory when it served the impression, and return where it ends."""
    reads, most = state.memory_reads, state.memory.buckets.shape[1] - 1
    for k in range(reads.near.shape[1]):
        reads.near[slot, k] = min(lessons.take(data, at + 4 * k, 4), most)
    before, estimate = reads.before[slot], reads.estimate[slot]
    clear(estimate)
    base = scoring.base_of(state, parameters, slot)
    for which in range(before.shape[0]):
        before[which] = base
    end = at + 4 * int64(reads.near.shape[1])
    return lessons.take_memories(data, end, scratch.lessons.memories, before, estimate)


@compiled
def read_values(
    state: State,
    parameters: Parameters,
    scratch: Scratch,
    data: npt.NDArray[np.uint8],
    at: int,
    place: int,
    page: int,
) -> int:
    """Read the values of a lesson that begins `at`, its values at `place`, into the spare slot; return where they end.

    The user is the first and the item the second, as in any slot. Others have a row where they are admitted; they are
    seen on a `page` where the lesson is the first of its impression. `scratch.keys` gets the keys that the error memory
    goes by.
    """
    slot, seen, fields = ranking.spare_slot(state), state.features_seen, scratch.lessons.places.shape[0]
    private, shared = lessons.take(data, at + At.PRIVATE, 1), lessons.take(data, at + At.SHARED, 2)
    put_row(state, slot, 0, features.USER, table.NONE)
    count = int64(1)
    others = 1 + shared
    for _ in range(private):
        field = lessons.take(data, place, 1)
        place = lessons.take_halves(data, place + 1, scratch.lessons.halves)
        own = scratch.lessons.places[field] if field < fields else int64(UNKNOWN)
        if own != UNKNOWN and others < seen.row.shape[1] + int64(own == features.USER):
            to = int64(0) if own == features.USER else others
            row = table.spare_row(state.features, to)
            start_private(state, scratch.lessons.halves, row)
            put_row(state, slot, to, own, row)
            others += int64(to != 0)
    clear(scratch.keys)
    recent = int64(0)
    for _ in range(shared):
        field, key = lessons.take(data, place, 1), lessons.take_key(data, place + 1, 8)
        place += lessons.VALUE_BYTES
        own = scratch.lessons.places[field] if field < fields else int64(UNKNOWN)
        row = int64(table.NONE)
        if own != UNKNOWN and key != uint64(0):
            row = row_of(state, parameters, Value(key, own, int64(-1)), page)
            recent = keep_key(state, parameters, scratch.keys, own, key, recent)
        put_row(state, slot, count, own if own != UNKNOWN else int64(features.ITEM), row)
        count += 1
    seen.counts[slot] = others
    return place


@compiled
def put_row(state: State, slot: int, place: int, field: int, row: int) -> None:
    """Put a value into its place in a slot, by its row or, where it has none, -1."""
    seen = state.features_seen
    seen.field[slot, place] = field
    seen.row[slot, place] = row
    seen.generation[slot, place] = state.features.generation[row] if row >= 0 else np.uint32(0)


@compiled
def row_of(state: State, parameters: Parameters, value: Value, page: int) -> int:
    """Return the row of a value that others have seen: one more sighting on a page, if any; -1 while not admitted."""
    moment = reading.moment_on(state, parameters, page)
    if page != pages.NO_PAGE:
        return reading.ensure_row(state, parameters, value, moment)
    return int64(table.find_row(state.features, value.key, moment.now_ms, parameters.expire_time_ms))


@compiled
def keep_key(
    state: State, parameters: Parameters, keys: npt.NDArray[np.uint64], field: int, key: int, recent: int
) -> int:
    """Write a value's key to where the error memory looks for it; return how many recent items there were so far."""
    first = layout.first_derived(state.learner)
    if field >= first:
        if field - first == derived.Derived.RECENT:
            if recent < parameters.derived.recent_items:
                keys[first + recent] = key
            return recent + 1
        if field - first != derived.Derived.SHOWN:
            keys[field - derived.Derived.USER_GAP + parameters.derived.recent_items] = key
        return recent
    for which in range(parameters.crosses.field.shape[0]):
        if parameters.crosses.field[which] == field:
            return recent
    if keys[field] == 0:
        keys[field] = key
    return recent


@compiled
def start_private(state: State, numbers: npt.NDArray[np.float32], row: int) -> None:
    """Give a spare row what a private value is to a step, as `teaching.write_private` wrote it."""
    weights = state.learner.features[row, ftrl.Part.WEIGHT]
    size = weights.shape[0]
    for i in range(size):
        weights[i] = numbers[i]
    if cross.is_on(state.cross):
        parts = state.cross.embedded.parts[row]
        parts[cross.LIN] = numbers[size]
        for i in range(LANES):
            parts[i] = numbers[size + 1 + i]


@compiled
def place_inputs(state: State, scratch: Scratch, slot: int) -> None:
    """Write a lesson's inputs to the slot, those of each field at its own place."""
    inputs, found = state.features_seen.inputs[slot], scratch.lessons.inputs
    places = scratch.lessons.places
    clear(inputs)
    fields = state.learner.pairs.shape[0]
    for field in range(fields):
        own = places[field]
        if own != UNKNOWN:
            inputs[2 * own] = found[2 * field]
            inputs[2 * own + 1] = found[2 * field + 1]
    start = layout.statistics_start(state.cross, inputs.shape[0])
    pairs = min(start + 2 * LANES, inputs.shape[0])
    for i in range(2 * fields, pairs):
        inputs[i] = found[i]
    if cross.is_on(state.cross):
        for field in range(2, cross.paired_of(scratch.cross)):
            own = places[field]
            if own != UNKNOWN:
                for i in range(cross.OF_PAIRS):
                    at = cross.OF_PAIRS * (field - 2) + i
                    inputs[pairs + at + cross.OF_PAIRS * (own - field)] = found[pairs + at]


@compiled
def resolve_rest(
    state: State, parameters: Parameters, scratch: Scratch, slot: int, moment: Moment, is_first: bool
) -> None:
    """Find the item's pairs and what the error memory has of the lesson; where it `is_first`, count the exposure."""
    rows = state.features_seen.row[slot]
    if cross.is_on(state.cross):
        cross_pairs.see_no_pairs(state.cross, slot)
        cross_pairs.resolve_shared_pairs(state.cross, scratch.cross, slot, rows, scratch.keys, moment, is_first)
        if is_first:
            cross_statistics.count_shown(state.cross, slot, rows, moment)
    logit = log_odds(scoring.base_of(state, parameters, slot))
    error_memory.locate_keyed(state.memory, state.memory_reads, slot, parameters.memory, scratch.keys, logit, False)

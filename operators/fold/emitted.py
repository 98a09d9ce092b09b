"""What the fold emits, as columns."""

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import clock
from thalweg.operators.configuration import Configuration
from thalweg.operators.facts import Filling, Size
from thalweg.operators.fold import fates
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.layout import error_memories, half_count, value_count
from thalweg.operators.fold.state import State
from thalweg.operators.heads import SCORE
from thalweg.operators.lessons import lesson_bytes
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.lanes import copy_bytes
from thalweg.operators.machine.reserve import reserve
from thalweg.operators.objectives import OBJECTIVES_MAX
from thalweg.operators.structures import texts
from thalweg.schemas.events import CAPS_MAX

EXAMPLES_AT_ONCE = 4_096
TEXT_AT_ONCE_BYTES = 1 << 22
LESSONS_AT_ONCE = 4_096
LESSONS_AT_ONCE_BYTES = 1 << 20
LESSONS_MARGIN = 4  # one step makes two at most
EXAMPLES_MARGIN = 2 * OBJECTIVES_MAX + 1  # a release and a feedback each make one for each objective, and one more


class Made(IntEnum):
    """What `Emitted.counts` counts. `UNSCORED` is a slot + 1, `MERGE` the place of what is to be learned + 1, `SHOWN` 1
    where a request is to take what it shows.
    """

    EXAMPLES = 0
    LETTERS = 1
    TEXT_BYTES = 2
    UNSCORED = 3
    LESSONS = 4
    LESSON_BYTES = 5
    MERGE = 6
    SHOWN = 7


class Ranked(IntEnum):
    """The numbers of a candidate: its score, the parts of it in log-odds where they are logits, and its exposures.

    These are the item's whose outcome is known.
    """

    SCORE = 0
    MODEL = 1
    CORRECTION = 2
    OVERALL = 3
    MACHINE = 4
    LINEAR = 5
    CROSS = 6
    EXPOSURES = 7


class Emitted(NamedTuple):
    """Room for what a block of n events makes, as columns.

    For each event: `fate`, `reason` uint8 [n]; `scores` float64 [n, 5] as `joiner.Waiting.scores`; `heads` float64 [n,
    heads], the scores of other objectives than the first; `inputs` float32 [n or 0, inputs], the features, where they
    are asked for. With them `filled_in` int64 [n or 0, 2], where the whole text lies that facts filled in. `counts`
    int64 [8] as `Made`. `UNSCORED` is of an impression that another model than the built-in one is to score. `MERGE` is
    of the entry in `Columns.merge_source` at which a merge waits for lessons. Examples, [e]: `example_cause`,
    `example_ordinal`, `example_offset` int64, `example_item` uint64, the item's key, `example_label`,
    `example_revision`, `example_learned` uint8, `example_scores`, `example_heads`, `example_labels`, `example_inputs`,
    `example_text` int64 [e, 2], where its text lies. Dead letters of earlier records, [k]: `letter_cause`,
    `letter_ordinal`, `letter_offset` int64, `letter_reason` uint8, `letter_text` int64 [k, 2]. `text` uint8. Lessons,
    where they are made: `lesson` int64 [l or 0, 4], cause, ordinal, number, and where it ends in `lesson_text` uint8.

    For each entry of `Columns.candidate_item`, [c or more]: `ranked` float64 [c, 8] as `Ranked`. `ranked_keys` uint64
    [c, 4]: the keys of its values in the capped fields, or 0. `ranked_seen` uint8: the user acted on the item lately;
    only of a request that drops these.
    `ranked_scores`
    float64 [c, objectives or 0]: the probability of each of several objectives.
    """

    fate: npt.NDArray[np.uint8]
    reason: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float64]
    heads: npt.NDArray[np.float64]
    inputs: npt.NDArray[np.float32]
    filled_in: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    example_cause: npt.NDArray[np.int64]
    example_ordinal: npt.NDArray[np.int64]
    example_offset: npt.NDArray[np.int64]
    example_item: npt.NDArray[np.uint64]
    example_label: npt.NDArray[np.uint8]
    example_revision: npt.NDArray[np.uint8]
    example_learned: npt.NDArray[np.uint8]
    example_scores: npt.NDArray[np.float64]
    example_heads: npt.NDArray[np.float64]
    example_labels: npt.NDArray[np.uint8]
    example_inputs: npt.NDArray[np.float32]
    example_text: npt.NDArray[np.int64]
    letter_cause: npt.NDArray[np.int64]
    letter_ordinal: npt.NDArray[np.int64]
    letter_offset: npt.NDArray[np.int64]
    letter_reason: npt.NDArray[np.uint8]
    letter_text: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]
    lesson: npt.NDArray[np.int64]
    lesson_text: npt.NDArray[np.uint8]
    ranked: npt.NDArray[np.float64]
    ranked_scores: npt.NDArray[np.float64]
    ranked_keys: npt.NDArray[np.uint64]
    ranked_seen: npt.NDArray[np.uint8]


@compiled
def copy_row(source: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Copy a row element by element: assigning it would ask for memory, which the fold may not."""
    for i in range(source.shape[0]):
        out[i] = source[i]


@compiled
def has_room(emitted: Emitted) -> bool:
    """Return whether everything that one more step can make has room."""
    counts = emitted.counts
    return bool(
        counts[Made.EXAMPLES] + EXAMPLES_MARGIN < emitted.example_cause.shape[0]
        and 2 * counts[Made.LETTERS] <= emitted.letter_cause.shape[0]
        and counts[Made.TEXT_BYTES] <= TEXT_AT_ONCE_BYTES
        and has_room_for_lessons(emitted)
    )


@compiled
def has_room_for_lessons(emitted: Emitted) -> bool:
    """Return whether the lessons that one more step can make have room; where none are made they always have."""
    counts = emitted.counts
    return bool(
        emitted.lesson.shape[0] == 0
        or (
            counts[Made.LESSONS] + LESSONS_MARGIN <= emitted.lesson.shape[0]
            and counts[Made.LESSON_BYTES] <= LESSONS_AT_ONCE_BYTES
        )
    )


def new_emitted(configuration: Configuration, events: int, inputs: int) -> Emitted:
    """Return room for what `events` events make, one more event than fits always included."""
    feedbacks = configuration.joiner.feedbacks_per_impression
    emits = events if configuration.features.emit else 0
    examples = EXAMPLES_AT_ONCE
    letters = 2 * feedbacks
    kept, heads = configuration.limits.kept_bytes, len(configuration.objectives.heads)
    # One step gives up what is kept of one impression: its feedback, which has no more text than there is room for.
    text = TEXT_AT_ONCE_BYTES + (3 + 2 * heads) * kept + min(feedbacks * kept, configuration.joiner.text_bytes)
    return Emitted(
        fate=np.zeros(events, np.uint8),
        reason=np.zeros(events, np.uint8),
        scores=np.zeros((events, 5)),
        heads=np.zeros((events, heads)),
        inputs=np.zeros((emits, inputs), np.float32),
        filled_in=np.zeros((emits, 2), np.int64),
        counts=np.zeros(len(Made), np.int64),
        example_cause=np.zeros(examples, np.int64),
        example_ordinal=np.zeros(examples, np.int64),
        example_offset=np.zeros(examples, np.int64),
        example_item=np.zeros(examples, np.uint64),
        example_label=np.zeros(examples, np.uint8),
        example_revision=np.zeros(examples, np.uint8),
        example_learned=np.zeros(examples, np.uint8),
        example_scores=np.zeros((examples, 5)),
        example_heads=np.zeros((examples, heads)),
        example_labels=np.zeros((examples, heads), np.uint8),
        example_inputs=np.zeros((examples, inputs), np.float32),
        example_text=np.zeros((examples, 2), np.int64),
        letter_cause=np.zeros(letters, np.int64),
        letter_ordinal=np.zeros(letters, np.int64),
        letter_offset=np.zeros(letters, np.int64),
        letter_reason=np.zeros(letters, np.uint8),
        letter_text=np.zeros((letters, 2), np.int64),
        text=reserve(text, np.uint8),
        lesson=np.zeros((LESSONS_AT_ONCE if configuration.lessons.enabled else 0, 4), np.int64),
        lesson_text=np.zeros(room_for_lessons(configuration, inputs), np.uint8),
        **room_for_candidates(0, heads),
    )


def room_for_lessons(configuration: Configuration, inputs: int) -> int:
    """Return how many bytes of room lessons get; none where they are not made."""
    if not configuration.lessons.enabled:
        return 0
    arrays, memories = configuration.error_memory.arrays, len(error_memories(configuration).first)
    most = lesson_bytes(value_count(configuration), inputs, half_count(configuration), arrays, memories)
    return LESSONS_AT_ONCE_BYTES + LESSONS_MARGIN * most


def room_for_candidates(candidates: int, heads: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of `Emitted` for so many candidates, and objectives but the first."""
    return {
        "ranked": np.zeros((candidates, len(Ranked))),
        "ranked_scores": np.zeros((candidates, heads + 1 if heads else 0)),
        "ranked_keys": np.zeros((candidates, CAPS_MAX), np.uint64),
        "ranked_seen": np.zeros(candidates, np.uint8),
    }


@compiled
def emit_example(state: State, emitted: Emitted, slot: int, revision: int, is_learned: bool) -> None:
    """Emit an impression with its outcome, and with the features as they were when it was scored."""
    waiting = state.waiting
    place = emitted.counts[Made.EXAMPLES]
    emitted.example_cause[place] = state.clock.offset[0]
    emitted.example_ordinal[place] = state.clock.ordinals[clock.Ordinal.EXAMPLES]
    emitted.example_offset[place] = waiting.offset[slot]
    emitted.example_item[place] = waiting.item_key[slot]
    emitted.example_label[place] = waiting.label[slot]
    emitted.example_revision[place] = revision
    emitted.example_learned[place] = is_learned
    copy_row(waiting.scores[slot], emitted.example_scores[place])
    for head in range(emitted.example_heads.shape[1]):
        emitted.example_heads[place, head] = state.heads.scores[slot, head, SCORE]
        emitted.example_labels[place, head] = waiting.labels[slot, head]
    copy_row(state.features_seen.inputs[slot], emitted.example_inputs[place])
    start = emitted.counts[Made.TEXT_BYTES]
    length = int64(waiting.length[slot])
    texts.read_text(waiting.texts, waiting.text[slot], length, emitted.text, start)
    emitted.example_text[place, 0] = start
    emitted.example_text[place, 1] = start + length
    emitted.counts[Made.TEXT_BYTES] = start + length
    emitted.counts[Made.EXAMPLES] = place + 1
    state.clock.ordinals[clock.Ordinal.EXAMPLES] += 1


@compiled
def emit_facts(emitted: Emitted, event: int, filling: Filling) -> None:
    """Emit the whole text of an impression that facts filled in, for its features."""
    start = emitted.counts[Made.TEXT_BYTES]
    end = start + filling.sizes[Size.WHOLE]
    copy_bytes(emitted.text, start, filling.text, 0, end - start)
    emitted.filled_in[event, 0] = start
    emitted.filled_in[event, 1] = end
    emitted.counts[Made.TEXT_BYTES] = end


@compiled
def emit_early_letter(state: State, emitted: Emitted, node: int) -> None:
    """Emit a feedback that waited for its impression and turned out to contradict it."""
    feedbacks = state.waiting.feedbacks
    place = emitted.counts[Made.LETTERS]
    emitted.letter_cause[place] = state.clock.offset[0]
    emitted.letter_ordinal[place] = state.clock.ordinals[clock.Ordinal.DEAD_LETTERS]
    emitted.letter_offset[place] = feedbacks.offset[node]
    emitted.letter_reason[place] = fates.USER_MISMATCH
    start = emitted.counts[Made.TEXT_BYTES]
    length = int64(feedbacks.length[node])
    texts.read_text(state.waiting.texts, feedbacks.text[node], length, emitted.text, start)
    emitted.letter_text[place, 0] = start
    emitted.letter_text[place, 1] = start + length
    emitted.counts[Made.TEXT_BYTES] = start + length
    emitted.counts[Made.LETTERS] = place + 1
    state.clock.ordinals[clock.Ordinal.DEAD_LETTERS] += 1


@compiled
def set_fate(state: State, emitted: Emitted, event: int, fate: int) -> None:
    """Give an event its fate."""
    emitted.fate[event] = fate
    state.fates[fate] += 1


@compiled
def dead_letter(state: State, emitted: Emitted, event: int, reason: int) -> None:
    """Give an event up, for a reason that goes with it to the dead letters."""
    emitted.reason[event] = reason
    set_fate(state, emitted, event, Fate.DEAD_LETTERED)

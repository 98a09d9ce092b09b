"""What the fold emits, as columns, and these columns as outputs on the wire."""

from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.fold.state import FATE_SCORED
from thalweg.operators.joiner import BASE, SCORE
from thalweg.operators.learner import DERIVED
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.reserve import reserve
from thalweg.schemas.kept import complete_example, kept_features, kept_user, unpack_record
from thalweg.schemas.origin import Origin
from thalweg.schemas.outputs import dead_letter_headers, encode_scores
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Cause, Headers, Output

EXAMPLE_COUNT, DEAD_LETTER_COUNT, TEXT_USED, UNSCORED = range(4)
EXAMPLES_AT_ONCE = 4_096
TEXT_AT_ONCE_BYTES = 1 << 22

DETAILS = {
    Reason.TIME_JUMP: "ts is further ahead of stream time than limits.time_jump_ms",
    Reason.USER_MISMATCH: "the user is not the user of the impression",
    Reason.REQUEST_UNSUPPORTED: "requests are not ranked by this version",
    Reason.TOO_MANY_FEEDBACKS: "the impression has as many feedbacks as joiner.feedbacks_per_impression",
    Reason.NO_ROOM: "no room for its key in the index",
}


class Emitted(NamedTuple):
    """Room for what a block of n events makes, as columns.

    For each event: `fate`, `reason` uint8 [n]; `scores` float64 [n, 5] as `joiner.Waiting.scores`; `inputs` float32
    [n or 0, inputs], the features, where they are asked for. `counts` int64 [4]: examples, dead letters of
    earlier records, bytes of text, and the slot + 1 of an impression that another model than the built-in one is to
    score. Examples, [e]: `example_cause`, `example_ordinal`, `example_offset` int64, `example_label`,
    `example_revision`, `example_learned` uint8, `example_scores`, `example_inputs`, `example_text` int64 [e, 2], where
    its text lies. Dead letters of earlier records, [k]: `letter_cause`, `letter_ordinal`, `letter_offset`
    int64, `letter_reason` uint8, `letter_text` int64 [k, 2]. `text` uint8.
    """

    fate: npt.NDArray[np.uint8]
    reason: npt.NDArray[np.uint8]
    scores: npt.NDArray[np.float64]
    inputs: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    example_cause: npt.NDArray[np.int64]
    example_ordinal: npt.NDArray[np.int64]
    example_offset: npt.NDArray[np.int64]
    example_label: npt.NDArray[np.uint8]
    example_revision: npt.NDArray[np.uint8]
    example_learned: npt.NDArray[np.uint8]
    example_scores: npt.NDArray[np.float64]
    example_inputs: npt.NDArray[np.float32]
    example_text: npt.NDArray[np.int64]
    letter_cause: npt.NDArray[np.int64]
    letter_ordinal: npt.NDArray[np.int64]
    letter_offset: npt.NDArray[np.int64]
    letter_reason: npt.NDArray[np.uint8]
    letter_text: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]


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
        counts[EXAMPLE_COUNT] + 1 < emitted.example_cause.shape[0]
        and 2 * counts[DEAD_LETTER_COUNT] <= emitted.letter_cause.shape[0]
        and counts[TEXT_USED] <= TEXT_AT_ONCE_BYTES
    )


def new_emitted(configuration: Configuration, events: int, inputs: int) -> Emitted:
    """Return room for what `events` events make, one more event than fits always included."""
    feedbacks = configuration.joiner.feedbacks_per_impression
    emits = events if configuration.features.emit else 0
    examples = EXAMPLES_AT_ONCE
    letters = 2 * feedbacks
    kept = configuration.limits.kept_bytes
    # One step gives up what is kept of one impression: its feedback, which has no more text than there is room for.
    text = TEXT_AT_ONCE_BYTES + 2 * kept + min(feedbacks * kept, configuration.joiner.text_bytes)
    return Emitted(
        fate=np.zeros(events, np.uint8),
        reason=np.zeros(events, np.uint8),
        scores=np.zeros((events, 5)),
        inputs=np.zeros((emits, inputs), np.float32),
        counts=np.zeros(4, np.int64),
        example_cause=np.zeros(examples, np.int64),
        example_ordinal=np.zeros(examples, np.int64),
        example_offset=np.zeros(examples, np.int64),
        example_label=np.zeros(examples, np.uint8),
        example_revision=np.zeros(examples, np.uint8),
        example_learned=np.zeros(examples, np.uint8),
        example_scores=np.zeros((examples, 5)),
        example_inputs=np.zeros((examples, inputs), np.float32),
        example_text=np.zeros((examples, 2), np.int64),
        letter_cause=np.zeros(letters, np.int64),
        letter_ordinal=np.zeros(letters, np.int64),
        letter_offset=np.zeros(letters, np.int64),
        letter_reason=np.zeros(letters, np.uint8),
        letter_text=np.zeros((letters, 2), np.int64),
        text=reserve(text, np.uint8),
    )


class Encoder:
    """Turns what the fold emitted into outputs, under one configuration and for one input partition."""

    def __init__(self, configuration: Configuration, topic: str, partition: int) -> None:
        """Name origins after `topic` and `partition`."""
        self._topic = topic
        self._prefix = f"{topic}-{partition}-"
        self._partition = partition
        self._emits_features = configuration.features.emit
        self._places = configuration.features.places()
        self._size = configuration.learner.latent_size
        kinds = configuration.behaviors.kinds
        self._interests = [f"interest.{kind}.{part}" for kind in kinds for part in ("short", "long")]
        self._rate_names: list[str] = []
        self._rate_places: list[int] = []

    def scores(self, block: Block, emitted: Emitted, first: int, last: int, names: list[str]) -> list[Output]:
        """Return the scores of the impressions among the events `first` to `last`; `names` are the fields."""
        chosen = first + np.flatnonzero((emitted.fate[first:last] == FATE_SCORED) & (emitted.reason[first:last] == 0))
        impressions: list[Any] = [block.events[event] for event in chosen.tolist()]
        base, _, model, correction, score = emitted.scores[chosen].T.tolist()
        offsets = block.columns.offset[chosen].tolist()
        origins = [f"{self._prefix}{offset}" for offset in offsets]
        features: list[Any] = [None] * len(origins)
        if self._emits_features:
            features = [self._emitted_features(block, emitted, event, names) for event in chosen.tolist()]
        values = encode_scores(
            [impression.id for impression in impressions],
            [impression.user for impression in impressions],
            [impression.item for impression in impressions],
            [impression.ts for impression in impressions],
            score,
            model,
            [number if number == number else None for number in base],
            correction,
            origins,
            [f"{origin}:0" for origin in origins],
            features,
        )
        keys = [impression.user.encode() for impression in impressions]
        return list(map(Output, map(Cause, offsets, repeat(0)), values, keys))

    def _emitted_features(self, block: Block, emitted: Emitted, event: int, names: list[str]) -> dict[str, Any]:
        columns = block.columns
        text = bytes(columns.text[columns.text_start[event] : columns.text_end[event]])
        return kept_features(text) | self.numeric_features(emitted.inputs[event].tolist(), names)

    def numeric_features(self, numbers: list[float], names: list[str]) -> dict[str, Any]:
        """Return the numbers that the learner saw by name: [rate, residual] of each field, the rest, the interests."""
        if len(self._rate_names) != len(names) + len(DERIVED):
            self._rate_names = [f"rates.{name}" for name in (*names, *DERIVED)]
            self._rate_places = [*range(len(names)), *range(self._places, self._places + len(DERIVED))]
        features: dict[str, Any] = {
            name: numbers[2 * place : 2 * place + 2]
            for name, place in zip(self._rate_names, self._rate_places, strict=True)
        }
        at = len(numbers) - len(self._interests) * self._size
        features["machine_logit"], features["overall_log_odds"] = numbers[at - 2 : at]
        for name in self._interests:
            features[name] = numbers[at : at + self._size]
            at += self._size
        return features

    def examples(self, emitted: Emitted, names: list[str]) -> list[Output]:
        """Return the examples emitted, their strings as they came in."""
        outputs = []
        count = int(emitted.counts[EXAMPLE_COUNT])
        text = emitted.text[: int(emitted.counts[TEXT_USED])].tobytes()
        rows = zip(
            emitted.example_cause[:count].tolist(),
            emitted.example_ordinal[:count].tolist(),
            emitted.example_offset[:count].tolist(),
            emitted.example_label[:count].tolist(),
            emitted.example_revision[:count].tolist(),
            emitted.example_scores[:count].tolist(),
            emitted.example_inputs[:count].tolist(),
            emitted.example_text[:count].tolist(),
            strict=True,
        )
        prefix = self._prefix
        for cause, ordinal, offset, label, revision, scores, inputs, (start, end) in rows:
            kept = text[start:end]
            outcome: dict[str, Any] = {"score": scores[SCORE]}
            if scores[BASE] == scores[BASE]:
                outcome["base_score"] = scores[BASE]
            outcome["label"] = label
            if revision:
                outcome["revision"] = revision
            outcome["origin"] = f"{prefix}{offset}"
            outcome["cause"] = f"{prefix}{cause}:{ordinal}"
            value = complete_example(kept, self.numeric_features(inputs, names), outcome)
            outputs.append(Output(Cause(cause, ordinal), value, kept_user(kept).encode()))
        return outputs

    def dead_letters(self, block: Block, emitted: Emitted, first: int, last: int) -> list[Output]:
        """Return the records given up among the events `first` to `last`, and those that had waited until now."""
        outputs = []
        for event in (first + np.flatnonzero(emitted.reason[first:last])).tolist():
            record = block.records[event]
            reason = Reason.of_code(int(emitted.reason[event]))
            detail = block.details.get(event) or DETAILS[reason]
            cause = Cause(record.offset, 0)
            outputs.append(self._letter(cause, record.offset, reason, detail, record.value, record.key, record.headers))
        for place in range(int(emitted.counts[DEAD_LETTER_COUNT])):
            start, end = emitted.letter_text[place].tolist()
            value, key, headers = unpack_record(emitted.text[start:end].tobytes())
            reason = Reason.of_code(int(emitted.letter_reason[place]))
            cause = Cause(int(emitted.letter_cause[place]), int(emitted.letter_ordinal[place]))
            offset = int(emitted.letter_offset[place])
            outputs.append(self._letter(cause, offset, reason, DETAILS[reason], value, key, headers))
        return sorted(outputs, key=lambda output: output.cause)

    def _letter(
        self,
        cause: Cause,
        offset: int,
        reason: Reason,
        detail: str,
        value: bytes | None,
        key: bytes | None,
        headers: Headers,
    ) -> Output:
        origin = Origin(self._topic, self._partition, offset)
        return Output(cause, value, key, dead_letter_headers(tuple(headers), reason, detail, origin, cause))

"""What the fold emits, as columns, and these columns as outputs on the wire."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import policies
from thalweg.operators.configuration import Configuration
from thalweg.operators.cross import CROSS, OF_ONE, OF_PAIRS, OWN, statistics_count
from thalweg.operators.derived import DERIVED
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.edges.explored import explored_answer_of
from thalweg.operators.edges.few import FEW
from thalweg.operators.edges.requests import Answered, answer_of
from thalweg.operators.fold.emitted import Emitted, Made
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.layout import cross_rank, layout_of, name_hashes, paired_fields, statistics_of_heads
from thalweg.operators.heads import PAIRS
from thalweg.operators.joiner import Score
from thalweg.operators.machine.lanes import LANES
from thalweg.operators.policies import Policy
from thalweg.schemas.kept import complete_example, kept_features, kept_user, unpack_record
from thalweg.schemas.lessons import encode_batch
from thalweg.schemas.origin import Origin
from thalweg.schemas.outputs import Ranking, dead_letter_headers, encode_ranking, encode_scores, scores_of
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Cause, Headers, Output

BATCH = 64
"""Lessons in a batch at most."""
DETAILS = {
    Reason.USER_MISMATCH: "the user is not the user of the impression",
    Reason.REQUEST_UNSUPPORTED: "no candidate is ranked where a River classifier is the model (learner.model)",
    Reason.TOO_MANY_FEEDBACKS: "the impression has as many feedbacks as joiner.feedbacks_per_impression",
    Reason.TOO_LARGE: "with those already known, the facts take more than facts.owner_bytes",
    Reason.UNKNOWN_SOURCE: "it names a partition that is not below lessons.sources_limit",
    Reason.NO_ROOM: "no room for its key in the index",
}


class Taught(NamedTuple):
    """Lessons on their way out: `rows` int64 [n, 4] as `Emitted.lesson`, their bytes, the hashes of field names."""

    rows: npt.NDArray[np.int64]
    text: bytes
    names: tuple[int, ...]


def ordered(order: Sequence[float], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what an order makes of the probabilities [n, objectives]: the sum is taken from the first on.

    >>> ordered((1.0, 20.0), np.array([[0.5, 0.25]])).tolist()
    [5.5]
    """
    total: npt.NDArray[np.float64] = order[0] * scores[:, 0]
    for objective in range(1, len(order)):
        total = total + order[objective] * scores[:, objective]
    return total


def scored_events(emitted: Emitted, first: int, last: int) -> npt.NDArray[np.intp]:
    """Return which of the events `first` to `last` of a block were scored."""
    if last - first < FEW:
        fates = zip(emitted.fate[first:last].tolist(), emitted.reason[first:last].tolist(), strict=True)
        return np.array([first + n for n, fate in enumerate(fates) if fate == (Fate.SCORED.value, 0)], np.intp)
    return first + np.flatnonzero((emitted.fate[first:last] == Fate.SCORED.value) & (emitted.reason[first:last] == 0))


def answer_in(
    block: Block,
    emitted: Emitted,
    event: int,
    origin: str,
    configuration: policies.RankingConfiguration,
    *,
    is_ordered: bool = True,
) -> Answered:
    """Return the answer to a request of a block, by its policy or the configured one.

    Unless it `is_ordered`, it has the scores of all candidates, in the request's order.
    """
    request: Any = block.events[event]
    starts = block.columns.candidate_start
    entries = slice(int(starts[event]) + 1, int(starts[event + 1]))
    policy = policies.parameters_of(configuration, request)
    asked = block.asked[event]
    if policy.policy == Policy.NONE or not is_ordered:
        return answer_of(request, asked, emitted, entries, origin, is_ordered=is_ordered)
    keys = block.columns.key[event], block.columns.candidate_item[entries]
    return explored_answer_of(request, asked, emitted, entries, origin, policy, keys)


class Encoder:
    """Turns what the fold emitted into outputs, under one configuration and for one input partition."""

    def __init__(self, configuration: Configuration, topic: str, partition: int) -> None:
        """Name origins after `topic` and `partition`."""
        self._topic = topic
        self._prefix = f"{topic}-{partition}-"
        self._partition = partition
        self._prefix_bytes = self._prefix.encode()
        self._configuration = configuration
        self._layout = layout_of(configuration) % 2**64
        self._emits_features = configuration.features.emit
        self._places, self._paired = configuration.features.places(), paired_fields(configuration)
        self._size = configuration.learner.latent_size
        self._objectives = configuration.objectives.several
        self._scores = scores_of(self._objectives)
        self._order = configuration.objectives.order_weights()
        of_heads = statistics_of_heads(configuration)
        self._statistics = statistics_count(cross_rank(configuration), self._paired, of_heads)
        self._of_heads = of_heads if self._statistics else 0
        kinds = configuration.behaviors.kinds
        self._interests = [f"interest.{kind}.{part}" for kind in kinds for part in ("short", "long")]
        self._rate_names: list[str] = []
        self._rate_places: list[int] = []

    def scores(self, block: Block, emitted: Emitted, first: int, last: int, names: list[str]) -> list[Output]:
        """Return the scores of the impressions among the events `first` to `last`; `names` are the fields."""
        chosen = scored_events(emitted, first, last)
        if not len(chosen):
            return []
        impressions: list[Any] = [block.events[event] for event in chosen.tolist()]
        base, _, model, correction, score = emitted.scores[chosen].T.tolist()
        scores: list[Any] = [None] * len(score)
        if self._objectives:
            every = np.column_stack((emitted.scores[chosen, Score.SCORE], emitted.heads[chosen]))
            scores = list(map(self._scores, *every.T.tolist()))
            score = ordered(self._order, every).tolist()
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
            scores,
        )
        keys = [impression.user.encode() for impression in impressions]
        return list(map(Output, map(Cause, offsets, repeat(0)), values, keys))

    def _emitted_features(self, block: Block, emitted: Emitted, event: int, names: list[str]) -> dict[str, Any]:
        columns = block.columns
        start, end = emitted.filled_in[event].tolist()
        if start < end:
            text = emitted.text[start:end].tobytes()
        else:
            text = columns.text[columns.text_start[event] : columns.text_end[event]].tobytes()
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
        at = len(numbers) - self._statistics - len(self._interests) * self._size
        features["machine_logit"], features["overall_log_odds"] = numbers[at - 2 : at]
        for name in self._interests:
            features[name] = numbers[at : at + self._size]
            at += self._size
        if self._statistics:
            features["statistics.user"] = numbers[at : at + OF_ONE]
            features["statistics.item"] = numbers[at + OF_ONE : at + 2 * OF_ONE]
            features["linear_logit"], features["cross_logit"] = numbers[at + OWN], numbers[at + CROSS]
            pairs = numbers[at + 2 * LANES :]
            for place, name in enumerate(names[2:]):
                features[f"pairs.{name}"] = pairs[OF_PAIRS * place : OF_PAIRS * (place + 1)]
            features["pairs.recent"] = pairs[OF_PAIRS * (self._places - 2) : OF_PAIRS * (self._paired - 2)]
            for place, name in enumerate(self._objectives[1:]):
                size = self._of_heads // (len(self._objectives) - 1)
                own = numbers[len(numbers) - self._of_heads + place * size :]
                of_recent = own[PAIRS + 2 * (self._places - 2) : PAIRS + 2 * (self._paired - 2)]
                features[f"statistics.of.{name}"] = own[: PAIRS + 2 * (len(names) - 2)] + of_recent
        return features

    def examples(self, emitted: Emitted, names: list[str]) -> list[Output]:
        """Return the examples emitted, their strings as they came in."""
        outputs = []
        count = int(emitted.counts[Made.EXAMPLES])
        text = emitted.text[: int(emitted.counts[Made.TEXT_BYTES])].tobytes()
        rows = zip(
            emitted.example_cause[:count].tolist(),
            emitted.example_ordinal[:count].tolist(),
            emitted.example_offset[:count].tolist(),
            emitted.example_label[:count].tolist(),
            emitted.example_revision[:count].tolist(),
            emitted.example_scores[:count].tolist(),
            emitted.example_heads[:count].tolist(),
            emitted.example_labels[:count].tolist(),
            emitted.example_inputs[:count].tolist(),
            emitted.example_text[:count].tolist(),
            strict=True,
        )
        prefix = self._prefix
        for cause, ordinal, offset, label, revision, scores, others, labels, inputs, (start, end) in rows:
            kept = text[start:end]
            outcome: dict[str, Any] = {"score": scores[Score.SCORE]}
            if scores[Score.BASE] == scores[Score.BASE]:
                outcome["base_score"] = scores[Score.BASE]
            outcome["label"] = label
            if self._objectives:
                outcome["scores"] = dict(zip(self._objectives, (scores[Score.SCORE], *others), strict=True))
                outcome["labels"] = dict(zip(self._objectives, (label, *labels), strict=True))
            if revision:
                outcome["revision"] = revision
            outcome["origin"] = f"{prefix}{offset}"
            outcome["cause"] = f"{prefix}{cause}:{ordinal}"
            value = complete_example(kept, self.numeric_features(inputs, names), outcome)
            outputs.append(Output(Cause(cause, ordinal), value, kept_user(kept).encode()))
        return outputs

    def answer(self, block: Block, emitted: Emitted, event: int) -> Answered:
        """Return the answer to a request of a block."""
        origin = f"{self._prefix}{block.records[event].offset}"
        return answer_in(block, emitted, event, origin, self._configuration.ranking)

    def rankings(
        self, block: Block, emitted: Emitted, first: int, last: int, known: Mapping[int, Ranking]
    ) -> list[Output]:
        """Return the answers to the requests among the events `first` to `last`; some are `known` by event."""
        outputs = []
        for event in (first + np.flatnonzero(emitted.fate[first:last] == Fate.RANKED.value)).tolist():
            offset = block.records[event].offset
            found = known.get(event) or self.answer(block, emitted, event).ranking
            outputs.append(Output(Cause(offset, 0), encode_ranking(found), found.user.encode()))
        return outputs

    def lessons(self, emitted: Emitted, names: list[str]) -> list[Taught]:
        """Return the lessons emitted, none or all of them together."""
        count = int(emitted.counts[Made.LESSONS])
        if not count:
            return []
        text = emitted.lesson_text[: int(emitted.counts[Made.LESSON_BYTES])].tobytes()
        return [Taught(emitted.lesson[:count].copy(), text, tuple(name_hashes(self._configuration, names)))]

    def batches(self, taught: Sequence[Taught]) -> list[Output]:
        """Return lessons as outputs: those of one cause in batches of `BATCH`, wherever the log was cut."""
        if not taught:
            return []
        rows = np.concatenate([each.rows for each in taught])
        shifts = np.cumsum([0, *(len(each.text) for each in taught[:-1])])
        rows[:, 3] += np.repeat(shifts, [len(each.rows) for each in taught])
        names = [each.names for each in taught for _ in range(len(each.rows))]
        text = b"".join([each.text for each in taught])
        offset, tens = rows[:, 0], rows[:, 1] // BATCH
        is_first = np.ones(len(rows), bool)
        is_first[1:] = (offset[1:] != offset[:-1]) | (tens[1:] != tens[:-1])
        firsts = np.flatnonzero(is_first)
        starts = np.concatenate(([0], rows[:, 3]))[firsts].tolist()
        ends = [*starts[1:], len(text)]
        counts = np.diff(firsts, append=len(rows)).tolist()
        outputs = []
        for at, start, end, count in zip(firsts.tolist(), starts, ends, counts, strict=True):
            cause, number = Cause(int(rows[at, 0]), int(rows[at, 1])), int(rows[at, 2])
            value = encode_batch(self._partition, number, self._layout, cause, names[at], count, text[start:end])
            header = b"%s%d:%d" % (self._prefix_bytes, *cause)
            outputs.append(Output(cause, value, None, (("thalweg.cause", header),)))
        return outputs

    def dead_letters(self, block: Block, emitted: Emitted, first: int, last: int) -> list[Output]:
        """Return the records given up among the events `first` to `last`, and those that had waited until now."""
        outputs: list[Output] = []
        reasons = emitted.reason[first:last]
        if not emitted.counts[Made.LETTERS.value] and not np.count_nonzero(reasons):
            return outputs
        for event in (first + np.flatnonzero(reasons)).tolist():
            record = block.records[event]
            reason = Reason.of_code(int(emitted.reason[event]))
            detail = block.details.get(event) or DETAILS[reason]
            cause = Cause(record.offset, 0)
            outputs.append(self._letter(cause, record.offset, reason, detail, record.value, record.key, record.headers))
        for place in range(int(emitted.counts[Made.LETTERS])):
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

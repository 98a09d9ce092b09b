"""What the fold emits, as columns, and these columns as outputs on the wire."""

from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import policies
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block
from thalweg.operators.edges.explored import explored_answer_of
from thalweg.operators.edges.few import FEW
from thalweg.operators.edges.named_inputs import NamedInputs
from thalweg.operators.edges.requests import Answered, answer_of
from thalweg.operators.fold.emitted import Emitted, Made
from thalweg.operators.fold.fates import Fate
from thalweg.operators.fold.layout import layout_of, name_hashes
from thalweg.operators.joiner import Score
from thalweg.schemas.kept import Outcome, complete_examples, kept_features, kept_users, unpack_record
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
    asked = block.asked[event]
    if policies.name_of(configuration, request) == policies.BY_SCORE or not is_ordered:
        return answer_of(request, asked, emitted, entries, origin, is_ordered=is_ordered)
    policy = policies.parameters_of(configuration, request)
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
        self._objectives = configuration.objectives.several
        self._scores = scores_of(self._objectives)
        self._order = configuration.objectives.order_weights()
        self._inputs = NamedInputs(configuration)

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
            numbers = self._inputs.texts(emitted.inputs[chosen], names)
            kept = [self._kept(block, emitted, event) for event in chosen.tolist()]
            features = list(map(kept_features, kept, numbers))
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

    @staticmethod
    def _kept(block: Block, emitted: Emitted, event: int) -> bytes:
        """Return what is kept of an impression, with the facts that filled in."""
        columns = block.columns
        start, end = emitted.filled_in[event].tolist()
        if start < end:
            return emitted.text[start:end].tobytes()
        return columns.text[columns.text_start[event] : columns.text_end[event]].tobytes()

    def examples(self, emitted: Emitted, names: list[str]) -> list[Output]:
        """Return the examples emitted, their strings as they came in."""
        count = int(emitted.counts[Made.EXAMPLES])
        text = emitted.text[: int(emitted.counts[Made.TEXT_BYTES])].tobytes()
        kept = [text[start:end] for start, end in emitted.example_text[:count].tolist()]
        causes = list(map(Cause, emitted.example_cause[:count].tolist(), emitted.example_ordinal[:count].tolist()))
        rows = zip(
            causes,
            emitted.example_offset[:count].tolist(),
            emitted.example_label[:count].tolist(),
            emitted.example_revision[:count].tolist(),
            emitted.example_scores[:count].tolist(),
            emitted.example_heads[:count].tolist(),
            emitted.example_labels[:count].tolist(),
            strict=True,
        )
        outcomes = [self._outcome(*row) for row in rows]
        values = complete_examples(kept, self._inputs.texts(emitted.example_inputs[:count], names), outcomes)
        return list(map(Output, causes, values, [user.encode() for user in kept_users(kept)]))

    def _outcome(
        self,
        cause: Cause,
        offset: int,
        label: int,
        revision: int,
        scores: list[float],
        others: list[float],
        labels: list[int],
    ) -> Outcome:
        base, several = scores[Score.BASE], self._objectives
        return Outcome(
            score=scores[Score.SCORE],
            base_score=base if base == base else None,
            label=label,
            scores=dict(zip(several, (scores[Score.SCORE], *others), strict=True)) if several else None,
            labels=dict(zip(several, (label, *labels), strict=True)) if several else None,
            revision=revision,
            origin=f"{self._prefix}{offset}",
            cause=f"{self._prefix}{cause.offset}:{cause.ordinal}",
        )

    def answer(self, block: Block, emitted: Emitted, event: int) -> Answered:
        """Return the answer to a request of a block."""
        origin = f"{self._prefix}{block.records[event].offset}"
        return answer_in(block, emitted, event, origin, self._configuration.ranking)

    def rankings(
        self, block: Block, emitted: Emitted, first: int, last: int, known: Mapping[int, Ranking]
    ) -> list[Output]:
        """Return the answers to the requests among the events `first` to `last`; some are `known` by event."""
        outputs = []
        for event in block.asked:
            if not first <= event < last or emitted.fate[event] != Fate.RANKED.value:
                continue
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
        causes = list(map(Cause, offset[firsts].tolist(), rows[firsts, 1].tolist()))
        outputs = []
        for at, cause, number, start, end, count in zip(
            firsts.tolist(), causes, rows[firsts, 2].tolist(), starts, ends, counts, strict=True
        ):
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

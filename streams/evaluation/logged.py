"""Decisions read from a log: requests, the impressions that answer them, and their outcomes.

The log goes through the fold as in a replay. Each request is ranked at its place by the policy in question, all its
candidates, with the fold's scores there: no outcome behind it is known yet. So these scores serve as the model of `DR`.

A decision is an impression with `request`, `position` 1 and `propensity`, whose request came before it, of the same
user. Or it is the first item that a request with `shown` showed, with the propensity of the policy that chose it. Its
reward is its label: a positive action within the window. Only first places count: below them, what was chosen depends
on what is above.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from thalweg.operators.configuration import Configuration
from thalweg.operators.machine.hashing import field_seed, key_of
from thalweg.operators.policies import RankingConfiguration
from thalweg.schemas.decode import UNDECODABLE, decode_plain
from thalweg.schemas.events import Event, Impression, Request, encode_event
from thalweg.schemas.outputs import Ranking, decode_ranking, first_probability
from thalweg.schemas.records import LogRecord
from thalweg.streams.evaluation.estimators import Decisions, EvaluationError
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.tally import Tally

UNANSWERED_MAX = 10_000
"""Requests that may wait for the impression of their first place."""


class Answer(NamedTuple):
    """A request as the policy in question ranks it: of each item its probability of the first place, and its score."""

    user: str
    chosen: dict[str, tuple[float, float]]
    value: float


class Answered(NamedTuple):
    """A decision whose outcome is not known yet: probabilities of the item, its score, and that of all candidates."""

    propensity: float
    target: float
    model: float
    value: float


SHOWN, ASKED = 0, 1
"""Where a request is in the log that is folded: as it came where it shows, and behind it for the policy in question."""
APART = 2


class LoggedDecisions:
    """Feed a log's blocks, then take the decisions.

    Parameters
    ----------
    configuration
        The fold's.
    policy
        The policy in question; options of the requests themselves that choose one have no effect.
    unanswered_max
        Requests kept until the impression of their first place comes; the oldest makes room.

    Attributes
    ----------
    passed_over
        Impressions with `request`, and requests with `shown`, that are no decision, by the reason.

    Raises
    ------
    EvaluationError
        The configuration has a mapping: foreign records have no field for a propensity.

    """

    def __init__(
        self, configuration: Configuration, policy: RankingConfiguration, *, unanswered_max: int = UNANSWERED_MAX
    ) -> None:
        """Start empty; the parameters are the class's."""
        if configuration.mapping.is_on:
            raise EvaluationError("a log under [mapping] has no propensities: convert it to the events of the wire")
        self._tally = Tally()
        self._policy = policy
        self._item_seed = field_seed("item", configuration.seed)
        self.partition = Partition(configuration, examples=False, tally=self._tally)
        self._unanswered_max = unanswered_max
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._answered: dict[tuple[int, int], Answered] = {}
        self.requests = 0
        self.passed_over: Counter[str] = Counter()

    def add(self, block: Sequence[LogRecord]) -> None:
        """Fold a block of records."""
        events = [_event_of(record) for record in block]
        records: list[LogRecord] = []
        for record, event in zip(block, events, strict=True):
            offset = APART * record.offset
            if type(event) is not Request or event.shown is not None:
                records.append(record._replace(offset=offset + SHOWN))
            if type(event) is Request:
                plain = encode_event(_plain(event, self._policy))
                records.append(record._replace(offset=offset + ASKED, value=plain))
        outputs = self.partition.process(records)
        rankings = {output.cause.offset: decode_ranking(output.value or b"") for output in outputs.rankings}
        for record, event in zip(block, events, strict=True):
            offset = APART * record.offset
            if type(event) is Request and offset + ASKED in rankings:
                self.requests += 1
                if event.shown is None:
                    self._keep(rankings[offset + ASKED])
                elif offset + SHOWN in rankings:
                    self._show(offset + SHOWN, rankings[offset + SHOWN], rankings[offset + ASKED])
            elif type(event) is Impression and event.request is not None:
                self._take(offset + SHOWN, event, event.request)

    def decisions(self) -> Decisions:
        """Return the decisions whose outcome is known.

        Raises EvaluationError where there are none, or more labels than are kept one by one.
        """
        if not self._tally.is_exact:
            raise EvaluationError(f"more than {self._tally.limit:,} labelled impressions: take a shorter log")
        labels, closings = self._tally.arrays()[0].tolist(), self._tally.snapshot()["closings"].tolist()
        rows = [
            (float(label), *answered)
            for label, (offset, _, item) in zip(labels, closings, strict=True)
            if (answered := self._answered.get((offset, item))) is not None
        ]
        self.passed_over["outcome not known"] = len(self._answered) - len(rows)
        if not rows:
            raise EvaluationError(
                "no decision has an outcome: impressions must carry `request`, `position` 1 and `propensity`, behind a "
                f"request of the same user, and their window must have closed ({_listed(self.passed_over)})"
            )
        return Decisions(*np.array(rows).T)

    def _keep(self, ranking: Ranking) -> None:
        """Keep an answer until its first place is shown."""
        self._answers[ranking.id] = _answer_of(ranking)
        if len(self._answers) > self._unanswered_max:
            self._answers.popitem(last=False)

    def _show(self, offset: int, shown: Ranking, asked: Ranking) -> None:
        """Take the first place of what a request showed, or count why it is no decision."""
        if not shown.items:
            self.passed_over["nothing shown"] += 1
        elif (first := shown.items[0]).propensity is None:
            self.passed_over["without propensity"] += 1
        else:
            self._decide(offset, first.item, first.propensity, _answer_of(asked))

    def _take(self, offset: int, impression: Impression, request: str) -> None:
        """Take an impression that names its request, or count why it is no decision."""
        if impression.position != 1:
            self.passed_over["not in the first place" if impression.position else "without position"] += 1
            return
        if impression.propensity is None:
            self.passed_over["without propensity"] += 1
            return
        answer = self._answers.get(request)
        if answer is None or answer.user != impression.user:
            self.passed_over["request not found"] += 1
            return
        del self._answers[request]
        self._decide(offset, impression.item, impression.propensity, answer)

    def _decide(self, offset: int, item: str, propensity: float, answer: Answer) -> None:
        """Keep a decision until its outcome is known."""
        # What the policy may not choose, such as an item that it drops as seen, weighs nothing. So needs no score.
        target, model = answer.chosen.get(item, (0.0, 0.0))
        key = int(np.uint64(key_of(item, self._item_seed)).view(np.int64))
        self._answered[offset, key] = Answered(propensity, target, model, answer.value)


def decisions_of(
    blocks: Iterable[Sequence[LogRecord]],
    configuration: Configuration,
    policy: RankingConfiguration,
    *,
    unanswered_max: int = UNANSWERED_MAX,
    closes_windows: bool = False,
) -> tuple[Decisions, LoggedDecisions]:
    """Return the decisions of a whole log, and what they were read by; `closes_windows` as at the log's end.

    Raises EvaluationError where there are none.
    """
    logged = LoggedDecisions(configuration, policy, unanswered_max=unanswered_max)
    for block in blocks:
        logged.add(block)
    if closes_windows:
        logged.partition.close_all()
    return logged.decisions(), logged


def _event_of(record: LogRecord) -> Event | None:
    """Return a record's event, None for what is none: the fold dead-letters it."""
    try:
        return decode_plain(record.value or b"")
    except UNDECODABLE:
        return None


def _answer_of(ranking: Ranking) -> Answer:
    """Return what the policy in question answers."""
    chosen: dict[str, tuple[float, float]] = {}
    value = 0.0
    for place, item in enumerate(ranking.items):
        probability = float(place == 0) if item.probability is None else item.probability
        score = first_probability(item)
        value += probability * score
        before = chosen.get(item.item)
        # An item that is a candidate twice is shown by either.
        chosen[item.item] = (probability, score) if before is None else (before[0] + probability, before[1])
    return Answer(ranking.user, chosen, value)


def _plain(request: Request, policy: RankingConfiguration) -> Request:
    """Return a request as the policy in question is to answer it: whole, by no policy but that, and showing nothing."""
    return msgspec.structs.replace(
        request,
        top=None,
        at_most={},
        explain=False,
        policy=policy.policy,
        epsilon=policy.epsilon,
        temperature=policy.temperature,
        deviation=policy.deviation,
        floor=policy.floor,
        shown=None,
    )


def _listed(counts: Counter[str]) -> str:
    found = [f"{count:,} {reason}" for reason, count in counts.items() if count]
    return ", ".join(found) or "none carries `request`"

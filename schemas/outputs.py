"""What Thalweg writes: scores, examples and dead letters, each with its origin and its cause."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Protocol, cast

from msgspec import Meta, Struct, defstruct
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace
from thalweg.schemas.events import PolicyName
from thalweg.schemas.origin import Origin
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Cause, Headers

Feature = int | float | str | list[int | float | str]
"""A number, a list of numbers, a string or a list of strings."""


class Score(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The score of one impression, on the topic `scores`.

    `score` is the final probability, `model_score` the calibrated one before `correction`. With several objectives
    `scores` has the probability of each, `score` is what `objectives.order` makes of them, and `model_score` and
    `correction` are of the first one.
    """

    id: str
    user: str
    item: str
    ts: int
    score: float
    model_score: float
    base_score: float | None = None
    correction: float
    origin: str
    cause: str
    features: dict[str, Feature] | None = None
    scores: dict[str, float] | None = None


class Example(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One impression with its outcome, on the topic `examples`: the features are those that the learner saw.

    `revision` 1 marks a positive that came after its window had closed as a negative. With several objectives `scores`
    and `labels` have the probability and the outcome of each; `score` and `label` are of the first one.
    """

    id: str
    user: str
    item: str
    ts: int
    features: dict[str, Feature]
    score: float
    base_score: float | None = None
    label: Annotated[int, Meta(ge=0, le=1)]
    scores: dict[str, float] | None = None
    labels: dict[str, Annotated[int, Meta(ge=0, le=1)]] | None = None
    revision: int = 0
    origin: str
    cause: str


class RankedItem(Struct, frozen=True, gc=False, omit_defaults=True):
    """One item of a ranking; the parts of its score only where the request says `explain`.

    `parts`, in log-odds: `overall`, the overall rate; `machine`, the factorisation machine as a part of `linear`, the
    dense level; `cross`, the cross network. Where the policy explores, `probability`: of this item in the first place;
    `propensity`: of this item in its place, given those before it, where that has a closed form. `scores`: the
    probability of each of several objectives; `score` is what `objectives.order` makes of them.
    """

    item: str
    score: float
    model_score: float | None = None
    correction: float | None = None
    parts: dict[str, float] | None = None
    probability: float | None = None
    propensity: float | None = None
    scores: dict[str, float] | None = None


class Scored(Protocol):
    """What has a score and, of several objectives, the probability of each."""

    @property
    def score(self) -> float:
        """The score."""

    @property
    def scores(self) -> dict[str, float] | None:
        """The probabilities, the first objective's first."""


def with_probabilities(item: RankedItem, scores: dict[str, float]) -> RankedItem:
    """Return an item with its probability for each objective.

    >>> with_probabilities(RankedItem("v9", 0.5), {"click": 0.5, "hide": 0.0}).scores
    {'click': 0.5, 'hide': 0.0}
    """
    return replace(item, scores=scores)


def first_probability(item: Scored) -> float:
    """Return the probability of the only objective, or of the first of several; the score may be an order of them.

    >>> first_probability(RankedItem("v9", 3.5, scores={"click": 0.5, "buy": 0.2}))
    0.5
    """
    return item.score if item.scores is None else next(iter(item.scores.values()))


class RefusedCandidate(Struct, frozen=True, gc=False, kw_only=True):
    """A candidate that cannot be ranked: its place in the request, and why."""

    candidate: int
    reason: str
    detail: str


class Ranking(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The answer to a request, on the topic `rankings`.

    Without a `policy` that explores, items come from the highest score down, equal ones as in the request.
    """

    id: str
    user: str
    ts: int
    policy: PolicyName = "none"
    items: list[RankedItem]
    refused: list[RefusedCandidate] = []
    origin: str
    cause: str


class Answer(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The answer to a question that is in no log: what the fold would answer to a request at that offset.

    `offset` is the partition's next input offset, as a checkpoint names it. Items are as in `Ranking`.
    """

    id: str
    user: str
    ts: int
    policy: PolicyName = "none"
    items: list[RankedItem]
    refused: list[RefusedCandidate] = []
    offset: int


class DeadLetter(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One line of a file of dead letters; bytes are base64, null stands for a tombstone and a header without value."""

    origin: str
    cause: str
    reason: str
    detail: str
    raw: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] = []


class Caused(Struct, frozen=True, gc=False):
    """Any of them, as far as its cause."""

    cause: str


decode_score = Decoder(Score).decode
decode_example = Decoder(Example).decode
decode_ranking = Decoder(Ranking).decode
decode_answer = Decoder(Answer).decode
decode_dead_letter = Decoder(DeadLetter).decode
decode_caused = Decoder(Caused).decode
_ENCODE = Encoder().encode
_ENCODE_LINES = Encoder().encode_lines


class _ScoreLine(Struct, gc=False, omit_defaults=True):
    """A `Score` in the making: without names to give, it is made in a third of the time."""

    id: str | None = None
    user: str | None = None
    item: str | None = None
    ts: int | None = None
    score: float | None = None
    model_score: float | None = None
    base_score: float | None = None
    correction: float | None = None
    origin: str | None = None
    cause: str | None = None
    features: dict[str, Feature] | None = None
    scores: dict[str, float] | None = None


def scores_of(names: Sequence[str]) -> Callable[..., Any]:
    """Return a function from the probabilities of objectives to `Score.scores`: a struct is made and written faster.

    >>> _ENCODE(scores_of(["click", "for"])(0.5, 0.25))
    b'{"click":0.5,"for":0.25}'
    """
    places = [f"score_{place}" for place in range(len(names))]
    renamed = dict(zip(places, names, strict=True))
    return defstruct("Scores", [(place, float) for place in places], rename=renamed, gc=False)


class _ScoredItem(Struct, gc=False):
    """A `RankedItem` that is only scored: half as large, and made in two thirds of the time."""

    item: str
    score: float


def scored_items(items: Iterable[str], scores: Iterable[float]) -> list[RankedItem]:
    """Return items with their scores, to be encoded: they have no other field.

    >>> _ENCODE(scored_items(["v9"], [0.25])) == _ENCODE([RankedItem("v9", 0.25)])
    True
    """
    return cast("list[RankedItem]", list(map(_ScoredItem, items, scores)))


def encode_scores(*columns: Iterable[Any]) -> list[bytes]:
    """Return scores, each as one JSON object, from the columns of `Score`'s fields in their order; None is left out.

    Numbers are the shortest text that reads back to the same bits.

    >>> encode_scores(["7"], ["u1"], ["v9"], [1_700_000_000_000], [0.1], [0.25], [None], [-0.15],
    ...               ["interactions-0-4"], ["interactions-0-4:0"], [None])
    [b'{"id":"7","user":"u1","item":"v9","ts":1700000000000,"score":0.1,"model_score":0.25,"correction":-0.15,"origin":\
"interactions-0-4","cause":"interactions-0-4:0"}']
    """
    # No line feed occurs within JSON: in strings it is escaped.
    return _ENCODE_LINES(list(map(_ScoreLine, *columns))).split(b"\n")[:-1]


def encode_example(example: Example) -> bytes:
    """Return the example as one JSON object.

    >>> encode_example(Example(id="7", user="u1", item="v9", ts=1_700_000_000_000, features={"tab": 2}, score=0.1,
    ...                        label=1, origin="interactions-0-4", cause="interactions-0-9:2"))
    b'{"id":"7","user":"u1","item":"v9","ts":1700000000000,"features":{"tab":2},"score":0.1,"label":1,"origin":\
"interactions-0-4","cause":"interactions-0-9:2"}'
    """
    return _ENCODE(example)


def encode_ranking(ranking: Ranking) -> bytes:
    """Return the ranking as one JSON object.

    >>> encode_ranking(Ranking(id="8", user="u1", ts=1_700_000_000_000, items=[RankedItem(item="v9", score=0.25)],
    ...                        origin="interactions-0-4", cause="interactions-0-4:0"))
    b'{"id":"8","user":"u1","ts":1700000000000,"items":[{"item":"v9","score":0.25}],"origin":"interactions-0-4","cause":\
"interactions-0-4:0"}'
    """
    return _ENCODE(ranking)


def encode_answer(answer: Answer) -> bytes:
    """Return the answer as one JSON object: a ranking's up to its origin.

    >>> encode_answer(Answer(id="8", user="u1", ts=1_700_000_000_000, items=[RankedItem("v9", 0.25)], offset=4))
    b'{"id":"8","user":"u1","ts":1700000000000,"items":[{"item":"v9","score":0.25}],"offset":4}'
    """
    return _ENCODE(answer)


def encode_dead_letter(letter: DeadLetter) -> bytes:
    """Return the dead letter as one JSON object.

    >>> encode_dead_letter(DeadLetter(origin="interactions-0-4", cause="interactions-0-4:0", reason="not_json",
    ...                               detail="not JSON from character 0 of 3", raw=b"???"))
    b'{"origin":"interactions-0-4","cause":"interactions-0-4:0","reason":"not_json","detail":\
"not JSON from character 0 of 3","raw":"Pz8/"}'
    """
    return _ENCODE(letter)


def dead_letter_headers(headers: Headers, reason: Reason, detail: str, origin: Origin, cause: Cause) -> Headers:
    """Return a record's own headers, untouched, and after them those of Kafka Streams (KIP-1034) and our own two.

    All values are text in UTF-8, numbers too, as Kafka Streams writes them. There is no stack: `stacktrace` repeats
    the exception's one line, so that the bytes are the same on every machine. A record that was a dead letter before
    has the names twice; Kafka's `lastHeader` finds the newer.

    >>> for name, value in dead_letter_headers((("trace", b"1"),), Reason.ID_EMPTY, "user is empty",
    ...                                        Origin("interactions", 3, 17), Cause(17, 0)):
    ...     print(name, (value or b"").decode())
    trace 1
    __streams.errors.exception thalweg.schemas.reasons.Unusable: id_empty: user is empty
    __streams.errors.stacktrace thalweg.schemas.reasons.Unusable: id_empty: user is empty
    __streams.errors.message user is empty
    __streams.errors.topic interactions
    __streams.errors.partition 3
    __streams.errors.offset 17
    thalweg.reason id_empty
    thalweg.cause interactions-3-17:0
    """
    line = f"thalweg.schemas.reasons.Unusable: {reason.value}: {detail}".encode()
    return (
        *headers,
        ("__streams.errors.exception", line),
        ("__streams.errors.stacktrace", line),
        ("__streams.errors.message", detail.encode()),
        ("__streams.errors.topic", origin.topic.encode()),
        ("__streams.errors.partition", str(origin.partition).encode()),
        ("__streams.errors.offset", str(origin.offset).encode()),
        ("thalweg.reason", reason.value.encode()),
        ("thalweg.cause", f"{origin.topic}-{origin.partition}-{cause.offset}:{cause.ordinal}".encode()),
    )

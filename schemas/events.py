"""The events of the input topic: one JSON object a record; its field `type` distinguishes them."""

from typing import Annotated, Any, Literal, get_args

from msgspec import Meta, Struct, json

EARLIEST_TS_MS = 315_532_800_000
"""1980-01-01T00:00:00Z: no event lies before."""
END_TS_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z: every event lies before."""

Id = Annotated[str, Meta(min_length=1)]
Name = Annotated[str, Meta(min_length=1)]
Milliseconds = Annotated[int, Meta(ge=EARLIEST_TS_MS, lt=END_TS_MS, description="event time, Unix milliseconds")]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
# Unbounded integers would reach the fold's int64 columns; the decoder would read up to 4 300 digits otherwise.
Integer = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Value = str | Integer | float | list[str]
Context = dict[Name, Value]
Facts = dict[Name, Value | None]

# Without the collector's tracking a decoded event is cheaper, and safe: strings, numbers and lists of strings form no
# cycle.


class Impression(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="impression"):
    """An item was shown to a user; it gets scored.

    `base_score` is the probability that some slower model gave, if there is one. `request`, `position`, `propensity`:
    which request it answers, in which place from 1 on, and with which probability its item was chosen for it.
    """

    id: Id
    user: Id
    item: Id
    ts: Milliseconds
    context: Context
    base_score: Probability | None = None
    request: Id | None = None
    position: Count | None = None
    propensity: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None


class Feedback(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True, tag_field="type", tag="feedback"):
    """What the user did: click, like, purchase.

    `request` instead of `impression`: it belongs to the item as that request took it as shown. Without both it belongs
    to the user's latest waiting impression of the item, or is a behaviour by itself.
    """

    id: Id
    impression: Id | None = None
    request: Id | None = None
    user: Id
    item: Id
    ts: Milliseconds
    action: Name
    value: float | None = None

    @classmethod
    def of(
        cls,
        id: str,  # noqa: A002  (the field's name)
        impression: str | None,
        user: str,
        item: str,
        ts: int,
        action: str,
        value: float | None = None,
    ) -> "Feedback":
        """Return a feedback by the order of its fields."""
        return cls(id=id, impression=impression, user=user, item=item, ts=ts, action=action, value=value)


class Candidate(Struct, frozen=True, gc=False, omit_defaults=True):
    """An item that may be shown, with its own context: it wins over the request's, field by field."""

    item: Id
    context: Context = {}


_ONE: dict[str, Any] = {"type": "string", "minLength": 1}
_WITH_CONTEXT = {"type": "object", "required": ["item"], "properties": {"item": _ONE, "context": {"type": "object"}}}
Candidates = Annotated[
    list[Any],
    Meta(
        description="items, or objects with an item and a context of its own; a bad one is refused by itself",
        extra_json_schema={"items": {"anyOf": [_ONE, _WITH_CONTEXT]}},
    ),
]
CAPS_MAX = 4
"""Fields that one request may cap."""
PolicyName = Literal["none", "epsilon", "gumbel", "thompson"]
POLICY_NAMES: tuple[str, ...] = get_args(PolicyName)
TEMPERATURE_MIN, TEMPERATURE_MAX = 0.05, 100.0
"""Below the least, the weights of scores within 1e-6 of 0 and 1 would leave float64."""
DEVIATION_MIN, DEVIATION_MAX = 0.01, 100.0


class Request(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="request"):
    """Rank these candidates for this user; it changes nothing, unless it has `shown`.

    `top`: how many to answer with, all without. `exclude`: items to leave out. `seen` "drop": leave out what the user
    acted on lately. `at_most`: how many of one value of a field, by the field's name. `explain`: tell the parts of each
    score. `policy`, `epsilon`, `temperature`, `deviation`, `floor`: how the answer explores, in place of `[ranking]`.
    `shown`: so many, the first of the answer, are shown to the user, and wait for feedback as impressions do.
    """

    id: Id
    user: Id
    candidates: Candidates
    ts: Milliseconds
    context: Context
    top: Count | None = None
    exclude: list[str] = []
    seen: Literal["keep", "drop"] = "keep"
    at_most: Annotated[dict[Name, Count], Meta(max_length=CAPS_MAX)] = {}
    explain: bool = False
    policy: PolicyName | None = None
    epsilon: Probability | None = None
    temperature: Annotated[float, Meta(ge=TEMPERATURE_MIN, le=TEMPERATURE_MAX)] | None = None
    deviation: Annotated[float, Meta(ge=DEVIATION_MIN, le=DEVIATION_MAX)] | None = None
    floor: Probability | None = None
    shown: Count | None = None


class Item(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="item"):
    """Facts about an item: they fill in context fields that an impression does not bring; null removes one."""

    id: Id
    item: Id
    ts: Milliseconds
    fields: Facts


class User(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="user"):
    """Facts about a user: they fill in context fields that an impression does not bring; null removes one."""

    id: Id
    user: Id
    ts: Milliseconds
    fields: Facts


class Erase(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="erase"):
    """Forget this user entirely."""

    id: Id
    user: Id
    ts: Milliseconds


SOURCE_MAX = 999_999
Source = Annotated[int, Meta(ge=0, le=SOURCE_MAX, description="a partition of the input")]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Merge(Struct, frozen=True, gc=False, omit_defaults=True, tag_field="type", tag="merge"):
    """Learn the lessons that other partitions taught, by partition up to and with this number; workers write it.

    `exclude`: partitions whose lessons up to there are passed over. `start`: the origin of the record before which
    another partition's shared part is where this one begins.
    """

    id: Id
    upto: dict[Source, Number]
    exclude: list[Source] = []
    start: Id | None = None


def shown_id(request: str, item: str) -> str:
    """Return the id of the impression of an item that a request takes as shown: other pairs have other ids.

    >>> shown_id("r8", "v9"), shown_id("r:8", "v%9")
    ('r8:v9', 'r%3A8:v%9')
    """
    return f"{request.replace('%', '%25').replace(':', '%3A')}:{item}"


Event = Impression | Feedback | Request | Item | User | Erase | Merge

_ENCODE = json.Encoder().encode


def encode_event(event: Event) -> bytes:
    """Return the event as one JSON object, `type` first, then the fields in their order, without what is none.

    >>> encode_event(Feedback.of("7:click", "7", "u1", "v9", 1_700_000_000_000, "click"))
    b'{"type":"feedback","id":"7:click","impression":"7","user":"u1","item":"v9","ts":1700000000000,"action":"click"}'
    >>> encode_event(Impression("7", "u1", "v9", 1_700_000_000_000, {"tab": 2}))
    b'{"type":"impression","id":"7","user":"u1","item":"v9","ts":1700000000000,"context":{"tab":2}}'
    >>> encode_event(Request("8", "u1", ["v9"], 1_700_000_000_000, {}))
    b'{"type":"request","id":"8","user":"u1","candidates":["v9"],"ts":1700000000000,"context":{}}'
    >>> encode_event(Feedback(id="9", request="8", user="u1", item="v9", ts=1_700_000_000_000, action="click"))
    b'{"type":"feedback","id":"9","request":"8","user":"u1","item":"v9","ts":1700000000000,"action":"click"}'
    >>> encode_event(Item("10", "v9", 1_700_000_000_000, {"author": "a3", "length_s": 12.5, "tags": None}))
    b'{"type":"item","id":"10","item":"v9","ts":1700000000000,"fields":{"author":"a3","length_s":12.5,"tags":null}}'
    >>> encode_event(User("11", "u1", 1_700_000_000_000, {"country": "FR"}))
    b'{"type":"user","id":"11","user":"u1","ts":1700000000000,"fields":{"country":"FR"}}'
    >>> encode_event(Erase("9", "u1", 1_700_000_000_000))
    b'{"type":"erase","id":"9","user":"u1","ts":1700000000000}'
    >>> encode_event(Merge("12", {0: 4711, 3: 98}))
    b'{"type":"merge","id":"12","upto":{"0":4711,"3":98}}'
    """
    return _ENCODE(event)

"""Foreign records become the events that `[mapping]` says, and what can't is refused with a reason."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from thalweg.schemas.decode import decoder
from thalweg.schemas.events import Erase, Feedback, Impression, Item, Request, User, encode_event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.mapper import Mapper
from thalweg.schemas.mapping import MappingConfiguration
from thalweg.schemas.paths import getter, parse
from thalweg.schemas.reasons import Reason, Unusable

T = 1_700_000_000_000
LIMITS = LimitsConfiguration()
BASE: dict[str, Any] = {"user": "who", "item": "what", "time": "at"}
RECORD: dict[str, Any] = {"who": "u", "what": "i", "at": T}


def mapped(record: Any, *, timestamp_ms: int | None = None, **keys: Any) -> Any:
    return Mapper(MappingConfiguration(**(BASE | keys)), LIMITS).event(record, "topic-3-7", timestamp_ms)


def refused(record: Any, **keys: Any) -> tuple[Reason, str]:
    with pytest.raises(Unusable) as found:
        mapped(record, **keys)
    return found.value.reason, found.value.detail


def test_a_record_without_a_type_is_an_impression() -> None:
    """The least mapping must make an impression whose id is the record's origin."""
    assert mapped(RECORD) == Impression("topic-3-7", "u", "i", T, {})


TYPES: dict[str, Any] = {
    "type": "event",
    "impressions": ("view", "1"),
    "feedback": {"cart": "addtocart", "buy": "purchase"},
    "requests": ("rank",),
    "erase": ("forget",),
    "ignore": ("ping",),
    "id": "id",
    "impression": "of",
    "candidates": "items.*.sku",
    "value": "price",
}


def test_each_value_of_the_type_becomes_its_event() -> None:
    """Impressions, feedback with its action, requests and erasure must come out as configured, others ignored."""
    record = RECORD | {"id": 5, "of": "4", "price": "9.5", "items": [{"sku": "a"}, {"sku": 7}]}
    assert mapped(record | {"event": "view"}, **TYPES) == Impression("4", "u", "i", T, {})
    assert mapped(record | {"event": 1, "of": None}, **TYPES) == Impression("5", "u", "i", T, {})
    assert mapped(record | {"event": "buy"}, **TYPES) == Feedback.of("5", "4", "u", "i", T, "purchase", 9.5)
    assert mapped(record | {"event": "rank"}, **TYPES) == Request("5", "u", ["a", "7"], T, {})
    assert mapped(record | {"event": "forget"}, **TYPES) == Erase("5", "u", T)
    assert mapped({"event": "ping"}, **TYPES) is None
    assert refused(record | {"event": "pong"}, **TYPES) == (
        Reason.UNKNOWN_TYPE,
        'mapping does not name the type "pong"',
    )
    assert refused(record, **TYPES)[0] is Reason.MISSING_FIELD
    assert refused(record | {"event": {}}, **TYPES)[0] is Reason.WRONG_TYPE
    everything = TYPES | {"ignore": ("*",)}
    assert mapped(record | {"event": "pong"}, **everything) is None
    assert mapped({}, **everything) is None


SHOWS = TYPES | {"request": "for", "shown": "k"}


def test_requests_that_show_and_what_names_them() -> None:
    """A request brings how many it shows; feedback and impressions name the request, and need not."""
    record = RECORD | {"id": 5, "for": 8, "k": "3", "items": [{"sku": "a"}]}
    assert mapped(record | {"event": "rank"}, **SHOWS) == Request("5", "u", ["a"], T, {}, shown=3)
    assert mapped(record | {"event": "rank", "k": None}, **SHOWS) == Request("5", "u", ["a"], T, {})
    assert mapped(record | {"event": "view"}, **SHOWS) == Impression("5", "u", "i", T, {}, request="8")
    named = Feedback(id="5", request="8", user="u", item="i", ts=T, action="purchase")
    assert mapped(record | {"event": "buy"}, **SHOWS) == named
    assert mapped(record | {"event": "buy", "for": None}, **SHOWS) == Feedback.of("5", None, "u", "i", T, "purchase")


def test_an_action_that_names_no_impression_has_none() -> None:
    """Feedback without an impression's id, or without a path for one, must be feedback without an impression."""
    record = RECORD | {"id": 5, "event": "buy", "of": None}
    expected = Feedback.of("5", None, "u", "i", T, "purchase")
    assert mapped(record, **TYPES) == expected
    assert mapped(record | {"of": "4"}, **{**TYPES, "impression": ""}) == expected


def test_facts_are_about_the_item_or_the_user_that_the_record_has() -> None:
    """An item without a user gets facts from the context's paths; with a user, or a user alone, the user does."""
    kinds = TYPES | {"facts": ("fact",), "context": ("author", "tags")}
    record = RECORD | {"id": 5, "event": "fact", "author": "a", "tags": ["x"], "other": 1}
    of_item = {name: value for name, value in record.items() if name != "who"}
    of_user = {name: value for name, value in record.items() if name != "what"}
    fields = {"author": "a", "tags": ["x"]}
    assert mapped(of_item, **kinds) == Item("5", "i", T, fields)
    assert mapped(of_user | {"author": None}, **kinds) == User("5", "u", T, {"tags": ["x"]})
    assert mapped(record, **kinds) == User("5", "u", T, fields)
    assert refused({"event": "fact", "id": 5, "at": T}, **kinds)[0] is Reason.MISSING_FIELD
    assert refused(of_item | {"author": {}}, **kinds)[0] is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (1_700_000_000, "s", T),
        (1_700_000_000.5, "s", T + 500),
        ("1700000000", "s", T),
        ("1700000000.25", "s", T + 250),
        (T, "ms", T),
        (float(T), "ms", T),
        (T * 1000 + 999, "us", T),
        (str(T * 1000 + 999), "us", T),
        (T * 1_000_000 + 999_999, "ns", T),
        ("2023-11-14T22:13:20Z", "iso", T),
        ("2023-11-14T22:13:20.123456789Z", "iso", T + 123),
        ("2023-11-14 22:13:20", "iso", T),
        ("2023-11-14 22:13:20.5 UTC", "iso", T + 500),
        ("2023-11-15T00:13:20+02:00", "iso", T),
    ],
)
def test_times_of_every_unit(value: Any, unit: str, expected: int) -> None:
    """A moment must be the same millisecond in every unit and form."""
    assert mapped(RECORD | {"at": value}, time_unit=unit).ts == expected


@pytest.mark.parametrize(
    ("value", "unit", "reason"),
    [
        (None, "ms", Reason.MISSING_FIELD),
        (True, "ms", Reason.WRONG_TYPE),
        ("soon", "ms", Reason.WRONG_TYPE),
        (float("nan"), "ms", Reason.WRONG_TYPE),
        ([], "s", Reason.WRONG_TYPE),
        (5, "ms", Reason.TIME_OUT_OF_RANGE),
        (T, "s", Reason.TIME_OUT_OF_RANGE),
        (10**400, "s", Reason.TIME_OUT_OF_RANGE),
        (1e308, "s", Reason.WRONG_TYPE),
        ("-1e308", "s", Reason.WRONG_TYPE),
        (1e308, "ns", Reason.TIME_OUT_OF_RANGE),
        ("03/31/2024", "iso", Reason.WRONG_TYPE),
        ("2024-02-30", "iso", Reason.WRONG_TYPE),
        (T, "iso", Reason.WRONG_TYPE),
        (None, "iso", Reason.MISSING_FIELD),
        ("1979-12-31T23:59:59Z", "iso", Reason.TIME_OUT_OF_RANGE),
    ],
)
def test_times_that_are_none(value: Any, unit: str, reason: Reason) -> None:
    """What is no time of the unit, or outside the wire's years, must have its reason."""
    assert refused(RECORD | {"at": value}, time_unit=unit)[0] is reason


def test_the_records_own_timestamp_stands_for_a_time() -> None:
    """Without a path the time must be the transport's, and a record that has none be refused."""
    assert mapped(RECORD, time="", timestamp_ms=T + 5).ts == T + 5
    assert refused(RECORD, time="")[0] is Reason.MISSING_FIELD


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (18446744073709551616, "18446744073709551616"),
        ("007", "007"),
        (0, "0"),
        (None, Reason.MISSING_FIELD),
        (True, Reason.WRONG_TYPE),
        (5.0, Reason.WRONG_TYPE),
        ([5], Reason.WRONG_TYPE),
        ("", Reason.ID_EMPTY),
        ("u" * 257, Reason.ID_TOO_LONG),
    ],
)
@pytest.mark.parametrize("field", ["user", "item"])
def test_ids_keep_their_identity(value: Any, expected: Any, field: str) -> None:
    """Texts and integers of any size must stay what they are, and everything else be refused."""
    record = RECORD | {BASE[field]: value}
    if isinstance(expected, Reason):
        assert refused(record)[0] is expected
    else:
        assert getattr(mapped(record), field) == expected


CONTEXT = {
    "n": 5,
    "f": 1.0,
    "big": 2**63,
    "yes": True,
    "none": None,
    "text": "",
    "list": ["a", None, 7, 2.5, True],
    "deep": {"a": {"b": "x"}, "c": 1},
    "objects": [{"a": 1}],
}


def test_a_context_is_the_paths_that_are_named() -> None:
    """Fields must be called by their path or by the name before it, and keep their types."""
    paths = ("n", "f", "big", "yes", "none", "text", "list", "nested = deep.a.b", "deep.c", "all = objects.*.a")
    assert mapped(RECORD | CONTEXT, context=paths).context == {
        "n": 5,
        "f": 1.0,
        "big": "9223372036854775808",
        "yes": "true",
        "text": "",
        "list": ["a", "7", "2.5", "true"],
        "nested": "x",
        "deep.c": 1,
        "all": ["1"],
    }
    assert list(map(type, mapped(RECORD | CONTEXT, context=("n", "f")).context.values())) == [int, float]


def test_a_context_may_be_everything_but() -> None:
    """With a star, all that no other key names must come, objects by their paths, lists of objects left out."""
    found = mapped(RECORD | CONTEXT, context=("renamed = n", "*"), context_except=("list", "deep.a"))
    assert found.context == {
        "renamed": 5,
        "f": 1.0,
        "big": "9223372036854775808",
        "yes": "true",
        "text": "",
        "deep.c": 1,
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, {"yes": "true"}),
        ({"nulls": "category"}, {"yes": "true", "none": "null"}),
        ({"booleans": "number"}, {"yes": 1}),
        ({"booleans": "leave out"}, {}),
    ],
)
def test_nulls_and_booleans_become_what_is_asked_for(keys: dict[str, str], expected: dict[str, Any]) -> None:
    """Null must be left out or a category, true and false categories, numbers or left out."""
    assert mapped(RECORD | CONTEXT, context=("yes", "none"), **keys).context == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": 1}, Reason.WRONG_TYPE),
        ([{"a": 1}], Reason.WRONG_TYPE),
        (float("inf"), Reason.NOT_FINITE),
        ("x" * 257, Reason.VALUE_TOO_LONG),
        (["x"] * 33, Reason.LIST_TOO_LONG),
    ],
)
def test_contexts_that_are_none(value: Any, reason: Reason) -> None:
    """A value that a context can't have must have its reason."""
    assert refused(RECORD | {"c": value}, context=("c",))[0] is reason


@pytest.mark.parametrize(
    ("keys", "change", "reason"),
    [
        ({"base_score": "p"}, {"p": 1.5}, Reason.BAD_BASE_SCORE),
        ({"base_score": "p"}, {"p": float("nan")}, Reason.BAD_BASE_SCORE),
        ({"base_score": "p"}, {"p": "high"}, Reason.WRONG_TYPE),
        ({"base_score": "p"}, {"p": True}, Reason.WRONG_TYPE),
        (TYPES, {"event": "buy", "id": "1", "of": ""}, Reason.ID_EMPTY),
        (TYPES, {"event": "buy", "id": "1", "of": "2", "price": float("inf")}, Reason.NOT_FINITE),
        (TYPES, {"event": "rank", "id": "1"}, Reason.WRONG_TYPE),
        (TYPES, {"event": "view"}, Reason.MISSING_FIELD),
        (SHOWS, {"event": "rank", "id": "1", "items": [], "k": 0}, Reason.BAD_OPTION),
        (SHOWS, {"event": "rank", "id": "1", "items": [], "k": "257"}, Reason.BAD_OPTION),
        (SHOWS, {"event": "rank", "id": "1", "items": [], "k": 1.5}, Reason.WRONG_TYPE),
        (SHOWS, {"event": "buy", "id": "1", "for": ""}, Reason.ID_EMPTY),
        (SHOWS, {"event": "buy", "id": "1", "for": "x" * 257}, Reason.ID_TOO_LONG),
    ],
)
def test_other_fields_that_are_none(keys: dict[str, Any], change: dict[str, Any], reason: Reason) -> None:
    """Scores, values, impressions' ids and candidates must be checked as in our own events."""
    assert refused(RECORD | change, **keys)[0] is reason


@pytest.mark.parametrize("record", [None, 5, "text", [], [RECORD]])
def test_what_is_no_object_is_refused(record: Any) -> None:
    """A JSON value that is no object has no fields."""
    assert refused(record)[0] is Reason.NOT_AN_OBJECT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=12,
)


@given(
    record=st.dictionaries(st.sampled_from(["who", "what", "at", "event", "x", "of", "id", "for", "k"]), JSON),
    event=st.sampled_from(["view", "buy", "rank", "forget"]),
    at=st.none() | st.floats() | st.integers() | st.floats().map(str),
    unit=st.sampled_from(["s", "ms", "us", "ns", "iso"]),
)
def test_whatever_is_mapped_our_own_decoder_takes(record: dict[str, Any], event: str, at: Any, unit: str) -> None:
    """Any record must be refused or become an event that reads back equal from its bytes on the wire."""
    whole = RECORD | {"event": event, "id": "1", "of": "2", "items": []} | ({} if at is None else {"at": at}) | record
    keys = SHOWS | {"context": ("x", "*"), "nulls": "category", "time_unit": unit}
    try:
        found = mapped(whole, **keys)
    except Unusable:
        return
    if found is not None:
        assert decoder(LIMITS)(encode_event(found)) == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"user": "", "type": "x"}, "user is missing"),
        ({"item": ""}, "item is missing"),
        ({"user": "a..b"}, "is no path"),
        ({"user": "a[b"}, "is no path"),
        ({"context": ("a.",)}, "is no path"),
        ({"codec": "xml"}, "codec must be one of json, avro, cloudevents"),
        ({"time_unit": "h"}, "time_unit must be one of s, ms, us, ns, iso"),
        ({"nulls": "zero"}, "nulls must be one of"),
        ({"booleans": "maybe"}, "booleans must be one of"),
        ({"impressions": ("view",)}, "type is missing"),
        ({"type": "event"}, "type has no values"),
        ({"type": "event", "impressions": ("a",), "ignore": ("a",)}, "'a' is named twice"),
        ({"type": "event", "feedback": {"a": ""}}, "without an action"),
        ({"type": "event", "requests": ("a",)}, "candidates is missing"),
        ({"context": ("a = x", "a = y")}, "context has a name twice"),
        ({"context_except": ("a",)}, "context_except leaves paths out"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(keys: dict[str, Any], message: str) -> None:
    """A configuration with a mistake must say in one line what is wrong."""
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        MappingConfiguration(**(BASE | keys))


def test_paths_select_members_and_alternatives() -> None:
    """Indices, members by a value, quotes and alternatives must be followed, and dead ends be nothing."""
    record = {"a.b": {"c": [10, {"k": "x", "v": 1}, {"k": "y", "v": 2}]}}
    assert getter('"a.b".c.0')(record) == 10
    assert getter('"a.b".c[k=y].v')(record) == 2
    assert getter('"a.b".c[k=z].v|"a.b".c.1.v')(record) == 1
    for path in ("a", '"a.b".c.9', '"a.b".c.x', '"a.b".c.0.x', '"a.b"[k=y]', "x.*.y"):
        assert getter(path)(record) is None
    for path in ("", ".", "a.", "|a", "a|", "[k=v]", 'a"b"'):
        with pytest.raises(ValueError, match="is no path"):
            parse(path)

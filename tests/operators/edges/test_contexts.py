"""Contexts taken a field at a time give what each gives by itself, and fields get their places in the log's order."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.edges.contexts import SHAPES_AT_ONCE, Fields
from thalweg.operators.facts import HEAD, KEY_BYTES, REMOVED
from thalweg.operators.features import FeaturesConfiguration
from thalweg.operators.fold.state import new_state
from thalweg.operators.structures.names import field_names
from thalweg.schemas.events import Impression, encode_event
from thalweg.schemas.records import LogRecord

VALUES = st.one_of(
    st.text("abü1", max_size=3),
    st.integers(-5, 40),
    st.floats(-5, 40, allow_nan=False),
    st.lists(st.text("xyé", max_size=2), max_size=4),
)
CONTEXTS = st.lists(st.dictionaries(st.sampled_from("abcdefgh"), VALUES, max_size=6), min_size=1, max_size=24)
CONFIGURATION = Configuration(features=FeaturesConfiguration(buckets={"a": (1.0, 2.5, 30.0)}, exclude=("h",)))


def flat(values, contexts):
    """Each context's (place, key) pairs, in order."""
    pairs = [[] for _ in range(contexts)]
    for each in values:
        counts = np.broadcast_to(each.counts, len(each.members))
        owners = np.repeat(each.members, counts)
        places = np.broadcast_to(each.places, len(each.keys))
        for owner, place, key in zip(owners.tolist(), places.tolist(), each.keys.tolist(), strict=True):
            pairs[owner].append((place, key))
    return pairs


@given(CONTEXTS)
def test_blocks_give_what_each_context_gives_alone(contexts):
    """However many sets of names a block has, its values are those of its contexts, in their order."""
    names = new_state(CONFIGURATION).names
    values, brought = Fields(CONFIGURATION, names).values(contexts)
    together = flat(values, len(contexts))
    again = Fields(CONFIGURATION, names)
    alone = [again.values([context]) for context in contexts]
    assert together == [flat(values, 1)[0] for values, _ in alone]
    assert brought.tolist() == [bits[0] for _, bits in alone]


@given(CONTEXTS)
def test_a_context_says_which_fields_it_brings_even_those_without_values(contexts):
    """A bit is set for each name that has a place, an empty list included."""
    names = new_state(CONFIGURATION).names
    _, brought = Fields(CONFIGURATION, names).values(contexts)
    places = {name: place for place, name in enumerate(field_names(names))}
    expected = [sum(1 << places[name] for name in context if name in places) for context in contexts]
    assert brought.tolist() == expected


@given(CONTEXTS)
def test_packed_facts_are_the_values_of_the_same_context(contexts):
    """Facts have the keys that the same fields have in a context, in the same order, and their text as JSON."""
    names = new_state(CONFIGURATION).names
    fields = Fields(CONFIGURATION, names)
    for context in contexts:
        packed, count = fields.packed(context | {"b": None}, -1)
        at, pairs, texts = 0, [], {}
        while at < len(packed):
            place, keys, length = HEAD.unpack_from(packed, at)
            at += HEAD.size
            if keys == REMOVED:
                assert field_names(names)[place] == "b"
                continue
            pairs += [(place, key) for key in np.frombuffer(packed, np.uint64, keys, at).tolist()]
            at += KEY_BYTES * keys + length
            texts |= json.loads(b"{" + packed[at - length : at] + b"}")
        context.pop("b", None)
        assert pairs == sorted(flat(fields.values([context])[0], 1)[0], key=lambda pair: pair[0])
        assert count == len(pairs)
        assert texts == {name: value for name, value in context.items() if name in field_names(names)}


@given(CONTEXTS)
def test_fields_get_their_places_in_the_order_of_the_log(contexts):
    """A field's place is the same whether the log comes at once or context by context; what is excluded has none."""
    first, second = new_state(CONFIGURATION).names, new_state(CONFIGURATION).names
    Fields(CONFIGURATION, first).values(contexts)
    one_by_one = Fields(CONFIGURATION, second)
    for context in contexts:
        one_by_one.values([context])
    assert field_names(first) == field_names(second)
    assert "h" not in field_names(first)
    known = one_by_one.known(contexts)
    assert known == [{name: value for name, value in each.items() if name != "h"} for each in contexts]


def test_columns_do_not_depend_on_how_a_log_is_cut():
    """Impressions of more shapes than are taken at once give, in one block, the columns of blocks of one."""
    contexts = [{name: [f"{name}{n}", "b"] if n % 3 else n for name in "abcdefg"[: n % 7]} for n in range(40)]
    assert len({tuple(context) for context in contexts}) > SHAPES_AT_ONCE
    records = [
        LogRecord(n, encode_event(Impression(f"i{n}", f"u{n % 5}", "v", 1_700_000_000_000 + n, context)))
        for n, context in enumerate(contexts)
    ]
    configuration = Configuration(features=FeaturesConfiguration(context=tuple("abcdefg")))
    whole = Columnizer(configuration, new_state(configuration).names, 0, 0).columns(records).columns
    columnizer = Columnizer(configuration, new_state(configuration).names, 0, 0)
    for n, record in enumerate(records):
        one = columnizer.columns([record]).columns
        for name in ("kind", "ts_ms", "key", "user", "item"):
            assert getattr(one, name)[0] == getattr(whole, name)[n]
        assert one.value_field.tolist() == whole.value_field[whole.value_start[n] : whole.value_start[n + 1]].tolist()
        assert one.value_key.tolist() == whole.value_key[whole.value_start[n] : whole.value_start[n + 1]].tolist()
        assert bytes(one.text[one.text_start[0] : one.text_end[0]]) == bytes(
            whole.text[whole.text_start[n] : whole.text_end[n]]
        )

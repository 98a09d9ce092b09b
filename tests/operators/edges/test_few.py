"""Blocks of a few events have the columns, events and reasons that the same events have in a large block."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Block, Columnizer
from thalweg.operators.edges.few import FEW
from thalweg.operators.features import FeaturesConfiguration
from thalweg.operators.fold.columns import AT_ONCE_MAX, _each_apart, new_columns
from thalweg.operators.structures.names import NAME_BYTES, field_names, write_name
from thalweg.schemas.events import Erase, Event, Feedback, Impression, Item, Request, User, encode_event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import LogRecord

TS = 1_700_000_000_000
IDS = st.sampled_from(["1", "22", "é" * 3, "x" * 40])
TIMES = st.integers(TS, TS + 90_000_000)
VALUES = st.one_of(
    st.sampled_from(["a", "ü", "1"]), st.integers(-2, 40), st.floats(-2, 40), st.lists(st.sampled_from("xyz"))
)
CONTEXTS = st.dictionaries(st.sampled_from(["a", "b", "c", "h", "a_name_that_is_too_long"]), VALUES, max_size=5)
SCORES = st.none() | st.floats(0, 1)
EVENTS = st.one_of(
    st.builds(Impression, IDS, IDS, IDS, TIMES, CONTEXTS, SCORES, st.none() | IDS),
    st.builds(Feedback, id=IDS, request=st.none() | IDS, user=IDS, item=IDS, ts=TIMES, action=st.just("click")),
    st.builds(
        Feedback.of,
        IDS,
        st.none() | IDS,
        IDS,
        IDS,
        TIMES,
        st.sampled_from(["click", "like", "an_action_that_is_too_long"]),
    ),
    st.builds(Erase, IDS, IDS, TIMES),
    st.builds(Request, IDS, IDS, st.just(["v"]), TIMES, CONTEXTS, shown=st.none() | st.integers(1, 5)),
    st.builds(Item, IDS, IDS, TIMES, CONTEXTS),
    st.builds(User, IDS, IDS, TIMES, CONTEXTS),
    st.sampled_from([None, b"", b"{", b'{"type":"erase","id":"","user":"u","ts":1700000000000}', b"\xff"]),
)
CONFIGURATION = Configuration(
    features=FeaturesConfiguration(
        buckets={"a": (1.0, 2.5, 30.0)},
        exclude=("h",),
        crosses=(("user", "item"),),
        hour_of_day=True,
        utc_offset_ms=-5_400_000,
        fields_limit=9,
        values_limit=9,
    ),
    limits=LimitsConfiguration(name_bytes=10, shown=4),
)
ALL = (
    *("kind", "reason", "offset", "ts_ms", "key", "impression", "request", "shown", "user", "item"),
    *("positive", "window_ms", "base_score", "brought"),
)


def records_of(events: list[Event | bytes | None]) -> list[LogRecord]:
    """Return them as records, each with a header if its offset is odd."""
    values = [encode_event(event) if isinstance(event, msgspec.Struct) else event for event in events]
    return [
        LogRecord(number, value, b"key", (("name", b"value"),) * (number % 2)) for number, value in enumerate(values)
    ]


def rows(block: Block) -> list[tuple[object, ...]]:
    """Return all that a block says of each event; of one that can't be used only why."""
    columns = block.columns
    found: list[tuple[object, ...]] = []
    for number, event in enumerate(block.events):
        if event is None:
            found.append((int(columns.kind[number]), int(columns.reason[number]), block.details.get(number)))
            continue
        first, last = columns.value_start[number], columns.value_start[number + 1]
        numbers = [getattr(columns, name)[number].tobytes() for name in ALL]
        values = columns.value_field[first:last].tolist(), columns.value_key[first:last].tolist()
        text = bytes(columns.text[columns.text_start[number] : columns.text_end[number]])
        candidates = slice(columns.candidate_start[number], columns.candidate_start[number + 1])
        items = columns.candidate_item[candidates].tolist(), block.asked.get(number)
        found.append((type(event), numbers, values, text, items))
    return found


def both(
    configuration: Configuration, records: list[LogRecord], size: int, partitions: int = 3
) -> tuple[list[list[Block]], list[list[str]]]:
    """Return the blocks of a log in one piece and in pieces of `size`, and the names of fields that each way gave."""
    blocks: list[list[Block]] = []
    names: list[list[str]] = []
    for each in (len(records), size):
        state_names = np.zeros((16, NAME_BYTES), np.uint8)
        # all fields have a place: a partition folds what comes before the first of a new field by itself
        for place, name in enumerate([*configuration.features.declared_fields(), "a", "b", "c"]):
            write_name(state_names, place, name)
        columnizer = Columnizer(configuration, state_names, 0, partitions)
        parts = [columnizer.columns(records[first : first + each]) for first in range(0, len(records), each)]
        blocks.append(parts)
        names.append(field_names(state_names))
    return blocks, names


@given(st.lists(EVENTS, min_size=FEW, max_size=3 * FEW), st.integers(1, FEW - 1))
@settings(deadline=None)
def test_few_events_have_the_columns_of_many(events, size):
    """Whatever the events, and however few at a time, their columns are those of one large block."""
    (whole, pieces), names = both(CONFIGURATION, records_of(events), size)
    assert [row for block in pieces for row in rows(block)] == [row for block in whole for row in rows(block)]
    assert names[0] == names[1]


def test_what_has_or_keeps_too_much_is_refused_alone():
    """An impression of too many values, and a feedback whose record can't be kept, are refused in blocks of one too."""
    too_long = (("name", b"x" * CONFIGURATION.limits.kept_bytes),)
    events = [
        Impression("1", "u", "v", TS, {"b": ["x"] * 6}),
        Impression("2", "u", "v", TS, {"b": ["x"] * 5}),
        Feedback.of("3", "1", "u", "v", TS, "click"),
        Feedback.of("4", "1", "u", "v", TS, "click"),
    ]
    records = [
        record._replace(headers=too_long) if number % 4 == 3 else record
        for number, record in enumerate(records_of(events * FEW))
    ]
    (whole, pieces), _ = both(CONFIGURATION, records, 1, partitions=1)
    assert [row for block in pieces for row in rows(block)] == [row for block in whole for row in rows(block)]
    reasons = [int(block.columns.reason[0]) for block in pieces[:4]]
    assert reasons == [Reason.TOO_MANY_VALUES.code, 0, 0, Reason.TOO_LARGE.code]


@pytest.mark.parametrize("events", [0, 1, AT_ONCE_MAX])
def test_columns_made_at_once_are_those_made_apart(events: int) -> None:
    """Type, shape and bytes are the same, each column is contiguous and aligned, and no two share a byte."""
    apart, columns = _each_apart(events), new_columns(events)
    for made, each in zip(columns, apart, strict=True):
        assert (made.dtype, made.shape, made.tobytes()) == (each.dtype, each.shape, each.tobytes())
        assert made.flags.c_contiguous
        assert made.flags.aligned
        assert made.flags.writeable
    for number, made in enumerate(columns):
        made.view(np.uint8)[...] = number
    assert all((made.view(np.uint8) == number).all() for number, made in enumerate(columns))
    assert new_columns(events).key.tolist() == [0] * events

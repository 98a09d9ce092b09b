"""A record that is plain by its bytes alone needs no measuring: that must never let anything pass."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import MsgspecError, json
from thalweg.operators.configuration import Configuration
from thalweg.operators.edges.columnizer import Columnizer
from thalweg.operators.fold.state import new_state
from thalweg.operators.machine.plain import find_plain, is_plain
from thalweg.schemas.decode import Plain, decode_plain, decoder, plain
from thalweg.schemas.events import Erase, Feedback, Impression, Request, encode_event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Unusable
from thalweg.schemas.records import LogRecord

TIGHT = LimitsConfiguration(
    id_bytes=12, value_bytes=10, name_bytes=6, context_fields=3, list_length=2, candidates=2, depth=4, record_bytes=300
)
TEXT = st.text(st.sampled_from('aü"\\\n{[,'), min_size=1, max_size=14)
VALUE = st.one_of(TEXT, st.integers(-9, 9), st.floats(0, 1), st.lists(TEXT, max_size=4))
TS = 1_700_000_000_000
EVENTS = st.one_of(
    st.builds(Impression, TEXT, TEXT, TEXT, st.just(TS), st.dictionaries(TEXT, VALUE, max_size=5)),
    st.builds(Feedback.of, TEXT, st.none() | TEXT, TEXT, TEXT, st.just(TS), TEXT),
    st.builds(Request, TEXT, TEXT, st.lists(TEXT, max_size=4), st.just(TS), st.just({})),
    st.builds(Erase, TEXT, TEXT, st.just(TS)),
)


@given(EVENTS, st.recursive(st.just(0), lambda inner: st.lists(inner, max_size=2), max_leaves=6))
@example(Erase("1", "u" * 13, TS), 0)
@example(Impression("1", "u", "v", TS, {"a" * 7: 1}), 0)
@example(Feedback.of("1", "2", "u", "v", TS, "a" * 7), 0)
def test_what_is_read_as_plain_is_what_every_check_lets_pass(event, unknown):
    """Blocks refuse what `decoder` refuses, with its reason, and read all else to the same event."""
    raw = encode_event(event)[:-1] + b',"unknown":' + json.encode(unknown) + b"}"
    configuration = Configuration(limits=TIGHT)
    block = Columnizer(configuration, new_state(configuration).names, 0, 0).columns([LogRecord(0, raw)])
    (event,), codes, details = block.events, block.columns.reason.tolist(), block.details
    if event is None:
        with pytest.raises(Unusable) as refusal:
            decoder(TIGHT)(raw)
        assert codes == [refusal.value.reason.code]
        assert details == {0: refusal.value.detail}
    else:
        assert (event, codes) == (decoder(TIGHT)(raw), [0])


@given(st.binary(max_size=40) | st.text('[]{},"é', max_size=40).map(str.encode))
def test_few_records_are_plain_as_many_are(raw):
    """A few records are looked at one by one and many in compiled code: both must say the same."""
    limits = Plain(record_bytes=30, commas=2, brackets=3)
    assert find_plain([raw], limits) == [is_plain(raw, limits)]


def test_real_records_are_plain():
    """What real logs look like takes the short way."""
    event = Impression("0", "712", "5239", TS, {"tab": 1, "author": 8_079_479, "tag": ["39"], "duration_ms": 49_866})
    assert find_plain([encode_event(event)], plain(LimitsConfiguration())) == [True]


@pytest.mark.parametrize("raw", [b"", b"{}", b"not JSON", b'{"type":"erase"}'])
def test_plain_records_may_be_no_events(raw):
    """The short way refuses what is none, and says so by the decoder's error."""
    with pytest.raises(MsgspecError):
        decode_plain(raw)

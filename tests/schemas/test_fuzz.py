"""Whatever the bytes, the decoder gives an event or a reason, and both readers of JSON agree on which."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.schemas.decode import decoder
from thalweg.schemas.events import Erase, Feedback, Impression, Request, encode_event
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable
from thalweg.schemas.refusal import refusal

from tests.schemas.golden import DIRECTORY
from tests.soak import sized

MUTATED, ANY = sized(500, 2_000), sized(150, 500)
LIMITS = LimitsConfiguration()
DECODE = decoder(LIMITS)
VALID = [
    line
    for name in ("impression", "feedback", "request", "erase", "written_by_others")
    for line in (DIRECTORY / f"{name}.jsonl").read_bytes().splitlines()
]
PIECES = [
    b"",
    b"[" * 9,
    b"{" * 9,
    b"]",
    b"}",
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\xff",
    b"\xed\xa0\x80",
    b"\0",
    b",",
    b":",
]
PIECES += [
    b"1" * 500,
    b"1" * 5_000,
    b"0." + b"1" * 500,
    b"1e999",
    b"-",
    b"NaN",
    b"null",
    b"true",
    b"x" * 300,
    b"[" * 30_000,
]
PIECES += [
    b'"ts":1,',
    b'"type":"erase",',
    b'"user":"",',
    b'"context":{},',
    b'"value":9,',
    b'"shown":257,',
    b'"request":7,',
    b'"a":1,' * 70,
    b'"",' * 40,
    b"\xc3\xa9",
]

texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=64)
times = st.integers(315_532_800_000, 4_102_444_799_999)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = texts | st.just("") | numbers | st.lists(texts, max_size=32)
contexts = st.dictionaries(texts.filter(lambda name: len(name.encode()) <= 64), values, max_size=64)
events = (
    st.builds(Impression, texts, texts, texts, times, contexts, st.none() | st.floats(0, 1))
    | st.builds(
        Feedback.of, texts, st.none() | texts, texts, texts, times, st.just("like"), st.none() | numbers.map(float)
    )
    | st.builds(Feedback, id=texts, request=st.none() | texts, user=texts, item=texts, ts=times, action=st.just("like"))
    | st.builds(
        Request, texts, texts, st.lists(texts, max_size=40), times, contexts, shown=st.none() | st.integers(1, 256)
    )
    | st.builds(Erase, texts, texts, times)
)


@st.composite
def mutated(draw):
    """Draw a valid record that was cut, flipped, spliced, or had pieces put in."""
    raw = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 12)))
        raw[start:end] = draw(st.sampled_from(PIECES) | st.binary(max_size=3))
    return bytes(raw[: draw(st.integers(0, len(raw)))] if draw(st.booleans()) else raw)


def outcome(raw):
    try:
        return DECODE(raw)
    except Unusable as refused:
        return refused


def has_duplicates(raw):
    found = []

    def members(pairs):
        found.append(len(dict(pairs)) < len(pairs))
        return dict(pairs)

    json.loads(raw, object_pairs_hook=members, parse_int=float)
    return any(found)


def check(raw):
    result = outcome(raw)
    if isinstance(result, Unusable):
        assert Reason.of_code(result.reason.code) is result.reason
        assert result.detail.isascii()
        assert len(result.detail) < 400
        if result.reason is Reason.DUPLICATE_KEY:
            assert has_duplicates(raw)
    else:
        # The slow reader finds nothing wrong with what the fast one accepts; with nothing found it says duplicate_key.
        assert refusal(raw, LIMITS).reason is Reason.DUPLICATE_KEY
        assert DECODE(encode_event(result)) == result
    assert repr(outcome(raw)) == repr(result)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes(raw):
    """Any bytes at all give an event or a reason."""
    check(raw)


@pytest.mark.soak(MUTATED, 2_000, "examples")
@settings(max_examples=MUTATED, deadline=None)
@given(mutated())
def test_mutated_records(raw):
    """A valid record with damage gives an event that both readers accept, or a reason that fits."""
    check(raw)


@pytest.mark.soak(ANY, 500, "examples")
@settings(max_examples=ANY, deadline=None)
@given(st.recursive(values | st.none() | st.booleans(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner)))
def test_any_json(value):
    """Any JSON value, alone, as a context or as an unknown field, gives an event or a reason."""
    frame = {"type": "impression", "id": "1", "user": "u", "item": "v", "ts": 1_700_000_000_000, "context": {}}
    for record in (value, frame | {"context": value}, frame | {"unknown": value}, frame | {"ts": value}):
        check(json.dumps(record).encode())


@settings(max_examples=300, deadline=None)
@given(events)
def test_every_event_is_read_back(event):
    """Every event within the limits decodes from its own encoding to the same event."""
    assert repr(DECODE(encode_event(event))) == repr(event)


FRAME = b'{"type":"impression","id":"1","user":"u","item":"v","ts":1700000000000,"context":{%s}%s}'
BOMBS = {
    "open brackets": b"[" * 65_536,
    "closed brackets": FRAME % (b"", b',"z":' + b"[" * 32_000 + b"]" * 32_000),
    "brackets in strings": b'{"' + b'["{"' * 16_000,
    "escaped quotes": b"{" * 9 + b'"' + b'\\"' * 32_000,
    "backslashes": b"{" * 9 + b'"' + b"\\" * 65_000,
    "quotes": b'"' * 65_536,
    "an integer": FRAME % (b'"a":' + b"7" * 65_000, b""),
    "an integer in an unknown field": FRAME % (b'"a":true', b',"z":' + b"7" * 65_000),
    "a fraction": FRAME % (b'"a":0.' + b"7" * 65_000, b""),
    "names": FRAME % (b",".join(b'"%d":1' % n for n in range(6_000)), b""),
    "objects": FRAME % (b'"a":true', b',"z":[' + b"{}," * 21_000 + b"{}]"),
    "nests": FRAME % (b'"a":true', b',"z":[' + b"[[[[[[]]]]]]," * 4_900 + b"1]"),
    "escapes": FRAME % (b'"a":"' + b"\\u00e9" * 10_000 + b'\\ud800"', b""),
    "strings": FRAME % (b'"a":[' + b'"",' * 21_000 + b'""]', b""),
    "white space": b'{"a":1,' + b" " * 65_000 + b"}",
    "commas": b"[" + b"," * 65_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_record_is_a_bomb(name):
    """The worst record within the limit of size costs milliseconds; the bound is ten times what was measured."""
    raw = BOMBS[name]
    seconds = []
    for _ in range(7):
        started = time.process_time()
        outcome(raw)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.025, sorted(seconds)  # the collector may pass through the whole test suite's objects

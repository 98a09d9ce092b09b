"""Whatever the records, a partition goes on, gives each exactly one fate, and refuses it for the right reason."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES
from thalweg.schemas.records import LogRecord, Output
from thalweg.streams.driver import START_MS
from thalweg.streams.partition.partition import Partition

from tests.soak import sized
from tests.streams.logs_for_tests import Hashed, sample, small
from tests.streams.plain_rules import FIELDS, Rules, reason_of

WHOLE = 100_000
RECORDS = sized(25_000, WHOLE)
BY_STATE = {"user_mismatch", "too_many_feedbacks", "no_room"}
"""Reasons that hang on what waits, which the plain rules do not know."""
BY_TYPE = {"item": {"too_large"}, "user": {"too_large"}, "merge": {"unknown_source"}}
"""Reasons of facts, whose bytes add up, and of merges, whose partitions `[lessons]` bounds."""
MARK = "\ue000"  # stands for a literal that json.dumps would not write
LITERALS = (
    b"NaN",
    b"-Infinity",
    b"1e999",
    b"-1e999",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"1" * 400,
    b"7" * 5_000,
    b"0." + b"3" * 700,
    b"01",
    b"1.",
    b"-0",
    b"-0.0",
    b"1700000000000.0",
    b"true",
    b"null",
    b"'a'",
    b"[" * 7 + b"]" * 7,
    b"[" * 3 + b"]" * 3,
    b"[" * 40_000,
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\\x"',
    b'"' + b"x" * 257 + b'"',
    '"é"'.encode() * 1,
    b'"' + "é".encode() * 128 + b'"',
    b'"' + "é".encode() * 129 + b'"',
    b'""',
    b"{}",
    b"[]",
    b'["a","b"]',
    b'["a",1]',
    b'["' + b'","' * 31 + b'"]',
    b'["' + b'","' * 32 + b'"]',
    b'{"":1}',
    b'{"a\\u0000b":1}',
    b'{"\\u0000":1}',
    b'{"user":"0","item":"0"}',
    b'{"0":1,"999999":2}',
    b'{"-0":1}',
    b'{"01":1}',
    b'{"1000000":1}',
    b'{"0":-1}',
    b"[0,999999]",
    b"[-1]",
    b"0",
    b"1",
    b"2147483648",
    b"0.5",
    b'"drop"',
    b'"gumbel"',
    b'{"tab":2,"author":1}',
    b'{"a":1,"b":1,"c":1,"d":1,"e":1}',
    b'{"a":0}',
    b'["","a"]',
    b'{"a":1,"a":2}',
    b'{"a":null,"a":2}',
    b'{"a":{},"b":1}',
    b'{"' + b"n" * 65 + b'":1}',
    b"{" + b",".join(b'"n%d":%d' % (n, n) for n in range(64)) + b"}",
    b"{" + b",".join(b'"n%d":%d' % (n, n) for n in range(65)) + b"}",
    b'"' + b"x" * 70_000 + b'"',
)
PIECES = (b"", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\0", b'"', b"\\", b"{", b"}", b"[", b"]", b",")
PIECES += (b":", b"-", b"e9", b"0", b"\\u", b"\\ud800", b"null", b" ", b"\n", b"\x7f", b"\xf4\x90\x80\x80")
NAMES = ("type", "id", "user", "item", "ts", "context", "base_score", "impression", "action", "value", "candidates")
NAMES += (
    "unknown",
    "",
    "\0",
    "user",
    "é" * 33,
    "fields",
    "upto",
    "exclude",
    "start",
    "request",
    "position",
    "propensity",
)

INNER = ("context", "fields", "upto", "at_most")
"""Fields whose own fields are broken too."""


def real(count: int) -> list[bytes]:
    """Return real records, with requests, erases, facts and merges among them."""
    values = [record.value or b"" for record in sample(count)]
    for number in range(0, count, 80):
        ts = json.loads(values[number])["ts"]
        values[number] = b'{"type":"erase","id":"e%d","user":"%d","ts":%d}' % (number, number % 50, ts)
        request = {"type": "request", "id": f"r{number}", "user": "1", "candidates": ["a"], "ts": ts, "context": {}}
        if number % 160:
            request |= {"top": 2, "exclude": ["b"], "seen": "drop", "at_most": {"tab": 1}, "shown": 1, "floor": 0.1}
        values[number + 1] = json.dumps(request).encode()
        fact = {
            "type": "item",
            "id": f"f{number}",
            "item": "1",
            "ts": ts,
            "fields": {"author": "a", "tags": ["x", "y"]},
        }
        user = {
            "type": "user",
            "id": f"u{number}",
            "user": str(number % 50),
            "ts": ts,
            "fields": {"age": 31, "tab": None},
        }
        merge = {"type": "merge", "id": f"m{number}", "upto": {"0": number, "3": 7}, "exclude": [1]}
        shown = {"request": "r0", "position": 2, "propensity": 0.25}
        for step, fields in enumerate((fact, user, merge, json.loads(values[number + 5]) | shown)):
            values[number + 2 + step] = json.dumps(fields).encode()
    return values


def restructured(raw: bytes, chance: random.Random) -> bytes:
    """Return a record with a field changed, dropped, doubled or added, or one of its context's."""
    pairs = list(json.loads(raw).items())
    inner = next((value for name, value in pairs if name in INNER), None)
    target: list[tuple[str, Any]] = pairs
    if inner is not None and chance.random() < 0.5:
        target = list(inner.items())
    literal = chance.choice(LITERALS)
    place = chance.randrange(len(target) + 1)
    choice = chance.random()
    if choice < 0.5 and place < len(target):
        target[place] = (target[place][0], MARK)
    elif choice < 0.6 and place < len(target):
        del target[place]
    elif choice < 0.7 and place < len(target):
        target.insert(chance.randrange(len(target) + 1), (target[place][0], MARK))
    else:
        target.insert(place, (chance.choice(NAMES), MARK))
    if target is not pairs:
        pairs = [(name, target if name in INNER else value) for name, value in pairs]
    return written(pairs, literal)


def written(pairs: Sequence[tuple[str, Any]], literal: bytes) -> bytes:
    """Write fields as JSON, names that occur twice included, with a literal where the mark is."""
    members = []
    for name, value in pairs:
        text = json.dumps(name).encode() + b":"
        if name in INNER and isinstance(value, list):
            text += written(value, literal)
        else:
            text += literal if value == MARK else json.dumps(value, ensure_ascii=False).encode()
        members.append(text)
    return b"{" + b",".join(members) + b"}"


def damaged(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """Return a record cut, with bytes put in or taken out, or spliced with another."""
    out = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        start = chance.randrange(len(out) + 1)
        choice = chance.random()
        if choice < 0.2:
            del out[start:]
        elif choice < 0.6:
            out[start : start + chance.choice((0, 1, 1, 4))] = chance.choice(PIECES)
        elif choice < 0.8 and start < len(out):
            out[start] ^= 1 << chance.randrange(8)
        elif choice < 0.9:
            out[start:] = other[min(start, len(other)) :]
        else:
            out[start:start] = chance.choice(LITERALS[:12])
    return bytes(out)


def shifted(raw: bytes, chance: random.Random) -> bytes:
    """Return a record of another time: far ahead, far behind, at the edges of what is a time."""
    fields = json.loads(raw)
    step = chance.choice((-86_400_000_000, -1, 1, 86_400_000, 86_400_001, 400 * 86_400_000))
    fields["ts"] = chance.choice(
        (fields.get("ts", START_MS) + step, 315_532_800_000, 315_532_799_999, 4_102_444_799_999)
    )
    return json.dumps(fields).encode()


def fuzzed(count: int, seed: int) -> list[LogRecord]:
    """Return real records, most of them broken in one way or another, some with keys and headers."""
    chance = random.Random(seed)
    base = real(10_000)
    records = []
    for offset in range(count):
        raw = base[offset % len(base)]
        value: bytes | None = raw
        choice = chance.random()
        if choice < 0.45:
            value = restructured(raw, chance)
        elif choice < 0.85:
            value = damaged(raw, base[chance.randrange(len(base))], chance)
        elif choice < 0.86:
            value = shifted(raw, chance)
        elif choice < 0.865:
            value = chance.choice((None, b"", chance.randbytes(chance.randrange(300)), b"{" * 70_000))
        key = chance.choice((None, None, b"", b"1", b"\xff\0"))
        headers = (("trace", b"\xff" * chance.randrange(300_000)),) if chance.random() < 0.001 else ()
        records.append(LogRecord(offset, value, key, headers))
    return records


def unmerged(c: Configuration) -> Configuration:
    """Pass over all merges: what a merge names without bringing it would end the run, as it should."""
    return replace(c, lessons=replace(c.lessons, enabled=False))


def check(records: Sequence[LogRecord], partition: Partition, letters: Sequence[Output], rules: Rules) -> Counter[str]:
    """Assert that each record has a fate, and each dead letter its bytes and the right reason; count the reasons."""
    fates = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
    assert sum(fates.values()) == len(records)
    assert fates["dead_lettered"] == len(letters)
    by_offset = {record.offset: record for record in records}
    refused: dict[int, str] = {}
    for letter in letters:
        headers = dict(letter.headers)
        offset = int(headers["__streams.errors.offset"])
        assert offset not in refused
        refused[offset] = headers["thalweg.reason"].decode()
        assert (letter.value, letter.key) == by_offset[offset][1:3]
        assert letter.headers[: len(by_offset[offset].headers)] == by_offset[offset].headers
    for record in records:
        got = refused.get(record.offset)
        fitting, fields = reason_of(record.value)
        if not fitting and fields["type"] == "feedback" and sum(len(value) for _, value in record.headers) > 250_000:
            fitting = {"too_large"} if got == "too_large" else set()  # its bytes, key and headers in all
            fields = None if fitting else fields
        if not fitting:
            reason = rules.reason_of(fields)
            fitting = {reason} if reason else BY_STATE | BY_TYPE.get(fields["type"], set()) | {""}
        assert (got or "") in fitting, (record.value, got, fitting)
    return Counter(refused.values())


@pytest.mark.soak(RECORDS, WHOLE, "records")
def test_a_hundred_thousand_broken_records() -> None:
    """Each must get one fate and the reason that plain rules give it, and the cut of the log must change nothing."""
    records = fuzzed(RECORDS, seed=7)
    c = unmerged(small())
    partition = Partition(c)
    outputs = partition.process(records)
    counts = check(records, partition, outputs.dead_letters, Rules(c.features.fields_limit, c.features.values_limit))
    byte_reasons = {reason for reason, count in counts.items() if count >= 20 * RECORDS // WHOLE}
    assert len(byte_reasons) >= 23, counts
    assert min(partition.state.fates[:2].min(), partition.state.fates[3]) > 100 * RECORDS // WHOLE
    assert all(map(np_isfinite, partition.snapshot().values()))
    # Cut differently, and restored from a snapshot again and again, it is the same.
    hashed, again = Hashed(), Hashed()
    hashed.add(outputs)
    other = Partition(c, block_events=700)
    for first in range(0, RECORDS, 9_973):
        again.add(other.process(records[first : first + 9_973]))
        other = Partition(c, block_events=700, arrays=other.snapshot())
    assert again.digests() == hashed.digests()
    assert other.digest() == partition.digest()


def np_isfinite(array: Any) -> bool:
    """Tell whether an array of a state has finite numbers only, but for base scores that are absent."""
    if array.dtype.kind != "f" or array.shape[-1:] == (5,):
        return True
    return bool((abs(array) < float("inf")).all())


texts = st.text(max_size=8) | st.sampled_from(["a", "b", "\0", "user", "item", "x" * 257])
values: Any = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=4)
)
times = st.integers(START_MS - 5, START_MS + 5) | st.integers(START_MS, START_MS + 10**9) | values
ids = st.sampled_from(["1", "2", "3"]) | values
numbers_or_values = st.integers(-1, 3) | values
numbers = st.integers(-1, 3).map(str)
drawn = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("impression"), "id": ids, "user": ids, "item": ids, "ts": times},
        optional={
            "context": st.dictionaries(texts, values, max_size=5),
            "base_score": values,
            "request": values,
            "position": numbers_or_values,
            "propensity": values,
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("feedback"), "id": ids, "user": ids, "item": ids, "ts": times, "impression": ids},
        optional={"action": st.just("click") | values, "value": values, "request": ids},
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["item", "user"]), "id": ids, "user": ids, "item": ids, "ts": times},
        optional={"fields": st.dictionaries(texts, values, max_size=5)},
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("request"),
            "id": ids,
            "user": ids,
            "candidates": st.lists(ids, max_size=4) | values,
            "ts": times,
        },
        optional={
            "context": st.dictionaries(texts, values, max_size=5),
            "exclude": st.lists(ids, max_size=2) | values,
            "seen": st.sampled_from(["keep", "drop"]) | values,
            "at_most": st.dictionaries(texts, numbers_or_values, max_size=5) | values,
            "explain": st.booleans() | values,
            "policy": st.sampled_from(["none", "epsilon", "gumbel", "thompson"]) | values,
            **dict.fromkeys(("epsilon", "temperature", "deviation", "floor"), values),
            **dict.fromkeys(("top", "shown"), numbers_or_values),
        },
    ),
    st.fixed_dictionaries(
        {"type": st.just("merge"), "id": ids, "upto": st.dictionaries(numbers | texts, numbers_or_values, max_size=3)},
        optional={"exclude": st.lists(numbers_or_values, max_size=3) | values, "start": ids},
    ),
    st.fixed_dictionaries(
        {"type": st.sampled_from(sorted(FIELDS)) | values, "id": ids, "user": ids}, optional={"ts": times}
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(drawn, min_size=1, max_size=30))
def test_any_few_records(given_records: list[dict[str, Any]]) -> None:
    """Any short log of records like events must be accounted for, whatever is in their fields."""
    records = [LogRecord(n, json.dumps(fields).encode()) for n, fields in enumerate(given_records)]
    partition = Partition(unmerged(small(waiting=4, users=8)))
    outputs = partition.process(records)
    check(records, partition, outputs.dead_letters, Rules(16, 32))

"""Each kind of record that cannot be used has its reason and one line of detail."""

import pytest
from thalweg.schemas.decode import decoder
from thalweg.schemas.limits import LimitsConfiguration
from thalweg.schemas.reasons import Reason, Unusable

DECODE = decoder(LimitsConfiguration())
FEEDBACK = '{"type":"feedback","id":"1:c","impression":"1","user":"u","item":"v","ts":1700000000000,"action":"click"}'


def impression(context="{}", *, ts="1700000000000", user='"u"', more=""):
    return f'{{"type":"impression","id":"1","user":{user},"item":"v","ts":{ts},"context":{context}{more}}}'.encode()


def feedback(old, new):
    assert old in FEEDBACK
    return FEEDBACK.replace(old, new).encode()


def request(candidates):
    return (
        f'{{"type":"request","id":"1","user":"u","candidates":{candidates},"ts":1700000000000,"context":{{}}}}'.encode()
    )


def fields(count):
    return "{" + ",".join(f'"{n}":{n}' for n in range(count)) + "}"


CASES = {
    "tombstone": (None, Reason.EMPTY, "the record has no value (a tombstone)"),
    "empty value": (b"", Reason.EMPTY, "0 bytes"),
    "white space": (b" \n", Reason.NOT_JSON, "not JSON from character 2 of 2"),
    "too large": (impression(more=" " * 65_536), Reason.TOO_LARGE, "65620 bytes, at most 65536"),
    "not UTF-8": (b'{"a":"\xff"}', Reason.NOT_UTF8, "byte 6 is not UTF-8"),
    "not UTF-8 in an unknown field": (
        impression(more=',"z":"@"').replace(b"@", b"\xc0\x80"),
        Reason.NOT_UTF8,
        "byte 89 is not UTF-8",
    ),
    "UTF-16": (impression().decode().encode("utf-16"), Reason.NOT_UTF8, "byte 0 is not UTF-8"),
    "byte order mark": (b"\xef\xbb\xbf" + impression(), Reason.NOT_JSON, "not JSON from character 0 of 85"),
    "text": (b"click!", Reason.NOT_JSON, "not JSON from character 0 of 6"),
    "truncated": (impression()[:40], Reason.NOT_JSON, "not JSON from character 40 of 40"),
    "trailing garbage": (impression() + b" x", Reason.NOT_JSON, "not JSON from character 85 of 86"),
    "two objects": (impression() + impression(), Reason.NOT_JSON, "not JSON from character 84 of 168"),
    "trailing comma": (impression('{"a":1, }'), Reason.NOT_JSON, "not JSON from character 87 of 91"),
    "control character": (impression('{"a":"\x01"}'), Reason.NOT_JSON, "not JSON from character 87 of 91"),
    "leading zero": (impression(ts="01700000000000"), Reason.NOT_JSON, "not JSON from character 58 of 85"),
    "single quotes": (b"{'type':'erase'}", Reason.NOT_JSON, "not JSON from character 1 of 16"),
    "deep array": (b"[" * 65_000, Reason.TOO_DEEP, "nested deeper than 8"),
    "deep unknown field": (impression(more=',"z":' + "[" * 8 + "]" * 8), Reason.TOO_DEEP, "nested deeper than 8"),
    "deep objects": (
        impression(more=',"z":' + '{"a":' * 999 + "1" + "}" * 999),
        Reason.TOO_DEEP,
        "nested deeper than 8",
    ),
    "lone surrogate": (impression('{"a":"\\ud800"}'), Reason.LONE_SURROGATE, "a string has half of a surrogate pair"),
    "lone low surrogate": (
        impression(user='"\\udc00x"'),
        Reason.LONE_SURROGATE,
        "a string has half of a surrogate pair",
    ),
    "lone surrogate in an unknown field": (
        impression(more=',"z":"\\ud83dx"'),
        Reason.LONE_SURROGATE,
        "a string has half of a surrogate pair",
    ),
    "duplicate name, first bad": (
        impression(more=',"ts":1700000000000', ts="true"),
        Reason.DUPLICATE_KEY,
        "a name occurs twice, first with a value that cannot be used",
    ),
    "array": (b"[]", Reason.NOT_AN_OBJECT, "the record is a list"),
    "null": (b"null", Reason.NOT_AN_OBJECT, "the record is null"),
    "no type": (b"{}", Reason.MISSING_FIELD, "type is missing"),
    "type a number": (b'{"type":1}', Reason.WRONG_TYPE, "type is an integer, not a string"),
    "unknown type": (b'{"type":"Impression"}', Reason.UNKNOWN_TYPE, 'no event has the type "Impression"'),
    "very unknown type": (
        b'{"type":"' + "ü".encode() * 99 + b'"}',
        Reason.UNKNOWN_TYPE,
        'no event has the type "' + "\\u00fc" * 40 + '..."',
    ),
    "no user": (feedback('"user"', '"User"'), Reason.MISSING_FIELD, "user is missing"),
    "no context": (impression().replace(b"context", b"contexts"), Reason.MISSING_FIELD, "context is missing"),
    "null id": (feedback('"1:c"', "null"), Reason.WRONG_TYPE, "id is null, not a string"),
    "number as user": (impression(user="17"), Reason.WRONG_TYPE, "user is an integer, not a string"),
    "context a list": (impression("[]"), Reason.WRONG_TYPE, "context is a list, not an object"),
    "context null": (impression("null"), Reason.WRONG_TYPE, "context is null, not an object"),
    "boolean in context": (
        impression('{"a":true}'),
        Reason.WRONG_TYPE,
        'context "a" is a boolean, not a string, a number or a list of strings',
    ),
    "null in context": (
        impression('{"a":null}'),
        Reason.WRONG_TYPE,
        'context "a" is null, not a string, a number or a list of strings',
    ),
    "object in context": (
        impression('{"a":{}}'),
        Reason.WRONG_TYPE,
        'context "a" is an object, not a string, a number or a list of strings',
    ),
    "numbers in a list": (impression('{"a":["x",1]}'), Reason.WRONG_TYPE, 'context "a"[1] is an integer, not a string'),
    "ts a fraction": (impression(ts="1.7e12"), Reason.WRONG_TYPE, "ts is a fraction, not an integer"),
    "ts a whole fraction": (impression(ts="1700000000000.0"), Reason.WRONG_TYPE, "ts is a fraction, not an integer"),
    "ts a string": (impression(ts='"1700000000000"'), Reason.WRONG_TYPE, "ts is a string, not an integer"),
    "ts a boolean": (impression(ts="true"), Reason.WRONG_TYPE, "ts is a boolean, not an integer"),
    "value a string": (
        feedback('"click"', '"click","value":"1"'),
        Reason.WRONG_TYPE,
        "value is a string, not a number",
    ),
    "NaN": (impression('{"a":NaN}'), Reason.NOT_FINITE, "NaN is not a JSON number"),
    "Infinity": (impression(more=',"base_score":-Infinity'), Reason.NOT_FINITE, "-Infinity is not a JSON number"),
    "1e999 in context": (impression('{"a":1e999}'), Reason.NOT_FINITE, 'context "a" is beyond float64'),
    "1e999 as value": (feedback('"click"', '"click","value":-1e999'), Reason.NOT_FINITE, "value is beyond float64"),
    "400 digits as value": (
        feedback('"click"', '"click","value":' + "9" * 400),
        Reason.NOT_FINITE,
        "value is beyond float64",
    ),
    "2^63 in context": (
        impression('{"a":9223372036854775808}'),
        Reason.INTEGER_OUT_OF_RANGE,
        'context "a" does not fit 64 bits',
    ),
    "60 000 digits": (
        impression('{"a":-' + "1" * 60_000 + "}"),
        Reason.INTEGER_OUT_OF_RANGE,
        'context "a" does not fit 64 bits',
    ),
    "empty user": (impression(user='""'), Reason.ID_EMPTY, "user is empty"),
    "a candidate beyond float64": (
        request('["v",{"item":"w","context":{"a":[1e999]}}]'),
        Reason.NOT_FINITE,
        "a number in candidates is beyond float64",
    ),
    "candidates that are no list": (request('"v"'), Reason.WRONG_TYPE, "candidates is a string, not a list"),
    "top of 0": (request('["v"],"top":0'), Reason.BAD_OPTION, "top is 0, not in 1 to 2147483647"),
    "top of 1.0": (request('["v"],"top":1.0'), Reason.WRONG_TYPE, "top is a fraction, not an integer"),
    "shown of 0": (request('["v"],"shown":0'), Reason.BAD_OPTION, "shown is 0, not in 1 to 2147483647"),
    "shown above its limit": (request('["v"],"shown":257'), Reason.BAD_OPTION, "shown is 257, at most 256"),
    "shown of another type": (request('["v"],"shown":["v"]'), Reason.WRONG_TYPE, "shown is a list, not an integer"),
    "feedback of an empty request": (
        feedback('"impression":"1"', '"request":""'),
        Reason.ID_EMPTY,
        "request is empty",
    ),
    "feedback of a request by number": (
        feedback('"impression":"1"', '"request":8'),
        Reason.WRONG_TYPE,
        "request is an integer, not a string",
    ),
    "feedback of a request too long": (
        feedback('"impression":"1"', f'"request":"{"r" * 257}"'),
        Reason.ID_TOO_LONG,
        "request has 257 bytes, at most 256",
    ),
    "seen of another kind": (request('["v"],"seen":"x"'), Reason.BAD_OPTION, 'seen is "x", not "keep" or "drop"'),
    "a number excluded": (
        request('["v"],"exclude":["a",1]'),
        Reason.WRONG_TYPE,
        "exclude[1] is an integer, not a string",
    ),
    "too many excluded": (
        request('["v"],"exclude":[' + '"v",' * 1_024 + '"v"]'),
        Reason.TOO_MANY_CANDIDATES,
        "1025 items in exclude, at most 1024",
    ),
    "five caps": (
        request('["v"],"at_most":{"a":1,"b":1,"c":1,"d":1,"e":1}'),
        Reason.BAD_OPTION,
        "at_most has 5 fields, at most 4",
    ),
    "a cap of none": (
        request('["v"],"at_most":{"a":0}'),
        Reason.BAD_OPTION,
        'at_most "a" is 0, not in 1 to 2147483647',
    ),
    "a long name capped": (
        request('["v"],"at_most":{"' + "a" * 65 + '":1}'),
        Reason.NAME_TOO_LONG,
        "a name in at_most has 65 bytes, at most 64",
    ),
    "explain of 1": (request('["v"],"explain":1'), Reason.WRONG_TYPE, "explain is an integer, not a boolean"),
    "user of 257 bytes": (impression(user=f'"{"u" * 257}"'), Reason.ID_TOO_LONG, "user has 257 bytes, at most 256"),
    "user of 258 bytes": (impression(user=f'"{"é" * 129}"'), Reason.ID_TOO_LONG, "user has 258 bytes, at most 256"),
    "long impression id": (
        feedback('"impression":"1"', f'"impression":"{"1" * 300}"'),
        Reason.ID_TOO_LONG,
        "impression has 300 bytes, at most 256",
    ),
    "long item excluded": (
        request(f'["v"],"exclude":["{"v" * 300}"]'),
        Reason.ID_TOO_LONG,
        "exclude[0] has 300 bytes, at most 256",
    ),
    "empty action": (feedback('"click"', '""'), Reason.NAME_EMPTY, "action is empty"),
    "empty name": (impression('{"":1}'), Reason.NAME_EMPTY, "a name in context is empty"),
    "long action": (feedback("click", "c" * 65), Reason.NAME_TOO_LONG, "action has 65 bytes, at most 64"),
    "long name": (
        impression(f'{{"{"ü" * 33}":1}}'),
        Reason.NAME_TOO_LONG,
        "a name in context has 66 bytes, at most 64",
    ),
    "65 fields": (impression(fields(65)), Reason.TOO_MANY_CONTEXT_FIELDS, "65 fields, at most 64"),
    "5 000 fields": (impression(fields(5_000)), Reason.TOO_MANY_CONTEXT_FIELDS, "5000 fields, at most 64"),
    "long value": (
        impression(f'{{"a":"{"x" * 257}"}}'),
        Reason.VALUE_TOO_LONG,
        'context "a" has 257 bytes, at most 256',
    ),
    "long text in a list": (
        impression(f'{{"a":["","{"ü" * 129}"]}}'),
        Reason.VALUE_TOO_LONG,
        'context "a"[1] has 258 bytes, at most 256',
    ),
    "long list": (
        impression('{"a":[' + '"",' * 32 + '""]}'),
        Reason.LIST_TOO_LONG,
        'context "a" has 33 strings, at most 32',
    ),
    "many candidates": (
        request("[" + '"v",' * 1_024 + '"v"]'),
        Reason.TOO_MANY_CANDIDATES,
        "1025 candidates, at most 1024",
    ),
    "base_score above 1": (impression(more=',"base_score":1.01'), Reason.BAD_BASE_SCORE, "base_score is not in 0 to 1"),
    "base_score below 0": (
        impression(more=',"base_score":-1e-9'),
        Reason.BAD_BASE_SCORE,
        "base_score is not in 0 to 1",
    ),
    "base_score huge": (impression(more=',"base_score":1e999'), Reason.BAD_BASE_SCORE, "base_score is not in 0 to 1"),
    "ts in seconds": (
        impression(ts="1700000000"),
        Reason.TIME_OUT_OF_RANGE,
        "ts is not in the years 1980 to 2099 in milliseconds",
    ),
    "ts of 2100": (
        impression(ts="4102444800000"),
        Reason.TIME_OUT_OF_RANGE,
        "ts is not in the years 1980 to 2099 in milliseconds",
    ),
    "ts past int64": (
        impression(ts="9" * 30),
        Reason.TIME_OUT_OF_RANGE,
        "ts is not in the years 1980 to 2099 in milliseconds",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_with_its_reason(name):
    """A record that cannot be used is refused with exactly this reason and this line of ASCII."""
    raw, reason, detail = CASES[name]
    with pytest.raises(Unusable) as refused:
        DECODE(raw)
    assert (refused.value.reason, refused.value.detail) == (reason, detail)
    assert str(refused.value) == f"{reason.value}: {detail}"
    assert detail.isascii()


def test_limits_hold_to_the_byte():
    """What is exactly at every limit is used."""
    names = {"ü" * 32: "ü" * 128} | {f"n{number}": ["ä" * 128] * 2 for number in range(61)}
    text = ",".join(f'"{name}":{value!r}'.replace("'", '"') for name, value in names.items())
    context = "{" + text.replace(f":{'ü' * 128}", f':"{"ü" * 128}"') + ',"list":[' + '"",' * 31 + '""],"z":1}'
    raw = impression(context, user=f'"{"é" * 128}"', more=',"z":[[[[[[[]]]]]]]')
    raw += b" " * (65_536 - len(raw))
    assert len(DECODE(raw).context) == 64


def test_smaller_limits_are_followed():
    """A configuration's own limits decide, not the defaults."""
    decode = decoder(
        LimitsConfiguration(record_bytes=200, id_bytes=4, depth=3, context_fields=1, name_bytes=2, value_bytes=3)
    )
    assert decode(impression('{"ab":"abc"}', user='"abcd"')).user == "abcd"
    for raw, reason in (
        (impression(user='"abcde"'), Reason.ID_TOO_LONG),
        (impression('{"abc":1}'), Reason.NAME_TOO_LONG),
        (impression('{"a":"abcd"}'), Reason.VALUE_TOO_LONG),
        (impression('{"a":1,"b":2}'), Reason.TOO_MANY_CONTEXT_FIELDS),
        (impression(more=',"z":[[[]]]'), Reason.TOO_DEEP),
    ):
        with pytest.raises(Unusable) as refused:
            decode(raw)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    "wrong", [{"id_bytes": 0}, {"depth": 2}, {"depth": 65}, {"list_length": 1.5}, {"name_bytes": True}]
)
def test_limits_that_are_none_are_refused(wrong):
    """A limit is a positive integer, and the depth is one that events fit into."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LimitsConfiguration(**wrong)


def test_reasons_keep_their_codes():
    """Names and codes are the format: they are only ever added to, and lead to each other."""
    released = [
        "empty",
        "too_large",
        "not_utf8",
        "not_json",
        "too_deep",
        "lone_surrogate",
        "duplicate_key",
        "not_an_object",
        "unknown_type",
        "missing_field",
        "wrong_type",
        "not_finite",
        "integer_out_of_range",
        "id_empty",
        "id_too_long",
        "name_empty",
        "name_too_long",
        "too_many_context_fields",
        "value_too_long",
        "list_too_long",
        "too_many_candidates",
        "bad_base_score",
        "time_out_of_range",
        "wrong_partition",
        "time_jump",
        "user_mismatch",
        "request_unsupported",
        "too_many_values",
        "too_many_feedbacks",
        "no_room",
        "not_avro",
        "bad_option",
    ]
    assert [Reason.of_code(code).value for code in range(1, len(released) + 1)] == released
    assert all(Reason(reason.value).code == reason.code for reason in Reason)
    with pytest.raises(ValueError, match="no reason has the code 0"):
        Reason.of_code(0)

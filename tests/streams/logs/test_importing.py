"""Importing tables: every row an impression, every positive a feedback, in order; every mistake one clear line."""

import gzip
import json
import struct
import threading
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv as arrow_csv
from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands import main
from thalweg.streams.logs import ordered
from thalweg.streams.logs.errors import TableError
from thalweg.streams.logs.importing import Columns, Events
from thalweg.streams.partition.partition import Partition

T = 1_650_000_000_000
CSV = f"""user,item,time,click,tab,tags,price,score
007,a,{T + 5000},0,1,"x,y",1.5,0.25
u2,b,{T},true,2,z,,0.5
u2,c,{T + 1000},1,3,,2,
"""
OPTIONS = ("--user", "user", "--item", "item", "--time", "time", "--label", "click")


def run(table: Path, *options: str, out: str = "-") -> Result:
    return CliRunner().invoke(main, ["import", str(table), *OPTIONS, *options, "--out", out])


def events_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def table_of(folder: Path, **columns: Any) -> Path:
    base: dict[str, Any] = {"user": ["u"], "item": ["i"], "time": [T], "click": [1]}
    pq.write_table(pa.table(base | columns), folder / "table.parquet")
    return folder / "table.parquet"


def context_of(table: Path, *options: str) -> list[Any]:
    """Return what the context field `x` is in each impression, None where it is left out."""
    found = events_of(run(table, "--context", "x", *options))
    return [event["context"].get("x") for event in found if event["type"] == "impression"]


def csv_of(folder: Path, text: str) -> Path:
    (folder / "table.csv").write_text(text)
    return folder / "table.csv"


def test_rows_become_impressions_and_positives_feedback(tmp_path: Path) -> None:
    """The log must have the wire's layout, in the order of time, impressions first, with context types kept."""
    options = ("--context", "tab,tags", "--context", "price", "--split", "tags:,", "--base-score", "score")
    found = events_of(run(csv_of(tmp_path, CSV), *options))
    assert found == [
        {
            "type": "impression",
            "id": "1",
            "user": "u2",
            "item": "b",
            "ts": T,
            "context": {"tab": 2, "tags": ["z"]},
            "base_score": 0.5,
        },
        {
            "type": "impression",
            "id": "2",
            "user": "u2",
            "item": "c",
            "ts": T + 1000,
            "context": {"tab": 3, "price": 2.0},
        },
        {
            "type": "feedback",
            "id": "1:click",
            "impression": "1",
            "user": "u2",
            "item": "b",
            "ts": T + 1000,
            "action": "click",
        },
        {
            "type": "feedback",
            "id": "2:click",
            "impression": "2",
            "user": "u2",
            "item": "c",
            "ts": T + 2000,
            "action": "click",
        },
        {
            "type": "impression",
            "id": "0",
            "user": "007",
            "item": "a",
            "ts": T + 5000,
            "context": {"tab": 1, "tags": ["x", "y"], "price": 1.5},
            "base_score": 0.25,
        },
    ]


def test_every_imported_event_is_one_that_the_wire_knows(tmp_path: Path) -> None:
    """What import writes must decode as impressions and feedback."""
    from thalweg.schemas.events import Event

    for line in run(csv_of(tmp_path, CSV), "--context", "tab,price").stdout.splitlines():
        msgspec.json.decode(line, type=Event)


def test_csv_compressed_csv_and_parquet_give_the_same_log(tmp_path: Path) -> None:
    """The same table must give the same bytes in whichever form it comes."""
    plain = csv_of(tmp_path, "user,item,time,click\n" + "".join(f"{n},{n % 3},{T + n},{n % 2}\n" for n in range(100)))
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    rows = range(100)
    columns = {
        "user": list(rows),
        "item": pa.array([str(n % 3) for n in rows]).dictionary_encode(),
        "time": pa.array([T + n for n in rows], pa.timestamp("ms")),
        "click": [n % 2 == 1 for n in rows],
    }
    parquet = table_of(tmp_path, **columns)
    expected = run(plain).stdout
    assert expected.count("\n") == 150
    assert run(tmp_path / "table.csv.gz").stdout == expected
    text = plain.read_bytes()
    (tmp_path / "members.csv.gz").write_bytes(gzip.compress(text[:500]) + gzip.compress(text[500:]))
    assert run(tmp_path / "members.csv.gz").stdout == expected
    skippable = struct.pack("<II", 0x184D2A57, 3) + b"..."
    frames = [zstandard.compress(text[:700]), zstandard.compress(text[700:])]
    (tmp_path / "table.csv.zst").write_bytes(skippable + skippable.join(frames))
    assert run(tmp_path / "table.csv.zst").stdout == expected
    (tmp_path / "mark.csv").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert run(tmp_path / "mark.csv").stdout == expected
    assert run(parquet).stdout == expected


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ([T // 1000], ":s"),
        ([T / 1000], ":s"),
        ([T], ":ms"),
        ([T], ""),
        ([float(T)], ""),
        ([T * 1000 + 999], ":us"),
        ([str(T)], ""),
        (["2022-04-15T05:20:00"], ""),
        (["2022-04-15 05:20:00Z"], ""),
        (["2022-04-15T07:20:00+02:00"], ""),
        ([datetime(2022, 4, 15, 5, 20, tzinfo=UTC)], ""),
        ([datetime(2022, 4, 15, 5, 20)], ""),
        (pa.array([T * 1_000_000], pa.timestamp("ns")), ""),
    ],
)
def test_times_of_every_kind_become_milliseconds(tmp_path: Path, values: Any, unit: str) -> None:
    """Seconds, milliseconds, microseconds and dates with and without zone must be the same moment."""
    table = table_of(tmp_path, time=values)
    found = events_of(
        CliRunner().invoke(main, ["import", str(table), *OPTIONS[:5], f"time{unit}", *OPTIONS[6:], "--out", "-"])
    )
    assert [event["ts"] for event in found] == [T, T + 1000]


def test_ids_and_delay_are_the_callers(tmp_path: Path) -> None:
    """With --id the ids must be the column's, and the delay the one asked for."""
    found = events_of(run(table_of(tmp_path, key=["k"]), "--id", "key", "--feedback-delay-ms", "0"))
    assert [(event["id"], event["ts"]) for event in found] == [("k", T), ("k:click", T)]


def test_context_of_lists_booleans_and_missing_numbers(tmp_path: Path) -> None:
    """Lists stay lists, booleans become text, and NaN is left out like null."""
    table = table_of(tmp_path, tags=[["a", "b"]], flag=[True], gone=[float("nan")], none=pa.array([None], pa.string()))
    found = events_of(run(table, "--context", "tags,flag,gone,none"))
    assert found[0]["context"] == {"tags": ["a", "b"], "flag": "true"}


IDENTITIES: dict[str, tuple[list[str], list[Any]]] = {
    "integers": (["1", "-5", "0", "9223372036854775807"], [1, -5, 0, 9223372036854775807]),
    "fractions": (["1", "2.5", "1e20"], [1.0, 2.5, 1e20]),
    "beyond 2^63": (["18446744073709551615", "18446744073709551614"], ["18446744073709551615", "18446744073709551614"]),
    "beyond 2^53 beside a fraction": (
        ["1582218195625938945", "1582218195625938944", "1.5"],
        ["1582218195625938945", "1582218195625938944", "1.5"],
    ),
    "leading zeros": (["00501", "501"], ["00501", "501"]),
    "leading zeros beside a fraction": (["00501", "1.5"], ["00501", "1.5"]),
    "a leading plus": (["+5", "5"], ["+5", "5"]),
    "versions": (["1.10", "1.1"], ["1.10", "1.1"]),
    "minus zero": (["-0", "0"], ["-0", "0"]),
    "words among texts": (["NULL", "home"], ["NULL", "home"]),
    "words among numbers": (["NULL", "7", r"\N", "nan"], [None, 7, None, None]),
    "numbers among texts": (["7", "home"], ["7", "home"]),
    "spaces": ([" 7", "7"], [" 7", "7"]),
    "nothing": (["", "7"], [None, 7]),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_csv_values_stay_as_different_as_they_were(tmp_path: Path, name: str) -> None:
    """A column must become numbers only where no value is changed by it or becomes equal to another."""
    texts, expected = IDENTITIES[name]
    rows = "".join(f"u,i,{T + number},0,{text}\n" for number, text in enumerate(texts))
    table = csv_of(tmp_path, "user,item,time,click,x\n" + rows)
    found = context_of(table)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_why_a_column_stays_text_is_told(tmp_path: Path) -> None:
    """A column of digits that stays text must be told with row and value, and be quiet with --text."""
    table = csv_of(tmp_path, f"user,item,time,click,x\nu,i,{T},0,501\nu,i,{T},0,00501\n")
    told = run(table, "--context", "x").stderr.splitlines()[0]
    assert "'x' is kept as text: '00501' in row 1" in told
    assert len(run(table, "--context", "x", "--text", "x").stderr.splitlines()) == 1
    assert context_of(table, "--number", "x") == [501, 501]
    assert (
        context_of(csv_of(tmp_path, CSV.replace("price", "x").replace("2,\n", "2.50,\n")), "--text", "x")[1] == "2.50"
    )


ARROW_COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "texts stay texts": (pa.array(["5", "05"]), ["5", "05"]),
    "large texts": (pa.array(["a", None], pa.large_string()), ["a", None]),
    "text views": (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
    "categories": (pa.array(["a", "b"], pa.large_string()).dictionary_encode(), ["a", "b"]),
    "uint64": (pa.array([2**64 - 1, 5], pa.uint64()), ["18446744073709551615", "5"]),
    "small uint64": (pa.array([7, 5], pa.uint64()), [7, 5]),
    "decimals": (pa.array([Decimal(2**64), Decimal(5)], pa.decimal128(38, 0)), ["18446744073709551616", "5"]),
    "small decimals": (pa.array([Decimal("7.00"), Decimal("5.00")], pa.decimal128(20, 2)), [7, 5]),
    "decimal fractions": (pa.array([Decimal("7.25"), Decimal("5.00")], pa.decimal128(20, 2)), [7.25, 5.0]),
    "float32": (pa.array([0.5, float("nan")], pa.float32()), [0.5, None]),
    "nothing": (pa.nulls(2), [None, None]),
    "large lists": (pa.array([["a", "b"], []], pa.large_list(pa.large_string())), [["a", "b"], []]),
    "fixed-size lists": (pa.array([["a", "b"], None], pa.list_(pa.string(), 2)), [["a", "b"], None]),
    "lists of categories": (
        pa.ListArray.from_arrays([0, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
        [["a", "b"], ["a"]],
    ),
    "lists with nulls": (pa.array([["a", None], [None]]), [["a"], []]),
    "lists of integers": (pa.array([[39, None], [7]]), [["39"], ["7"]]),
    "lists of large integers": (pa.array([[2**64 - 1], [7]], pa.list_(pa.uint64())), [["18446744073709551615"], ["7"]]),
    "lists with leading zeros": (pa.array([["007", "7"], None]), [["007", "7"], None]),
    "lists of nothing": (pa.array([[None], []]), [[], []]),
}


@pytest.mark.parametrize("name", ARROW_COLUMNS)
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_arrow_types_keep_their_values(tmp_path: Path, name: str, ending: str) -> None:
    """Columns as Polars, pandas and Arrow write them must come in with every value as it was."""
    column, expected = ARROW_COLUMNS[name]
    table = pa.table({"user": ["u", "v"], "item": ["i", "j"], "time": [T, T + 1], "click": [0, 0], "x": column})
    path = tmp_path / f"table.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    found = context_of(path)
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


def test_list_views_and_runs_are_taken(tmp_path: Path) -> None:
    """Arrow's list views and run-end encoding must be read like what they stand for."""
    columns = {"x": pa.array([["a"], ["b", "a"]], pa.list_view(pa.string())), "user": ["u", "v"], "item": ["i", "i"]}
    runs = pa.RunEndEncodedArray.from_arrays([2], ["a"])
    table = pa.table(columns | {"time": [T, T + 1], "click": [0, 0], "y": runs})
    with pa.ipc.new_file(tmp_path / "table.feather", table.schema) as file:
        file.write_table(table)
    found = events_of(run(tmp_path / "table.feather", "--context", "x,y"))
    assert [event["context"] for event in found] == [{"x": ["a"], "y": "a"}, {"x": ["b", "a"], "y": "a"}]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (["007", "7"], ["007", "7"]),
        (pa.array([2**64 - 1, 2**64 - 2], pa.uint64()), ["18446744073709551615", "18446744073709551614"]),
        (pa.array([5.0, 2.0**53]), ["5", "9007199254740992"]),
        (
            pa.array([Decimal("5.00"), Decimal("12345678901234567890.00")], pa.decimal128(38, 2)),
            ["5", "12345678901234567890"],
        ),
        (pa.array([Decimal(10**50), Decimal(1)], pa.decimal256(60, 0)), ["1" + "0" * 50, "1"]),
        (pa.array([b"0123456789abcdef"] * 2, pa.uuid()), ["30313233-3435-3637-3839-616263646566"] * 2),
    ],
)
def test_ids_of_every_type_keep_their_identity(tmp_path: Path, column: Any, expected: list[str]) -> None:
    """An id must become the text of what it was, whatever type holds it."""
    path = table_of(tmp_path, user=column, item=["i", "j"], time=[T, T + 1], click=[0, 0])
    assert [event["user"] for event in events_of(run(path))] == expected


@pytest.mark.parametrize("word", ["NULL", r"\N", "NaN", "nan", "None", "NA", "n/a", "<NA>", " null ", "  "])
@pytest.mark.parametrize("name", ["user", "item", "key"])
def test_words_for_nothing_are_no_ids(tmp_path: Path, word: str, name: str) -> None:
    """A word for a missing value must be refused as an id, with its row, unless it is said to be one."""
    row = {"user": "u", "item": "i", "key": "k"} | {name: word}
    text = f"user,item,key,time,click\na,b,c,{T},0\n{row['user']},{row['item']},{row['key']},{T},0\n"
    table = csv_of(tmp_path, text)
    message = refused(run(table, "--id", "key"))
    assert f"{name!r} is {word!r} in row 1" in message
    assert "--keep-null-words" in message
    field = "id" if name == "key" else name
    assert events_of(run(table, "--id", "key", "--keep-null-words"))[1][field] == word


def test_words_kept_in_a_context_are_texts(tmp_path: Path) -> None:
    """With --keep-null-words a column of numbers and words must stay text."""
    table = csv_of(tmp_path, f"user,item,time,click,x\nu,i,{T},0,7\nu,i,{T},0,NULL\n")
    assert context_of(table, "--keep-null-words") == ["7", "NULL"]


NANOSECONDS = 1711852200123456789  # 2024-03-31T02:30:00.123456789Z


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["2024-03-31T02:30:00.123456789Z"], ""),
        (["2024-03-31T02:30:00.123456789123Z"], ""),
        (["2024-03-31 04:30:00.1234567+02:00"], ""),
        (["2024-03-31 04:30:00.123456 +0200"], ""),
        (["2024-03-31 02:30:00.123456 UTC"], ""),
        (["2024-03-31 02:30:00.123"], ""),
        ([NANOSECONDS], ":ns"),
        ([str(NANOSECONDS)], ":ns"),
        ([Decimal("1711852200.123456")], ":s"),
        (pa.array([NANOSECONDS], pa.timestamp("ns", "Europe/Berlin")), ""),
        (pa.array([NANOSECONDS // 1000], pa.uint64()), ":us"),
    ],
)
def test_nanoseconds_and_offsets_are_taken(tmp_path: Path, values: Any, unit: str) -> None:
    """A moment must be the same whole millisecond in whichever form it comes."""
    table = table_of(tmp_path, time=values, click=[0])
    options = [*OPTIONS[:5], f"time{unit}", *OPTIONS[6:], "--out", "-"]
    found = events_of(CliRunner().invoke(main, ["import", str(table), *options]))
    assert [event["ts"] for event in found] == [NANOSECONDS // 1_000_000]


BAD_TIMES = {
    "a US date": (["03/31/2024 02:30"], ["is '03/31/2024 02:30' in row 0", "or ISO 8601"]),
    "a zone's name": (["2024-03-31 02:30:00 Europe/Berlin"], ["Europe/Berlin' in row 0", "or ISO 8601"]),
    "zones in some rows": (
        ["2024-03-31 02:30:00", "2024-03-31T00:30:00Z"],
        ["without a zone in row 0 ('2024-03-31 02:30:00')", "with a zone in row 1 ('2024-03-31T00:30:00Z')"],
    ),
    "numbers and dates": (["1711852200000", "2024-03-31"], ["a number in row 0", "a date without a zone in row 1"]),
    "no such day": (["2024-03-30", "2024-02-30"], ["is '2024-02-30' in row 1", "no moment"]),
    "too late": (["2024-03-30", "9999-12-31"], ["is '9999-12-31' in row 1", "no moment from 1980 to 2100"]),
    "too early": (["2024-03-30", "1979-12-31"], ["is 1979-12-31 in row 1, which is not within 1980 and 2100"]),
    "the end of time": (["4102444800000"], ["is 4102444800000 in row 0, which is not within 1980 and 2100"]),
    "beyond 64 bits": (["99999999999999999999"], ["is 99999999999999999999 in row 0"]),
}


@pytest.mark.parametrize("name", BAD_TIMES)
def test_a_bad_time_names_row_value_and_forms(tmp_path: Path, name: str) -> None:
    """A time that can't be read must be refused with its row, its text and what would do."""
    times, expected = BAD_TIMES[name]
    message = refused(run(csv_of(tmp_path, HEAD + "".join(f"u,i,{time},0\n" for time in times))))
    assert all(part in message for part in expected), message


def test_times_without_a_zone_are_told(tmp_path: Path) -> None:
    """That a time without a zone is taken as UTC must be told, once."""
    result = run(csv_of(tmp_path, HEAD + "u,i,2024-03-31 02:30:00,0\n"))
    assert events_of(result)[0]["ts"] == 1711852200000
    assert "'time' has no zone: its times are taken as UTC" in result.stderr
    assert "no zone" not in run(csv_of(tmp_path, HEAD + "u,i,2024-03-31 02:30:00Z,0\n")).stderr


LONG = {
    "long texts": ({"x": ["a" * 257]}, "has a text of 257 bytes in row 0, at most 256 (limits.value_bytes)"),
    "long members": ({"x": [["a", "a" * 257]]}, "has a text of 257 bytes in row 0"),
    "long lists": ({"x": [["a"] * 33]}, "has a list of 33 in row 0, at most 32 (limits.list_length)"),
    "many values": ({"x": [["a"] * 31]}, "row 0 has 31 values in its context, at most 30"),
    "long names": ({"x" * 65: [1]}, "a context field's name has 1 to 64 bytes"),
}


@pytest.mark.parametrize("name", LONG)
def test_what_replay_would_refuse_is_refused(tmp_path: Path, name: str) -> None:
    """Values beyond the limits of replay must be refused by import, which names the limit."""
    columns, expected = LONG[name]
    assert expected in refused(run(table_of(tmp_path, **columns), "--context", ",".join(columns)))


def test_the_limits_are_those_of_the_configuration(tmp_path: Path) -> None:
    """A raised limit must let longer values through, a lower one refuse shorter ones."""
    table = table_of(tmp_path, x=["a" * 300])
    assert context_of(table, "--set", "limits.value_bytes=300") == ["a" * 300]
    message = refused(run(table_of(tmp_path), "--set", "limits.record_bytes=60"))
    assert "makes an event of 8" in message
    assert "(limits.record_bytes)" in message


def test_an_id_leaves_room_for_its_feedbacks(tmp_path: Path) -> None:
    """An impression's id must be short enough that its feedback's fits too, and events must end before 2100."""
    assert "has 251 bytes in row 0: an id has 1 to 250" in refused(run(table_of(tmp_path, k=["k" * 251]), "--id", "k"))
    late = table_of(tmp_path, time=[4102444799999])
    assert "feedback of row 0 would lie beyond 2099" in refused(run(late))
    assert len(events_of(run(late, "--feedback-delay-ms", "0"))) == 2


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=8)
WORDS = NAMES | st.sampled_from(
    ["NULL", "007", "7", "1e5", "inf", "\x00", '"', "\\", "\u2028", "🙂", "-0", "18446744073709551615"]
)
ARROW_VALUES = {
    pa.string(): WORDS,
    pa.large_string(): WORDS,
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float64(): st.floats() | st.floats(-100, 100),
    pa.float32(): st.floats(-100, 100, width=32),
    pa.bool_(): st.booleans(),
    pa.decimal128(20, 2): st.decimals(-(10**15), 10**15, places=2),
    pa.list_(pa.string()): st.lists(st.none() | WORDS, max_size=5),
    pa.large_list(pa.large_string()): st.lists(st.none() | WORDS, max_size=5),
    pa.list_(pa.int32()): st.lists(st.none() | st.integers(-(2**31), 2**31 - 1), max_size=5),
    pa.dictionary(pa.int32(), pa.string()): WORDS,
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, pa.Table]:
    """Make a table of a few rows with any values, to be written as CSV or Parquet."""
    count = draw(st.integers(1, 6))
    columns = {
        "user": pa.array(draw(st.lists(WORDS, min_size=count, max_size=count)), pa.string()),
        "item": pa.array(draw(st.lists(WORDS, min_size=count, max_size=count)), pa.string()),
        "time": pa.array(draw(st.lists(st.integers(T, T + 80_000_000), min_size=count, max_size=count))),
        "click": pa.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))),
    }
    form = draw(st.sampled_from(["csv", "parquet"]))
    for name in draw(
        st.lists(NAMES.filter(lambda name: name not in columns and "," not in name), max_size=3, unique=True)
    ):
        kind = draw(st.sampled_from(list(ARROW_VALUES)[: 8 if form == "csv" else None]))
        values = draw(st.lists(st.none() | ARROW_VALUES[kind], min_size=count, max_size=count))
        columns[name.strip() or "blank"] = pa.array(values, kind)
    return form, pa.table(columns)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(made=tables(), keep=st.booleans())
def test_replay_takes_whatever_import_writes(
    tmp_path_factory: pytest.TempPathFactory, made: tuple[str, pa.Table], keep: bool
) -> None:
    """Whatever table import takes, replay must use every event of it, and written as msgspec writes it."""
    form, table = made
    path = tmp_path_factory.mktemp("table") / f"table.{form}"
    if form == "csv":
        arrow_csv.write_csv(table, path)
    else:
        pq.write_table(table, path)
    columns = Columns(
        user="user",
        item="item",
        time="time",
        label="click",
        context=tuple(table.column_names[4:]),
        keep_null_words=keep,
    )
    try:
        events = Events(path, columns)
    except TableError:
        return
    lines = b"".join(events.blocks()).split(b"\n")[:-1]
    assert len(lines) == table.num_rows + sum(table["click"].to_pylist())
    for line in lines:
        assert msgspec.json.encode(msgspec.json.decode(line)) == line
    outputs = Partition(Configuration()).process([LogRecord(number, line) for number, line in enumerate(lines)])
    assert [letter.value for letter in outputs.dead_letters] == []
    users = {json.loads(line)["user"] for line in lines}
    assert users == set(table["user"].to_pylist())


def test_the_output_may_be_compressed_and_is_the_same_each_time(tmp_path: Path) -> None:
    """A log named .gz must be gzip, and equal to itself when made again."""
    table = csv_of(tmp_path, CSV)
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        assert run(table, out=str(tmp_path / name)).exit_code == 0
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).decode() == run(table).stdout


@given(
    rows=st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40),
    delay=st.integers(0, 10),
)
def test_the_order_is_time_then_kind_then_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, bool]], delay: int
) -> None:
    """Any table must come out in the order of (time, impression before feedback, row), nothing lost."""
    folder = tmp_path_factory.mktemp("table")
    count = len(rows)
    times, labels = [T + time for time, _ in rows], [label for _, label in rows]
    table = table_of(folder, user=["u"] * count, item=["i"] * count, time=times, click=labels)
    columns = Columns(user="user", item="item", time="time", label="click")
    lines = b"".join(Events(table, columns, feedback_delay_ms=delay).blocks()).splitlines()
    found = [
        (event["ts"], event["type"] == "feedback", int(event["id"].split(":")[0])) for event in map(json.loads, lines)
    ]
    impressions = [(time, False, row) for row, time in enumerate(times)]
    feedback = [(time + delay, True, row) for row, time in enumerate(times) if labels[row]]
    assert found == sorted(impressions + feedback)


HEAD = "user,item,time,click\n"
BAD_CSV = {
    "empty": ("", ["is empty"]),
    "only a header": (HEAD, ["has no rows"]),
    "missing column": (f"usr,item,time,click\nu,i,{T},1\n", ["no column 'user'", "did you mean 'usr'?"]),
    "a column twice": (f"user,item,time,click,user\nu,i,{T},1,v\n", ["'user' twice"]),
    "ragged": (f"{HEAD}u,i,{T},1\nu,i\n", ["has 4 columns, and 2 values in row 1"]),
    "no user": (f"{HEAD}u,i,{T},1\n,i,{T},1\n", ["'user' is empty in row 1"]),
    "no time": (f"{HEAD}u,i,,1\n", ["'time' is empty in row 0"]),
    "no label": (f"{HEAD}u,i,{T},\n", ["'click' is empty in row 0"]),
    "mixed times": (
        f"{HEAD}u,i,{T},1\nu,i,yesterday,1\n",
        ["'time' is 'yesterday' in row 1", "a number of s, ms, us or ns", "or ISO 8601"],
    ),
    "seconds": (f"{HEAD}u,i,{T // 1000},1\n", ["'time' is 1650000000 in row 0", "say the unit, as --time time:s"]),
    "infinite time": (f"{HEAD}u,i,inf,1\n", ["'time' is 'inf' in row 0"]),
    "NaN time": (f"{HEAD}u,i,nan,1\n", ["'time' is 'nan' in row 0"]),
    "huge time": (f"{HEAD}u,i,9000000000000000000,1\n", ["not within 1980 and 2100"]),
    "a rating": (f"{HEAD}u,i,{T},1\nu,i,{T},5\n", ["'click' is '5' in row 1", "a label is 0 or 1"]),
    "a word for a label": (f"{HEAD}u,i,{T},1\nu,i,{T},yes\n", ["'click' is 'yes' in row 1", "true or false"]),
    "a long id": (f"{HEAD}{'u' * 257},i,{T},1\n", ["'user' has 257 bytes in row 0", "1 to 256"]),
}


def refused(result: Result, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert status == 2 or len(result.stderr.strip().splitlines()) == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """A table with a mistake must be refused with column and row, before anything is written."""
    text, expected = BAD_CSV[name]
    message = refused(run(csv_of(tmp_path, text), out=str(tmp_path / "log.jsonl")))
    assert all(part in message for part in expected), message
    assert not (tmp_path / "log.jsonl").exists()


BAD_COLUMNS = {
    "fractional ids": ({"user": [1.5]}, [], "'user' has fractions"),
    "ids of bytes": ({"user": [b"x"]}, [], "'user' is of type binary"),
    "infinite context": ({"x": [float("inf")]}, ["--context", "x"], "'x' is infinite in row 0"),
    "context of dates": ({"x": [datetime(2022, 1, 1, tzinfo=UTC)]}, ["--context", "x"], "'x' is of type timestamp"),
    "splitting numbers": ({"x": [1]}, ["--context", "x", "--split", "x:,"], "only texts can be split"),
    "no probability": ({"x": [1.5]}, ["--base-score", "x"], "'x' is 1.5 in row 0"),
    "words for scores": ({"x": ["high"]}, ["--base-score", "x"], "a base score is a probability"),
    "labels of lists": ({"click": [[1]]}, [], "'click' is of type list"),
    "no such context": ({}, ["--context", "tab"], "no column 'tab'"),
}


@pytest.mark.parametrize("name", BAD_COLUMNS)
def test_bad_columns_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    """A column of a type that can't be used must be refused with what would do."""
    columns, options, expected = BAD_COLUMNS[name]
    assert expected in refused(run(table_of(tmp_path, **columns), *options))


def test_duplicate_ids_are_refused_with_both_rows(tmp_path: Path) -> None:
    """An id that two rows share must be refused, since the second impression would be lost as a duplicate."""
    table = csv_of(tmp_path, f"user,item,time,click,key\nu,i,{T},1,a\nu,i,{T},1,b\nu,i,{T},1,a\n")
    assert "'a' in rows 0 and 2" in refused(run(table, "--id", "key"))


def test_files_that_are_no_tables_are_refused(tmp_path: Path) -> None:
    """No such file, a folder, an unknown ending, damaged Parquet and truncated gzip must be told in one line."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "table.xlsx").touch()
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    whole = gzip.compress((HEAD + "".join(f"{n},{n * 7919 % 1013},{T},1\n" for n in range(5000))).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.csv.gz").write_bytes(HEAD.encode())
    (tmp_path / "utf16.csv").write_bytes(HEAD.encode("utf-16"))
    (tmp_path / "packed.csv").write_bytes(whole)
    (tmp_path / "packed.csv.zst").write_bytes(HEAD.encode())
    (tmp_path / "parquet.csv").write_bytes(b"PAR1 nonsense")
    (tmp_path / "latin.csv").write_bytes(f"{HEAD}\xe9,i,{T},1\n".encode("latin-1"))
    expected = {
        "absent.csv": "no such file",
        "folder.csv": "is a folder",
        "table.xlsx": "must end in .csv, .csv.gz, .csv.zst, .parquet, .arrow or .feather",
        "utf16.csv": "is UTF-16 text",
        "packed.csv": "let its name end in .gz",
        "packed.csv.zst": "is not zstd data",
        "parquet.csv": "is no CSV but a Parquet table",
        "bad.parquet": "can't be read",
        "cut.csv.gz": "ends in the middle of its gzip data",
        "not.csv.gz": "is not gzip data",
        "latin.csv": "is not UTF-8 (it has a byte e9)",
    }
    for name, part in expected.items():
        assert part in refused(run(tmp_path / name))


def test_the_table_is_never_overwritten(tmp_path: Path) -> None:
    """An output that is the table itself must be refused."""
    table = csv_of(tmp_path, CSV)
    assert "is the file being read" in refused(run(table, out=str(table)))
    assert table.read_text() == CSV


@pytest.mark.parametrize(
    "options",
    [
        ["--text", "tab"],
        ["--number", "tab"],
        ["--split", "tab:,"],
        ["--context", "tab", "--split", "tab"],
        ["--feedback-delay-ms", "-1"],
        ["--nope"],
    ],
)
def test_wrong_use_ends_with_two(tmp_path: Path, options: list[str]) -> None:
    """An option that makes no sense is a usage error."""
    refused(run(csv_of(tmp_path, CSV), *options), status=2)


def test_lists_say_what_their_members_are(tmp_path: Path) -> None:
    """Flags in lists must be categories as in JSON; fractions are refused as members, not as ids."""
    assert context_of(table_of(tmp_path, x=[[True, False, None]])) == [["true", "false"]]
    told = run(table_of(tmp_path, x=[[1.5]]), "--context", "x").stderr
    assert "column 'x' has fractions: a member of a list is a text or a whole number" in told


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32()])
def test_times_that_are_too_coarse_are_refused(tmp_path: Path, kind: Any) -> None:
    """Seconds since 1970 in float32 lie 128 s apart: events would change their order in silence."""
    result = run(table_of(tmp_path, time=pa.array([1.0]).cast(kind)))
    assert result.exit_code == 1
    assert "too coarse for times" in result.stderr


def test_blocks_made_at_once_come_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into blocks the log has the same bytes, and who stops half way leaves no thread behind."""
    count = 50
    table = table_of(
        tmp_path,
        user=[f"u{row % 7}" for row in range(count)],
        item=[f"i{row % 5}" for row in range(count)],
        time=[1_700_000_000_000 + 500 * (row // 3) for row in range(count)],
        click=[row % 2 for row in range(count)],
    )
    columns = Columns(user="user", item="item", time="time", label="click")
    whole = list(Events(table, columns).blocks())
    monkeypatch.setattr(ordered, "EVENTS_A_BLOCK", 4)
    parts = list(Events(table, columns).blocks())
    assert (len(whole), len(parts)) == (1, 19)
    assert b"".join(parts) == whole[0]
    begun = Events(table, columns).blocks()
    assert next(begun) == parts[0]
    begun.close()  # type: ignore[attr-defined]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("import")]

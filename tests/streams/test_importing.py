"""Importing tables: every row an impression, every positive a feedback, in order; every mistake one clear line."""

import gzip
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from thalweg.streams.commands import main
from thalweg.streams.logs.importing import Columns, Events

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
    "ragged": (f"{HEAD}u,i,{T},1\nu,i\n", ["can't be read", "columns"]),
    "no user": (f"{HEAD}u,i,{T},1\n,i,{T},1\n", ["'user' is empty in row 1"]),
    "no time": (f"{HEAD}u,i,,1\n", ["'time' is empty in row 0"]),
    "no label": (f"{HEAD}u,i,{T},\n", ["'click' is empty in row 0"]),
    "mixed times": (
        f"{HEAD}u,i,{T},1\nu,i,yesterday,1\n",
        ["'time' is of type string", "a number or an ISO 8601 date"],
    ),
    "seconds": (f"{HEAD}u,i,{T // 1000},1\n", ["'time' is 1650000000 in row 0", "say the unit, as --time time:s"]),
    "infinite time": (f"{HEAD}u,i,inf,1\n", ["'time' is inf in row 0"]),
    "NaN time": (f"{HEAD}u,i,nan,1\n", ["'time' is nan in row 0"]),
    "huge time": (f"{HEAD}u,i,9000000000000000000,1\n", ["not within 2000 and 2100"]),
    "a rating": (f"{HEAD}u,i,{T},1\nu,i,{T},5\n", ["'click' is 5.0 in row 1", "a label is 0 or 1"]),
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
    (tmp_path / "latin.csv").write_bytes(f"{HEAD}\xe9,i,{T},1\n".encode("latin-1"))
    expected = {
        "absent.csv": "no such file",
        "folder.csv": "is a folder",
        "table.xlsx": "must end in .csv, .csv.gz or .parquet",
        "bad.parquet": "can't be read",
        "cut.csv.gz": "can't be read",
        "not.csv.gz": "can't be read",
        "latin.csv": "can't be read",
    }
    for name, part in expected.items():
        assert part in refused(run(tmp_path / name))


def test_the_table_is_never_overwritten(tmp_path: Path) -> None:
    """An output that is the table itself must be refused."""
    table = csv_of(tmp_path, CSV)
    assert "is the file being read" in refused(run(table, out=str(table)))
    assert table.read_text() == CSV


def test_without_pyarrow_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the extra is not installed, the answer must name it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install 'thalweg[import]'" in refused(run(csv_of(tmp_path, CSV)))


@pytest.mark.parametrize(
    "options", [["--split", "tab:,"], ["--context", "tab", "--split", "tab"], ["--feedback-delay-ms", "-1"], ["--nope"]]
)
def test_wrong_use_ends_with_two(tmp_path: Path, options: list[str]) -> None:
    """An option that makes no sense is a usage error."""
    refused(run(csv_of(tmp_path, CSV), *options), status=2)

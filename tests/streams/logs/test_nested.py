"""Tables whose columns hold records and lists: paths lead into them, as they do in JSON."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather
from thalweg.schemas.paths import getter, parse
from thalweg.streams.commands import main
from thalweg.streams.logs.nested import has_path, values_at

T = 1_700_000_000_000
RECORDS: list[dict[str, Any]] = [
    {
        "what": "view" if number % 3 else "buy",
        "at": T + 1_000 * number,
        "who": {"id": number % 2, "home": {"city": "Lyon"} if number % 2 else None},
        "items": [{"sku": f"s{number % 2}", "tags": ["a", None, "b"]}, {"sku": "other", "tags": []}],
        "params": [{"key": "page", "value": {"text": f"p{number}"}}, {"key": "size", "value": {"text": None}}],
    }
    for number in range(8)
]
MAPPING = """[mapping]
type = "what"
impressions = ["view"]
feedback = { buy = "click" }
user = "who.id"
item = "items.0.sku"
time = "at"
context = ["who.home.city", "page = params[key=page].value.text", "skus = items.*.sku", "tags = items.*.tags.*"]
"""


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def events_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_nested_table_becomes_what_its_json_lines_become(tmp_path: Path, ending: str) -> None:
    """The impressions of a table of records must be, field by field, those of the same records as JSON lines."""
    (tmp_path / "shop.toml").write_text(MAPPING)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    table, path = pa.Table.from_pylist(RECORDS), tmp_path / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        feather.write_feather(table, str(path))
    found = [
        [
            {key: event[key] for key in ("user", "item", "ts", "context")}
            for event in events_of(run("import", name, "--config", tmp_path / "shop.toml", "--out", "-"))
            if event["type"] == "impression"
        ]
        for name in (tmp_path / "log.jsonl", path)
    ]
    assert found[0] == found[1]
    assert found[0][0]["context"] == {
        "who.home.city": "Lyon",
        "page": "p1",
        "skus": ["s1", "other"],
        "tags": ["a", "b"],
    }
    assert found[0][1]["user"] == "0"
    assert "who.home.city" not in found[0][1]["context"]


def test_everything_else_takes_records_apart(tmp_path: Path) -> None:
    """`*` must have the values within records by their paths, without what other keys and `context_except` name."""
    rows = [{"what": "view", "at": T, "who": {"id": "u", "home": {"city": "Lyon", "zip": "1"}}, "sku": "s", "n.a": 5}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    (tmp_path / "shop.toml").write_text(
        '[mapping]\nuser = "who.id"\nitem = "sku"\ntime = "at"\ncontext = ["*"]\ncontext_except = ["who.home.zip"]\n'
    )
    [event] = events_of(run("import", tmp_path / "log.parquet", "--config", tmp_path / "shop.toml", "--out", "-"))
    assert event["context"] == {"what": "view", "who.home.city": "Lyon", "n.a": 5}


def test_labelled_rows_may_have_records(tmp_path: Path) -> None:
    """`--user who.id` must lead into a column of records, and what is no id, or missing, be told."""
    rows = [{"at": T, "who": {"id": 7}, "sku": "s", "click": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    columns = ("--item", "sku", "--time", "at", "--label", "click", "--out", "-")
    assert events_of(run("import", tmp_path / "t.parquet", "--user", "who.id", *columns))[0]["user"] == "7"
    wrong = run("import", tmp_path / "t.parquet", "--user", "who", *columns)
    assert wrong.exit_code == 1
    assert "column 'who' is of type struct<id: int64>" in wrong.stderr
    wrong = run("import", tmp_path / "t.parquet", "--user", "who.idd", *columns)
    assert "has no column 'who.idd': did you mean 'who.id'?" in wrong.stderr


def test_paths_that_lead_nowhere_are_told(tmp_path: Path) -> None:
    """A misspelt field of the context, or of the kind, must not go unnoticed."""
    pq.write_table(pa.Table.from_pylist(RECORDS[1:3]), tmp_path / "log.parquet")
    config = MAPPING.replace('"who.home.city"', '"who.home.citty"').replace('"what"', '"whatt"')
    (tmp_path / "shop.toml").write_text(config)
    result = run("import", tmp_path / "log.parquet", "--config", tmp_path / "shop.toml", "--out", "-")
    assert "has no column 'who.home.citty': did you mean 'who.home.city'?; mapping.context goes without it" in (
        result.stderr
    )
    assert "no column 'whatt' (mapping.type): every row is an impression" in result.stderr
    assert len(events_of(result)) == 2


LEAF = st.none() | st.text("ab", max_size=2)
NESTED = st.fixed_dictionaries(
    {
        "a": st.none() | st.fixed_dictionaries({"b": LEAF}),
        "l": st.none() | st.lists(st.none() | st.fixed_dictionaries({"k": LEAF, "v": LEAF, "t": st.lists(LEAF)})),
    }
)
KIND = pa.struct(
    {
        "a": pa.struct({"b": pa.string()}),
        "l": pa.list_(pa.struct({"k": pa.string(), "v": pa.string(), "t": pa.list_(pa.string())})),
    }
)
PATHS = ("a.b", "l.0.v", "l.1.k", "l[k=a].v", "l.*.v", "l.*.t.*", "l.0.t.*", "l[k=b].t.0")


@given(st.lists(NESTED, max_size=6), st.sampled_from(PATHS))
def test_paths_lead_where_they_lead_in_json(records: list[dict[str, Any]], path: str) -> None:
    """Whatever is missing on the way, a column must have at a path what each of its records has as JSON."""
    parts = parse(path)[0]
    assert has_path(KIND, parts)
    assert values_at(pa.array(records, KIND), parts).to_pylist() == [getter(path)(record) for record in records]

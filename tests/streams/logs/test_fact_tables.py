"""Tables of items and users become facts that replay takes, at the head of a log."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands import main
from thalweg.streams.driver import START_MS, Driver

LOG = [
    {"type": "impression", "id": "1", "user": "ann", "item": "i1", "ts": START_MS, "context": {}},
    {"type": "request", "id": "r", "user": "ann", "ts": START_MS + 1, "candidates": ["i2", {"item": "i3"}]},
    {"type": "impression", "id": "2", "user": "bob", "item": "i1", "ts": START_MS + 2, "context": {"brand": "own"}},
]
ITEMS = "item,brand,tags,price\ni1,007,a|b,3\ni2,9,,\ni3,x,c,1.5\ni4,unasked,d,2\n"


def run(folder: Path, *options: str, table: str = ITEMS, log: list[dict[str, Any]] | None = LOG) -> Result:
    (folder / "items.csv").write_text(table, encoding="utf-8")
    arguments = ["facts", str(folder / "items.csv"), "--out", str(folder / "out.jsonl"), *options]
    if log is not None:
        lines = [json.dumps(each) for each in log]
        (folder / "log.jsonl").write_text("\n".join(["not JSON", *lines]) + "\n", encoding="utf-8")
        arguments += ["--log", str(folder / "log.jsonl")]
    return CliRunner().invoke(main, arguments)


def lines_of(folder: Path) -> list[Any]:
    text = (folder / "out.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) if line.startswith("{") else line for line in text.splitlines()]


def test_facts_about_who_occurs_come_before_the_log(tmp_path: Path) -> None:
    """Candidates occur too; what the log has, a bad line included, follows as it was."""
    result = run(tmp_path, "--item", "item", "--fields", "brand,tag=tags,price", "--split", "tags:|")
    assert result.exit_code == 0, result.output
    assert "facts about 3 of the log's 3 items; 1 rows are about others and left out" in result.output
    facts, rest = lines_of(tmp_path)[:3], lines_of(tmp_path)[3:]
    assert [(each["type"], each["item"], each["ts"]) for each in facts] == [
        ("item", item, START_MS) for item in ("i1", "i2", "i3")
    ]
    assert [each["fields"] for each in facts] == [
        {"brand": "007", "tag": ["a", "b"], "price": 3.0},
        {"brand": "9"},
        {"brand": "x", "tag": ["c"], "price": 1.5},
    ]
    assert rest == ["not JSON", *LOG]


def test_facts_stand_in_where_an_impression_brings_none(tmp_path: Path) -> None:
    """The same bits as with the fields in the context."""
    assert run(tmp_path, "--item", "item", "--fields", "brand").exit_code == 0
    with_facts, in_context = Driver(), Driver()
    with_facts.pipe(*(line.encode() for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()))
    brought = [dict(LOG[0], context={"brand": "007"}), LOG[1], LOG[2]]
    in_context.pipe(*(json.dumps(each).encode() for each in brought))
    assert [(each.id, each.score) for each in with_facts.scores] == [(e.id, e.score) for e in in_context.scores]
    assert with_facts.value("brand", "007") is not None


def test_without_a_log_every_row_is_a_fact_of_now(tmp_path: Path) -> None:
    """Ready to be produced."""
    table = "who,country\nann,FR\nbob,\n"
    result = run(tmp_path, "--user", "who", "--fields", "country", table=table, log=None)
    assert result.exit_code == 0, result.output
    facts = lines_of(tmp_path)
    assert [(each["type"], each["user"], each["fields"]) for each in facts] == [
        ("user", "ann", {"country": "FR"}),
        ("user", "bob", {}),
    ]
    assert facts[0]["ts"] > START_MS


@pytest.mark.parametrize(
    ("options", "table", "status", "told"),
    [
        (["--fields", "brand"], ITEMS, 2, "one of --item and --user"),
        (["--item", "item", "--user", "item", "--fields", "brand"], ITEMS, 2, "one of --item and --user"),
        (["--item", "item", "--fields", "brand", "--split", "tags:|"], ITEMS, 2, "'tags' is not among --fields"),
        (["--item", "item", "--fields", "brandt"], ITEMS, 1, "brand"),
        (
            ["--item", "item", "--fields", "brand"],
            "item,brand\ni1,a\ni1,b\n",
            1,
            ": a table has one row for each item",
        ),
        (["--item", "item", "--fields", ","], ITEMS, 2, "--fields is empty"),
        (["--item", "item", "--fields", "x=brand,x=item"], ITEMS, 2, "--fields has the name 'x' twice"),
        (["--item", "item", "--fields", "brand"], f"item,brand\ni1,{'x' * 3000}\n", 1, "row 0"),
    ],
)
def test_wrong_use_is_refused(tmp_path: Path, options: list[str], table: str, status: int, told: str) -> None:
    """In one line that names the row or the option."""
    result = run(tmp_path, *options, table=table)
    assert result.exit_code == status
    assert told in result.output


def test_more_items_than_are_kept_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else replay would forget the first for the last."""
    monkeypatch.setenv("THALWEG_FACTS__ITEMS_LIMIT", "2")
    result = run(tmp_path, "--item", "item", "--fields", "brand")
    assert result.exit_code == 1
    assert "at most 2 are kept (facts.items_limit)" in result.output


def test_a_log_of_other_events_is_refused(tmp_path: Path) -> None:
    """Facts before foreign records would be foreign to them."""
    result = run(tmp_path, "--item", "item", "--fields", "brand", log=[{"kind": "view", "at": 3}])
    assert result.exit_code == 1
    assert "thalweg import" in result.output


def test_a_log_may_have_lines_that_are_no_text(tmp_path: Path) -> None:
    """A line that is not UTF-8 is for replay to refuse: it must not end the command with a traceback."""
    (tmp_path / "bad.jsonl").write_bytes(b'{"ts":1,"user":"\xff"}\n')
    result = run(tmp_path, "--item", "item", "--fields", "brand", "--log", str(tmp_path / "bad.jsonl"), log=None)
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert "thalweg import" in result.output


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='\0\r\n"'), max_size=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=4))
def test_replay_takes_every_fact(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    """Whatever the table has, it is refused here or usable there."""
    table = "item,brand\n" + "".join(f'"i{place}{item}","{brand}"\n' for place, (item, brand) in enumerate(rows))
    if run(tmp_path, "--item", "item", "--fields", "brand", table=table, log=None).exit_code == 0:
        driver = Driver(Configuration())
        lines = (tmp_path / "out.jsonl").read_bytes().split(b"\n")[:-1]
        driver.pipe(*(LogRecord(offset, line) for offset, line in enumerate(lines)))
        assert not driver.dead_letters
        assert len(lines) == len(rows)

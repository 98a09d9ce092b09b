"""Tables of events as they are: views and actions, in one table or two, become a log that replay takes."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from thalweg.operators.configuration import Configuration
from thalweg.schemas.mapping import MappingConfiguration
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands import main
from thalweg.streams.logs.event_tables import EventTables, Options
from thalweg.streams.mapping.reading import reader

from examples.mappings import make_logs

T = 1_700_000_000_000
SHOP = """[mapping]
type = "event"
impressions = ["view"]
feedback = { cart = "cart", buy = "purchase" }
ignore = ["ping"]
user = "visitor"
item = "product"
time = "at"
context = ["color", "size"]
value = "price"
"""
EVENTS = f"""at,visitor,event,product,color,size,price
{T + 30},u1,buy,007,,,9.5
{T},u1,view,007,red,1,
{T + 10},u2,view,7,blue,2,
{T + 20},u1,view,007,red,1,
{T + 15},u2,ping,,,,
{T + 10},u2,cart,7,,,
{T + 5},u2,buy,7,,,
"""


def run(folder: Path, *options: str | Path, config: str = SHOP, text: str = EVENTS) -> Result:
    (folder / "events.csv").write_text(text)
    (folder / "shop.toml").write_text(config)
    arguments = ["import", folder / "events.csv", "--config", folder / "shop.toml", "--out", "-", *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def events_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def refused(result: Result, status: int = 1) -> str:
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def test_events_come_in_order_with_their_impressions(tmp_path: Path) -> None:
    """Actions must get the user's latest impression of the item until then, and those before any be left out, told."""
    result = run(tmp_path)
    found = [(e["type"], e["id"], e.get("impression"), e["user"], e["item"], e["ts"] - T) for e in events_of(result)]
    assert found == [
        ("impression", "1", None, "u1", "007", 0),
        ("impression", "2", None, "u2", "7", 10),
        ("feedback", "5", "2", "u2", "7", 10),
        ("impression", "3", None, "u1", "007", 20),
        ("feedback", "0", "3", "u1", "007", 30),
    ]
    impression, *_, feedback = events_of(result)
    assert impression["context"] == {"color": "red", "size": 1}
    assert (feedback["action"], feedback["value"]) == ("purchase", 9.5)
    assert "2 actions without an impression's id belong to" in result.stderr
    assert "1 came before any and are left out" in result.stderr
    assert "3 impressions and 2 feedback" in result.stderr


def test_two_tables_are_one_log(tmp_path: Path) -> None:
    """Views and actions in tables of their own must give what they give in one."""
    rows = EVENTS.splitlines()
    views = "\n".join([rows[0], *[row for row in rows if ",view," in row]])
    (tmp_path / "actions.csv").write_text("\n".join([rows[0], *[row for row in rows[1:] if ",view," not in row]]))
    result = run(tmp_path, "--actions", tmp_path / "actions.csv", text=views)
    one, two = (
        [{key: value for key, value in event.items() if key not in ("id", "impression")} for event in events_of(each)]
        for each in (run(tmp_path), result)
    )
    assert two == one
    assert [(event["id"], event["impression"]) for event in events_of(result) if event["type"] == "feedback"] == [
        ("action-2", "1"),
        ("action-0", "2"),
    ]


def test_tables_without_a_type_are_impressions_and_actions(tmp_path: Path) -> None:
    """Without a column of types the table must be impressions, and --actions of the action that is named."""
    views = f"at,visitor,product\n{T},u,i\n"
    (tmp_path / "buys.csv").write_text(f"at,visitor,product\n{T + 1},u,i\n")
    actions = ("--actions", tmp_path / "buys.csv")
    found = events_of(run(tmp_path, *actions, "--action", "purchase", text=views))
    assert [event.get("action") for event in found] == [None, "purchase"]
    assert "give --action purchase, for instance" in refused(run(tmp_path, *actions, text=views))
    alone = SHOP.replace('cart = "cart", ', "")
    assert events_of(run(tmp_path, *actions, text=views, config=alone)) == found


def test_ids_and_impressions_are_the_columns(tmp_path: Path) -> None:
    """With paths for them, ids must be the columns', an impression's the one that its feedback names."""
    config = SHOP + 'id = "key"\nimpression = "shown|seen"\n'
    text = f"key,shown,seen,at,visitor,event,product\na,v1,,{T},u,view,i\nb,,v1,{T + 1},u,buy,i\nc,,,{T + 2},u,view,i\n"
    found = events_of(run(tmp_path, config=config, text=text))
    assert [(event["id"], event.get("impression")) for event in found] == [("v1", None), ("b", "v1"), ("c", None)]
    again = text + f"d,v1,,{T + 3},u,view,i\n"
    assert "'v1' in rows 0 and 3" in refused(run(tmp_path, config=config, text=again))


def test_everything_else_may_be_the_context(tmp_path: Path) -> None:
    """With a star, all columns that no other key names must come, but those left out."""
    config = SHOP.replace('context = ["color", "size"]', 'context = ["*", "shade = color"]\ncontext_except = ["size"]')
    text = f"at,visitor,event,product,color,size,deep.name\n{T},u,view,i,red,1,x\n"
    assert events_of(run(tmp_path, config=config, text=text))[0]["context"] == {"shade": "red", "deep.name": "x"}


BAD = {
    "no user": (f"{T},,view,i,,,\n", "'visitor' is empty in row 7"),
    "no item": (f"{T},u,buy,,,,\n", "'product' is empty in row 7"),
    "a word for nothing": (f"{T},NULL,view,i,,,\n", "'visitor' is 'NULL' in row 7"),
    "a bad time": ("soon,u,view,i,,,\n", "'at' is 'soon' in row 7"),
    "an unknown type": (f"{T},u,hover,i,,,\n", "'event' is 'hover' in row 7, which mapping does not name"),
    "no type": (f"{T},u,,i,,,\n", "'event' is None in row 7, which mapping does not name"),
    "a bad value": (f"{T},u,buy,i,,,dear\n", "'price' is 'dear' in row 7: a value is a number"),
    "an infinite value": (f"{T},u,buy,i,,,inf\n", "'price' is infinite in row 7"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_refused_with_row_and_value(tmp_path: Path, name: str) -> None:
    """A value that can't be used must be refused by column and row, ignored rows counted."""
    row, expected = BAD[name]
    assert expected in refused(run(tmp_path, text=EVENTS + row))


def test_rows_of_other_kinds_are_not_judged(tmp_path: Path) -> None:
    """Neither ignored rows nor values that only other kinds have may be refused."""
    long = "x" * 300
    text = EVENTS + f"yesterday,NULL,ping,,{long},,dear\n{T + 40},u2,view,7,x,3,dear\n{T + 50},u2,cart,7,{long},,\n"
    assert len(events_of(run(tmp_path, text=text))) == 7


KINDS_OF_SHOP = SHOP[SHOP.index("impressions") : SHOP.index("\nuser")]
BAD_CONFIGURATIONS = {
    "a missing column": ("visitor", "visiter", "has no column 'visiter': did you mean 'visitor'?"),
    "paths into lists": ('"visitor"', '"a.*"', "has no column 'a.*'"),
    "no time": ('time = "at"', "", "mapping.time is missing"),
    "numbers as dates": (
        'time = "at"',
        'time = "at"\ntime_unit = "iso"',
        "has numbers: mapping.time_unit is their unit",
    ),
    "requests": ('ignore = ["ping"]', 'requests = ["ping"]\ncandidates = "x"', "one of mapping.requests"),
    "nothing": (
        '["view"]\nfeedback = { cart = "cart", buy = "purchase" }\nignore = ["ping"]',
        '["x"]\nignore = ["*"]',
        "has no event",
    ),
}


@pytest.mark.parametrize("name", BAD_CONFIGURATIONS)
def test_mappings_that_do_not_fit_a_table_are_refused(tmp_path: Path, name: str) -> None:
    """A path that names no column, and kinds that a table can't have, must be told."""
    old, new, expected = BAD_CONFIGURATIONS[name]
    assert expected in refused(run(tmp_path, config=SHOP.replace(old, new)))


def test_wrong_use_says_what_is_missing(tmp_path: Path) -> None:
    """Neither a mapping nor columns, and some of the columns, must be usage errors that name the way out."""
    assert "with a [mapping]" in " ".join(refused(run(tmp_path, config="seed = 1\n"), status=2).split())
    assert "labelled rows need" in refused(run(tmp_path, "--user", "visitor"), status=2)
    (tmp_path / "log.jsonl").write_text("{}\n")
    arguments = [
        "import",
        tmp_path / "log.jsonl",
        "--config",
        tmp_path / "shop.toml",
        "--out",
        "-",
        "--actions",
        "a.csv",
    ]
    (tmp_path / "shop.toml").write_text(SHOP)
    assert "--actions belongs to tables" in refused(CliRunner().invoke(main, list(map(str, arguments))), status=2)


def test_an_impression_in_the_actions_is_refused(tmp_path: Path) -> None:
    """A table of actions that has impressions must be told, with the row."""
    (tmp_path / "actions.csv").write_text(EVENTS)
    assert "has an impression in row 1" in refused(run(tmp_path, "--actions", tmp_path / "actions.csv"))


def test_json_lines_are_sorted_and_refused_by_line(tmp_path: Path) -> None:
    """Foreign JSON lines must come out as the mapping reads them, in the order of time; a bad line be named."""
    name = MAPPINGS / "segment"
    arguments = ["import", f"{name}.jsonl.gz", "--config", f"{name}.toml", "--out", "-"]
    found = events_of(CliRunner().invoke(main, arguments))
    made = sorted((event.ts_ms, event.kind != "view") for event in make_logs.made(2) if event.kind != "ping")
    assert [(event["ts"], event["type"] == "feedback") for event in found] == made
    lines = gzip.decompress(Path(f"{name}.jsonl.gz").read_bytes()).splitlines()[:3]
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join([*lines, b'{"event": "Product Viewed"}']))
    message = refused(CliRunner().invoke(main, ["import", str(tmp_path / "bad.jsonl"), *arguments[2:]]))
    assert "line 3 has no event: missing_field" in message


MAPPINGS = Path(make_logs.__file__).parent


def test_the_table_of_retailrocket_becomes_its_events(tmp_path: Path) -> None:
    """Every view must be an impression, and carts and transactions follow the visitor's latest view of the item."""
    arguments = ["import", MAPPINGS / "retailrocket.csv", "--config", MAPPINGS / "retailrocket.toml", "--out", "-"]
    found = events_of(CliRunner().invoke(main, list(map(str, arguments))))
    made = [event for event in make_logs.made(3) if event.kind != "ping"]
    shown = [event for event in found if event["type"] == "impression"]
    assert [(event["ts"], event["user"], event["item"]) for event in shown] == [
        (event.ts_ms, str(event.user), str(event.item + 100_000)) for event in made if event.kind == "view"
    ]
    latest: dict[tuple[str, str], str] = {}
    for event in found:
        if event["type"] == "impression":
            latest[event["user"], event["item"]] = event["id"]
        else:
            assert event["impression"] == latest[event["user"], event["item"]]
    actions = [event["action"] for event in found if event["type"] == "feedback"]
    assert actions.count("cart") == sum(event.kind == "click" for event in made)
    assert actions.count("purchase") == sum(event.kind == "purchase" for event in made)


KINDS = st.sampled_from(["view", "cart", "buy", "ping"])
ROWS = st.lists(st.tuples(KINDS, st.integers(0, 3), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=15)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=ROWS)
def test_tables_and_records_map_alike(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, int, int]]
) -> None:
    """A table's events must be those that the mapping makes of its rows as records, in order, with ids given."""
    path = tmp_path_factory.mktemp("table") / "table.parquet"
    records = [
        {
            "key": f"k{n}",
            "shown": f"v{n % 3}-{what == 'view'}-{n}",
            "event": what,
            "who": who,
            "what": item,
            "at": T + at,
            "x": at / 4,
        }
        for n, (what, who, item, at) in enumerate(rows)
    ]
    mapping = MappingConfiguration(
        type="event",
        impressions=("view",),
        feedback={"cart": "cart", "buy": "purchase"},
        ignore=("*",),
        id="key",
        impression="shown",
        user="who",
        item="what",
        time="at",
        context=("x",),
        value="x",
    )
    configuration = Configuration(mapping=mapping)
    pq.write_table(pa.Table.from_pylist(records), path)
    read = reader(configuration, "t", 0)
    assert read is not None
    events = [read(LogRecord(number, json.dumps(record).encode())) for number, record in enumerate(records)]
    if not any(events):
        return
    lines = b"".join(EventTables(path, configuration, options=Options()).blocks()).splitlines()
    again = reader(Configuration(mapping=mapping), "t", 0)
    assert again is not None
    expected = sorted(
        (event.ts, type(event).__name__ == "Feedback", number)
        for number, event in enumerate(events)
        if event is not None
    )
    assert [again(LogRecord(0, line)) for line in lines] == [events[number] for _, _, number in expected]


MIXED = """[mapping]
type = "event"
impressions = ["true"]
feedback = { false = "click" }
user = "who|cookie"
item = "product"
time = "at"
value = "price"
base_score = "prior"
context = ["size = small|large", "fresh", "tags"]
"""
ROWS: list[dict[str, Any]] = [
    {"event": False, "who": None, "cookie": "c", "small": None, "large": 9, "fresh": True, "tags": ["x"], "price": 1.0},
    {"event": True, "who": 7, "cookie": "c", "small": 1.5, "large": 9, "fresh": True, "tags": ["x"], "price": None},
    {"event": True, "who": None, "cookie": "d", "small": None, "large": 9, "fresh": False, "tags": None, "price": None},
    {"event": False, "who": 7, "cookie": None, "small": None, "large": None, "fresh": None, "tags": [], "price": 2.0},
]


def mixed(folder: Path, config: str = MIXED, ending: str = "parquet", **changed: Any) -> Result:
    """Import rows of several types; `changed` has, by column, the values of its rows."""
    rows = [
        {**row, "product": "p", "at": T + number, "prior": 0.5} | {name: each[number] for name, each in changed.items()}
        for number, row in enumerate(ROWS)
    ]
    (folder / "shop.toml").write_text(config)
    path = folder / f"log.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["import", path, "--config", folder / "shop.toml", "--out", "-"]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.parametrize("booleans", ["category", "number", "leave out"])
@pytest.mark.parametrize("nulls", ["leave out", "category"])
def test_a_table_has_the_contexts_of_its_json_lines(tmp_path: Path, booleans: str, nulls: str) -> None:
    """Kinds that are flags, alternatives of two types, nulls and booleans must be what `[mapping]` makes of JSON."""
    config = f'{MIXED}booleans = "{booleans}"\nnulls = "{nulls}"\n'
    found = [
        [
            (event["user"], {name: float(v) if type(v) is int else v for name, v in event["context"].items()})
            for event in events_of(mixed(tmp_path, config, ending))
            if event["type"] == "impression"
        ]
        for ending in ("parquet", "jsonl")
    ]
    assert found[0] == found[1]
    assert [user for user, _ in found[0]] == ["7", "d"]
    assert found[0][0][1]["size"] == 1.5


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"price": ["1", "x", "x", "2,5"]}, "column 'price' is '2,5' in row 3"),
        ({"price": ["x", "x", "x", "2"]}, "column 'price' is 'x' in row 0"),
        ({"prior": [9.0, 2.0, 0.5, 9.0]}, "column 'prior' is 2.0 in row 1"),
        ({"prior": [9.0, 0.5, 2.0, 9.0]}, "column 'prior' is 2.0 in row 2"),
        ({"tags": [["y" * 300], ["x"], ["a", "y" * 300], []]}, "'tags' has a text of 300 bytes in row 2"),
        ({"small": [2**60 + 1, None, None, None], "large": [1.5] * 4}, "integers beyond 2^53 and fractions"),
    ],
)
def test_the_row_that_is_named_is_the_row_that_is_wrong(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    """Rows of other kinds, which are not judged, must not shift the number of the row."""
    assert told in refused(mixed(tmp_path, **changed))


def test_an_action_needs_a_table_of_actions(tmp_path: Path) -> None:
    """`--action` alone would be left unread."""
    assert "--action is the action of the rows of --actions" in refused(run(tmp_path, "--action", "buy"), 2)

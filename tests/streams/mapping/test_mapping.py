"""Foreign records through the one path of all records: fates, dead letters, cuts, codecs, examples and commands."""

import base64
import gzip
import io
import json
import threading
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import FATES
from thalweg.schemas.events import Erase, Feedback, Impression, encode_event
from thalweg.schemas.mapping import MappingConfiguration
from thalweg.schemas.reasons import Unusable
from thalweg.schemas.records import LogRecord
from thalweg.streams.commands import main
from thalweg.streams.configuration.loading import load
from thalweg.streams.mapping.avro import without_logical_types
from thalweg.streams.mapping.reading import key_reader, reader
from thalweg.streams.mapping.sample import paths_of, sample
from thalweg.streams.mapping.suggest import suggest
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal

from examples.mappings import make_logs

MAPPINGS = Path(make_logs.__file__).parent
JSON_LOGS = ("ga4", "segment", "snowplow")
T = 1_700_000_000_000
MAPPING = MappingConfiguration(
    type="what",
    impressions=("view",),
    feedback={"buy": "click"},
    ignore=("ping",),
    impression="view",
    user="who.id",
    item="sku",
    time="at",
    context=("color",),
)
SHOP = Configuration(mapping=MAPPING)


def foreign(what: str, number: int, at: int = T, **more: Any) -> bytes:
    record = {"what": what, "view": f"v{number}", "who": {"id": 7}, "sku": f"s{number}", "at": at, "color": "red"}
    return json.dumps(record | more).encode()


def fates(partition: Partition) -> dict[str, int]:
    counts = dict(zip(FATES, partition.state.fates.tolist(), strict=True))
    return {fate: count for fate, count in counts.items() if count}


LINES = [
    foreign("view", 1),
    foreign("ping", 2, at=T + 10**9),
    foreign("view", 3, at=T + 1),
    foreign("buy", 1, at=T + 5),
    b'{"what": "view"}',
    b"\xff{}",
    b"[1]",
    foreign("hover", 4),
    foreign("buy", 9, at=T + 6),
    encode_event(Erase("e", "7", T + 7)),
    encode_event(Impression("own", "u", "i", T + 8, {})),
    foreign("view", 5, at=T + 9, view=None),
]


def test_every_foreign_record_has_one_fate_and_letters_keep_their_bytes() -> None:
    """Mapped events must be scored and joined, ignored ones counted as such, and what can't be used stay as it came."""
    partition = Partition(SHOP, topic="shop", partition=2)
    records = [LogRecord(100 + number, line, b"7", (("h", b"x"),)) for number, line in enumerate(LINES)]
    outputs = partition.process(records)
    assert fates(partition) == {"scored": 4, "joined": 1, "erased": 1, "orphaned": 1, "dead_lettered": 4, "ignored": 1}
    letters = {letter.value: letter for letter in outputs.dead_letters}
    assert list(letters) == LINES[4:8]
    assert all((letter.key, letter.headers[0]) == (b"7", ("h", b"x")) for letter in letters.values())
    reasons = [dict(letter.headers)["thalweg.reason"].decode() for letter in letters.values()]
    assert reasons == ["missing_field", "not_utf8", "not_an_object", "unknown_type"]
    scores = [json.loads(score.value or b"") for score in outputs.scores]
    assert [(score["id"], score["user"], score["item"], score["ts"]) for score in scores] == [
        ("v1", "7", "s1", T),
        ("v3", "7", "s3", T + 1),
        ("own", "u", "i", T + 8),
        ("shop-2-111", "7", "s5", T + 9),
    ]


def test_an_early_feedback_keeps_its_foreign_bytes(tmp_path: Path) -> None:
    """A feedback that waits and turns out to be another user's must be dead-lettered as it came, long after."""
    partition = Partition(SHOP)
    early = foreign("buy", 1, who={"id": "other"})
    outputs = partition.process([LogRecord(0, early), LogRecord(1, foreign("view", 1, at=T + 1))])
    assert [letter.value for letter in outputs.dead_letters] == [early]


@pytest.mark.parametrize("cut", [1, 5, len(LINES)])
def test_foreign_records_give_the_same_bytes_however_they_are_cut(cut: int) -> None:
    """Blocks, and the mapping itself, must change no output: scores are those of the mapped events alone."""
    whole, parts, plain = Partition(SHOP), Partition(SHOP), Partition(Configuration())
    records = [LogRecord(number, line) for number, line in enumerate(LINES)]
    expected = whole.process(records)
    found = [parts.process(records[start : start + cut]) for start in range(0, len(records), cut)]
    for kind in ("scores", "examples", "dead_letters"):
        assert [output for outputs in found for output in getattr(outputs, kind)] == getattr(expected, kind)
    assert parts.digest() == whole.digest()
    read = reader(SHOP, "interactions", 0)
    assert read is not None
    own = []
    for record in records:
        try:
            event = read(record)
        except Unusable:
            continue
        if event is not None:
            own.append(record._replace(value=encode_event(event)))
    assert plain.process(own).scores == expected.scores


def test_a_record_of_ours_that_breaks_a_limit_is_no_event() -> None:
    """Under a mapping our own events must keep to the limits, and broken ones be judged as foreign."""
    read = reader(SHOP, "t", 0)
    assert read is not None
    with pytest.raises(Unusable, match="missing_field: type is missing"):
        read(LogRecord(0, encode_event(Impression("1", "u" * 300, "i", T, {}))))
    with pytest.raises(Unusable, match="too_large"):
        read(LogRecord(0, b'{"type":"' + b"x" * 70_000))
    assert reader(Configuration(), "t", 0) is None


CLOUD = Configuration(
    mapping=MappingConfiguration(
        codec="cloudevents",
        type="type",
        impressions=("shop.view",),
        id="id",
        user="subject",
        item="data.sku",
        time="time",
        time_unit="iso",
    )
)
ATTRIBUTES = {
    "specversion": "1.0",
    "id": "e1",
    "source": "/shop",
    "type": "shop.view",
    "subject": "ann",
    "time": "2023-11-14T22:13:20Z",
}
PAYLOAD = b'{"sku": "s1"}'
BINARY = tuple((f"ce_{name}", value.encode()) for name, value in ATTRIBUTES.items())
CLOUD_EVENTS = {
    "structured": (json.dumps(ATTRIBUTES | {"data": {"sku": "s1"}}).encode(), ()),
    "structured, told": (
        json.dumps(ATTRIBUTES | {"data": {"sku": "s1"}}).encode(),
        (("content-type", b"application/cloudevents+json; charset=utf-8"), *BINARY),
    ),
    "binary": (PAYLOAD, (("content-type", b"application/json"), *BINARY)),
    "packed": (json.dumps(ATTRIBUTES | {"data_base64": base64.b64encode(PAYLOAD).decode()}).encode(), ()),
}


@pytest.mark.parametrize("mode", CLOUD_EVENTS)
def test_cloud_events_are_the_same_in_every_mode(mode: str) -> None:
    """Structured and binary mode must give one event."""
    read = reader(CLOUD, "t", 0)
    assert read is not None
    value, headers = CLOUD_EVENTS[mode]
    assert read(LogRecord(0, value, None, headers)) == Impression("e1", "ann", "s1", T, {})


@pytest.mark.parametrize(
    ("value", "headers", "message"),
    [
        (PAYLOAD, (), "specversion is missing"),
        (b"[]", (("content-type", b"application/cloudevents-batch+json"),), "is a batch"),
        (b"not json", BINARY, "not_json"),
        (None, BINARY, "empty"),
        (PAYLOAD, (("ce_specversion", b"1.0"), ("ce_id", b"\xff")), "ce_id is not UTF-8"),
        (json.dumps(ATTRIBUTES | {"data_base64": "?"}).encode(), (), "no base64"),
    ],
)
def test_what_is_no_cloud_event_is_refused(value: bytes | None, headers: Any, message: str) -> None:
    """Batches, missing attributes and broken payloads must be told."""
    read = reader(CLOUD, "t", 0)
    assert read is not None
    with pytest.raises(Unusable, match=message):
        read(LogRecord(0, value, None, headers))


AVRO_SCHEMA = {
    "type": "record",
    "name": "View",
    "fields": [
        {"name": "who", "type": ["null", "string"]},
        {"name": "sku", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "page", "type": {"type": "record", "name": "Page", "fields": [{"name": "tab", "type": "string"}]}},
    ],
}
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 2}
PRICED_SCHEMA = {
    "type": "record",
    "name": "Priced",
    "fields": [
        {"name": "who", "type": PRICE | {"scale": 0}},
        {"name": "sku", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "price", "type": ["null", PRICE]},
        {"name": "prices", "type": {"type": "array", "items": PRICE}},
        {"name": "share", "type": "double"},
        {"name": "raw", "type": ["null", "bytes"]},
        {"name": "broken", "type": {"type": "bytes", "logicalType": "decimal"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["NEW", "USED"]}},
        {"name": "labels", "type": {"type": "map", "values": "string"}},
    ],
}
AVRO_SCHEMAS = {
    10: {"schema": json.dumps(PRICED_SCHEMA)},
    7: {"schema": json.dumps(AVRO_SCHEMA)},
    8: {"schema": "{}", "schemaType": "PROTOBUF"},
}


class RegistryHandler(BaseHTTPRequestHandler):
    """Answers as a schema registry does, to whoever shows the password."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        number = int(self.path.removeprefix("/schemas/ids/"))
        status = 200 if number in AVRO_SCHEMAS else 404
        if self.headers["Authorization"] != "Basic " + base64.b64encode(b"ann:secret").decode():
            status = 401
        body = json.dumps(AVRO_SCHEMAS.get(number, {"error_code": 40403})).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        """Say nothing."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a registry in a thread of its own."""
    monkeypatch.setenv("THALWEG_REGISTRY_USERNAME", "ann")
    monkeypatch.setenv("THALWEG_REGISTRY_PASSWORD", "secret")
    RegistryHandler.asked.clear()
    with HTTPServer(("127.0.0.1", 0), RegistryHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def avro_reader(url: str) -> Any:
    mapping = MappingConfiguration(
        codec="avro", registry=url, user="who", item="sku", time="at", time_unit="us", context=("tab = page.tab",)
    )
    return reader(Configuration(mapping=mapping), "t", 0)


def avro(number: int = 7, **fields: Any) -> bytes:
    out = io.BytesIO()
    record = {"who": "u", "sku": 5, "at": T * 1000 + 7, "page": {"tab": "home"}} | fields
    fastavro.schemaless_writer(out, fastavro.parse_schema(without_logical_types(AVRO_SCHEMA)), record)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def test_avro_is_read_by_the_schema_of_its_id(registry: str) -> None:
    """Records must be read under the registry's schema, which is asked for once, and be mapped like JSON."""
    read = avro_reader(registry)
    for number in range(3):
        found = read(LogRecord(number, avro()))
        assert found == Impression(f"t-0-{number}", "u", "5", T, {"tab": "home"})
    assert RegistryHandler.asked == ["/schemas/ids/7"]
    assert read(LogRecord(0, encode_event(Erase("1", "u", T)))) == Erase("1", "u", T)


def test_avro_types_that_json_lacks_become_numbers_and_texts(registry: str) -> None:
    """Decimals, as prices are, must be numbers; NaN and bytes, which no context holds, must not cost the record."""
    mapping = MappingConfiguration(
        codec="avro", registry=registry, user="who", item="sku", time="at", time_unit="us", context=("*",)
    )
    read = reader(Configuration(mapping=mapping), "t", 0)
    assert read is not None
    record = {
        "who": Decimal(2**63 + 1),
        "sku": "s",
        "at": T * 1000,
        "price": Decimal("12.34"),
        "prices": [Decimal("1.50"), Decimal(2), Decimal("1234567890123456789012.34")],
        "share": float("nan"),
        "raw": b"\xff",
        "broken": b"\x01",
        "kind": "USED",
        "labels": {"a.b": "c"},
    }
    schema = fastavro.parse_schema(without_logical_types(PRICED_SCHEMA))
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, record)
    value = b"\0" + (10).to_bytes(4, "big") + out.getvalue()
    assert read(LogRecord(0, value)) == Impression(
        "t-0-0",
        str(2**63 + 1),
        "s",
        T,
        {"price": 12.34, "prices": ["1.5", "2", "1234567890123456789012.34"], "kind": "USED", "labels.a.b": "c"},
    )
    huge = io.BytesIO()  # of more digits than its schema allows, and than Python would print
    plain = {**PRICED_SCHEMA, "fields": [{"name": "who", "type": "bytes"}, *PRICED_SCHEMA["fields"][1:]]}  # type: ignore[misc]
    fastavro.schemaless_writer(
        huge, fastavro.parse_schema(without_logical_types(plain)), record | {"who": b"\x7f" * 9_000}
    )
    found = read(LogRecord(0, b"\0" + (10).to_bytes(4, "big") + huge.getvalue()))
    assert isinstance(found, Impression)
    assert found.user.endswith("E+21673")
    named = MappingConfiguration(
        codec="avro", registry=registry, user="who", item="sku", time="at", time_unit="us", context=("raw",)
    )
    read = reader(Configuration(mapping=named), "t", 0)
    assert read is not None
    with pytest.raises(Unusable, match="context at raw is bytes, not a text, a number or a list of them"):
        read(LogRecord(0, value))


def test_what_is_no_avro_is_refused(registry: str) -> None:
    """Records without the head, of unknown schemas, cut or followed by bytes must be dead letters."""
    read = avro_reader(registry)
    cases = {
        b"{}": "not_avro: the record does not begin",
        b"\0\0\0": "not_avro: the record does not begin",
        avro(9): "not_avro: the registry has no schema 9",
        avro()[:-3]: "not_avro: the record is not of its schema",
        avro() + b"x": "not_avro: bytes follow the record",
        avro(who=None): "missing_field: user is missing",
        b"": "empty",
        b"\0" * 70_000: "too_large",
    }
    for value, message in cases.items():
        with pytest.raises(Unusable, match=message):
            read(LogRecord(0, value))
    with pytest.raises(Unusable, match="empty: the record has no value"):
        read(LogRecord(0, None))


def test_a_registry_that_fails_ends_the_run_in_one_line(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer, a wrong password and schemas of another kind are no fault of the record: none is dead-lettered."""
    monkeypatch.setattr("thalweg.streams.mapping.avro.PAUSE_S", 0.0)
    with pytest.raises(Refusal, match="is PROTOBUF: only Avro is read"):
        avro_reader(registry)(LogRecord(0, avro(8)))
    monkeypatch.setenv("THALWEG_REGISTRY_PASSWORD", "wrong")
    with pytest.raises(Refusal, match="refuses: 401"):
        avro_reader(registry)(LogRecord(0, avro()))
    with pytest.raises(Refusal, match=r"gives no schema 7 .*: see that it runs"):
        avro_reader("http://127.0.0.1:9")(LogRecord(0, avro()))


@pytest.mark.parametrize(
    "keys", [{"codec": "avro"}, {"registry": "http://x"}, {"codec": "avro", "registry": "http://ann:secret@x"}]
)
def test_a_registry_belongs_to_avro(keys: dict[str, str]) -> None:
    """Avro without a registry, a registry without Avro, and a password in its URL must be refused."""
    with pytest.raises(ValueError, match="registry"):
        MappingConfiguration(**keys)


def test_a_codec_alone_reads_our_own_fields() -> None:
    """Without paths, what a codec reads must be taken as our own event."""
    read = reader(Configuration(mapping=MappingConfiguration(codec="cloudevents")), "t", 0)
    assert read is not None
    event = {"specversion": "1.0", "type": "erase", "id": "1", "user": "u", "ts": T}
    assert read(LogRecord(0, json.dumps(event).encode())) == Erase("1", "u", T)


def test_the_key_of_a_foreign_line_is_its_user() -> None:
    """Lines that are produced must be keyed by the mapped user, our own by theirs, and bad ones by none."""
    key = key_reader(SHOP)
    assert key is not None
    assert key(foreign("view", 1)) == b"7"
    assert key(foreign("ping", 1)) == b"7"
    assert key(LINES[10]) == b"u"
    assert key(b"?") is None
    assert key(b"{}") is None
    assert key_reader(Configuration()) is None


def configured(name: str) -> Configuration:
    return load(MAPPINGS / f"{name}.toml", environment={}, flags=()).configuration


def log_of(name: str) -> list[bytes]:
    return gzip.decompress((MAPPINGS / f"{name}.jsonl.gz").read_bytes()).splitlines()


def test_the_shipped_logs_are_those_that_the_script_makes() -> None:
    """Each log must be what its script makes, and have 2 000 events (RetailRocket's without those that are none)."""
    for name, data in make_logs.logs():
        shipped = (MAPPINGS / name).read_bytes()
        if name.endswith(".gz"):
            data, shipped = gzip.decompress(data), gzip.decompress(shipped)
            assert shipped.count(b"\n") == make_logs.EVENTS
        assert data == shipped


@pytest.mark.parametrize(("name", "seed"), [("ga4", 0), ("snowplow", 1), ("segment", 2)])
def test_each_example_maps_every_event_to_what_happened(name: str, seed: int) -> None:
    """What was made up must come out of its foreign shape as the event that it was."""
    read = reader(configured(name), "t", 0)
    assert read is not None
    for event, line in zip(make_logs.made(seed), log_of(name), strict=True):
        found = read(LogRecord(event.number, line))
        if event.kind == "ping":
            assert found is None
            continue
        assert isinstance(found, Impression if event.kind == "view" else Feedback)
        assert (found.ts, int("".join(filter(str.isdigit, found.item)))) == (event.ts_ms, event.item)
        if isinstance(found, Impression):
            assert found.id == f"v{event.view}"
            assert found.context["category"] == make_logs.category(event.item)
            assert found.context["price"] == make_logs.price(event.item)
        else:
            assert (found.impression, found.action) == (f"v{event.view}", event.kind)


@pytest.mark.parametrize("name", JSON_LOGS)
def test_each_example_replays_without_a_dead_letter(name: str) -> None:
    """A mapped log must be scored, joined and learned from like our own."""
    partition = Partition(configured(name))
    lines = log_of(name)[:150]
    outputs = partition.process([LogRecord(number, line) for number, line in enumerate(lines)])
    counts = fates(partition)
    assert not outputs.dead_letters
    assert sum(counts.values()) == len(lines)
    assert counts["scored"] == len(outputs.scores) > 90
    assert counts["joined"] > 10
    assert counts["ignored"] >= 1
    assert set(counts) == {"scored", "joined", "ignored"}


@pytest.mark.parametrize("name", ["ga4.jsonl.gz", "snowplow.jsonl.gz", "segment.jsonl.gz", "retailrocket.csv"])
def test_a_suggestion_finds_what_the_example_names(name: str) -> None:
    """Of each example's log, the suggestion must name the paths of its mapping, and be a configuration as it stands."""
    text = suggest(paths_of(sample(MAPPINGS / name)))
    found = tomllib.loads(text)["mapping"]
    told = tomllib.loads((MAPPINGS / f"{name.partition('.')[0]}.toml").read_text())["mapping"]
    for key in ("type", "impressions", "feedback", "impression", "user", "item"):
        assert found.get(key) == told.get(key), key
    assert found["time_unit"] == told["time_unit"]
    assert all("#" in line or line in ("[mapping]", "context = [") for line in text.splitlines())
    MappingConfiguration(**{key: tuple(value) if isinstance(value, list) else value for key, value in found.items()})


def test_a_suggestion_says_what_it_left_out_and_why() -> None:
    """Outcomes, constants, unique and long texts must not become context, and each be told."""
    rows = [
        {
            "user_id": number % 7,
            "item_id": number % 5,
            "ts": 1_700_000_000 + number,
            "uuid": f"id-{number}",
            "tab": "ab"[number % 2],
            "constant": 1,
            "clicked": number % 2,
            "empty": None,
            "text": "x" * 300,
            "session": f"s{number}",
            "other_time": T + number,
        }
        for number in range(200)
    ]
    text = suggest(paths_of(rows))
    found = tomllib.loads(text)["mapping"]
    assert found == {
        "id": "uuid",
        "user": "user_id",
        "item": "item_id",
        "time": "ts",
        "time_unit": "s",
        "context": ["tab"],
    }
    for reason in (
        "left out constant: always 1",
        "left out clicked: it may follow the outcome",
        "left out empty: nearly always empty",
        "left out text: texts beyond 256 bytes",
        "left out session: different in every record",
        "left out other_time: ",
        "type: no path says what a record is",
    ):
        assert reason in text


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_try_shows_records_before_and_after(tmp_path: Path) -> None:
    """Ten records and what becomes of them must be shown, and all be counted."""
    (tmp_path / "log.jsonl").write_bytes(b"\n".join([*LINES, *[foreign("view", n) for n in range(50, 60)]]) + b"\n")
    (tmp_path / "shop.toml").write_text(
        '[mapping]\ntype = "what"\nimpressions = ["view"]\nfeedback = { buy = "click" }\nignore = ["ping"]\n'
        'impression = "view"\nuser = "who.id"\nitem = "sku"\ntime = "at"\ncontext = ["color"]\n'
    )
    result = run("mapping", "try", tmp_path / "log.jsonl", "--config", tmp_path / "shop.toml")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 20
    assert lines[0] == LINES[0].decode()
    assert lines[1] == "  → " + encode_event(Impression("v1", "7", "s1", T, {"color": "red"})).decode()
    assert lines[3] == "  → ignored"
    assert lines[9].startswith("  → dead letter: missing_field: ")
    assert "14 impression" in result.stderr
    assert "1 dead letters (unknown_type)" in result.stderr
    refusal = run("mapping", "try", tmp_path / "log.jsonl")
    assert (refusal.exit_code, "there is no [mapping]" in refusal.stderr) == (1, True)


def test_commands_on_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A missing or an empty file, and one without objects, must be told in one line."""
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "words.jsonl").write_text("a\n[1]\n")
    (tmp_path / "pretty.jsonl").write_text('{\n  "a": 1\n}\n')
    (tmp_path / "names.csv").write_text("a,b\n")
    parts = {
        "absent.csv": "no such file",
        "empty.jsonl": "is empty",
        "words.jsonl": "no line that is a JSON object: write one a line",
        "pretty.jsonl": "no line that is a JSON object: write one a line",
        "names.csv": "has no rows",
    }
    for name, part in parts.items():
        result = run("mapping", "suggest", tmp_path / name)
        assert result.exit_code == 1
        assert part in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_a_suggestion_knows_other_words_and_names() -> None:
    """Kinds by any name, names with spaces and dots, ids that a data frame made floats: each must be found."""
    rows = [
        {
            "Kind of Thing": "x",
            "verb": ("imp", "imp", "tap", "basket")[number % 4],
            "User ID": f"u{number % 9}",
            "product.id": f"p{number % 7}",
            "meta": {"event.time": f"2024-01-01 10:00:{number % 60:02} GMT"},
            "state": "add_to_cart" if number % 4 else "viewed",
            'a"b': f"{number % 2}",
        }
        for number in range(40)
    ]
    text = suggest(paths_of(rows))
    mapping = MappingConfiguration(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in tomllib.loads(text)["mapping"].items()
        }
    )
    assert mapping.type == "verb"
    assert mapping.impressions == ("imp",)
    assert mapping.feedback == {"tap": "click", "basket": "cart"}
    assert (mapping.user, mapping.item, mapping.time) == ("User ID", '"product.id"', 'meta."event.time"')
    assert mapping.context == ()
    assert "left out state: it may follow the outcome" in text


@pytest.mark.parametrize(
    ("user", "item", "time"),
    [
        ("sessionId", "songId", "at"),
        ("Profile-ID", "product_code", "when"),
        ("viewer.id", "ean", "epochMillis"),
        ("customerId", "news.id", "created_at"),
    ],
)
def test_a_suggestion_knows_the_names_of_many_trades(user: str, item: str, time: str) -> None:
    """What identifies users, items and moments in shops, players and newsrooms must be found by its name."""

    def placed(path: str, value: Any) -> dict[str, Any]:
        outer, _, inner = path.rpartition(".")
        return {outer: {inner: value}} if outer else {inner: value}

    rows = [
        placed(user, f"u{number % 9}") | placed(item, number % 7) | {time: T + number, "tab": f"t{number % 2}"}
        for number in range(40)
    ]
    mapping = tomllib.loads(suggest(paths_of(rows)))["mapping"]
    assert [mapping[key] for key in ("user", "item", "time", "time_unit", "context")] == [
        user,
        item,
        time,
        "ms",
        ["tab"],
    ]


def test_a_suggestion_says_what_is_a_label_and_what_no_time() -> None:
    """Labels in columns must lead to `import --label`, and times of a form that nobody reads be named as such."""
    rows = [
        {"user_id": number % 5, "item_id": number % 7, "date": "31.12.2024", "bought": number % 2}
        for number in range(40)
    ]
    text = suggest(paths_of(rows))
    assert "date may be a time, but '31.12.2024' can't be read" in text
    assert "--label bought" in text
    assert "context: nothing is left" in text


def test_ids_of_tables_are_found_whatever_their_numbers_are(tmp_path: Path) -> None:
    """Decimals, and integers that gaps made floats, are ids; `try` shows them as import writes them."""
    rows = {
        "user_id": pa.array([Decimal(7), Decimal(8)] * 20, pa.decimal128(12, 0)),
        "item_id": pa.array([1.0, 2.0] * 20),
        "ts": pa.array([T] * 40),
    }
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    (tmp_path / "log.toml").write_text(run("mapping", "suggest", tmp_path / "log.parquet").stdout)
    tried = run("mapping", "try", tmp_path / "log.parquet", "--config", tmp_path / "log.toml")
    assert '"user":"7","item":"1"' in tried.stdout
    written = run("import", tmp_path / "log.parquet", "--config", tmp_path / "log.toml", "--out", "-")
    assert '"user":"7","item":"1"' in written.stdout


def test_a_quoted_path_names_its_field_without_quotes() -> None:
    """A name with a dot, in quotes in a path, must be a context field by its own name."""
    mapping = MappingConfiguration(user="u", item="i", time="t", context=('"geo.city"', 'geo."zip.code"'))
    read = reader(Configuration(mapping=mapping), "t", 0)
    assert read is not None
    event = read(LogRecord(0, json.dumps({"u": 1, "i": 2, "t": T, "geo.city": "x", "geo": {"zip.code": "y"}}).encode()))
    assert isinstance(event, Impression)
    assert event.context == {"geo.city": "x", "geo.zip.code": "y"}


@pytest.mark.parametrize(
    "text",
    ["2024-03-31 02:30:00 GMT", "2024-03-31T04:30:00 +0200", " 2024-03-31 02:30:00 UTC ", "2024-03-31T02:30:00Z"],
)
def test_a_topic_takes_the_times_that_tables_take(tmp_path: Path, text: str) -> None:
    """ISO 8601 as databases write it must be the same moment in a record and in a table."""
    mapping = MappingConfiguration(user="u", item="i", time="t", time_unit="iso")
    read = reader(Configuration(mapping=mapping), "t", 0)
    assert read is not None
    event = read(LogRecord(0, json.dumps({"u": 1, "i": 2, "t": text}).encode()))
    (tmp_path / "log.csv").write_text(f"u,i,t\n1,2,{text}\n")
    (tmp_path / "log.toml").write_text('[mapping]\nuser = "u"\nitem = "i"\ntime = "t"\ntime_unit = "iso"\n')
    written = run("import", tmp_path / "log.csv", "--config", tmp_path / "log.toml", "--out", "-")
    assert isinstance(event, Impression)
    assert event.ts == json.loads(written.stdout)["ts"] == 1_711_852_200_000


def test_words_for_nothing_are_no_ids_in_lines_either(tmp_path: Path) -> None:
    """An id that a program wrote for nothing must be refused, as in tables, unless it is meant."""
    (tmp_path / "log.jsonl").write_text(json.dumps({"u": "undefined", "i": 2, "t": T}) + "\n")
    (tmp_path / "log.toml").write_text('[mapping]\nuser = "u"\nitem = "i"\ntime = "t"\n')
    arguments = ("import", tmp_path / "log.jsonl", "--config", tmp_path / "log.toml", "--out", "-")
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "line 0 has the user 'undefined', a word for no value" in refused.stderr
    assert '"user":"undefined"' in run(*arguments, "--keep-null-words").stdout

"""`thalweg dead-letters` on a real broker, and dead letters that can't be written."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as AiokafkaError
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from thalweg.schemas.origin import Origin
from thalweg.schemas.outputs import dead_letter_headers
from thalweg.schemas.reasons import Reason
from thalweg.schemas.records import Cause, Output, Outputs
from thalweg.streams.kafka import redrive as redriving
from thalweg.streams.kafka.dead_letters import REDRIVEN_HEADER, REDRIVES_HEADER, Wanted
from thalweg.streams.kafka.delivery import Delivery
from thalweg.streams.kafka.redrive import Redrive
from thalweg.streams.refusal import Refusal

from tests.kafka.fleet import delete_records, log_of, make_topic
from tests.kafka.scoring import SMALL, Workers, records_of
from tests.kafka.test_commands import at, thalweg
from tests.kafka.test_refusals import Once
from tests.kafka.test_worker import lines

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
HEADERS = [("trace", b"\x00\xff"), ("thalweg.cause", b"interactions-0-999999:0")]
GOOD = b'{"type":"impression","id":"%d","user":"u1","item":"v","ts":1700000000000,"context":{"c":"%b"}}'
LONG = GOOD % (1, b"x" * 250)
REQUEST = b'{"type":"request","id":"r","user":"u1","candidates":["v"],"ts":1700000000000,"context":{},"top":0}'
BAD = [b"not json \xff\x1b[31m", LONG, REQUEST, b'{"type":"feedback"}', LONG.replace(b'"1"', b'"2"')]


@pytest.fixture
def workers(broker: str, unique: Unique, tmp_path: Path) -> Iterator[Workers]:
    """A partition whose log has five records that can't be used: value_bytes is 200."""
    settings = {"CHECKPOINT__INTERVAL_MS": 3_600_000, "LIMITS__VALUE_BYTES": 200}
    with Workers(broker, unique, tmp_path / "workers", **settings) as made:
        with closing(KafkaProducer(bootstrap_servers=broker)) as producer:
            producer.send(made.source, GOOD % (0, b"y"), key=b"u1", partition=0)
            for number, value in enumerate(BAD):
                producer.send(made.source, value, key=None if number == 3 else b"u1", headers=HEADERS, partition=0)
            producer.flush()
        yield made


def run(workers: Workers, *arguments: str, **settings: str) -> tuple[int, bytes, str]:
    topics = workers.loaded.topics
    names = topics.names
    flags = [word for name, text in SMALL.items() for word in ("--set", f"{name.replace('__', '.').lower()}={text}")]
    for name, text in ({"limits.value_bytes": "200"} | settings).items():
        flags += ["--set", f"{name}={text}"]
    return thalweg("dead-letters", *arguments, *at(workers.loaded.kafka.bootstrap_servers, names), *flags)


def test_letters_are_listed_and_shown(workers: Workers) -> None:
    """Counts by reason, a line each, and one letter with its bytes as they came, key and headers."""
    Once(workers).run()
    source, topic = workers.source, workers.loaded.topics.dead_letters
    status, out, told = run(workers, "list")
    assert (status, out) == (0, b""), told
    assert told.splitlines()[-1] == "5 dead letters, 0 redriven"
    rows = json.loads(run(workers, "list", "--json")[1])
    assert [(row["reason"], row["letters"], row["first"], row["last"]) for row in rows] == [
        ("bad_option", 1, 2, 2),
        ("missing_field", 1, 3, 3),
        ("not_utf8", 1, 0, 0),
        ("value_too_long", 2, 1, 4),
    ]
    status, out, _ = run(workers, "list", "--each", "--json", "--reason", "value_too_long", "--first-offset", "2")
    [line] = out.splitlines()
    assert json.loads(line)["origin"] == f"{source}-0-5"
    assert json.loads(line)["bytes"] == len(LONG)
    assert run(workers, "list", "--each")[1].count(b"\n") == 5
    for place in (f"{source}-0-1", f"{topic}-0-0"):
        status, out, told = run(workers, "show", place)
        assert (status, out) == (0, BAD[0])
        assert "reason: not_utf8: byte 9 is not UTF-8" in told
        assert f"origin: {source}-0-1\n" in told
        assert "key: u1\n" in told
        assert "header trace: \\u0000\\xff\n" in told
    shown = json.loads(run(workers, "show", f"{source}-0-4", "--json")[1])
    assert "key" not in shown
    assert shown["reason"] == "missing_field"
    status, _, told = run(workers, "show", f"{source}-0-0")
    assert (status, told.count("\n")) == (1, 1)
    assert "see `thalweg dead-letters list --each`" in told


def test_a_redrive_sends_once_what_can_be_used(workers: Workers) -> None:
    """Nothing is sent before --execute; then bytes, key and headers go back, once, and the second redrive says so."""
    once = Once(workers)
    once.run()
    source, topic = workers.source, workers.loaded.topics.dead_letters
    wide = {"limits.value_bytes": "300"}
    status, out, told = run(workers, "redrive", "--json", **wide)
    assert status == 0, told
    plan = json.loads(out)
    assert plan["executed"] is False
    assert plan["sent"] == {"value_too_long": 2}
    assert plan["unusable"] == {"not_utf8": 1, "bad_option": 1, "missing_field": 1}
    assert "2 of 5 would be sent" in told
    assert "nothing was sent: give --execute" in told
    assert "not_utf8: under this configuration dead letters again: 1 as not_utf8" in told
    assert "0 of 5 would be sent" in run(workers, "redrive")[2]
    assert len(records_of(workers.loaded.kafka.bootstrap_servers, source, 0)) == 6
    for _ in range(2):
        status, _, told = run(workers, "redrive", "--execute", **wide)
        assert status == 0, told
        back = records_of(workers.loaded.kafka.bootstrap_servers, source, 0)[6:]
        assert [record.value for record in back] == [BAD[1], BAD[4]]
        assert [record.key for record in back] == [b"u1"] * 2
        for record, offset in zip(back, (1, 4), strict=True):
            place = b"%b-0-%d" % (topic.encode(), offset)
            assert list(record.headers) == [*HEADERS, (REDRIVEN_HEADER, place), (REDRIVES_HEADER, b"1")]
    assert "0 of 5 sent back" in told
    assert json.loads(run(workers, "redrive", "--json", **wide)[1])["redriven"] == {"value_too_long": 2}
    assert "5 dead letters, 2 redriven" in run(workers, "list")[2]
    # the worker's own limit is still 200: both are dead letters again, and their second redrive is another one
    once.run()
    rows = [json.loads(line) for line in run(workers, "list", "--each", "--json")[1].splitlines()]
    assert [row["came_of"] for row in rows] == [None] * 5 + [f"{topic}-0-1", f"{topic}-0-4"]
    assert [row["redrives"] for row in rows] == [0] * 5 + [1, 1]
    # a record goes round as often as it may, and no oftener, whatever flags there are
    plan = json.loads(run(workers, "redrive", "--redriven", "--json", **wide, **{"dead_letters.redrives_max": "1"})[1])
    assert (plan["sent"], plan["exhausted"]) == ({"value_too_long": 2}, {"value_too_long": 2})
    assert json.loads(run(workers, "redrive", "--json", **wide)[1])["sent"] == {"value_too_long": 2}
    assert json.loads(run(workers, "redrive", "--redriven", "--unusable", "--json")[1])["sent"] == {
        "bad_option": 1,
        "missing_field": 1,
        "not_utf8": 1,
        "value_too_long": 4,
    }


def test_a_redrive_that_fails_half_way_is_gone_on_with(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch is sent and marked or neither; what a dead redrive left open is ended, and each goes back once."""
    Once(workers).run()
    loaded = workers.loaded
    commit, commits = AIOKafkaProducer.commit_transaction, []

    async def failing(producer: Any) -> None:
        commits.append(producer)
        if len(commits) == 2:
            raise AiokafkaError("the brokers are gone")
        await commit(producer)

    monkeypatch.setattr(redriving, "BATCH_LETTERS", 2)
    redrive = Redrive(loaded.kafka, loaded.topics, loaded.configuration, Wanted(), unusable=True)
    with monkeypatch.context() as patched:
        patched.setattr(AIOKafkaProducer, "commit_transaction", failing)
        with pytest.raises(Refusal, match="behind the first 2 can't be sent back"):
            redrive.run()
    with closing(hanging(workers)):
        plan = redrive.run()
    assert (plan.sent.total(), plan.redriven.total()) == (3, 2)
    values = [value for _, value in log_of(loaded.kafka.bootstrap_servers, workers.source, 0)]
    assert sorted(values[6:]) == sorted(BAD)
    assert redrive.run().sent.total() == 0


def hanging(workers: Workers) -> Any:
    """A redrive that died after it had sent a letter and before it was marked: its transaction is open."""
    loaded = workers.loaded
    producer = KafkaProducer(
        bootstrap_servers=loaded.kafka.bootstrap_servers,
        transactional_id=f"thalweg-redrive-{loaded.topics.dead_letters}",
        enable_idempotence=True,
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(workers.source, b"half done", key=b"u1", headers=[(REDRIVEN_HEADER, b"x")]).get(30)
    return producer


def letter_of(number: int, raw: bytes | None, key: bytes | None, *headers: tuple[str, bytes | None]) -> Output:
    """A dead letter as a worker writes it, of record `number` of the topic `in`."""
    own = dead_letter_headers(headers, Reason.TIME_JUMP, "made up", Origin("in", 0, number), Cause(number, 0))
    return Output(Cause(number, 0), raw, key, own)


def test_one_bad_letter_keeps_no_other_back(workers: Workers) -> None:
    """Tombstones without a key and headers without a value go back; one that the input refuses is named, alone."""
    loaded, servers = workers.loaded, workers.loaded.kafka.bootstrap_servers
    letters = [
        letter_of(0, GOOD % (1, b"y"), b"u1", ("empty", None), ("trace", b"")),
        letter_of(1, None, None),
        letter_of(2, GOOD % (2, b"z" * 3_000), b"u1"),
        letter_of(3, GOOD % (3, b"y"), b"u1", (REDRIVES_HEADER, b"2"), (REDRIVEN_HEADER, b"x-0-1")),
    ]

    async def write() -> None:
        async with Delivery(loaded.kafka, loaded.topics) as delivery:
            await delivery.send(0, Outputs([], [], letters, [], []))
            await delivery.flush(0)

    asyncio.run(write())
    status, _, told = run(workers, "show", "in-0-0")
    assert (status, "header empty: null" in told, "header trace: \n" in told) == (0, True, True)
    assert json.loads(run(workers, "show", "in-0-0", "--json")[1])["headers"] == [["empty", None], ["trace", ""]]
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, workers.source, {"max.message.bytes": "2000"})])
    flags = {"limits.value_bytes": "20000"}
    status, out, told = run(workers, "redrive", "--execute", "--unusable", "--json", **flags)
    topic = loaded.topics.dead_letters
    assert (status, json.loads(out)["sent"]) == (1, {"time_jump": 3})
    assert f"{topic}-0-2 can't be sent back: MessageSizeTooLargeError" in told
    assert "raise its max.message.bytes" in told
    assert "3 of 4 sent back" in told
    back = [record for record in records_of(servers, workers.source, 0, "read_committed") if record.offset > 5]
    assert [(record.value, record.key) for record in back] == [(letters[n].value, letters[n].key) for n in (0, 1, 3)]
    assert [back[0].headers[:2], back[1].headers[0], back[2].headers] == [
        (("empty", None), ("trace", b"")),
        (REDRIVEN_HEADER, f"{topic}-0-1".encode()),
        ((REDRIVEN_HEADER, f"{topic}-0-3".encode()), (REDRIVES_HEADER, b"3")),
    ]
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, workers.source, {"max.message.bytes": "9000"})])
    status, out, _ = run(workers, "redrive", "--execute", "--unusable", "--json", **flags)
    assert (status, json.loads(out)["sent"], json.loads(out)["redriven"]) == (0, {"time_jump": 1}, {"time_jump": 3})


@pytest.mark.parametrize("mode", ["suppress", "transactional"])
def test_dead_letters_that_cannot_be_written_stop_the_worker(
    mode: str, broker: str, unique: Unique, tmp_path: Path
) -> None:
    """Where the topic takes no letter the worker ends, no checkpoint passes it by, and it goes on when it is mended."""
    settings = {"CHECKPOINT__INTERVAL_MS": 3_600_000, "DELIVERY__MODE": mode}
    workers = Workers(broker, unique, tmp_path / "workers", **settings)
    topic = workers.loaded.topics.dead_letters
    make_topic(broker, topic, 1, {"max.message.bytes": "200"})  # what ends a transaction fits

    def change(**configs: str) -> None:
        changed = {name.replace("_", "."): value for name, value in configs.items()}
        with closing(KafkaAdminClient(bootstrap_servers=broker)) as admin:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changed)])

    with workers:
        workers.produce(lines(3_000))
        once = Once(workers)
        for _ in range(2):
            with pytest.raises(Refusal, match=f"{topic}-0: .* refused: MessageSizeTooLargeError.*max.message.bytes"):
                once.run()
            assert not list((tmp_path / "workers").rglob("*.checkpoint"))
        change(max_message_bytes="1000000", cleanup_policy="compact")
        with pytest.raises(Refusal, match=f"{topic}-0: .* refused: InvalidRecordError.*a compacted topic takes no"):
            once.run()
        change(max_message_bytes="1000000", cleanup_policy="delete")
        assert once.run() == 0
        assert workers.written(0) == (workers.expected(0), 0)
        assert len(workers.written(0)[0][2]) > 2


def test_letters_of_a_file(tmp_path: Path) -> None:
    """The file of a replay is listed and shown without any broker, and another file is refused in one line."""
    log, letters = tmp_path / "log.jsonl", tmp_path / "letters.jsonl.gz"
    log.write_bytes(b"\n".join([GOOD % (0, b"y"), *BAD]) + b"\n")
    flags = [word for name, text in SMALL.items() for word in ("--set", f"{name.replace('__', '.').lower()}={text}")]
    status, _, told = thalweg("replay", str(log), "--dead-letters", str(letters), *flags)
    assert status == 0, told
    status, out, told = thalweg("dead-letters", "list", "--file", str(letters), "--json")
    assert status == 0, told
    assert {row["reason"]: row["letters"] for row in json.loads(out)} == {
        Reason.NOT_UTF8: 1,
        Reason.BAD_OPTION: 1,
        Reason.MISSING_FIELD: 1,
    }
    status, out, _ = thalweg("dead-letters", "show", "interactions-0-1", "--file", str(letters))
    assert (status, out) == (0, BAD[0])
    status, _, told = thalweg("dead-letters", "list", "--file", str(log))
    assert (status, told.count("\n")) == (1, 1)
    assert "line 0 (from 0)" in told


def test_a_retained_topic_is_listed_from_where_it_starts(workers: Workers, broker: str) -> None:
    """Letters that retention took are not missed: offsets are compared, never counted."""
    Once(workers).run()
    delete_records(broker, workers.loaded.topics.dead_letters, 0, 3)
    rows = json.loads(run(workers, "list", "--json")[1])
    assert [(row["reason"], row["first"]) for row in rows] == [("missing_field", 3), ("value_too_long", 4)]

"""`thalweg topics`, `produce` and `consume` on a real broker."""

import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from kafka import KafkaProducer
from kafka.partitioner.default import murmur2
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.fates import Fate
from thalweg.schemas.records import Cause, LogRecord
from thalweg.streams.commands import main
from thalweg.streams.driver import START_MS
from thalweg.streams.kafka.consume import Reader, cause_of
from thalweg.streams.kafka.facts import FactWriter
from thalweg.streams.partition.partition import Partition

from tests.kafka.fleet import end_offsets, log_of, make_topic, records_of, send

Unique = Callable[[str], str]


def thalweg(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run the command line in this process; return exit status, stdout and stderr."""
    ran = CliRunner().invoke(main, list(arguments), input=stdin)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran.exit_code, ran.stdout_bytes, ran.stderr


def in_process(*arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "thalweg.streams.entry", *arguments]
    run = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=120)
    return run.returncode, run.stdout, run.stderr.decode()


def at(broker: str, names: Sequence[str]) -> list[str]:
    topics = ("interactions", "scores", "examples", "dead_letters", "rankings", "lessons")
    flags = [f"topics.{topic}={name}" for topic, name in zip(topics, names, strict=True)]
    return ["--bootstrap-servers", broker, *(word for flag in flags for word in ("--set", flag))]


@pytest.mark.broker
def test_topics_are_created_once(broker: str, unique: Unique) -> None:
    """Creating makes what is absent, says that partitions learn separately, and refuses other partition counts."""
    names = [unique(name) for name in ("in", "scores", "examples", "dlq", "rankings", "lessons")]
    where = at(broker, names)
    status, _, told = thalweg("topics", "describe", *where)
    assert status == 1
    assert told.endswith("run `thalweg topics create` first\n")
    status, _, told = thalweg("topics", "create", "--partitions", "3", *where)
    assert status == 0
    assert [line for line in told.splitlines() if line.startswith("created: ")] == [f"created: {n}" for n in names]
    assert "learn separately" in told
    assert thalweg("topics", "create", "--partitions", "3", *where)[0] == 0
    status, _, told = thalweg("topics", "create", *where)
    assert (status, told.count("\n")) == (1, 1)
    assert "with 3 partitions, not topics.partitions = 1" in told
    assert thalweg("topics", "describe", *where)[0] == 0


@pytest.mark.broker
def test_partition_counts_must_agree(broker: str, unique: Unique) -> None:
    """An output topic with other partitions than the input is refused."""
    names = [unique(name) for name in ("in", "scores", "examples", "dlq", "rankings", "lessons")]
    for name, partitions in zip(names, (2, 2, 1, 2, 2, 2), strict=True):
        make_topic(broker, name, partitions)
    status, _, told = thalweg("topics", "describe", *at(broker, names))
    assert status == 1
    assert f"{names[2]} 1" in told.splitlines()[-1]


@pytest.mark.broker
def test_produce_keys_by_user_and_keeps_every_byte(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Every line arrives once, byte for byte, in its user's partition and in order; bad ones in partition 0."""
    topic = unique("in")
    make_topic(broker, topic, 4)
    lines = [b'{"user": "u%d",  "n":%d, "x": "\xc3\xa9"}' % (n % 97, n) for n in range(3000)]
    lines[10], lines[20], lines[30] = b"not json \xff", b"", b'{"user": 7}'
    log = tmp_path / "log.jsonl.gz"
    log.write_bytes(gzip.compress(b"\n".join(lines) + b"\n"))
    status, out, told = thalweg("produce", str(log), "--topic", topic, "--bootstrap-servers", broker)
    assert (status, out) == (0, b""), told
    assert f"3000 events confirmed on {topic} (4 partitions), 3 without a user among them" in told
    expected: dict[int, list[bytes]] = {number: [] for number in range(4)}
    for number, line in enumerate(lines):
        key = b"u%d" % (number % 97)
        place = 0 if number in (10, 20, 30) else (murmur2(key) & 0x7FFFFFFF) % 4
        expected[place].append(line)
    for number in range(4):
        assert [value for _, value in log_of(broker, topic, number)] == expected[number]


@pytest.mark.broker
def test_facts_reach_who_needs_them(broker: str, unique: Unique, tmp_path: Path) -> None:
    """About an item every partition, about a user the user's own: by `produce` as by the writer, and all are known."""
    topic = unique("in")
    make_topic(broker, topic, 3)
    log = tmp_path / "facts.jsonl"
    events = [
        {"type": "item", "id": "1", "item": "v9", "ts": START_MS, "fields": {"author": "a3"}},
        {"type": "user", "id": "2", "user": "u1", "ts": START_MS, "fields": {"country": "FR"}},
    ]
    log.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    status, _, told = thalweg("produce", str(log), "--topic", topic, "--bootstrap-servers", broker)
    assert status == 0, told
    with (
        closing(KafkaProducer(bootstrap_servers=broker)) as producer,
        FactWriter(producer, topic) as writer,
    ):
        writer.item("v9", {"author": None, "tags": ["new"]}, ts=START_MS, id="3")
        writer.user("u1", {"country": "IT"}, ts=START_MS, id="4")
    own = (murmur2(b"u1") & 0x7FFFFFFF) % 3
    for number in range(3):
        records = records_of(broker, topic, number, "read_committed")
        ids = [json.loads(record.value)["id"] for record in records]
        assert ids == (["1", "2", "3", "4"] if number == own else ["1", "3"])
        partition = Partition(Configuration(), partition=number, partitions=3)
        partition.process([LogRecord(record.offset, record.value, record.key) for record in records])
        assert partition.state.fates[Fate.KNOWN] == len(ids)


@pytest.mark.broker
def test_produce_at_a_rate(broker: str, unique: Unique) -> None:
    """A rate is kept, from standard input too."""
    topic = unique("in")
    make_topic(broker, topic, 1)
    started = time.monotonic()
    status, _, told = thalweg(
        "produce", "-", "--rate", "100", "--topic", topic, "--bootstrap-servers", broker, stdin=b'{"user": "u"}\n' * 150
    )
    assert status == 0, told
    assert time.monotonic() - started > 1.45
    assert end_offsets(broker, topic, 1) == {0: 150}


@pytest.mark.broker
def test_produce_refuses_a_line_that_is_too_large(broker: str, unique: Unique) -> None:
    """What the brokers would not take ends with one line that tells which it is and how many arrived."""
    topic = unique("in")
    make_topic(broker, topic, 1)
    stdin = b'{"user": "u"}\n' * 5 + b'{"user": "' + b"x" * 2_000_000 + b'"}\n'
    status, _, told = thalweg("produce", "-", "--topic", topic, "--bootstrap-servers", broker, stdin=stdin)
    assert status == 1
    assert "line 5 (from 0) can't be sent: MessageSizeTooLargeError" in told
    assert "the 5 before it are confirmed" in told
    assert told.count("\n") == 1


@pytest.mark.broker
def test_consume_prints_each_record_once(broker: str, unique: Unique) -> None:
    """Records that a woken worker wrote again are dropped; `--limit`, `--partition` and `--from-end` hold."""
    topic = unique("scores")
    make_topic(broker, topic, 2)
    values = {
        number: [b'{"cause":"in-%d-%d:0"}' % (number, cause) for cause in (0, 1, 2, 3, 2, 3, 4, 0, 5)]
        for number in range(2)
    }
    send(broker, topic, values)
    command = ["consume", "--topic", topic, "--bootstrap-servers", broker]
    status, out, told = thalweg(*command)
    assert status == 0, told
    assert "12 records, 6 written twice dropped" in told
    for number in range(2):
        causes = [json.loads(line)["cause"] for line in out.splitlines() if b"in-%d-" % number in line]
        assert causes == [f"in-{number}-{cause}:0" for cause in range(6)]
    assert thalweg(*command, "--limit", "3")[1].count(b"\n") == 3
    assert set(thalweg(*command, "--partition", "1")[1].splitlines()) == set(values[1])
    assert thalweg(*command, "--from-end")[1] == b""
    assert thalweg(*command, "--partition", "2")[0] == 2


@pytest.mark.broker
def test_consume_follows_until_it_is_interrupted(broker: str, unique: Unique) -> None:
    """`--follow` prints what comes later as it comes, and Ctrl-C ends it in order."""
    topic = unique("scores")
    make_topic(broker, topic, 1)
    command = [sys.executable, "-c", "from thalweg.streams.commands import main; main()", "consume", "--follow"]
    command += ["--topic", topic, "--bootstrap-servers", broker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        for number in range(2):
            value = b'{"cause":"in-0-%d:0"}' % number
            send(broker, topic, {0: [value]})
            assert following.stdout.readline() == value + b"\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 0
        assert following.stderr.read() == b"2 records\n"


@pytest.mark.broker
def test_absent_topics_are_refused(broker: str, unique: Unique) -> None:
    """A topic that is not there ends with one line that names the command to run, and is not made by asking."""
    for command in (["consume"], ["produce", "-"]):
        status, _, told = thalweg(*command, "--topic", unique("absent"), "--bootstrap-servers", broker, stdin=b"{}\n")
        assert (status, told.count("\n")) == (1, 1)
        assert "run `thalweg topics create` first" in told


def test_no_broker_is_refused_within_a_bounded_time() -> None:
    """Where nothing answers, every command ends within its time-out with one line that says what to do."""
    flags = ["--bootstrap-servers", "127.0.0.1:9", "--set", "kafka.connect_timeout_ms=500"]
    for command in (["topics", "create"], ["consume"], ["produce", "-"]):
        started = time.monotonic()
        status, _, told = in_process(*command, *flags, stdin=b"{}\n")
        assert (status, told.count("\n")) == (1, 1)
        assert "no broker answers at 127.0.0.1:9" in told
        assert time.monotonic() - started < 20


def test_reader_keeps_what_is_above_the_highest_seen() -> None:
    """Causes compare by offset and then ordinal, each partition by itself; what is no cause is an error."""
    reader = Reader()
    fed = [(0, "t-0-9:1"), (0, "t-0-9:1"), (0, "t-0-9:2"), (1, "t-1-3:0"), (0, "t-0-10:0"), (0, "t-0-9:9")]
    assert [reader.keep(partition, cause) for partition, cause in fed] == [True, False, True, True, True, False]
    assert reader.seen == {0: Cause(10, 0), 1: Cause(3, 0)}
    assert reader.dropped == 2
    with pytest.raises(ValueError, match="not a cause"):
        reader.keep(0, "nonsense")


def test_a_cause_that_came_in_is_not_taken_for_ours() -> None:
    """A dead letter keeps the record's own headers before ours, so the last `thalweg.cause` is the one that counts."""
    headers = [("thalweg.cause", b"in-0-999:0"), ("thalweg.cause", b"in-0-7:0")]
    assert cause_of(LogRecord(3, b"???", None, tuple(headers))) == ("in", Cause(7, 0))

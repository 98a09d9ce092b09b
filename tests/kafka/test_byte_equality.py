"""What a worker writes to Kafka is byte for byte what `thalweg replay` writes to files, of the same logs."""

from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from thalweg.schemas.outputs import DeadLetter
from thalweg.schemas.records import Cause, Output
from thalweg.streams.commands import main
from thalweg.streams.logs.reader import LogReader
from thalweg.streams.logs.sinks import dead_letter_line

from tests.kafka.fleet import committed, end_offsets
from tests.kafka.scoring import Workers
from tests.soak import SOAK
from tests.streams.logs_for_tests import ROOT, SAMPLE, SAMPLE_CONFIGURATION

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
TABLE = ROOT.resolve().parent / "shared" / "data" / "kuairand14d" / "events.parquet"
PARTITIONS = 3
REQUEST_EVERY = 50
DAMAGED = {100: b"not json \xff", 2_000: b'{"type": "impression", "user": "7"}', 30_000: b""}
SHIPPED = {
    "TABLE__ROWS_LIMIT": "",
    "BEHAVIORS__USERS_LIMIT": "",
    "JOINER__WAITING_LIMIT": "",
    "JOINER__FEEDBACK_LIMIT": "",
    "JOINER__TEXT_BYTES": "",
    "JOINER__ATTRIBUTION_WINDOW_MS": "",
    "SDIM__HISTORIES_LIMIT": "",
    "CONFIG": str(SAMPLE_CONFIGURATION),
}


def thalweg(*arguments: str) -> None:
    ran = CliRunner().invoke(main, list(arguments), catch_exceptions=False)
    assert ran.exit_code == 0, ran.stderr


def kuairand(folder: Path) -> Path:
    """Return a log, some lines damaged, with requests: the sample, or the whole in `make soak` if it is there."""
    whole = SAMPLE
    if SOAK and TABLE.exists():
        whole = folder / "whole.jsonl"
        columns = ["--user", "user", "--item", "item", "--time", "time_ms:ms", "--label", "label"]
        context = ["--context", "tab,author,tag,duration_ms", "--split", "tag:,"]
        thalweg("import", str(TABLE), *columns, *context, "--out", str(whole))
    log = folder / "log.jsonl"
    with LogReader(whole, block_lines=10_000) as reader, log.open("wb") as copy:
        for block in reader:
            lately: deque[str] = deque(maxlen=30)
            for record in block:
                copy.write(DAMAGED.get(record.offset, record.value or b"") + b"\n")
                event = msgspec.json.decode(record.value or b"")
                if event["type"] == "impression":
                    lately.append(event["item"])
                    if record.offset % REQUEST_EVERY == 0:
                        asked = {name: event[name] for name in ("user", "ts", "context")}
                        asked |= {"type": "request", "id": f"r{record.offset}", "candidates": list(lately)}
                        copy.write(msgspec.json.encode(asked) + b"\n")
    return log


def replayed(workers: Workers, partition: int, folder: Path, *options: str) -> list[list[bytes]]:
    """Write a partition's log to a file, replay it, and return the lines of all that it made."""
    log = folder / f"{partition}.jsonl"
    records = workers.records_of(workers.source, partition)
    assert [record.offset for record in records] == list(range(len(records)))
    log.write_bytes(b"".join(record.value + b"\n" for record in records))
    paths = [folder / f"{partition}.{kind}" for kind in ("scores", "examples", "dead_letters", "rankings")]
    outputs = ["--out", str(paths[0]), "--examples", str(paths[1]), "--dead-letters", str(paths[2])]
    outputs += ["--rankings", str(paths[3])]
    place = ["--topic", workers.source, "--partition", str(partition), "--first-offset", "0"]
    thalweg("replay", str(log), "--config", str(SAMPLE_CONFIGURATION), *place, *outputs, *options)
    return [path.read_bytes().splitlines() for path in paths]


def consumed(workers: Workers, partition: int) -> list[list[bytes]]:
    """Return what readers of the topics get, dead letters in the form that files have."""
    (scores, examples, letters, rankings, _), dropped = workers.written(partition)
    assert dropped == 0
    lines = [dead_letter_line(Output(Cause(0, 0), each.value, each.key, each.headers)).value or b"" for each in letters]
    values = [[each.value or b"" for each in kind] for kind in (scores, examples, rankings)]
    return [values[0], values[1], lines, values[2]]


def unkeyed(line: bytes) -> DeadLetter:
    """Return a dead letter without its key, which a file has no place for."""
    return msgspec.structs.replace(msgspec.json.decode(line, type=DeadLetter), key=None)


def score(workers: Workers, servers: str) -> None:
    """Let a worker score all that there is, and end it in order."""
    worker = workers.start()
    workers.wait(lambda: len(workers.opened(worker)) == workers.loaded.topics.partitions, "partitions opened", 150)
    ends = end_offsets(servers, workers.source, workers.loaded.topics.partitions)
    workers.wait(lambda: committed(servers, workers.group, workers.source) == ends, "all acknowledged", 120)
    assert workers.stop(worker) == 0, workers.log(worker)


@pytest.mark.soak(222_444 if SOAK else 30_000, 222_444, "impressions through Kafka")
def test_kuairand_through_kafka_equals_its_replay(broker: str, unique: Unique, tmp_path: Path) -> None:
    """All outputs of the whole log, consumed, equal the replay of each partition's log."""
    with Workers(broker, unique, tmp_path / "workers", partitions=PARTITIONS, **SHIPPED) as workers:
        thalweg("produce", str(kuairand(tmp_path)), "--topic", workers.source, "--bootstrap-servers", broker)
        score(workers, broker)
        letters = 0
        for partition in range(PARTITIONS):
            files, topics = replayed(workers, partition, tmp_path), consumed(workers, partition)
            assert topics[:2] == files[:2]
            assert topics[3] == files[3]
            assert len(files[3]) > 50
            assert [unkeyed(line) for line in topics[2]] == [unkeyed(line) for line in files[2]]
            assert len(files[0]) > 5_000
            letters += len(files[2])
        assert letters == len(DAMAGED)


def test_a_worker_goes_on_from_a_replays_checkpoint(broker: str, unique: Unique, tmp_path: Path) -> None:
    """Going live with the checkpoint of a replay gives, from its end on, what the replay of the whole log gives."""
    with Workers(broker, unique, tmp_path / "workers", **SHIPPED) as workers:
        with LogReader(SAMPLE, block_lines=12_000) as reader:
            lines = [record.value or b"" for record in next(iter(reader))]
        known = tmp_path / "known.jsonl"
        known.write_bytes(b"".join(line + b"\n" for line in lines[:8_000]))
        place = ["--topic", workers.source, "--partition", "0", "--config", str(SAMPLE_CONFIGURATION)]
        folder = workers.loaded.checkpoint.directory
        thalweg("replay", str(known), *place, "--checkpoint", folder, "--out", str(tmp_path / "known.scores.jsonl"))
        workers.produce(lines)
        score(workers, broker)
        assert workers.opened(workers.workers[0]) == {0: 8_000}
        files, topics = replayed(workers, 0, tmp_path), consumed(workers, 0)
        before = (tmp_path / "known.scores.jsonl").read_bytes().splitlines()
        assert before + topics[0] == files[0]
        assert 0 < len(topics[1]) < len(files[1])
        assert topics[1] == files[1][-len(topics[1]) :]

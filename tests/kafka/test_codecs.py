"""Batches as other clients compress them, on every way that a batch is read, and keys as they place them."""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from aiokafka.record._crecords import default_records
from click.testing import CliRunner
from confluent_kafka import Producer
from thalweg.streams.commands import main
from thalweg.streams.kafka.delivery import tail
from thalweg.streams.kafka.produce import key_of
from thalweg.streams.kafka.security import KafkaSection
from thalweg.streams.refusal import Refusal

from tests.kafka.fleet import committed, end_offsets, make_topic
from tests.kafka.scoring import Workers
from tests.kafka.test_rebuild import newest
from tests.kafka.test_refusals import Once
from tests.kafka.test_worker import lines

pytestmark = pytest.mark.broker
Unique = Callable[[str], str]
CODECS = ("gzip", "snappy", "lz4", "zstd")
WITHOUT_CRAMJAM = "import sys; sys.modules['cramjam'] = None\n"


def send(servers: str, topic: str, events: Iterable[bytes], codec: str, **settings: str) -> None:
    """Produce with librdkafka, keyed by user; batches of one codec."""
    wanted = {"bootstrap.servers": servers, "compression.type": codec, "linger.ms": "50"}
    producer = Producer(wanted | {"partitioner": "murmur2_random"} | settings)
    for event in events:
        producer.produce(topic, value=event, key=key_of(event))
    assert producer.flush(60) == 0


def in_all_codecs(servers: str, topic: str, events: Sequence[bytes]) -> None:
    part = len(events) // len(CODECS)
    for number, codec in enumerate(CODECS):
        end = None if codec == CODECS[-1] else (number + 1) * part
        send(servers, topic, events[number * part : end], codec)


def invoke(workers: Workers, *arguments: str) -> tuple[int, bytes, str]:
    """Run the command line under the workers' configuration."""
    ran = CliRunner().invoke(main, list(arguments), env=workers.environ)
    return ran.exit_code, ran.stdout_bytes, ran.stderr


@pytest.mark.parametrize("mode", ["suppress", "transactional"])
def test_every_codec_is_read_everywhere(mode: str, broker: str, unique: Unique, tmp_path: Path) -> None:
    """All codecs on the input and by `compression.type` on the outputs, before and after a kill, and by each reader."""
    settings = {"DELIVERY__MODE": mode, "WORKER__SESSION_TIMEOUT_MS": 6_000, "CHECKPOINT__INTERVAL_EVENTS": 1_500}
    workers = Workers(broker, unique, tmp_path / "workers", CHECKPOINT__INTERVAL_MS=3_600_000, **settings)
    for topic, codec in zip(workers.loaded.topics.outputs, ("zstd", "lz4", "snappy", "gzip", "zstd"), strict=True):
        make_topic(broker, topic, 1, {"compression.type": codec})
    log = lines(4_000)
    with workers:
        in_all_codecs(broker, workers.source, log[:3_000])
        killed = workers.start()
        workers.kill_with_outputs_beyond(killed, count=1)
        in_all_codecs(broker, workers.source, log[3_000:])
        second = workers.start()
        ends = end_offsets(broker, workers.source, 1)
        workers.wait(lambda: committed(broker, workers.group, workers.source) == ends, "everything acknowledged")
        assert workers.stop(second) == 0, workers.log(second)
        written, _ = workers.written(0)
        assert written == workers.expected(0)
        status, out, told = invoke(workers, "consume")
        assert (status, out.splitlines()) == (0, [score.value for score in written[0]]), told
        status, _, told = invoke(workers, "dead-letters", "list")
        assert (status, told.splitlines()[-1]) == (0, f"{len(written[2])} dead letters, 0 redriven")
        ended_at = newest(workers).header.next_offset
        workers.environ |= {"THALWEG_CHECKPOINT__GENERATION": "1", "THALWEG_LEARNER__ALPHA_DENSE": "0.2"}
        status, _, told = invoke(workers, "checkpoint", "rebuild")
        assert (status, newest(workers).header.next_offset) == (0, ended_at), told


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_batch_that_cannot_be_read_is_named(
    codec: str, broker: str, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the codec's library, worker and reader end with one line that names topic, offset and codec."""
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(WITHOUT_CRAMJAM)
    with Workers(broker, unique, tmp_path / "workers") as workers:
        send(broker, workers.source, lines(60), "none")
        end = end_offsets(broker, workers.source, 1)[0]
        send(broker, workers.source, lines(60), codec)
        named = f"{workers.source}-0: the batch at offset {end}, compression {codec}, can't be read: "
        monkeypatch.setattr(f"kafka.record.default_records.codecs.has_{codec}", lambda: False)
        monkeypatch.setenv("THALWEG_TOPICS__SCORES", workers.source)
        status, _, told = invoke(workers, "consume", "--topic", workers.source)
        assert (status, told.splitlines()[-1].startswith(f"Error: {named}")) == (1, True), told
        if codec == "zstd":
            monkeypatch.setenv(
                "PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path / "without"), os.environ.get("PYTHONPATH")]))
            )
            worker = workers.start("thalweg, started")
            workers.stopped.append(worker)
            assert worker.wait(120) == 1
            assert workers.log(worker).splitlines()[-1].startswith(f"Error: {named}its library is missing")


def test_a_damaged_batch_is_named(broker: str, unique: Unique, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the bytes of an output's batch are not what its codec reads, opening the partition is refused with it."""
    topic = unique("scores")
    make_topic(broker, topic, 1)
    send(broker, topic, [b"{}" * 99] * 3, "gzip")
    send(broker, topic, [b"{}" * 99] * 3, "zstd")
    monkeypatch.setattr(default_records, "zstd_decode", lambda payload: b"\xff" * 7)
    with pytest.raises(Refusal, match=f"{topic}-0: the batch at offset 3, compression zstd, can't be read .*damaged"):
        asyncio.run(tail(KafkaSection(bootstrap_servers=broker), topic, 0, 0, "in"))


@pytest.mark.parametrize(("partitioner", "is_told"), [("consistent_random", True), ("murmur2_random", False)])
def test_keys_placed_by_another_hash_are_told(
    partitioner: str, is_told: bool, broker: str, unique: Unique, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """librdkafka's own partitioner puts users into others' partitions: the log says so, and what to set."""
    with Workers(broker, unique, tmp_path / "workers", partitions=2) as workers:
        send(broker, workers.source, lines(1_500), "lz4", partitioner=partitioner)
        Once(workers).run()
    told = [record.message for record in caplog.records if "partitioner=murmur2_random" in record.message]
    assert len(told) == is_told
    assert all("docs/kafka.md" in message for message in told)

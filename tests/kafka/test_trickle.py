"""Events that arrive one at a time: the worker keeps up with them, and what it writes is the same to the byte."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from confluent_kafka import Producer

from examples.live.events import events
from tests.kafka.fleet import end_offsets
from tests.kafka.scoring import Workers, sent

pytestmark = pytest.mark.broker
RATE, SECONDS, COMPARED_S = 1_000, 20, 5
LATE_S_MAX, CORES_MAX = 8.0, 0.6
"""How late scores are at the end where a busy machine stops the worker for seconds, and no later: a worker that folds
single events is twice as late. And the share of a core that it takes, which depends less on what else runs: such a
worker takes more than a whole one."""


def processor_s(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def send_one_at_a_time(servers: str, topic: str, lines: list[bytes], rate: int) -> None:
    """Hand each event to the client when it is due; the client waits for no others."""
    settings = {"linger.ms": 0, "enable.idempotence": True, "partitioner": "murmur2_random"}
    producer = Producer(settings | {"bootstrap.servers": servers})
    started = time.monotonic()
    for number, line in enumerate(lines):
        time.sleep(max(0.0, started + number / rate - time.monotonic()))
        start = line.index(b'"user":"') + 8
        producer.produce(topic, line, line[start : line.index(b'"', start)])
        producer.poll(0)
    assert producer.flush(60) == 0


def test_the_worker_keeps_up_with_a_thousand_single_events_a_second(
    broker: str, unique: Callable[[str], str], tmp_path: Path
) -> None:
    """Scores of the last five seconds are not as late as those of a worker that falls behind, and a core is enough."""
    lines = [line.rstrip(b"\n") for line in events(RATE * SECONDS)]
    with Workers(broker, unique, tmp_path / "workers") as workers:
        worker = workers.start()
        workers.wait(lambda: workers.opened(worker), "the partition is open")
        used_s = processor_s(worker.pid)
        send_one_at_a_time(broker, workers.source, lines, RATE)
        asked = {record.offset: record.timestamp for record in workers.records_of(workers.source, 0)}
        assert len(asked) == len(lines)
        count = sum(b'"type":"impression"' in line for line in lines)
        topic = workers.loaded.topics.scores
        workers.wait(lambda: end_offsets(broker, topic, 1)[0] >= count, "all scores", seconds=30)
        assert processor_s(worker.pid) - used_s < CORES_MAX * SECONDS
        scores = workers.records_of(topic, 0)
        assert [sent(record) for record in scores] == workers.expected(0)[0]
        end_ms = max(asked.values())
        late_s = []
        for record in scores:
            asked_ms = asked[int(record.value.split(b'"origin":"')[1].split(b'"')[0].rpartition(b"-")[2])]
            if asked_ms > end_ms - COMPARED_S * 1000:
                late_s.append((record.timestamp - asked_ms) / 1000)
        assert len(late_s) > RATE * COMPARED_S / 4
        assert median(late_s) < LATE_S_MAX
        assert workers.stop(worker) == 0, workers.log(worker)

"""Events sent one at a time at a fixed rate: how late each score is, and what the worker's processor time is.

`measure` runs it against a worker that has its partition; `python -m benchmarks.worker` prints the figures. The sender
is a process of its own that runs this module:

    python -m benchmarks.trickle SERVERS TOPIC RATE LINGER_MS EVENTS SENT_AT < LINES

It hands each event to librdkafka by itself when it is due, and writes to the file SENT_AT when it did. The client then
waits LINGER_MS for more events before it sends a request. Producers do so: 5 ms is the default of librdkafka and of
Java's client since version 4. With 0 each event is a request of its own, as soon as the one before is answered; on two
cores the broker's work for them takes from what the worker has. An event's lateness begins when it was handed over, so
that it contains the linger. `python -m benchmarks.worker` reads the scores, with librdkafka too, and looks for nothing
but the origin in each.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, Producer, TopicPartition

WARM_UP_S = 3
COMPARED_S = 10
LAST_SCORES_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


class Trickled(NamedTuple):
    """What came of one rate: `late_ms` [scores] in the order of sending, `sent_s` [scores] since the first of them.

    `worker_cores`, `sender_cores`, `broker_cores` and `reader_cores` are shares of a core, `seconds_per_event` is how
    long it all took for each event; `events_per_s` is what the sender reached, `missing` how many scores never came.
    """

    rate: int
    linger_ms: float
    events_per_s: float
    seconds_per_event: float
    late_ms: npt.NDArray[np.float64]
    sent_s: npt.NDArray[np.float64]
    missing: int
    worker_cores: float
    sender_cores: float
    broker_cores: float
    reader_cores: float

    def us_per_event(self, cores: float) -> float:
        """Return the microseconds of processor time an event that a share of a core came to."""
        return 1e6 * cores * self.seconds_per_event

    def percentile(self, percent: float) -> float:
        """Return a percentile of all scores' lateness in milliseconds."""
        return float(np.percentile(self.late_ms, percent))

    def first(self, percent: float) -> float:
        """Return a percentile over what was sent in the first ten seconds."""
        return float(np.percentile(self.late_ms[self.sent_s < COMPARED_S], percent))

    def last(self, percent: float) -> float:
        """Return a percentile over what was sent in the last ten seconds."""
        return float(np.percentile(self.late_ms[self.sent_s >= self.sent_s[-1] - COMPARED_S], percent))


def measure(
    servers: str,
    topics: tuple[str, str],
    processes: tuple[int, int],
    lines: Iterable[bytes],
    rate: int,
    seconds: int,
    linger_ms: float = 5,
) -> Trickled:
    """Send `seconds` of events, and some before to warm up, to the input of `topics` (input, scores; one partition).

    `processes` are the worker's and the broker's. `lines` are JSON events in their order, of which it takes as many as
    it needs.
    """
    source, scores = topics
    count = rate * (seconds + WARM_UP_S)
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "trickle", "enable.auto.commit": False})
    first_input, first_score = (consumer.get_watermark_offsets(TopicPartition(topic, 0))[1] for topic in topics)
    consumer.assign([TopicPartition(scores, 0, first_score)])
    with tempfile.TemporaryDirectory() as folder:
        log, sent_at = Path(folder) / "lines", Path(folder) / "sent_at.npy"
        with log.open("wb") as out:
            out.writelines(islice(lines, count))
        expected = np.array([b'"type":"impression"' in line for line in log.open("rb")])
        arrived_at = np.zeros(count)
        with log.open("rb") as events:
            arguments = [servers, source, str(rate), str(linger_ms), str(count), str(sent_at)]
            sender = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.trickle", *arguments], stdin=events, stdout=subprocess.PIPE
            )
        assert sender.stdout is not None
        used, began, reader_s = [processor_s(each) for each in processes], time.monotonic(), time.process_time()
        receive(consumer, f"{source}-0-".encode(), first_input, arrived_at, int(expected.sum()), sender)
        worker_s, broker_s = (processor_s(each) - before for each, before in zip(processes, used, strict=True))
        elapsed_s, reader_s = time.monotonic() - began, time.process_time() - reader_s
        sender_s = float(sender.stdout.read())
        sent = np.load(sent_at)
    consumer.close()
    counted = expected.copy()
    counted[: rate * WARM_UP_S] = False
    came = counted & (arrived_at > 0)
    return Trickled(
        rate,
        linger_ms,
        (count - 1) / (sent[-1] - sent[0]),
        elapsed_s / count,
        1000 * (arrived_at - sent)[came],
        (sent - sent[counted][0])[came],
        int((counted & ~came).sum()),
        worker_s / elapsed_s,
        sender_s / elapsed_s,
        broker_s / elapsed_s,
        reader_s / elapsed_s,
    )


def receive(
    consumer: Consumer,
    prefix: bytes,
    first: int,
    arrived_at: npt.NDArray[np.float64],
    expected: int,
    sender: "subprocess.Popen[bytes]",
) -> None:
    """Note when the score of each event arrives, until all are there or none came for long after the sender's end."""
    marker, now, poll = b'"origin":"' + prefix, time.monotonic, consumer.poll
    deadline = None
    while expected:
        message = poll(0.1)
        if message is None:
            if sender.poll() is not None:
                deadline = deadline or now() + LAST_SCORES_S
                if now() > deadline:
                    return
            continue
        value = message.value()
        start = value.index(marker) + len(marker)
        arrived_at[int(value[start : value.index(b'"', start)]) - first] = now()
        expected -= 1


def processor_s(process: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def send(servers: str, topic: str, rate: int, linger_ms: float, count: int, sent_at: str) -> None:
    """Send `count` events of standard input, each when it is due; write when each was handed over."""
    # none twice, since offsets tell which score is whose; an idempotent client takes half a core at 1 000 events/s
    settings = {"linger.ms": linger_ms, "acks": "all", "retries": 0, "partitioner": "murmur2_random"}
    producer = Producer(settings | {"bootstrap.servers": servers})
    producer.list_topics(topic)
    times = np.zeros(count)
    now, produce, sleep = time.monotonic, producer.produce, time.sleep
    started = now()
    for number, line in enumerate(sys.stdin.buffer):
        while (early := started + number / rate - now()) > 0:
            sleep(early)
        start = line.index(b'"user":"') + 8
        times[number] = now()
        key = line[start : line.index(b'"', start)]
        while True:
            try:
                produce(topic, line[:-1], key)
                break
            except BufferError:  # the brokers are behind: what is not handed over is not sent, and the rate shows it
                producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    missing = producer.flush(60)
    assert not missing, f"{missing} events were not sent"
    np.save(sent_at, times)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(usage.ru_utime + usage.ru_stime)


if __name__ == "__main__":
    send(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])

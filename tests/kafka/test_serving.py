"""Questions to two workers on a real broker: forwarded to the owner, right through a kill and a rebalance."""

import http.client
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import pytest
from thalweg.operators.machine.hashing import partition_of
from thalweg.schemas.events import Feedback, Request, encode_event
from thalweg.schemas.outputs import decode_answer, decode_ranking
from thalweg.schemas.records import LogRecord
from thalweg.streams.client import Client
from thalweg.streams.partition.partition import Partition

from tests.fold.logs import generated
from tests.kafka.fleet import records_of, wait_until
from tests.kafka.scoring import Workers

pytestmark = [
    pytest.mark.broker,
    pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning"),
]

SESSION_TIMEOUT_S = 6.0
EVERY_S = 0.02
WANTED = [f"i{number}" for number in range(20)]
TOKEN = "correct-horse-battery-staple"


class Answered(NamedTuple):
    """What came of one question: when, of whom it was asked, its status (0: no answer), and the body."""

    at: float
    address: str
    user: str
    status: int
    body: bytes


class Asking(threading.Thread):
    """Asks workers by turns, about 50 times a second in all, until it is stopped."""

    def __init__(self, addresses: list[str]) -> None:
        super().__init__(daemon=True)
        self.addresses, self.answers, self._over = addresses, list[Answered](), threading.Event()
        self._connections: dict[str, http.client.HTTPConnection] = {}

    def run(self) -> None:
        number = 0
        while not self._over.wait(EVERY_S):
            address = self.addresses[number % len(self.addresses)]
            self.answers.append(self._ask(address, f"u{number // 2 % 40}"))
            number += 1

    def _ask(self, address: str, user: str) -> Answered:
        connection = self._connections.setdefault(address, http.client.HTTPConnection(address, timeout=10))
        body = json.dumps({"user": user, "candidates": WANTED, "context": {"device": "phone"}})
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        try:
            connection.request("POST", "/rank", body, headers)
            answer = connection.getresponse()
            found = answer.read()
            if answer.status == 503:
                assert int(answer.headers["Retry-After"]) >= 1
            return Answered(time.monotonic(), address, user, answer.status, found)
        except (OSError, http.client.HTTPException):
            connection.close()
            return Answered(time.monotonic(), address, user, 0, b"")

    def stop(self) -> list[Answered]:
        self._over.set()
        self.join()
        for connection in self._connections.values():
            connection.close()
        return self.answers


def address_of(workers: Workers, number: int) -> str:
    """Return where a worker answers, once it does."""
    path = workers.folder / f"log-{number}"
    pattern = re.compile(r"questions at http://([\d.]+:\d+)/rank")
    wait_until(lambda: pattern.search(path.read_text()), f"worker {number} answers questions")
    return pattern.findall(path.read_text())[0]  # type: ignore[no-any-return]


def opened(workers: Workers, number: int) -> int:
    """Return how many partitions a worker has opened so far, closed ones too."""
    return len(re.findall(r"resumes at offset", (workers.folder / f"log-{number}").read_text()))


def verify(workers: Workers, servers: str, answers: list[Answered], partitions: int) -> int:
    """Compare the answers with a replay of each partition up to the offset they name; return how many there were."""
    right = sorted((decode_answer(each.body) for each in answers if each.status == 200), key=lambda each: each.offset)
    for number in range(partitions):
        log = [
            LogRecord(record.offset, record.value, record.key) for record in records_of(servers, workers.source, number)
        ]
        partition = Partition(workers.configuration, partition=number, partitions=partitions)
        for answer in right:
            if partition_of(answer.user.encode(), partitions) != number:
                continue
            while log and log[0].offset < answer.offset:
                due = [record for record in log if record.offset < answer.offset]
                partition.process(due)
                log = log[len(due) :]
            request = Request(answer.id, answer.user, WANTED, answer.ts, {"device": "phone"})
            [ranking] = partition.process([LogRecord(answer.offset, encode_event(request))]).rankings
            assert decode_ranking(ranking.value or b"").items == answer.items
    return len(right)


def test_a_kill_and_a_rebalance_under_questions(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """Every answer is right or 503 with Retry-After; all users are answered within the session timeout and 3 s."""
    (tmp_path / "token").write_text(TOKEN)
    settings: dict[str, Any] = {
        "WORKER__SESSION_TIMEOUT_MS": int(SESSION_TIMEOUT_S * 1000),
        "HTTP__TOKEN_FILE": tmp_path / "token",
    }
    with Workers(broker, unique, tmp_path / "workers", partitions=2, **settings) as workers:
        events = [record.value or b"" for record in generated(1_500)]
        workers.produce(events[:500])
        first = workers.start()
        addresses = [address_of(workers, 0)]
        wait_until(lambda: opened(workers, 0) == 2, "both partitions are open")
        workers.start()
        addresses.append(address_of(workers, 1))
        # the first one closes both, and opens one again
        wait_until(lambda: opened(workers, 0) == 3 and opened(workers, 1) == 1, "each worker has a partition")
        asking = Asking(addresses)
        asking.start()
        workers.produce(events[500:1_000])
        time.sleep(2)
        first.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        asking.addresses = addresses[1:]
        wait_until(lambda: opened(workers, 1) >= 3, "the survivor has both partitions")
        back_at = time.monotonic()
        workers.produce(events[1_000:])
        workers.start()
        asking.addresses = [addresses[1], address_of(workers, 2)]
        wait_until(lambda: opened(workers, 1) >= 4 and opened(workers, 2) == 1, "the new worker has a partition")
        time.sleep(3)
        answers = asking.stop()
        statuses = {each.status for each in answers if each.address != addresses[0] or each.at < killed_at}
        assert statuses <= {200, 503}
        late = [each for each in answers if killed_at < each.at < back_at + 60 and each.status == 503]
        gone_s = max((each.at for each in late if each.at < back_at + 1), default=killed_at) - killed_at
        assert gone_s < back_at - killed_at + 1.0  # as soon as the survivor has opened the partition
        # which takes longer where other programs want the processor too
        waiting = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        assert gone_s < SESSION_TIMEOUT_S + 3.0 * waiting
        before = [each for each in answers if each.at < killed_at]
        assert {each.status for each in before if each.at > before[0].at + 0.5} == {200}
        assert {(each.address, each.user) for each in before} >= {
            (address, f"u{n}") for address in addresses for n in (0, 1)
        }
        ends = [each for each in answers if each.at > answers[-1].at - 1.0]
        assert {each.status for each in ends} == {200}
        assert verify(workers, broker, answers[::3], 2) > 100


def figure(workers: Workers, name: str, **labels: str) -> float:
    """Return one figure of partition 0 that the first worker reports."""
    with urlopen(f"http://{workers.metrics_address(workers.workers[0])}/metrics", timeout=20) as told:
        text = told.read().decode()
    labels["partition"] = "0"
    named = ",".join(f'{label}="{value}"' for label, value in sorted(labels.items()))
    [found] = [line for line in text.splitlines() if line.startswith(f"{name}{{{named}}}")]
    return float(found.split()[1])


def test_a_request_is_logged_and_ranked(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """With log=true the request is a record of the input, whose ranking has the items of the answer.

    With shown as well, its first items are impressions: feedback that names the request finds them.
    """
    rankings = unique("rankings")
    with Workers(broker, unique, tmp_path / "workers", TOPICS__RANKINGS=rankings) as workers:
        workers.produce([record.value or b"" for record in generated(300)])
        workers.start()
        with Client(f"http://{address_of(workers, 0)}", deadline_s=60.0) as client:
            wait_until(lambda: client.user("u1")["offset"] >= 300, "all events are folded")
            answer = client.rank("u1", WANTED, context={"device": "phone"}, log=True)
        with urlopen(f"http://{workers.metrics_address(workers.workers[0])}/metrics", timeout=20) as told:
            assert 'thalweg_questions_total{route="/rank",status="200"} 1.0' in told.read().decode()
        assert answer.offset == 300
        wait_until(lambda: records_of(broker, rankings, 0), "the request is ranked")
        [record] = records_of(broker, rankings, 0)
        ranking = decode_ranking(record.value)
        assert (ranking.id, ranking.items) == (answer.id, answer.items)
        assert ranking.origin == f"{workers.source}-0-300"
        with Client(f"http://{address_of(workers, 0)}", deadline_s=60.0) as client:
            client.rank("u1", WANTED, log=True, shown=2, id="r2", ts=answer.ts)
        wait_until(lambda: len(records_of(broker, rankings, 0)) == 2, "what the request shows is taken")
        shown = [each.item for each in decode_ranking(records_of(broker, rankings, 0)[1].value).items[:2]]
        joined = figure(workers, "thalweg_events_total", fate="joined")
        named: dict[str, Any] = {"request": "r2", "user": "u1", "ts": answer.ts + 900, "action": "click"}
        workers.produce([encode_event(Feedback(id=f"{item}:click", item=item, **named)) for item in shown])
        wait_until(
            lambda: figure(workers, "thalweg_events_total", fate="joined") == joined + 2,
            "feedback finds what was shown",
        )
        assert figure(workers, "thalweg_shown_candidates_total", how="taken") == 2

"""Questions over HTTP while events stream through the same worker: how late answers are, and scores beside them.

    python -m benchmarks.http [--events 2000] [--seconds N] [--cases 1000x50,100x300]

A broker, a worker at the default configuration with one partition, a sender of events, and a process that asks: each
question is sent when it is due, and its answer's lateness counts from then on. A case is candidates x questions a
second. The first line is the stream without questions. The first 3 seconds of a case are not counted.

    python -m benchmarks.http ask ADDRESS CANDIDATES RATE SECONDS OUT

is the process that asks, over eight connections.
"""

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

CONNECTIONS = 8
ITEMS, USERS = 200, 500
WARM_UP_S = 3
STARTED_S = 20.0
COLUMNS = ("candidates", "questions/s", "answered", "503", "p50", "p99", "worst", "score p50", "score p99", "worker")


def ask(address: str, candidates: int, rate: int, seconds: int, out: str) -> None:
    """Ask at a rate over some connections, and write lateness in ms and status of each question."""
    count = rate * seconds
    found = np.zeros((count, 2))
    started = time.monotonic() + 0.2
    threads = [
        threading.Thread(target=_ask_some, args=(address, candidates, rate, first, started, found))
        for first in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.save(out, found[rate * WARM_UP_S :])


def _ask_some(
    address: str, candidates: int, rate: int, first: int, started: float, found: npt.NDArray[np.float64]
) -> None:
    host, _, port = address.partition(":")
    chance = random.Random(first)
    bodies = [_request(address, candidates, chance) for _ in range(50)]
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(first, len(found), CONNECTIONS):
            due = started + number / rate
            while (early := due - time.monotonic()) > 0:
                time.sleep(early)
            connection.sendall(bodies[number % len(bodies)])
            status = _answered(connection)
            found[number] = 1000 * (time.monotonic() - due), status


def _request(address: str, candidates: int, chance: random.Random) -> bytes:
    # more candidates than the log has items: the others are new to the state
    items = [f"v{number}" for number in chance.sample(range(max(ITEMS, candidates)), candidates)]
    body = {"user": f"u{chance.randrange(USERS)}", "candidates": items, "context": {"device": "phone", "kind": "k1"}}
    raw = json.dumps(body, separators=(",", ":")).encode()
    fields = (f"Host: {address}", "Content-Type: application/json", f"Content-Length: {len(raw)}")
    return "\r\n".join(("POST /rank HTTP/1.1", *fields, "", "")).encode() + raw


def _answered(connection: socket.socket) -> int:
    received = connection.recv(1 << 16)
    while b"\r\n\r\n" not in received:
        received += connection.recv(1 << 16)
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    assert length is not None
    left = int(length[1]) - len(body)
    while left > 0:
        left -= len(connection.recv(1 << 16))
    return int(head[9:12])


def address_of(told: Callable[[], str]) -> str:
    """Return where a worker answers."""
    found = re.search(r"questions at http://([\d.]+:\d+)/rank", told())
    assert found, told()
    return found[1]


def main() -> None:
    """Measure each case, and the stream alone before."""
    from benchmarks.trickle import measure
    from benchmarks.worker import made_topics, until_open, worker
    from examples.live.events import events
    from tests.kafka.broker import Broker

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000, help="events a second")
    parser.add_argument("--seconds", type=int, default=30, help="how long each case is measured")
    parser.add_argument("--cases", default="1000x50,100x300", help="candidates x questions a second")
    options = parser.parse_args()
    cases = [(0, 0), *(tuple(map(int, case.split("x"))) for case in options.cases.split(",") if case)]
    table = Table(*COLUMNS, title=f"ms, while {options.events:,} events a second stream")
    with Broker(memory="512m") as broker, tempfile.TemporaryDirectory() as folder:
        topics = made_topics(broker.bootstrap_servers, "http", 1)
        lines = events(2 * len(cases) * options.events * (options.seconds + WARM_UP_S))
        with worker(broker.bootstrap_servers, topics) as (process, told):
            until_open(told)
            for candidates, rate in cases:
                out = Path(folder) / "asked.npy"
                asking = None
                if rate:
                    words = ["ask", address_of(told), candidates, rate, options.seconds + WARM_UP_S, out]
                    asking = subprocess.Popen([sys.executable, "-m", "benchmarks.http", *map(str, words)])
                names, processes = (topics.interactions, topics.scores), (process.pid, broker.pid)
                late = measure(broker.bootstrap_servers, names, processes, lines, options.events, options.seconds)
                cells = ["-"] * 6
                if asking is not None:
                    assert asking.wait(STARTED_S) == 0
                    found = np.load(out)
                    right = found[found[:, 1] == 200, 0]
                    cells = [str(candidates), str(rate), str(len(right)), str(int((found[:, 1] == 503).sum()))]
                    cells += [f"{np.percentile(right, p):.1f}" for p in (50, 99, 100)]
                else:
                    cells += ["-"]
                table.add_row(
                    *cells, f"{late.percentile(50):.1f}", f"{late.percentile(99):.1f}", f"{late.worker_cores:.0%}"
                )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        ask(sys.argv[2], *map(int, sys.argv[3:6]), sys.argv[6])
    else:
        main()

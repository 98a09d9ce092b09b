"""Ctrl-C while a command loads, asks or compiles ends it with one line, sent to the whole group as a terminal does."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
WORKERS = {
    "thalweg worker": [str(BIN / "thalweg"), "worker"],
    "faust worker": [str(BIN / "faust"), "-A", "thalweg.streams.app", "worker"],
}


def started(command: list[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def interrupted(process: "subprocess.Popen[str]") -> list[str]:
    """Interrupt all of it, and return what it wrote from then on."""
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode in (1, 130)
    return [line for line in rest.splitlines() if line]


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_that_looks_for_its_brokers_ends_with_one_line(name: str) -> None:
    """The brokers have taken the connection and do not answer: the worker has loaded, and joined no group."""
    with socket.create_server(("127.0.0.1", 0)) as broker:
        broker.settimeout(60)
        servers = f"127.0.0.1:{broker.getsockname()[1]}"
        process = started(WORKERS[name], THALWEG_KAFKA__BOOTSTRAP_SERVERS=servers, THALWEG_METRICS__PORT="0")
        connection, _ = broker.accept()
        with connection:
            [line] = interrupted(process)
    assert line in ("Aborted!", "Error: interrupted before the group was joined")


@pytest.mark.large
def test_compiling_ends_with_one_line(tmp_path: Path) -> None:
    """The compiler is cut off in the middle, and what it leaves half made complains of nothing."""
    process = started([str(BIN / "thalweg"), "warm-up"], THALWEG_CACHE=str(tmp_path))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Compiling the fold")
    [line] = interrupted(process)
    assert line == "Aborted!"

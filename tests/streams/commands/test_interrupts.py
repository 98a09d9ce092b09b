"""Ctrl-C while a command loads, asks or compiles ends it with one line, sent to the whole group as a terminal does."""

import io
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from rich.console import Console
from thalweg.streams.interrupts import interrupt_quietly
from thalweg.streams.partition.partition import Partition
from thalweg.streams.partition.readiness import make_ready

from tests.streams.logs_for_tests import small

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
        process = started(
            WORKERS[name], THALWEG_KAFKA__BOOTSTRAP_SERVERS=servers, THALWEG_METRICS__PORT="0", THALWEG_HTTP__PORT="0"
        )
        connection, _ = broker.accept()
        with connection:
            lines = interrupted(process)
    [line] = [line for line in lines if "questions at http" not in line]  # written before
    assert line in ("Aborted!", "Error: interrupted before the group was joined")


@pytest.mark.parametrize("is_noticed", [True, False])
def test_an_interrupt_that_the_compiler_drops_still_ends_it(monkeypatch: pytest.MonkeyPatch, is_noticed: bool) -> None:
    """LLVM drops exceptions of Python's where it calls it: then something else fails, or nothing at all."""

    def warm_up(self: Partition) -> float:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if is_noticed:
            raise RuntimeError("no compiled object yet")
        return 0.5

    monkeypatch.setattr(Partition, "warm_up", warm_up)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupt_quietly()
        with pytest.raises(KeyboardInterrupt):
            make_ready(Partition(small()), Console(file=io.StringIO()))
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.large
def test_compiling_ends_with_one_line(tmp_path: Path) -> None:
    """The compiler is cut off in the middle, and what it leaves half made complains of nothing."""
    process = started([str(BIN / "thalweg"), "warm-up"], THALWEG_CACHE=str(tmp_path))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Compiling the fold")
    [line] = interrupted(process)
    assert line == "Aborted!"

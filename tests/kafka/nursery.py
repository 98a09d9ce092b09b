"""Workers are forked from a process that has imported all they need, and has the machine code: a start costs little.

    nursery = Nursery()
    worker = nursery.start("thalweg", ["worker"], os.environ, log)   # a `Forked`, which reads like a `Popen`

What a worker reads of its environment it reads after the fork, but what Python itself reads. Some tests start workers
as users do: those that say "started" or "faust", the commands of README and tutorials, and `make live`.
"""

import atexit
import gc
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

Job = dict[str, Any]
LOOK_EVERY_S = 0.2  # others may start or wait for a worker in between


class Forked:
    """A process that the nursery forked: what tests use of `subprocess.Popen`."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery, self.pid = nursery, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._nursery.status_of(self.pid, 0.0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = self._nursery.status_of(self.pid, timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(f"forked worker {self.pid}", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Worker = subprocess.Popen[bytes] | Forked


class Nursery:
    """The process that forks workers, and what it reports of those that have ended."""

    def __init__(self) -> None:
        """Start it; it ends with this process."""
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.kafka.nursery", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self._socket, self._unread, self._lock = ours, b"", threading.Lock()
        self._begun: list[int] = []
        self._ended: dict[int, int] = {}
        atexit.register(self.close)

    def close(self) -> None:
        """End it; the workers that it forked go on."""
        self._socket.close()
        self._process.wait()

    def start(self, program: str, arguments: list[str], environ: Mapping[str, str], log: Path) -> Forked:
        """Fork a process that runs a program of `PROGRAMS` and writes what it prints to `log`."""
        job = {
            "program": program,
            "arguments": arguments,
            "environ": dict(environ),
            "log": str(log),
            "folder": str(Path.cwd()),
        }
        log.touch()
        with self._lock:
            self._socket.sendall(json.dumps(job).encode() + b"\n")
            while not self._begun:
                self._read(None)
            return Forked(self, self._begun.pop())

    def status_of(self, pid: int, timeout: float | None) -> int | None:
        """Return how a process ended, as `Popen` has it; None if it did not within so many seconds."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            left = max(0.0, deadline - time.monotonic())
            with self._lock:
                self._read(min(left, LOOK_EVERY_S))
                if pid in self._ended or left == 0.0:
                    return self._ended.get(pid)

    def _read(self, timeout: float | None) -> bool:
        """Take what the process reports, and return whether it did within so many seconds."""
        if not select.select([self._socket], [], [], timeout)[0]:
            return False
        received = self._socket.recv(1 << 16)
        assert received, f"the nursery has ended: {self._process.wait()}"
        *lines, self._unread = (self._unread + received).split(b"\n")
        for line in lines:
            pid, status = json.loads(line)
            if status is None:
                self._begun.append(pid)
            else:
                self._ended[pid] = status
        return True


@cache
def nursery() -> Nursery:
    """Return this process's nursery."""
    return Nursery()


def thalweg() -> None:
    from thalweg.streams.commands import main

    main()


def faust() -> None:
    from faust.cli.faust import cli

    cli()


PROGRAMS: dict[str, Callable[[], None]] = {"thalweg": thalweg, "faust": faust}


class Ends(NamedTuple):
    """What the forking process listens to: its tests, and signals of children that have ended."""

    control: socket.socket
    wakeups: socket.socket


def preload() -> None:
    """Import what workers import, and load the machine code."""
    from thalweg.operators.configuration import Configuration
    from thalweg.streams.partition.partition import Partition

    Partition(Configuration()).warm_up()
    gc.collect()
    gc.freeze()


def await_job(ends: Ends) -> Job:
    """Fork a process for each job, report those that have ended, and return in the forks alone."""
    unread = b""
    while True:
        ready, _, _ = select.select(ends, [], [])
        if ends.wakeups in ready:
            ends.wakeups.recv(1 << 10)
            report_ended(ends.control)
        if ends.control not in ready:
            continue
        received = ends.control.recv(1 << 20)
        if not received:
            raise SystemExit(0)
        *lines, unread = (unread + received).split(b"\n")
        for line in lines:
            pid = os.fork()
            if pid == 0:
                return json.loads(line)  # type: ignore[no-any-return]
            ends.control.sendall(json.dumps([pid, None]).encode() + b"\n")


def report_ended(control: socket.socket) -> None:
    """Report each child that has ended, and how."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        control.sendall(json.dumps([pid, os.waitstatus_to_exitcode(status)]).encode() + b"\n")


def become(job: Job) -> None:
    """Have a fork look like a process that was started for its job."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environ"])
    sys.argv = [job["program"], *job["arguments"]]


def main() -> None:
    """Fork workers until the tests have ended; in a fork, be the worker."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    wakeups, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    preload()
    job = await_job(Ends(control, wakeups))
    for each in (control, wakeups, woken):
        each.close()
    become(job)
    PROGRAMS[job["program"]]()


if __name__ == "__main__":
    main()

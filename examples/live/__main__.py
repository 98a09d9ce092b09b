"""Thalweg on a real Kafka, for a first look: a broker, the topics, a log produced at 2 000 events a second, a worker,
and its scores as they come. Ctrl-C ends it all in order, checkpoint included.

    python -m examples.live [LOG] [--rate N] [--seconds N]

Needs Java and Maven for the broker (the first run fetches Apache Kafka's jars), or a broker of your own:
    THALWEG_TEST_BOOTSTRAP=host:9092 python -m examples.live
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

from examples.live.events import events
from tests.kafka.broker import BrokerUnavailableError, bootstrap_servers

THALWEG = [sys.executable, "-c", "from thalweg.streams.commands import main; main()"]
END_TIMEOUT_S = 60


def main() -> int:
    """Run until Ctrl-C or for `--seconds`; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.live", description=__doc__)
    parser.add_argument("log", nargs="?", help="log file to produce; by default a made-up one of 1 000 000 events")
    parser.add_argument("--rate", default="2000", help="events a second")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        try:
            say("starting a broker (the first time this fetches Apache Kafka) …")
            servers = stack.enter_context(bootstrap_servers())
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="thalweg-live-")))
            return live(servers, folder, options)
        except BrokerUnavailableError as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            return 0


def live(servers: str, folder: Path, options: argparse.Namespace) -> int:
    """Create topics, produce, score and show, until something ends or we are told to."""
    environment = os.environ | {
        "THALWEG_KAFKA__BOOTSTRAP_SERVERS": servers,
        "THALWEG_CHECKPOINT__DIRECTORY": str(folder / "checkpoints"),
    }
    if subprocess.run([*THALWEG, "topics", "create"], env=environment, check=False).returncode:
        return 1
    log = options.log or made_up(folder / "events.jsonl")
    say("scores follow; the very first worker compiles the fold before, which takes up to a minute …")
    with (folder / "worker.log").open("w+b") as told:
        started: list[tuple[str, subprocess.Popen[bytes]]] = []
        try:
            for name, arguments, output in (
                ("worker", ["worker"], told),
                ("producer", ["produce", log, "--rate", options.rate], None),
                ("scores", ["consume", "--follow"], None),
            ):
                started.append((name, start(arguments, environment, output)))
            return watch(dict(started), options.seconds, told)
        except KeyboardInterrupt:
            return 0
        finally:
            end(started)


def start(arguments: list[str], environment: dict[str, str], output: IO[bytes] | None) -> subprocess.Popen[bytes]:
    """Start one of our commands where Ctrl-C does not reach it, so that it can be ended in its turn."""
    command = [*THALWEG, *arguments]
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def watch(running: dict[str, subprocess.Popen[bytes]], seconds: float, told: IO[bytes]) -> int:
    """Wait for the time to pass; return 1 if the worker or the reader ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for name in ("worker", "scores"):
            if running[name].poll() is not None:
                told.seek(0)
                say(f"the {name} ended by itself; the worker said:\n{told.read().decode(errors='replace')[-3000:]}")
                return 1
        time.sleep(0.2)
    return 0


def end(started: list[tuple[str, subprocess.Popen[bytes]]]) -> None:
    """End the producer, then the worker, which checkpoints, then what shows its scores."""
    order = {"producer": signal.SIGTERM, "worker": signal.SIGTERM, "scores": signal.SIGINT}
    for name, process in sorted(started, key=lambda each: list(order).index(each[0])):
        if process.poll() is None:
            say(f"ending the {name} …")
            process.send_signal(order[name])
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            say(f"the {name} does not end; killing it")
            process.kill()
            process.wait()


def made_up(path: Path) -> str:
    """Write a log of a million made-up events and return its path."""
    with path.open("wb") as log:
        log.writelines(events(1_000_000))
    return str(path)


def say(text: str) -> None:
    """Tell the user, beside the scores."""
    sys.stderr.write(f"live: {text}\n")


if __name__ == "__main__":
    raise SystemExit(main())

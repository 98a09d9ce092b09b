"""Thalweg on a real Kafka, for a first look: a broker, the topics, a log produced at 2 000 events a second, a worker,
and a table of how it goes, with its last scores. Ctrl-C ends it all in order, checkpoint included.

    python -m examples.live [LOG] [--rate N] [--seconds N]

Where the output is no terminal a line comes every 5 s. Needs Java and Maven for the broker (the first run fetches
Apache Kafka's jars), or a broker of your own:
    THALWEG_TEST_BOOTSTRAP=host:9092 python -m examples.live
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

THALWEG = [sys.executable, "-c", "from thalweg.streams.commands import main; main()"]
END_TIMEOUT_S = 30
REDRAWN_PER_S = 2
LINE_EVERY_S = 5.0


def main() -> int:
    """Run until Ctrl-C or for `--seconds`; return the exit status."""
    ending_signals()
    try:
        from tests.kafka.broker import BrokerUnavailableError, bootstrap_servers

        parser = argparse.ArgumentParser(prog="python -m examples.live", description=__doc__)
        parser.add_argument("log", nargs="?", help="log file to produce; by default a made-up one of 1 000 000 events")
        parser.add_argument("--rate", default="2000", help="events a second")
        parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
        options = parser.parse_args()
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
        say("interrupted")
        return 0


def ending_signals() -> None:
    """Have SIGTERM, and SIGHUP unless `nohup` has it ignored, end this as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def live(servers: str, folder: Path, options: argparse.Namespace) -> int:
    """Create topics, produce, score and show, until something ends or we are told to."""
    from examples.live.figures import Figures
    from tests.kafka.broker import free_ports

    address = f"127.0.0.1:{free_ports(1)[0]}"
    environment = {"THALWEG_CHECKPOINT__DIRECTORY": str(folder / "checkpoints")} | os.environ
    environment["THALWEG_KAFKA__BOOTSTRAP_SERVERS"] = servers
    environment["THALWEG_METRICS__PORT"] = address.split(":")[1]
    environment["THALWEG_HTTP__PORT"] = "0"
    if run([*THALWEG, "topics", "create"], environment):
        return 1
    with (folder / "worker.log").open("w+b") as told:
        started: list[tuple[str, subprocess.Popen[bytes]]] = []
        try:
            started.append(("worker", start(["worker"], environment, told)))
            log = [options.log or "-", "--rate", options.rate]
            started.append(("producer", start(["produce", *log], environment, told, stdin=subprocess.PIPE)))
            if not options.log:
                threading.Thread(target=make_up, args=(started[-1][1].stdin,), name="events", daemon=True).start()
            figures = Figures(servers)
            follow(environment, figures)
            return watch(dict(started), figures, address, options.seconds, told)
        except KeyboardInterrupt:
            return 0
        finally:
            # once is enough: a second Ctrl-C must not leave anything behind
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            end(started)


def run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end where Ctrl-C does not reach it, and return its status."""
    return subprocess.run(command, env=environment, check=False, start_new_session=True).returncode


def start(
    arguments: list[str], environment: dict[str, str], output: IO[bytes], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start one of our commands where Ctrl-C does not reach it, so that it can be ended in its turn."""
    command = [*THALWEG, *arguments]
    return subprocess.Popen(command, env=environment, stdin=stdin, stdout=output, stderr=output, start_new_session=True)


def follow(environment: dict[str, str], figures: Any) -> None:
    """Read scores and examples into the figures, in threads that end with this process."""
    import logging

    from thalweg.streams.configuration.loading import load
    from thalweg.streams.kafka.consume import consume
    from thalweg.streams.refusal import Refusal

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # the table is what is to be seen
    loaded = load(None, environment=environment, flags=())

    def read(topic: str, add: Callable[[bytes], None]) -> None:
        with contextlib.suppress(Refusal, RuntimeError):  # the brokers end before us
            for record in consume(loaded.kafka, topic, follow=True):
                add(record.value or b"")

    for topic, add in ((loaded.topics.scores, figures.add_score), (loaded.topics.examples, figures.add_example)):
        threading.Thread(target=read, args=(topic, add), name=topic, daemon=True).start()


def watch(
    running: dict[str, subprocess.Popen[bytes]], figures: Any, address: str, seconds: float, told: IO[bytes]
) -> int:
    """Show the figures until the time is over; return 1 if the worker ends before."""
    deadline = time.monotonic() + seconds
    with shown(figures) as show:
        while time.monotonic() < deadline:
            if running["worker"].poll() is not None:
                break
            figures.ask(address)
            if not figures.events:
                figures.status = last_line(Path(told.name))
            show()
            time.sleep(1 / REDRAWN_PER_S)
        else:
            return 0
    say(f"the worker ended by itself; it said:\n{Path(told.name).read_text(errors='replace')[-3000:]}")
    return 1


@contextlib.contextmanager
def shown(figures: Any) -> Iterator[Callable[[], None]]:
    """Give what shows the figures: a table that is redrawn on a terminal, else a line every few seconds."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if not console.is_terminal:
        last_at = -LINE_EVERY_S

        def show() -> None:
            nonlocal last_at
            if time.monotonic() - last_at >= LINE_EVERY_S:
                last_at = time.monotonic()
                print(figures.line(), flush=True)

        yield show
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as table:
        yield lambda: table.update(figures.draw(), refresh=True)


def last_line(path: Path) -> str:
    """Return what the worker said last, in brief, while it starts."""
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.startswith("thalweg worker: ")]
    return lines[-1].removeprefix("thalweg worker: ") if lines else "starting"


def end(started: list[tuple[str, subprocess.Popen[bytes]]]) -> None:
    """End the producer, then the worker, which checkpoints."""
    for name, process in reversed(started):
        if process.poll() is None:
            say(f"ending the {name} …")
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            say(f"the {name} does not end; killing it")
            process.kill()
            process.wait()


def make_up(producer: IO[bytes]) -> None:
    """Write a made-up log to the producer, as fast as it takes it."""
    from examples.live.events import events

    with contextlib.suppress(BrokenPipeError), producer:
        producer.writelines(events(1_000_000))


def say(text: str) -> None:
    """Tell the user, beside the table."""
    sys.stderr.write(f"live: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())

"""What `make live` shows a newcomer, and how it ends."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from rich.console import Console
from thalweg.streams.checkpoints.format import read

from examples.live.events import events
from examples.live.figures import Figures
from tests.kafka.broker import BOOTSTRAP_VARIABLE
from tests.kafka.fleet import wait_until
from tests.kafka.scoring import SMALL

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.live", "--rate", "2000"]
ENDINGS = ["live: ending the producer …", "live: ending the worker …"]
LIMIT_S = 10


def environment(folder: Path, **settings: str) -> dict[str, str]:
    given = SMALL | {"CHECKPOINT__DIRECTORY": str(folder / "checkpoints")} | settings
    kept = {name: value for name, value in os.environ.items() if name != BOOTSTRAP_VARIABLE}
    return kept | {f"THALWEG_{name}": text for name, text in given.items()}


def assert_ended_whole(folder: Path, told: str, scored: int) -> None:
    """All was ended in order, without a word too many, and the newest checkpoint is whole and holds what was shown."""
    assert re.findall(r"live: ending.*…", told) == ENDINGS
    assert "Traceback" not in told
    assert "killing" not in told
    newest = max((folder / "checkpoints").rglob("*.checkpoint"))
    assert read(newest).header.next_offset > scored


class Terminal:
    """A process that has a terminal of 80 columns to itself, as the foreground process group."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environ | {"TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._shown = bytearray()
        self._reading = threading.Thread(target=self._read, name="terminal", daemon=True)
        self._reading.start()

    @property
    def shown(self) -> str:
        """All that was written, without what colours it and moves the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self._shown.decode(errors="replace"))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join(10)
        os.close(self._ours)

    def _read(self) -> None:
        try:
            while some := os.read(self._ours, 65_536):
                self._shown += some
        except OSError:
            return  # the other side is closed


@pytest.mark.broker
def test_live_on_a_terminal_ends_on_ctrl_c(compiled_fold: None, tmp_path: Path) -> None:
    """With a broker of its own and on a terminal: a table is redrawn, and Ctrl-C ends all of it within 10 s."""
    terminal = Terminal(COMMAND, environment(tmp_path))
    try:

        def scored() -> int:
            assert terminal.process.poll() is None, terminal.shown[-3000:]
            return max(
                (int(text.replace(",", "")) for text in re.findall(r"scored +([\d,]+)", terminal.shown)), default=0
            )

        wait_until(lambda: scored() > 2_000, "scores are shown", 150)
        before = scored()
        terminal.type(b"\x03")
        started = time.monotonic()
        assert terminal.process.wait(60) == 0, terminal.shown[-3000:]
        assert time.monotonic() - started < LIMIT_S
        assert_ended_whole(tmp_path, terminal.shown, before)
        assert terminal.shown.count("last scores") > 3
        assert '{"id"' not in terminal.shown
    finally:
        terminal.close()


@pytest.mark.broker
def test_live_under_nohup_ends_on_sigterm(broker: str, unique: Callable[[str], str], tmp_path: Path) -> None:
    """In the background, where Ctrl-C and hanging up are ignored, SIGTERM ends it; a line comes now and then."""
    names = ("interactions", "scores", "examples", "dead_letters", "rankings", "lessons")
    topics = {f"TOPICS__{name.upper()}": unique(name) for name in names}
    environ = environment(tmp_path, **topics, WORKER__GROUP=unique("g")) | {BOOTSTRAP_VARIABLE: broker}
    output = tmp_path / "nohup.out"
    with output.open("wb") as out:
        ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN), "start_new_session": True}
        live = subprocess.Popen(["nohup", *COMMAND], cwd=ROOT, env=environ, stdout=out, stderr=out, **ignoring)  # type: ignore[call-overload]
    try:

        def scored() -> int:
            assert live.poll() is None, output.read_text()
            return max(
                (int(text.replace(",", "")) for text in re.findall(r"scored ([\d,]+),", output.read_text())), default=0
            )

        wait_until(lambda: scored() > 2_000, "scores are told", 150)
        for number in (signal.SIGINT, signal.SIGHUP):
            os.killpg(live.pid, number)
        time.sleep(1)
        before = scored()
        live.terminate()
        started = time.monotonic()
        assert live.wait(60) == 0, output.read_text()
        assert time.monotonic() - started < LIMIT_S
        assert_ended_whole(tmp_path, output.read_text(), before)
    finally:
        live.kill()


def test_the_table_fits_a_terminal() -> None:
    """All figures, with their values, on 80 columns and 24 rows; what is not known yet is said to be so."""
    figures = Figures("127.0.0.1:9092")
    assert ("lag", "unknown") in list(figures._values())
    assert "mean score not yet" in figures.line()
    for number in range(6_000):
        label = number % 4 == 0
        score = {
            "user": f"u{number}",
            "item": "v1",
            "score": 0.75 if label else 0.25,
            "origin": f"interactions-0-{number}",
        }
        figures.add_score(json.dumps(score).encode())
        figures.add_example(json.dumps({"score": score["score"], "label": int(label)}).encode())
    figures.events, figures.lag, figures.status = 6_000, 1_234, "running"
    console = Console(width=80, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115
    console.print(figures.draw())
    shown = console.export_text()
    console.file.close()
    assert len(shown.splitlines()) <= 23
    for name, value in (
        ("lag", "1,234"),
        ("scored", "6,000"),
        ("positives", r"1,500 of 6,000 \(25.0%\)"),
        ("mean score", "0.3750"),
        ("AUC", "1.0000"),
    ):
        assert re.search(f"^{name} +{value}", shown, re.MULTILINE), shown
    assert re.search(r"u5999 +v1 +0.2500 +5999", shown)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_of_the_table_is_wrapped(columns: int) -> None:
    """While the worker starts, which is said at length, and with ids longer than the terminal is wide."""
    figures = Figures("127.0.0.1:9092,127.0.0.1:9093")
    with Path(os.devnull).open("w") as nowhere:
        console = Console(width=columns, record=True, file=nowhere)
        figures.status = "ready after 2.4 s; joining group 'a-group-with-a-long-name-for-a-table'"
        console.print(figures.draw())
        starting = console.export_text().splitlines()
        figures.add_score(json.dumps({"user": "u" * 90, "item": "v" * 90, "score": 0.5, "origin": "in-0-7"}).encode())
        console.print(figures.draw())
        running = console.export_text().splitlines()
    assert [len(starting), len(running)] == [12, 13]
    assert all(len(line) <= columns for line in (*starting, *running))


def test_the_made_up_log_is_the_same_for_the_same_seed() -> None:
    """Whoever talks about what they saw must have seen the same."""
    assert list(events(1000)) == list(events(1000))
    assert list(events(1000)) != list(events(1000, seed=1))

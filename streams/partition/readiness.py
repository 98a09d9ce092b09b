"""Making a partition ready: its code is compiled or loaded, and what takes long is seen to move."""

import threading
import time

from rich.console import Console
from thalweg.operators.machine.progress import Progress
from thalweg.operators.machine.refusal import CacheError
from thalweg.streams.interrupts import Interrupts
from thalweg.streams.partition.partition import Partition
from thalweg.streams.refusal import Refusal

SILENT_S = 1.5
REDRAWN_S = 0.25
REPEATED_S = 10.0
COMPILING = (
    "Compiling the fold, once for this version and processor: 40 to 60 seconds of processor time, which is a minute or "
    "two on a busy machine. Later runs load it within 3 seconds; `thalweg warm-up` does it beforehand."
)


def make_ready(partition: Partition, console: Console) -> float:
    """Compile a partition's code or load it, report on it where that takes long, and return the seconds it took.

    Raises Refusal where the cache of compiled code must not be trusted.
    """
    done = threading.Event()
    reporter = threading.Thread(target=_report, args=(console, done), daemon=True)
    reporter.start()
    interrupts = Interrupts.count
    try:
        seconds = partition.warm_up()
    except CacheError as error:
        raise Refusal(str(error)) from None
    except Exception:
        # LLVM drops the exception of Ctrl-C where it calls Python, and misses what that call should have made
        if Interrupts.count > interrupts:
            raise KeyboardInterrupt from None
        raise
    finally:
        done.set()
        reporter.join()
    if Interrupts.count > interrupts:
        raise KeyboardInterrupt
    return seconds


def _report(console: Console, done: threading.Event) -> None:
    """Print what is compiled until it is done: a line that is redrawn on a terminal, some lines elsewhere."""
    started = time.monotonic()
    before = Progress.functions
    while Progress.functions == before or time.monotonic() < started + SILENT_S:
        if done.wait(REDRAWN_S):
            return
    console.print(COMPILING, soft_wrap=True, highlight=False)

    def progress() -> str:
        return f"{time.monotonic() - started:.0f} s, {Progress.functions - before} functions so far"

    if console.is_terminal:
        with console.status(progress()) as status:
            while not done.wait(REDRAWN_S):
                status.update(progress())
    else:
        while not done.wait(REPEATED_S):
            console.print(progress(), highlight=False)

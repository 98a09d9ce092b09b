"""Ctrl-C while code loads or compiles: one line, and no complaints of objects that were half made."""

import signal
import sys
from types import FrameType
from typing import NoReturn


class Interrupts:
    """How many times Ctrl-C was pressed since `interrupt_quietly`; whatever was cut off may have lost the exception."""

    count = 0


def interrupt_quietly() -> None:
    """Have Ctrl-C end the program without what half-made objects complain of; nothing where it is ignored or taken."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    Interrupts.count += 1
    # a compiler that is cut off leaves objects whose destructors fail
    sys.unraisablehook = lambda failure: None
    raise KeyboardInterrupt

"""Whose turn it is at a partition's state: the fold's, or a question's between two events.

The fold keeps its turn from one event to the next while no question waits. A question raises a flag, which the compiled
loop looks at before each event. Questions go first, and take at most a share of the time.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

WINDOW_S = 0.5
"""Over so long the share of questions is counted; no question is held against the next ones for more than that."""
ASKED, HALTED = 0, 1


class BusyError(Exception):
    """A question can't be answered now."""

    def __init__(self, message: str, retry_after_s: float, *, is_waiting: bool = False) -> None:
        """Give the reason, and after how long to ask again; `is_waiting`: it only has not waited for long enough."""
        super().__init__(message)
        self.message = message
        self.retry_after_s = retry_after_s
        self.is_waiting = is_waiting


class Turns:
    """Turns at a state."""

    def __init__(self) -> None:
        """Start with the turn free."""
        self.share_max = 1.0
        """Share of the time that questions may take."""
        self.halt: npt.NDArray[np.int64] = np.zeros(2, np.int64)
        """Of the fold's scratch: whether the fold is asked to stop, and whether it stopped for that."""
        self._changed = threading.Condition()
        self._is_taken = False
        self._asking = 0
        self._spent_s = 0.0
        self._counted_at = time.monotonic()

    @property
    def is_halted(self) -> bool:
        """Whether the fold stopped at the end of an event, because a question waits."""
        return bool(self.halt[HALTED])

    def take(self) -> None:
        """Take the fold's turn, once all who ask have had theirs."""
        with self._changed:
            while self._is_taken or self._asking:
                self._changed.wait()
            self._is_taken = True
            self.halt[HALTED] = 0

    def give(self) -> None:
        """Give the turn up: the state is between two events."""
        with self._changed:
            self._is_taken = False
            self._changed.notify_all()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the fold's turn for a while."""
        self.take()
        try:
            yield
        finally:
            self.give()

    @contextmanager
    def asked(self, timeout_s: float) -> Iterator[None]:
        """Have a question's turn, between two events of the fold.

        Raises BusyError where questions had their share of the time, or the turn does not come in time.
        """
        self._ask(timeout_s)
        started = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._spent_s = min(self._spent_s + time.monotonic() - started, WINDOW_S)
                self._changed.notify_all()

    def _ask(self, timeout_s: float) -> None:
        with self._changed:
            self._refuse_more_than_the_share()
            self._asking += 1
            self.halt[ASKED] = 1
            try:
                if not self._changed.wait_for(lambda: not self._is_taken, timeout_s):
                    raise BusyError("the partition is busy", 1.0, is_waiting=True)
                self._is_taken = True
            finally:
                self._asking -= 1
                self.halt[ASKED] = int(self._asking > 0)
                self._changed.notify_all()

    def _refuse_more_than_the_share(self) -> None:
        if self.share_max >= 1.0:
            return
        now = time.monotonic()
        self._spent_s = max(0.0, self._spent_s - (now - self._counted_at) * self.share_max)
        self._counted_at = now
        over_s = self._spent_s - WINDOW_S * self.share_max
        if over_s > 0.0:
            raise BusyError("questions take their share of the fold's time already", over_s / self.share_max)

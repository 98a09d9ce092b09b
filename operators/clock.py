"""Stream time: the largest event time seen so far, and what keeps one broken clock from moving it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled

SUSPECTS = 2  # with the record at hand, three that agree
EXAMPLES, DEAD_LETTERS = range(2)


class Clock(NamedTuple):
    """Where the partition stands in its log and in time.

    `stream_time_ms` int64 [1], 0 before the first event; `arrivals` int64 [1], events so far; `offset` int64 [1], of
    the event at hand; `ordinals` int64 [2], examples and dead letters that it caused so far; `suspects` int64 [1], how
    many too-far records came in a row, and `suspect_users` uint64 [2], `suspect_ts_ms` int64 [2], whose and when.
    """

    stream_time_ms: npt.NDArray[np.int64]
    arrivals: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    ordinals: npt.NDArray[np.int64]
    suspects: npt.NDArray[np.int64]
    suspect_users: npt.NDArray[np.uint64]
    suspect_ts_ms: npt.NDArray[np.int64]


def new_clock() -> Clock:
    """Return a clock before the first event."""
    return Clock(
        np.zeros(1, np.int64),
        np.zeros(1, np.int64),
        np.full(1, -1, np.int64),
        np.zeros(2, np.int64),
        np.zeros(1, np.int64),
        np.zeros(SUSPECTS, np.uint64),
        np.zeros(SUSPECTS, np.int64),
    )


@compiled
def _forget_suspects(clock: Clock) -> None:
    """Start over; whose records they were is forgotten too, so that an erase leaves nothing of its user."""
    if clock.suspects[0] != 0:
        clock.suspects[0] = 0
        clear(clock.suspect_users)
        clear(clock.suspect_ts_ms)


@compiled
def accept_time(clock: Clock, time_jump_ms: int, ts_ms: int, user: int) -> bool:
    """Advance stream time to an event's, or return False where that is too far ahead.

    Three such records in a row, of different users and within `time_jump_ms` of each other, are believed: the partition
    may have been idle.
    """
    now_ms = clock.stream_time_ms[0]
    if now_ms == 0 or ts_ms <= now_ms + time_jump_ms:
        _forget_suspects(clock)
        clock.stream_time_ms[0] = max(now_ms, ts_ms)
        return True
    count = clock.suspects[0]
    earliest = ts_ms
    latest = ts_ms
    is_new_user = True
    for i in range(count):
        earliest = min(earliest, clock.suspect_ts_ms[i])
        latest = max(latest, clock.suspect_ts_ms[i])
        is_new_user = is_new_user and clock.suspect_users[i] != user
    others_differ = clock.suspect_users[0] != clock.suspect_users[1]
    if count == SUSPECTS and others_differ and is_new_user and latest - earliest <= time_jump_ms:
        _forget_suspects(clock)
        clock.stream_time_ms[0] = ts_ms
        return True
    if count == SUSPECTS:
        clock.suspect_users[0] = clock.suspect_users[1]
        clock.suspect_ts_ms[0] = clock.suspect_ts_ms[1]
        count -= 1
    clock.suspect_users[count] = user
    clock.suspect_ts_ms[count] = ts_ms
    clock.suspects[0] = count + 1
    return False

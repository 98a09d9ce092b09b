"""Stream time: the largest event time seen so far, and what keeps one broken clock from moving it."""

from enum import IntEnum
from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import clear, compiled
from thalweg.operators.machine.declare import Int64, UInt64, made, per

SUSPECTS = 2  # with the record at hand, three that agree


class Ordinal(IntEnum):
    """What an event's outputs are counted by."""

    EXAMPLES = 0
    DEAD_LETTERS = 1


class Clock(NamedTuple):
    """How far the partition has come in its log and in time."""

    stream_time_ms: Annotated[Int64, per("1", "0 before the first event")]
    arrivals: Annotated[Int64, per("1", "events so far")]
    offset: Annotated[Int64, per("1", "of the event that is folded", start=-1)]
    ordinals: Annotated[Int64, per("2", "`Ordinal`: outputs that it caused so far")]
    suspects: Annotated[Int64, per("1", "how many too-far records came in a row", upto=SUSPECTS)]
    suspect_users: Annotated[UInt64, per("2", "whose they were", private=True)]
    suspect_ts_ms: Annotated[Int64, per("2", "and when", private=True)]


def new_clock() -> Clock:
    """Return a clock before the first event."""
    return made(Clock)


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

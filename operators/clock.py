"""Stream time: what most of the users heard last agree on, so that no single clock moves it.

Of the last `WITNESSES` different users the latest event times are kept. Stream time is the largest time that
`confirming` of them have reached. It falls once at most: when a second user is heard, who may show that the first
user's clock was ahead. One user, whatever the clock shows and for however many events, is one witness. A gap of days is
believed as soon as enough users have come back from it. `apparent` time is what fewer of them have reached. It follows
faster, is wrong more often, and decides only when the window of an impression begins. ADR 32 has the forms that were
measured.
"""

from enum import IntEnum
from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int64, UInt64, made, per

WITNESSES = 8
UNCONFIRMED_MAX = 2  # of eight users two may be ahead, or not heard of yet, while time moves on; of three, one
APPARENT = 3  # users that have reached apparent time
CROWD = 4  # so many different users make a crowd: from then on no single user's word moves time
STALE_TURNS = 64  # of a crowd, who is silent for so many turns is no witness, while three remain
ALONE_TURNS = 8  # the same where there never was a crowd, and one is enough to remain


class Ordinal(IntEnum):
    """What an event's outputs are counted by."""

    EXAMPLES = 0
    DEAD_LETTERS = 1
    LESSONS = 2


class Clock(NamedTuple):
    """How far the partition has come in its log and in time, and the users by whom it tells the time."""

    stream_time_ms: Annotated[Int64, per("1", "0 before the first event")]
    apparent_time_ms: Annotated[Int64, per("1", "0 before the first event")]
    arrivals: Annotated[Int64, per("1", "events so far")]
    offset: Annotated[Int64, per("1", "of the event that is folded", start=-1)]
    ordinals: Annotated[Int64, per("3", "`Ordinal`: outputs that it caused so far")]
    turns: Annotated[Int64, per("1", "events so far, those in a row of one user of a crowd as one")]
    most_witnesses: Annotated[Int64, per("1", "the most there ever were at once", upto=WITNESSES)]
    witnesses: Annotated[Int64, per("1", "how many users are heard", upto=WITNESSES)]
    witness: Annotated[UInt64, per("8", "their keys", private=True)]
    witness_ts_ms: Annotated[Int64, per("8", "their latest event times, falling", private=True)]
    witness_turn: Annotated[Int64, per("8", "the turn in which each was heard last", private=True)]


def new_clock() -> Clock:
    """Return a clock before the first event."""
    return made(Clock)


@compiled
def advance(clock: Clock, ts_ms: int, user: int) -> None:
    """Hear a user at an event time; stream time is what enough of the witnesses have reached."""
    begin_turn(clock, user)
    forget_witness(clock, user)
    if clock.witnesses[0] == WITNESSES:
        _remove(clock, longest_silent(clock))
    _insert(clock, ts_ms, user)
    is_second = clock.most_witnesses[0] == 1 and clock.witnesses[0] == 2
    clock.most_witnesses[0] = max(clock.most_witnesses[0], clock.witnesses[0])
    drop_stale(clock)
    count = clock.witnesses[0]
    confirming = max(count // 2 + 1, count - UNCONFIRMED_MAX)
    reached_ms = clock.witness_ts_ms[confirming - 1]
    if is_second:
        clock.stream_time_ms[0] = reached_ms
    clock.stream_time_ms[0] = max(clock.stream_time_ms[0], reached_ms)
    apparent_ms = clock.witness_ts_ms[min(APPARENT, confirming) - 1]
    clock.apparent_time_ms[0] = max(clock.stream_time_ms[0], apparent_ms)


@compiled
def begin_turn(clock: Clock, user: int) -> None:
    """Count an event as a turn, unless it is one more in a row of a user of a crowd."""
    for place in range(clock.witnesses[0]):
        is_in_a_row = clock.witness[place] == user and clock.witness_turn[place] == clock.turns[0]
        if is_in_a_row and clock.most_witnesses[0] >= CROWD:
            return
    clock.turns[0] += 1


@compiled
def is_doubtful(clock: Clock, ts_ms: int) -> bool:
    """Return whether an event time is not what others have just reached, or no other was heard yet."""
    return bool(ts_ms != clock.apparent_time_ms[0] or clock.most_witnesses[0] < 2)


@compiled
def heard_since(clock: Clock, turn: int) -> bool:
    """Return whether every witness but the one of a turn was heard after it, or it is too long ago to wait for more."""
    oldest = clock.witness_turn[longest_silent(clock)]
    return bool(oldest >= turn or clock.turns[0] - turn > STALE_TURNS)


@compiled
def heard_last_ms(clock: Clock) -> int:
    """Return the latest event time of the user who was heard last; stream time where there is none."""
    last = 0
    for place in range(1, clock.witnesses[0]):
        if clock.witness_turn[place] > clock.witness_turn[last]:
            last = place
    return int64(clock.witness_ts_ms[last] if clock.witnesses[0] > 0 else clock.stream_time_ms[0])


@compiled
def forget_witness(clock: Clock, user: int) -> None:
    """Take a user from the witnesses; nothing of the user is left."""
    for place in range(clock.witnesses[0]):
        if clock.witness[place] == user:
            _remove(clock, place)
            return


@compiled
def drop_stale(clock: Clock) -> None:
    """Take those who were silent for too long from the witnesses; of a crowd, leave three."""
    is_crowd = clock.most_witnesses[0] >= CROWD
    fewest = CROWD - 1 if is_crowd else 1
    silence = STALE_TURNS if is_crowd else ALONE_TURNS
    while clock.witnesses[0] > fewest:
        place = longest_silent(clock)
        if clock.turns[0] - clock.witness_turn[place] <= silence:
            return
        _remove(clock, place)


@compiled
def longest_silent(clock: Clock) -> int:
    """Return the place of the witness who was heard longest ago; 0 where there is none."""
    silent = 0
    for place in range(1, clock.witnesses[0]):
        if clock.witness_turn[place] < clock.witness_turn[silent]:
            silent = place
    return silent


@compiled
def _remove(clock: Clock, place: int) -> None:
    last = clock.witnesses[0] - 1
    for to in range(place, last):
        clock.witness[to] = clock.witness[to + 1]
        clock.witness_ts_ms[to] = clock.witness_ts_ms[to + 1]
        clock.witness_turn[to] = clock.witness_turn[to + 1]
    clock.witness[last] = 0
    clock.witness_ts_ms[last] = 0
    clock.witness_turn[last] = 0
    clock.witnesses[0] = last


@compiled
def _insert(clock: Clock, ts_ms: int, user: int) -> None:
    place = clock.witnesses[0]
    while place > 0 and clock.witness_ts_ms[place - 1] < ts_ms:
        clock.witness[place] = clock.witness[place - 1]
        clock.witness_ts_ms[place] = clock.witness_ts_ms[place - 1]
        clock.witness_turn[place] = clock.witness_turn[place - 1]
        place -= 1
    clock.witness[place] = user
    clock.witness_ts_ms[place] = ts_ms
    clock.witness_turn[place] = clock.turns[0]
    clock.witnesses[0] += 1

"""Stream time is what most of the users heard last have reached, and no single clock moves it."""

from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from thalweg.operators.clock import (
    ALONE_TURNS,
    STALE_TURNS,
    Clock,
    advance,
    forget_witness,
    heard_since,
    is_doubtful,
    new_clock,
)

from tests.fold.plain.clock import PlainClock

START_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def hear(clock: Clock, ts_ms: int, user: int) -> int:
    """Let one event arrive and return stream time."""
    advance(clock, ts_ms, np.uint64(user))
    return int(clock.stream_time_ms[0])


EVENTS = st.lists(st.tuples(st.integers(-3 * HOUR_MS, 3 * HOUR_MS), st.integers(1, 12)), max_size=200)


@given(EVENTS)
@example([(number, 1 + number % 5) for number in range(20)] + [(20 + number, 6) for number in range(200)])
@example([(number, 1 + number % 3) for number in range(20)] + [(20 + number, 3) for number in range(200)])
def test_the_clock_is_the_plain_one(events: list[tuple[int, int]]) -> None:
    """Stream time and apparent time must be what the plain rule gives, after every event."""
    clock, plain = new_clock(), PlainClock()
    for shift_ms, user in events:
        hear(clock, START_MS + shift_ms, user)
        plain.advance(START_MS + shift_ms, user)
        assert clock.stream_time_ms[0] == plain.stream_ms
        assert clock.apparent_time_ms[0] == plain.apparent_ms
        assert heard_since(clock, 5) == plain.heard_since(5)
        assert is_doubtful(clock, START_MS) == (plain.apparent_ms != START_MS or plain.most < 2)


@given(EVENTS)
def test_it_falls_at_most_once(events: list[tuple[int, int]]) -> None:
    """Stream time may fall once, when a second user is first heard, and apparent time never lies below it."""
    clock = new_clock()
    times = [hear(clock, START_MS + shift_ms, user) for shift_ms, user in events]
    assert sum(after < before for before, after in pairwise(times)) <= 1
    assert clock.apparent_time_ms[0] >= clock.stream_time_ms[0]


def steady(count: int, users: int = 50) -> list[tuple[int, int]]:
    """Return events one second apart, of users drawn by chance."""
    random = Random(7)
    return [(START_MS + number * 1_000, random.randint(1, users)) for number in range(count)]


def test_one_user_moves_nothing_for_others() -> None:
    """A user who is days ahead, in a row of any length, is one witness: time moves as it would without."""
    clock, other = new_clock(), new_clock()
    for number, (ts_ms, user) in enumerate(steady(400)):
        time_ms = hear(clock, ts_ms, user)
        hear(other, ts_ms, user)
        if number == 200:
            for ahead in range(1_000):
                time_ms = hear(clock, ts_ms + DAY_MS * ahead, 999)
        assert time_ms <= ts_ms
    assert abs(clock.stream_time_ms[0] - other.stream_time_ms[0]) <= 10_000


def test_the_first_user_of_a_log_is_no_exception() -> None:
    """Where the log begins with a clock that is a day ahead, the second user corrects it."""
    clock = new_clock()
    assert hear(clock, START_MS + DAY_MS, 999) == START_MS + DAY_MS
    for ts_ms, user in steady(20):
        assert hear(clock, ts_ms, user) <= ts_ms


def test_some_users_hours_ahead_or_behind_move_nothing() -> None:
    """With one user of twenty nine hours ahead or three behind, time is within seconds of what it would be."""
    for shift_ms in (9 * HOUR_MS, -3 * HOUR_MS):
        clock = new_clock()
        for ts_ms, user in steady(20_000, users=400):
            time_ms = hear(clock, ts_ms + (shift_ms if user % 20 == 0 else 0), user)
            assert time_ms <= ts_ms
            assert ts_ms - START_MS < 60_000 or time_ms >= ts_ms - 60_000


def test_a_gap_is_believed_after_a_handful_of_events() -> None:
    """After a gap of years time follows within six users, and apparent time within three."""
    clock = new_clock()
    for ts_ms, user in steady(100):
        hear(clock, ts_ms, user)
    late_ms = START_MS + 900 * DAY_MS
    times = [hear(clock, late_ms + number, 1_000 + number) for number in range(6)]
    assert [time_ms >= late_ms for time_ms in times] == [False] * 5 + [True]


def test_one_user_alone_is_believed_at_once() -> None:
    """In a log of one user time is the user's, whatever the gaps."""
    clock = new_clock()
    assert [hear(clock, START_MS + day * DAY_MS, 5) for day in (0, 1, 900)] == [
        START_MS + day * DAY_MS for day in (0, 1, 900)
    ]


def test_of_two_users_both_are_needed_while_both_are_heard() -> None:
    """Two users take turns, a day apart: time is one turn behind, so that neither clock moves it alone."""
    clock = new_clock()
    times = [hear(clock, START_MS + day * DAY_MS, day % 2) for day in range(30)]
    assert times[2:] == [START_MS + day * DAY_MS for day in range(1, 29)]


def test_who_is_left_of_three_is_believed_alone() -> None:
    """Where two or three users are all that ever were, the last one that is heard moves time after a few events."""
    for users in (2, 3):
        clock = new_clock()
        for day in range(30):
            hear(clock, START_MS + day * DAY_MS, day % users)
        times = [hear(clock, START_MS + day * DAY_MS, 0) for day in range(30, 60)]
        assert times[ALONE_TURNS - 2] < START_MS + 30 * DAY_MS
        assert times[ALONE_TURNS:] == [START_MS + day * DAY_MS for day in range(30 + ALONE_TURNS, 60)]


def test_who_is_left_of_a_crowd_moves_nothing_alone() -> None:
    """Where four users were heard, time waits for others, however long one is the only one."""
    clock = new_clock()
    for number in range(8):
        hear(clock, START_MS + number, number % 4)
    times = {hear(clock, START_MS + day * DAY_MS, 0) for day in range(1, 500)}
    assert max(times) <= START_MS + 8
    assert hear(clock, START_MS + 500 * DAY_MS, 1) <= START_MS + 8
    assert hear(clock, START_MS + 501 * DAY_MS, 2) == START_MS + 499 * DAY_MS


def test_of_three_users_two_are_believed() -> None:
    """Days pass between events of three users: time is where two of them are."""
    clock = new_clock()
    for day in range(30):
        time_ms = hear(clock, START_MS + day * DAY_MS, day % 3)
    assert time_ms == START_MS + 28 * DAY_MS


def test_users_who_left_are_no_witnesses_for_ever() -> None:
    """Where of many users three remain, time follows these after `STALE_TURNS` events."""
    clock = new_clock()
    for ts_ms, user in steady(100):
        hear(clock, ts_ms, user)
    for number in range(2 * STALE_TURNS):
        time_ms = hear(clock, START_MS + number * DAY_MS, 1_000 + number % 3)
    assert time_ms == START_MS + (2 * STALE_TURNS - 2) * DAY_MS


def test_a_forgotten_user_leaves_nothing() -> None:
    """After an erase neither the key nor the times of the user are in the arrays."""
    clock = new_clock()
    for user in range(1, 6):
        hear(clock, START_MS + user, user)
    forget_witness(clock, np.uint64(3))
    assert clock.witnesses[0] == 4
    assert list(clock.witness[:5]) == [5, 4, 2, 1, 0]
    assert list(clock.witness_ts_ms[:5]) == [START_MS + user for user in (5, 4, 2, 1)] + [0]
    assert list(clock.witness_turn[:5]) == [5, 4, 2, 1, 0]

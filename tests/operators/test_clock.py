"""Stream time is the largest event time so far, and no single broken clock moves it far."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.clock import accept_time, new_clock

JUMP_MS = 1_000
START_MS = 1_700_000_000_000
FAR_MS = START_MS + 50 * JUMP_MS


def run(*events: tuple[int, int], start_ms: int | None = START_MS) -> list[bool]:
    """Which of the (ts, user) after a first event at `start_ms` are accepted."""
    clock = new_clock()
    if start_ms is not None:
        assert accept_time(clock, JUMP_MS, start_ms, np.uint64(99))
    return [accept_time(clock, JUMP_MS, ts_ms, np.uint64(user)) for ts_ms, user in events]


def test_the_first_event_sets_stream_time() -> None:
    """Before the first event there is no time to be too far from."""
    clock = new_clock()
    assert accept_time(clock, JUMP_MS, START_MS, np.uint64(1))
    assert clock.stream_time_ms[0] == START_MS


def test_time_moves_by_at_most_the_jump() -> None:
    """Exactly `time_jump_ms` ahead is accepted, one millisecond more is not and moves nothing."""
    clock = new_clock()
    accept_time(clock, JUMP_MS, START_MS, np.uint64(1))
    assert not accept_time(clock, JUMP_MS, START_MS + JUMP_MS + 1, np.uint64(1))
    assert clock.stream_time_ms[0] == START_MS
    assert accept_time(clock, JUMP_MS, START_MS + JUMP_MS, np.uint64(1))
    assert clock.stream_time_ms[0] == START_MS + JUMP_MS


def test_late_events_are_accepted_and_never_move_time_back() -> None:
    """An event of a year ago is taken, and stream time stays."""
    clock = new_clock()
    accept_time(clock, JUMP_MS, START_MS, np.uint64(1))
    assert accept_time(clock, JUMP_MS, START_MS - 365 * 86_400_000, np.uint64(2))
    assert clock.stream_time_ms[0] == START_MS


def test_three_users_that_agree_are_believed() -> None:
    """The third of three too-far records in a row, of different users within the jump, is accepted."""
    clock = new_clock()
    accept_time(clock, JUMP_MS, START_MS, np.uint64(9))
    assert not accept_time(clock, JUMP_MS, FAR_MS + JUMP_MS, np.uint64(1))
    assert not accept_time(clock, JUMP_MS, FAR_MS, np.uint64(2))
    assert clock.stream_time_ms[0] == START_MS
    assert accept_time(clock, JUMP_MS, FAR_MS + 5, np.uint64(3))
    assert clock.stream_time_ms[0] == FAR_MS + 5
    assert accept_time(clock, JUMP_MS, FAR_MS + 5 + JUMP_MS, np.uint64(1))


def test_the_same_user_does_not_count_twice() -> None:
    """However often one or two users say so, the jump waits for a third."""
    assert run(*[(FAR_MS, 1)] * 6) == [False] * 6
    assert run(*[(FAR_MS, 1), (FAR_MS, 2)] * 4) == [False] * 8
    assert run((FAR_MS, 1), (FAR_MS, 1), (FAR_MS, 2), (FAR_MS, 3)) == [False, False, False, True]
    assert run((FAR_MS, 1), (FAR_MS, 2), (FAR_MS, 2), (FAR_MS, 3)) == [False] * 4


def test_disagreement_restarts() -> None:
    """Three users too far from each other are not believed; three in a row afterwards that agree are."""
    apart = [(FAR_MS, 1), (FAR_MS + 2 * JUMP_MS, 2), (FAR_MS + 4 * JUMP_MS, 3)]
    assert run(*apart) == [False] * 3
    assert run(*apart, (FAR_MS + 4 * JUMP_MS, 4), (FAR_MS + 4 * JUMP_MS, 5)) == [False] * 4 + [True]
    assert run((FAR_MS, 1), (FAR_MS + JUMP_MS // 2 + 1, 2), (FAR_MS - JUMP_MS // 2, 3)) == [False] * 3


def test_an_event_in_time_restarts() -> None:
    """Three too-far records count only in a row."""
    assert run((FAR_MS, 1), (FAR_MS, 2), (START_MS, 7), (FAR_MS, 3)) == [False, False, True, False]
    assert run((FAR_MS, 1), (FAR_MS, 2), (START_MS, 7), (FAR_MS, 3), (FAR_MS, 4), (FAR_MS, 5))[-1]


def test_a_jump_over_an_earlier_jump_needs_three_again() -> None:
    """After a jump was accepted the next one needs three users of its own."""
    farther = FAR_MS + 50 * JUMP_MS
    events = [(FAR_MS, 1), (FAR_MS, 2), (FAR_MS, 3), (farther, 1), (farther, 2), (farther, 3)]
    assert run(*events) == [False, False, True, False, False, True]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=30))
def test_the_clock_follows_its_rule(steps: list[tuple[int, int]]) -> None:
    """Whatever comes, accepted is what is near, or the third in a row of different users who agree."""
    clock = new_clock()
    now_ms, far = 0, list[tuple[int, int]]()
    for jumps, user in steps:
        ts_ms = START_MS + jumps * JUMP_MS * 3 // 4
        near = now_ms == 0 or ts_ms <= now_ms + JUMP_MS
        far = [] if near else [*far, (ts_ms, user)][-3:]
        times = [ts for ts, _ in far]
        believed = len(far) == 3 and len({u for _, u in far}) == 3 and max(times) - min(times) <= JUMP_MS
        assert accept_time(clock, JUMP_MS, ts_ms, np.uint64(user)) == (near or believed)
        if near or believed:
            now_ms, far = max(now_ms, ts_ms), []
        assert clock.stream_time_ms[0] == now_ms

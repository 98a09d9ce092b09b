"""Delays of feedback: the share that has come, when a label is as good as known, and what it is believed to be."""

import math
import random

import numpy as np
import pytest
from thalweg.operators.delay import (
    BUCKETS,
    CERTAIN,
    CERTAIN_OF_SEVERAL,
    HALF_LIFE_MS,
    PRIOR,
    REFRESH_MS,
    Delays,
    Time,
    bucket_of,
    count_delay,
    end_of,
    new_delays,
    provisional_label,
)
from thalweg.streams.driver import START_MS

WINDOW_MS = 86_400_000
HOUR_MS = 3_600_000


def counted(delays_ms: list[int], hours: float, share: float = 0.9, window_ms: int = WINDOW_MS) -> Delays:
    """Return what is known after so many hours, the impressions evenly spread over them."""
    delays = new_delays()
    shown = np.linspace(START_MS, START_MS + hours * HOUR_MS, len(delays_ms), dtype=np.int64)
    arrivals = sorted(zip((shown + np.array(delays_ms)).tolist(), delays_ms, strict=True))
    end_ms = START_MS + hours * HOUR_MS
    for now_ms, delay_ms in arrivals:
        if now_ms <= end_ms:
            count_delay(delays, delay_ms, now_ms, window_ms, share)
    return delays


def exponential(mean_ms: float, count: int) -> list[int]:
    chance = random.Random(5)
    return [int(chance.expovariate(1.0 / mean_ms)) for _ in range(count)]


def test_buckets_are_half_octaves() -> None:
    """A delay lies in the bucket that ends above it; ends are half an octave apart, as floats go."""
    ends = [end_of(bucket) for bucket in range(BUCKETS)]
    assert ends[:5] == [512, 768, 1_024, 1_536, 2_048]
    for bucket in range(BUCKETS - 1):
        assert bucket_of(ends[bucket] - 1) == bucket
        assert bucket_of(ends[bucket]) == bucket + 1
    assert bucket_of(-5) == bucket_of(0) == 0
    assert bucket_of(1 << 62) == BUCKETS - 1


@pytest.mark.parametrize("hours", [2.0, 6.0, 48.0])
def test_the_share_that_has_come_is_that_of_the_delays(hours: float) -> None:
    """Of exponential delays of half an hour, also when the log is hardly longer than they are."""
    mean_ms = HOUR_MS / 2
    delays = counted(exponential(mean_ms, 40_000), hours)
    for bucket in range(bucket_of(60_000), bucket_of(int(hours * HOUR_MS / 3))):
        expected = 1.0 - math.exp(-end_of(bucket) / mean_ms)
        assert delays.within[bucket] == pytest.approx(expected, abs=0.05)


def test_a_provisional_label_waits_until_the_share_has_come() -> None:
    """The elapsed time is the first end of a bucket within which that share of the positives comes."""
    delays = counted(exponential(60_000.0, 20_000), 6.0, share=0.9)
    elapsed_ms = int(delays.times_ms[Time.ELAPSED])
    assert elapsed_ms == end_of(bucket_of(int(-60_000 * math.log(1 - 0.9))))
    assert delays.within[bucket_of(elapsed_ms) - 1] >= 0.9 > delays.within[bucket_of(elapsed_ms) - 2]


def test_nothing_is_provisional_before_it_is_known() -> None:
    """Few positives, a log that is too short, a window as long as the delays, or a share of 1: every label waits."""
    assert counted([1_000] * 60, 6.0).times_ms[Time.ELAPSED] == 0
    assert counted([1_000] * 200, 6.0).times_ms[Time.ELAPSED] > 0
    assert counted([HOUR_MS] * 20_000, 3.0).times_ms[Time.ELAPSED] == 0
    assert counted([590_000] * 20_000, 6.0, window_ms=600_000).times_ms[Time.ELAPSED] == 0
    assert not counted([1_000] * 200, 6.0, share=1.0).counts.any()


def test_delays_of_long_ago_are_forgotten() -> None:
    """What was counted weighs half a day later, before today's is counted."""
    delays = new_delays()
    for number in range(1_000):
        count_delay(delays, 500_000, START_MS + number * REFRESH_MS, WINDOW_MS, 0.9)
    for _ in range(2_000):
        count_delay(delays, 500_000, START_MS + 999 * REFRESH_MS, WINDOW_MS, 0.9)
    before = delays.counts.sum()
    count_delay(delays, 1_000, START_MS + 999 * REFRESH_MS + int(HALF_LIFE_MS), WINDOW_MS, 0.9)
    assert delays.counts.sum() == pytest.approx(before / 2.0 + 1.0)


def test_a_sparse_log_forgets_delays_by_positives() -> None:
    """With one positive a day, what was counted weighs half after 250 more: enough is known of them."""
    delays = new_delays()
    for number in range(1_000):
        count_delay(delays, 1_100, START_MS + number * int(HALF_LIFE_MS), WINDOW_MS, 0.9)
    assert delays.counts.sum() == pytest.approx((0.5 ** (np.arange(1_000) / 250)).sum(), rel=1e-3)
    assert delays.times_ms[Time.ELAPSED] == 1_536


def test_what_a_sparse_log_remembers_is_certain_enough_for_several_objectives() -> None:
    """Where each of 360 remembered positives came at once, several objectives ask for no correction; one still does."""
    delays = new_delays()
    for number in range(1_500):
        count_delay(delays, 1_100, START_MS + number * int(HALF_LIFE_MS), WINDOW_MS, 0.9)
    assert provisional_label(delays, 0.02, 2_000, CERTAIN_OF_SEVERAL) == 0.0
    assert 0.0 < provisional_label(delays, 0.02, 2_000, CERTAIN) < 0.001


def test_a_provisional_label_is_the_chance_of_a_positive_that_is_still_to_come() -> None:
    """q = p (1 - F) / (1 - p F) by Bayes' rule; zero where nearly all have come, p where nothing is known."""
    delays = counted(exponential(60_000.0, 20_000), 6.0)
    for elapsed_ms in (40_000, 130_000, 200_000):
        come = float(delays.within[bucket_of(elapsed_ms) - 1])
        for p in (0.01, 0.3, 0.9):
            expected = p * (1.0 - come) / (1.0 - p * come)
            assert provisional_label(delays, p, elapsed_ms, CERTAIN) == pytest.approx(expected, rel=1e-12)
    assert provisional_label(delays, 0.3, WINDOW_MS, CERTAIN) == 0.0
    assert provisional_label(new_delays(), 0.3, 100, CERTAIN) == pytest.approx(0.3)
    assert delays.within[-1] == pytest.approx(1.0 - PRIOR / (PRIOR + delays.counts.sum()), abs=1e-3)

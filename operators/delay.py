"""The delay of feedback: how long after its impression a positive comes, and so when a label is as good as known.

A label is certain only when its window closes, but most positives come long before. What is learned is additive: the
gradient of the logistic loss is (p - y) x, so an impression may be learned from in two parts,

    at elapsed time e:       (p - q) x    with the provisional label q,
    at its window's end:     (q - y) x    what that was wrong by; mostly zero.

Together that is (p - y) x, whatever q was, so nothing that is learned depends in the end on what was believed of the
delays. The provisional label is 1 where a positive came, and else the chance that one still comes within the window,

    q = p (1 - F(e)) / (1 - p F(e)),

with p as it was scored and F the share of positives that come within e (Chapelle, Modeling Delayed Feedback in Display
Advertising, 2014; learning at an elapsed time: Yang et al., Capturing Delayed Feedback in Conversion Rate Prediction
via Elapsed-Time Sampling, 2021). F is counted in buckets of the delay, two an octave, with a half-life: a day or, on a
log with fewer, 250 positives. Else a log of 27 positives a day would never know enough of them. In the first
hours of a log long delays have had less time to show: a bucket of delay d counts (1 - 2**(-T/h)) / (1 - 2**(-(T-d)/h))
fold after T of the log.
"""

from enum import IntEnum
from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Float64, Int64, made, per
from thalweg.operators.machine.numerics import bits_of, float_of, half_life_factor

BUCKETS = 48
FIRST_BITS = (1023 + 9) << 1  # the first bucket ends at 512 ms; the last begins 2**23.5 times later, after 145 years
HALF_OCTAVE_SHIFT = 51  # a float64's bits from here on count half octaves
HALF_LIFE_MS = 86_400_000.0
FORGOTTEN_MS = 345_600  # of the half-life pass by one positive at most: 250 of them are a day
REFRESH_MS = 60_000
PRIOR = 10.0  # pseudo-positives that come only at the window's end
CERTAIN = 0.99  # where so many have come, none is believed to be still on its way
CERTAIN_OF_SEVERAL = 0.96  # of several objectives each correction is a step of all that they share
LOG_SHARE = 4  # an elapsed time is believed in once the log is so many times as long


class Time(IntEnum):
    """What each of `Delays.times_ms` is."""

    BEGAN = 0
    DECAYED = 1
    ELAPSED = 2


class Delays(NamedTuple):
    """Positives by their delay."""

    counts: Annotated[Float64, per("48", "positives in each bucket of the delay, decayed")]
    within: Annotated[Float64, per("48", "share of positives that come by the end of each bucket")]
    times_ms: Annotated[Int64, per("3", "`Time`: of the first event, of the last decay, and the elapsed time, 0: none")]
    since: Annotated[Int64, per("1", "positives since the last decay")]


def new_delays() -> Delays:
    """Return what is known of delays before the first positive."""
    return made(Delays)


@compiled
def bucket_of(delay_ms: int) -> int:
    """Return the bucket of a delay: 0 below 512 ms, then two an octave."""
    return min(max((bits_of(float(max(delay_ms, 1))) >> HALF_OCTAVE_SHIFT) - FIRST_BITS + 1, 0), BUCKETS - 1)


@compiled
def end_of(bucket: int) -> int:
    """Return the delay in ms at which the next bucket begins."""
    return int64(float_of((FIRST_BITS + bucket) << HALF_OCTAVE_SHIFT))


@compiled
def count_delay(delays: Delays, delay_ms: int, now_ms: int, window_ms: int, share: float) -> None:
    """Count a positive that came `delay_ms` after its impression; once a minute, first choose the elapsed time again.

    So the order of those that come at one time does not matter.
    `share` is that of the positives by whose coming the elapsed time is chosen; at 1 it never is.
    """
    if share >= 1.0:
        return
    times_ms = delays.times_ms
    if times_ms[Time.BEGAN] == 0:
        times_ms[Time.BEGAN] = times_ms[Time.DECAYED] = now_ms
    if now_ms - times_ms[Time.DECAYED] >= REFRESH_MS:
        passed_ms = min(now_ms - times_ms[Time.DECAYED], FORGOTTEN_MS * delays.since[0])
        factor = half_life_factor(passed_ms, HALF_LIFE_MS)
        delays.since[0] = 0
        times_ms[Time.DECAYED] = now_ms
        for bucket in range(BUCKETS):
            delays.counts[bucket] *= factor
        _choose_elapsed(delays, now_ms - times_ms[Time.BEGAN], window_ms, share)
    times_ms[Time.BEGAN] = min(times_ms[Time.BEGAN], now_ms - max(delay_ms, 0))
    delays.counts[bucket_of(delay_ms)] += 1.0
    delays.since[0] += 1


@compiled
def _choose_elapsed(delays: Delays, log_ms: int, window_ms: int, share: float) -> None:
    """Write the shares of positives by delay, and the smallest elapsed time within which `share` of them come."""
    observed = 1.0 - half_life_factor(log_ms, HALF_LIFE_MS)
    total = 0.0
    for bucket in range(BUCKETS):
        if delays.counts[bucket] > 0.0:
            middle_ms = end_of(bucket) * 6 // 7
            seen = 1.0 - half_life_factor(max(log_ms - middle_ms, log_ms // 16), HALF_LIFE_MS)
            total += delays.counts[bucket] * observed / seen
        delays.within[bucket] = total
    delays.times_ms[Time.ELAPSED] = 0
    for bucket in range(BUCKETS):
        delays.within[bucket] /= total + PRIOR
        elapsed_ms = end_of(bucket)
        is_known = LOG_SHARE * elapsed_ms <= log_ms and elapsed_ms < window_ms
        if delays.times_ms[Time.ELAPSED] == 0 and is_known and delays.within[bucket] >= share:
            delays.times_ms[Time.ELAPSED] = elapsed_ms


@compiled
def has_come(delays: Delays, elapsed_ms: int, share: float) -> bool:
    """Return whether so large a share of the positives comes within an elapsed time."""
    bucket = bucket_of(elapsed_ms) - 1
    return bool(bucket >= 0 and delays.within[bucket] >= share)


@compiled
def provisional_label(delays: Delays, probability: float, elapsed_ms: int, certain: float) -> float:
    """Return the chance that an impression scored `probability`, without a positive so far, still gets one.

    It is 0 where a share of `certain` has come.
    """
    bucket = bucket_of(elapsed_ms) - 1
    come = delays.within[bucket] if bucket >= 0 else 0.0
    if come >= certain:
        return 0.0
    missing = probability * (1.0 - come)
    return missing / (missing + 1.0 - probability)

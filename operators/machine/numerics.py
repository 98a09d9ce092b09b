"""Exponential, logarithm, arc cosine and what is made of them, from basic IEEE operations only.

libm's last bit differs between machines and versions; these do not, since IEEE 754 fixes the result of every addition,
multiplication, division and square root.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
from thalweg.operators.machine.compiled import INTERPRETED, compiled

if TYPE_CHECKING or INTERPRETED:
    from thalweg.operators.machine.interpreted import bits_of, float_of
else:
    from thalweg.operators.machine.lowered import bits_of, float_of

__all__ = [
    "arc_cosine",
    "bits_of",
    "exp",
    "float_of",
    "half_life_factor",
    "log",
    "log_odds",
    "log_of_ratio",
    "rough_sigmoid",
    "sigmoid",
]

LN2_HIGH = 6.93147180369123816490e-01  # its last 32 bits are zero, so k * LN2_HIGH is exact for |k| < 2**20
LN2_LOW = 1.90821492927058770002e-10
INVERSE_LN2 = 1.44269504088896338700
SMALLEST_NORMAL = 2.0**-1022
MANTISSA_BITS = (1 << 52) - 1
ONE_BITS = 1023 << 52
HALF_ROOT_BITS = 0x3FE6A09E667F3BCD  # of the square root of a half
LOGIT_LIMIT = 30.0
LAST_BITS = 2.0**52 + 1023.0


@compiled
def _power_of_two(k: float) -> float:
    """Return 2**k of a whole k within -1022 and 1023: above 2**52 the last bits of a sum are a whole number."""
    return float_of(bits_of(k + LAST_BITS) << 52)


@compiled
def exp(x: float) -> float:
    """Return e to the power of x within 2 ulp; 0 below -708, e**709 above 709, nan of nan.

    >>> exp(0.0), round(exp(1.0), 12)
    (1.0, 2.718281828459)
    """
    if not x >= -708.0:
        return x if x != x else 0.0
    if x > 709.0:
        x = 709.0
    k = float(np.floor(x * INVERSE_LN2 + 0.5))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    # Taylor's series: |r| <= ln(2)/2, so the 14th term lies below half an ulp. In parts that overlap.
    s = r * r
    t = s * s
    low = (1.0 / 2.0 + r * (1.0 / 6.0)) + s * (1.0 / 24.0 + r * (1.0 / 120.0))
    middle = (1.0 / 720.0 + r * (1.0 / 5_040.0)) + s * (1.0 / 40_320.0 + r * (1.0 / 362_880.0))
    high = (1.0 / 3_628_800.0 + r * (1.0 / 39_916_800.0)) + s * (1.0 / 479_001_600.0 + r * (1.0 / 6_227_020_800.0))
    return (1.0 + (r + s * (low + t * (middle + t * high)))) * _power_of_two(k)


@compiled
def _reduced(x: float) -> tuple[float, int]:
    """Return s and k with log(x) = k log(2) + 2 artanh(s), |s| <= 0.1716, of a positive, normal number."""
    bits = bits_of(x) + (ONE_BITS - HALF_ROOT_BITS)  # from the root of a half on, the exponent is the next one
    k = (bits >> 52) - 1023
    mantissa = float_of((bits & MANTISSA_BITS) + HALF_ROOT_BITS)
    return (mantissa - 1.0) / (mantissa + 1.0), k


@compiled
def log(x: float) -> float:
    """Return the natural logarithm of a positive, normal x within 2 ulp; nan of anything else.

    >>> log(1.0), log(2.718281828459045)
    (0.0, 1.0)
    """
    if not x >= SMALLEST_NORMAL:
        return math.nan
    s, k = _reduced(x)
    # 11 odd terms reach 1e-17. Two chains, so that they overlap.
    t = s * s
    u = t * t
    even = ((((1.0 / 21.0) * u + 1.0 / 17.0) * u + 1.0 / 13.0) * u + 1.0 / 9.0) * u + 1.0 / 5.0
    odd = (((1.0 / 19.0) * u + 1.0 / 15.0) * u + 1.0 / 11.0) * u + 1.0 / 7.0
    series = t * (1.0 / 3.0) + u * (even + t * odd)
    return k * LN2_HIGH + (k * LN2_LOW + (2.0 * s + 2.0 * s * series))


@compiled
def log_of_ratio(numerator: float, denominator: float) -> float:
    """Return ln(numerator / denominator) of positive, normal numbers within 1e-10: enough for a float32.

    >>> log_of_ratio(2.0, 2.0), round(log_of_ratio(1.0, 2.0), 7)
    (0.0, -0.6931472)
    """
    above, below = bits_of(numerator), bits_of(denominator)
    mantissas = float_of((above & MANTISSA_BITS) | ONE_BITS) / float_of((below & MANTISSA_BITS) | ONE_BITS)
    s, k = _reduced(mantissas)
    k += (above >> 52) - (below >> 52)
    t = s * s
    u = t * t
    series = ((1.0 / 11.0) * t + 1.0 / 9.0) * (u * u) + ((1.0 / 7.0) * t + 1.0 / 5.0) * u + ((1.0 / 3.0) * t + 1.0)
    return k * (LN2_HIGH + LN2_LOW) + 2.0 * s * series


@compiled
def sigmoid(logit: float) -> float:
    """Return the probability of a logit, which is first clamped to +-30.

    >>> sigmoid(0.0)
    0.5
    """
    return 1.0 / (1.0 + exp(-min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT)))


@compiled
def rough_sigmoid(logit: float) -> float:
    """Return the probability of a logit, first clamped to +-30, within 1e-9 of itself: enough for a float32.

    >>> round(rough_sigmoid(0.0), 9), round(rough_sigmoid(2.0) - sigmoid(2.0), 9)
    (0.5, 0.0)
    """
    x = -min(max(logit, -LOGIT_LIMIT), LOGIT_LIMIT)
    k = float(np.floor(x * INVERSE_LN2 + 0.5))
    r = x - k * (LN2_HIGH + LN2_LOW)
    # Taylor's series to the eighth power, in halves that overlap.
    s = r * r
    t = s * s
    low = (1.0 + r) + s * (1.0 / 2.0 + r * (1.0 / 6.0))
    high = (1.0 / 24.0 + r * (1.0 / 120.0)) + s * (1.0 / 720.0 + r * (1.0 / 5_040.0))
    power = (low + t * (high + t * (1.0 / 40_320.0))) * _power_of_two(k)
    return 1.0 / (1.0 + power)


@compiled
def log_odds(probability: float) -> float:
    """Return the logit of a probability, which is first clamped to 1e-9 from either end.

    >>> log_odds(0.5)
    0.0
    """
    p = min(max(probability, 1e-9), 1.0 - 1e-9)
    return log(p / (1.0 - p))


@compiled
def arc_cosine(x: float) -> float:
    """Return the angle in radians of a cosine, within 2.2e-8 (Abramowitz and Stegun 4.4.46); x is clamped to [-1, 1].

    >>> round(arc_cosine(0.5), 6), round(arc_cosine(-1.0), 6)
    (1.047198, 3.141593)
    """
    a = min(abs(x), 1.0)
    p = -0.0012624911
    p = p * a + 0.0066700901
    p = p * a - 0.0170881256
    p = p * a + 0.0308918810
    p = p * a - 0.0501743046
    p = p * a + 0.0889789874
    p = p * a - 0.2145988016
    p = p * a + 1.5707963050
    angle = math.sqrt(1.0 - a) * p
    return angle if x >= 0.0 else math.pi - angle


@compiled
def half_life_factor(elapsed: float, half_life: float) -> float:
    """Return 2 ** -(elapsed / half life): what is left of a decayed sum."""
    if elapsed <= 0:
        return 1.0
    return exp(-(LN2_HIGH + LN2_LOW) * (elapsed / half_life))

"""The normal distribution and its quantiles from basic IEEE operations: the same bits on every machine.

West, "Better approximations to cumulative normal functions" (2005), after Hart; Wichura, "Algorithm AS 241" (1988).
"""

import math

from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.numerics import exp, log

RATIONAL_BELOW = 7.07106781186547
CENTRE = 0.425  # of a probability around a half, where one rational function is enough


@compiled
def distribution(z: float) -> float:
    """Return the probability that a standard normal number is below z, within 1e-15, and within 1e-8 of itself.

    >>> distribution(0.0), round(distribution(1.96), 6)
    (0.5, 0.975002)
    """
    x = abs(z)
    below = exp(-0.5 * x * x)
    if x < RATIONAL_BELOW:
        p = 3.52624965998911e-02 * x + 0.700383064443688
        p = p * x + 6.37396220353165
        p = p * x + 33.912866078383
        p = p * x + 112.079291497871
        p = p * x + 221.213596169931
        p = p * x + 220.206867912376
        q = 8.83883476483184e-02 * x + 1.75566716318264
        q = q * x + 16.064177579207
        q = q * x + 86.7807322029461
        q = q * x + 296.564248779674
        q = q * x + 637.333633378831
        q = q * x + 793.826512519948
        q = q * x + 440.413735824752
        below = below * p / q
    else:
        fraction = x + 0.65
        for part in range(4, 0, -1):
            fraction = x + part / fraction
        below = below / fraction / 2.506628274631
    return 1.0 - below if z > 0.0 else below


@compiled
def quantile(p: float) -> float:
    """Return the z that a standard normal number is below with probability p, 0 < p < 1.

    >>> quantile(0.5), round(quantile(0.975), 6)
    (0.0, 1.959964)
    """
    q = p - 0.5
    if abs(q) <= CENTRE:
        r = CENTRE * CENTRE - q * q
        above = 2.5090809287301226727e3 * r + 3.3430575583588128105e4
        above = above * r + 6.7265770927008700853e4
        above = above * r + 4.5921953931549871457e4
        above = above * r + 1.3731693765509461125e4
        above = above * r + 1.9715909503065514427e3
        above = above * r + 1.3314166789178437745e2
        above = above * r + 3.3871328727963666080
        below = 5.2264952788528545610e3 * r + 2.8729085735721942674e4
        below = below * r + 3.9307895800092710610e4
        below = below * r + 2.1213794301586595867e4
        below = below * r + 5.3941960214247511077e3
        below = below * r + 6.8718700749205790830e2
        below = below * r + 4.2313330701600911252e1
        return q * above / (below * r + 1.0)
    tail = tail_quantile(math.sqrt(-log(min(p, 1.0 - p))))
    return -tail if q < 0.0 else tail


@compiled
def tail_quantile(root: float) -> float:
    """Return the quantile above which a probability lies, of which `root` is the square root of -ln."""
    if root <= 5.0:
        r = root - 1.6
        above = 7.74545014278341407640e-4 * r + 2.27238449892691845833e-2
        above = above * r + 2.41780725177450611770e-1
        above = above * r + 1.27045825245236838258
        above = above * r + 3.64784832476320460504
        above = above * r + 5.76949722146069140550
        above = above * r + 4.63033784615654529590
        above = above * r + 1.42343711074968357734
        below = 1.05075007164441684324e-9 * r + 5.47593808499534494600e-4
        below = below * r + 1.51986665636164571966e-2
        below = below * r + 1.48103976427480074590e-1
        below = below * r + 6.89767334985100004550e-1
        below = below * r + 1.67638483018380384940
        below = below * r + 2.05319162663775882187
        return above / (below * r + 1.0)
    r = root - 5.0
    above = 2.01033439929228813265e-7 * r + 2.71155556874348757815e-5
    above = above * r + 1.24266094738807843860e-3
    above = above * r + 2.65321895265761230930e-2
    above = above * r + 2.96560571828504891230e-1
    above = above * r + 1.78482653991729133580
    above = above * r + 5.46378491116411436990
    above = above * r + 6.65790464350110377720
    below = 2.04426310338993978564e-15 * r + 1.42151175831644588870e-7
    below = below * r + 1.84631831751005468180e-5
    below = below * r + 7.86869131145613259100e-4
    below = below * r + 1.48753612908506148525e-2
    below = below * r + 1.36929880922735805310e-1
    below = below * r + 5.99832206555887937690e-1
    return above / (below * r + 1.0)

"""FTRL-Proximal with per-coordinate rates, as three sums that merge by addition.

McMahan et al., Ad Click Prediction: a View from the Trenches (2013). A coordinate carries (z, n, D): the gradients less
what the weight has taken back, their squares, and the sum of the sigmas. Its weight is

    w = w0                                            where |z| <= l1, else
    w = w0 - (z - sign(z) l1) / (beta/alpha + D + l2),

which in one process is the paper's rule, since D = sqrt(n)/alpha there. Merged from several processes, sqrt(n) would be
too small by up to the square root of their number; D adds up.
"""

from enum import IntEnum
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, float32, numbered
from thalweg.operators.machine.lanes import LANES, descend_lane, descend_lanes
from thalweg.operators.machine.reserve import reserve_rows

Coordinates = npt.NDArray[np.float32]
"""float32 [rows, 5, size]: a row's weights, their initial values, z, n and D; weights are derived from the rest."""


@numbered
class Part(IntEnum):
    """The parts of a coordinate."""

    WEIGHT = 0
    INITIAL = 1
    Z = 2
    N = 3
    D = 4


PARTS = len(Part)


class Rate(NamedTuple):
    """How fast coordinates learn: `alpha`, `beta` of the per-coordinate rate alpha / (beta + sqrt(n)); `l1`, `l2`."""

    alpha: float
    beta: float
    l1: float
    l2: float


def rate(alpha: float, beta: float = 1.0, l1: float = 0.0, l2: float = 0.0) -> Rate:
    """Return a rate as the compiled code takes it."""
    return Rate(*(cast(float, np.float32(x)) for x in (alpha, beta, l1, l2)))


def new_coordinates(rows: int, size: int, initial: float = 0.0) -> Coordinates:
    """Return coordinates that have learned nothing; with `initial` 0 no memory is touched."""
    coordinates = reserve_rows(rows, is_dense=True, parts=(np.float32, (PARTS, size)))["parts"]
    if initial != 0.0:
        coordinates[:, Part.WEIGHT : Part.Z] = initial
    return coordinates


def learned(coordinates: Coordinates) -> Coordinates:
    """Return coordinates without their initial values, which follow from their key."""
    return np.delete(coordinates, Part.INITIAL, axis=1)


@compiled
def descend(coordinates: Coordinates, row: int, column: int, gradient: float, rate: Rate) -> None:
    """Take one step of one coordinate against `gradient`."""
    c = coordinates[row]
    descend_lane(c, c.shape[1], column, float32(gradient), rate.alpha, rate.l1, rate.beta / rate.alpha + rate.l2)


@compiled
def descend_vector(
    coordinates: Coordinates, row: int, first: int, gradient: npt.NDArray[np.float32], scale: float, rate: Rate
) -> None:
    """Take one step of the coordinates `first`, `first + 1`, … of a row against `scale * gradient` [size]."""
    c = coordinates[row]
    floor = rate.beta / rate.alpha + rate.l2
    whole = gradient.shape[0] // LANES * LANES
    for i in range(0, whole, LANES):
        descend_lanes(c, c.shape[1], first + i, gradient, i, scale, rate.alpha, rate.l1, floor)
    for i in range(whole, gradient.shape[0]):
        descend_lane(c, c.shape[1], first + i, gradient[i] * scale, rate.alpha, rate.l1, floor)

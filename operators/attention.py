"""Exact attention over a user's last behaviours, whose weights are SDIM's: both kinds of interest measure the same.

    Attn(q, S) = l2(sum over j of (1 - arccos(cos(q, s_j)) / pi) ** tau * s_j)

What does not depend on the candidate q is gathered once: an impression asks once, a request a thousand times.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators import sdim
from thalweg.operators.machine.compiled import clear, compiled, float32, float64
from thalweg.operators.machine.lanes import LANES, padded, project_lanes, spread_lanes


class Gathered(NamedTuple):
    """Scratch: the vectors s of a user's last behaviours, of each kind one behind another.

    `counts` int64 [kinds]: how many there are; `vectors` float32 [kinds, d / 8, short * 8]: eight coordinates of each,
    and the same by coordinate, so that a processor works at several behaviours at once: `coordinates` float64 [kinds,
    d, short]; `squares` float64 [kinds, short]: of their lengths; `cosines`, `kernel` float64 and `weights` float32
    [short], of one candidate, and `total` float32 [d to whole eights].
    """

    counts: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    coordinates: npt.NDArray[np.float64]
    squares: npt.NDArray[np.float64]
    cosines: npt.NDArray[np.float64]
    kernel: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float32]
    total: npt.NDArray[np.float32]


def new_gathered(kinds: int, short: int, size: int) -> Gathered:
    """Return room for so many behaviours of each kind, of vectors of `size` coordinates."""
    whole = padded(size)
    return Gathered(
        counts=np.zeros(kinds, np.int64),
        vectors=np.zeros((kinds, whole // LANES, short * LANES), np.float32),
        coordinates=np.zeros((kinds, size, short)),
        squares=np.zeros((kinds, short)),
        cosines=np.zeros(short),
        kernel=np.zeros(short),
        weights=np.zeros(short, np.float32),
        total=np.zeros(whole, np.float32),
    )


@compiled
def forget(gathered: Gathered, kind: int) -> None:
    """Empty what is gathered of a kind."""
    gathered.counts[kind] = 0


@compiled
def gather(gathered: Gathered, kind: int, vector: npt.NDArray[np.float32]) -> None:
    """Add a behaviour with this vector [d]; one without a direction counts for nothing."""
    square = length_square(vector)
    if square == 0.0:
        return
    place = gathered.counts[kind]
    gathered.counts[kind] = place + 1
    gathered.squares[kind, place] = square
    for i in range(vector.shape[0]):
        gathered.vectors[kind, i // LANES, LANES * place + i % LANES] = vector[i]
        gathered.coordinates[kind, i, place] = float64(vector[i])


@compiled
def attend(
    gathered: Gathered, kind: int, candidate: npt.NDArray[np.float32], tau: int, out: npt.NDArray[np.float32]
) -> None:
    """Write the attention of a candidate's vector [d] to `out` [d], normalised to length 1 (or zero)."""
    clear(out)
    square = length_square(candidate)
    count, size = gathered.counts[kind], out.shape[0]
    if square == 0.0 or count == 0:
        return
    cosines, squares, kernel = gathered.cosines[:count], gathered.squares[kind, :count], gathered.kernel[:count]
    write_products(gathered, kind, candidate)
    for place in range(count):
        cosines[place] /= math.sqrt(square * squares[place])
    sdim.write_kernel(cosines, tau, kernel)
    for place in range(count):
        gathered.weights[place] = kernel[place]
    for chunk in range(gathered.vectors.shape[1]):
        spread_lanes(gathered.total, LANES * chunk, gathered.vectors[kind, chunk], 0, gathered.weights, count)
    for i in range(size):
        out[i] = gathered.total[i]
    normalize(out)


@compiled
def write_products(gathered: Gathered, kind: int, candidate: npt.NDArray[np.float32]) -> None:
    """Write the products of a candidate's vector with each behaviour's to `cosines`, eight behaviours at once.

    Those of the last eight that are none are of what was there before, and not read.
    """
    coordinates, count = gathered.coordinates[kind], gathered.counts[kind]
    size, short = coordinates.shape[0], coordinates.shape[1]
    whole = min(-(-count // LANES), short // LANES) * LANES
    clear(gathered.cosines)
    for at in range(0, whole, LANES):
        project_lanes(gathered.cosines, at, coordinates, at, short, candidate, size)
    for place in range(whole, count):
        for i in range(size):
            gathered.cosines[place] += float64(candidate[i]) * coordinates[i, place]


@compiled
def length_square(vector: npt.NDArray[np.float32]) -> float:
    """Return the square of a vector's Euclidean norm."""
    square = 0.0
    for i in range(vector.shape[0]):
        square += float64(vector[i]) * float64(vector[i])
    return square


@compiled
def normalize(vector: npt.NDArray[np.float32]) -> None:
    """Divide a vector by its Euclidean norm; zero stays zero."""
    square = length_square(vector)
    if square > 0.0:
        factor = float32(1.0 / math.sqrt(square))
        for i in range(vector.shape[0]):
            vector[i] *= factor

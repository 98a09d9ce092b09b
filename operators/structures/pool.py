"""Rows to be taken and given back: a freed row is the next taken, so no more is touched than was ever in use."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.reserve import reserve

EVER_USED, FREED = range(2)


class Pool(NamedTuple):
    """`freed` int32 [limit], a stack; `counts` int64 [2]: rows ever used, freed rows waiting."""

    freed: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]


def new_pool(limit: int) -> Pool:
    """Return a pool of `limit` rows, all free."""
    return Pool(reserve(limit, np.int32), reserve(2, np.int64))


@compiled
def available(pool: Pool) -> int:
    """Return how many rows can be taken."""
    return int64(pool.freed.shape[0]) - pool.counts[EVER_USED] + pool.counts[FREED]  # type: ignore[no-any-return]


@compiled
def take(pool: Pool) -> int:
    """Return a free row; the caller has seen that there is one."""
    if pool.counts[FREED] > 0:
        pool.counts[FREED] -= 1
        return int64(pool.freed[pool.counts[FREED]])
    pool.counts[EVER_USED] += 1
    return pool.counts[EVER_USED] - 1  # type: ignore[no-any-return]


@compiled
def give(pool: Pool, row: int) -> None:
    """Free a row."""
    pool.freed[pool.counts[FREED]] = row
    pool.counts[FREED] += 1

"""Rows to be taken and given back: a freed row is the next taken, so no more is touched than was ever in use."""

from enum import IntEnum
from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int32, Int64, made, per


class Stock(IntEnum):
    """The numbers of `Pool.counts`."""

    EVER_USED = 0
    FREED = 1


class Pool(NamedTuple):
    """Which rows are free."""

    freed: Annotated[Int32, per("limit", "freed rows, a stack", digest=False, used=("counts", Stock.FREED), keeps=True)]
    counts: Annotated[Int64, per("2", "`Stock`: rows ever used, freed rows", digest=False)]


def new_pool(limit: int) -> Pool:
    """Return a pool of `limit` rows, all free."""
    return made(Pool, limit=limit)


@compiled
def available(pool: Pool) -> int:
    """Return how many rows can be taken."""
    return int64(pool.freed.shape[0]) - pool.counts[Stock.EVER_USED] + pool.counts[Stock.FREED]  # type: ignore[no-any-return]


@compiled
def take(pool: Pool) -> int:
    """Return a free row; the caller has seen that there is one."""
    if pool.counts[Stock.FREED] > 0:
        pool.counts[Stock.FREED] -= 1
        return int64(pool.freed[pool.counts[Stock.FREED]])
    pool.counts[Stock.EVER_USED] += 1
    return pool.counts[Stock.EVER_USED] - 1  # type: ignore[no-any-return]


@compiled
def give(pool: Pool, row: int) -> None:
    """Free a row."""
    pool.freed[pool.counts[Stock.FREED]] = row
    pool.counts[Stock.FREED] += 1

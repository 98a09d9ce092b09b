"""The original text of what waits, in chained blocks of 64 bytes: kept once, returned as it was, bounded."""

from typing import Annotated, NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64
from thalweg.operators.machine.declare import Int32, UInt8, made, part, per, wiper
from thalweg.operators.machine.lanes import copy_bytes
from thalweg.operators.structures import pool
from thalweg.operators.structures.pool import Pool

BLOCK_BYTES = 64


class Texts(NamedTuple):
    """Blocks of text, chained."""

    blocks: Annotated[UInt8, per("blocks 64", digest=False)]
    next: Annotated[Int32, per("blocks", "the block that follows + 1", digest=False)]
    pool: Annotated[Pool, part(limit="blocks")]


wipe_block = wiper(Texts, "blocks")


def new_texts(limit_bytes: int) -> Texts:
    """Return an empty store of at most `limit_bytes`."""
    return made(Texts, blocks=max(1, limit_bytes // BLOCK_BYTES))


@compiled
def blocks_of(length: int) -> int:
    """Return how many blocks a text of `length` bytes fills."""
    return (length + BLOCK_BYTES - 1) // BLOCK_BYTES


@compiled
def has_room(texts: Texts, length: int) -> bool:
    """Return whether a text of `length` bytes fits."""
    return pool.available(texts.pool) >= blocks_of(length)


@compiled
def write_text(texts: Texts, data: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Keep `data[start:end]`, for which there is room, and return its first block + 1 (0 for an empty text)."""
    head = int64(0)
    blocks = blocks_of(end - start)
    for number in range(blocks - 1, -1, -1):
        block = pool.take(texts.pool)
        at = start + number * BLOCK_BYTES
        kept = texts.blocks[block]
        copy_bytes(kept, 0, data, at, min(BLOCK_BYTES, end - at))
        texts.next[block] = head
        head = block + 1
    return head


@compiled
def read_text(texts: Texts, head: int, length: int, out: npt.NDArray[np.uint8], at: int) -> None:
    """Copy a kept text of `length` bytes to `out[at:]`."""
    block = head
    done = 0
    while done < length:
        count = min(BLOCK_BYTES, length - done)
        kept = texts.blocks[block - 1]
        copy_bytes(out, at + done, kept, 0, count)
        done += count
        block = texts.next[block - 1]


@compiled
def release_text(texts: Texts, head: int) -> None:
    """Give a text's blocks back, wiped: what was erased leaves no bytes behind."""
    block = head
    while block != 0:
        following = texts.next[block - 1]
        wipe_block(texts, block - 1)
        pool.give(texts.pool, block - 1)
        block = following


@compiled
def read_texts(
    texts: Texts, head: npt.NDArray[np.int32], length: npt.NDArray[np.int32], out: npt.NDArray[np.uint8]
) -> None:
    """Copy kept texts, one after the other, to `out`."""
    at = 0
    for i in range(head.shape[0]):
        read_text(texts, head[i], int64(length[i]), out, at)
        at += int64(length[i])

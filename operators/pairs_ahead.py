"""The pairs of a request's candidates that differ in the item alone, found before it is their turn.

Rows of pairs are anywhere in memory, and so are the cells of the index that names them. The memory of an item's cells
is asked for two candidates ahead, that of its rows one ahead. So no candidate waits for either.
"""

import numpy as np
import numpy.typing as npt
from thalweg.operators.cross import TURNS, Cross, CrossScratch, pair_key, paired_of
from thalweg.operators.features import ITEM
from thalweg.operators.machine.compiled import compiled, int64, uint64
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.structures import index


@compiled
def note_keys(network: Cross, scratch: CrossScratch, candidate: int, item: int, keys: npt.NDArray[np.uint64]) -> None:
    """Note the keys of the pairs of the candidate with this number, and ask for where their rows are named.

    It has this item and otherwise the values with these `keys` [fields or more].
    """
    noted = scratch.ahead[candidate % TURNS]
    for field in range(2, paired_of(scratch)):
        noted[field] = pair_key(int64(ITEM), item, keys[field])
        if noted[field] != uint64(0):
            index.prefetch_cells(network.pairs.lookup, noted[field])


@compiled
def find_rows(network: Cross, scratch: CrossScratch, candidate: int) -> None:
    """Find the rows of the pairs whose keys are noted for a candidate, and ask for what is read of them."""
    noted, rows = scratch.ahead[candidate % TURNS], scratch.ahead_rows[candidate % TURNS]
    for field in range(2, paired_of(scratch)):
        row = int64(-1)
        if noted[field] != uint64(0):
            row = int64(index.find(network.pairs.lookup, noted[field]))
        rows[field] = row
        if row >= 0:
            prefetch(network.counted.counts, row)
            prefetch(network.counted.page, row)
            if network.of_heads.shape[1] > 0:
                prefetch(network.of_heads, row)
                prefetch(network.pairs.key, row)  # and the generation with it


@compiled
def take_pairs(network: Cross, scratch: CrossScratch, slot: int, candidate: int, has_item: bool) -> None:
    """Put the pairs of a candidate, whose rows were found, in place of those of the candidate before.

    It has none if it does not have its item's row. Their generations are read only where heads go by them: nothing
    takes a row away before the candidate is scored.
    """
    rows, seen = scratch.ahead_rows[candidate % TURNS], network.pairs_seen
    for field in range(2, paired_of(scratch)):
        place, row = 2 * (field - 2) + ITEM, int64(rows[field]) if has_item else int64(-1)
        seen.row[slot, place] = row
        if network.of_heads.shape[1] > 0:
            seen.generation[slot, place] = network.pairs.generation[row] if row >= 0 else np.uint32(0)

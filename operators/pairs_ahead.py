"""Pairs of what comes next, found before it is their turn: of events, and of a request's candidates.

Rows of pairs are anywhere in memory, and so are the cells of the index that names them. The memory of the cells is
asked for two events or candidates ahead, that of the rows one ahead. So nothing waits for either. The candidates here
differ in the item alone.
"""

import numpy as np
import numpy.typing as npt
from thalweg.operators.cross import TURNS, Cross, CrossScratch, paired_of, recent_of
from thalweg.operators.cross_pairs import pair_key, prefetch_pair
from thalweg.operators.features import ITEM, USER
from thalweg.operators.machine.compiled import compiled, int64, uint64
from thalweg.operators.machine.prefetch import prefetch
from thalweg.operators.structures import index


@compiled
def prefetch_pairs(
    network: Cross, scratch: CrossScratch, field: npt.NDArray[np.uint8], keys: npt.NDArray[np.uint64], is_named: bool
) -> None:
    """Ask for where the pairs of an event with these values [values] are named; once that is there, for their rows."""
    recent = recent_of(scratch.values)
    for value in range(2, keys.shape[0] if is_paired(field) else 0):
        if field[value] < recent:
            for which in range(2):
                key = pair_key(which, keys[which], keys[value])
                if is_named:
                    prefetch_pair(network, int64(index.find(network.pairs.lookup, key)))
                else:
                    index.prefetch_key(network.pairs.lookup, key)


@compiled
def is_paired(field: npt.NDArray[np.uint8]) -> bool:
    """Return whether the values of these fields begin with a user and an item: those of an impression do."""
    return bool(field.shape[0] > 2 and field[USER] == USER and field[ITEM] == ITEM)


@compiled
def note_keys(network: Cross, scratch: CrossScratch, candidate: int, item: int, keys: npt.NDArray[np.uint64]) -> None:
    """Note the keys of the pairs of the candidate with this number, and ask for where their rows are named.

    It has this item and otherwise the values with these `keys` [fields or more].
    """
    noted = scratch.ahead[candidate % TURNS]
    for field in range(2, paired_of(scratch)):
        noted[field] = pair_key(int64(ITEM), item, keys[field])
        if noted[field] != uint64(0):
            index.prefetch_key(network.pairs.lookup, noted[field])


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

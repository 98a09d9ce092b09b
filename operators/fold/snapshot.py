"""The part of a state that was ever used: counted, copied for a checkpoint, and restored from one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.consistency import refuse_inconsistent, refuse_sizes
from thalweg.operators.fold.state import State, new_state
from thalweg.operators.machine.declare import mapped, walk
from thalweg.operators.machine.reserve import reserved_bytes
from thalweg.operators.structures.pool import Pool, Stock

RENAMED = {
    "private.": "user_rows.",
    "seen.": "features_seen.",
    "recalled.": "memory_reads.",
    "behaviors.shown": "visits.shown",
}
DROPPED = ("features.touched", "users.touched")  # in checkpoints of versions that had them


def rows_used(state: State) -> dict[Any, int]:
    """Return how many rows were ever used, by what indexes them."""
    pools = ((each.field.shape[0], each.owner.counts) for each in walk(state) if isinstance(each.owner, Pool))
    return {
        size.removesuffix("_limit"): int(counts[Stock.EVER_USED]) for size, counts in pools if isinstance(size, str)
    }


def used(state: State) -> State:
    """Return views of the part of each array that was ever used: what is counted, saved and restored."""
    rows, cut = rows_used(state), {}
    for each in walk(state):
        if each.field.used is None:
            cut[each.path] = each.array[: rows.get(each.field.shape[0])]
        else:
            name, place = each.field.used
            cut[each.path] = each.array[: int(getattr(each.owner, name)[place])]
    return mapped(state, cut)  # type: ignore[no-any-return]


def arrays_of(tree: Any, path: str = "") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield every array of a tree of named tuples with its dotted name."""
    for name, part in zip(tree._fields, tree, strict=True):
        if isinstance(part, np.ndarray):
            yield path + name, part
        else:
            yield from arrays_of(part, f"{path}{name}.")


def state_bytes(state: State) -> int:
    """Return the bytes of all that was ever used: an upper bound of what is resident of the state."""
    return reserved_bytes([array for _, array in arrays_of(used(state))])


def snapshot(state: State) -> dict[str, npt.NDArray[Any]]:
    """Return copies of the used part of each array by its dotted name."""
    return {name: array.copy() for name, array in arrays_of(used(state))}


def renamed(name: str) -> str:
    """Return today's name of an array that a checkpoint may have by an older one.

    >>> renamed("seen.row"), renamed("users.key")
    ('features_seen.row', 'users.key')
    """
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def restore(configuration: Configuration, arrays: dict[str, npt.NDArray[Any]]) -> State:
    """Return the state that a snapshot was taken of.

    Raises ValueError where the arrays do not fit the configuration's shape, or are none that the fold could have left.
    """
    arrays = {renamed(name): array for name, array in arrays.items() if name not in DROPPED}
    state = new_state(configuration)
    reserved = dict(arrays_of(state))
    of_nothing = {name: array[:0] for name, array in reserved.items() if not array.size}
    arrays = of_nothing | arrays  # a version that knew of no such arrays saved none
    for name, array in reserved.items():
        saved = arrays.get(name)
        if saved is None:
            raise ValueError(f"the snapshot has no {name}")
        if saved.dtype != array.dtype or saved.shape[1:] != array.shape[1:] or len(saved) > len(array):
            raise ValueError(
                f"{name} is {saved.dtype} {saved.shape}, the configuration has {array.dtype} {array.shape}"
            )
        array[: len(saved)] = saved
    unknown = arrays.keys() - reserved.keys()
    if unknown:
        raise ValueError(f"the snapshot has {sorted(unknown)[0]}, which this version does not know")
    refuse_sizes(state)
    cut = used(state)
    for name, array in arrays_of(cut):
        if array.size and array.shape != arrays[name].shape:
            raise ValueError(f"{name} is {arrays[name].shape}, but {array.shape} of it was ever used")
    refuse_inconsistent(cut, configuration)
    return state

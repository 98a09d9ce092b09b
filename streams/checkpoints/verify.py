"""Looking after checkpoints: what one says of itself, whether it is whole, and going back to an older one."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.digest import digest
from thalweg.operators.fold.snapshot import restore
from thalweg.operators.learner import BUILT_IN
from thalweg.streams.checkpoints.format import (
    Checkpoint,
    CheckpointError,
    DamagedError,
    Header,
    Store,
    refuse_misnamed,
    said,
)
from thalweg.streams.partition.river_model import digest_in, refuse_unsigned, without_model
from thalweg.streams.partition.seal import Seal
from thalweg.streams.refusal import Refusal


class Found(NamedTuple):
    """A checkpoint as it is in a store: `header` None and a `problem` where it can't be used."""

    path: Any
    next_offset: int
    modified_at_s: float
    bytes: int
    header: Header | None
    problem: str


class RolledBack(NamedTuple):
    """The checkpoint that a worker resumes from now, and where the newer ones are."""

    target: Found
    aside: list[Any]


def look_at(store: Store, path: Any) -> Found:
    """Return what is at a place of a store, every byte of it verified; nothing is raised for what is damaged."""
    modified_at_s, size, header, problem = 0.0, 0, None, ""
    try:
        modified_at_s, size = store.status(path)
        header = read(store, path).header
    except CheckpointError as error:
        problem = str(error)
    next_offset = int(path.stem) if path.stem.isdecimal() else -1
    return Found(path, next_offset if header is None else header.next_offset, modified_at_s, size, header, problem)


def read(store: Store, path: Any) -> Checkpoint:
    """Return a checkpoint, every byte verified, and its name too. Raises CheckpointError where it can't be used."""
    checkpoint = store.read(path)
    refuse_misnamed(path, checkpoint.header)
    return checkpoint


def verify(store: Store, path: Any, seal: Seal | None = None) -> Header:
    """Restore a checkpoint's state under the configuration that it was made with, and compare its digest.

    A River classifier in it is not loaded, but with a `seal` its signature is verified.

    Raises CheckpointError where anything is not as the header says.
    """
    checkpoint = read(store, path)
    header = checkpoint.header
    try:
        configuration = msgspec.convert(header.configuration, Configuration)
        arrays = checkpoint.part("")
        model = configuration.learner.model
        state = restore(configuration, arrays if model == BUILT_IN else without_model(arrays))
        found = digest_in(digest(state), model, arrays)
        if model != BUILT_IN and seal is not None:
            refuse_unsigned(arrays, model, seal.bound(header))
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise DamagedError(f"{path} holds no state of this version: {said(error)}") from None
    except Refusal as refusal:
        raise CheckpointError(f"{path}: {refusal.message}") from None
    except (MemoryError, OverflowError, OSError) as error:
        raise DamagedError(f"{path} asks for more memory than there is: {said(error)}") from None
    if found != header.digest:
        raise DamagedError(f"{path} holds a state of digest {found}, but says {said(header.digest)}")
    return header


def roll_back(
    store: Store, to: int | None = None, *, on_target: Callable[[int], object] = lambda next_offset: None
) -> RolledBack:
    """Set aside what is newer than the checkpoint at the offset `to`, by default than the last but one that is whole.

    The newest go first: what is left has a whole newest one at every moment. `on_target` gets the offset before
    any file is moved, and may raise.

    Raises CheckpointError where there is none to go back to, or it is not whole in every byte; nothing is moved then.
    """
    paths = store.paths()
    whole = [found for found in (look_at(store, path) for path in paths) if found.header is not None]
    if to is None:
        target = whole[1] if len(whole) > 1 else None
    else:
        target = next((found for found in whole if found.next_offset == to), None)
    if target is None:
        there = ", ".join(str(found.next_offset) for found in whole) or "none"
        wanted = "before the newest that is whole" if to is None else f"at offset {to} that is whole"
        raise CheckpointError(f"{store.directory} has no checkpoint {wanted}; whole ones: {there}")
    verify(store, target.path)
    on_target(target.next_offset)
    newer = paths[: paths.index(target.path)]
    return RolledBack(target, [store.set_aside(path) for path in newer])

"""Memory that there is not: which settings ask for it, and for how much, in one line."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.emitted import new_emitted
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import new_state
from thalweg.operators.machine.reserve import bytes_reserved
from thalweg.schemas.bounds import bounds
from thalweg.streams.configuration.sections import bare, is_tree, members
from thalweg.streams.refusal import Refusal

NAMED_MAX = 4
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


@contextmanager
def refusing_memory(configuration: Configuration) -> Iterator[None]:
    """Turn what the system does not give within a block into a Refusal that names the settings and their bytes."""
    try:
        yield
    except (MemoryError, OverflowError, OSError):
        raise Refusal(told(configuration)) from None


def told(configuration: Configuration) -> str:
    """Return a message: what a partition's state needs, and which settings make it so large."""
    needed = bytes_reserved(partial(_reserve, configuration))
    total = shown_bytes(needed)
    large = (each for each in asked(configuration) if each[0] >= needed // 20)
    asking = sorted(large, key=lambda each: -each[0])[:NAMED_MAX]
    listed = ", ".join(f"{name} = {value:,} takes {shown_bytes(size)}" for size, name, value in asking)
    return f"there is no memory for a partition's state of {total}: {listed}; lower what is too large"


def asked(configuration: Configuration) -> Iterator[tuple[int, str, int]]:
    """Give the bytes that each whole number of the configuration asks for, compared with the least it may be."""
    total = bytes_reserved(partial(_reserve, configuration))
    for section, member in members(Configuration).items():
        if not is_tree(bare(member.form)):
            continue
        for name, inner in members(bare(member.form)).items():
            value, found = getattr(getattr(configuration, section), name), bounds(inner.form)
            if type(value) is int and found is not None:
                with suppress(ArithmeticError, ValueError):
                    smaller = bytes_reserved(partial(_reserve, _with(configuration, section, name, found[0])))
                    yield total - smaller, f"{section}.{name}", value


def shown_bytes(size: float) -> str:
    """Return bytes as people read them.

    >>> [shown_bytes(size) for size in (512, 1 << 20, 3 << 39)]
    ['512 bytes', '1 MiB', '1.5 TiB']
    """
    unit = max(0, (int(size).bit_length() - 1) // 10)
    return f"{size / 1024**unit:.3g} {UNITS[min(unit, len(UNITS) - 1)]}"


def _reserve(configuration: Configuration) -> None:
    """Reserve a state, and room for what one step emits."""
    new_state(configuration)
    new_emitted(configuration, 0, input_count(configuration))


def _with(configuration: Configuration, section: str, name: str, value: float) -> Configuration:
    """Return a copy with one value changed, whatever the others are: nothing is ever folded under it."""
    part: Any = copy.copy(getattr(configuration, section))
    object.__setattr__(part, name, int(value))
    whole = copy.copy(configuration)
    object.__setattr__(whole, section, part)
    return whole

"""Write docs/memory.md from the declarations of the state's arrays.

python docs/make_memory.py            write it
python docs/make_memory.py --check    say whether it is current, by the exit status
"""

import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.state import State, new_state
from thalweg.operators.machine.declare import Declared, walk
from thalweg.operators.structures.index import BUCKET_CELLS, LOAD_FACTOR

PAGE = Path(__file__).parent / "memory.md"
MILLION = 1_000_000
CELL_BYTES = 64 / BUCKET_CELLS  # of the index: a cache line has so many keys and rows
MIB, GIB = 1 << 20, 1 << 30

HEAD = """\
# Memory

What a partition's state takes, at the default configuration. Arrays are reserved at their limit, but a page that was
never written takes nothing: memory grows with what is in use. An empty partition takes less than 32 MiB.

This page is written by `python docs/make_memory.py`, from the declarations of the state
([`operators/fold/state.py`](../operators/fold/state.py)).

## What one takes

| what | bytes | a million of them | at most | by |
|---|---|---|---|---|
"""
# What indexes arrays: what one is, the setting that limits them, and whether an index leads to them.
ROWS = {
    "users": ("user", "behaviors.users_limit", True),
    "values": ("item, context value, or value of any other field", "table.rows_limit", True),
    "cross_pairs": ("pair of user or item with another value", "learner.cross_pairs_limit", True),
    "slots": ("waiting impression, without its text", "joiner.waiting_limit", True),
    "blocks": ("64 bytes of its text", "joiner.text_bytes", False),
    "fact_items": ("item with facts, without them", "facts.items_limit", True),
    "item_fact_blocks": ("64 bytes of items' facts", "facts.items_bytes", False),
    "user_fact_blocks": ("64 bytes of users' facts", "facts.users_bytes", False),
    "nodes": ("feedback of a waiting impression", "joiner.feedback_limit", False),
    "histories": ("long history", "sdim.histories_limit", False),
}
INDEXED = """
A row's arrays that lie side by side are filled up to whole cache lines, which is part of the bytes. An index takes
{cell:.1f} bytes a key besides: a key and a row in each cell, at most {load:.0%} of the cells filled.

## What is there once

| what | bytes |
|---|---|
"""

ARRAYS = """
## Every array

The first size of a shape states what has a row in it. The digest of the state leaves out mere
places.

| array | type | shape | in the digest | what |
|---|---|---|---|---|
"""
SIZES = """
The sizes at the default configuration:

"""


def bytes_by_rows(state: State) -> dict[object, int]:
    """Return the bytes of one row, by what indexes it; arrays side by side count once, with what fills them up."""
    found: dict[object, int] = {}
    counted = set()
    for each in walk(state):
        size = each.field.shape[0]
        alone = each.array.itemsize * prod(each.array.shape[1:])
        if each.array.strides[0] != alone:
            if id(each.array.base) in counted:
                continue
            counted.add(id(each.array.base))
            alone = each.array.strides[0]
        found[size] = found.get(size, 0) + alone
    return found


def row_lines(state: State) -> Iterator[str]:
    """Yield a line for each kind of row."""
    by_rows = bytes_by_rows(state)
    limits = {str(each.field.shape[0]): len(each.array) for each in walk(state)}
    for size, (what, setting, is_indexed) in ROWS.items():
        row = by_rows[size] + (CELL_BYTES / LOAD_FACTOR if is_indexed else 0)
        yield f"| {what} | {row:,.0f} | {written(row * MILLION)} | {limits[size]:,} | `{setting}` |"


def once_lines(state: State) -> Iterator[str]:
    """Yield a line for each array that is there once, the largest first."""
    once = [each for each in walk(state) if not is_by_row(each)]
    for each in sorted(once, key=lambda each: -each.array.nbytes):
        if each.array.nbytes >= 1_000:
            yield f"| `state.{each.path}` | {written(each.array.nbytes)} |"


def is_by_row(each: Declared) -> bool:
    """Return whether an array grows with what is in use."""
    return each.field.shape[0] in ROWS or each.field.used is not None


def written(size: float) -> str:
    """Return a number of bytes as one reads it.

    >>> written(2_500), written(3 << 20), written(5 << 29)
    ('2,500', '3.0 MiB', '2.5 GiB')
    """
    if size < MIB:
        return f"{size:,.0f}"
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.1f} MiB"


def array_lines(state: State) -> Iterator[str]:
    """Yield a line for each array."""
    for each in walk(state):
        shape = ", ".join(size if isinstance(size, str) else str(size) for size in named(each))
        seen = "yes" if each.field.digest else "no"
        yield f"| `state.{each.path}` | {each.array.dtype} | [{shape}] | {seen} | {each.field.about} |"


def named(each: Declared) -> Iterator[object]:
    """Yield the sizes of an array's declaration; one that follows from another is its number."""
    for size, number in zip(each.field.shape, each.array.shape, strict=True):
        yield number if isinstance(size, tuple) else size


def size_lines(state: State) -> Iterator[str]:
    """Yield a line for each size that has a name."""
    sizes: dict[str, int] = {}
    for each in walk(state):
        sizes |= {str(size): number for size, number in zip(named(each), each.array.shape, strict=True)}
    yield from (f"- `{size}`: {sizes[size]:,}" for size in sorted(sizes) if not size.isdecimal())


def page() -> str:
    """Return the page."""
    state = new_state(Configuration())
    indexed = INDEXED.format(cell=CELL_BYTES / LOAD_FACTOR, load=LOAD_FACTOR)
    lines = HEAD.splitlines()
    lines += [*row_lines(state), *indexed.splitlines(), *once_lines(state)]
    lines += [*ARRAYS.splitlines(), *array_lines(state), *SIZES.splitlines(), *size_lines(state)]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the page, or say whether it is current."""
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    return int(PAGE.read_text(encoding="utf-8") != page())


if __name__ == "__main__":
    raise SystemExit(main())

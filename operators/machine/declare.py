"""State declared once: an operator's arrays are the annotated fields of a named tuple, a line each.

    class Visits(NamedTuple):
        shown: Annotated[Int64, per("users", "impressions ever")]
        kinds_ms: Annotated[Int64, per("users kinds", "when the last one of each kind was")]

The first name of a shape states what indexes the array. From the declaration follow

- the arrays (`made`),
- the compiled function that empties a row (`wiper`),
- the part that is counted and saved (`fold.snapshot`),
- the digest's projection (`fold.digest`),
- the verification of a checkpoint (`fold.consistency`),
- docs/memory.md.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar, cast, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import clear, compiled
from thalweg.operators.machine.reserve import reserve, reserve_rows

UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
UInt32 = npt.NDArray[np.uint32]
UInt64 = npt.NDArray[np.uint64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Array = npt.NDArray[Any]
Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Field:
    """What `per` declares of an array."""

    shape: tuple[Any, ...]
    about: str = ""
    start: float | str | tuple[int, ...] = 0
    below: str | int | None = None
    upto: str | int | None = None
    refers: str = ""
    digest: bool = True
    where: Callable[[Any], Array] | None = None
    seen_as: Callable[[Any], Array] | None = None
    text: str = ""
    over: str = ""
    used: tuple[str, int] | None = None
    keeps: bool = False
    apart: bool = False
    dense: bool = False
    private: bool = False


@dataclass(frozen=True)
class Part:
    """What `part` declares of a named tuple within another one."""

    fields: dict[str, dict[str, Any]]
    sizes: dict[str, Any]


class Declared(NamedTuple):
    """An array of a state: its dotted `path`, what is declared of it, the named tuple that it is in, and itself."""

    path: str
    field: Field
    owner: Any
    array: Array


def per(shape: str, about: str = "", **more: Any) -> Field:
    """Declare an array.

    Parameters
    ----------
    shape
        Names and numbers; what the first one names has a row here.
    about
        What it holds, and the unit.
    more
        `start`: what it holds at first, numbers or the name of one. `below`, `upto`: its numbers are within 0 and that.
        `refers`: it holds row numbers of these, -1 for none, of the generation in the array `generation`.

        `digest` False: the digest leaves it out. `where`: the digest sees it there only, by a mask of the rows' arrays.
        `seen_as`: what it sees instead. `text`: it sees also the text that begins in that block + 1, of this length.
        `over`: the rows that it sees, if not all in use.

        `used`: the number that counts how much of it is in use. `keeps`: a wiped row keeps it. `apart`: not side by
        side with the others of its row; `dense` as for `reserve`. `private`: it holds something of one user, though no
        row of a user indexes it.

    """
    return Field(tuple(int(size) if size.isdecimal() else size for size in shape.split()), about, **more)


def part(fields: dict[str, dict[str, Any]] | None = None, **sizes: Any) -> Part:
    """Declare a named tuple within another: what its sizes are here, and what is declared otherwise of its `fields`.

    A size is a number, a size of the outer tuple, or a function and such a size: `(buckets_of, "rows")`.
    """
    return Part(fields or {}, sizes)


def side_by_side(*, is_dense: bool = False) -> Callable[[type[Kind]], type[Kind]]:
    """Decorate a named tuple: its arrays of one row lie side by side in memory; `is_dense` as for `reserve`."""

    def decorated(kind: type[Kind]) -> type[Kind]:
        _SIDE_BY_SIDE[kind] = is_dense
        return kind

    return decorated


_SIDE_BY_SIDE: dict[Any, bool] = {}


def made(kind: Callable[..., Kind], **sizes: Any) -> Kind:
    """Return a named tuple of reserved arrays that hold what they start with.

    >>> from typing import Annotated
    >>> class Visits(NamedTuple):
    ...     shown: Annotated[Int64, per("users", "impressions ever")]
    ...     kinds_ms: Annotated[Int64, per("users kinds", "when the last one of each kind was", start=-1)]
    >>> made(Visits, users=1, kinds=2)
    Visits(shown=array([0]), kinds_ms=array([[-1, -1]]))
    """
    found: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, member, declared in _declarations(kind):
        if isinstance(declared, Part):
            inner = {name: _sized(size, sizes) for name, size in declared.sizes.items()}
            found[name] = made(member, **sizes | inner)
            continue
        dtype = _dtype_of(member)
        shape = tuple(_sized(size, sizes) for size in declared.shape)
        if kind in _SIDE_BY_SIDE and isinstance(declared.shape[0], str) and not declared.apart:
            rows.setdefault(declared.shape[0], {})[name] = (dtype, shape[1:])
        elif declared.start != 0:  # few numbers
            found[name] = np.full(shape, _sized(declared.start, sizes), dtype)
        else:
            found[name] = reserve(shape, dtype, is_dense=declared.dense)
    for size, columns in rows.items():
        found |= reserve_rows(sizes[size], is_dense=_SIDE_BY_SIDE[kind], **columns)
    return kind(**found)


def _sized(size: Any, sizes: dict[str, Any]) -> Any:
    """Return the number that a size is, among sizes by name."""
    if isinstance(size, tuple) and callable(size[0]):
        return size[0](_sized(size[1], sizes))
    return sizes[size] if isinstance(size, str) else size


@cache
def _dtype_of(array: Any) -> np.dtype[Any]:
    """Return the type of the numbers in an annotated array."""
    dtype: np.dtype[Any] = np.dtype(get_args(get_args(array)[1])[0])
    return dtype


@cache
def _declarations(kind: Any) -> list[tuple[str, Any, Any]]:
    """Return each member of a named tuple: its name, its type, and what is declared of it."""
    return [(name, *get_args(hint)) for name, hint in get_type_hints(kind, include_extras=True).items()]


@cache
def fields_of(kind: Any) -> list[tuple[str, Field]]:
    """Return all arrays of a named tuple by their dotted names, their sizes as this tuple names them."""
    found: list[tuple[str, Field]] = []
    for name, member, declared in _declarations(kind):
        if isinstance(declared, Field):
            found.append((name, declared))
            continue
        for path, field in fields_of(member):
            shape = tuple(declared.sizes.get(size, size) for size in field.shape)
            below = declared.sizes.get(field.below, field.below)
            other = declared.fields.get(path, {})
            found.append((f"{name}.{path}", replace(field, shape=shape, below=below, **other)))
    return found


def walk(tree: Any) -> Iterator[Declared]:
    """Yield every array of a tree of named tuples, with what is declared of it, in that order."""
    for path, field, owner_of, name in _members_of(cast(Any, type(tree))):
        owner = tree if owner_of is None else owner_of(tree)
        yield Declared(path, field, owner, getattr(owner, name))


@cache
def _members_of(kind: Any) -> list[tuple[str, Field, Callable[[Any], Any] | None, str]]:
    """Return all arrays of a named tuple: dotted name, declaration, what finds the tuple it is in, its name there."""
    parts = ((path, field, *path.rpartition(".")[::2]) for path, field in fields_of(kind))
    return [(path, field, attrgetter(outer) if outer else None, name) for path, field, outer, name in parts]


def mapped(tree: Any, arrays: dict[str, Array], path: str = "") -> Any:
    """Return a tree of named tuples with the arrays that have these dotted names."""
    parts = (
        mapped(member, arrays, f"{path}{name}.") if hasattr(member, "_fields") else arrays[path + name]
        for name, member in zip(tree._fields, tree, strict=True)
    )
    return type(tree)(*parts)


def wiper(kind: Any, size: str, but: tuple[str, ...] = ()) -> Callable[[Any, int], None]:
    """Return the compiled function that empties a row of all arrays of a named tuple that `size` indexes.

    The members `but` are left out: they empty their own. The function is written out array by array, as a person would:
    compiled code can't go over declarations.
    """
    name = f"wipe_{kind.__name__.lower()}_{size}"
    lines = [f"def {name}(tree, row):"]
    for path, field in fields_of(kind):
        if field.shape[0] == size and not field.keeps and path.partition(".")[0] not in but:
            lines += _emptied(f"tree.{path}", len(field.shape))
    space: dict[str, Any] = {"clear": clear, "__name__": __name__}
    exec(compile("\n".join(lines), __file__, "exec"), space)
    return cast(Callable[[Any, int], None], compiled(space[name]))


def _emptied(array: str, dimensions: int) -> list[str]:
    """Return the lines of code that empty a row of an array.

    >>> print(*_emptied("rings", 3), sep="\\n")
        for i1 in range(rings.shape[1]):
            clear(rings[row, i1])
    """
    if dimensions == 1:
        return [f"    {array}[row] = 0"]
    loops = [f"{'    ' * at}for i{at} in range({array}.shape[{at}]):" for at in range(1, dimensions - 1)]
    places = "".join(f", i{at}" for at in range(1, dimensions - 1))
    return [*loops, f"{'    ' * (dimensions - 1)}clear({array}[row{places}])"]

"""Put a bug into code that is already imported: a process forked from one that has everything needs no imports.

A bug inside of functions swaps the code of those that live; one in a constant, or in the numbers of a tuple, gives the
new value to every module that took the old one by name. Sources on disk stay as they are.
"""

import ast
import gc
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


class UnplantableError(Exception):
    """The bug changes what is made at import: a class, a default value or a decorator."""


def plant(file: str, old: str, new: str) -> None:
    """Replace `old` by `new` in a module of the operators, wherever its functions and constants are in use."""
    module = sys.modules["thalweg.operators." + file.removesuffix(".py").replace("/", ".")]
    before = (ROOT / "operators" / file).read_text(encoding="utf-8")
    after = before.replace(old, new)
    changed = [
        (a, b)
        for a, b in zip(ast.parse(before).body, ast.parse(after).body, strict=True)
        if ast.unparse(a) != ast.unparse(b)
    ]
    if not changed or any(outside_of_functions(a) != outside_of_functions(b) for a, b in changed):
        raise UnplantableError(file)
    for _, node in changed:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            give_constants(module, node)
    swap(module, before, after)


def outside_of_functions(node: ast.stmt) -> str:
    """Return a statement without what functions do and without the value that a constant has."""
    node = ast.parse(ast.unparse(node)).body[0]
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef):
            each.body = [ast.Pass()]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        node.value = ast.Constant(None)
    return ast.unparse(node)


def give_constants(module: ModuleType, node: ast.Assign | ast.AnnAssign) -> None:
    """Run an assignment of a module anew, and replace what other modules took from it by name."""
    taken = dict(module.__dict__)
    exec(compile(ast.Module([node], []), str(module.__file__), "exec"), module.__dict__)
    for name, value in taken.items():
        if module.__dict__[name] is value:
            continue
        for other in list(sys.modules.values()):
            if other.__dict__.get(name) is value:
                setattr(other, name, module.__dict__[name])


def swap(module: ModuleType, before: str, after: str) -> None:
    """Give each function of a module the code that the changed source has for it."""
    path = str(module.__file__)
    found, wanted = (dict(codes(compile(text, path, "exec", dont_inherit=True))) for text in (before, after))
    codes_of = {(key[0], found[key].co_firstlineno): wanted[key] for key in found if found[key] != wanted[key]}
    for function in live_functions()[module.__name__]:
        code = codes_of.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if code is not None:
            function.__code__ = code


def codes(code: CodeType, within: int = 0) -> Iterator[tuple[tuple[str, int], CodeType]]:
    """Yield the code of each function by its name and which of this name it is."""
    seen: dict[str, int] = {}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            number = seen[constant.co_qualname] = seen.get(constant.co_qualname, -1) + 1
            yield (constant.co_qualname, within * 100 + number), constant
            yield from codes(constant, number)


@cache
def live_functions() -> dict[str, list[FunctionType]]:
    """Return all functions by the module that has their source, wherever they are kept; looked for once."""
    found: dict[str, list[FunctionType]] = defaultdict(list)
    everything: list[Any] = gc.get_objects()
    for each in everything:
        if type(each) is FunctionType:
            found[each.__module__].append(each)
    return found

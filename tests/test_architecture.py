"""What must hold of the source as a whole: who imports whom, names, docstrings, and help for every command."""

import ast
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from thalweg.streams.commands import COMMANDS, main

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("schemas", "operators", "streams") for path in (ROOT / package).rglob("*.py"))

# What a package may import besides itself and the standard library; None: anything.
DIRECTIONS: dict[str, set[str] | None] = {
    "schemas": {"msgspec"},
    # llvmlite: what numba extensions speak
    "operators": {"schemas", "numpy", "numba", "llvmlite", "mmh3", "orjson", "river"},
    "streams": None,
}
# The rooms of each package from the bottom up; a module at the top of a package is a room by itself, unless all of
# them are one (`operators`). A room imports from those before it: so there is no circle either.
LAYERS: dict[str, tuple[str, ...]] = {
    "operators": ("machine", "structures", "operators", "fold", "edges", "estimators"),
    "streams": (
        *("printable", "refusal", "warnings", "interrupts"),
        *("logs", "mapping", "kafka", "configuration", "partition", "checkpoints", "replay", "evaluation"),
        *("serving", "worker", "client", "consume", "driver", "app", "simulation", "commands", "entry"),
    ),
}
PARAMETERS_MAX = 8
LINES_MAX = 60
# A command has an option for each of its parameters, and an estimator is configured by its constructor alone.
MANY_PARAMETERS = {
    *("streams/commands/", "operators/estimators/"),
    "operators/machine/",  # what stands for an instruction takes its operands
    "streams/partition/partition.py",
    "streams/kafka/transactions.py",
}
MANY_LINES = {"streams/commands/"}  # most of them declare options
# The fold reads no clock, no network and no global random generator.
OUTSIDE_WORLD = {"asyncio", "datetime", "random", "secrets", "socket", "subprocess", "threading", "time", "uuid"}
VAGUE_NAME = re.compile(r"(utils?|helpers?|managers?)$", re.IGNORECASE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, those inside functions and for type checks too, with its line and whole name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(ROOT).parts[:-1]
            base = ".".join(("thalweg", *folder)[: len(folder) - node.level + 2]) if node.level else ""
            yield node.lineno, ".".join(filter(None, [base, node.module]))


def outside(name: str) -> str:
    """Return what of a module's name `DIRECTIONS` knows: our package below `thalweg`, or the first part."""
    return name.removeprefix("thalweg.").partition(".")[0]


def definitions(path: Path) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """The public classes and functions of a module, and the public methods of public classes."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (inner for inner in node.body if isinstance(inner, kinds) and not inner.name.startswith("_"))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    """schemas must import no other package of ours, operators only schemas, and neither a foreign library unnamed."""
    package = path.relative_to(ROOT).parts[0]
    allowed = DIRECTIONS[package]
    wrong = [
        f"line {line}: {name}"
        for line, name in imported(path)
        if allowed is not None and outside(name) not in allowed | {package} | sys.stdlib_module_names
    ]
    assert not wrong, f"{name_of(path)} must not import {wrong}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.relative_to(ROOT).parts[0] == "operators" and path.parent.name != "estimators"],
    ids=name_of,
)
def test_the_fold_sees_nothing_of_the_outside_world(path: Path) -> None:
    """Nothing that reads a clock, the network or chance may be imported where scores are computed."""
    wrong = [f"line {line}: {name}" for line, name in imported(path) if name.partition(".")[0] in OUTSIDE_WORLD]
    assert not wrong, f"{name_of(path)} must not import {wrong}"


def room_of(package: str, parts: tuple[str, ...]) -> str:
    """Return the room of a module of a package, by the parts of its name below the package."""
    if len(parts) > 1 or parts[0] in LAYERS[package]:
        return parts[0]
    return package


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if path.relative_to(ROOT).parts[0] in LAYERS and path.parent.parent != ROOT.parent],
)
def test_rooms_import_only_from_below(path: Path) -> None:
    """No module may import from a room above its own, in a function or for type checks either."""
    package, *parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ["__init__"]:
        return
    order = LAYERS[package]
    own = order.index(room_of(package, tuple(parts)))
    wrong = []
    for line, name in imported(path):
        if name.startswith(f"thalweg.{package}."):
            room = room_of(package, tuple(name.split(".")[2:]))
            if order.index(room) > own:
                wrong.append(f"line {line}: {name}")
    assert not wrong, f"{name_of(path)}, in room {order[own]}, imports {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_functions_can_be_seen_whole(path: Path) -> None:
    """No function may have more than 8 parameters or 60 lines, but for those that are listed."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    wrong = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, functions):
            names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            parameters = len([name for name in names if name not in ("self", "cls")])
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if parameters > PARAMETERS_MAX and not name_of(path).startswith(tuple(MANY_PARAMETERS)):
                wrong.append(f"{node.name} has {parameters} parameters")
            if lines > LINES_MAX and not name_of(path).startswith(tuple(MANY_LINES)):
                wrong.append(f"{node.name} has {lines} lines")
    assert not wrong, wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_decoders_are_made_once_at_import(path: Path) -> None:
    """No function may make a decoder: msgspec 0.22 ends the process where two threads first meet a type.

    Workers restore partitions in threads; the crash was seen once in some fifty rebalances.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    calls = [node for function in functions for node in ast.walk(function) if isinstance(node, ast.Call)]
    found = [
        f"line {call.lineno}"
        for call in calls
        if re.search(r"(^|\.)Decoder$", ast.unparse(call.func))
        or (ast.unparse(call.func).endswith(".decode") and any(keyword.arg == "type" for keyword in call.keywords))
    ]
    assert not found, found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_names_say_what_a_thing_is(path: Path) -> None:
    """No module, class or function may be called utils, helpers or manager."""
    names = [path.stem, *(node.name for node in definitions(path))]
    assert not [name for name in names if VAGUE_NAME.search(name)]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_public_things_have_docstrings(path: Path) -> None:
    """Every module and every public class, function and method must say what it is."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name_of(path)} has no docstring"
    assert not [f"{node.name} (line {node.lineno})" for node in definitions(path) if not ast.get_docstring(node)]


def test_tests_are_in_the_rooms_of_what_they_test() -> None:
    """A folder of tests/operators and tests/streams must be called as a room of the sources."""
    folders = [path for package in LAYERS for path in (ROOT / "tests" / package).iterdir() if path.is_dir()]
    rooms = [str(path.relative_to(ROOT / "tests")) for path in folders if path.name != "__pycache__"]
    assert len(rooms) > 10
    assert not [room for room in rooms if not (ROOT / room).is_dir()]


def test_every_command_module_is_listed() -> None:
    """A command's module that the command line doesn't know is dead code."""
    files = {path.stem.removesuffix("_command") for path in (ROOT / "streams" / "commands").glob("*_command.py")}
    assert files == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")
def test_every_command_has_help_and_an_example(name: str) -> None:
    """The help of a command must explain it, each option of it, and show an example that calls it."""
    command: click.Command = import_module(f"thalweg.streams.commands.{name.replace('-', '_')}_command").command
    commands = list(command.commands.values()) if isinstance(command, click.Group) else [command]
    helps = [one.help or "" for one in [command, *commands]]
    assert all(helps), f"{name} lacks help"
    assert any("Example" in text and f"thalweg {name}" in text for text in helps), f"{name} lacks an example"


def test_the_command_line_lists_every_command() -> None:
    """`thalweg --help` must name each command."""
    assert main.list_commands(click.Context(main)) == list(COMMANDS)

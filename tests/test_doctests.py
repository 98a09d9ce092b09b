"""Every example in a docstring gives what it says."""

import doctest
import pkgutil
from importlib import import_module

import pytest

PACKAGES = ("thalweg.schemas", "thalweg.operators", "thalweg.streams")
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    if not module.ispkg
]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")
def test_examples_in_docstrings(name: str) -> None:
    """The examples in a module's docstrings must print what they show."""
    failed, _ = doctest.testmod(import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    """Modules are found, and have examples: more than 80 of them."""
    finder = doctest.DocTestFinder()
    modules = [import_module(name) for name in MODULES]
    assert sum(len(test.examples) for module in modules for test in finder.find(module)) > 80

"""The examples in `--help`: each must be a command that Thalweg takes."""

import itertools
import shlex
from collections.abc import Iterator

import click
import pytest
from thalweg.streams.commands import main
from thalweg.streams.configuration.loading import load


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Give a command and all below it, by their names."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            assert below is not None
            yield from commands(below, f"{name} {each}")


EXAMPLES = [
    line.strip()
    for _, command in commands(main, "thalweg")
    for line in (command.help or "").replace("\\\n", "").splitlines()
    if line.strip().startswith("thalweg ")
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_in_help_is_a_command(example: str) -> None:
    """Its options must exist, and its `--set` name keys of the configuration with values that they take."""
    words = shlex.split(example.partition(" > ")[0])[1:]
    command: click.Command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    flags = [value for option, value in itertools.pairwise(words) if option == "--set"]
    assert command.make_context("thalweg", list(words), resilient_parsing=False).params is not None
    load(None, environment={}, flags=flags)

"""The `thalweg` command line: one module a command, loaded only when it is called."""

from importlib import import_module
from typing import Any

import click
from thalweg.operators.machine.refusal import CacheError
from thalweg.streams.refusal import Refusal

COMMANDS = {
    "replay": "Run a log file through the fold and write its scores.",
    "evaluate": "Estimate what another ranking policy would have earned on a log.",
    "import": "Turn tables or foreign JSON lines into a log of events.",
    "facts": "Turn a table of items or users into facts, at the head of a log.",
    "mapping": "Suggest a mapping for your own events, and try it.",
    "generate": "Make a log whose true probabilities are known.",
    "warm-up": "Compile the fold beforehand, and say where the machine code is kept.",
    "config": "Show the effective configuration and where each value comes from.",
    "topics": "Create and describe the Kafka topics.",
    "produce": "Send a log file to Kafka.",
    "consume": "Print an output topic as JSON lines, each record once.",
    "worker": "Score events from Kafka.",
    "rank": "Rank a user's candidates, by a worker or from a checkpoint.",
    "checkpoint": "List, show, verify and roll back checkpoints, or rebuild them.",
    "simulate": "Run workers through made-up crashes and compare with the undisturbed fold.",
    "dead-letters": "List, show and send back what could not be used.",
}


class _LazyGroup(click.Group):
    """Import a command's module when it is asked for, so that `--help` and `produce` need not load numba."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"thalweg.streams.commands.{name.replace('-', '_')}_command")
        command: click.Command = module.command
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CacheError as error:
            raise Refusal(str(error)) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="thalweg", prog_name="thalweg")
def main() -> None:
    """Score user events as they happen, learn from every outcome, keep every feature as fresh as the last click."""

"""What a command ends with when it cannot continue."""

import click


class Refusal(click.ClickException):
    """The command can't go on; one line says why and what to do. Ends with exit status 1."""

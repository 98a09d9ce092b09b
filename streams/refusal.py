"""What a command ends with when it cannot continue."""

import click
from thalweg.streams.printable import printable


class Refusal(click.ClickException):
    """The command can't continue; one printable line gives the reason and a remedy. Ends with exit status 1."""

    def __init__(self, message: str) -> None:
        """Take a line; what is not printable in it is escaped, since others may have written it."""
        super().__init__(printable(message))

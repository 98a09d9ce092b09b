"""What goes wrong with files of logs: one line each, and whether reading or writing failed."""

from thalweg.streams.printable import printable


class LogError(Exception):
    """A log file can't be read or written; the message is one printable line with the reason and a remedy."""

    def __init__(self, message: str) -> None:
        """Take a line; what is not printable in it is escaped."""
        super().__init__(printable(message))


class LogReadError(LogError):
    """A file can't be read: what was read before is good, and may be kept."""


class LogWriteError(LogError):
    """A file can't be written: how much of the last outputs is in it is unknown, so no state may be saved."""


class TableError(Exception):
    """A table can't be imported; the message is one line with the reason and a remedy."""

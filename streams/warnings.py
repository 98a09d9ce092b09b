"""What a configuration allows and should not: said once in a process, in the log."""

import logging
import stat
from functools import cache
from pathlib import Path

log = logging.getLogger("thalweg.configuration")


@cache
def warn_once(message: str) -> None:
    """Log a warning, the first time that it is given."""
    log.warning(message)


def warn_of_readers(key: str, path: str) -> None:
    """Warn where everybody may read, or write, the file of a secret that a key of the configuration names."""
    try:
        mode = Path(path).stat().st_mode
    except OSError:
        return  # reading it will say why
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        warn_once(f"{key}: every user of this machine may read or write {path}: `chmod o-rw` it")

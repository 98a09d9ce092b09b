"""What is slow by its nature: a part of it in each run of the tests, the whole of it in `make soak`."""

import os

SOAK = os.environ.get("THALWEG_SOAK") == "1"


def sized(part: int, whole: int) -> int:
    """Return how much of it this run has."""
    return whole if SOAK else part

"""What derived features remember of each user: the state of `derived`, which reads and writes it."""

from typing import Annotated, NamedTuple

from thalweg.operators.machine.declare import Int64, UInt64, per, side_by_side

NOW, BEFORE = range(2)
"""Of what a user was shown last: all of it, and that of earlier pages."""


@side_by_side(is_dense=True)
class Visits(NamedTuple):
    """What each user was shown."""

    shown: Annotated[Int64, per("users", "impressions ever")]
    shown_ms: Annotated[Int64, per("users", "when the last one was, stream time")]
    page: Annotated[Int64, per("users", "the page that counted last")]
    shown_before: Annotated[Int64, per("users", "impressions before it")]
    before_ms: Annotated[Int64, per("users", "when the last one before it was, stream time")]
    lately: Annotated[UInt64, per("users 2 shown_items", "keys of the items shown last, the latest first; 0 for none")]

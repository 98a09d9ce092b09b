"""What becomes of events, and what else is counted of them."""

from enum import IntEnum

from thalweg.schemas.reasons import Reason

USER_MISMATCH = Reason.USER_MISMATCH.code
REQUEST_UNSUPPORTED = Reason.REQUEST_UNSUPPORTED.code
TOO_MANY_FEEDBACKS = Reason.TOO_MANY_FEEDBACKS.code
UNKNOWN_SOURCE = Reason.UNKNOWN_SOURCE.code
NO_ROOM = Reason.NO_ROOM.code
TOO_LARGE = Reason.TOO_LARGE.code


class Fate(IntEnum):
    """What became of an event: each has exactly one."""

    SCORED = 0
    JOINED = 1
    LATE = 2
    DUPLICATE = 3
    EARLY = 4
    ORPHANED = 5
    ERASED = 6
    RANKED = 7
    DEAD_LETTERED = 8
    IGNORED = 9
    KNOWN = 10
    BEHAVIOUR = 11
    MERGED = 12


class Tallied(IntEnum):
    """What else is counted.

    `SHOWN`: impressions that requests took as shown. `SHOWN_PASSED_OVER`: what they would have taken, but it was taken
    before, or there was no room.
    """

    CLOSED_UNLEARNED = 0
    LATE_POSITIVES = 1
    LABELLED = 2
    POSITIVES = 3
    IMPRESSIONS = 4
    FEEDBACK = 5
    OVER_USER_SHARE = 6
    FACTS_LEFT_OUT = 7
    FACTS_EVICTED = 8
    SHOWN = 9
    SHOWN_PASSED_OVER = 10


FATES = tuple(fate.name.lower() for fate in Fate)
TALLIES = tuple(tallied.name.lower() for tallied in Tallied)

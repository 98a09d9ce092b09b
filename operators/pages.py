"""Pages: what a user sees at once is scored as one.

Impressions of one user with one `ts`, directly behind one another in the partition's log, are a page. Requests, facts
about items, ignored records and dead letters between them do not end it; any other event does. Its rows do not see each
other. The first one moves time. Each reads what was shown before the page, by a stamp beside what counts exposures: the
page that counted last, and the number before it. So a row's score does not depend on where on the page it is.
"""

from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.declare import Int64, UInt64, made, per

NO_PAGE = -1
"""In place of a page: what is shown now is read, however it was counted."""


class Page(NamedTuple):
    """The page that the event before this one was a row of."""

    user: Annotated[UInt64, per("1", "the user's key; 0: there is none", private=True)]
    ts_ms: Annotated[Int64, per("1", "of all its rows", private=True)]
    arrival: Annotated[Int64, per("1", "of its first row, which tells pages apart")]
    elapsed_ms: Annotated[Int64, per("1", "the elapsed time of provisional labels as the first row found it")]
    further: Annotated[Int64, per("1", "rows behind the first of the last page, until rows were swept for them")]


class Moment(NamedTuple):
    """When something is seen: `now_ms` is stream time, `page` the arrival of its page, or `NO_PAGE`.

    `gone_ms`: items that were updated no later are gone, whether their rows are freed already or not.
    """

    now_ms: int
    page: int
    gone_ms: int


def new_page() -> Page:
    """Return the page before the first event, which is none."""
    return made(Page)


@compiled
def continues(page: Page, user: int, ts_ms: int) -> bool:
    """Return whether an impression of a user with this `ts` is one more row of the page."""
    return bool(page.user[0] != 0 and page.user[0] == user and page.ts_ms[0] == ts_ms)


@compiled
def begin(page: Page, user: int, ts_ms: int, arrival: int, elapsed_ms: int) -> None:
    """Begin a page with its first row."""
    page.user[0] = user
    page.ts_ms[0] = ts_ms
    page.arrival[0] = arrival
    page.elapsed_ms[0] = elapsed_ms


@compiled
def end(page: Page) -> None:
    """End the page, if there is one; nothing of its user is left."""
    page.user[0] = 0
    page.ts_ms[0] = 0

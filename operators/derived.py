"""Features made of the state: what no event says but the state knows.

A derived field is a member of `Derived`, and what `derive` adds for it. What it needs of the past is in `Visits`, which
`count_exposure` writes. The learner sees it as any other field. docs/extending.md adds one.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from thalweg.operators.behaviors import Behaviors
from thalweg.operators.machine.compiled import compiled, uint64
from thalweg.operators.machine.hashing import cross
from thalweg.operators.machine.numerics import bits_of
from thalweg.operators.pages import Moment
from thalweg.operators.structures import table
from thalweg.operators.structures.table import Table
from thalweg.operators.visits import BEFORE, NOW, Visits

SECOND_MS = 1_000.0
DERIVED_SALT = 0xDE
DERIVED_BUCKETS = 32
EXPONENT_OF_A_HALF = 1022  # as the bits of a float64 have it


class Derived(IntEnum):
    """The derived fields, the last of all fields."""

    RECENT = 0
    SHOWN = 1
    USER_GAP = 2
    USER_EXPOSURES = 3


DERIVED = tuple(derived.name.lower() for derived in Derived)
FIELDS = len(DERIVED)
CROSSED = Derived.SHOWN + 1
"""How many of them the cross network reads embeddings of: the first ones."""
PAIRED_ITEMS = 2
"""How many of the recent items it counts pairs with."""
GAP_KEY, EXPOSURES_KEY = range(2)


class DerivedParameters(NamedTuple):
    """`acted`: the place of the sequence of what users acted on, or -1; `recent_items`: how many of its last count;
    `shown_items`: how many of those shown last.
    """

    acted: int
    recent_items: int
    shown_items: int


class DerivedValues(NamedTuple):
    """Derived values of one impression, scratch: `field` int64, `key` uint64 [values]; `size` int64 [1]."""

    field: npt.NDArray[np.int64]
    key: npt.NDArray[np.uint64]
    size: npt.NDArray[np.int64]


def value_limit(recent_items: int, shown_items: int) -> int:
    """Return how many derived values an impression has at most: one of each field, but of items so many."""
    return len(DERIVED) - 2 + recent_items + shown_items


def new_derived_values(recent_items: int, shown_items: int) -> DerivedValues:
    """Return room for the derived values of one impression."""
    values = value_limit(recent_items, shown_items)
    return DerivedValues(np.zeros(values, np.int64), np.zeros(values, np.uint64), np.zeros(1, np.int64))


@compiled
def derive(
    visits: Visits,
    behaviors: Behaviors,
    items: Table,
    user: int,
    moment: Moment,
    parameters: DerivedParameters,
    values: DerivedValues,
    keys: npt.NDArray[np.uint64],
) -> None:
    """Write an impression's derived values: how long the user was away, how often shown anything, what, acted on what.

    `keys` is what the error memory goes by: first the recent items, then gap and exposures. What was shown needs no
    label, so it is never late. Nothing of it counts its own page.
    """
    values.size[0] = 0
    is_counted = visits.page[user] == moment.page
    shown = visits.shown_before[user] if is_counted else visits.shown[user]
    gap = DERIVED_BUCKETS - 1
    if shown > 0:
        last_ms = visits.before_ms[user] if is_counted else visits.shown_ms[user]
        gap = log2_bucket((moment.now_ms - last_ms) / SECOND_MS)
    of_visits = keys[parameters.recent_items :]
    of_visits[GAP_KEY] = add(values, Derived.USER_GAP, gap)
    of_visits[EXPOSURES_KEY] = add(values, Derived.USER_EXPOSURES, log2_bucket(float(shown)))
    lately = visits.lately[user, BEFORE if is_counted else NOW]
    for back in range(parameters.shown_items):
        if lately[back] == uint64(0):
            break
        add(values, Derived.SHOWN, lately[back])
    if parameters.acted < 0:
        return
    length = behaviors.row.shape[2]
    count = behaviors.counts[user, parameters.acted]
    for back in range(min(parameters.recent_items, count, length)):
        place = (count - 1 - back) % length
        row = behaviors.row[user, parameters.acted, place]
        if table.is_there(items, row, behaviors.generation[user, parameters.acted, place], moment.gone_ms):
            keys[back] = add(values, Derived.RECENT, items.key[row])


@compiled
def count_exposure(visits: Visits, user: int, item_key: int, moment: Moment) -> None:
    """Remember that a user was shown an item, whose key this is; the rest of its page does not see it."""
    if visits.page[user] != moment.page:
        visits.page[user] = moment.page
        visits.shown_before[user] = visits.shown[user]
        visits.before_ms[user] = visits.shown_ms[user]
        for back in range(visits.lately.shape[2]):
            visits.lately[user, BEFORE, back] = visits.lately[user, NOW, back]
    put_shown(visits.lately[user, NOW], visits.shown[user] - visits.shown_before[user], item_key)
    visits.shown[user] += 1
    visits.shown_ms[user] = moment.now_ms


@compiled
def put_shown(items: npt.NDArray[np.uint64], on_page: int, item_key: int) -> None:
    """Put an item before those of earlier pages; the `on_page` of the same page are in the order of their keys.

    The order of a page's rows says nothing. Where a page has more than `items` takes, the largest keys stay.
    """
    limit = items.shape[0]
    place = 0
    while place < min(on_page, limit) and items[place] >= uint64(item_key):
        place += 1
    for later in range(limit - 1, place, -1):
        items[later] = items[later - 1]
    if place < limit:
        items[place] = item_key


@compiled
def add(values: DerivedValues, field: int, value: int) -> int:
    """Add a value of a derived field and return its key."""
    count = values.size[0]
    key = cross(uint64(value), uint64(field), DERIVED_SALT)
    values.field[count] = field
    values.key[count] = key
    values.size[0] = count + 1
    return key


@compiled
def log2_bucket(x: float) -> int:
    """Return the bucket of x: 0 below 1, then one more for each doubling, at most 30."""
    if not x >= 1.0:
        return 0
    return min((bits_of(float(x)) >> 52) - EXPONENT_OF_A_HALF, DERIVED_BUCKETS - 2)

"""Run in a copy of the sources that has the derived feature of docs/extending.md: is it right, and known everywhere?"""

import sys

import numpy as np
from thalweg.operators import derived  # of the copy
from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.digest import digest
from thalweg.operators.fold.snapshot import restore, snapshot
from thalweg.operators.pages import NO_PAGE, Moment
from thalweg.streams.driver import START_MS, Driver

MINUTE_MS = 60_000


def main() -> None:
    """Show a user items, some of them again, and forget the user."""
    driver = Driver()
    state = driver.partition.state
    items = ["a", "b", "a", "c", "d", "b", "a"]
    for number, item in enumerate(items):
        now_ms = START_MS + 20 * MINUTE_MS * number
        driver.impression(str(number), user="ann", item=item, ts=now_ms, context={})
        within = {
            item for at, item in enumerate(items[: number + 1]) if now_ms - (START_MS + 20 * MINUTE_MS * at) < 3_600_000
        }
        assert derived.items_last_hour(state.visits, 0, Moment(now_ms, NO_PAGE, 0)) == len(within)
    assert "items_last_hour" in derived.DERIVED
    sys.stdout.write("counted\n")
    before = digest(state)
    state.visits.item[0, 1] += np.uint64(1)
    assert digest(state) != before
    state.visits.item[0, 1] -= np.uint64(1)
    assert digest(state) == before
    sys.stdout.write("digested\n")
    arrays = snapshot(state)
    assert {"visits.item", "visits.item_ms"} <= set(arrays)
    assert digest(restore(Configuration(), arrays)) == before
    sys.stdout.write("restored\n")
    assert state.visits.item[0].any()
    driver.erase(user="ann", ts=now_ms)
    assert not state.visits.item.any()
    assert not state.visits.item_ms.any()
    sys.stdout.write("erased\n")


if __name__ == "__main__":
    main()

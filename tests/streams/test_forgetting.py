"""Nothing is forgotten before memory is short; then what was not updated for longest goes."""

from dataclasses import replace

from thalweg.operators.structures.pool import Stock
from thalweg.operators.structures.table import Loss
from thalweg.streams.driver import START_MS, Driver

from tests.streams.logs_for_tests import small

DAY_MS = 86_400_000
ROWS, USERS = 1_024, 600


def test_rows_and_users_outlive_any_pause() -> None:
    """A user and an item of half a year ago must still be known, whatever came in between."""
    driver = Driver(small())
    driver.impression("0", user="ann", item="film", ts=START_MS)
    for day in range(1, 183):
        driver.impression(str(day), user=f"user-{day % 5}", item="song", ts=START_MS + day * DAY_MS)
    assert driver.value("user", "ann") is not None
    assert driver.value("item", "film") is not None
    state = driver.partition.state
    assert not state.features.counts[Loss.EXPIRED]
    assert not state.users.counts[Loss.EXPIRED]


def test_ten_times_the_limit_keeps_what_was_updated_last() -> None:
    """Of ten times as many users and items as fit, those updated last must be known, and one that is seen again and
    again all the time; nothing must expire, and no limit be exceeded.
    """
    c = small(rows=ROWS, users=USERS)
    driver = Driver(replace(c, joiner=replace(c.joiner, attribution_window_ms=1_000, late_window_ms=1_000)))
    count = 10 * max(ROWS, USERS)
    for number in range(count):
        ts = START_MS + number * 500
        driver.impression(f"{number}", user=f"user-{number}", item=f"item-{number}", ts=ts)
        if number % 100 == 0:
            driver.impression(f"again-{number}", user="ann", item="film", ts=ts)
    driver.close_windows()
    state = driver.partition.state
    assert state.features.counts[Loss.EVICTED] > 2 * count - 2 * ROWS
    assert state.users.counts[Loss.EVICTED] > count - USERS
    assert not state.features.counts[Loss.EXPIRED]
    assert not state.users.counts[Loss.EXPIRED]
    assert state.features.pool.counts[Stock.EVER_USED] <= ROWS
    assert state.users.pool.counts[Stock.EVER_USED] <= USERS
    last = [number for number in range(count) if driver.value("item", f"item-{number}") is not None]
    assert last == list(range(last[0], count)), "an item was forgotten before one that was updated earlier"
    assert len(last) > ROWS // 3
    assert driver.value("item", "film") is not None
    assert driver.value("user", "ann") is not None
    assert driver.value("user", f"user-{last[1]}") is not None  # a user's row goes before its item's
    assert driver.value("user", "user-0") is None


def test_what_the_model_reads_does_not_count_open_exposures() -> None:
    """While outcomes are open, exposures must move no rate, no residual and not the overall rate; what needs no outcome
    counts at once; and a window that closes without a positive counts one exposure.
    """
    c = small()
    driver = Driver(replace(c, features=replace(c.features, emit=True)))
    shown = [
        driver.impression(str(n), user="ann", item="film", ts=START_MS + n * 1_000).scores[0].features
        for n in range(20)
    ]
    rates = [{name: x for name, x in (f or {}).items() if name.startswith(("rates.", "overall"))} for f in shown]
    assert rates[0]
    assert all(repr(each) == repr(rates[0]) for each in rates)
    state = driver.partition.state
    assert state.visits.shown.max() == 20
    assert not state.learner.rates.sums.any()
    assert not state.learner.rates.overall.any()
    driver.feedback("0", user="ann", item="film", ts=START_MS + 30_000)
    assert not state.learner.rates.overall.any(), "a positive counted before its exposure"
    driver.impression("last", user="ann", item="song", ts=START_MS + 601_500)
    assert state.learner.rates.overall[0, :2].tolist() == [2.0, 1.0]

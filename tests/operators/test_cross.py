"""The cross network learns what a linear model cannot, and nothing that goes wrong in its inputs makes it diverge."""

from dataclasses import replace

import numpy as np
import pytest
from thalweg.operators.configuration import Configuration
from thalweg.operators.cross import CrossConfiguration, statistics_count
from thalweg.operators.fold.layout import input_count, paired_fields
from thalweg.operators.fold.snapshot import state_bytes
from thalweg.operators.fold.state import new_state
from thalweg.operators.structures.pool import Stock
from thalweg.operators.structures.table import Loss
from thalweg.streams.driver import START_MS, Driver

from tests.streams.logs_for_tests import small


def with_rank(rank: int, pairs: int = 4_096) -> Configuration:
    c = small()
    return replace(c, learner=replace(c.learner, cross_rank=rank, cross_pairs_limit=pairs))


def test_without_a_rank_there_is_nothing() -> None:
    """At rank 0 no statistic is read, no array is filled, and the state is no larger than its fixed parts."""
    off, on = with_rank(0), with_rank(8)
    paired = paired_fields(off)
    assert statistics_count(0, paired) == 0
    assert input_count(on) - input_count(off) == statistics_count(8, paired) > 0
    state = new_state(off)
    assert not state.cross.matrices.size
    assert not state.cross.moments.size
    driver = Driver(off)
    for n in range(50):
        driver.impression(str(n), user="ann", item=f"item-{n % 3}", ts=START_MS + n * 60_000, context={"tab": "home"})
    cross = driver.partition.state.cross
    assert not cross.embedded.seen_ms.any()
    assert not cross.pairs.pool.counts[Stock.EVER_USED]
    assert state_bytes(new_state(on)) - state_bytes(state) < 1 << 20


def test_bounds_are_refused() -> None:
    """A rank and a limit out of their bounds must be refused, with the bounds."""
    with pytest.raises(ValueError, match="cross_rank must lie within 0 and 16"):
        CrossConfiguration(cross_rank=17)
    with pytest.raises(ValueError, match="cross_pairs_limit must lie within 1,024"):
        CrossConfiguration(cross_pairs_limit=10)


def test_a_product_of_two_fields_is_learned() -> None:
    """A click that only the pair of user and tab explains must be foreseen after some hundred impressions."""
    driver = Driver(with_rank(8))
    losses = []
    chance = np.random.default_rng(5)
    for n in range(1_500):
        user, tab = int(chance.integers(4)), int(chance.integers(4))
        clicked = (user + tab) % 2 == 0
        shown = {"user": f"user-{user}", "item": "film", "ts": START_MS + 700_000 * n}
        [score] = driver.impression(str(n), context={"tab": str(tab)}, **shown).scores
        losses.append(-np.log(score.model_score if clicked else 1 - score.model_score))
        if clicked:
            driver.feedback(str(n), user=shown["user"], item="film", ts=shown["ts"] + 1_000)
    assert np.mean(losses[:100]) > 0.4
    assert np.mean(losses[-300:]) < 0.1


def test_pairs_of_a_user_go_with_the_user_and_the_limit_holds() -> None:
    """Pairs are counted up to their limit, the one not shown for longest makes room, and an erased user leaves none."""
    driver = Driver(with_rank(8, pairs=1_024))
    for n in range(3_000):
        driver.impression(
            str(n), user=f"user-{n % 7}", item=f"item-{n}", ts=START_MS + n * 1_000, context={"tab": str(n % 300)}
        )
    cross = driver.partition.state.cross
    assert 1_024 * 7 // 8 < cross.pairs.pool.counts[Stock.EVER_USED] <= 1_024  # an eighth is kept for a page
    assert cross.pairs.counts[Loss.EVICTED] > 3_000
    owned = cross.owners.held.sum()
    assert owned > 0
    driver.erase("user-3", ts=START_MS + 3_000_000)
    assert cross.owners.held.sum() < owned
    rows = np.flatnonzero(cross.pairs.key == 0)
    assert not cross.counted.counts[rows].any()
    assert cross.owners.held.sum() == np.count_nonzero(cross.owners.owner)


def test_statistics_wrong_by_many_times_do_not_make_it_diverge() -> None:
    """With counts made 17 times too large half way, all weights must stay finite, and loss come back below .7."""
    driver = Driver(with_rank(8))
    chance = np.random.default_rng(6)
    losses = []
    for n in range(1_200):
        item = int(chance.integers(20))
        clicked = chance.random() < (0.8 if item < 10 else 0.1)
        shown = {"user": f"user-{n % 11}", "item": f"item-{item}", "ts": START_MS + 700_000 * n}
        [score] = driver.impression(str(n), context={"tab": str(n % 3)}, **shown).scores
        losses.append(-np.log(score.model_score if clicked else 1 - score.model_score))
        if clicked:
            driver.feedback(str(n), user=shown["user"], item=shown["item"], ts=shown["ts"] + 1_000)
        if n == 600:
            state = driver.partition.state
            state.learner.rates.sums[:, 1] *= 17.0
            state.cross.counted.counts[:, 1] *= 17.0
    cross = driver.partition.state.cross
    for array in (cross.matrices, cross.weights, cross.embedded.parts, cross.moments, cross.mix):
        assert np.isfinite(array).all()
    assert np.mean(losses[400:600]) < 0.55
    assert np.mean(losses[-300:]) < 0.65

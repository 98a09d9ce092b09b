"""Sightings are counted exactly, admission has the stated chance, and what the filter forgets is what it says."""

import math
from collections import OrderedDict

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.admission import (
    COUNT_MAX,
    SET_CELLS,
    Admission,
    AdmissionConfiguration,
    AdmissionParameters,
    admission_parameters,
    forget_sightings,
    is_admitted,
    new_admission,
    read_sightings,
    write_sighting,
)
from thalweg.operators.configuration import TableConfiguration
from thalweg.operators.machine.compiled import compiled

from tests.soak import sized

KEYS = 40_000
TRIALS_WHOLE = 20_000
TRIALS = sized(5_000, TRIALS_WHOLE)


@compiled
def _sight(admission: Admission, key: int, times: int) -> int:
    count = 0
    for page in range(times):
        count = write_sighting(admission, key, page)
    return count


@compiled
def _first_counts(admission: Admission, keys: npt.NDArray[np.uint64]) -> int:
    """Return how many keys, each seen once, were taken for another."""
    wrong = 0
    for i in range(keys.shape[0]):
        wrong += write_sighting(admission, keys[i], i) != 1
    return wrong


@compiled
def _lost_counts(admission: Admission, keys: npt.NDArray[np.uint64], others: int) -> int:
    """See a key twice with `others` keys between, again and again; return how often its first sighting was lost."""
    lost = 0
    for first in range(0, keys.shape[0] - others, others + 1):
        write_sighting(admission, keys[first], first)
        for i in range(first + 1, first + 1 + others):
            write_sighting(admission, keys[i], i)
        lost += write_sighting(admission, keys[first], first + others + 1) == 1
    return lost


@compiled
def _admitted_at(parameters: AdmissionParameters, keys: npt.NDArray[np.uint64], out: npt.NDArray[np.int64]) -> None:
    """Write the sighting at which each key is admitted."""
    for i in range(keys.shape[0]):
        sightings = 1
        while not is_admitted(parameters, keys[i], sightings):
            sightings += 1
        out[i] = sightings


def admitted_at(threshold: int, mode: str, count: int = KEYS) -> npt.NDArray[np.int64]:
    parameters = admission_parameters(AdmissionConfiguration(occurrence_threshold=threshold, admission=mode))
    keys = np.random.default_rng(threshold).integers(1, 2**64, count, dtype=np.uint64)
    out = np.zeros(count, np.int64)
    _admitted_at(parameters, keys, out)
    return out


def chi_square(observed: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> float:
    """How many standard deviations chi-square lies above its mean; cells are merged until each expects at least 10."""
    merged: list[list[float]] = [[0.0, 0.0]]
    for seen, expected in zip(observed, probabilities * observed.sum(), strict=True):
        merged[-1][0] += seen
        merged[-1][1] += expected
        if merged[-1][1] >= 10.0:
            merged.append([0.0, 0.0])
    last = merged.pop()
    merged[-1] = [merged[-1][0] + last[0], merged[-1][1] + last[1]]
    freedom = len(merged) - 1
    total = sum((seen - expected) ** 2 / expected for seen, expected in merged)
    return (total - freedom) / math.sqrt(2 * freedom)


def test_counts_are_exact_up_to_the_most_that_a_counter_holds() -> None:
    """The n-th sighting counts n up to 65 535, and stays there."""
    admission = new_admission(AdmissionConfiguration(filter_cells=64))
    key = np.uint64(0xABCDEF0123456789)
    assert [write_sighting(admission, key, page) for page in range(1, 301)] == list(range(1, 301))
    assert _sight(admission, key, COUNT_MAX - 301) == COUNT_MAX - 1
    assert [write_sighting(admission, key, page) for page in range(-3, 0)] == [COUNT_MAX] * 3


@pytest.mark.parametrize("mode", ["count", "linear", "geometric"])
@pytest.mark.parametrize("threshold", [-1, COUNT_MAX + 1, 10**9])
def test_a_threshold_that_a_counter_cannot_reach_is_refused(threshold: int, mode: str) -> None:
    """A threshold above 65 535 or below 0 is refused when it is configured, in the table's section too."""
    for configuration in (AdmissionConfiguration, TableConfiguration):
        with pytest.raises(ValueError, match="occurrence_threshold must lie within 0 and 65,535"):
            configuration(occurrence_threshold=threshold, admission=mode)


def test_a_mode_or_size_that_makes_no_sense_is_refused() -> None:
    """An unknown mode and a filter smaller than one set are refused."""
    with pytest.raises(ValueError, match="count, linear, geometric"):
        AdmissionConfiguration(admission="sometimes")
    with pytest.raises(ValueError, match="filter_cells"):
        AdmissionConfiguration(filter_cells=7)


@pytest.mark.parametrize("threshold", [0, 1, 2, 5, 16, 1_000, COUNT_MAX])
def test_count_mode_admits_at_exactly_the_threshold(threshold: int) -> None:
    """Every key gets in at its `occurrence_threshold`-th sighting, 0 and 1 at the first."""
    assert (admitted_at(threshold, "count", 50) == max(1, threshold)).all()


@pytest.mark.parametrize("threshold", [1, 2, 3, 10, 64])
@pytest.mark.large
def test_linear_mode_admits_with_its_probability(threshold: int) -> None:
    """After c sightings a share c / threshold of all keys is in: each sighting admits equally many."""
    at = admitted_at(threshold, "linear")
    assert at.max() <= threshold
    if threshold > 1:
        assert chi_square(np.bincount(at, minlength=threshold + 1)[1:], np.full(threshold, 1 / threshold)) < 4.5


@pytest.mark.parametrize("threshold", [1, 2, 3, 10, 64])
@pytest.mark.large
def test_geometric_mode_admits_with_its_probability(threshold: int) -> None:
    """After c sightings 1 - .05 ** (c / threshold) of all keys are in, 95% of them after `threshold` sightings."""
    at = admitted_at(threshold, "geometric")
    most = int(at.max())
    left = 0.05 ** (np.arange(most + 1) / threshold)
    probabilities = np.append(left[:-1] - left[1:], left[-1])
    assert chi_square(np.append(np.bincount(at, minlength=most + 1)[1:], 0), probabilities) < 4.5
    share = np.count_nonzero(at <= threshold) / KEYS
    assert abs(share - 0.95) < 4.5 * math.sqrt(0.95 * 0.05 / KEYS)


@pytest.mark.parametrize("mode", ["linear", "geometric"])
def test_every_id_is_admitted_before_its_counter_is_full(mode: str) -> None:
    """With the largest threshold no id waits for ever, however small its chance."""
    parameters = admission_parameters(AdmissionConfiguration(occurrence_threshold=COUNT_MAX, admission=mode))
    keys = np.random.default_rng(4).integers(1, 2**64, 1_000, dtype=np.uint64)
    assert all(is_admitted(parameters, key, COUNT_MAX) for key in keys)


def test_an_id_once_admitted_stays_admitted() -> None:
    """More sightings never take admission back."""
    for mode in ("count", "linear", "geometric"):
        parameters = admission_parameters(AdmissionConfiguration(occurrence_threshold=9, admission=mode))
        for key in np.random.default_rng(5).integers(1, 2**64, 100, dtype=np.uint64):
            states = [is_admitted(parameters, key, n) for n in range(1, 40)]
            assert states == sorted(states)


@pytest.mark.large
def test_one_id_is_taken_for_another_no_more_often_than_stated() -> None:
    """Of 2 million ids seen once at most 8 in 2**32 are taken for another of their set: none here, the mean is .004."""
    admission = new_admission(AdmissionConfiguration(filter_cells=1 << 12))
    keys = np.unique(np.random.default_rng(6).integers(1, 2**64, 2_000_000, dtype=np.uint64))
    assert _first_counts(admission, keys) <= 1


def test_an_id_whose_tag_and_set_agree_is_taken_for_the_other() -> None:
    """The stated confusion exists: keys that agree in their set and their upper 32 bits share a count."""
    admission = new_admission(AdmissionConfiguration(filter_cells=64))
    assert write_sighting(admission, np.uint64(7 << 32 | 3), 1) == 1
    assert write_sighting(admission, np.uint64(7 << 32 | 3 + 8), 2) == 2
    assert write_sighting(admission, np.uint64(7 << 32 | 4), 3) == 1
    assert write_sighting(admission, np.uint64(8 << 32 | 3), 4) == 1


@pytest.mark.parametrize("a_set", [1, 2, 4])
@pytest.mark.large
@pytest.mark.soak(TRIALS, TRIALS_WHOLE, "trials")
def test_a_count_is_lost_no_more_often_than_stated(a_set: int) -> None:
    """After n other ids a count must be lost where 8 or more fell into its set: P(Binomial(n, 1/sets) >= 8)."""
    sets, trials = 64, TRIALS
    others, chance = a_set * sets, 1 / sets
    kept = sum(math.comb(others, k) * chance**k * (1 - chance) ** (others - k) for k in range(SET_CELLS))
    keys = np.unique(np.random.default_rng(a_set).integers(1, 2**64, trials * (others + 1), dtype=np.uint64))
    keys = np.random.default_rng(a_set).permutation(keys)
    lost = _lost_counts(new_admission(AdmissionConfiguration(filter_cells=sets * SET_CELLS)), keys, others)
    assert abs(lost / trials - (1 - kept)) <= 4.5 * math.sqrt(kept * (1 - kept) / trials) + 1 / trials


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["see", "see", "see", "turn", "forget"])), max_size=300),
)
def test_a_set_loses_what_was_not_seen_for_longest(sets: int, steps: list[tuple[int, str]]) -> None:
    """Each set of 8 cells is a least-recently-seen memory: counts equal those of an ordered dictionary a set."""
    admission = new_admission(AdmissionConfiguration(filter_cells=sets * SET_CELLS))
    model: list[OrderedDict[int, int]] = [OrderedDict() for _ in range(sets)]
    page, counted = 1, dict[int, int]()
    for number, action in steps:
        key = (number * 0x9E3779B97F4A7C15 + 1) & (2**64 - 1)
        counts = model[key % sets]
        if action == "forget":
            counts.pop(key, None)
            forget_sightings(admission, np.uint64(key))
            continue
        page += action == "turn"
        expected = read_sightings(admission, np.uint64(key), page)
        is_counted = key in counts and counted[key] == page
        counts[key] = counts.pop(key, 0) + (not is_counted)
        counted[key] = page
        if len(counts) > SET_CELLS:
            counts.popitem(last=False)
        assert write_sighting(admission, np.uint64(key), page) == expected == counts[key]
    for cells, counts in zip(admission.counts, model, strict=True):
        assert [int(count) for count in cells if count] == list(reversed(counts.values()))
        assert not admission.tags[admission.counts == 0].any()
        assert not admission.pages[admission.counts == 0].any()

"""The error memories against a dictionary of buckets with decay, and lambda against streams with and without errors."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.error_memory import (
    SCALE_MAX,
    CorrectionConfiguration,
    ErrorMemory,
    ErrorMemoryConfiguration,
    ErrorMemoryParameters,
    Keyed,
    MemoryReads,
    Near,
    amend_label,
    amend_weight,
    error_memory_parameters,
    locate,
    memories_of,
    memory_bytes,
    new_error_memory,
    new_memory_reads,
    project_user,
    read_error,
    write_error,
    write_moved_error,
)
from thalweg.operators.machine.hashing import cross, mix
from thalweg.operators.sdim import projections

HALF_LIFE = 1_000_000
ARRAYS, BITS, KEYED_BITS, SIZE = 3, 4, 10, 6
MEMORIES = memories_of(3, 1, ("item",), stands_still=True)
COUNT = len(MEMORIES.first)
PAIRS = list(zip(MEMORIES.first.tolist(), MEMORIES.second.tolist(), strict=True))
ALONE = PAIRS.index((Keyed.REPRESENTATION, Keyed.NOTHING))
SCRATCH = np.zeros((len(Near), COUNT))


def configuration(gamma: float = 0.0) -> ErrorMemoryConfiguration:
    return ErrorMemoryConfiguration(
        arrays=ARRAYS, bits=BITS, keyed_bits=KEYED_BITS, half_life_impressions=HALF_LIFE, prior=2.0, gamma=gamma
    )


def made(
    slots: int, gamma: float = 0.0, lambda_max: float = 2.0, lambda_initial: float = 0.5
) -> tuple[ErrorMemory, MemoryReads, ErrorMemoryParameters]:
    """Return memories of nothing, room for some impressions, and parameters."""
    correction = CorrectionConfiguration(lambda_max=lambda_max, lambda_initial=lambda_initial)
    matrix = projections(2 * SIZE, ARRAYS * BITS, 5)
    return (
        new_error_memory(configuration(gamma), correction, COUNT, 1 << KEYED_BITS),
        new_memory_reads(slots, ARRAYS, COUNT),
        error_memory_parameters(configuration(gamma), correction, matrix, MEMORIES),
    )


def scatter(reads: MemoryReads, seed: int, cells: int) -> None:
    """Put impressions into few buckets, so that they meet; a memory goes by its keys or by the representation."""
    chance = np.random.default_rng(seed)
    reads.near[:] = chance.integers(0, min(cells, 1 << BITS), reads.near.shape)
    for which in range(COUNT):
        reads.keyed[:, which] = 1 + which * cells + chance.integers(0, cells, len(reads.keyed))
    reads.keyed[:, ALONE] = 0


class Dictionary:
    """Every event ever, by bucket."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.events: dict[tuple[int, int, int], list[tuple[int, float, float, float]]] = {}

    def places(self, reads: MemoryReads, slot: int, which: int) -> Iterator[tuple[int, int, int]]:
        if which == ALONE:
            yield from ((which, k, int(near)) for k, near in enumerate(reads.near[slot]))
        elif reads.keyed[slot, which]:
            yield which, 0, int(reads.keyed[slot, which])

    def write(self, reads: MemoryReads, slot: int, count: float, label: float, now: int) -> None:
        for which in range(COUNT):
            before = float(reads.before[slot, which])
            for place in self.places(reads, slot, which):
                self.events.setdefault(place, []).append((now, count, label, count * before))

    def estimate(self, reads: MemoryReads, slot: int, which: int, base: float, now: int) -> float:
        """Log-odds of labels less those of predictions, each with pseudo-impressions of the base's probability."""
        places = list(self.places(reads, slot, which))
        known = [event for place in places for event in self.events.get(place, [])]
        weights = np.array([2.0 ** (-(now - at) / HALF_LIFE) for at, *_ in known])
        count, labels, predictions = (
            float(weights @ np.array([event[part] for event in known])) if known else 0.0 for part in (1, 2, 3)
        )
        if count <= 0.0:
            return 0.0
        prior = configuration().prior * len(places)
        before = float(reads.before[slot, which])
        promised = (1.0 - self.gamma) * predictions + self.gamma * count * before
        return math.log((labels + prior * base) / (count - labels + prior * (1.0 - base))) - math.log(
            (promised + prior * base) / (count - promised + prior * (1.0 - base))
        )


events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0.02, 0.98),
        st.booleans(),
        st.sampled_from([0, 1, 1_000, 300_000, 5 * HALF_LIFE]),
    ),
    min_size=1,
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(events, st.sampled_from([0.0, 0.5, 1.0]))
def test_estimates_equal_a_dictionary_of_buckets(steps: list[tuple[int, float, bool, int]], gamma: float) -> None:
    """Residual form (gamma 0), the paper's (1) and between: each memory behind the others, all events decayed."""
    memory, reads, parameters = made(4, gamma, lambda_max=0.2, lambda_initial=0.1)
    scatter(reads, 1, 3)
    model, now = Dictionary(gamma), 0
    for slot, base, label, elapsed in steps:
        now += elapsed
        score = read_error(memory, reads, slot, base, float(elapsed), parameters, SCRATCH)
        logit = math.log(base / (1.0 - base))
        for which in range(COUNT):
            before = 1.0 / (1.0 + math.exp(-logit))
            assert reads.before[slot, which] == pytest.approx(before, rel=1e-4)
            expected = model.estimate(reads, slot, which, base, now)
            assert reads.estimate[slot, which] == pytest.approx(expected, rel=2e-3, abs=2e-4)
            logit += memory.trust[which] * float(reads.estimate[slot, which])
        assert score == pytest.approx(1.0 / (1.0 + math.exp(-logit)), rel=1e-8)
        write_error(memory, reads, slot, float(label), float(elapsed), parameters)
        model.write(reads, slot, 1.0, float(label), now)
        assert ((memory.trust >= 0.0) & (memory.trust <= 0.2)).all()


def read_once() -> tuple[ErrorMemory, MemoryReads, ErrorMemoryParameters]:
    """Return a memory that one impression was read from; each call gives the same."""
    memory, reads, parameters = made(1)
    scatter(reads, 2, 3)
    read_error(memory, reads, 0, 0.3, 0.0, parameters, SCRATCH)
    return memory, reads, parameters


def test_a_label_that_is_amended_is_the_label() -> None:
    """A provisional label and what it was wrong by leave the sums that the label alone leaves."""
    (once, reads, parameters), (twice, again, _) = read_once(), read_once()
    write_moved_error(once, reads, 0, 1.0, 0.0, parameters, 1.0)
    write_moved_error(twice, again, 0, 0.25, 0.0, parameters, 1.0)
    amend_label(twice, again, 0, 0.75, parameters, 1.0)
    np.testing.assert_array_equal(once.keyed, twice.keyed)
    np.testing.assert_array_equal(once.buckets, twice.buckets)


def test_an_impression_that_comes_to_stand_for_more_is_so_many() -> None:
    """A positive that weighs 3 in the end leaves the sums of one that weighed 3 from the beginning."""
    (once, reads, parameters), (later, again, _) = read_once(), read_once()
    write_moved_error(once, reads, 0, 1.0, 0.0, parameters, 3.0)
    write_moved_error(later, again, 0, 1.0, 0.0, parameters, 1.0)
    amend_label(later, again, 0, 2.0, parameters, 1.0)
    amend_weight(later, again, 0, 2.0, parameters)
    np.testing.assert_allclose(later.keyed, once.keyed, rtol=1e-5)
    np.testing.assert_allclose(later.buckets, once.buckets, rtol=1e-5)


def test_each_impression_lets_those_before_be_forgotten_as_often_as_it_stands_for() -> None:
    """A later one weighs more by what it takes of a half-life; an amended label or weight lets nothing be forgotten."""
    memory, reads, parameters = read_once()
    write_moved_error(memory, reads, 0, 1.0, 0.0, parameters, HALF_LIFE / 4.0)
    assert memory.scale[0] == pytest.approx(2**0.25)
    write_moved_error(memory, reads, 0, 0.0, 0.0, parameters, 1.0)
    amend_label(memory, reads, 0, 1.0, parameters, 1.0)
    amend_weight(memory, reads, 0, 2.0, parameters)
    assert memory.scale[0] == pytest.approx(2 ** (0.25 + 1 / HALF_LIFE), rel=1e-12)


def test_rescaling_changes_no_estimate() -> None:
    """Where the growing weight passes its limit all is divided by it: estimates stay within float32's rounding."""
    memory, reads, parameters = made(16)
    scatter(reads, 3, 6)
    rng = np.random.default_rng(2)
    model, now, rescaled = Dictionary(0.0), 0, 0
    for _ in range(1_500):
        elapsed = int(rng.integers(0, HALF_LIFE // 12))
        now += elapsed
        slot, label = int(rng.integers(0, 16)), float(rng.integers(0, 2))
        read_error(memory, reads, slot, 0.4, float(elapsed), parameters, SCRATCH)
        before = float(memory.scale[0])
        write_error(memory, reads, slot, label, float(elapsed), parameters)
        model.write(reads, slot, 1.0, label, now)
        assert 1.0 <= memory.scale[0] <= SCALE_MAX
        if memory.scale[0] < before:
            rescaled += 1
            read_error(memory, reads, slot, 0.4, 0.0, parameters, SCRATCH)
            expected = model.estimate(reads, slot, 0, 0.4, now)
            assert reads.estimate[slot, 0] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert rescaled >= 2


def test_a_pause_of_any_length_leaves_finite_numbers() -> None:
    """After a pause of a million half-lives what was remembered is gone, and the next event counts in full."""
    memory, reads, parameters = made(1)
    scatter(reads, 4, 1)
    read_error(memory, reads, 0, 0.5, 0.0, parameters, SCRATCH)
    write_error(memory, reads, 0, 1.0, 0.0, parameters)
    pause = 1e6 * HALF_LIFE
    read_error(memory, reads, 0, 0.5, pause, parameters, SCRATCH)
    assert np.abs(reads.estimate).max() < 1e-9
    write_error(memory, reads, 0, 0.0, pause, parameters)
    read_error(memory, reads, 0, 0.5, 0.0, parameters, SCRATCH)
    assert reads.estimate[0, 0] == pytest.approx(math.log(1.0 / 2.0), rel=1e-5)  # labels 0 of 1 with a prior of 2
    assert np.isfinite(memory.keyed).all()
    assert np.isfinite(memory.buckets).all()


def test_what_was_never_seen_is_no_error() -> None:
    """Empty buckets leave the score as it was, to a rounding."""
    memory, reads, parameters = made(1)
    assert read_error(memory, reads, 0, 0.37, 0.0, parameters, SCRATCH) == pytest.approx(0.37, rel=1e-15)
    assert not reads.estimate.any()


def test_buckets_are_signs_of_the_representation_and_hashes_of_the_keys() -> None:
    """Near means: the same signs of the projected representation; the other memories go by keys, alone or crossed."""
    memory, reads, parameters = made(2)
    user, item = np.random.default_rng(3).normal(size=(2, SIZE)).astype(np.float32)
    totals = np.full((2, ARRAYS * BITS), 7.0, np.float32)  # of another one
    # user, item, a field without a value, the item acted on last, away for how long, shown how often
    keys = np.array([2**63 + 5, 7, 0, 11, 3, 4], np.uint64)
    project_user(parameters, np.stack((user, item)), totals)
    locate(memory, reads, 1, parameters, np.stack((user, item)), keys, 0.2, totals)
    signs = np.concatenate([user, item]).astype(float) @ parameters.projection.astype(float) > 0
    expected = (signs.reshape(ARRAYS, BITS) * (1 << np.arange(BITS))).sum(axis=1)
    assert reads.near[1].tolist() == expected.tolist()
    score = np.uint64(1_024 + math.floor(4.0 * math.log(0.2 / 0.8)))
    for which, (first, second) in enumerate(PAIRS):
        places = {Keyed.ALL: np.uint64(1), Keyed.SCORE: score} | dict(enumerate(keys))
        named = [places[place] for place in (first, second) if place not in (Keyed.NOTHING, Keyed.REPRESENTATION)]
        if first == Keyed.REPRESENTATION or not all(named):
            assert reads.keyed[1, which] == 0
            continue
        key = named[0] if len(named) == 1 else np.uint64(cross(named[0], named[1], np.uint64(which)))
        assert reads.keyed[1, which] == (int(mix(key, np.uint64(which))) & (1 << KEYED_BITS) - 1) + 1
    assert not reads.near[0].any()
    assert not reads.keyed[0].any()


def simulate(
    rng: np.random.Generator, error_of: npt.NDArray[np.float64], events: int, **lambdas: float
) -> tuple[dict[str, float], float, float]:
    """Let a frozen model say p where p + error_of[user] is true: the trust, and squared errors without and with."""
    memory, reads, parameters = made(len(error_of), **lambdas)
    memories = {"user": PAIRS.index((0, Keyed.NOTHING)), "item": PAIRS.index((1, Keyed.NOTHING))}
    plain, corrected = [], []
    for number in range(events):
        user, prediction = int(rng.integers(0, len(error_of))), float(rng.uniform(0.3, 0.5))
        reads.keyed[user, memories["user"]] = 1 + user
        reads.keyed[user, memories["item"]] = 500 + int(rng.integers(0, 20))
        score = read_error(memory, reads, user, prediction, 1_000.0, parameters, SCRATCH)
        truth = prediction + float(error_of[user])
        write_error(memory, reads, user, float(rng.random() < truth), 1_000.0, parameters)
        if number > events // 2:
            plain.append((prediction - truth) ** 2)
            corrected.append((score - truth) ** 2)
    trust = {name: float(memory.trust[which]) for name, which in memories.items()}
    return trust, float(np.mean(plain)), float(np.mean(corrected))


def test_corrections_cost_next_to_nothing_on_noise() -> None:
    """Where errors can't be foreseen the score stays what it was, to a hundredth."""
    _, _, corrected = simulate(np.random.default_rng(4), np.zeros(16), 20_000)
    assert corrected < 1e-4


def test_a_bias_is_made_good() -> None:
    """Behind a frozen model that errs by .2 for every user nine tenths of the squared error are made good."""
    _, plain, corrected = simulate(np.random.default_rng(5), np.full(16, 0.2), 20_000)
    assert corrected < 0.1 * plain


def test_the_memory_that_knows_is_the_one_believed() -> None:
    """Where the error is the user's own, the memory keyed by the user is believed, and makes it good."""
    rng = np.random.default_rng(6)
    trust, plain, corrected = simulate(rng, rng.permutation(np.repeat([-0.25, 0.25], 8)), 20_000)
    assert trust["user"] > 0.8
    assert corrected < 0.1 * plain


def test_lambda_max_zero_switches_the_correction_off() -> None:
    """With `lambda_max` 0 nothing is ever corrected, and no lambda passes a smaller limit."""
    trust, plain, corrected = simulate(np.random.default_rng(7), np.full(16, 0.2), 2_000, lambda_max=0.0)
    assert not any(trust.values())
    assert corrected == pytest.approx(plain, rel=1e-12)
    trust, _, _ = simulate(np.random.default_rng(7), np.full(16, 0.2), 5_000, lambda_max=0.25)
    assert max(trust.values()) <= 0.25


def test_the_default_memory_holds_at_most_16_mib() -> None:
    """The stated size is the size of the buckets, and the default is small enough."""
    for each in (ErrorMemoryConfiguration(), configuration()):
        for stands_still in (False, True):
            memory = new_error_memory(each, CorrectionConfiguration(), COUNT, each.cells(stands_still))
            assert memory_bytes(each, stands_still) == memory.buckets.nbytes + memory.keyed.nbytes
            assert memory_bytes(each, stands_still) <= 16 << 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"arrays": 0},
        {"arrays": 257},
        {"bits": 0},
        {"bits": 21},
        {"keyed_bits": 0},
        {"keyed_bits": 25},
        {"crosses": ("tab",)},
        {"crosses": ("item", "item")},
        {"gamma": -0.1},
        {"gamma": 1.1},
        {"prior": 0.0},
        {"half_life_impressions": 0},
    ],
)
def test_memories_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """Arrays, bits, crosses, gamma, half-life and prior have their ranges."""
    with pytest.raises(ValueError, match="must"):
        ErrorMemoryConfiguration(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong",
    [{"base": "truth"}, {"lambda_max": 4.1}, {"lambda_max": -0.1}, {"lambda_initial": -0.1}, {"lambda_alpha": 0.0}],
)
def test_corrections_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """The base is known, and lambda has its ranges."""
    with pytest.raises(ValueError, match="must"):
        CorrectionConfiguration(**wrong)  # type: ignore[arg-type]

"""The error memory against a dictionary of buckets with decay, and lambda against streams with and without errors."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.error_memory import (
    MEMORIES,
    SCALE_MAX,
    CorrectionConfiguration,
    ErrorMemoryConfiguration,
    ErrorMemoryParameters,
    error_memory_parameters,
    locate,
    memory_bytes,
    new_error_memory,
    new_recalled,
    read_error,
    write_error,
)
from operators.hashing import mix
from operators.sdim import projections

HALF_LIFE_MS = 1_000_000
START_MS = 1_700_000_000_000
ARRAYS, BITS, SIZE = 3, 4, 6
CONFIGURATION = ErrorMemoryConfiguration(arrays=ARRAYS, bits=BITS, half_life_ms=HALF_LIFE_MS, prior=2.0)
Buckets = npt.NDArray[np.int32]


def parameters_of(lambda_max: float = 1.0, lambda_prior: float = 2_000.0) -> ErrorMemoryParameters:
    matrix = projections(2 * SIZE, ARRAYS * BITS, 5)
    correction = CorrectionConfiguration(
        lambda_max=lambda_max, lambda_prior=lambda_prior, lambda_half_life_ms=100 * HALF_LIFE_MS
    )
    return error_memory_parameters(CONFIGURATION, correction, matrix)


class Dictionary:
    """Every event ever, by bucket."""

    def __init__(self) -> None:
        self.events: dict[tuple[int, int, int], list[tuple[int, float, float]]] = {}

    def write(self, buckets: Buckets, label: float, prediction: float, now_ms: int) -> None:
        for which in range(len(MEMORIES)):
            for k in range(ARRAYS):
                self.events.setdefault((which, k, int(buckets[which, k])), []).append((now_ms, label, prediction))

    def read(self, buckets: Buckets, now_ms: int) -> npt.NDArray[np.float64]:
        """(sum y - sum p) / (count + prior K) of each memory, everything decayed from its own time to now."""
        estimates = np.zeros(len(MEMORIES))
        for which in range(len(MEMORIES)):
            error = count = 0.0
            for k in range(ARRAYS):
                for at_ms, label, prediction in self.events.get((which, k, int(buckets[which, k])), []):
                    weight = 2.0 ** (-(now_ms - at_ms) / HALF_LIFE_MS)
                    error += weight * (label - prediction)
                    count += weight
            estimates[which] = error / (count + CONFIGURATION.prior * ARRAYS) if count > 0 else 0.0
        return estimates


events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.floats(0, 1, width=32),
        st.booleans(),
        st.sampled_from([0, 1, 1_000, 300_000, 5 * HALF_LIFE_MS]),
    ),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=80)
@given(events)
def test_estimates_equal_a_dictionary_of_buckets(steps: list[tuple[int, float, bool, int]]) -> None:
    """Each memory's estimate is the residual form over all events of its buckets, each decayed until now."""
    memory, recalled, parameters = new_error_memory(CONFIGURATION), new_recalled(4, ARRAYS), parameters_of()
    recalled.bucket[:] = np.random.default_rng(1).integers(0, 3, recalled.bucket.shape)
    model, now_ms = Dictionary(), START_MS
    for slot, prediction, label, elapsed_ms in steps:
        now_ms += elapsed_ms
        trust = memory.trust.copy()
        total = read_error(memory, recalled, slot, now_ms, parameters)
        expected = model.read(recalled.bucket[slot], now_ms)
        np.testing.assert_allclose(recalled.estimate[slot], expected, rtol=1e-5, atol=2e-6)
        assert abs(total - trust @ recalled.estimate[slot]) < 1e-12
        write_error(memory, recalled, slot, float(label), prediction, now_ms, parameters)
        model.write(recalled.bucket[slot], float(label), prediction, now_ms)
        assert (memory.trust >= 0.0).all()
        assert (memory.trust <= 1.0).all()


def test_rescaling_changes_no_estimate() -> None:
    """Where the growing weight passes its limit all is divided by it: estimates stay within float32's rounding."""
    memory, recalled, parameters = new_error_memory(CONFIGURATION), new_recalled(64, ARRAYS), parameters_of()
    rng = np.random.default_rng(2)
    recalled.bucket[:] = rng.integers(0, 1 << BITS, recalled.bucket.shape)
    model, now_ms, rescaled = Dictionary(), START_MS, 0
    for step in range(3_000):
        now_ms += int(rng.integers(0, HALF_LIFE_MS // 25))
        slot, label, prediction = int(rng.integers(0, 64)), float(rng.integers(0, 2)), float(np.float32(rng.random()))
        before = float(memory.scale[0])
        write_error(memory, recalled, slot, label, prediction, now_ms, parameters)
        model.write(recalled.bucket[slot], label, prediction, now_ms)
        rescaled += memory.scale[0] < before
        assert 1.0 <= memory.scale[0] <= SCALE_MAX
        if step % 100 == 0 or memory.scale[0] < before:
            read_error(memory, recalled, slot, now_ms, parameters)
            expected = model.read(recalled.bucket[slot], now_ms)
            np.testing.assert_allclose(recalled.estimate[slot], expected, rtol=1e-4, atol=1e-5)
    assert rescaled >= 2


def test_a_pause_of_any_length_leaves_finite_numbers() -> None:
    """After a hundred years without an event what was remembered is gone, and the next event counts in full."""
    memory, recalled, parameters = new_error_memory(CONFIGURATION), new_recalled(1, ARRAYS), parameters_of()
    write_error(memory, recalled, 0, 1.0, 0.0, START_MS, parameters)
    later_ms = START_MS + 100 * 365 * 86_400_000
    read_error(memory, recalled, 0, later_ms, parameters)
    assert np.abs(recalled.estimate).max() < 1e-20
    write_error(memory, recalled, 0, 0.0, 0.5, later_ms, parameters)
    read_error(memory, recalled, 0, later_ms, parameters)
    np.testing.assert_allclose(recalled.estimate[0], -0.5 / (1.0 + CONFIGURATION.prior), rtol=1e-5)
    assert np.isfinite(memory.buckets).all()


def test_what_was_never_seen_is_no_error() -> None:
    """An empty bucket estimates exactly zero."""
    memory, recalled = new_error_memory(CONFIGURATION), new_recalled(1, ARRAYS)
    assert read_error(memory, recalled, 0, START_MS, parameters_of()) == 0.0
    assert not recalled.estimate.any()


def test_buckets_are_signs_of_the_representation_and_hashes_of_the_keys() -> None:
    """Near means: the same signs of the projected representation; the other memories go by the keys alone."""
    recalled, parameters = new_recalled(2, ARRAYS), parameters_of()
    rng = np.random.default_rng(3)
    user, item = rng.normal(size=(2, SIZE)).astype(np.float32)
    totals = np.zeros(ARRAYS * BITS, np.float32)
    locate(recalled, 1, parameters, user, item, np.uint64(2**63 + 5), np.uint64(7), totals)
    signs = np.concatenate([user, item]).astype(float) @ parameters.projection.astype(float) > 0
    expected = (signs.reshape(ARRAYS, BITS) * (1 << np.arange(BITS))).sum(axis=1)
    assert recalled.bucket[1, 0].tolist() == expected.tolist()
    for which, key in ((1, 2**63 + 5), (2, 7)):
        hashed = [int(mix(np.uint64(key), np.uint64(k))) & (1 << BITS) - 1 for k in range(ARRAYS)]
        assert recalled.bucket[1, which].tolist() == hashed
    assert not recalled.bucket[0].any()


def simulate(
    rng: np.random.Generator, error_of: npt.NDArray[np.float64], events: int, **lambdas: float
) -> tuple[npt.NDArray[np.float64], float, float]:
    """Let a frozen model say p where p + error_of[user] is true: the trust, and squared errors without and with."""
    memory, parameters = new_error_memory(CONFIGURATION), parameters_of(**lambdas)
    users = len(error_of)
    recalled = new_recalled(users, ARRAYS)
    recalled.bucket[:, 0] = rng.integers(0, 1 << BITS, (users, ARRAYS))
    recalled.bucket[:, 1] = np.arange(users)[:, None] % (1 << BITS)
    recalled.bucket[:, 2] = rng.integers(0, 1 << BITS, (users, ARRAYS))
    plain, corrected = [], []
    for number in range(events):
        user, prediction = int(rng.integers(0, users)), float(rng.uniform(0.3, 0.5))
        recalled.bucket[user, 2] = rng.integers(0, 1 << BITS, ARRAYS)
        now_ms = START_MS + number * 1_000
        correction = read_error(memory, recalled, user, now_ms, parameters)
        truth = prediction + float(error_of[user])
        label = float(rng.random() < truth)
        write_error(memory, recalled, user, label, prediction, now_ms, parameters)
        if number > events // 2:
            plain.append((prediction - truth) ** 2)
            corrected.append((prediction + correction - truth) ** 2)
    return memory.trust.copy(), float(np.mean(plain)), float(np.mean(corrected))


def test_trust_stays_near_zero_on_noise() -> None:
    """Where errors can't be foreseen lambda goes to about zero, and corrections cost next to nothing."""
    trust, _, corrected = simulate(np.random.default_rng(4), np.zeros(16), 20_000)
    assert trust.max() < 0.15
    assert corrected < 1e-4


def test_trust_rises_behind_a_biased_model() -> None:
    """Behind a frozen model that errs by .2 for every user lambda is about 1 in sum, and the error is made good."""
    trust, plain, corrected = simulate(np.random.default_rng(5), np.full(16, 0.2), 20_000)
    assert 0.7 < trust.sum() < 1.6
    assert corrected < 0.1 * plain


def test_the_memory_that_knows_is_the_one_believed() -> None:
    """Where the error is the user's own, the memory keyed by the user is believed, the one by changing items not."""
    rng = np.random.default_rng(6)
    trust, plain, corrected = simulate(rng, rng.permutation(np.repeat([-0.25, 0.25], 8)), 20_000)
    assert trust[1] > 0.6
    assert trust[2] < 0.3 * trust[1]
    assert corrected < 0.2 * plain


def test_lambda_max_zero_switches_the_correction_off() -> None:
    """With `lambda_max` 0 nothing is ever corrected, and no lambda passes a smaller limit."""
    trust, plain, corrected = simulate(np.random.default_rng(7), np.full(16, 0.2), 2_000, lambda_max=0.0)
    assert not trust.any()
    assert plain == corrected
    trust, _, _ = simulate(np.random.default_rng(7), np.full(16, 0.2), 5_000, lambda_max=0.25)
    assert trust.max() == 0.25


def test_the_default_memory_holds_at_most_16_mib() -> None:
    """The stated size is the size of the buckets, and the default is small enough."""
    for configuration in (ErrorMemoryConfiguration(), CONFIGURATION):
        assert memory_bytes(configuration) == new_error_memory(configuration).buckets.nbytes
    assert memory_bytes(ErrorMemoryConfiguration()) <= 16 << 20


@pytest.mark.parametrize(
    "wrong", [{"arrays": 0}, {"arrays": 257}, {"bits": 0}, {"bits": 21}, {"prior": 0.0}, {"half_life_ms": 0}]
)
def test_memories_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    """Arrays, bits, half-life and prior have their ranges."""
    with pytest.raises(ValueError, match="must"):
        ErrorMemoryConfiguration(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"base": "truth"}, {"lambda_max": 2.1}, {"lambda_max": -0.1}, {"lambda_prior": 0.0}])
def test_corrections_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """The base is known, lambda has its range, and its prior is above zero."""
    with pytest.raises(ValueError, match="must"):
        CorrectionConfiguration(**wrong)  # type: ignore[arg-type]

"""SDIM's buckets hold exact sums, collide as the paper says, and read what the paper's formula gives."""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.sdim import (
    LONG_AGO_MS,
    Histories,
    SdimConfiguration,
    Window,
    add_behavior,
    kernel,
    new_histories,
    oldest_of,
    projections,
    read_interest,
    read_interests,
    signature,
    window_of,
    wipe_history,
    write_behavior,
)

Vectors = npt.NDArray[np.float32]
GROUPS, TAU, SIZE = 16, 3, 32


@compiled
def _sign_all(projection: Vectors, vectors: Vectors, totals: Vectors, out: npt.NDArray[np.int64]) -> None:
    for i in range(vectors.shape[0]):
        out[i] = signature(projection, vectors[i], totals)


@compiled
def _write_all(histories: Histories, bits: npt.NDArray[np.int64], vectors: Vectors) -> None:
    for i in range(vectors.shape[0]):
        write_behavior(histories, 0, 0, bits[i], vectors[i])


@compiled
def _repeat(histories: Histories, bits: int, vector: Vectors, times: int) -> None:
    for _ in range(times):
        write_behavior(histories, 0, 0, bits, vector)


@compiled
def _add_all(
    histories: Histories,
    bits: npt.NDArray[np.int64],
    vectors: Vectors,
    ts_ms: npt.NDArray[np.int64],
    window: Window,
) -> None:
    for i in range(vectors.shape[0]):
        add_behavior(histories, 0, bits[i], vectors[i], ts_ms[i], window)


@compiled
def _wipe(histories: Histories) -> None:
    wipe_history(histories, 0)


def sign_all(rows: Vectors, vectors: Vectors) -> npt.NDArray[np.int64]:
    """Signatures of vectors [n, d] under projections [m, d]."""
    out = np.zeros(len(vectors), np.int64)
    _sign_all(np.ascontiguousarray(rows.T), vectors, np.zeros(len(rows), np.float32), out)
    return out


def buckets_of(bits: npt.NDArray[np.int64], groups: int = GROUPS, tau: int = TAU) -> npt.NDArray[np.int64]:
    """The bucket of each signature in each group, [n, groups]."""
    return bits[:, None] >> (tau * np.arange(groups)) & ((1 << tau) - 1)


def read(histories: Histories, bits: int, oldest_ms: int = LONG_AGO_MS) -> npt.NDArray[np.float64]:
    size = histories.sums.shape[4]
    out = np.full(size, 7, np.float32)
    read_interest(histories, 0, bits, oldest_ms, np.zeros(size), out)
    return out.astype(float)


def attention(bits: int, history: npt.NDArray[np.int64], vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The paper's Attn(q, S) in float64, from scratch."""
    total = np.zeros(vectors.shape[1])
    for group, bucket in enumerate(buckets_of(np.array([bits]))[0]):
        summed = vectors[buckets_of(history)[:, group] == bucket].sum(axis=0)
        norm = math.sqrt(float((summed * summed).sum()))
        total += summed / norm / GROUPS if norm > 0.0 else 0.0
    return total


def relative_error(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def around(interests: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> Vectors:
    """Vectors near one of the interests each."""
    chosen = interests[rng.integers(0, len(interests), count)]
    return (chosen + 0.5 * rng.normal(size=chosen.shape)).astype(np.float32)


PROJECTION = projections(GROUPS * TAU, SIZE, 0x5D1)


def test_projections_are_pinned() -> None:
    """The projections of a seed never change: a checkpoint's buckets are only as good as they."""
    digest = hashlib.sha256(PROJECTION.tobytes()).hexdigest()
    assert digest == "a99ae342dc2ad2209483577d19f6720a6df8bc7c44072b37e974cbb650aaeedb"
    assert not np.array_equal(PROJECTION, projections(GROUPS * TAU, SIZE, 0x5D2))


def test_projections_are_standard_normal() -> None:
    """The entries' distribution is N(0, 1) by Kolmogorov and Smirnov at one in a thousand, and so are the tails."""
    entries = np.sort(projections(1_000, 64, 3).ravel().astype(float))
    expected = np.array([0.5 * (1.0 + math.erf(x / math.sqrt(2.0))) for x in entries])
    empirical = np.arange(1, len(entries) + 1) / len(entries)
    assert np.abs(empirical - expected).max() < 1.95 / math.sqrt(len(entries))
    assert abs((entries**4).mean() - 3.0) < 4.5 * math.sqrt(96.0 / len(entries))
    assert 4.0 < np.abs(entries).max() < 6.0


@pytest.mark.large
def test_projections_are_independent() -> None:
    """Rows of the matrix are uncorrelated, those made by the same trial too."""
    matrix = projections(64, 4_000, 4).astype(float)
    correlations = np.corrcoef(matrix)[np.triu_indices(64, 1)]
    assert np.abs(correlations).max() < 5.0 / math.sqrt(4_000)
    flat = matrix.ravel()
    assert abs(np.corrcoef(flat[::2], flat[1::2])[0, 1]) < 4.5 / math.sqrt(len(flat) / 2)


def test_a_signature_is_the_signs_of_the_projections() -> None:
    """Bit i is set where the i-th projection of the vector is above zero."""
    vectors = np.random.default_rng(1).normal(size=(200, SIZE)).astype(np.float32)
    exact = vectors.astype(float) @ PROJECTION.astype(float).T
    bits = sign_all(PROJECTION, vectors)
    found = bits[:, None] >> np.arange(GROUPS * TAU) & 1
    clear = np.abs(exact) > 1e-4
    assert np.array_equal(found[clear] == 1, exact[clear] > 0)
    assert sign_all(PROJECTION, np.zeros((1, SIZE), np.float32))[0] == 0
    assert (bits >> (GROUPS * TAU) == 0).all()


@pytest.mark.parametrize("tau", [1, 3])
@pytest.mark.large
def test_vectors_collide_as_often_as_their_angle_says(tau: int) -> None:
    """At ten angles the share of groups in which two vectors collide is (1 - angle / pi) ** tau within 3 sigma."""
    groups, blocks, pairs = 63 // tau, 60, 20
    rng = np.random.default_rng(2)
    matrices = [projections(groups * tau, SIZE, 100 + seed) for seed in range(blocks)]
    for angle in np.linspace(0.05, 0.95, 10) * math.pi:
        shares = []
        for matrix in matrices:
            first = rng.normal(size=(pairs, SIZE))
            other = rng.normal(size=(pairs, SIZE))
            first /= np.linalg.norm(first, axis=1, keepdims=True)
            other -= (other * first).sum(axis=1, keepdims=True) * first
            other /= np.linalg.norm(other, axis=1, keepdims=True)
            second = math.cos(angle) * first + math.sin(angle) * other
            one = buckets_of(sign_all(matrix, first.astype(np.float32)), groups, tau)
            two = buckets_of(sign_all(matrix, second.astype(np.float32)), groups, tau)
            shares.append((one == two).mean(axis=0))
        # Pairs under the same projections are not independent: groups are the sample.
        sample = np.concatenate(shares)
        sigma = sample.std(ddof=1) / math.sqrt(len(sample))
        expected = (1.0 - angle / math.pi) ** tau
        assert abs(sample.mean() - expected) < 3.0 * sigma, angle
        assert math.isclose(kernel(math.cos(angle), tau), expected, rel_tol=1e-5, abs_tol=1e-7)


class PlainWindow:
    """A window over a long history as a list of lists: generations of (time, bits, vector), the newest last."""

    def __init__(self, configuration: SdimConfiguration) -> None:
        self.configuration = configuration
        self.generations: list[list[tuple[int, int, Vectors]]] = []
        self.newest_ms = 0

    def add(self, ts_ms: int, bits: int, vector: Vectors) -> None:
        c = self.configuration
        ts_ms = self.newest_ms = max(ts_ms, self.newest_ms)
        current = self.generations[-1] if self.generations else None
        if (
            current is None
            or (c.window_behaviors and len(current) >= c.window_behaviors // c.window_generations)
            or (c.window_ms and ts_ms - current[0][0] >= c.window_ms // c.window_generations)
        ):
            self.generations = [*self.generations, []][-c.generations :]
        self.generations[-1].append((ts_ms, bits, vector))

    def held(self, now_ms: int) -> list[tuple[int, int, Vectors]]:
        span = self.configuration.window_ms
        return [one for part in self.generations if not span or now_ms - part[0][0] < span for one in part]


SCALES = [1e-6, 0.01, 0.03, 0.1, 1.0, 60.0, 1e6]


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0, 4, 7, 20]),
    st.sampled_from([0, 10, 33, 500]),
    st.integers(2, 4),
    st.lists(st.tuples(st.integers(-5, 20), st.booleans()), max_size=80),
    st.lists(st.sampled_from(SCALES), min_size=1, max_size=3),
)
def test_a_read_equals_the_formula_over_what_remains(
    seed: int,
    window_behaviors: int,
    window_ms: int,
    generations: int,
    steps: list[tuple[int, bool]],
    scales: list[float],
) -> None:
    """After behaviours came and windows took others away, by count, by time or both, a read is the paper's formula.

    Within 1e-5 relative of an evaluation from scratch over what a list of lists holds at that moment, for vectors of
    any size, and of all sizes together; exactly zero where nothing remains.
    """
    configuration = SdimConfiguration(
        histories_limit=1,
        window_behaviors=window_behaviors,
        window_ms=window_ms,
        window_generations=generations,
    )
    window = window_of(configuration)
    histories, plain = new_histories(configuration, SIZE), PlainWindow(configuration)
    rng = np.random.default_rng(seed)
    now_ms = 1_000
    for step_ms, asks in steps:
        now_ms += max(step_ms, 0)
        vector = (rng.choice(scales) * rng.uniform(-1.0, 1.0, (1, SIZE))).astype(np.float32)
        bits = sign_all(PROJECTION, vector)
        ts_ms = now_ms + min(step_ms, 0)  # some come late
        _add_all(histories, bits, vector, np.array([ts_ms]), window)
        plain.add(ts_ms, int(bits[0]), vector[0])
        if not asks:
            continue
        for later_ms in (0, 7, 40, 10_000):
            held = plain.held(now_ms + later_ms)
            found = read(histories, int(bits[0]), oldest_of(window, now_ms + later_ms))
            if not held:
                assert not found.any()
                continue
            exact = attention(
                int(bits[0]), np.array([one[1] for one in held]), np.array([one[2] for one in held], np.float64)
            )
            assert relative_error(found, exact) < 1e-5
            assert not window_behaviors or len(held) <= window_behaviors
            assert not window_ms or all(now_ms + later_ms - one[0] < window_ms for one in held)
    _wipe(histories)
    for name in ("sums", "unit", "lengths", "started_ms", "newest_ms", "current"):
        assert not getattr(histories, name).any()


@pytest.mark.parametrize("generations", [1, 4])
def test_many_candidates_read_what_each_one_does(generations: int) -> None:
    """Reading many candidates at once gives bit for bit what reading them one by one does."""
    rng = np.random.default_rng(5)
    configuration = SdimConfiguration(histories_limit=1, window_behaviors=40 if generations > 1 else 0)
    histories = new_histories(configuration, SIZE)
    vectors = rng.normal(0.0, 0.1, (100, SIZE)).astype(np.float32)
    bits = sign_all(PROJECTION, vectors)
    _add_all(histories, bits, vectors, np.arange(100), window_of(configuration))
    assert histories.lengths[0].tolist() == ([100] if generations == 1 else [10] * 4)
    candidates = sign_all(PROJECTION, rng.normal(size=(300, SIZE)).astype(np.float32))
    out = np.full((300, SIZE), 7, np.float32)
    directions = np.full((GROUPS, 1 << TAU, SIZE), 7, np.float32)
    read_interests(histories, 0, candidates, LONG_AGO_MS, np.zeros(SIZE), directions, out)
    for candidate, found in zip(candidates, out.astype(float), strict=True):
        assert np.array_equal(found, read(histories, int(candidate)))


@pytest.mark.large
def test_of_a_hundred_thousand_behaviours_the_three_that_remain_are_all_that_is_read() -> None:
    """What float32 sums lose to 21% when all but three are taken back is exact when a window drops them."""
    rng = np.random.default_rng(3)
    configuration = SdimConfiguration(histories_limit=1, window_ms=1_000, window_generations=2)
    window = window_of(configuration)
    vectors = rng.normal(0.0, 0.1, (100_000, SIZE)).astype(np.float32)
    bits = sign_all(PROJECTION, vectors)
    ts_ms = np.where(np.arange(100_000) < 99_997, 10_000, 10_900)
    histories, three = (new_histories(configuration, SIZE) for _ in range(2))
    _add_all(histories, bits, vectors, ts_ms, window)
    _add_all(three, bits[-3:], vectors[-3:], ts_ms[-3:], window)
    assert histories.lengths[0].tolist() == [99_997, 3]
    oldest_ms = oldest_of(window, 11_000)
    for candidate in bits[-50:]:
        found = read(histories, int(candidate), oldest_ms)
        assert np.array_equal(found, read(three, int(candidate), oldest_ms))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.large
def test_a_hundred_thousand_behaviours_overflow_nothing(scale: float) -> None:
    """Sums of many behaviours, of one alike or of all directions, stay within 1e-5 of the formula."""
    rng = np.random.default_rng(8)
    for spread in (0.0, 1.0):
        vectors = np.linspace(-1.0, 1.0, SIZE) + spread * rng.normal(size=(100_000, SIZE))
        vectors = (scale * vectors).astype(np.float32)
        bits = sign_all(PROJECTION, vectors)
        histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
        _write_all(histories, bits, vectors)
        for candidate in bits[:5]:
            exact = attention(int(candidate), bits, vectors.astype(float))
            assert relative_error(read(histories, int(candidate)), exact) < 1e-5
        assert histories.lengths[0, 0] == 100_000


def test_what_is_not_finite_adds_nothing() -> None:
    """A vector with an infinity or a NaN counts as a behaviour and leaves the sums as they are."""
    histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
    for wrong in (math.nan, math.inf, -math.inf):
        vector = np.linspace(-1.0, 1.0, SIZE).astype(np.float32)
        vector[SIZE // 2] = wrong
        _write_all(histories, np.zeros(1, np.int64), vector[None])
    _write_all(histories, np.zeros(1, np.int64), np.zeros((1, SIZE), np.float32))
    assert histories.lengths[0, 0] == 4
    assert not histories.sums.any()
    assert not read(histories, 0).any()


@pytest.mark.large
def test_a_large_sum_rounds_no_small_one_away() -> None:
    """Beside 100 000 large behaviours a single small one still reads as itself where it lies alone in its bucket."""
    rng = np.random.default_rng(6)
    large, small = 60.0 * rng.normal(size=(1, SIZE)), 0.01 * rng.normal(size=(1, SIZE))
    large, small = large.astype(np.float32), small.astype(np.float32)
    histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
    bits = int(sign_all(PROJECTION, small)[0])
    _repeat(histories, int(sign_all(PROJECTION, large)[0]), large[0], 100_000)
    _repeat(histories, bits, small[0], 1)
    alone = buckets_of(np.array([bits]))[0] != buckets_of(sign_all(PROJECTION, large))[0]
    assert alone.sum() > GROUPS // 2
    held = large[0].astype(float)
    expected = alone.sum() * small[0].astype(float) / np.linalg.norm(small[0].astype(float))
    expected += (~alone).sum() * held / np.linalg.norm(held)
    assert relative_error(read(histories, bits), expected / GROUPS) < 1e-5


@pytest.mark.parametrize("length", [256, 1_024])
@pytest.mark.large
def test_a_read_points_where_its_expected_kernel_sum_points(length: int) -> None:
    """At 256 behaviours and more the mean cosine between a read and the kernel's own sum is at least .95.

    That is so for histories around a few interests, as users have them: here eight, with half as much noise. Vectors in
    every direction alike, of which each history's sum is near zero, reach .73.
    """
    rng = np.random.default_rng(length)
    cosines = []
    for seed in range(12):
        matrix = projections(GROUPS * TAU, SIZE, 500 + seed)
        interests = rng.normal(size=(8, SIZE))
        vectors = around(interests, length, rng)
        histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
        _write_all(histories, sign_all(matrix, vectors), vectors)
        unit = vectors.astype(float) / np.linalg.norm(vectors, axis=1, keepdims=True)
        candidates = around(interests, 50, rng)
        for candidate, bits in zip(candidates.astype(float), sign_all(matrix, candidates), strict=True):
            angles = np.arccos(np.clip(unit @ candidate / np.linalg.norm(candidate), -1, 1))
            expected = ((1 - angles / math.pi) ** TAU) @ vectors.astype(float)
            found = read(histories, bits)
            cosines.append(found @ expected / np.linalg.norm(found) / np.linalg.norm(expected))
    assert np.mean(cosines) >= 0.95


def test_an_empty_group_adds_nothing_and_still_counts() -> None:
    """A candidate that shares half of the groups with the only behaviour reads half of its direction."""
    vector = np.random.default_rng(4).normal(size=SIZE).astype(np.float32)
    bits = int(sign_all(PROJECTION, vector[None])[0])
    histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
    _repeat(histories, bits, vector, 1)
    half = bits ^ sum(1 << TAU * group for group in range(GROUPS // 2))
    np.testing.assert_allclose(read(histories, half), read(histories, bits) / 2, rtol=1e-5, atol=1e-7)
    assert not read(histories, bits ^ (1 << GROUPS * TAU) - 1).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": 0},
        {"tau": 0},
        {"groups": 32, "tau": 2},
        {"groups": 1, "tau": 9},
        {"histories_limit": 0},
        {"window_generations": 1},
        {"window_generations": 65},
        {"window_behaviors": 3},
        {"window_ms": -1},
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    """A signature fits 63 bits, a bucket number 8, there is room for one history, and a generation holds something."""
    with pytest.raises(ValueError, match=r"must (be|lie|have)"):
        SdimConfiguration(**wrong)

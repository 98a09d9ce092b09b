"""SDIM's buckets hold exact sums, collide as the paper says, and read what the paper's formula gives."""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.compiled import compiled
from operators.sdim import (
    FIXED_POINT,
    Histories,
    SdimConfiguration,
    kernel,
    new_histories,
    projections,
    read_interest,
    signature,
    write_behavior,
)

Vectors = npt.NDArray[np.float32]
GROUPS, TAU, SIZE = 16, 3, 32


@compiled
def _sign_all(projection: Vectors, vectors: Vectors, totals: Vectors, out: npt.NDArray[np.int64]) -> None:
    for i in range(vectors.shape[0]):
        out[i] = signature(projection, vectors[i], totals)


@compiled
def _write_all(histories: Histories, bits: npt.NDArray[np.int64], vectors: Vectors, sign: int) -> None:
    for i in range(vectors.shape[0]):
        write_behavior(histories, 0, bits[i], vectors[i], sign)


@compiled
def _repeat(histories: Histories, bits: int, vector: Vectors, times: int) -> None:
    for _ in range(times):
        write_behavior(histories, 0, bits, vector, 1)


def sign_all(rows: Vectors, vectors: Vectors) -> npt.NDArray[np.int64]:
    """Signatures of vectors [n, d] under projections [m, d]."""
    out = np.zeros(len(vectors), np.int64)
    _sign_all(np.ascontiguousarray(rows.T), vectors, np.zeros(len(rows), np.float32), out)
    return out


def buckets_of(bits: npt.NDArray[np.int64], groups: int = GROUPS, tau: int = TAU) -> npt.NDArray[np.int64]:
    """The bucket of each signature in each group, [n, groups]."""
    return bits[:, None] >> (tau * np.arange(groups)) & ((1 << tau) - 1)


def read(histories: Histories, bits: int) -> npt.NDArray[np.float64]:
    out = np.full(histories.sums.shape[3], 7, np.float32)
    read_interest(histories, 0, bits, out)
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


def rounded(vectors: Vectors) -> npt.NDArray[np.float64]:
    """Vectors as the sums hold them, in whole units of 2**-16."""
    return np.floor(vectors.astype(float) * FIXED_POINT + 0.5) / FIXED_POINT


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


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 60), st.sampled_from([0.01, 0.1, 1.0, 10.0]))
def test_a_read_equals_the_formula_over_what_remains(seed: int, count: int, magnitude: float) -> None:
    """After adds and removals in any order a read is the paper's formula over what remains, to float32's rounding.

    The sums hold vectors rounded to 2**-16. Against vectors that are not rounded the read is within 1e-5 where their
    coordinates are of the order of 1; below that the rounding shows, in proportion.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(0.0, magnitude, (count, SIZE)).astype(np.float32)
    bits = sign_all(PROJECTION, vectors)
    histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
    there = np.zeros(count, bool)
    for which in rng.integers(0, count, 3 * count):
        _write_all(histories, bits[which : which + 1], vectors[which : which + 1], -1 if there[which] else 1)
        there[which] = not there[which]
    assert histories.length[0] == there.sum()
    for candidate in bits[:5]:
        found = read(histories, candidate)
        exact = attention(candidate, bits[there], rounded(vectors)[there])
        if not exact.any():
            assert not found.any()
            continue
        assert relative_error(found, exact) < 1e-6
        if magnitude >= 1.0:
            assert relative_error(found, attention(candidate, bits[there], vectors[there].astype(float))) < 1e-5
    gone = there.nonzero()[0]
    _write_all(histories, bits[gone], vectors[gone], -1)
    assert not histories.sums.any()
    assert not histories.counts.any()
    assert not read(histories, bits[0]).any()


def test_a_hundred_thousand_adds_with_all_but_three_taken_back_leave_the_three() -> None:
    """What float32 sums lose to 21% stays exact: the read of the three that remain is that of three alone."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(0.0, 0.1, (100_000, SIZE)).astype(np.float32)
    bits = sign_all(PROJECTION, vectors)
    histories, three = (new_histories(SdimConfiguration(histories_limit=1), SIZE) for _ in range(2))
    _write_all(histories, bits, vectors, 1)
    assert histories.shift[0] == 0
    _write_all(histories, bits[3:], vectors[3:], -1)
    _write_all(three, bits[:3], vectors[:3], 1)
    assert np.array_equal(histories.sums, three.sums)
    assert np.array_equal(histories.counts, three.counts)
    assert np.array_equal(read(histories, bits[0]), read(three, bits[0]))


@pytest.mark.parametrize("magnitude", [0.01, 1.0, 60.0, 1e6])
def test_a_hundred_thousand_adds_of_one_vector_do_not_overflow(magnitude: float) -> None:
    """The read stays the vector's direction; coordinates beyond 64 count as 64."""
    vector = (magnitude * np.linspace(-1.0, 1.0, SIZE)).astype(np.float32)
    bits = int(sign_all(PROJECTION, vector[None])[0])
    histories = new_histories(SdimConfiguration(histories_limit=1), SIZE)
    _repeat(histories, bits, vector, 100_000)
    held = np.clip(vector.astype(float), -64.0, 64.0)
    assert relative_error(read(histories, bits), held / np.linalg.norm(held)) < max(5e-5, 2e-5 / magnitude)
    assert histories.length[0] == 100_000
    assert int(histories.counts.max()) == 100_000
    bucket = buckets_of(np.array([bits]))[0, 0]
    summed = histories.sums[0, 0, bucket].astype(float) * 2.0 ** (int(histories.shift[0]) - 16)
    np.testing.assert_allclose(summed, 1e5 * held, rtol=1e-9, atol=1e5 * 2.0 ** (int(histories.shift[0]) - 17))


@pytest.mark.parametrize("length", [256, 1_024])
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
        _write_all(histories, sign_all(matrix, vectors), vectors, 1)
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
    "wrong", [{"groups": 0}, {"tau": 0}, {"groups": 32, "tau": 2}, {"groups": 1, "tau": 9}, {"histories_limit": 0}]
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    """A signature fits 63 bits, a bucket number 8, and there is room for one history."""
    with pytest.raises(ValueError, match="must be at"):
        SdimConfiguration(**wrong)

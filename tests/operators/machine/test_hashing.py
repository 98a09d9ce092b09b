"""Keys never change between versions, are salted by field, and partitions are Kafka's."""

import math
import warnings

import mmh3
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.hashing import (
    MEMO_LIMIT,
    Keys,
    cross,
    field_seed,
    hasher,
    key_of,
    mix,
    murmur2,
    partition_of,
    partitions_of,
    uniform,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of the standard library's, inside kafka-python
    from kafka.partitioner.default import murmur2 as kafka_murmur2

MASK = (1 << 64) - 1


@compiled
def _uniforms(keys: npt.NDArray[np.uint64], salt: int, out: npt.NDArray[np.float64]) -> None:
    for i in range(keys.shape[0]):
        out[i] = uniform(keys[i], salt)


@compiled
def _mixed(keys: npt.NDArray[np.uint64], salt: int, out: npt.NDArray[np.uint64]) -> None:
    for i in range(keys.shape[0]):
        out[i] = mix(keys[i], salt)


def python_mix(key: int, salt: int) -> int:
    h = key ^ (salt * 0x9E3779B97F4A7C15 & MASK)
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & MASK
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def chi_square(observed: npt.NDArray[np.int64]) -> float:
    """How many standard deviations the chi-square of equally likely cells lies above its mean."""
    expected = observed.sum() / observed.size
    freedom = observed.size - 1
    return float((((observed - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom))


@given(st.lists(st.text(max_size=40)), st.integers(0, 3))
def test_keys_of_a_block_are_those_of_its_ids(ids: list[str], seed: int) -> None:
    """Hashing ids all at once gives what mmh3 gives for each, whatever their lengths and alphabets."""
    assert hasher("user", seed)(ids).tolist() == [key_of(text, field_seed("user", seed)) for text in ids]


def test_keys_are_pinned() -> None:
    """Keys of every released version stay as they are: a checkpoint knows its ids by them."""
    assert field_seed("user", 0) == 2509520141
    assert field_seed("item", 0) == 2444373758
    assert field_seed("item", 12345678901) == 1326332144
    assert key_of("alice", field_seed("user", 0)) == 6650396638381950850
    assert key_of("日本", field_seed("item", 7)) == 3057337857737228139
    assert key_of("", 1) == 5048724184180415669
    assert mix(np.uint64(1), np.uint64(2)) == 16739924786248912506
    assert cross(np.uint64(3), np.uint64(4), np.uint64(5)) == 7551669468994217229
    assert uniform(np.uint64(6), np.uint64(7)) == 0.07184194815767042


@given(st.text(max_size=300), st.integers(0, 2**32 - 1))
def test_a_key_is_64_bits_and_never_zero(text: str, seed: int) -> None:
    """0 marks an empty cell, so no text may have it as its key."""
    assert 0 < key_of(text, seed) <= MASK


@given(st.text(max_size=30), st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10), st.integers(0, 2**40))
def test_keys_are_salted_by_field(text: str, first: str, second: str, seed: int) -> None:
    """The same text in two fields has two keys."""
    if field_seed(first, seed) != field_seed(second, seed):
        assert key_of(text, field_seed(first, seed)) != key_of(text, field_seed(second, seed))


def test_the_seed_of_the_configuration_changes_every_key() -> None:
    """Another seed gives other keys."""
    assert key_of("alice", field_seed("user", 0)) != key_of("alice", field_seed("user", 1))


def test_keys_are_remembered_without_changing_anything() -> None:
    """A memo that was emptied at its limit gives the same keys as before, and never holds more than its limit."""
    keys = Keys("item", 3)
    salt = field_seed("item", 3)
    before = [keys[str(i)] for i in range(MEMO_LIMIT + 10)]
    assert len(keys) <= MEMO_LIMIT
    assert before[:10] == [keys[str(i)] for i in range(10)] == [key_of(str(i), salt) for i in range(10)]
    assert len(set(before)) == len(before)


@given(st.integers(-(2**63), 2**63 - 1), st.booleans())
def test_a_number_is_hashed_as_its_text(number: int, text_first: bool) -> None:
    """A whole number and its text are one value, whichever comes first."""
    keys = Keys("tab", 0)
    values: list[str | int] = [str(number), number] if text_first else [number, str(number)]
    assert {keys[value] for value in values} == {key_of(str(number), field_seed("tab", 0))}


@settings(deadline=None)
@given(st.integers(0, MASK), st.integers(0, MASK))
def test_mix_is_murmurs_finaliser(key: int, salt: int) -> None:
    """The compiled mixing equals the same steps on Python's whole numbers."""
    assert int(mix(np.uint64(key), np.uint64(salt))) & MASK == python_mix(key, salt)


@settings(deadline=None)
@given(st.integers(1, MASK), st.integers(1, MASK), st.integers(0, MASK))
def test_a_cross_knows_its_order_and_is_never_zero(first: int, second: int, salt: int) -> None:
    """Two values crossed have a key other than 0, and another one the other way round."""
    one = cross(np.uint64(first), np.uint64(second), np.uint64(salt))
    other = cross(np.uint64(second), np.uint64(first), np.uint64(salt))
    assert int(one) != 0
    assert (one == other) == (first == second)


@settings(deadline=None)  # the first call compiles
@given(st.binary(max_size=70), st.binary(max_size=5), st.integers(1, 2**31 - 1))
def test_murmur2_is_kafkas(data: bytes, before: bytes, partitions: int) -> None:
    """The partition of any key is the one that kafka-python's default partitioner gives it."""
    array = np.frombuffer(before + data, np.uint8)
    expected = kafka_murmur2(data) & 0xFFFFFFFF
    assert int(murmur2(array, len(before), len(before) + len(data))) & 0xFFFFFFFF == expected
    assert partition_of(data, partitions) == (expected & 0x7FFFFFFF) % partitions


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(1, 1_000))
def test_partitions_of_many_are_those_of_each(keys: list[bytes], partitions: int) -> None:
    """Keys hashed together do not touch each other."""
    assert partitions_of(keys, partitions).tolist() == [(kafka_murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


@pytest.mark.large
def test_uniform_is_uniform_even_over_consecutive_keys() -> None:
    """Chance derived from keys 0, 1, 2, … fills 256 cells evenly, and one salt says nothing of another."""
    keys = np.arange(100_000, dtype=np.uint64)
    out, other = np.zeros(len(keys)), np.zeros(len(keys))
    for salt in range(1, 21):
        _uniforms(keys, salt, out)
        assert out.min() >= 0.0
        assert out.max() < 1.0
        assert chi_square(np.bincount((out * 256).astype(int), minlength=256)) < 5.0
        _uniforms(keys, salt + 1, other)
        cells = (out * 16).astype(int) * 16 + (other * 16).astype(int)
        assert chi_square(np.bincount(cells, minlength=256)) < 5.0


def test_uniform_has_53_bits() -> None:
    """Every chance is a whole number of 2**-53, and the lowest of these bits is used."""
    out = np.zeros(1_000)
    _uniforms(np.arange(1_000, dtype=np.uint64), 1, out)
    scaled = out * 2.0**53
    assert np.array_equal(scaled, np.floor(scaled))
    assert 400 < np.count_nonzero(scaled % 2) < 600


@pytest.mark.large
def test_every_bit_of_a_key_moves_half_of_the_mixed_bits() -> None:
    """Flipping any bit of the key flips each bit of the result about half of the time."""
    keys = np.random.default_rng(1).integers(0, MASK, 2_000, dtype=np.uint64)
    mixed, flipped = np.zeros(len(keys), np.uint64), np.zeros(len(keys), np.uint64)
    _mixed(keys, 9, mixed)
    for bit in range(64):
        _mixed(keys ^ np.uint64(1 << bit), 9, flipped)
        flips = np.unpackbits((mixed ^ flipped).view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
        assert flips.min() > 0.42
        assert flips.max() < 0.58


C1, C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
WORD = (1 << 64) - 1


def rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & WORD


def flipped(word: int, bit: int, first: int, second: int, rotation: int) -> int:
    """Return the word that MurmurHash3 mixes into the same but for one bit."""
    mixed = rotated(word * first & WORD, rotation) * second & WORD ^ 1 << bit
    unmixed = rotated(mixed * pow(second, -1, 1 << 64) & WORD, 64 - rotation)
    return unmixed * pow(first, -1, 1 << 64) & WORD


def test_a_seed_does_not_prevent_two_strings_with_one_key() -> None:
    """Of 24 bytes or more, two can be made that share a hash under every seed: docs/hostile.md says so."""
    one = b"0123456789abcdef0123456789abcdef and more"
    words = [int.from_bytes(one[start : start + 8], "little") for start in range(0, 24, 8)]
    mixing = ((36, C1, C2, 31), (32, C2, C1, 33), (63, C1, C2, 31))
    others = [flipped(word, *each) for word, each in zip(words, mixing, strict=True)]
    other = b"".join(word.to_bytes(8, "little") for word in others) + one[24:]
    assert one != other
    assert all(mmh3.hash64(one, seed) == mmh3.hash64(other, seed) for seed in range(2_000))
    assert mmh3.hash64(one[:24], 7) == mmh3.hash64(other[:24], 7)
    assert mmh3.hash64(one[:23], 7) != mmh3.hash64(other[:23], 7)

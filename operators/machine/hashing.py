"""The one place that knows the hash: ids to 64-bit keys, salted by field; mixing of keys; Kafka's partitioner.

A key is the first half of 128-bit MurmurHash3 (x64) with a seed made of the configuration's seed and the field's name.
Among n ids of a field the chance that any two share a key is at most n**2 / 2**65: 3e-6 for 10 million ids.
"""

from collections.abc import Callable, Sequence

import mmh3
import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.compiled import compiled, int64, uint64, wrapping

MEMO_LIMIT = 1 << 14  # keys remembered per field: a hash costs three times a look-up

Key = int


def field_seed(name: str, seed: int) -> int:
    """Return the 32-bit seed of a field's keys."""
    return int(mmh3.hash(name.encode(), seed & 0xFFFFFFFF, signed=False))


def key_of(text: str, seed: int) -> Key:
    """Return the 64-bit key of an id or a value under a field's seed; never 0, which marks an empty cell.

    >>> key_of("alice", field_seed("user", 0)) != key_of("alice", field_seed("item", 0))
    True
    """
    return int(mmh3.hash64(text.encode(), seed, signed=False)[0]) or 1


def hasher(name: str, seed: int) -> Callable[[Sequence[str]], npt.NDArray[np.uint64]]:
    """Return a function from a field's ids to their keys, uint64 [ids].

    >>> hasher("user", 0)(["alice"]).tolist() == [key_of("alice", field_seed("user", 0))]
    True
    """
    salt = field_seed(name, seed)

    def keys(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
        out = np.empty(len(texts), np.uint64)
        joined = "".join(texts)
        if joined.isascii():
            raw, lengths = joined.encode(), map(len, texts)
        else:
            encoded = [text.encode() for text in texts]
            raw, lengths = b"".join(encoded), map(len, encoded)
        _keys_of_all(np.frombuffer(raw + b"\0", np.uint8), np.fromiter(lengths, np.int64, len(texts)), salt, out)
        return out

    return keys


class Keys(dict[str | int, Key]):
    """A field's values and their keys, made when first asked for; up to `MEMO_LIMIT` are remembered.

    A number is hashed as its text. Only strings and integers are values here: equal ones have the same text.

    >>> keys = Keys("tab", 0)
    >>> keys["1"] == keys[1] == key_of("1", field_seed("tab", 0))
    True
    """

    def __init__(self, name: str, seed: int) -> None:
        """Make keys of the field `name` under the configuration's seed."""
        super().__init__()
        self._salt = field_seed(name, seed)

    def __missing__(self, value: str | int) -> Key:
        """Hash a value and remember its key."""
        if len(self) >= MEMO_LIMIT:
            self.clear()
        key = self[value] = key_of(str(value), self._salt)
        return key


@compiled
def _word(data: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Return up to 8 bytes as one number, the lowest first."""
    word = uint64(0)
    for i in range(end - start):
        word |= uint64(data[start + i]) << uint64(8 * i)
    return word


@compiled
def _rotated(word: int, bits: int) -> int:
    return uint64((word << uint64(bits)) | (word >> uint64(64 - bits)))


@compiled
def _final(h: int) -> int:
    h ^= h >> uint64(33)
    h *= uint64(0xFF51AFD7ED558CCD)
    h ^= h >> uint64(33)
    h *= uint64(0xC4CEB9FE1A85EC53)
    h ^= h >> uint64(33)
    return h


@wrapping
def murmur3(data: npt.NDArray[np.uint8], start: int, end: int, seed: int) -> int:
    """Return the first half of the 128-bit MurmurHash3 (x64) of `data[start:end]`, as `mmh3.hash64` does."""
    c1, c2 = uint64(0x87C37B91114253D5), uint64(0x4CF5AD432745937F)
    h1 = h2 = uint64(seed)
    at = start
    while end - at >= 16:
        h1 ^= _rotated(_word(data, at, at + 8) * c1, 31) * c2
        h1 = (_rotated(h1, 27) + h2) * uint64(5) + uint64(0x52DCE729)
        h2 ^= _rotated(_word(data, at + 8, at + 16) * c2, 33) * c1
        h2 = (_rotated(h2, 31) + h1) * uint64(5) + uint64(0x38495AB5)
        at += 16
    if end - at > 8:
        h2 ^= _rotated(_word(data, at + 8, end) * c2, 33) * c1
    h1 ^= _rotated(_word(data, at, min(end, at + 8)) * c1, 31) * c2
    h1 ^= uint64(end - start)
    h2 ^= uint64(end - start)
    h1 += h2
    h2 += h1
    return _final(h1) + _final(h2)


@compiled
def _keys_of_all(
    data: npt.NDArray[np.uint8], lengths: npt.NDArray[np.int64], seed: int, out: npt.NDArray[np.uint64]
) -> None:
    start = 0
    for i in range(lengths.shape[0]):
        end = start + lengths[i]
        h = murmur3(data, start, end, seed)
        out[i] = h if h != uint64(0) else uint64(1)
        start = end


@wrapping
def mix(key: int, salt: int) -> int:
    """Return 64 well-mixed bits of a key and a salt (the finaliser of MurmurHash3)."""
    return _final(uint64(key) ^ (uint64(salt) * uint64(0x9E3779B97F4A7C15)))


@wrapping
def cross(first: int, second: int, salt: int) -> int:
    """Return the key of two values seen together; never 0."""
    h = mix(uint64(first) + uint64(0x9E3779B97F4A7C15) * uint64(second), salt)
    return h if h != uint64(0) else uint64(1)


@compiled
def uniform(key: int, salt: int) -> float:
    """Return a float64 in [0, 1) derived from a key and a salt: chance that repeats."""
    return float(mix(key, salt) >> uint64(11)) * (1.0 / 9007199254740992.0)


@wrapping
def murmur2(data: npt.NDArray[np.uint8], start: int, end: int) -> int:
    """Return the 32-bit MurmurHash2 of `data[start:end]` as Kafka's default partitioner computes it."""
    m = np.uint32(0x5BD1E995)
    length = end - start
    h = np.uint32(0x9747B28C) ^ np.uint32(length)
    at = start
    while end - at >= 4:
        k = np.uint32(data[at]) | np.uint32(data[at + 1]) << np.uint32(8)
        k |= np.uint32(data[at + 2]) << np.uint32(16) | np.uint32(data[at + 3]) << np.uint32(24)
        k = np.uint32(k * m)
        k ^= k >> np.uint32(24)
        k = np.uint32(k * m)
        h = np.uint32(h * m) ^ k
        at += 4
    rest = end - at
    if rest >= 3:
        h ^= np.uint32(data[at + 2]) << np.uint32(16)
    if rest >= 2:
        h ^= np.uint32(data[at + 1]) << np.uint32(8)
    if rest >= 1:
        h ^= np.uint32(data[at])
        h = np.uint32(h * m)
    h ^= h >> np.uint32(13)
    h = np.uint32(h * m)
    h ^= h >> np.uint32(15)
    return h  # type: ignore[return-value]


@compiled
def _murmur2_all(
    data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64], out: npt.NDArray[np.int64], partitions: int
) -> None:
    start = 0
    for i in range(ends.shape[0]):
        out[i] = int64(murmur2(data, start, ends[i]) & np.uint32(0x7FFFFFFF)) % partitions
        start = ends[i]


def partitions_of(keys: Sequence[bytes], partitions: int) -> npt.NDArray[np.int64]:
    """Return the partition that Kafka's default partitioner gives each key, int64 [keys].

    >>> partitions_of([b"alice", b"bob"], 1).tolist()
    [0, 0]
    """
    out = np.zeros(len(keys), np.int64)
    ends = np.cumsum(np.fromiter(map(len, keys), np.int64, len(keys)))
    _murmur2_all(np.frombuffer(b"".join(keys) + b"\0", np.uint8), ends, out, partitions)
    return out


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's default partitioner gives a key.

    >>> partition_of(b"alice", 1)
    0
    """
    return int(partitions_of([key], partitions)[0])

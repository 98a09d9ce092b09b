"""Ids made to have the keys that one wants, as whoever knows the seed can: MurmurHash3 runs backwards as well."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from thalweg.operators.machine.hashing import field_seed

Words = npt.NDArray[np.uint64]
MASK = (1 << 64) - 1
C1, C2, F1, F2 = 0x87C37B91114253D5, 0x4CF5AD432745937F, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53
ID_BYTES = 16
CANDIDATES, ATTEMPTS = 1 << 15, 256
BUCKET_BITS = 20


def _inverse(odd: int) -> np.uint64:
    return np.uint64(pow(odd, -1, 1 << 64))


def _rotated_right(words: Words, bits: int) -> Words:
    return (words >> np.uint64(bits)) | (words << np.uint64(64 - bits))


def _unmixed(words: Words) -> Words:
    """Undo MurmurHash3's finaliser."""
    shift = np.uint64(33)
    words = (words ^ (words >> shift)) * _inverse(F2)
    words = (words ^ (words >> shift)) * _inverse(F1)
    return words ^ (words >> shift)


@lru_cache(64)
def _candidates(salt: int, attempt: int) -> tuple[Words, Words]:
    """Return words to try, and what they were before MurmurHash3's finaliser."""
    free = np.random.default_rng([salt, attempt]).integers(0, MASK, CANDIDATES, np.uint64, endpoint=True)
    return free, _unmixed(free)


def id_of(key: int, field: str, seed: int = 0, salt: int = 0) -> str:
    """Return an id of 16 ASCII characters whose key in a field is `key`; another one for each salt."""
    start = np.uint64(field_seed(field, seed))
    for attempt in range(ATTEMPTS):
        free, unmixed = _candidates(salt, attempt)
        one = _unmixed(np.uint64(key) - free)
        two = unmixed - one
        one = one - two
        one, two = one ^ np.uint64(ID_BYTES), two ^ np.uint64(ID_BYTES)
        second = _rotated_right((two - np.uint64(0x38495AB5)) * _inverse(5) - one, 31) ^ start
        second = _rotated_right(second * _inverse(C1), 33) * _inverse(C2)
        first = _rotated_right((one - np.uint64(0x52DCE729)) * _inverse(5) - start, 27) ^ start
        first = _rotated_right(first * _inverse(C2), 31) * _inverse(C1)
        ascii_only = np.flatnonzero((first | second) & np.uint64(0x8080808080808080) == 0)
        if len(ascii_only):
            at = ascii_only[0]
            return b"".join(int(word[at]).to_bytes(8, "little") for word in (first, second)).decode()
    raise AssertionError("one in 65 536 candidates is ASCII")


def colliding_ids(field: str, count: int, bucket: int = 5) -> Iterator[str]:
    """Give ids whose two buckets are one and the same, in an index of any size up to 2**20 buckets."""
    for number in range(1, count + 1):
        yield id_of((number << BUCKET_BITS | bucket) << 32 | number << BUCKET_BITS | bucket, field)

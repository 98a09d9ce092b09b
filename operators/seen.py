"""What each user acted on, longer ago than the sequence has it: a bounded Bloom filter of items a user.

Two filters take turns. Items go to one until it has had `seen_length` different ones; then the other is emptied and
takes over. So the last `seen_length` items are always known, and at most twice as many. An item that the user did not
act on is taken for one with a probability of .0012 at most: `2 (1 - exp(-HASHES / BITS))**HASHES` (Bloom, Space/time
trade-offs in hash coding with allowable errors, 1970).
"""

from typing import Annotated, NamedTuple

from thalweg.operators.machine.compiled import clear, compiled, int64, uint64
from thalweg.operators.machine.declare import Int32, UInt8, UInt64, per
from thalweg.operators.machine.hashing import mix

FILTERS = 2
BITS, HASHES = 16, 8
"""Of one item."""
WORD_BITS = 64
HASH_BITS, HASHES_A_WORD = 16, 4
SALT = 0x5EE4


class SeenItems(NamedTuple):
    """The items of each user, in two filters one behind the other."""

    bits: Annotated[UInt64, per("users seen_words", "both filters", apart=True)]
    used: Annotated[Int32, per("users", "items in the filter in use", upto="seen_length", apart=True)]
    current: Annotated[UInt8, per("users", "the filter in use", below=FILTERS, apart=True)]


def words_of(length: int) -> int:
    """Return the words that both filters of so many items take together; a filter has a power of two of them.

    >>> words_of(0), words_of(64), words_of(65)
    (2, 32, 64)
    """
    words = -(-max(length, 1) * BITS // WORD_BITS)
    return FILTERS * (1 << (words - 1).bit_length() if length else 1)


@compiled
def remember(seen: SeenItems, user: int, key: int, length: int) -> None:
    """Put an item into the filter in use, or into the other one, emptied, where it is full; 0: nothing is kept."""
    if length == 0 or user < 0:
        return
    bits = seen.bits[user]
    words = bits.shape[0] // FILTERS
    start = words * int64(seen.current[user])
    if _has(bits, start, words, key):
        return
    if seen.used[user] == length:
        seen.used[user], seen.current[user] = 0, 1 - seen.current[user]
        start = words * int64(seen.current[user])
        clear(bits[start : start + words])
    for which in range(HASHES):
        place = _place(key, which, words)
        bits[start + place // WORD_BITS] |= uint64(1) << uint64(place % WORD_BITS)
    seen.used[user] += 1


@compiled
def has_seen(seen: SeenItems, user: int, key: int) -> bool:
    """Return whether a user acted on the item with this key, as far as the filters know."""
    bits = seen.bits[user]
    words = bits.shape[0] // FILTERS
    return _has(bits, int64(0), words, key) or _has(bits, words, words, key)


@compiled
def _has(bits: UInt64, start: int, words: int, key: int) -> bool:
    for which in range(HASHES):
        place = _place(key, which, words)
        if (bits[start + place // WORD_BITS] >> uint64(place % WORD_BITS)) & uint64(1) == uint64(0):
            return False
    return True


@compiled
def _place(key: int, which: int, words: int) -> int:
    """Return the bit that one of the hashes of a key is: each has 16 bits, and a filter has no more places."""
    mixed = mix(key, SALT + which // HASHES_A_WORD) >> uint64(HASH_BITS * (which % HASHES_A_WORD))
    return int64(mixed & uint64(words * WORD_BITS - 1))

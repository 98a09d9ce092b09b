"""Batches of lessons: their header is what the topic promises, byte for byte."""

import struct

import pytest
from thalweg.schemas.lessons import BadLessonsError, Batch, encode_batch, read_batch, read_batches
from thalweg.schemas.records import Cause

GOLDEN = bytes.fromhex(
    "544c0102"  # TL, version 1, two names
    "37000000"  # 55 bytes
    "03000000"  # source 3
    "02000000"  # two lessons
    "6200000000000000"  # from number 98 on
    "08070605040302f1"  # layout
    "6712000000000000"  # offset 4711
    "05000000"  # ordinal 5
    "01000000ffffffff"  # names
    "616263"
)
LAYOUT = 0xF102030405060708


def batch(first: int = 98) -> bytes:
    return encode_batch(3, first, LAYOUT, Cause(4711, 5), [1, 0xFFFFFFFF], 2, b"abc")


def test_a_batch_is_these_bytes() -> None:
    """The first version's bytes must stay readable for ever."""
    assert batch() == GOLDEN
    assert read_batch(GOLDEN) == Batch(1, 55, 3, 2, 98, LAYOUT, Cause(4711, 5), (1, 0xFFFFFFFF))
    assert read_batch(GOLDEN).last == 99


def test_batches_one_behind_the_other_are_found() -> None:
    """A file of lessons is batches, each of which knows its length."""
    found = list(read_batches(batch() + batch(100)))
    assert [(start, each.first) for start, each in found] == [(0, 98), (55, 100)]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (GOLDEN[:40], "ends at 40"),
        (GOLDEN[:-1], "not whole"),
        (b"XX" + GOLDEN[2:], "no batch"),
        (GOLDEN[:2] + b"\x02" + GOLDEN[3:], "version 2"),
        (GOLDEN[:12] + struct.pack("<I", 0) + GOLDEN[16:], "not whole"),
        (GOLDEN[:4] + struct.pack("<I", 12) + GOLDEN[8:], "not whole"),
    ],
)
def test_what_is_no_batch_is_refused(value: bytes, told: str) -> None:
    """Bytes that are no whole batch of this version must be refused with what is wrong."""
    with pytest.raises(BadLessonsError, match=told):
        read_batch(value)

"""Texts of any length come back as they were, within the limit, and leave no bytes behind."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thalweg.operators.structures.pool import available
from thalweg.operators.structures.texts import BLOCK_BYTES, has_room, new_texts, read_text, release_text, write_text

BLOCKS = 12


class TextsAgainstBytes(RuleBasedStateMachine):
    """A list of byte strings; each takes whole blocks."""

    @initialize()
    def start(self) -> None:
        self.texts = new_texts(BLOCKS * BLOCK_BYTES)
        self.model: list[tuple[int, bytes]] = []

    def free(self) -> int:
        return BLOCKS - sum(-(-len(text) // BLOCK_BYTES) for _, text in self.model)

    @rule(
        text=st.binary(max_size=3 * BLOCK_BYTES), before=st.binary(max_size=3), more=st.sampled_from([0, 1, 63, 64, 65])
    )
    def write(self, text: bytes, before: bytes, more: int) -> None:
        text += bytes(range(1, more + 1))
        data = np.frombuffer(before + text + b"behind", np.uint8)
        fits = self.free() * BLOCK_BYTES >= len(text)
        assert has_room(self.texts, len(text)) == fits
        if fits:
            head = write_text(self.texts, data, len(before), len(before) + len(text))
            assert (head == 0) == (text == b"")
            self.model.append((head, text))

    @precondition(lambda self: self.model)
    @rule(place=st.integers(0, 100))
    def release(self, place: int) -> None:
        head, _ = self.model.pop(place % len(self.model))
        release_text(self.texts, head)

    @invariant()
    def every_text_is_as_it_was(self) -> None:
        for head, text in self.model:
            out = np.full(len(text) + 4, 0xEE, np.uint8)
            read_text(self.texts, head, len(text), out, 2)
            assert out.tobytes() == b"\xee\xee" + text + b"\xee\xee"
        assert available(self.texts.pool) == self.free()

    @invariant()
    def what_was_released_is_wiped(self) -> None:
        kept = sum(text.count(b"\0") for _, text in self.model)
        lengths = sum(len(text) for _, text in self.model)
        assert np.count_nonzero(self.texts.blocks) == lengths - kept


TestTextsAgainstBytes = TextsAgainstBytes.TestCase
TestTextsAgainstBytes.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

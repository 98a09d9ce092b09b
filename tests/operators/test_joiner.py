"""Impressions and feedback in any order against a dictionary, and nothing leaks."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thalweg.operators.joiner import (
    JoinerConfiguration,
    Status,
    add_feedback,
    can_remember,
    close_slot,
    drop_feedback,
    drop_slot,
    find_slot,
    fits,
    fits_share,
    joiner_parameters,
    knows_feedback,
    new_waiting,
    oldest_closed,
    open_slot,
    wait_until,
    write_early,
    write_record,
)
from thalweg.operators.machine.compiled import INTERPRETED
from thalweg.operators.machine.reference import held
from thalweg.operators.structures.deadlines import next_due
from thalweg.operators.structures.ownership import attach, first_of
from thalweg.operators.structures.pool import available
from thalweg.operators.structures.texts import read_text

from tests.soak import sized

WHOLE = 100
EXAMPLES = 20 if INTERPRETED else sized(40, WHOLE)
SLOTS, NODES, PER_IMPRESSION, USERS = 5, 7, 3, 3
CONFIGURATION = JoinerConfiguration(
    user_share=0.5,
    waiting_limit=SLOTS,
    feedback_limit=NODES,
    feedbacks_per_impression=PER_IMPRESSION,
    text_bytes=1 << 18,
)
KEYS = [1, 2**32, 2**40 + 3, 2**63, 2**63 + 1, 2**64 - 1, 12345]
FEEDBACK_KEYS = [2**63 + 9, 2**63 + 10, 5, 6, 2**64 - 1]


@dataclass
class Known:
    """An impression as the model knows it."""

    slot: int
    user: int
    status: int
    text: bytes = b""
    due: tuple[int, int] | None = None
    closed: int = 0
    feedback: list[tuple[int, bytes]] = field(default_factory=list)


class JoinerAgainstDictionary(RuleBasedStateMachine):
    """Slots open, wait, close and go; feedback hangs on them; early feedback keeps its text."""

    @initialize()
    def start(self) -> None:
        self.waiting = held(new_waiting(CONFIGURATION, USERS))
        self.parameters = joiner_parameters(CONFIGURATION)
        self.model: dict[int, Known] = {}
        self.order = 0

    def some(self, data: st.DataObject, *statuses: int) -> int | None:
        keys = [key for key, known in self.model.items() if known.status in statuses]
        return data.draw(st.sampled_from(sorted(keys))) if keys else None

    @rule(
        key=st.sampled_from(KEYS),
        status=st.sampled_from([Status.EARLY, Status.WAITING]),
        user=st.integers(0, USERS - 1),
        deadline_ms=st.integers(0, 5),
        text=st.binary(max_size=150),
    )
    def open_one(self, key: int, status: int, user: int, deadline_ms: int, text: bytes) -> None:
        if key in self.model:
            return
        room = len(self.model) < SLOTS
        assert fits(self.waiting, len(text)) == room
        slot = open_slot(self.waiting, np.uint64(key), np.uint64(user + 1), status)
        assert (slot >= 0) == room
        if not room:
            return
        attach(self.waiting.users, user, slot)
        self.order += 1
        wait_until(self.waiting, slot, deadline_ms, self.order)
        self.model[key] = Known(slot, user, status, due=(deadline_ms, self.order))
        if status == Status.WAITING:
            self.write(key, text)

    def write(self, key: int, text: bytes) -> None:
        known = self.model[key]
        write_record(self.waiting, known.slot, np.frombuffer(text, np.uint8), 0, len(text))
        known.text = text

    @rule(data=st.data(), deadline_ms=st.integers(0, 5), text=st.binary(max_size=100))
    def impression_arrives(self, data: st.DataObject, deadline_ms: int, text: bytes) -> None:
        """An early slot becomes a waiting one with another deadline, and its feedback's records are let go."""
        key = self.some(data, Status.EARLY)
        if key is None:
            return
        known = self.model[key]
        node = int(self.waiting.feedback[known.slot])
        while node:
            write_early(self.waiting, known.slot, node - 1, np.zeros(0, np.uint8), 0, 0)
            node = int(self.waiting.feedbacks.next[node - 1])
        known.feedback = [(feedback, b"") for feedback, _ in known.feedback]
        self.waiting.status[known.slot] = known.status = Status.WAITING
        self.order += 1
        wait_until(self.waiting, known.slot, deadline_ms, self.order)
        known.due = (deadline_ms, self.order)
        self.write(key, text)

    @rule(data=st.data(), feedback=st.sampled_from(FEEDBACK_KEYS), text=st.binary(min_size=1, max_size=150))
    def feedback_arrives(self, data: st.DataObject, feedback: int, text: bytes) -> None:
        key = self.some(data, Status.EARLY, Status.WAITING, Status.CLOSED)
        if key is None:
            return
        known = self.model[key]
        is_known = knows_feedback(self.waiting, known.slot, np.uint64(feedback))
        assert is_known == (feedback in [k for k, _ in known.feedback])
        used = sum(len(other.feedback) for other in self.model.values())
        theirs = sum(len(other.feedback) for other in self.model.values() if other.user == known.user)
        room = len(known.feedback) < PER_IMPRESSION and used < NODES and theirs < NODES // 2
        assert can_remember(self.waiting, known.slot, self.parameters) == room
        if is_known or not room:
            return
        node = add_feedback(self.waiting, known.slot, np.uint64(feedback), self.order, 7, np.uint8(1), 9)
        if known.status == Status.EARLY:
            write_early(self.waiting, known.slot, node, np.frombuffer(b"xx" + text, np.uint8), 2, 2 + len(text))
        known.feedback.insert(0, (feedback, text if known.status == Status.EARLY else b""))

    @rule(data=st.data(), now_ms=st.integers(0, 9))
    def window_closes(self, data: st.DataObject, now_ms: int) -> None:
        key = self.some(data, Status.WAITING)
        if key is None:
            return
        known = self.model[key]
        close_slot(self.waiting, known.slot, now_ms)
        self.order += 1
        known.status, known.due, known.closed = Status.CLOSED, None, self.order

    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        key = self.some(data, Status.EARLY, Status.WAITING, Status.CLOSED)
        if key is not None:
            drop_slot(self.waiting, self.model.pop(key).slot)

    @rule(data=st.data())
    def forget_feedback(self, data: st.DataObject) -> None:
        key = self.some(data, Status.EARLY, Status.WAITING, Status.CLOSED)
        if key is not None:
            drop_feedback(self.waiting, self.model[key].slot)
            self.model[key].feedback = []

    @invariant()
    def slots_agree(self) -> None:
        for key in KEYS:
            known = self.model.get(key)
            slot = find_slot(self.waiting, np.uint64(key))
            assert slot == (known.slot if known else -1)
            if known:
                assert int(self.waiting.status[slot]) == known.status
                assert self.text(int(self.waiting.text[slot]), int(self.waiting.length[slot])) == known.text
                assert int(self.waiting.users.owner[slot]) == known.user + 1
        assert np.count_nonzero(self.waiting.status != Status.FREE) == len(self.model)

    @invariant()
    def feedback_agrees(self) -> None:
        for known in self.model.values():
            found, node = [], int(self.waiting.feedback[known.slot])
            while node:
                feedbacks = self.waiting.feedbacks
                record = self.text(int(feedbacks.text[node - 1]), int(feedbacks.length[node - 1]))
                found.append((int(feedbacks.key[node - 1]), record))
                node = int(feedbacks.next[node - 1])
            assert found == known.feedback
            assert int(self.waiting.feedback_count[known.slot]) == len(found)

    @invariant()
    def who_is_next_agrees(self) -> None:
        due = [(known.due, known.slot) for known in self.model.values() if known.due is not None]
        assert next_due(self.waiting.deadlines) == (min(due)[1] if due else -1)
        closed = [(known.closed, known.slot) for known in self.model.values() if known.status == Status.CLOSED]
        assert oldest_closed(self.waiting) == (min(closed)[1] if closed else -1)

    @invariant()
    def nothing_leaks(self) -> None:
        waiting = self.waiting
        assert available(waiting.pool) == SLOTS - len(self.model)
        assert available(waiting.feedbacks.pool) == NODES - sum(len(known.feedback) for known in self.model.values())
        texts = [known.text for known in self.model.values()]
        texts += [text for known in self.model.values() for _, text in known.feedback]
        blocks = sum(-(-len(text) // 64) for text in texts)
        assert available(waiting.texts.pool) == CONFIGURATION.text_bytes // 64 - blocks

    @invariant()
    def what_users_hold_agrees(self) -> None:
        for user in range(USERS):
            theirs = [known for known in self.model.values() if known.user == user]
            texts = [text for known in theirs for text in (known.text, *(text for _, text in known.feedback))]
            blocks = sum(-(-len(text) // 64) for text in texts)
            assert int(self.waiting.held_feedbacks[user]) == sum(len(known.feedback) for known in theirs)
            assert int(self.waiting.held_blocks[user]) == blocks
            share = SLOTS // 2, CONFIGURATION.text_bytes // 64 // 2
            for slots, length in ((1, 64), (0, 65), (1, CONFIGURATION.text_bytes)):
                room = len(theirs) + slots <= share[0] and blocks - (-length // 64) <= share[1]
                found = fits_share(self.waiting, user, slots, length, self.parameters)
                assert found == (room or not theirs)

    @precondition(lambda self: self.model)
    @rule()
    def forget_all(self) -> None:
        """Nothing of what was forgotten can be found in any array."""
        for known in self.model.values():
            drop_slot(self.waiting, known.slot)
        self.model.clear()
        waiting = self.waiting
        assert all(first_of(waiting.users, user) == -1 for user in range(USERS))
        assert not waiting.ends.any()
        assert waiting.deadlines.size[0] == waiting.provisional.size[0] == 0
        for array in (waiting.key, waiting.user_key, waiting.lookup.keys, waiting.feedbacks.key, waiting.texts.blocks):
            assert not array.any()

    def text(self, head: int, length: int) -> bytes:
        out = np.zeros(length, np.uint8)
        read_text(self.waiting.texts, head, length, out, 0)
        return out.tobytes()


TestJoinerAgainstDictionary = pytest.mark.soak(EXAMPLES, WHOLE, "examples")(JoinerAgainstDictionary.TestCase)
TestJoinerAgainstDictionary.settings = settings(max_examples=EXAMPLES, stateful_step_count=40, deadline=None)


def test_the_log_odds_correction_is_the_logarithm_of_the_rate() -> None:
    """Training subtracts ln(negative_sample_rate), which is nothing where every negative is learned."""
    for share in (1.0, 0.5, 0.1):
        parameters = joiner_parameters(JoinerConfiguration(negative_sample_rate=share))
        assert math.isclose(parameters.log_rate, math.log(share), rel_tol=1e-15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attribution_window_ms": 0},
        {"late_window_ms": -1},
        {"positive_actions": ()},
        {"negative_sample_rate": 0.0},
        {"negative_sample_rate": 1.1},
        {"provisional_share": 0.0},
        {"provisional_share": 1.1},
        {"waiting_limit": 0},
        {"text_bytes": 1_000},
        {"user_share": 0.0},
        {"user_share": 1.1},
    ],
)
def test_configurations_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    """Windows, rates and limits have their ranges."""
    with pytest.raises(ValueError, match="must"):
        JoinerConfiguration(**wrong)  # type: ignore[arg-type]

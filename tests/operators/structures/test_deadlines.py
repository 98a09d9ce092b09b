"""What is due next comes in the order of (deadline, arrival, key), whatever came and went in between."""

import heapq

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thalweg.operators.machine.reference import held
from thalweg.operators.structures.deadlines import (
    last_deadline,
    move_deadline,
    new_deadlines,
    next_due,
    push_deadline,
    remove_deadline,
)

SLOTS = 12
NO_KEYS = np.zeros(200, np.uint64)


class DeadlinesAgainstDictionary(RuleBasedStateMachine):
    """Slots wait, are taken back, and wait again with other deadlines."""

    @initialize()
    def start(self) -> None:
        self.deadlines = held(new_deadlines(SLOTS))
        self.model: dict[int, tuple[int, int, int]] = {}
        self.keys = np.random.default_rng(SLOTS).permutation(SLOTS).astype(np.uint64)

    @rule(slot=st.integers(0, SLOTS - 1), deadline_ms=st.integers(0, 5), arrival=st.integers(0, 2))
    def push(self, slot: int, deadline_ms: int, arrival: int) -> None:
        if slot not in self.model:
            push_deadline(self.deadlines, self.keys, slot, deadline_ms, arrival)
            self.model[slot] = (deadline_ms, arrival, int(self.keys[slot]))

    @rule(slot=st.integers(0, SLOTS - 1), by_ms=st.integers(-2, 2))
    def move(self, slot: int, by_ms: int) -> None:
        move_deadline(self.deadlines, self.keys, slot, by_ms)
        if slot in self.model:
            due_ms, *rest = self.model[slot]
            self.model[slot] = (due_ms + by_ms, *rest)

    @rule(slot=st.integers(0, SLOTS - 1))
    def remove(self, slot: int) -> None:
        remove_deadline(self.deadlines, self.keys, slot)
        self.model.pop(slot, None)

    @precondition(lambda self: self.model)
    @rule()
    def remove_next(self) -> None:
        slot = next_due(self.deadlines)
        remove_deadline(self.deadlines, self.keys, slot)
        del self.model[slot]

    @invariant()
    def next_and_last_agree(self) -> None:
        expected = min(self.model, key=lambda slot: self.model[slot]) if self.model else -1
        assert next_due(self.deadlines) == expected
        assert last_deadline(self.deadlines) == max((-1, *(due for due, *_ in self.model.values())))

    @invariant()
    def every_slot_knows_its_place(self) -> None:
        size = int(self.deadlines.size[0])
        assert size == len(self.model)
        for slot in range(SLOTS):
            place = int(self.deadlines.place[slot])
            assert (place != 0) == (slot in self.model)
            assert place == 0 or (place <= size and int(self.deadlines.heap[place - 1]) == slot)


TestDeadlinesAgainstDictionary = DeadlinesAgainstDictionary.TestCase
TestDeadlinesAgainstDictionary.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)


@settings(deadline=None)
@given(st.lists(st.integers(0, 20), max_size=200))
def test_slots_leave_in_the_order_of_a_heap(due_ms: list[int]) -> None:
    """Emptied one by one, the heap gives Python's own order."""
    deadlines = new_deadlines(max(1, len(due_ms)))
    expected: list[tuple[int, int, int]] = []
    slots = np.random.default_rng(len(due_ms)).permutation(len(due_ms)).tolist()
    for arrival, (slot, deadline_ms) in enumerate(zip(slots, due_ms, strict=True)):
        push_deadline(deadlines, NO_KEYS, slot, deadline_ms, arrival)
        heapq.heappush(expected, (deadline_ms, arrival, slot))
    while expected:
        slot = next_due(deadlines)
        assert slot == heapq.heappop(expected)[2]
        remove_deadline(deadlines, NO_KEYS, slot)
    assert next_due(deadlines) == -1


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120))
def test_slots_taken_from_the_middle_leave_the_order_of_the_rest(seed: int, count: int) -> None:
    """After any slots stopped waiting, the others still leave by (deadline, arrival, key)."""
    rng = np.random.default_rng(seed)
    deadlines = new_deadlines(count)
    due = {slot: (int(rng.integers(0, 1_000)), arrival) for arrival, slot in enumerate(rng.permutation(count).tolist())}
    for slot, (deadline_ms, arrival) in due.items():
        push_deadline(deadlines, NO_KEYS, slot, deadline_ms, arrival)
    for slot in rng.permutation(count)[: count // 2].tolist():
        remove_deadline(deadlines, NO_KEYS, slot)
        del due[slot]
    for expected in sorted(due, key=lambda slot: due[slot]):
        assert next_due(deadlines) == expected
        remove_deadline(deadlines, NO_KEYS, expected)

"""Rows taken and given back: never twice at once, and no more ever touched than were in use together."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from thalweg.operators.structures.pool import Stock, available, give, new_pool, take


class PoolAgainstList(RuleBasedStateMachine):
    """A stack of freed rows above a high-water mark."""

    @initialize(limit=st.integers(1, 9))
    def start(self, limit: int) -> None:
        self.pool = new_pool(limit)
        self.limit = limit
        self.held: list[int] = []
        self.freed: list[int] = []
        self.most = 0

    @precondition(lambda self: len(self.held) < self.limit)
    @rule()
    def take_one(self) -> None:
        row = take(self.pool)
        assert row == (self.freed.pop() if self.freed else len(self.held))
        assert row not in self.held
        self.held.append(row)
        self.most = max(self.most, len(self.held))

    @precondition(lambda self: self.held)
    @rule(place=st.integers(0, 8))
    def give_one(self, place: int) -> None:
        row = self.held.pop(place % len(self.held))
        give(self.pool, row)
        self.freed.append(row)

    @invariant()
    def counts_agree(self) -> None:
        assert available(self.pool) == self.limit - len(self.held)
        assert int(self.pool.counts[Stock.EVER_USED]) == self.most


TestPoolAgainstList = PoolAgainstList.TestCase
TestPoolAgainstList.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

"""Who owns what, threaded through the things themselves, against lists."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from thalweg.operators.machine.reference import held
from thalweg.operators.structures.ownership import attach, detach, first_of, last_of, new_owned

OWNERS, THINGS = 4, 9


class OwnedAgainstLists(RuleBasedStateMachine):
    """The last thing attached is the first found, the first is the last; what is detached leaves the rest in order."""

    @initialize()
    def start(self) -> None:
        self.owned = held(new_owned(OWNERS, THINGS))
        self.model: list[list[int]] = [[] for _ in range(OWNERS)]

    @rule(owner=st.integers(0, OWNERS - 1), thing=st.integers(0, THINGS - 1))
    def attach_free(self, owner: int, thing: int) -> None:
        if any(thing in things for things in self.model):
            return
        attach(self.owned, owner, thing)
        self.model[owner].insert(0, thing)

    @rule(thing=st.integers(0, THINGS - 1))
    def detach_any(self, thing: int) -> None:
        """Nothing happens to a thing that nobody owns."""
        detach(self.owned, thing)
        for things in self.model:
            if thing in things:
                things.remove(thing)

    @invariant()
    def lists_agree(self) -> None:
        for owner, things in enumerate(self.model):
            found, at = [], int(self.owned.first[owner])
            while at:
                found.append(at - 1)
                at = int(self.owned.next[at - 1])
            assert found == things
            assert first_of(self.owned, owner) == (things[0] if things else -1)
            assert last_of(self.owned, owner) == (things[-1] if things else -1)
            assert int(self.owned.held[owner]) == len(things)
            for before, after in zip([None, *things], things, strict=False):
                assert int(self.owned.previous[after]) == (0 if before is None else before + 1)
            assert all(int(self.owned.owner[thing]) == owner + 1 for thing in things)
        assert (self.owned.owner != 0).sum() == sum(map(len, self.model))


TestOwnedAgainstLists = OwnedAgainstLists.TestCase
TestOwnedAgainstLists.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)

"""What was computed before, in the simulation: the same answers as those of a partition that computes them."""

from itertools import pairwise
from random import Random

import pytest
from thalweg.streams.partition.partition import Partition, Rooms
from thalweg.streams.simulation.known import Known
from thalweg.streams.simulation.logs import make_log, smallest

LOG = make_log(Random(3), 0, 1, 40, holes=0.1)
NAMED = {"topic": "interactions", "partition": 0, "partitions": 1}


def test_it_answers_as_a_partition_does() -> None:
    """Asked once or again, and on ways that part behind the same block."""
    known = Known()
    for cuts in ([0, 10, 25, 40], [0, 10, 25, 40], [0, 10, 30, 40], [0, 40], [0, 10, 11]):
        real, fold = Partition(smallest(), **NAMED), known.partition(smallest(), arrays=None, **NAMED)
        for first, end in pairwise(cuts):
            assert fold.process(LOG[first:end]) == real.process(LOG[first:end])
        assert fold.digest() == real.digest()
        found, due = fold.snapshot(), real.snapshot()
        assert {name: array.tobytes() for name, array in found.items()} == {
            name: array.tobytes() for name, array in due.items()
        }


def test_a_beginning_is_known_by_its_bytes() -> None:
    """Another state is another beginning, and one that does not fit is refused as often as it comes."""
    known = Known()
    digests = []
    for count in (10, 20):
        real = Partition(smallest(), **NAMED)
        real.process(LOG[:count])
        fold = known.partition(smallest(), arrays=real.snapshot(), **NAMED)
        real.process(LOG[count:])
        fold.process(LOG[count:])
        assert fold.digest() == real.digest()
        digests.append(known.partition(smallest(), arrays=real.snapshot(), **NAMED).digest())
    assert len(set(digests)) == 1
    for _ in range(2):
        with pytest.raises(ValueError, match="the snapshot has no"):
            known.partition(smallest(), arrays={}, **NAMED)


def test_an_answer_is_computed_once_a_key() -> None:
    """What a key stands for is asked for when it is first needed."""
    known, computed = Known(), []
    for key in ("one", "one", "other", "one"):
        assert known.answer(key, lambda key=key: computed.append(key) or key) == key
    assert computed == ["one", "other"]


def test_partitions_that_fold_by_turns_may_share_their_rooms() -> None:
    """Nothing that one emitted is left for the other."""
    rooms: Rooms = [None, None]
    alone = [Partition(smallest(), **NAMED) for _ in range(2)]
    sharing = [Partition(smallest(), rooms=rooms, **NAMED) for _ in range(2)]
    for first in range(0, len(LOG), 7):
        for number, count in enumerate((7, 3)):
            block = LOG[first : first + count]
            assert sharing[number].process(block) == alone[number].process(block)
    assert [each.digest() for each in sharing] == [each.digest() for each in alone]

"""Named tuples that are unpacked once: compiled code sees and writes the same arrays as Python.

The tuples are those that the fold is given. The cache lists the types that `held` was compiled for, and a type of a
test would be one that no other program can load.
"""

from thalweg.operators.configuration import Configuration
from thalweg.operators.fold.emitted import Emitted, new_emitted
from thalweg.operators.fold.layout import input_count
from thalweg.operators.fold.state import Parameters, parameters_of
from thalweg.operators.machine.compiled import compiled
from thalweg.operators.machine.reference import held

ACTED = 1_234_567
C = Configuration()


def emitted() -> Emitted:
    """Return room with arrays of one and two dimensions, of small and large numbers."""
    return new_emitted(C, 3, input_count(C))


@compiled
def add(parameters: Parameters, made: Emitted, number: int) -> float:
    """Write into a tuple's arrays, and return something of members and of a tuple within the tuple."""
    made.counts[1] += number
    made.scores[2, 4] = number
    made.fate[1] = number
    total = 0.0
    for each in made.letter_offset:
        total += each
    return total + parameters.acted + parameters.derived.recent_items + parameters.skipped


def test_compiled_code_reads_and_writes_the_tuples_own_arrays() -> None:
    """Each member has its value, and what is written is in Python's arrays, call after call."""
    parameters = parameters_of(C, [])._replace(acted=ACTED)
    made = emitted()
    made.letter_offset[0] = 40
    kept = held(made)
    made.letter_offset[1] = 2  # written behind it, and seen by it
    expected = 42.0 + ACTED + parameters.derived.recent_items + parameters.skipped
    assert [add(held(parameters), kept, 5), add(held(parameters), kept, 2)] == [expected] * 2
    assert made.counts.tolist() == [0, 7, 0, 0, 0, 0, 0]
    assert made.scores[2].tolist() == [0.0, 0.0, 0.0, 0.0, 2.0]
    assert made.fate.tolist() == [0, 2, 0]


def test_two_of_them_do_not_mix() -> None:
    """Each keeps its own arrays, and reads like its tuple in Python."""
    parameters, first, second = held(parameters_of(C, [])), held(emitted()), held(emitted())
    add(parameters, first, 3)
    add(parameters, second, 4)
    assert [first.counts.tolist(), second.counts.tolist()] == [[0, 3, 0, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0, 0]]
    assert first.scores.shape == (3, 5)

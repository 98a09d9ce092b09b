"""Named tuples by reference, for compiled code: a whole state is passed on as one pointer.

numba passes a named tuple by value: each array as seven words, each call and each variable with all of them. For a
state of more than a hundred arrays that made the fold take minutes to compile and 100 microseconds an event.
`by_reference` stores the tuple once, on the stack of the outermost function; reading an attribute of the reference
gives the array, or a reference to the inner named tuple. Functions written for the tuple take the reference as it
stands.

`held` stores a tuple for longer: what is passed to compiled code for every block is unpacked once. numba takes 40
microseconds to unpack a state, as long as folding ten events.
"""

from typing import TYPE_CHECKING

from thalweg.operators.machine.compiled import INTERPRETED

if TYPE_CHECKING or INTERPRETED:
    from thalweg.operators.machine.interpreted import by_reference, held
else:
    from thalweg.operators.machine.lowered_held import held
    from thalweg.operators.machine.lowered_reference import by_reference

__all__ = ["by_reference", "held"]

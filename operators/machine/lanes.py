"""Eight float32 at a time, and bytes: what the compiler makes of a loop only where it goes round many more times."""

from typing import TYPE_CHECKING

from thalweg.operators.machine.compiled import INTERPRETED
from thalweg.operators.machine.interpreted import LANES as LANES

if TYPE_CHECKING or INTERPRETED:
    from thalweg.operators.machine.interpreted import (
        add_crossed_lanes,
        add_scaled_lanes,
        clear_lanes,
        copy_bytes,
        descend_lane,
        descend_lanes,
        descend_row_lanes,
        dot_lanes,
        gather_lanes,
        learn_pairs_lanes,
        move_lanes,
        multiply_add_lanes,
        positive_lanes,
        product_lanes,
        project_lanes,
        score_pairs_lanes,
        spread_lanes,
        weigh_lanes,
    )
else:
    from thalweg.operators.machine.lowered import (
        add_crossed_lanes,
        add_scaled_lanes,
        clear_lanes,
        copy_bytes,
        descend_lane,
        descend_lanes,
        descend_row_lanes,
        dot_lanes,
        gather_lanes,
        learn_pairs_lanes,
        move_lanes,
        multiply_add_lanes,
        positive_lanes,
        product_lanes,
        project_lanes,
        score_pairs_lanes,
        spread_lanes,
        weigh_lanes,
    )

__all__ = [
    "LANES",
    "add_crossed_lanes",
    "add_scaled_lanes",
    "clear_lanes",
    "copy_bytes",
    "descend_lane",
    "descend_lanes",
    "descend_row_lanes",
    "dot_lanes",
    "gather_lanes",
    "learn_pairs_lanes",
    "move_lanes",
    "multiply_add_lanes",
    "padded",
    "positive_lanes",
    "product_lanes",
    "project_lanes",
    "score_pairs_lanes",
    "spread_lanes",
    "weigh_lanes",
]


def padded(size: int) -> int:
    """Return the next multiple of the lanes: a row of so many elements leaves no rest to be done one by one.

    >>> padded(8), padded(9)
    (8, 16)
    """
    return -(-size // LANES) * LANES

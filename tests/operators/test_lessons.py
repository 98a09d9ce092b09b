"""The numbers of a lesson are halves and float32, whose bytes are those that numpy has for them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from thalweg.operators.lessons import half_of, of_half, put_float, put_inputs, take_float, take_inputs

F = np.float32
LEAST, MOST = 2.0**-14, 65_504.0


@given(st.floats(-1e5, 1e5, width=32))
def test_a_half_is_the_nearest_one(x: float) -> None:
    """Within the normal range; what is smaller is 0, what is larger is the largest."""
    magnitude = min(abs(x), MOST)
    expected = float(np.float16(magnitude)) if magnitude >= LEAST else 0.0
    assert float(of_half(half_of(x))) == (-expected if x < 0.0 else expected)


@given(st.floats(-(2.0**126), 2.0**126, width=32))
def test_a_float32_comes_back(x: float) -> None:
    """To the bit, but for what is nearer to 0 than a normal one."""
    out = np.zeros(4, np.uint8)
    put_float(out, 0, x)
    assert F(take_float(out, 0)) == (F(x) if abs(x) >= 2.0**-126 else F(0.0))


@given(st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.5, -0.25]), min_size=1, max_size=40))
def test_inputs_come_back_and_zeros_take_no_room(found: list[float]) -> None:
    """Eights of zeros are a bit each."""
    inputs = np.array(found, F)
    blocks = -(-len(found) // 8)
    out, back = np.full(200, 9, np.uint8), np.full(8 * blocks, 7, F)
    end = put_inputs(out, 3, inputs)
    filled = sum(inputs[8 * block : 8 * block + 8].any() for block in range(blocks))
    assert end == 3 + -(-blocks // 8) + 16 * filled
    assert take_inputs(out, 3, back) == end
    assert back[: len(found)].tolist() == found
    assert not back[len(found) :].any()

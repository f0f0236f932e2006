"""The adder tree: exact sums, and the bits that hold them."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.tree import AdderTree
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("bits", [1, 8, 16, 24, 48])
@pytest.mark.parametrize("lanes", [1, 2, 4, 16, 64])
def test_the_output_width_is_the_least_that_holds_every_sum(lanes, bits):
    tree = AdderTree(lanes, bits)
    least, greatest = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert 2**tree.levels == lanes
    assert tree.compute(np.full(lanes, least)) == lanes * least == -(2 ** (tree.out_bits - 1))
    assert tree.compute(np.full(lanes, greatest)) == lanes * greatest < 2 ** (tree.out_bits - 1)


@given(data=st.data(), lanes=st.sampled_from([4, 8, 16, 32, 64]), bits=st.integers(8, 24))
def test_any_row_sums_exactly(data, lanes, bits):
    value = st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rows = data.draw(st.lists(st.lists(value, min_size=lanes, max_size=lanes), min_size=1, max_size=3))
    found = AdderTree(lanes, bits).compute(np.array(rows))
    assert found.dtype == np.int64
    assert found.tolist() == [sum(row) for row in rows]
    rows[0][lanes // 2] += 1
    assert found.tolist() != [sum(row) for row in rows]  # one lane off by one is seen


def test_narrow_inputs_do_not_overflow_on_the_way():
    assert AdderTree(64, 16).compute(np.full(64, 32767, np.int16)) == 64 * 32767


@pytest.mark.parametrize("lanes", [0, -4, 3, 6, 48])
def test_lanes_must_be_a_power_of_two(lanes):
    with pytest.raises(FormatError) as error:
        AdderTree(lanes, 16)
    assert str(error.value) == f"lanes must be a power of two, not {lanes}"


@pytest.mark.parametrize("bits", [0, 49])
def test_input_bits_must_be_1_to_48(bits):
    with pytest.raises(FormatError) as error:
        AdderTree(4, bits)
    assert str(error.value) == f"adder tree inputs must have 1 to 48 bits, not {bits}"

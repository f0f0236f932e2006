"""Residual add: each operand rounded to 16 bits, an exact sum, one more rescale."""

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.residual import AddOperand, ResidualAdd
from hypothesis import given
from hypothesis import strategies as st

ROUNDINGS = ["half_even", "half_up", "half_away", "floor", "tflite"]


def add(block, operands, scale, zero_point, low, high):
    """Two lists of (code, zero point, multiplier, shift), one channel for each entry."""
    arrays = []
    for terms in operands:
        codes, zero_points, multiplier, shift = zip(*terms, strict=True)
        assert len(set(zero_points)) == 1
        arrays.append(
            AddOperand(
                np.array(codes, np.int16).reshape(1, -1, 1), zero_points[0], np.array(multiplier), np.array(shift)
            )
        )
    channels = len(operands[0])
    multiplier, shift = (np.full(channels, part) for part in scale)
    return block.compute(tuple(arrays), multiplier, shift, zero_point, low, high).reshape(-1).tolist()


@pytest.mark.parametrize("rounding", ROUNDINGS)
@given(data=st.data())
def test_any_two_streams_add_as_the_reference_adds_them(reference, data, rounding):
    least = 31 if rounding == "tflite" else 0
    bits = 31 if rounding == "tflite" else data.draw(st.sampled_from([16, 24, 31]))
    code = st.one_of(st.integers(-(2**15), 2**15 - 1), st.integers(-20, 20))
    multiplier = st.one_of(st.integers(0, 2**bits - 1), st.just(2 ** (bits - 1)))
    # Near a scale of one, so that neither operand is lost.
    shift = st.integers(max(least, bits - 3), min(62, bits + 4))
    channels = data.draw(st.integers(1, 6))
    operands = []
    for _ in range(2):
        zero = data.draw(st.integers(-(2**15), 2**15 - 1))
        term = st.tuples(code, st.just(zero), multiplier, shift)
        operands.append(data.draw(st.lists(term, min_size=channels, max_size=channels)))
    scale = data.draw(multiplier), data.draw(shift)
    zero_point = data.draw(st.integers(-128, 127))
    low, high = data.draw(st.sampled_from([(-(2**15), 2**15 - 1), (-128, 127), (0, 255), (3, 15)]))
    block = ResidualAdd(bits, rounding)
    expected = [
        reference.residual_sum(pair, scale, rounding, zero_point, low, high) for pair in zip(*operands, strict=True)
    ]
    assert add(block, operands, scale, zero_point, low, high) == expected


def test_operands_are_rounded_apart_before_they_are_added(reference):
    # 0.5 + 0.5: each rounds to even 0, together they would be 1.
    half = (1, 0, 1, 1)
    assert add(ResidualAdd(), [[half], [half]], (1, 0), 0, -128, 127) == [0]
    assert add(ResidualAdd(rounding="half_up"), [[half], [half]], (1, 0), 0, -128, 127) == [2]


def test_an_operand_is_clipped_to_16_bits_and_the_sum_has_17(reference):
    big = (2**15 - 1, -(2**15), 4, 0)  # 65535 * 4
    assert add(ResidualAdd(), [[big], [big]], (1, 1), 0, -(2**15), 2**15 - 1) == [2**15 - 1]
    small = (-(2**15), 2**15 - 1, 4, 0)
    assert add(ResidualAdd(), [[small], [small]], (1, 1), 0, -(2**15), 2**15 - 1) == [-(2**15)]
    assert add(ResidualAdd(), [[big], [small]], (1, 0), 5, -(2**15), 2**15 - 1) == [4]


def test_operands_keep_their_shape():
    codes = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 2, 2)
    one, zero = np.ones(3, np.int64), np.zeros(3, np.int64)
    operand = AddOperand(codes, 0, one, zero)
    found = ResidualAdd().compute((operand, operand), one, zero, 0, -(2**15), 2**15 - 1)
    assert found.dtype == np.int16
    assert found.tolist() == (2 * codes).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"multiplier_bits": 8}, "multiplier bits must be 16, 24 or 31, not 8"),
        ({"rounding": "tflite"}, "tflite rounding must have 31 multiplier bits, not 24"),
        ({"out_bits": 17}, "requantiser output must have 1 to 16 bits, not 17"),
    ],
)
def test_a_residual_add_that_cannot_be_built_is_refused_when_made(arguments, message):
    with pytest.raises(FormatError) as error:
        ResidualAdd(**arguments)
    assert str(error.value) == message


def test_the_check_catches_a_multiplier_a_zero_point_and_a_rounding_off(reference):
    operands = [[(98, 3, 3, 1)], [(-7, -2, 5, 1)]]
    expected = [reference.residual_sum((operands[0][0], operands[1][0]), (1, 0), "half_even", 0, -999, 999)]
    assert add(ResidualAdd(), operands, (1, 0), 0, -999, 999) == expected
    assert add(ResidualAdd(), [[(98, 3, 5, 1)], operands[1]], (1, 0), 0, -999, 999) != expected
    assert add(ResidualAdd(), [[(98, 0, 3, 1)], operands[1]], (1, 0), 0, -999, 999) != expected
    assert add(ResidualAdd(rounding="half_up"), operands, (1, 0), 0, -999, 999) != expected

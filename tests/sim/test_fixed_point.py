"""From real constants to fixed-point ones: how near they are, and what is refused."""

import re
from fractions import Fraction

import numpy as np
import pytest
from gatewise import FormatError, UnsupportedError
from gatewise.kernels.requant import MAX_SHIFT, MULTIPLIER_BITS
from gatewise.sim.fixed_point import (
    fixed_multiplier,
    fixed_zero_point,
    fraction_bits,
    odd_multiplier,
    real_multiplier,
    smallest_signed,
)
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(2.0**-30, 2.0**15.9), st.sampled_from(MULTIPLIER_BITS))
def test_a_multiplier_is_as_near_as_its_bits_allow(real, bits):
    multiplier, shift = fixed_multiplier(np.array([real]), bits)
    assert multiplier.dtype == np.uint32
    assert shift.dtype == np.uint8
    assert 1 << (bits - 1) <= multiplier[0] < 1 << bits  # normalised
    exact = Fraction(int(multiplier[0]), 1) / (1 << int(shift[0]))
    assert abs(exact - Fraction(real)) <= Fraction(real) / (1 << bits)
    assert real_multiplier(multiplier, shift)[0] == float(exact)


@given(st.floats(2.0**-30, 2.0**15.9), st.sampled_from(MULTIPLIER_BITS))
def test_the_nearest_odd_multiplier_is_as_near_as_odd_ones_lie(real, bits):
    multiplier, shift = odd_multiplier(np.array([real, 0.0]), bits)
    assert multiplier[0] % 2 == 1
    assert multiplier[0] < 1 << bits
    assert multiplier[1] == 0
    assert abs(int(multiplier[0]) - Fraction(real) * (1 << int(shift[0]))) <= 1


@given(st.floats(0, 2.0**-30), st.sampled_from(MULTIPLIER_BITS))
def test_a_tiny_factor_is_within_half_a_step_of_the_greatest_shift(real, bits):
    multiplier, shift = fixed_multiplier(np.array([real]), bits)
    exact = Fraction(int(multiplier[0]), 1) / (1 << int(shift[0]))
    assert abs(exact - Fraction(real)) <= max(Fraction(real) / (1 << bits), Fraction(1, 1 << (MAX_SHIFT + 1)))


# Closer to 1 a factor rounds up to 1, which is refused.
@given(st.lists(st.floats(2.0**-31, 1 - 2.0**-31), min_size=1, max_size=8))
def test_tflite_multipliers_have_31_bits_and_shifts_of_31_or_more(reals):
    multiplier, shift = fixed_multiplier(np.array(reals), 31, "tflite")
    assert ((shift >= 31) & (shift <= MAX_SHIFT)).all()
    assert (multiplier >= 1 << 30).all()
    assert (multiplier < 1 << 31).all()


def test_a_factor_that_rounds_up_to_a_power_of_two_is_normalised_again():
    multiplier, shift = fixed_multiplier(np.array([1 - 2.0**-40]), 24)
    assert (multiplier[0], shift[0]) == (1 << 23, 23)


@pytest.mark.parametrize("bits", MULTIPLIER_BITS)
def test_zero_is_zero(bits):
    multiplier, shift = fixed_multiplier(np.array([0.0, 0.5]), bits)
    assert multiplier[0] == 0
    assert real_multiplier(multiplier, shift).tolist() == [0.0, 0.5]


def test_tflite_refuses_factors_of_one_and_more():
    for real in (1.0, 1 - 2.0**-40, 3.0):
        with pytest.raises(UnsupportedError, match=r"^rescale factors must be below 1, not "):
            fixed_multiplier(np.array([real, 0.5]), 31, "tflite")


@pytest.mark.parametrize("bits", MULTIPLIER_BITS)
def test_factors_beyond_the_multiplier_are_refused(bits):
    fixed_multiplier(np.array([2.0**bits - 1]), bits)
    with pytest.raises(UnsupportedError, match="^" + re.escape(f"rescale factors must be below {2.0**bits:g}, not ")):
        fixed_multiplier(np.array([2.0**bits]), bits)


@pytest.mark.parametrize("real", [np.nan, np.inf, -np.inf, -1.0])
def test_factors_must_be_finite_and_not_negative(real):
    with pytest.raises(FormatError, match=r"^rescale factors must be finite and not negative: check the scales$"):
        fixed_multiplier(np.array([0.5, real]))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=6))
def test_zero_points_are_rounded_to_their_fraction(zeros):
    zeros = np.array(zeros)
    bits = fraction_bits(zeros)
    assert bits == (0 if (zeros == np.rint(zeros)).all() else 8)
    fixed = fixed_zero_point(zeros, bits)
    assert fixed.dtype == np.int16
    assert (np.abs(fixed / 2.0**bits - zeros) <= 2.0 ** -(bits + 1)).all()


def test_the_fraction_shrinks_until_the_greatest_zero_point_fits():
    assert [fraction_bits(np.array([0.5, zero])) for zero in (127.9, 128.1, 255.1, 16383.4, -32768)] == [8, 7, 7, 1, 0]


def test_zero_points_beyond_16_bits_and_not_finite_ones_are_refused():
    for zero in (32768.0, 32767.6, -32769.0):
        with pytest.raises(UnsupportedError, match=r"^weight zero points must fit 16 signed bits, found "):
            fraction_bits(np.array([0.0, zero]))
    with pytest.raises(FormatError, match=r"^weight zero points must be finite$"):
        fraction_bits(np.array([np.nan]))


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=5))
def test_integers_are_kept_in_the_narrowest_type_that_holds_them(values):
    array = np.array(values, dtype=np.int64)
    found = smallest_signed(array)
    np.testing.assert_array_equal(found, array)
    widest = max((value if value >= 0 else ~value for value in values), default=0)
    assert found.dtype == (np.int16 if widest < 1 << 15 else np.int32 if widest < 1 << 31 else np.int64)

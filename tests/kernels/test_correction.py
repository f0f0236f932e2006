"""The zero-point term: exact, then clipped once and counted."""

import numpy as np
import pytest
from gatewise.kernels.correction import Correction
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat
from hypothesis import given
from hypothesis import strategies as st


def correct(correction, acc, xsum, zwf, bias):
    values, over = correction.compute(np.array(acc), np.array(xsum), np.array(zwf), np.array(bias))
    assert values.dtype == np.int64
    return list(zip(values.tolist(), over.tolist(), strict=True))


def ends_and_between(limits):
    return st.one_of(st.integers(*limits), st.sampled_from(limits))


@given(data=st.data(), bits=st.integers(12, 48), fraction=st.integers(0, 8))
def test_any_terms_correct_as_the_reference_corrects_them(reference, data, bits, fraction):
    term = st.tuples(
        ends_and_between(reference.signed_limits(bits)),
        ends_and_between(reference.signed_limits(32)),
        ends_and_between(reference.signed_limits(16)),
        ends_and_between(reference.signed_limits(bits + fraction)),
    )
    terms = data.draw(st.lists(term, min_size=1, max_size=8))
    found = correct(Correction(MacFormat(acc=bits), fraction), *zip(*terms, strict=True))
    assert found == [reference.corrected(*each, fraction, bits) for each in terms]


@pytest.mark.parametrize("fraction", range(9))
@pytest.mark.parametrize("bits", [12, 32, 47, 48])
def test_the_farthest_sums_stay_exact_and_are_clipped_and_counted(reference, bits, fraction):
    correction = Correction(MacFormat(acc=bits), fraction)
    low, high = reference.signed_limits(bits)
    low_bias, high_bias = reference.signed_limits(bits + fraction)
    least = (low, -(2**31), -(2**15), low_bias)
    greatest = (high, -(2**31), 2**15 - 1, high_bias)
    found = correct(correction, *zip(least, greatest, strict=True))
    assert found == [reference.corrected(*least, fraction, bits), reference.corrected(*greatest, fraction, bits)]
    assert found == [(low_bias, True), (high_bias, True)]
    # A sum of three terms of at most n bits: two more bits hold it.
    assert correction.exact_bits == max(bits + fraction, 48) + 2
    assert correction.out_bits == bits + fraction


def test_the_clip_begins_one_beyond_the_width(reference):
    correction = Correction(MacFormat(acc=12), fraction=2)
    found = correct(correction, [2047, 2047, -2048, -2048], [0] * 4, [1] * 4, [3, 4, 0, -1])
    assert found == [(8191, False), (8191, True), (-8192, False), (-8192, True)]


def test_correction_saturates_even_where_the_accumulator_wraps(reference):
    correction = Correction(MacFormat(acc=12, overflow="wrap"))
    assert correct(correction, [2047], [-5], [3], [0]) == [(2047, True)] == [reference.corrected(2047, -5, 3, 0, 0, 12)]


def test_constants_per_channel_broadcast_over_the_pixels():
    acc, xsum = np.arange(12).reshape(1, 3, 2, 2), np.arange(4).reshape(1, 1, 2, 2)
    zwf, bias = np.array([1, -2, 0]).reshape(3, 1, 1), np.array([10, 0, -10]).reshape(3, 1, 1)
    values, over = Correction(MacFormat()).compute(acc, xsum, zwf, bias)
    assert values.shape == over.shape == (1, 3, 2, 2)
    assert values[0, :, 1, 1].tolist() == [3 - 3 + 10, 7 + 6, 11 - 10]


@pytest.mark.parametrize("fraction", [-1, 9])
def test_a_fraction_of_more_than_8_bits_is_refused(fraction):
    with pytest.raises(FormatError) as error:
        Correction(MacFormat(), fraction)
    assert str(error.value) == f"zero-point fraction must be 0 to 8 bits, not {fraction}"


def test_the_check_catches_a_zero_point_and_a_fraction_one_off(reference):
    expected = [reference.corrected(1000, 77, -12, 5, 3, 32)]
    assert correct(Correction(MacFormat(), 3), [1000], [77], [-12], [5]) == expected
    assert correct(Correction(MacFormat(), 3), [1000], [77], [-11], [5]) != expected
    assert correct(Correction(MacFormat(), 2), [1000], [77], [-12], [5]) != expected

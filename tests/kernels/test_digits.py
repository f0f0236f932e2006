"""Codes as 4-bit digits."""

import numpy as np
import pytest
from gatewise.kernels.digits import digit_count, digit_signed, held_bits, split_digits, split_rows


def every_code(reference, bits, signed):
    low, high = reference.signed_limits(bits) if signed else reference.unsigned_limits(bits)
    return list(range(low, high + 1))


def test_a_code_takes_one_digit_for_each_four_bits_begun():
    assert [digit_count(bits) for bits in range(1, 17)] == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4


def test_weights_of_more_than_a_byte_are_two():
    assert [held_bits(bits) for bits in range(1, 17)] == [*range(1, 9), *[16] * 8]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 17))
def test_every_code_splits_as_the_reference_splits_it(reference, bits, signed):
    codes = every_code(reference, bits, signed)
    found = split_digits(np.array(codes), bits, signed)
    assert found.dtype == np.int64
    assert found.shape == (digit_count(bits), len(codes))
    assert found.T.tolist() == [reference.digits_of(code, bits, signed) for code in codes]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", range(1, 17))
def test_digits_weigh_sixteen_times_more_each_and_fit_four_bits_by_their_sign(reference, bits, signed):
    codes = np.array(every_code(reference, bits, signed))
    digits = split_digits(codes, bits, signed)
    assert sum(digit.astype(object) * 16**i for i, digit in enumerate(digits)).tolist() == codes.tolist()
    for i, digit in enumerate(digits):
        low, high = (-8, 7) if digit_signed(i, bits, signed) else (0, 15)
        assert low <= digit.min()
        assert digit.max() <= high


def test_only_the_top_digit_of_a_signed_code_is_signed():
    assert [digit_signed(i, 16, True) for i in range(4)] == [False, False, False, True]
    assert [digit_signed(i, 5, True) for i in range(2)] == [False, True]
    assert [digit_signed(i, 8, False) for i in range(2)] == [False, False]


def test_digits_keep_the_shape_of_the_codes():
    assert split_digits(np.zeros((2, 3, 5), np.int8), 8, True).shape == (2, 2, 3, 5)


def test_the_check_catches_a_sign_read_from_the_wrong_digit(reference):
    codes = every_code(reference, 8, True)
    unsigned = split_digits(np.array(codes) % 256, 8, signed=False)
    assert unsigned.T.tolist() != [reference.digits_of(code, 8, True) for code in codes]


def test_each_row_has_its_own_digits_and_no_others():
    codes = np.array([[-8, 7, 3], [-128, 127, 20], [-3, 5, 0]])
    found = split_rows(codes, np.array([1, 2, 2]), 2)
    assert found[:, 0].tolist() == [[-8, 7, 3], [0, 0, 0]]
    assert found[:, 1].tolist() == split_digits(codes[1], 8, True).tolist()
    assert found[:, 2].tolist() == [[13, 5, 0], [-1, 0, 0]]

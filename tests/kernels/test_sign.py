"""Rows of binary weights: sums by sign, and the popcount that they come to where activations are signs too."""

import itertools

import numpy as np
import pytest
from gatewise.kernels.errors import FormatError
from gatewise.kernels.sign import PopcountRow, SignRow
from hypothesis import given
from hypothesis import strategies as st

LANES = (1, 2, 4, 8, 16, 32, 64)


def meaning(digit, a_signed, binary):
    if binary:
        return 1 if digit % 2 else -1
    return digit - 16 if a_signed and digit > 7 else digit


def expected_sum(digits, bits, mask, a_signed, binary):
    total = 0
    for digit, bit, counts in zip(digits, bits, mask, strict=True):
        if counts:
            value = meaning(digit, a_signed, binary)
            total += value if bit else -value
    return total


def found_sum(row, digits, bits, mask, a_signed, binary):
    return row.compute(row.values(np.array(digits), a_signed, binary), np.array(bits), np.array(mask)).item()


def test_every_word_of_one_lane_and_of_two_digits():
    digits, bits, mask = np.array(list(itertools.product(range(16), (0, 1), (0, 1)))).T
    one, two = SignRow(1), SignRow(2)
    for a_signed, binary in itertools.product((False, True), repeat=2):
        values = one.values(digits, a_signed, binary)
        assert values.tolist() == [meaning(digit, a_signed, binary) for digit in digits.tolist()]
        sums = one.compute(values[:, None], bits[:, None], mask[:, None])
        words = list(zip(digits.tolist(), bits.tolist(), mask.tolist(), strict=True))
        assert sums.tolist() == [expected_sum(*([each] for each in word), a_signed, binary) for word in words]

        def pairs(each):
            return np.stack(np.broadcast_arrays(each[:, None], each[None, :]), axis=-1)

        found = two.compute(pairs(values), pairs(bits), pairs(mask))
        assert np.array_equal(found, sums[:, None] + sums[None, :])


@st.composite
def words(draw):
    lanes = draw(st.sampled_from(LANES))

    def lane(values):
        return draw(st.lists(values, min_size=lanes, max_size=lanes))

    # Ends are likely, so that sums reach theirs.
    digits = lane(st.one_of(st.integers(0, 15), st.sampled_from([0, 7, 8, 15])))
    return SignRow(lanes), digits, lane(st.integers(0, 1)), lane(st.integers(0, 1)), draw(st.booleans())


@given(word=words(), a_signed=st.booleans())
def test_any_word_sums_as_the_reference_sums_it(word, a_signed):
    row, digits, bits, mask, binary = word
    assert found_sum(row, digits, bits, mask, a_signed, binary) == expected_sum(digits, bits, mask, a_signed, binary)


@given(word=words())
def test_a_binary_sum_is_two_popcounts(word):
    row, digits, bits, mask, _ = word
    agree = sum((digit % 2 == bit) and counts for digit, bit, counts in zip(digits, bits, mask, strict=True))
    expected = 2 * agree - sum(mask)
    assert found_sum(row, digits, bits, mask, False, True) == expected
    assert found_sum(row, digits, bits, mask, True, True) == expected
    counted = PopcountRow(row.lanes).compute(np.array(digits) % 2, np.array(bits), np.array(mask))
    assert counted.item() == expected


def test_every_word_of_four_lanes_of_signs():
    operands = np.arange(1 << 12)
    a, w, mask = (operands >> 4 * place & 15 for place in range(3))
    expected = [
        2 * (~(one ^ other) & lanes & 15).bit_count() - lanes.bit_count()
        for one, other, lanes in zip(a.tolist(), w.tolist(), mask.tolist(), strict=True)
    ]
    a, w, mask = ((each[:, None] >> np.arange(4)) & 1 for each in (a, w, mask))
    assert PopcountRow(4).compute(a, w, mask).tolist() == expected
    row = SignRow(4)
    assert row.compute(row.values(a, False, True), w, mask).tolist() == expected


@pytest.mark.parametrize("lanes", LANES)
def test_the_farthest_sums_need_every_bit_of_the_width(lanes):
    row = SignRow(lanes)
    ones, zeros = [1] * lanes, [0] * lanes
    greatest = found_sum(row, [15] * lanes, ones, ones, False, False)
    least = found_sum(row, [15] * lanes, zeros, ones, False, False)
    assert (greatest, least) == (15 * lanes, -15 * lanes)
    assert row.out_bits == 5 + lanes.bit_length() - 1 == greatest.bit_length() + 1
    assert found_sum(row, [8] * lanes, zeros, ones, True, False) == 8 * lanes
    assert found_sum(row, [15] * lanes, ones, zeros, False, False) == 0
    count = PopcountRow(lanes)
    assert count.compute(np.ones(lanes, int), np.ones(lanes, int), np.ones(lanes, int)) == lanes
    assert count.out_bits == lanes.bit_length() + 1


def test_leading_axes_are_rows_and_words_of_their_own():
    values, bits = np.arange(24).reshape(2, 3, 4), np.array([1, 1, 0, 0])
    sums = SignRow(4).compute(values, bits, np.array([1, 1, 1, 0]))
    assert sums.shape == (2, 3)
    assert sums.dtype == np.int64
    assert sums.tolist() == (values[..., 0] + values[..., 1] - values[..., 2]).tolist()


@pytest.mark.parametrize("row", [SignRow, PopcountRow])
def test_lanes_are_checked_when_a_row_is_made(row):
    with pytest.raises(FormatError) as error:
        row(6)
    assert str(error.value) == "lanes must be a power of two, not 6"


def test_the_check_catches_one_wrong_bit_mask_digit_and_mode():
    row = SignRow(4)
    word = ([15, 3, 9, 12], [1, 0, 1, 0], [1, 1, 1, 0], True, False)
    expected = expected_sum(*word)
    assert found_sum(row, *word) == expected
    for at, wrong in enumerate(([15, 3, 8, 12], [1, 1, 1, 0], [1, 1, 1, 1], False, True)):
        assert found_sum(row, *word[:at], wrong, *word[at + 1 :]) != expected

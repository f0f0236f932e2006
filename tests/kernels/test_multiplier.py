"""Digit multiplier: every pair of digits, in every sign mode, width and overflow mode."""

import numpy as np
import pytest
from gatewise.kernels.mac import MacFormat
from gatewise.kernels.multiplier import DigitMultiplier

SIGN_MODES = [(a, w) for a in (False, True) for w in (False, True)]


def digit_pairs(a_signed, w_signed):
    digits = {False: range(16), True: range(-8, 8)}
    return [(a, w) for a in digits[a_signed] for w in digits[w_signed]]


def multiply(pairs, unsigned, bits, overflow):
    a, w = np.array(pairs).T
    products, over = DigitMultiplier(MacFormat(product=bits, overflow=overflow)).compute(a, w, unsigned)
    return list(zip(products.tolist(), over.tolist(), strict=True))


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", range(6, 11))
@pytest.mark.parametrize(("a_signed", "w_signed"), SIGN_MODES)
def test_every_digit_pair_multiplies_as_the_reference_does(reference, a_signed, w_signed, bits, overflow):
    pairs = digit_pairs(a_signed, w_signed)
    either_signed = a_signed or w_signed
    expected = [reference.multiplied(a, w, either_signed, bits, overflow) for a, w in pairs]
    assert multiply(pairs, not either_signed, bits, overflow) == expected


@pytest.mark.parametrize(("a_signed", "w_signed"), SIGN_MODES)
def test_eight_bits_hold_every_product_and_fewer_do_not(a_signed, w_signed):
    pairs = digit_pairs(a_signed, w_signed)
    unsigned = not (a_signed or w_signed)
    exact = [(a * w, False) for a, w in pairs]
    for bits in (8, 9, 10):
        assert multiply(pairs, unsigned, bits, "saturate") == multiply(pairs, unsigned, bits, "wrap") == exact
    # Only -8 * -8 needs more than 7 bits where both digits are signed.
    overflowing = {bits: sum(over for _, over in multiply(pairs, unsigned, bits, "saturate")) for bits in (6, 7)}
    assert overflowing[6] > overflowing[7] > 0
    if a_signed and w_signed:
        assert overflowing[7] == 1


def test_operands_broadcast():
    products, over = DigitMultiplier(MacFormat()).compute(np.arange(4)[:, None], np.arange(-2, 3), False)
    assert products.shape == over.shape == (4, 5)
    assert products.dtype == np.int64


def test_the_check_catches_one_wrong_digit_and_a_wrong_width(reference):
    pairs = digit_pairs(True, True)
    expected = [reference.multiplied(a, w, True, 7, "saturate") for a, w in pairs]
    assert multiply(pairs, False, 7, "saturate") == expected
    assert multiply([(-7, -8), *pairs[1:]], False, 7, "saturate") != expected
    assert multiply(pairs, False, 8, "saturate") != expected
    assert multiply(pairs, False, 7, "wrap") != expected

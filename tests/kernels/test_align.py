"""Alignment of a lane's product by a shift or an unsigned multiplier."""

import numpy as np
import pytest
from gatewise.kernels.align import Aligner, alignment_factors
from gatewise.kernels.errors import FormatError
from gatewise.kernels.mac import MacFormat

PRODUCTS = list(range(-128, 256))
AMOUNTS = {"shift": list(range(9)), "mul": [0, 1, 2, 3, 7, 64, 100, 127, 128, 170, 254, 255]}


def align(kind, bits, overflow):
    aligner = Aligner(MacFormat(align=bits, overflow=overflow), kind)
    values, over = aligner.compute(np.array(PRODUCTS)[:, None], np.array(AMOUNTS[kind]))
    assert values.dtype == np.int64
    return values.tolist(), over.tolist()


@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("bits", range(8, 25))
@pytest.mark.parametrize("kind", ["shift", "mul"])
def test_every_product_aligns_as_the_reference_aligns_it(reference, kind, bits, overflow):
    values, over = align(kind, bits, overflow)
    for product, row, marks in zip(PRODUCTS, values, over, strict=True):
        expected = [reference.aligned(product, kind, amount, bits, overflow) for amount in AMOUNTS[kind]]
        assert list(zip(row, marks, strict=True)) == expected


def test_at_the_default_width_only_large_unsigned_products_overflow():
    values, over = Aligner(MacFormat()).compute(np.array(PRODUCTS), np.array(8))
    assert over.tolist() == [product > 127 for product in PRODUCTS]
    assert values[-1] == 2**15 - 1


def test_a_shift_takes_four_bits_and_a_multiplier_eight():
    assert Aligner(MacFormat(), "shift").amount_bits == 4
    assert Aligner(MacFormat(), "mul").amount_bits == 8


def test_factors_are_what_a_product_is_multiplied_by():
    assert alignment_factors("shift", np.arange(9)).tolist() == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert alignment_factors("mul", np.array([0, 255])).tolist() == [0, 255]
    assert alignment_factors("shift", np.zeros(0, np.int64)).size == 0
    assert alignment_factors("mul", np.array([3], np.uint8)).dtype == np.int32


@pytest.mark.parametrize(
    ("kind", "amounts", "message"),
    [
        ("shift", [0, 9], "shift alignment must lie in 0..8, not 0..9"),
        ("shift", [-1, 3], "shift alignment must lie in 0..8, not -1..3"),
        ("mul", [256, 1], "mul alignment must lie in 0..255, not 1..256"),
        ("mul", [-1], "mul alignment must lie in 0..255, not -1..-1"),
        ("scale", [1], "alignment must be shift or mul, not 'scale'"),
    ],
)
def test_amounts_outside_their_width_and_unknown_kinds_are_refused(kind, amounts, message):
    with pytest.raises(FormatError) as error:
        alignment_factors(kind, np.array(amounts))
    assert str(error.value) == message


def test_an_aligner_of_an_unknown_kind_is_refused_when_made():
    with pytest.raises(FormatError) as error:
        Aligner(MacFormat(), "scale")
    assert str(error.value) == "alignment must be shift or mul, not 'scale'"


def test_the_check_catches_a_width_one_bit_off_and_the_other_overflow_mode(reference):
    expected = [
        [reference.aligned(product, "shift", amount, 12, "saturate")[0] for amount in AMOUNTS["shift"]]
        for product in PRODUCTS
    ]
    assert align("shift", 12, "saturate")[0] == expected
    assert align("shift", 11, "saturate")[0] != expected
    assert align("shift", 12, "wrap")[0] != expected

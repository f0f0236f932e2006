"""Requantisation behind fast sums; `test_direct.py` has it fused with them."""

import numpy as np
import pytest
from gatewise.kernels import AddOperand, ResidualAdd
from gatewise.kernels.finish import ScaleFinish
from gatewise.kernels.mac import signed_range


def test_scales_whose_products_need_more_than_63_bits_are_not_fused():
    arguments = np.array([1 << 23]), np.array([5])
    assert ScaleFinish.build(np.array([39]), *arguments, "floor", 0, 0, 15) is not None
    assert ScaleFinish.build(np.array([40]), *arguments, "floor", 0, 0, 15) is None
    assert ScaleFinish.build(np.array([8]), np.array([1 << 30]), np.array([40]), "tflite", 0, 0, 15) is None


@pytest.mark.parametrize("rounding", ["half_even", "half_up", "half_away", "floor"])
def test_fused_adds_and_copies_are_those_of_the_residual_stream(rounding):
    """All codes of 8 bits against codes of 16, multipliers that make ties, and ends that clip."""
    rng = np.random.default_rng(8)
    first = rng.integers(-32768, 32768, (2, 24, 8, 16)).astype(np.int16)
    second = np.arange(6144, dtype=np.int16).reshape(2, 24, 8, 16) % 256
    multipliers, shifts = 1 << rng.integers(0, 9, (3, 24)), rng.integers(0, 10, (3, 24))
    multipliers[:, ::2] += rng.integers(0, 1 << 20, (3, 12))
    points, stream = (-70, 9), signed_range(16)
    parts = [
        ScaleFinish.build(np.full(24, 17), multipliers[n], shifts[n], rounding, 0, *stream) for n in (0, 1)
    ]  # fmt: skip
    total = ScaleFinish.build(np.full(24, 17), multipliers[2], shifts[2], rounding, 3, -128, 127)
    operands = [
        AddOperand(x, point, multipliers[n], shifts[n])
        for n, (x, point) in enumerate(zip((first, second), points, strict=True))
    ]
    unit = ResidualAdd(24, rounding, 8)
    wanted = unit.compute(tuple(operands), multipliers[2], shifts[2], 3, -128, 127)
    found = total.added((first, points[0], parts[0]), (second, points[1], parts[1]))
    assert np.array_equal(found, wanted)
    assert len(np.unique(found)) > 150
    wanted, _ = unit.output.compute(first.astype(np.int64) + 70, multipliers[2], shifts[2], 3, -128, 127)
    assert np.array_equal(total.codes(first, -70), wanted)

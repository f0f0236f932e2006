"""Nested rounding: against the authors' formulas in exact fractions, direct rounding, thresholds; BOPs."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from gatewise.kernels import nested
from gatewise.kernels.errors import FormatError
from gatewise.kernels.nested import LayerBops, NestedGrid, bops, relative_bops
from gatewise.kernels.requant import ThresholdRequantizer
from hypothesis import given
from hypothesis import strategies as st

GRIDS = [(bits, signed) for bits in (2, 4, 8, 16) for signed in (False, True)]


def quantised(x, x_max, bits, signed):
    """The paper's recurrence on a fraction: x2 + e4 + e8 + e16, clipped first; as a multiple of the last step."""
    end = x_max * (1 - Fraction(1, 10**7))
    x = max(-end if signed else Fraction(0), min(end, x))
    step = (x_max - (-x_max if signed else 0)) / Fraction(3)
    total = step * round(x / step)
    width = 2
    while width < bits:
        step /= 2**width + 1
        total += step * round((x - total) / step)
        width *= 2
    code = total / step
    assert code.denominator == 1
    return int(code)


def half_steps(grid):
    """Every half step within the grid, and somewhat beyond."""
    low, high = grid.code_range
    return [Fraction(h, 2) for h in range(2 * low - 3, 2 * high + 4)]


@pytest.mark.parametrize(("bits", "signed"), [(2, False), (2, True), (4, False), (4, True), (8, False), (8, True)])
def test_every_half_step_rounds_as_the_authors_recurrence(bits, signed):
    grid = NestedGrid(bits, signed)
    x_max = Fraction(3)
    step = x_max * (2 if signed else 1) / (2**bits - 1)
    expected = [quantised(k * step, x_max, bits, signed) for k in half_steps(grid)]
    assert [grid.round_exact(k) for k in half_steps(grid)] == expected


@pytest.mark.parametrize(("bits", "signed"), GRIDS[:6])
def test_floats_round_as_fractions_do_but_for_ties(bits, signed):
    grid = NestedGrid(bits, signed)
    limit = (2**bits - 1) / (2 if signed else 1)  # the step is one: half steps are exact in float64
    assert grid.step(limit) == 1
    fine = np.arange(-16 * 2**bits, 16 * 2**bits + 1) / 16
    # Divided by the range, a tie need not be one in float64.
    fine = fine[fine % 1 != 0.5]
    expected = [grid.round_exact(Fraction(float(x))) for x in fine]
    found = grid.codes(fine, limit)
    assert found.tolist() == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize(("bits", "signed"), GRIDS)
def test_every_code_stays_itself_and_parts_stay_in_their_ranges(bits, signed):
    grid = NestedGrid(bits, signed)
    low, high = grid.code_range
    codes = np.arange(low, high + 1)
    limit = 0.7
    values = codes * grid.step(limit)
    parts = grid.parts(values, limit)
    assert (grid.join(parts) == codes).all()
    assert (grid.codes(values, limit) == codes).all()
    ends = [(int(part.min()), int(part.max())) for part in parts]
    assert ends == [(-1, 1) if signed else (0, 3), (-2, 2), (-8, 8), (-128, 128)][: len(parts)]


def test_the_grids_are_symmetric_or_unsigned_and_two_signed_bits_are_ternary():
    ranges = {(bits, signed): NestedGrid(bits, signed).code_range for bits, signed in GRIDS}
    assert [ranges[bits, True] for bits in (2, 4, 8, 16)] == [(-1, 1), (-7, 7), (-127, 127), (-32767, 32767)]
    assert [ranges[bits, False] for bits in (2, 4, 8, 16)] == [(0, 3), (0, 15), (0, 255), (0, 65535)]
    assert NestedGrid(0, True).code_range == (0, 0)
    assert [NestedGrid(bits, True).radices for bits in (2, 4, 8, 16)] == [(), (5,), (5, 17), (5, 17, 257)]


def test_8_of_29_half_steps_differ_from_direct_rounding_at_four_signed_bits():
    grid = NestedGrid(4, True)
    steps = [Fraction(h, 2) for h in range(-14, 15)]
    assert len(steps) == 29
    different = [k for k in steps if grid.round_exact(k) != round(k)]
    assert different == [Fraction(h, 2) for h in (-13, -11, -9, -7, 7, 9, 11, 13)]
    assert grid.round_exact(Fraction(7, 2)) == 3
    assert round(Fraction(7, 2)) == 4
    assert grid.codes(np.array([3.5, -3.5]), 7.5).tolist() == [3, -3]


@pytest.mark.parametrize(("bits", "signed"), GRIDS)
@given(data=st.data())
def test_nested_is_direct_rounding_except_on_ties(bits, signed, data):
    grid = NestedGrid(bits, signed)
    low, high = grid.code_range
    value = data.draw(st.fractions(low - 2, high + 2))
    direct = max(low, min(high, round(value)))
    if (2 * value).denominator == 1 and value.denominator == 2:
        assert grid.round_exact(value) in (math.floor(value), math.ceil(value), low, high)
    else:
        assert grid.round_exact(value) == direct


@pytest.mark.parametrize(("bits", "signed"), GRIDS)
def test_nothing_rounds_past_the_end(bits, signed):
    grid = NestedGrid(bits, signed)
    low, high = grid.code_range
    assert grid.codes(np.array([-1e9, -2.0, 2.0, 1e9]), 2.0).tolist() == [low, low, high, high]
    assert grid.codes(np.zeros((2, 3)), 2.0).tolist() == [[0] * 3] * 2


def test_a_pruned_grid_holds_zero_alone():
    grid = NestedGrid(0, False)
    assert grid.codes(np.array([-3.0, 0.0, 5.0]), 1.0).tolist() == [0, 0, 0]
    assert grid.round_exact(Fraction(5)) == 0
    assert grid.parts(np.array([1.0]), 1.0) == []


RATIOS = [Fraction(1), Fraction(1, 2), Fraction(-1, 2), Fraction(3, 14), Fraction(-1, 30), 0.1, -0.0371, Fraction(7, 3)]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_thresholds_round_nested_for_every_value(bits, signed):
    """All 12-bit values, in channels of both directions, with and without values on ties."""
    grid = NestedGrid(bits, signed)
    requantizer = ThresholdRequantizer(12, bits, signed)
    values = np.arange(-2048, 2048)
    thresholds, descending = grid.as_thresholds(RATIOS, 12)
    assert thresholds.shape == (len(RATIOS), 2**bits - 1)
    found = requantizer.compute(np.tile(values, (len(RATIOS), 1))[None], thresholds, descending)[0]
    expected = [[grid.round_exact(int(v) * Fraction(ratio)) for v in values] for ratio in RATIOS]
    assert found.tolist() == expected
    direct = [[max(grid.code_range[0], min(grid.code_range[1], round(v / 2))) for v in map(int, values)]]
    assert (found[1].tolist() != direct[0]) == (bits == 4)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_multipliers_that_round_directly_are_those_that_reach_no_half(bits):
    """All small multipliers and shifts, over every value that gives a code within the grid or next to it."""
    grid = NestedGrid(bits, signed=True)
    low, high = grid.code_range
    for multiplier in [*range(64), 253, 254, 255, 256, 257, 508, 512]:
        for shift in range(9):
            most = ((high + 2) << shift) // max(1, multiplier)
            values = [Fraction(v * multiplier, 1 << shift) for v in range(-most, most + 1)]
            reached = any(value.denominator == 2 and low < value < high for value in values)
            assert grid.rounds_directly(multiplier, shift) == (not reached)
            if not reached:
                assert all(grid.round_exact(value) == max(low, min(high, round(value))) for value in values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NestedGrid(3, True), "nested bits must be 0, 2, 4, 8 or 16, not 3"),
        (lambda: NestedGrid(8, True).as_thresholds([1], 12), "nested bits of thresholds must be 2 or 4, not 8"),
        (lambda: NestedGrid(4, True).as_thresholds([1, 0], 12), "ratio of channel 1 must not be zero"),
        (
            lambda: NestedGrid(4, True).as_thresholds([Fraction(1, 400)], 12),
            "threshold of code -6 in channel 0 must fit 12 bits, not -2599",
        ),
        (lambda: NestedGrid(4, True).codes(np.zeros(2), 0.0), "limit of a nested grid must be positive, not 0.0"),
        (lambda: NestedGrid(0, True).step(1.0), "a pruned grid has no step: bits must be 2, 4, 8 or 16, not 0"),
        (lambda: NestedGrid(4, True).join([]), "codes must have at least the part c2"),
        (lambda: LayerBops(1, 4, 4, keep_in=1.5), "keep_in must be a share from 0 to 1, not 1.5"),
        (lambda: LayerBops(1, -4, 4), "MACs and bits must not be negative: 1, -4, 4"),
    ],
)
def test_what_is_out_of_range_is_refused(call, message):
    with pytest.raises(FormatError) as error:
        call()
    assert str(error.value) == message


# BOPs

LENET5 = (24 * 24 * 32 * 25, 8 * 8 * 64 * 32 * 25, 1024 * 512, 512 * 10)
"""MACs of the reference LeNet-5: 32C5-MP2-64C5-MP2-1024-512-10 without padding, on 28 x 28."""


def lenet5(w_bits, a_bits):
    inputs = (8, a_bits, a_bits, a_bits)
    return [LayerBops(macs, w_bits, bits) for macs, bits in zip(LENET5, inputs, strict=True)]


@pytest.mark.parametrize(
    ("w_bits", "a_bits", "percent"), [(8, 8, 6.25), (4, 4, 1.5625), (4, 8, 3.125), (2, 2, 0.390625), (32, 32, 100)]
)
def test_fixed_grids_cost_the_published_share(w_bits, a_bits, percent):
    layers = [LayerBops(macs, w_bits, a_bits) for macs in LENET5]
    assert 100 * relative_bops(layers) == percent


def test_lenet_5_with_an_8_bit_input():
    assert round(100 * relative_bops(lenet5(2, 2)), 3) == 0.517
    assert round(100 * relative_bops(lenet5(2, 4)), 3) == 0.866


def test_pruned_channels_count_on_both_sides():
    layers = [LayerBops(1000, 4, 8, keep_out=Fraction(3, 4)), LayerBops(500, 2, 4, Fraction(1, 2), Fraction(3, 4))]
    assert bops(layers) == 1000 * 32 * 3 / 4 + 500 * 8 * 3 / 8
    assert relative_bops(layers) == bops(layers) / (1500 * 1024)
    assert bops([replace(layers[0], w_bits=0)]) == 0


# Faults


def disagreements():
    """How many of the checks above a grid fails: half steps, thresholds, parts."""
    grid = NestedGrid(4, True)
    steps = half_steps(grid)
    wrong = sum(grid.round_exact(k) != quantised(k * Fraction(2, 15), Fraction(1), 4, True) for k in steps)
    wrong += sum(
        int(code) != quantised(Fraction(float(x)), Fraction(1), 4, True)
        for x, code in zip(X, grid.codes(X, 1.0), strict=True)
    )
    thresholds, descending = grid.as_thresholds([Fraction(1, 2), Fraction(-1, 2)], 8)
    values = np.arange(-128, 128)
    found = ThresholdRequantizer(8, 4, True).compute(np.tile(values, (2, 1))[None], thresholds, descending)[0]
    wrong += sum(
        int(code) != quantised(sign * int(v) * Fraction(1, 15), Fraction(1), 4, True)
        for row, sign in zip(found, (1, -1), strict=True)
        for v, code in zip(values, row, strict=True)
    )
    return wrong


X = np.random.default_rng(5).uniform(-1.2, 1.2, 500)


def direct(self, value):
    low, high = self.code_range
    return max(low, min(high, round(value)))


FAULTS = {
    "direct rounding": lambda patch: patch.setattr(NestedGrid, "round_exact", direct),
    "another radix": lambda patch: patch.setattr(NestedGrid, "radices", property(lambda self: (4,))),
    "no clipping": lambda patch: patch.setattr(nested, "CLIP", -0.3),
    "full range": lambda patch: patch.setattr(NestedGrid, "code_range", property(lambda self: (-8, 7))),
    "ties the other way": lambda patch: patch.setattr(
        NestedGrid,
        "_first",
        staticmethod(lambda tie, up, reached, first=NestedGrid._first: first(tie, up, not reached)),
    ),
    "one direction": lambda patch: patch.setattr(
        NestedGrid, "_first", staticmethod(lambda tie, up, reached, first=NestedGrid._first: first(tie, True, reached))
    ),
    "floor": lambda patch: patch.setattr(nested.np, "rint", np.floor),
}


def test_nothing_disagrees_without_a_fault():
    assert disagreements() == 0


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    fault(monkeypatch)
    assert disagreements() > 0

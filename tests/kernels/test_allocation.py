"""Bits of channels: equation 11 by its own words, and the steering of their mean."""

import math

import numpy as np
import pytest
from gatewise.kernels.allocation import allocate_bins, allocate_bits, channel_bits
from gatewise.kernels.errors import FormatError
from hypothesis import given
from hypothesis import strategies as st

spreads = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40)


def formula(spread, target, rounding):
    total = sum(a ** (2 / 3) for a in spread)
    bits = [math.log2(len(spread) * 2**target * a ** (2 / 3) / total) for a in spread]
    return [min(8, max(0, round(value) if rounding == "round" else math.ceil(value))) for value in bits]


@given(spread=spreads, target=st.floats(0, 8), rounding=st.sampled_from(["round", "ceil"]))
def test_bits_are_those_of_the_equation(spread, target, rounding):
    found = channel_bits(np.array(spread), target, rounding)
    wanted = formula(spread, target, rounding)
    assert found.dtype == np.int64
    # Only a tie that the last bit of a logarithm decides may fall otherwise.
    assert np.abs(found - wanted).max() <= 1
    near = [abs(channel_bits(np.array(spread), target + step, rounding) - wanted).max() for step in (-1e-9, 1e-9)]
    assert 0 in [np.abs(found - wanted).max(), *near]


def test_eight_times_the_spread_is_two_bits_more_and_alike_is_alike():
    assert channel_bits(np.array([3.0, 3.0, 3.0]), 4.0).tolist() == [4, 4, 4]
    two = channel_bits(np.array([1.0, 8.0] * 4), 4.0)
    assert (two[1::2] - two[::2] == 2).all()


def test_ties_go_to_the_even_and_ceil_to_the_greater():
    assert channel_bits(np.ones(2), 4.5).tolist() == [4, 4]
    assert channel_bits(np.ones(2), 5.5).tolist() == [6, 6]
    assert channel_bits(np.ones(2), 4.5, "ceil").tolist() == [5, 5]


def test_channels_stay_within_0_and_8_bits_and_without_spread_have_none():
    assert channel_bits(np.array([1e-12, 1.0, 1e12]), 6.0).tolist() == [0, 0, 8]
    assert channel_bits(np.array([0.0, 1.0]), 4.0).tolist() == [0, 5]
    assert channel_bits(np.zeros(3), 4.0).tolist() == [0, 0, 0]


@given(spread=st.lists(st.floats(0.01, 100), min_size=8, max_size=64), goal=st.integers(2, 6))
def test_the_mean_is_steered_to_its_goal(spread, goal):
    spread = np.array(spread)
    found = allocate_bits(spread, goal)
    target, bits = float(goal), channel_bits(spread, goal)
    for _ in range(10):
        if abs(goal - bits.mean()) <= 0.01:
            break
        target += (goal - bits.mean()) / 2
        bits = channel_bits(spread, target)
    assert found.tolist() == bits.tolist()


def test_steering_comes_nearer_than_the_equation_alone():
    spread = np.exp(np.random.default_rng(0).normal(0, 1.2, 64))
    plain, steered = (abs(bits.mean() - 4) for bits in (channel_bits(spread, 4.0), allocate_bits(spread, 4.0)))
    assert steered < plain
    assert steered <= 1 / 64


@pytest.mark.parametrize("spread", [[-1.0, 1.0], [np.inf], [[1.0]]])
def test_spreads_that_are_none_are_refused(spread):
    with pytest.raises(FormatError, match="spreads of channels must be finite and not negative"):
        channel_bits(np.array(spread), 4.0)


@given(spread=spreads, target=st.floats(0, 8))
def test_bins_are_each_channels_part_of_all_steps(spread, target):
    total = sum(a ** (2 / 3) for a in spread)
    exact = np.array([len(spread) * 2**target * a ** (2 / 3) / total for a in spread])
    found = allocate_bins(np.array(spread), target)
    assert found.dtype == np.int64
    assert np.abs(found - exact).max() <= 0.5 * (1 + 1e-9)


def test_channels_without_spread_have_no_bins():
    assert allocate_bins(np.array([0.0, 1.0, 1.0]), 2.0).tolist() == [0, 6, 6]
    assert allocate_bins(np.zeros(2), 4.0).tolist() == [0, 0]

"""Clip statistics in integers: what floating point makes of the same values, within what their widths allow."""

import numpy as np
import pytest
from gatewise.kernels import ClipStatistics
from gatewise.kernels.errors import FormatError
from hypothesis import given
from hypothesis import strategies as st

LAPLACE_4, GAUSS_4 = 6.2, 2.93
"""ACIQ's published ratios behind a ReLU, 4 bits."""


def values(seed, channels=6, count=257, bits=16, spread=2000):
    rng = np.random.default_rng(seed)
    found = rng.laplace(rng.normal(0, spread, (channels, 1)), spread, (channels, count))
    return np.clip(np.rint(found), -(1 << bits - 1), (1 << bits - 1) - 1).astype(np.int64)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize(("prior", "ratio"), [("laplace", LAPLACE_4), ("gauss", GAUSS_4)])
def test_the_clip_is_that_of_floating_point_within_its_steps(prior, ratio, half):
    statistics, x = ClipStatistics(prior=prior), values(1)
    found = statistics.compute(x, statistics.factor(ratio), 15, half)
    mean = x.mean(axis=1)
    distance = np.abs(x - mean[:, None]).mean(axis=1) if prior == "laplace" else x.std(axis=1)
    assert np.abs(found.mean - mean).max() <= 0.5 + 2**-3
    assert np.abs(found.deviation - distance).max() <= 1.5
    alpha = ratio * distance
    span = np.maximum(mean, 0) + alpha if half else 2 * alpha
    assert np.abs(found.range / span - 1).max() < 2e-3
    low = np.zeros(6) if half else np.maximum(x.min(axis=1), mean - alpha)
    assert np.abs(found.offset - low).max() <= 2 + 2e-3 * alpha.max()


@pytest.mark.parametrize("prior", ["laplace", "gauss"])
def test_codes_are_those_of_a_division(prior):
    statistics, x = ClipStatistics(prior=prior), values(2, spread=900)
    found = statistics.compute(x, statistics.factor(LAPLACE_4), 15, True)
    assert (found.multiplier >> 15 == 1).all()
    scaled = (x - found.offset[:, None]) * found.multiplier[:, None] / 2.0 ** found.shift[:, None]
    exact = (x - found.offset[:, None]) * 15 / found.range[:, None]
    assert np.abs(scaled - exact).max() < np.abs(exact).max() / 32768


@given(st.integers(1, 65536), st.integers(8, 16))
def test_a_reciprocal_divides_to_an_eighth_of_the_last_place(count, bits):
    statistics = ClipStatistics(bits)
    multiplier, shift = statistics.reciprocal(count)
    assert multiplier >> statistics.reciprocal_bits - 1 == 1
    assert 0 < shift < 1 << statistics.reciprocal_shift_bits
    end = 1 << bits - 1
    for value in (-end, end - 1, 1, 0):
        assert statistics.divided(np.array(value * count), multiplier, shift) == value


@pytest.mark.parametrize("prior", ["laplace", "gauss"])
@pytest.mark.parametrize("bits", [8, 16])
def test_every_width_holds_the_greatest_of_its_values(prior, bits):
    statistics, end = ClipStatistics(bits, 10, prior), 1 << bits - 1
    extremes = np.array([[-end] * 1024, [end - 1] * 1024, [-end, end - 1] * 512, [end - 1] * 1023 + [-end]])
    assert np.abs(extremes.sum(axis=1)).max() < 1 << statistics.sum_bits
    assert (extremes**2).sum(axis=1).max() < 1 << statistics.square_bits
    for half in (True, False):
        found = statistics.compute(extremes, (1 << 16) - 1, 1, half)
        assert found.deviation.max() < 1 << bits
        assert found.range.max() < 1 << statistics.range_bits
        assert found.shift.max() <= statistics.divide_steps
        assert (found.multiplier >> 15 == 1).all()
        assert -end <= min(found.mean.min(), found.offset.min()) <= max(found.mean.max(), found.offset.max()) < end


def test_a_channel_that_is_one_value_has_the_least_range():
    for prior in ("laplace", "gauss"):
        found = ClipStatistics(prior=prior).compute(np.full((1, 9), -77), 1 << 12, 255, True)
        assert (found.mean[0], found.deviation[0], found.offset[0], found.range[0]) == (-77, 0, 0, 256)
        assert found.multiplier[0] / 2.0 ** found.shift[0] == pytest.approx(255 / 256, rel=2**-15)


def test_a_root_s_first_bits_are_those_of_the_whole_root():
    statistics = ClipStatistics(prior="gauss")
    for square in (0, 1, 2**30, 2**32 - 1, 123456789):
        whole = int(statistics.root(np.array(square)))
        assert whole**2 <= square < (whole + 1) ** 2
        assert int(statistics.root(np.array(square), 5)) == whole >> 11


def test_a_quotient_grows_by_a_bit_a_step_until_it_is_full():
    statistics = ClipStatistics()
    partial = [[int(each[0]) for each in statistics.multiplier(np.array([3000]), 15, steps)] for steps in range(37)]
    full = next(step for step, (quotient, _) in enumerate(partial) if quotient >> 15)
    for step, (quotient, shift) in enumerate(partial):
        assert shift == min(step, full)
        assert quotient == (15 << shift) // 3000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipStatistics(7), "value_bits must be from 8 to 16, not 7"),
        (lambda: ClipStatistics(count_bits=17), "count_bits must be from 1 to 16, not 17"),
        (lambda: ClipStatistics(prior="cauchy"), "prior must be laplace or gauss, not 'cauchy'"),
        (lambda: ClipStatistics(count_bits=4).reciprocal(17), "count must be from 1 to 16, not 17"),
        (lambda: ClipStatistics.factor(16.0), "factor must be positive and less than 16, not 16.0"),
    ],
)
def test_wrong_parameters_are_refused_in_a_line(make, message):
    with pytest.raises(FormatError) as raised:
        make()
    assert str(raised.value) == message

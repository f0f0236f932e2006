import numpy as np
import pytest
from gatewise.kernels.errors import UnsupportedError
from gatewise.quant.affine import (
    WeightSettings,
    code_range,
    common_zero_point,
    holding_bits,
    quantize_weights,
    quantize_weights_to_bins,
    tensor_grid,
)
from gatewise.quant.graph import Linear, Parameters
from gatewise.quant.quantized import QuantizedTensor
from hypothesis import given
from hypothesis import strategies as st

SOURCE = QuantizedTensor("x", (64,), 4, False, 0.01, 0, "shift", np.zeros(64, dtype=np.int64), 0, 15)
LAYER = Linear(name="fc", inputs=("x",), shape=(8,), in_features=64)
PLAIN, MEAN = WeightSettings(), WeightSettings(mean_correction=True)
BOTH = WeightSettings(mean_correction=True, variance_correction=True)


def weights(shift: float = 0.0, seed: int = 0) -> Parameters:
    generator = np.random.default_rng(seed)
    spread = np.exp(generator.normal(size=(8, 1)))
    return Parameters(generator.laplace(size=(8, 64)) * spread + shift, generator.normal(size=8))


def test_codes_are_clamped_then_rounded_half_even_about_an_asymmetric_zero_point() -> None:
    weight = np.array([[-3.0, 0.0, 0.5, 1.5, 12.0]])
    result = quantize_weights(LAYER, Parameters(weight, np.zeros(1)), SOURCE, 4, PLAIN)
    np.testing.assert_array_equal(result.scales, [1.0])
    np.testing.assert_array_equal(result.zero_points, [3 - 8])
    np.testing.assert_array_equal(result.codes, [[-8, -5, -4, -4, 7]])
    assert result.fraction == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_within_half_a_step(bits: int) -> None:
    parameters = weights()
    result = quantize_weights(LAYER, parameters, SOURCE, bits, PLAIN)
    # The zero point's own rounding may put an extreme half a step outside the grid.
    assert np.all(np.abs(result.real - parameters.weight) <= (1 + 1e-9) * result.scales[:, None])
    assert np.mean(np.abs(result.real - parameters.weight) <= 0.5001 * result.scales[:, None]) > 0.95


def test_the_mean_correction_leaves_no_bias_but_that_of_its_fixed_point_grid() -> None:
    parameters = weights()
    plain, corrected = (quantize_weights(LAYER, parameters, SOURCE, 3, chosen) for chosen in (PLAIN, MEAN))
    bias = np.abs((parameters.weight - corrected.real).mean(1))
    assert corrected.fraction == 8
    assert np.all(bias <= corrected.scales * 2.0**-9 * (1 + 1e-9))
    assert np.all(np.abs((parameters.weight - plain.real).mean(1)).max() > 10 * bias.max())
    np.testing.assert_array_equal(plain.codes, corrected.codes)


def test_the_variance_correction_restores_each_channels_spread() -> None:
    parameters = weights()
    result = quantize_weights(LAYER, parameters, SOURCE, 2, BOTH)
    np.testing.assert_allclose(result.real.std(1), parameters.weight.std(1), rtol=1e-12)


def test_a_zero_point_that_does_not_fit_costs_fraction_bits_and_then_is_refused() -> None:
    fits = quantize_weights(LAYER, weights(shift=500.0), SOURCE, 4, MEAN)
    assert 0 < fits.fraction < 8
    assert np.abs(fits.fixed_zero_points).max() < 1 << 15
    with pytest.raises(
        UnsupportedError, match=r"weight zero points of fc must fit 16 bits, not -?\d+ \(output channel"
    ):
        quantize_weights(LAYER, weights(shift=1e6), SOURCE, 4, MEAN)


@pytest.mark.parametrize("value", [0.0, 2.5, -7.0, 1e-12])
def test_a_channel_of_one_value_is_exact(value: float) -> None:
    parameters = Parameters(np.full((8, 64), value), np.zeros(8))
    result = quantize_weights(LAYER, parameters, SOURCE, 4, MEAN)
    np.testing.assert_allclose(result.real, parameters.weight, rtol=1e-12, atol=1e-8)


def test_a_near_dead_channels_scale_keeps_its_bias_within_the_accumulator() -> None:
    parameters = weights()
    parameters.weight[3] *= 1e-15
    parameters.bias[3] = 40.0
    result = quantize_weights(LAYER, parameters, SOURCE, 4, MEAN)
    assert abs(parameters.bias[3] / (SOURCE.scale * result.scales[3])) <= 2**30


@given(st.lists(st.tuples(st.floats(-10, 0), st.floats(0, 10)), min_size=1, max_size=6), st.integers(2, 8))
def test_a_common_zero_point_covers_every_channel(ends: list[tuple[float, float]], bits: int) -> None:
    low, high = (np.array(side) for side in zip(*ends, strict=True))
    steps, zero_point = common_zero_point(low, high, bits)
    assert np.all(-steps * zero_point <= low + 1e-9)
    assert np.all(steps * ((1 << bits) - 1 - zero_point) >= high - 1e-9)
    if low.min() == 0:
        assert zero_point == 0


def test_a_tensors_grid_always_holds_zero() -> None:
    assert tensor_grid(1.0, 15.0, 4) == (1.0, 0)
    assert tensor_grid(-15.0, -1.0, 4) == (1.0, 15)
    assert tensor_grid(0.0, 0.0, 4)[0] > 0


def test_widths_of_channels_are_kept_by_their_codes() -> None:
    widths = np.array([0, 1, 2, 3, 4, 5, 6, 8])
    parameters = weights()
    result = quantize_weights(LAYER, parameters, SOURCE, 4, MEAN, widths)
    assert result.bits == 8
    assert not result.codes[0].any()
    np.testing.assert_allclose(result.real[0], parameters.weight[0].mean(), atol=result.scales[0] / 256)
    for codes, bits in zip(result.codes[1:], widths[1:], strict=True):
        assert (codes.min(), codes.max()) == (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    for bits in (4, 8):
        alike = quantize_weights(LAYER, parameters, SOURCE, bits, MEAN, np.full(8, bits))
        np.testing.assert_array_equal(alike.real, quantize_weights(LAYER, parameters, SOURCE, bits, MEAN).real)


@pytest.mark.parametrize("settings", [PLAIN, MEAN])
def test_bins_divide_a_channels_range_about_a_code_for_zero(settings: WeightSettings) -> None:
    parameters = weights()
    bins = np.array([0, 1, 3, 9, 14, 15, 100, 250])
    result = quantize_weights_to_bins(LAYER, parameters, SOURCE, bins, settings)
    weight, live = parameters.weight, bins > 0
    span = np.ptp(weight, axis=1)
    reach = np.maximum(weight.max(1) / 127, -weight.min(1) / 128)
    np.testing.assert_allclose(result.scales[live], np.maximum(span / np.maximum(bins, 1), reach)[live])
    np.testing.assert_array_equal(result.codes[live], np.rint(weight / result.scales[:, None])[live])
    assert not result.codes[0].any()
    assert result.widths is not None
    for codes, bits in zip(result.codes, result.widths, strict=True):
        low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits else (0, 0)
        assert low <= codes.min()
        assert codes.max() <= high
        assert bits < 2 or codes.min() < low / 2 or codes.max() > high / 2
    bias = np.abs((weight - result.real).mean(1))[live]
    assert settings is PLAIN or np.all(bias <= result.scales[live] * 2.0**-9 * (1 + 1e-9))
    assert settings is MEAN or not result.zero_points.any()


@pytest.mark.parametrize("signed", [False, True])
def test_holding_bits_are_the_least_whose_range_has_the_codes(signed: bool) -> None:
    for bits in range(1, 9):
        low, high = code_range(bits, signed)
        for ends, wanted in (((low, high), bits), ((0, high), bits if high else 0), ((low, 0), bits if low else 0)):
            assert holding_bits(*(np.array([end]) for end in ends), signed)[0] == wanted
    assert holding_bits(np.array([0.0, -9e3]), np.array([0.0, 9e3]), True).tolist() == [0, 8]

"""Affine grids: ranges to scales and zero points, weights to codes. What ACIQ and min-max share.

A weight code is stored signed: the asymmetric code 0..2^b - 1 and its zero point, both less
2^(b-1). Weights are clamped, then rounded half to even. Where output channels have widths of their own, one of 0 bits
has the same weight everywhere: its mean where means are corrected, else zero.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..kernels.allocation import MAX_CHANNEL_BITS
from ..kernels.correction import MAX_FRACTION, ZERO_POINT_BITS
from ..kernels.errors import UnsupportedError
from ..kernels.mac import signed_range
from ..sim.fixed_point import fraction_bits
from .graph import Layer, Parameters
from .quantized import QuantizedTensor, QuantizedWeights

__all__ = [
    "WeightSettings",
    "code_range",
    "common_zero_point",
    "holding_bits",
    "live_scales",
    "quantize_weights",
    "quantize_weights_to_bins",
    "rounded_weights",
    "tensor_grid",
]

SCALE_FLOOR = 1e-8
BIAS_BITS = 30
"""A bias must fit this many bits of the 32-bit accumulator's grid, which bounds the scale of a near-dead channel."""


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """Least and greatest code of so many bits."""
    return signed_range(bits) if signed else (0, (1 << bits) - 1)


def holding_bits(low: np.ndarray, high: np.ndarray, signed: bool) -> np.ndarray:
    """The least bits, 0..8, that hold the whole codes from `low` to `high` (C,), zero among them: int64 (C,).

    Where rounding put an end beyond 8 bits these are all there are.
    """
    bits = np.zeros(len(low), dtype=np.int64)
    for more in range(MAX_CHANNEL_BITS):
        least, greatest = code_range(more, signed) if more else (0, 0)
        bits += (low < least) | (high > greatest)
    return bits


def tensor_grid(low: float, high: float, bits: int) -> tuple[float, int]:
    """Scale and zero point of unsigned codes over [low, high] and zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / ((1 << bits) - 1), SCALE_FLOOR)
    return scale, round(-low / scale)


def common_zero_point(low: np.ndarray, high: np.ndarray, bits: int) -> tuple[np.ndarray, int]:
    """Steps (C,) and the one zero point of unsigned codes whose channels span [low, high] (C,).

    The zero point minimises the sum of squared steps; a channel's step covers the worse of its ends.
    `low` must not be positive and `high` not negative.
    """
    greatest = (1 << bits) - 1
    best: tuple[np.ndarray, int] | None = None
    for zero_point in range(greatest + 1):
        if (zero_point == 0 and low.min() < 0) or (zero_point == greatest and high.max() > 0):
            continue
        steps = np.maximum(high / max(greatest - zero_point, 1), -low / max(zero_point, 1))
        if best is None or np.sum(steps**2) < np.sum(best[0] ** 2):
            best = steps, zero_point
    assert best is not None
    return best


def live_scales(scales: np.ndarray, bias: np.ndarray, source: QuantizedTensor) -> tuple[np.ndarray, np.ndarray]:
    """Scales of symmetric weights (out,), raised where a bias would not fit, and which channels are not near dead.

    Beside the bias of a near-dead channel its weights count for nothing: they are to be zero.
    """
    floor = np.maximum(SCALE_FLOOR, np.abs(bias) / (source.scale * 2.0**BIAS_BITS))
    return np.maximum(scales, floor), scales >= floor


@dataclass(frozen=True)
class WeightSettings:
    """How weights are quantised: grid granularity and ACIQ's bias corrections (its section 5.2)."""

    per_channel: bool = True
    mean_correction: bool = False
    variance_correction: bool = False


def quantize_weights(
    layer: Layer,
    parameters: Parameters,
    source: QuantizedTensor,
    bits: int,
    settings: WeightSettings,
    widths: np.ndarray | None = None,
) -> QuantizedWeights:
    """Quantise a layer's weights over their least to greatest value, with an asymmetric zero point.

    They have `bits` bits, or `widths` (out,) of them, int64, 0..8, in the output channels.

    The mean correction ``E[W] - E[Wq]`` of an output channel moves its zero point by a fraction of a
    step; the variance correction, the ratio of standard deviations, scales its step. Raises
    `UnsupportedError` where a zero point does not fit 16 bits even without fraction bits.
    """
    weight = parameters.weight.reshape(parameters.weight.shape[0], -1)
    low, high = (ends[:, None] for ends in (weight.min(1), weight.max(1)))
    if not settings.per_channel:
        low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
    greatest = (1 << (np.full(len(weight), bits) if widths is None else widths)[:, None]) - 1
    live, steps = greatest > 0, np.maximum(greatest, 1)
    floor = _scale_floor(parameters, source)
    # A channel of one value has no range of its own: zero joins it, and the value is then exact.
    constant = (high - low) / steps < SCALE_FLOOR
    low, high = np.where(constant, np.minimum(low, 0), low), np.where(constant, np.maximum(high, 0), high)
    scale = np.maximum((high - low) / steps, floor)
    zero_point = np.where(live, np.rint(-low / scale), 0)
    codes = np.rint(np.clip(weight / scale + zero_point, 0, greatest))
    offset = ((greatest + 1) // 2 * live)[:, 0]
    most = bits if widths is None else max(1, int(widths.max()))
    return _corrected(layer.name, parameters.weight, scale, zero_point, codes, offset, floor, settings, most, widths)


def quantize_weights_to_bins(
    layer: Layer, parameters: Parameters, source: QuantizedTensor, bins: np.ndarray, settings: WeightSettings
) -> QuantizedWeights:
    """The mid-tread variant: an output channel's range over its number of `bins` (out,) is a step, and 0 is a code.

    Codes are rounded half to even, and so are their bounds, of 8 bits at most; each channel has the width that holds
    them. Without bins all its codes are 0. The corrections are those of `quantize_weights`.
    """
    weight = parameters.weight.reshape(parameters.weight.shape[0], -1)
    low, high = (ends[:, None] for ends in (np.minimum(weight.min(1), 0), np.maximum(weight.max(1), 0)))
    span = weight.max(1, keepdims=True) - weight.min(1, keepdims=True)
    if not settings.per_channel:
        low, high, span = np.full_like(low, low.min()), np.full_like(high, high.max()), np.full_like(span, span.max())
    live = bins[:, None] > 0
    floor = _scale_floor(parameters, source)
    least, greatest = signed_range(MAX_CHANNEL_BITS)
    step = np.maximum(span / np.maximum(bins[:, None], 1), np.maximum(high / greatest, low / least))
    scale = np.maximum(step, floor)
    codes = np.where(live, np.rint(weight / scale), 0).clip(least, greatest)
    widths = holding_bits(codes.min(1), codes.max(1), signed=True)
    nothing = np.zeros(len(weight))
    return _corrected(
        layer.name, parameters.weight, scale, nothing[:, None], codes, nothing, floor, settings,
        max(1, int(widths.max())), widths,
    )  # fmt: skip


def _scale_floor(parameters: Parameters, source: QuantizedTensor) -> np.ndarray:
    """The least scale of each output channel (out, 1), at which its bias fits the accumulator."""
    return np.asarray(np.maximum(SCALE_FLOOR, np.abs(parameters.bias)[:, None] / (source.scale * 2.0**BIAS_BITS)))


def _corrected(
    name: str,
    weights: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray,
    codes: np.ndarray,
    offset: np.ndarray,
    floor: np.ndarray,
    settings: WeightSettings,
    bits: int,
    widths: np.ndarray | None,
) -> QuantizedWeights:
    """Weights of these codes (out, n), ``scale * (code - zero_point)`` (out, 1), with their bias taken away.

    Codes and zero points are stored less `offset` (out,).
    """
    weight = weights.reshape(len(weights), -1)
    if settings.mean_correction:
        zero_point = zero_point - (weight / scale - (codes - zero_point)).mean(1, keepdims=True)
    if settings.variance_correction:
        spread, rounded = weight.std(1, keepdims=True), (scale * codes).std(1, keepdims=True)
        scale = scale * np.where(rounded > 0, spread / np.where(rounded > 0, rounded, 1), 1)
    scale = np.maximum(scale, floor)
    fixed, fraction = _rounded_zero_points(
        name, zero_point[:, 0] - offset, MAX_FRACTION if settings.mean_correction else 0
    )
    stored = (codes - offset[:, None]).astype(np.int16).reshape(weights.shape)
    return QuantizedWeights(bits, stored, scale[:, 0], fixed, fraction, widths)


def rounded_weights(weight: Tensor, bits: int) -> Tensor:
    """Float weights (out, ...) as `quantize_weights` has them by its default settings, for networks in training."""
    flat = weight.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    scale = ((high - low) / ((1 << bits) - 1)).clamp(min=SCALE_FLOOR)
    zero = (-low / scale).round()
    codes = (flat / scale + zero).clamp(0, (1 << bits) - 1).round()
    return ((codes - zero) * scale).reshape(weight.shape)


def _rounded_zero_points(name: str, zero_points: np.ndarray, fraction: int) -> tuple[np.ndarray, int]:
    """Zero points on the finest fraction grid on which all of a layer's fit, and that grid's bits."""
    low, high = signed_range(ZERO_POINT_BITS)
    for bits in range(fraction, -1, -1):
        fixed = np.rint(zero_points * 2.0**bits)
        if low <= fixed.min() and fixed.max() <= high:
            rounded = fixed / 2.0**bits
            return rounded, fraction_bits(rounded)  # as the file holds them: whole numbers have none
    worst = int(np.argmax(np.abs(zero_points)))
    raise UnsupportedError(
        f"weight zero points of {name} must fit {ZERO_POINT_BITS} bits, not {zero_points[worst]:.0f} "
        f"(output channel {worst}: its weights differ too little from one another)"
    )

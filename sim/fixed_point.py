"""From real constants to the fixed-point ones that the hardware holds.

Quantisers use the same functions, so that what a fake-quantised network multiplies by is what
the hardware holds.
"""

import numpy as np

from ..kernels.correction import MAX_FRACTION, ZERO_POINT_BITS
from ..kernels.errors import FormatError, UnsupportedError
from ..kernels.mac import signed_range
from ..kernels.requant import MAX_SHIFT, Rounding

__all__ = [
    "fixed_multiplier",
    "fixed_zero_point",
    "fraction_bits",
    "odd_multiplier",
    "real_multiplier",
    "smallest_signed",
]


def fixed_multiplier(
    real: np.ndarray, bits: int = 24, rounding: Rounding = "half_even"
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest ``multiplier / 2**shift`` (uint32, uint8) to non-negative reals, the multiplier normalised.

    TFLite's double rounding needs reals below 1: its shift is 31 or more.
    """
    real = np.atleast_1d(np.asarray(real, dtype=np.float64))
    if not np.isfinite(real).all() or (real < 0).any():
        raise FormatError("rescale factors must be finite and not negative: check the scales")
    exponent = np.frexp(real)[1]
    shift = np.minimum(bits - exponent, MAX_SHIFT)
    multiplier = np.rint(np.ldexp(real, shift))
    grown = multiplier >= 1 << bits
    shift = np.where(real == 0, bits, shift - grown)
    multiplier = np.rint(np.ldexp(real, shift))
    least = 31 if rounding == "tflite" else 0
    if (shift < least).any():
        raise UnsupportedError(f"rescale factors must be below {2.0 ** (bits - least):g}, not {real.max():g}")
    return multiplier.astype(np.uint32), shift.astype(np.uint8)


def odd_multiplier(real: np.ndarray, bits: int = 24, rounding: Rounding = "half_even") -> tuple[np.ndarray, np.ndarray]:
    """As `fixed_multiplier`, but the nearest odd multiplier, where the real is not 0.

    Products of whole numbers with it lie halfway between two codes only far from zero
    (`NestedGrid.rounds_directly`).
    """
    real = np.atleast_1d(np.asarray(real, dtype=np.float64))
    multiplier, shift = fixed_multiplier(real, bits, rounding)
    exact = np.ldexp(real, shift.astype(np.int64))
    nearest = np.where((multiplier >= exact) & (multiplier > 0), multiplier - 1, multiplier + 1)
    odd = np.where((multiplier % 2 == 1) | (real == 0), multiplier, nearest)
    return odd.astype(np.uint32), shift


def real_multiplier(multiplier: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What a multiplier and shift stand for, float64 (exact)."""
    return np.ldexp(multiplier.astype(np.float64), -shift.astype(np.int64))


def fraction_bits(zero_point: np.ndarray) -> int:
    """Fraction bits F (0..8) of a layer's weight zero points: 0 for whole ones, else as many as fit."""
    zero_point = np.asarray(zero_point, dtype=np.float64)
    if not np.isfinite(zero_point).all():
        raise FormatError("weight zero points must be finite")
    if (zero_point == np.rint(zero_point)).all():
        return _fitting(zero_point, 0)
    return _fitting(zero_point, MAX_FRACTION)


def _fitting(zero_point: np.ndarray, fraction: int) -> int:
    low, high = signed_range(ZERO_POINT_BITS)
    for bits in range(fraction, -1, -1):
        fixed = np.rint(np.ldexp(zero_point, bits))
        if fixed.min(initial=0) >= low and fixed.max(initial=0) <= high:
            return bits
    raise UnsupportedError(
        f"weight zero points must fit {ZERO_POINT_BITS} signed bits, found {zero_point.min():g}..{zero_point.max():g}"
    )


def fixed_zero_point(zero_point: np.ndarray, fraction: int) -> np.ndarray:
    """Zero points with `fraction` fraction bits, int16."""
    low, high = signed_range(ZERO_POINT_BITS)
    fixed = np.rint(np.ldexp(np.asarray(zero_point, dtype=np.float64), fraction))
    if fixed.min(initial=0) < low or fixed.max(initial=0) > high:
        raise UnsupportedError(
            f"weight zero points with {fraction} fraction bits must fit {ZERO_POINT_BITS} signed bits, "
            f"found {fixed.min():g}..{fixed.max():g}"
        )
    return fixed.astype(np.int16)


def smallest_signed(values: np.ndarray) -> np.ndarray:
    """The same integers as int16, int32 or int64, whichever is the first to hold them all."""
    for dtype in (np.int16, np.int32):
        limits = np.iinfo(dtype)
        if values.min(initial=0) >= limits.min and values.max(initial=0) <= limits.max:
            return values.astype(dtype)
    return values.astype(np.int64)

"""Requantisers: from a corrected accumulator to an output code.

Two kinds. `ScaleRequantizer` multiplies by an unsigned integer, shifts right, rounds, adds
the zero point and clamps (a ReLU is a clamp). `ThresholdRequantizer` counts the integer
thresholds that a value reaches: exact for any monotone function.

Rounding modes: ``half_even`` (NumPy, PyTorch, ONNX), ``half_up`` (toward plus infinity on a
tie), ``half_away`` (C's ``round``), ``floor`` (a plain shift) and ``tflite``, the double rounding
of gemmlowp's SaturatingRoundingDoublingHighMul followed by RoundingDivideByPOT.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .errors import FormatError
from .jit import jit
from .mac import signed_range

__all__ = [
    "CONSTANT",
    "MAX_SHIFT",
    "MULTIPLIER_BITS",
    "Rounding",
    "ScaleRequantizer",
    "ThresholdRequantizer",
    "narrowed",
]

Rounding = Literal["half_even", "half_up", "half_away", "floor", "tflite"]

MULTIPLIER_BITS = (16, 24, 31)
MAX_SHIFT = 62
TFLITE_SHIFT = 31
"""Fixed-point position of a TFLite multiplier: its shift is 31 plus the rounding divide's exponent."""

CONSTANT = 8
"""In the place of bits by which a channel's codes are narrower than the tensor's: they are all 0."""

_ROUNDINGS = get_args(Rounding)
_HALF_EVEN, _HALF_UP, _HALF_AWAY, _FLOOR, _TFLITE = range(len(_ROUNDINGS))
SHORT_BITS = 31
"""Values that leave their products with multipliers of 31 bits room for one more bit and what rounding adds."""
_FAR = 1 << 62
"""Saturation point of a quotient: far beyond every code, and still safe to add to."""


@jit
def _round_up(quotient, remainder, half, negative, rounding):  # type: ignore[no-untyped-def]
    """Increment (0 or 1) of a floor quotient whose remainder is given against half a step."""
    if rounding == _FLOOR or remainder < half:
        return 0
    if remainder > half or rounding == _HALF_UP:
        return 1
    if rounding == _HALF_EVEN:
        return quotient & 1
    return 0 if negative else 1


@jit
def _divide_power_of_two(value, shift, rounding):  # type: ignore[no-untyped-def]
    """``value / 2**shift``, rounded; exact for every int64 value and shift 0..62."""
    if shift == 0:
        return value
    quotient = value >> shift
    remainder = value & ((np.int64(1) << shift) - 1)
    return quotient + _round_up(quotient, remainder, np.int64(1) << (shift - 1), value < 0, rounding)


@jit
def _scale(value, multiplier, shift, rounding):  # type: ignore[no-untyped-def]
    """``value * multiplier / 2**shift``, rounded, saturated at +-2**62.

    `value` has at most 56 bits, `multiplier` at most 31: the product reaches 87 bits. Beyond 63
    it is held in two limbs of 32 (low, unsigned) and 64 bits.
    """
    if rounding == _TFLITE:
        product = value * multiplier
        nudge = np.int64(1) << (TFLITE_SHIFT - 1)
        # Division truncates toward zero, as the C++ definition does.
        high = (product + nudge) >> TFLITE_SHIFT if product >= 0 else -((nudge - 1 - product) >> TFLITE_SHIFT)
        return _divide_power_of_two(high, shift - TFLITE_SHIFT, _HALF_AWAY)
    if -(1 << 32) < value < (1 << 32):
        return _divide_power_of_two(value * multiplier, shift, rounding)

    low = (value & 0xFFFFFFFF) * multiplier
    high = (value >> 32) * multiplier + (low >> 32)
    low &= 0xFFFFFFFF
    if shift > 32:
        step = shift - 32
        quotient = high >> step
        remainder_high = high & ((np.int64(1) << step) - 1)
        half_high = np.int64(1) << (step - 1)
        # A remainder beyond half only in its low limb still lies beyond half.
        remainder = 2 * remainder_high + (1 if low != 0 else 0)
        return quotient + _round_up(quotient, remainder, 2 * half_high, value < 0, rounding)
    if high >= _FAR >> (32 - shift):
        return _FAR
    if high < -_FAR >> (32 - shift):
        return -_FAR
    quotient = (high << (32 - shift)) + (low >> shift)
    remainder = low & ((np.int64(1) << shift) - 1)
    if shift == 0:
        return quotient
    return quotient + _round_up(quotient, remainder, np.int64(1) << (shift - 1), value < 0, rounding)


@jit
def _scale_short(values, multiplier, shift, rounding, zero_point, low, high, codes):  # type: ignore[no-untyped-def]
    """Requantise values of `SHORT_BITS` bits: 64 hold their products, so that LLVM makes vectors of the loop."""
    if shift == 0:
        multiplier, shift = 2 * multiplier, 1
    half = np.int64(rounding != _FLOOR) << (shift - 1)
    even, away = np.int64(rounding == _HALF_EVEN), np.int64(-(rounding == _HALF_AWAY))
    for p in range(len(values)):
        product = values[p] * multiplier
        tie = ((product >> shift) & even) - even + ((product >> 63) & away)
        code = ((product + half + tie) >> shift) + zero_point
        codes[p] = min(max(code, low), high)


@jit
def _scale_layer(values, multiplier, shift, rounding, zero_point, low, high, codes, overflows):  # type: ignore[no-untyped-def]
    least, greatest = -(1 << 31), (1 << 31) - 1
    images, channels, pixels = values.shape
    for n in range(images):
        for c in range(channels):
            most = np.int64(0)
            for p in range(pixels):
                # Magnitudes, less one where negative.
                most |= values[n, c, p] ^ (values[n, c, p] >> 63)
            if rounding != _TFLITE and most >> SHORT_BITS - 1 == 0:
                _scale_short(
                    values[n, c], multiplier[c], shift[c], rounding, zero_point, low[c], high[c], codes[n, c]
                )  # fmt: skip
                continue
            for p in range(pixels):
                value = values[n, c, p]
                if rounding == _TFLITE:
                    limited = min(max(value, least), greatest)
                    overflows[c] += limited != value
                    value = limited
                code = _scale(value, multiplier[c], shift[c], rounding) + zero_point
                codes[n, c, p] = min(max(code, low[c]), high[c])


@jit
def _threshold_layer(values, thresholds, descending, base, codes):  # type: ignore[no-untyped-def]
    images, channels, pixels = values.shape
    for n in range(images):
        for c in range(channels):
            for p in range(pixels):
                value, count = values[n, c, p], 0
                for t in range(thresholds.shape[1]):
                    if descending[c]:
                        count += value <= thresholds[c, t]
                    else:
                        count += value >= thresholds[c, t]
                codes[n, c, p] = base + count


def _as_layer(values: np.ndarray, **constants: np.ndarray) -> np.ndarray:
    """Values as (N, C, pixels); the constants must have one entry for each channel."""
    values = np.ascontiguousarray(values, dtype=np.int64)
    images, channels = values.shape[:2]
    for name, array in constants.items():
        if len(array) != channels:
            raise FormatError(f"{name} must have one entry for each of {channels} channels, not {len(array)}")
    return values.reshape(images, channels, math.prod(values.shape[2:]))


def narrowed(end: int, fewer: np.ndarray) -> np.ndarray:
    """An end of the clamp, ``end >> fewer``, in channels whose codes have `fewer` (0..7) bits than the tensor's.

    The ends of a container become those of the narrower one. Where `fewer` is `CONSTANT` the end is 0.
    """
    return np.where(fewer == CONSTANT, 0, end >> fewer.astype(np.int64))


@dataclass(frozen=True, slots=True)
class ScaleRequantizer:
    """Parameters and golden model of requantisation by scale.

    Parameters
    ----------
    in_bits : bits of the signed value (acc + F of the datapath, at most 56)
    multiplier_bits : 16, 24 or 31
    rounding : rounding mode; tflite needs 31-bit multipliers and shifts of 31..62, and
        saturates the value to 32 bits first (counted)
    out_bits, out_signed : the code's container, which the clamp stays within
    """

    in_bits: int
    multiplier_bits: int = 24
    rounding: Rounding = "half_even"
    out_bits: int = 16
    out_signed: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.in_bits <= 56:
            raise FormatError(f"requantiser input must have 2 to 56 bits, not {self.in_bits}")
        if self.multiplier_bits not in MULTIPLIER_BITS:
            raise FormatError(f"multiplier bits must be 16, 24 or 31, not {self.multiplier_bits}")
        if self.rounding not in _ROUNDINGS:
            raise FormatError(f"rounding must be one of {', '.join(_ROUNDINGS)}, not {self.rounding!r}")
        if self.rounding == "tflite" and self.multiplier_bits != 31:
            raise FormatError(f"tflite rounding must have 31 multiplier bits, not {self.multiplier_bits}")
        if not 1 <= self.out_bits <= 16:
            raise FormatError(f"requantiser output must have 1 to 16 bits, not {self.out_bits}")
        if self.out_bits == 16 and not self.out_signed:
            raise FormatError("unsigned requantiser output must have 1 to 15 bits, not 16")

    @property
    def product_bits(self) -> int:
        """Bits of the exact signed product."""
        return self.in_bits + self.multiplier_bits

    @property
    def min_shift(self) -> int:
        """Least right shift: 31 for tflite, whose first rounding divides by 2**31."""
        return TFLITE_SHIFT if self.rounding == "tflite" else 0

    @property
    def code_range(self) -> tuple[int, int]:
        """Least and greatest code of the container."""
        return signed_range(self.out_bits) if self.out_signed else (0, (1 << self.out_bits) - 1)

    def check(self, multiplier: np.ndarray, shift: np.ndarray) -> None:
        """Raise `FormatError` unless every multiplier and shift is within its width."""
        if multiplier.min(initial=0) < 0 or multiplier.max(initial=0) >= 1 << self.multiplier_bits:
            raise FormatError(
                f"multipliers must have {self.multiplier_bits} unsigned bits, "
                f"found {multiplier.min()}..{multiplier.max()}"
            )
        least = self.min_shift
        if shift.size and (shift.min() < least or shift.max() > MAX_SHIFT):
            raise FormatError(f"shifts must lie in {least}..{MAX_SHIFT}, found {shift.min()}..{shift.max()}")

    def compute(
        self,
        values: np.ndarray,
        multiplier: np.ndarray,
        shift: np.ndarray,
        zero_point: int,
        low: int | np.ndarray,
        high: int | np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Requantise values of shape (N, C, ...).

        `multiplier` and `shift` have shape (C,). The rounded quotient plus `zero_point` is clamped to
        [low, high], which are those of all channels or of each (C,). Returns int16 codes and int64 overflow counts
        (C,), which only tflite makes.
        """
        multiplier = np.ascontiguousarray(multiplier, dtype=np.int64)
        shift = np.ascontiguousarray(shift, dtype=np.int64)
        layer = _as_layer(values, multiplier=multiplier, shift=shift)
        codes = np.empty(layer.shape, dtype=np.int16)
        overflows = np.zeros(layer.shape[1], dtype=np.int64)
        rounding = _ROUNDINGS.index(self.rounding)
        ends = [np.broadcast_to(np.asarray(end, dtype=np.int64), (layer.shape[1],)).copy() for end in (low, high)]
        _scale_layer(layer, multiplier, shift, rounding, zero_point, *ends, codes, overflows)
        return codes.reshape(np.shape(values)), overflows


@dataclass(frozen=True, slots=True)
class ThresholdRequantizer:
    """Parameters and golden model of requantisation by thresholds; outputs have at most 4 bits."""

    in_bits: int
    out_bits: int = 4
    out_signed: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.in_bits <= 56:
            raise FormatError(f"requantiser input must have 2 to 56 bits, not {self.in_bits}")
        if not 1 <= self.out_bits <= 4:
            raise FormatError(f"threshold outputs must have 1 to 4 bits, not {self.out_bits}")

    @property
    def thresholds(self) -> int:
        """Thresholds per channel: one less than the codes."""
        return (1 << self.out_bits) - 1

    @property
    def base(self) -> int:
        """The code of a value that reaches no threshold."""
        return -(1 << (self.out_bits - 1)) if self.out_signed else 0

    def compute(self, values: np.ndarray, thresholds: np.ndarray, descending: np.ndarray) -> np.ndarray:
        """Requantise values of shape (N, C, ...).

        `thresholds` has shape (C, 2**out_bits - 1), in any order; `descending` (C,) is true where
        a value reaches a threshold from above (``v <= t``). Returns int16 codes.
        """
        thresholds = np.ascontiguousarray(thresholds, dtype=np.int64)
        descending = np.ascontiguousarray(descending, dtype=np.bool_)
        layer = _as_layer(values, thresholds=thresholds, descending=descending)
        codes = np.empty(layer.shape, dtype=np.int16)
        _threshold_layer(layer, thresholds, descending, self.base, codes)
        return codes.reshape(np.shape(values))

"""Requantisation behind fast sums: a pixel's channels in one loop, by scales or by thresholds; adds and copies too.

The units are those of `kernels.requant` and `kernels.residual`, where 64 bits hold every product. Ties to even are an
instruction of doubles; where these do not hold every product, what lies between two codes is looked at once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .jit import jit
from .requant import Rounding

__all__ = [
    "DOUBLE_BITS", "ROW_CHANNELS", "ScaleFinish", "ThresholdFinish", "round_products", "round_sums",
    "scale_row", "scale_sums", "threshold_row",
]  # fmt: skip

DOUBLE_BITS = 53
"""Bits of two's complement numbers that doubles hold, and twice as great ones too."""
PRODUCT_BITS = 63
"""Bits of a product that leaves 64 room for half a step, of 2**61 at most."""
ROW_CHANNELS = 256
"""Channels that are requantised in a loop, of several pixels where each has few."""


@jit
def scale_row(row, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise a pixel: rows of `scale` are multipliers, shifts of at least 1, and the clamp's ends.

    Few arrays, so that LLVM checks that they do not overlap, and makes vectors of the loop.
    """
    for n in range(row.shape[0]):
        product, shift = row[n] * scale[0, n], scale[1, n]
        tie = ((product >> shift) & even) - even + ((product >> 63) & away)
        code = ((product + (((np.int64(1) << shift) >> 1) & nearest) + tie) >> shift) + zero_point
        out[n] = min(max(code, scale[2, n]), scale[3, n])


@jit
def scale_sums(sums, less, unit, bias, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """The same of sums of one limb; `unit` and `bias` are multiplied by the multipliers already."""
    for n in range(out.shape[0]):
        shift = scale[1, n]
        product = np.int64(np.int32(sums[n] - less[n])) * unit[n] + bias[n]
        tie = ((product >> shift) & even) - even + ((product >> 63) & away)
        code = ((product + (((np.int64(1) << shift) >> 1) & nearest) + tie) >> shift) + zero_point
        out[n] = min(max(code, scale[2, n]), scale[3, n])


@jit
def round_sums(sums, less, real, offset, zero_point, out):  # type: ignore[no-untyped-def]
    """The same where doubles hold every product: rows of `real` are factors and the ends; `offset` is scaled."""
    point = np.int32(zero_point)
    for n in range(out.shape[0]):
        value = np.float64(np.int32(sums[n] - less[n])) * real[0, n] + offset[n]
        out[n] = np.int32(np.rint(min(max(value, real[1, n]), real[2, n]))) + point


@jit
def round_products(sums, less, real, offset, zero_point, out):  # type: ignore[no-untyped-def]
    """The same where doubles hold every value: row 3 of `real` are units, to whose multiples `offset` is added.

    That sum is exact, and its product with the factor is rounded once. Rounded to a multiple of a half it may have been
    beside it: returns how many lie halfway between two codes. All others are right, since rounding keeps their order.
    """
    point, halves = np.int32(zero_point), 0
    for n in range(out.shape[0]):
        value = (np.float64(np.int32(sums[n] - less[n])) * real[3, n] + offset[n]) * real[0, n]
        value = min(max(value, real[1, n]), real[2, n])
        code = np.rint(value)
        halves += abs(value - code) == 0.5
        out[n] = np.int32(code) + point
    return halves


@jit
def threshold_row(row, thresholds, table, counts, out):  # type: ignore[no-untyped-def]
    """Requantise a pixel: how many of `thresholds` (thresholds, C) it reaches, and what `table` has for that."""
    channels = row.shape[0]
    counts[:channels] = 0
    for t in range(thresholds.shape[0]):
        for n in range(channels):
            counts[n] += row[n] >= thresholds[t, n]
    for n in range(channels):
        out[n] = table[counts[n]]


@jit
def _round_codes(x, less, real, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise codes in doubles, a row of `real` after the other: factors, and the clamp's ends."""
    less, point = np.int32(less), np.int32(zero_point)
    width = real.shape[1]
    for first in range(0, x.shape[0], width):
        source, target = x[first : first + width], out[first : first + width]
        for n in range(target.shape[0]):
            value = np.float64(np.int32(source[n]) - less) * real[0, n]
            target[n] = np.int32(np.rint(min(max(value, real[1, n]), real[2, n]))) + point


@jit
def _round_added(x, x_less, y, y_less, real, zero_point, out):  # type: ignore[no-untyped-def]
    """The same of a sum; `real` is three rescales below each other, of both operands and of their sum."""
    x_less, y_less, point = np.int32(x_less), np.int32(y_less), np.int32(zero_point)
    width = real.shape[1]
    for first in range(0, x.shape[0], width):
        one, other, target = x[first : first + width], y[first : first + width], out[first : first + width]
        for n in range(target.shape[0]):
            left = np.float64(np.int32(one[n]) - x_less) * real[0, n]
            right = np.float64(np.int32(other[n]) - y_less) * real[3, n]
            left, right = min(max(left, real[1, n]), real[2, n]), min(max(right, real[4, n]), real[5, n])
            value = (np.rint(left) + np.rint(right)) * real[6, n]
            target[n] = np.int32(np.rint(min(max(value, real[7, n]), real[8, n]))) + point


@jit
def _scale_pixels(x, less, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Requantise codes (pixels, C), less their zero point."""
    row = np.empty(x.shape[1], dtype=np.int64)
    for p in range(x.shape[0]):
        source = x[p]
        for n in range(row.shape[0]):
            row[n] = np.int64(source[n]) - less
        scale_row(row, scale, nearest, even, away, zero_point, out[p])


@jit
def _add_pixels(x, x_less, x_scale, y, y_less, y_scale, scale, nearest, even, away, zero_point, out):  # type: ignore[no-untyped-def]
    """Rescale both operands (pixels, C), add them, and rescale the sum."""
    channels = x.shape[1]
    row = np.empty(channels, dtype=np.int64)
    first, second = np.empty(channels, dtype=np.int16), np.empty(channels, dtype=np.int16)
    for p in range(x.shape[0]):
        source = x[p]
        for n in range(channels):
            row[n] = np.int64(source[n]) - x_less
        scale_row(row, x_scale, nearest, even, away, 0, first)
        source = y[p]
        for n in range(channels):
            row[n] = np.int64(source[n]) - y_less
        scale_row(row, y_scale, nearest, even, away, 0, second)
        for n in range(channels):
            row[n] = np.int64(first[n]) + np.int64(second[n])
        scale_row(row, scale, nearest, even, away, zero_point, out[p])


@dataclass(frozen=True, eq=False)
class ScaleFinish:
    """Requantisation by scale in 64-bit products: what `requant.ScaleRequantizer` computes where these hold them."""

    rows: np.ndarray
    """Multipliers, shifts, least and greatest code: int64 (4, C). No shift is one of 1, with twice the multiplier."""
    nearest: int
    """-1: half a step is added."""
    even: int
    """1: a tie goes up where the quotient is odd."""
    away: int
    """-1: of a negative number it does not go up."""
    zero_point: int
    even_ties: bool
    """Whether ties go to even, and doubles hold the values."""
    doubles: bool
    """Whether they hold every product too, so that rounding one is all there is to do."""

    @classmethod
    def build(
        cls, value_bits: np.ndarray, multiplier: np.ndarray, shift: np.ndarray, rounding: Rounding, zero_point: int,
        low: np.ndarray | int, high: np.ndarray | int,
    ) -> "ScaleFinish | None":  # fmt: skip
        """For values of so many bits; arrays are of channels. None where a product may not fit, and for tflite."""
        more = (np.asarray(shift) == 0).astype(np.int64)
        most = value_bits + more + np.array([int(each).bit_length() for each in multiplier])
        if rounding == "tflite" or most.max(initial=0) > PRODUCT_BITS:
            return None
        rows = np.broadcast_arrays(multiplier << more, shift + more, low, high)
        kinds = rounding != "floor", rounding == "half_even", rounding == "half_away"
        even = kinds[1] and int(value_bits.max(initial=0)) <= DOUBLE_BITS
        doubles = even and int(most.max(initial=0)) <= DOUBLE_BITS
        signs = -int(kinds[0]), int(kinds[1]), -int(kinds[2])
        return cls(np.array(rows, dtype=np.int64), *signs, zero_point, even, doubles)

    @property
    def arguments(self) -> tuple[np.ndarray, int, int, int, int]:
        """What the compiled loops take."""
        return self.rows, self.nearest, self.even, self.away, self.zero_point

    @property
    def real(self) -> np.ndarray:
        """Factor of a value, the clamp's ends less the zero point: (3, C)."""
        multiplier, shift, low, high = self.rows
        factor = np.ldexp(multiplier.astype(np.float64), -shift)
        return np.stack([factor, low - self.zero_point, high - self.zero_point])

    @cached_property
    def _long_real(self) -> np.ndarray:
        """The same for a few pixels in a row: (3, pixels * C)."""
        return np.tile(self.real, max(1, ROW_CHANNELS // self.rows.shape[1]))

    def codes(self, x: np.ndarray, zero_point: int) -> np.ndarray:
        """Requantise codes (N, C, H, W) with a zero point of their own; int16, channels last in memory."""
        pixels, shape = _pixels(x)
        out = np.empty(pixels.shape, dtype=np.int16)
        if self.doubles:
            _round_codes(pixels.reshape(-1), zero_point, self._long_real, self.zero_point, out.reshape(-1))
        else:
            _scale_pixels(pixels, zero_point, *self.arguments, out)
        return out.reshape(shape).transpose(0, 3, 1, 2)

    def added(
        self, first: tuple[np.ndarray, int, "ScaleFinish"], second: tuple[np.ndarray, int, "ScaleFinish"]
    ) -> np.ndarray:
        """Requantise the sum of two tensors of codes, each with its zero point, each rescaled to 16 bits first.

        `kernels.residual` says what is computed; the three have one rounding.
        """
        (pixels, shape), (others, _) = _pixels(first[0]), _pixels(second[0])
        out = np.empty(pixels.shape, dtype=np.int16)
        if first[2].doubles and second[2].doubles and self.doubles:
            real = np.concatenate([first[2]._long_real, second[2]._long_real, self._long_real])
            _round_added(
                pixels.reshape(-1), first[1], others.reshape(-1), second[1], real, self.zero_point, out.reshape(-1)
            )  # fmt: skip
        else:
            _add_pixels(
                pixels, first[1], first[2].rows, others, second[1], second[2].rows, *self.arguments, out
            )  # fmt: skip
        return out.reshape(shape).transpose(0, 3, 1, 2)


def _pixels(x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes (N, C, H, W) as (pixels, C), and their shape with channels last."""
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    return last.reshape(-1, x.shape[1]), last.shape


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdFinish:
    """Requantisation by thresholds: `requant.ThresholdRequantizer`, and a table of what the counts stand for.

    Channels whose thresholds are reached from above have everything negated: so `signs` (C,), -1 there.
    """

    thresholds: np.ndarray
    table: np.ndarray
    signs: np.ndarray

    @classmethod
    def build(cls, thresholds: np.ndarray, descending: np.ndarray, table: Sequence[int]) -> "ThresholdFinish":
        """For thresholds (C, n); `table` has an entry for every count."""
        signs = np.where(descending.astype(bool), -1, 1).astype(np.int64)
        return cls(np.ascontiguousarray((thresholds * signs[:, None]).T), np.asarray(table, dtype=np.int16), signs)

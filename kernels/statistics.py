"""Clip statistics at run time: a channel's mean, deviation, ACIQ's clip value, and the multiplier that it makes.

ACIQ fits a prior to a layer's output before its ReLU and clips where the prior says (Banner, Nahshan, Soudry, "Post
training 4-bit quantization of convolutional networks for rapid-deployment", NeurIPS 2019): at ``factor * b`` of a
Laplace prior, b the mean absolute deviation, or at ``factor * sigma`` of a Gaussian one, with a factor for each width.
Offline that leaves a multiplier and a shift in the channel's record. Here they are made of the values themselves, in
the integers that hardware has: values on the layer's grid go through once (Gauss: sum and squares) or twice (Laplace:
the sum, then distances from its mean), a division by their count is a multiplication by its reciprocal, and one
division, a bit a cycle, makes the multiplier.
"""

from dataclasses import dataclass
from math import isqrt
from typing import Literal, NamedTuple, get_args

import numpy as np

from .errors import FormatError

__all__ = [
    "FACTOR_BITS",
    "FACTOR_FRACTION",
    "LEVEL_BITS",
    "MULTIPLIER_BITS",
    "ClipStatistics",
    "Clips",
    "StatisticsPrior",
]

StatisticsPrior = Literal["laplace", "gauss"]

FACTOR_BITS, FACTOR_FRACTION = 16, 12
"""Of what a deviation is multiplied by: up to 15.99, 11.16 being the greatest of ACIQ's."""
LEVEL_BITS = 8
"""Of the greatest code, 2**bits - 1."""
MULTIPLIER_BITS = 16
"""Of the multiplier, whose top bit is set: as the requantiser of 16 bits takes it."""


class Clips(NamedTuple):
    """What a channel's values come to, int64 (channels,): on their grid, but for the last two.

    A code is ``(value - offset) * multiplier >> shift``, rounded and clamped.
    """

    mean: np.ndarray
    deviation: np.ndarray
    offset: np.ndarray
    range: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, slots=True)
class ClipStatistics:
    """Parameters and golden model of the statistics of one channel, or of one layer as a whole.

    Parameters
    ----------
    value_bits : of the signed values (8..16)
    count_bits : at most ``2**count_bits`` values are counted (1..16)
    prior : "laplace" takes mean absolute deviations, in a second pass; "gauss" standard ones (of the values at hand,
        not unbiased), in the first
    """

    value_bits: int = 16
    count_bits: int = 16
    prior: StatisticsPrior = "laplace"

    def __post_init__(self) -> None:
        for name, low, high in (("value_bits", 8, 16), ("count_bits", 1, 16)):
            if not low <= getattr(self, name) <= high:
                raise FormatError(f"{name} must be from {low} to {high}, not {getattr(self, name)}")
        if self.prior not in get_args(StatisticsPrior):
            raise FormatError(f"prior must be laplace or gauss, not {self.prior!r}")

    @property
    def passes(self) -> int:
        """Times that the values go through."""
        return 2 if self.prior == "laplace" else 1

    @property
    def sum_bits(self) -> int:
        """Of the sum, signed, and of that of absolute deviations, unsigned."""
        return self.value_bits + self.count_bits

    @property
    def square_bits(self) -> int:
        """Of the sum of squares, unsigned."""
        return 2 * self.value_bits - 1 + self.count_bits

    @property
    def reciprocal_bits(self) -> int:
        """Of a count's reciprocal: enough that a mean stays within its values."""
        return self.value_bits + 2

    @property
    def reciprocal_shift_bits(self) -> int:
        """Of the shift behind it."""
        return (self.reciprocal_bits - 1 + self.count_bits).bit_length()

    @property
    def alpha_bits(self) -> int:
        """Of the clip value, unsigned."""
        return self.value_bits + FACTOR_BITS - FACTOR_FRACTION

    @property
    def range_bits(self) -> int:
        """Of the clipped range, unsigned."""
        return self.alpha_bits + 1

    @property
    def divide_steps(self) -> int:
        """Cycles of the division: quotient bits until the multiplier has all of its own, however wide the range."""
        return MULTIPLIER_BITS - 1 + self.range_bits

    @property
    def shift_bits(self) -> int:
        """Of the shift behind the multiplier."""
        return self.divide_steps.bit_length()

    @property
    def root_steps(self) -> int:
        """Cycles of the square root, a bit each; no such thing with a Laplace prior."""
        return self.value_bits if self.prior == "gauss" else 0

    @property
    def mean_cycles(self) -> int:
        """From a first pass's last value to the second pass's first one, without taking any: a product, its shift."""
        return 2

    @property
    def finish_cycles(self) -> int:
        """From the last pass's last value to the result: it never depends on the values."""
        deviation = 2 if self.prior == "laplace" else 3 + self.root_steps
        return deviation + 2 + self.divide_steps

    def reciprocal(self, count: int) -> tuple[int, int]:
        """Multiplier and shift that divide by `count`: constants of a layer's record."""
        if not 1 <= count <= 1 << self.count_bits:
            raise FormatError(f"count must be from 1 to {1 << self.count_bits}, not {count}")
        shift = self.reciprocal_bits - 1 + (count - 1).bit_length()
        multiplier = ((1 << shift + 1) + count) // (2 * count)
        # Just above a power of two it has a bit too many.
        return (multiplier, shift) if multiplier >> self.reciprocal_bits == 0 else (multiplier >> 1, shift - 1)

    @staticmethod
    def factor(ratio: float) -> int:
        """ACIQ's ratio of clip value and deviation as the hardware holds it."""
        held = round(ratio * (1 << FACTOR_FRACTION))
        if not 0 < held < 1 << FACTOR_BITS:
            raise FormatError(
                f"factor must be positive and less than {1 << FACTOR_BITS - FACTOR_FRACTION}, not {ratio}"
            )
        return held

    def divided(self, total: np.ndarray, reciprocal: int, shift: int) -> np.ndarray:
        """A sum over its count, half up."""
        product = np.asarray(total, dtype=object) * reciprocal
        return np.asarray(((product >> (shift - 1)) + 1) >> 1, dtype=np.int64)

    def root(self, square: np.ndarray, steps: int | None = None) -> np.ndarray:
        """The first `steps` bits of the square root of `value_bits` bits, all of them unless said; floor."""
        left = self.root_steps - (self.root_steps if steps is None else steps)
        return np.asarray(_ROOTS(np.asarray(square, dtype=np.int64).astype(object) >> 2 * left), dtype=np.int64)

    def variance(self, square: np.ndarray, mean: np.ndarray) -> np.ndarray:
        """Mean square less the mean's square, not below 0."""
        return np.maximum(np.asarray(square) - np.asarray(mean, dtype=np.int64) ** 2, 0)

    def clipped(
        self, mean: np.ndarray, deviation: np.ndarray, least: np.ndarray, factor: int, half: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Offset and range: from 0 where a ReLU follows (`half`), else about the mean and not below the least value.

        A range is at least 256, so that a step is never finer than the grid of the values.
        """
        alpha = (np.asarray(deviation, dtype=np.int64) * factor + (1 << FACTOR_FRACTION - 1)) >> FACTOR_FRACTION
        offset = np.zeros_like(alpha) if half else np.maximum(least, mean - alpha)
        span = np.maximum(mean, 0) + alpha if half else 2 * alpha
        return offset, np.maximum(span, 1 << LEVEL_BITS)

    def multiplier(self, span: np.ndarray, levels: int, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """``levels / span`` as a multiplier and a shift, after `steps` steps of the division; floor.

        The quotient grows by a bit with each step until its multiplier is full.
        """
        steps = self.divide_steps if steps is None else steps
        found = [_quotient(int(each), levels, steps) for each in np.asarray(span).reshape(-1)]
        return tuple(np.array(side, dtype=np.int64) for side in zip(*found, strict=True))  # type: ignore[return-value]

    def compute(self, values: np.ndarray, factor: int, levels: int, half: bool) -> Clips:
        """Clips of values (channels, count), each channel by itself; a layer as a whole is one channel.

        `factor` is `ClipStatistics.factor` of ACIQ's ratio, `levels` the greatest code.
        """
        values = np.asarray(values, dtype=np.int64)
        reciprocal = self.reciprocal(values.shape[1])
        mean = self.divided(values.sum(axis=1), *reciprocal)
        if self.prior == "laplace":
            deviation = self.divided(np.abs(values - mean[:, None]).sum(axis=1), *reciprocal)
        else:
            deviation = self.root(self.variance(self.divided((values**2).sum(axis=1), *reciprocal), mean))
        offset, span = self.clipped(mean, deviation, values.min(axis=1), factor, half)
        return Clips(mean, deviation, offset, span, *self.multiplier(span, levels))


def _quotient(span: int, levels: int, steps: int) -> tuple[int, int]:
    shift = 0
    while shift < steps and (levels << shift) // span < 1 << MULTIPLIER_BITS - 1:
        shift += 1
    return (levels << shift) // span, shift


_ROOTS = np.frompyfunc(isqrt, 1, 1)

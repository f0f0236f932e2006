"""Accumulator: adds a shifted row sum exactly, then limits once to the accumulator width."""

from dataclasses import dataclass

import numpy as np

from .mac import DIGIT_BITS, MacFormat, limit

__all__ = ["MAX_DIGIT_SHIFT", "WIDE_DIGIT_SHIFT", "Accumulator"]

MAX_DIGIT_SHIFT = 4
"""Greatest i + j of a digit pair: 8-bit activations (i <= 1) and 16-bit weights (j <= 3)."""
WIDE_DIGIT_SHIFT = 6
"""The same where activations have 16 bits too."""


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Parameters and golden model of one accumulator fed by a row sum of `row_bits` bits.

    It is shifted by at most `max_shift` digits.
    """

    format: MacFormat
    row_bits: int
    max_shift: int = MAX_DIGIT_SHIFT

    def compute(self, acc: np.ndarray, row_sum: np.ndarray, digit_shift: int) -> tuple[np.ndarray, np.ndarray]:
        """Add ``row_sum << 4 * digit_shift`` (digit_shift = i + j of the digit pair, 0..max_shift).

        Returns the int64 accumulator within ``format.acc_range`` and a boolean array of overflows.
        """
        step = np.asarray(row_sum, dtype=np.int64) << DIGIT_BITS * digit_shift
        return limit(np.asarray(acc, dtype=np.int64) + step, *self.format.acc_range, self.format.overflow)

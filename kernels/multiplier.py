"""Digit multiplier: 4b x 4b -> product, signed or unsigned by a per-pass mode.

First block of the datapath. Every combination of signed and unsigned 4-bit digits fits
8 bits when read by the mode: unsigned if both digits are, signed otherwise. A narrower
product overflows by the format's rule.
"""

from dataclasses import dataclass

import numpy as np

from .mac import MacFormat, limit

__all__ = ["DigitMultiplier"]


@dataclass(frozen=True, slots=True)
class DigitMultiplier:
    """Parameters and golden model of the digit multiplier; its width is ``format.product``."""

    format: MacFormat

    def compute(self, a: np.ndarray, w: np.ndarray, unsigned: bool) -> tuple[np.ndarray, np.ndarray]:
        """Multiply digit values (int arrays that broadcast).

        `unsigned` is true where neither digit carries a sign. Returns int64 products within
        ``format.product_range(unsigned)`` and a boolean array of overflows.
        """
        exact = np.asarray(a, dtype=np.int64) * np.asarray(w, dtype=np.int64)
        return limit(exact, *self.format.product_range(unsigned), self.format.overflow)

"""Zero-point correction: first stage of the post lane.

``v = (acc << F) - zwf * xsum + bias``: the weight zero point and ACIQ's mean correction act
on the pixel's input sum through one signed 16-bit constant per output channel with F fraction
bits; bias carries the same fraction. Exact, then limited once to acc + F bits (always by
saturation: this is the requantiser's input, not the accumulator).
"""

from dataclasses import dataclass

import numpy as np

from .errors import FormatError
from .mac import MacFormat, limit, signed_range

__all__ = ["MAX_FRACTION", "ZERO_POINT_BITS", "Correction"]

MAX_FRACTION = 8
ZERO_POINT_BITS = 16
INPUT_SUM_BITS = 32


@dataclass(frozen=True, slots=True)
class Correction:
    """Parameters and golden model of the zero-point term with `fraction` fraction bits (0..8)."""

    format: MacFormat
    fraction: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= MAX_FRACTION:
            raise FormatError(f"zero-point fraction must be 0 to {MAX_FRACTION} bits, not {self.fraction}")

    @property
    def out_bits(self) -> int:
        """Bits of the corrected value and of the bias constant."""
        return self.format.acc + self.fraction

    @property
    def exact_bits(self) -> int:
        """Bits that hold every exact sum before it is limited."""
        return max(self.out_bits, ZERO_POINT_BITS + INPUT_SUM_BITS) + 2

    def compute(
        self, acc: np.ndarray, xsum: np.ndarray, zwf: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Correct accumulators; all arguments are integer arrays that broadcast.

        Returns int64 values of `out_bits` bits and a boolean array of overflows.
        """
        acc, xsum, zwf, bias = (np.asarray(value, dtype=np.int64) for value in (acc, xsum, zwf, bias))
        exact = (acc << self.fraction) - zwf * xsum + bias
        return limit(exact, *signed_range(self.out_bits), "saturate")

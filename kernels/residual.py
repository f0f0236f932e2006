"""Residual add: two streams of codes, brought to one grid, added exactly, rescaled once more.

Each operand is rescaled and rounded separately to a signed 16-bit value (HAWQ-V3's recipe for
residual branches), the 17-bit sum is exact, and one last scale and clamp make the output code.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .mac import signed_range
from .requant import Rounding, ScaleRequantizer

__all__ = ["STREAM_BITS", "AddOperand", "ResidualAdd"]

STREAM_BITS = 16


class AddOperand(NamedTuple):
    """Codes (N, C, ...) with their zero point, and the multiplier and shift (C,) of their rescale."""

    codes: np.ndarray
    zero_point: int
    multiplier: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True, slots=True)
class ResidualAdd:
    """Parameters and golden model of the residual add."""

    multiplier_bits: int = 24
    rounding: Rounding = "half_even"
    out_bits: int = 16
    out_signed: bool = True

    def __post_init__(self) -> None:
        _ = self.operand, self.output  # they check the widths and the rounding

    @property
    def operand(self) -> ScaleRequantizer:
        """The rescale of an operand: a code less its zero point has 17 bits."""
        return ScaleRequantizer(STREAM_BITS + 1, self.multiplier_bits, self.rounding, STREAM_BITS, True)

    @property
    def output(self) -> ScaleRequantizer:
        """The rescale of the 17-bit sum."""
        return ScaleRequantizer(STREAM_BITS + 1, self.multiplier_bits, self.rounding, self.out_bits, self.out_signed)

    def compute(
        self,
        operands: tuple[AddOperand, AddOperand],
        multiplier: np.ndarray,
        shift: np.ndarray,
        zero_point: int,
        low: int,
        high: int,
    ) -> np.ndarray:
        """Add two operands; `multiplier` and `shift` (C,) rescale the sum. Returns int16 codes."""
        total = sum(
            self.operand.compute(
                operand.codes.astype(np.int64) - operand.zero_point,
                operand.multiplier,
                operand.shift,
                0,
                *signed_range(STREAM_BITS),
            )[0].astype(np.int64)
            for operand in operands
        )
        return self.output.compute(np.asarray(total), multiplier, shift, zero_point, low, high)[0]

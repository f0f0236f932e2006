"""Sign rows: dot products with binary weights, which add or subtract activations.

A weight is one bit, 1 for +1 and 0 for -1: FleXOR's map of Booleans to signs (Lee, Kwon, Kim, Wei, "FleXOR:
trainable fractional quantization", NeurIPS 2020), and that of the planes of LQ-Net and ABC-Net. Where the
activations are signs too, the sum is ``2 * popcount(xnor(a, w) & mask) - popcount(mask)``.
"""

from dataclasses import dataclass

import numpy as np

from .mac import DIGIT_BITS, signed_range
from .tree import AdderTree

__all__ = ["PopcountRow", "SignRow"]


@dataclass(frozen=True, slots=True)
class SignRow:
    """Parameters and golden model of a row of `lanes` lanes (a power of two) with weights of one bit."""

    lanes: int

    def __post_init__(self) -> None:
        _ = self.tree  # it checks the lanes

    @property
    def tree(self) -> AdderTree:
        """Sums the lanes' terms: -15 to 15 each, or 8 for a digit of -8."""
        return AdderTree(self.lanes, DIGIT_BITS + 1)

    @property
    def out_bits(self) -> int:
        """Bits of the exact signed sum."""
        return self.tree.out_bits

    def values(self, digits: np.ndarray, a_signed: np.ndarray | bool, binary: np.ndarray | bool) -> np.ndarray:
        """What raw digits (0..15, any shape) stand for, int64: the modes broadcast against them.

        0..15, or -8..7 where `a_signed`; where `binary`, +1 or -1 by bit 0 alone, whatever `a_signed` says.
        """
        digits = np.asarray(digits, dtype=np.int64)
        _, most = signed_range(DIGIT_BITS)
        wide = digits - ((digits > most) & np.asarray(a_signed, dtype=bool)) * (1 << DIGIT_BITS)
        return np.where(binary, 2 * (digits & 1) - 1, wide)

    def compute(self, values: np.ndarray, bits: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Sum activation `values` with the signs of `bits` over the lanes that `mask` has, int64 of shape (...).

        All three are (..., lanes) and broadcast; `bits` and `mask` hold 0 and 1.
        """
        signs = 2 * np.asarray(bits, dtype=np.int64) - 1
        return self.tree.compute(np.asarray(values, dtype=np.int64) * signs * np.asarray(mask, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class PopcountRow:
    """Parameters and golden model of a row of `lanes` lanes (a power of two) whose operands are both of one bit."""

    lanes: int

    def __post_init__(self) -> None:
        _ = self.tree

    @property
    def tree(self) -> AdderTree:
        """Counts: its signed inputs of two bits hold a 0 or a 1."""
        return AdderTree(self.lanes, 2)

    @property
    def out_bits(self) -> int:
        """Bits of the exact signed sum, -lanes to lanes."""
        return self.tree.out_bits

    def compute(self, a: np.ndarray, w: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """``2 * popcount(xnor(a, w) & mask) - popcount(mask)`` of bits (..., lanes) that broadcast; int64 (...)."""
        a, w, mask = np.broadcast_arrays(*(np.asarray(bits, dtype=np.int64) for bits in (a, w, mask)))
        return np.asarray(2 * self.tree.compute((1 - (a ^ w)) & mask) - self.tree.compute(mask))

"""Dot-product row: L lanes of multiplier and alignment, one adder tree, one accumulator.

One call of `DotProductRow.compute` is one *step* of one accumulator: a digit pair of one
(ky, kx, lane group) pass. `kernels.conv` runs the same arithmetic over whole layers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .accumulator import Accumulator
from .align import Aligner, Alignment
from .mac import MacFormat
from .multiplier import DigitMultiplier
from .tree import AdderTree

__all__ = ["DotProductRow", "DotStep"]


class DotStep(NamedTuple):
    """What one step leaves behind; arrays have the shape of the operands less their lane axis."""

    acc: np.ndarray
    product_overflows: np.ndarray
    align_overflows: np.ndarray
    acc_overflow: np.ndarray


@dataclass(frozen=True, slots=True)
class DotProductRow:
    """Parameters and golden model of a row of `lanes` lanes (a power of two)."""

    format: MacFormat
    lanes: int
    kind: Alignment = "shift"

    def __post_init__(self) -> None:
        _ = self.tree, self.aligner  # they check the lanes and the kind

    @property
    def multiplier(self) -> DigitMultiplier:
        return DigitMultiplier(self.format)

    @property
    def aligner(self) -> Aligner:
        return Aligner(self.format, self.kind)

    @property
    def tree(self) -> AdderTree:
        return AdderTree(self.lanes, self.format.align)

    @property
    def accumulator(self) -> Accumulator:
        return Accumulator(self.format, self.tree.out_bits)

    def compute(
        self, acc: np.ndarray, a: np.ndarray, w: np.ndarray, amount: np.ndarray, unsigned: bool, digit_shift: int
    ) -> DotStep:
        """Add one step to `acc`.

        `a`, `w` and `amount` are (..., lanes) digit values and alignment amounts; `unsigned`
        is true where neither digit carries a sign; `digit_shift` is i + j of the digit pair.
        """
        product, product_over = self.multiplier.compute(a, w, unsigned)
        aligned, align_over = self.aligner.compute(product, amount)
        acc, acc_over = self.accumulator.compute(acc, self.tree.compute(aligned), digit_shift)
        return DotStep(acc, product_over.sum(axis=-1), align_over.sum(axis=-1), acc_over)

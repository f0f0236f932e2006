"""Balanced adder tree: the exact sum of a row's aligned products."""

from dataclasses import dataclass

import numpy as np

from .errors import FormatError

__all__ = ["AdderTree"]


@dataclass(frozen=True, slots=True)
class AdderTree:
    """Parameters and golden model of a tree over `lanes` signed inputs of `bits` bits."""

    lanes: int
    bits: int

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.lanes & (self.lanes - 1):
            raise FormatError(f"lanes must be a power of two, not {self.lanes}")
        if not 1 <= self.bits <= 48:
            raise FormatError(f"adder tree inputs must have 1 to 48 bits, not {self.bits}")

    @property
    def levels(self) -> int:
        """Adders between an input and the sum."""
        return self.lanes.bit_length() - 1

    @property
    def out_bits(self) -> int:
        """Bits that hold every sum exactly."""
        return self.bits + self.levels

    def compute(self, values: np.ndarray) -> np.ndarray:
        """Sum int64 values of shape (..., lanes) over the lanes."""
        return np.asarray(np.asarray(values, dtype=np.int64).sum(axis=-1))

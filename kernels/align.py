"""Step alignment: brings each lane's product to the layer's common step size.

Activations carry one step size per input channel. A lane's product is shifted left by
``k`` (0..8; steps a power of two apart) or multiplied by an unsigned 8-bit ``m`` (any steps),
then limited to the signed aligned width. ACIQ names the 16 bits and not the kind.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .errors import FormatError
from .mac import MacFormat, limit

__all__ = ["MAX_MULTIPLIER", "MAX_SHIFT", "Aligner", "Alignment", "alignment_factors"]

Alignment = Literal["shift", "mul"]

MAX_SHIFT = 8
MAX_MULTIPLIER = 255


def _check_kind(kind: str) -> None:
    if kind not in get_args(Alignment):
        raise FormatError(f"alignment must be shift or mul, not {kind!r}")


def alignment_factors(kind: Alignment, amounts: np.ndarray) -> np.ndarray:
    """What each lane's product is multiplied by (int32): ``1 << k`` or ``m``."""
    _check_kind(kind)
    amounts = np.asarray(amounts)
    most = MAX_SHIFT if kind == "shift" else MAX_MULTIPLIER
    if amounts.size and (amounts.min() < 0 or amounts.max() > most):
        raise FormatError(f"{kind} alignment must lie in 0..{most}, not {amounts.min()}..{amounts.max()}")
    amounts = amounts.astype(np.int32)
    return np.left_shift(np.int32(1), amounts) if kind == "shift" else amounts


@dataclass(frozen=True, slots=True)
class Aligner:
    """Parameters and golden model of one lane's alignment."""

    format: MacFormat
    kind: Alignment = "shift"

    def __post_init__(self) -> None:
        _check_kind(self.kind)

    @property
    def amount_bits(self) -> int:
        """Bits of the run-time amount: a shift of 0..8 or a multiplier of 0..255."""
        return (MAX_SHIFT if self.kind == "shift" else MAX_MULTIPLIER).bit_length()

    def compute(self, product: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Align products (their values, the sign mode already applied) by per-lane amounts.

        Returns int64 values within ``format.align_range`` and a boolean array of overflows.
        """
        exact = np.asarray(product, dtype=np.int64) * alignment_factors(self.kind, amount)
        return limit(exact, *self.format.align_range, self.format.overflow)

"""Codes as 4-bit digits: how operands wider than the multiplier are fed to it.

A b-bit code is ceil(b / 4) digits, least significant first. The top digit carries the
sign, the others are unsigned, so ``code == sum(digit[i] << 4 * i)`` exactly.
"""

import numpy as np

from .mac import DIGIT_BITS

__all__ = ["digit_count", "digit_signed", "split_digits"]


def digit_count(bits: int) -> int:
    """Digits of a `bits`-bit code."""
    return -(-bits // DIGIT_BITS)


def digit_signed(index: int, bits: int, signed: bool) -> bool:
    """Whether digit `index` of a `bits`-bit code is a signed digit."""
    return signed and index == digit_count(bits) - 1


def split_digits(codes: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Split integer codes of any shape into int64 digits of shape (digits, *shape)."""
    codes = np.asarray(codes, dtype=np.int64)
    mask = (1 << DIGIT_BITS) - 1
    return np.stack(
        [
            (codes >> DIGIT_BITS * i) if digit_signed(i, bits, signed) else (codes >> DIGIT_BITS * i) & mask
            for i in range(digit_count(bits))
        ]
    )

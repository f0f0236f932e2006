"""Codes as 4-bit digits: how operands wider than the multiplier are fed to it.

A b-bit code is ceil(b / 4) digits, least significant first. The top digit carries the
sign, the others are unsigned, so ``code == sum(digit[i] << 4 * i)`` exactly.
"""

from dataclasses import dataclass

import numpy as np

from .mac import DIGIT_BITS

__all__ = ["BYTE_BITS", "DigitCounts", "digit_count", "digit_signed", "held_bits", "split_digits", "split_rows"]

BYTE_BITS = 8
"""Of a weight code in the array; a wider one is two of them."""


def digit_count(bits: int) -> int:
    """Digits of a `bits`-bit code."""
    return -(-bits // DIGIT_BITS)


def held_bits(bits: int) -> int:
    """Bits in which the array holds a weight of `bits` bits: as many, or two bytes."""
    return bits if bits <= BYTE_BITS else 2 * BYTE_BITS


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


def split_rows(codes: np.ndarray, counts: np.ndarray, digits: int) -> np.ndarray:
    """Split signed codes (rows, ...) into int64 digits (digits, rows, ...), of which row r has ``counts[r]``.

    The top one of a row carries the sign; those above it are 0.
    """
    codes = np.asarray(codes, dtype=np.int64)
    counts = counts.reshape(-1, *[1] * (codes.ndim - 1))
    mask = (1 << DIGIT_BITS) - 1
    values = [codes >> DIGIT_BITS * index for index in range(digits)]
    return np.stack(
        [
            np.where(index == counts - 1, value, np.where(index < counts, value & mask, 0))
            for index, value in enumerate(values)
        ]
    )


@dataclass(frozen=True, slots=True)
class DigitCounts:
    """Digits of the operands of a layer whose channels have different widths.

    Parameters
    ----------
    rows : of the weights of each output channel, int64 (out,)
    words : of the activations in each word of the input, from that of channel 0 on, int64 (words,)
    """

    rows: np.ndarray
    words: np.ndarray

    @classmethod
    def uniform(cls, weight_digits: int, rows: int, activation_digits: int, words: int) -> "DigitCounts":
        """The same for all channels."""
        return cls(np.full(rows, weight_digits, dtype=np.int64), np.full(words, activation_digits, dtype=np.int64))

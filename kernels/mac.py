"""The widths of the integer datapath, shared by every kernel and every RTL block.

Source: the 4b x 4b -> 8b product -> 16b per-channel step alignment -> int32
accumulator of ACIQ (Banner, Nahshan, Soudry, "Post training 4-bit quantization of
convolutional networks for rapid-deployment", NeurIPS 2019, and its rebuttal).
"""

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from .errors import FormatError

__all__ = ["DIGIT_BITS", "MacFormat", "Overflow", "limit", "signed_range"]

DIGIT_BITS = 4
"""Bits of one operand digit: the multiplier's operand width."""

Overflow = Literal["saturate", "wrap"]


@dataclass(frozen=True, slots=True)
class MacFormat:
    """Widths of the multiply-accumulate datapath and what happens beyond them.

    Parameters
    ----------
    product : bits of a digit product (6..10; 8 holds every 4b x 4b product)
    align : bits of the signed aligned product (8..24)
    acc : bits of the signed accumulator (12..48)
    overflow : "saturate" clips at the ends of a width, "wrap" drops the bits above it
    """

    product: int = 8
    align: int = 16
    acc: int = 32
    overflow: Overflow = "saturate"

    def __post_init__(self) -> None:
        for name, low, high in (("product", 6, 10), ("align", 8, 24), ("acc", 12, 48)):
            bits = getattr(self, name)
            if not isinstance(bits, int) or isinstance(bits, bool) or not low <= bits <= high:
                raise FormatError(f"mac {name} must be a whole number from {low} to {high}, not {bits!r}")
        if self.overflow not in get_args(Overflow):
            raise FormatError(f"mac overflow must be saturate or wrap, not {self.overflow!r}")

    @classmethod
    def parse(cls, text: str, base: "MacFormat | None" = None) -> "MacFormat":
        """Read ``align=12,acc=18,overflow=wrap``; widths that are not named come from `base`."""
        names = [field.name for field in fields(cls)]
        base = cls() if base is None else base
        values = {name: getattr(base, name) for name in names}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals or key not in names:
                raise FormatError(f"mac setting must be one of {', '.join(names)} as name=value, not {part!r}")
            values[key] = int(value) if value.isdecimal() else value
        return cls(**values)

    def product_range(self, unsigned: bool) -> tuple[int, int]:
        """Least and greatest product; unsigned when both digits are unsigned."""
        if unsigned:
            return 0, (1 << self.product) - 1
        return signed_range(self.product)

    @property
    def align_range(self) -> tuple[int, int]:
        """Least and greatest aligned product."""
        return signed_range(self.align)

    @property
    def acc_range(self) -> tuple[int, int]:
        """Least and greatest accumulator value."""
        return signed_range(self.acc)

    def row_bits(self, lanes: int) -> int:
        """Bits of the exact signed sum of `lanes` (a power of two) aligned products."""
        return self.align + lanes.bit_length() - 1


def signed_range(bits: int) -> tuple[int, int]:
    """Least and greatest value of a two's complement number of `bits` bits."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def limit(values: np.ndarray, low: int, high: int, overflow: Overflow) -> tuple[np.ndarray, np.ndarray]:
    """Bring exact values into [low, high], whose span is a power of two.

    Returns the limited int64 values and a boolean array: where a value did not fit.
    """
    values = np.asarray(values, dtype=np.int64)
    if overflow == "saturate":
        limited = np.clip(values, low, high)
    else:
        limited = ((values - low) & (high - low)) + low
    return limited, limited != values

"""Bayesian Bits' grids: integer codes by nested rounding, thresholds that reproduce it, and BOPs.

Source: van Baalen et al., "Bayesian Bits: Unifying Quantization and Pruning" (NeurIPS 2020), section 2.1. A value is
rounded to two bits; each further gate doubles the bits by rounding what is left to the next step, which is the last one
divided by 5, 17 and 257. In integers, with a b-bit code c_b and x in units of its step,

    c2 = round(x / s2),   c4 = 5 c2 + d4,   c8 = 17 c4 + d8,   c16 = 257 c8 + d16,

and every d is a rounded rest. A b-bit code is so an ordinary integer of a symmetric or an unsigned grid, and differs
from ``round(x / s_b)`` only where x lies halfway between two codes: a tie goes where the coarser roundings left it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from .errors import FormatError
from .mac import signed_range
from .requant import ThresholdRequantizer

__all__ = ["CLIP", "FULL_BITS", "NESTED_BITS", "LayerBops", "NestedGrid", "bops", "relative_bops"]

NESTED_BITS = (0, 2, 4, 8, 16)
"""Widths of the grids; 0 is pruned."""
FULL_BITS = 32
"""Width of both operands of the network that BOPs are compared with."""

CLIP = 1e-7
"""Share of the range that clipping stays inside it, so that nothing rounds past its end (the authors' code)."""


@dataclass(frozen=True, slots=True)
class NestedGrid:
    """A grid of `bits` bits, symmetric where `signed`: -(2**(b-1) - 1) .. 2**(b-1) - 1, else 0 .. 2**b - 1."""

    bits: int
    signed: bool

    def __post_init__(self) -> None:
        if self.bits not in NESTED_BITS:
            raise FormatError(f"nested bits must be 0, 2, 4, 8 or 16, not {self.bits}")

    @property
    def code_range(self) -> tuple[int, int]:
        """Least and greatest code."""
        if self.bits == 0:
            return 0, 0
        high = signed_range(self.bits)[1] if self.signed else (1 << self.bits) - 1
        return (-high if self.signed else 0), high

    @property
    def radices(self) -> tuple[int, ...]:
        """By what each level's step divides the last one's: of 5, 17 and 257 those up to `bits`."""
        widths = [bits for bits in NESTED_BITS if 2 <= bits <= self.bits]
        return tuple((1 << coarse) + 1 for coarse, _ in pairwise(widths))

    def step(self, limit: float) -> float:
        """Step between codes, where `limit` is the greatest value in magnitude (the paper's beta)."""
        if self.bits == 0:
            raise FormatError("a pruned grid has no step: bits must be 2, 4, 8 or 16, not 0")
        return (2 if self.signed else 1) * limit / ((1 << self.bits) - 1)

    def parts(self, values: np.ndarray, limit: float) -> list[np.ndarray]:
        """Codes c2, d4, d8, d16 (as many as `bits` has) of real values: int64 arrays of their shape.

        Computed in float64, half to even at each level. Values are clipped just inside the range first.
        """
        if not limit > 0:
            raise FormatError(f"limit of a nested grid must be positive, not {limit}")
        if self.bits == 0:
            return []
        end = 1 - CLIP
        inside = np.clip(np.asarray(values, dtype=np.float64) / limit, -end if self.signed else 0.0, end)
        rest = inside * (3 / 2 if self.signed else 3)
        parts = [np.rint(rest)]
        for radix in self.radices:
            rest = (rest - parts[-1]) * radix
            parts.append(np.rint(rest))
        return [part.astype(np.int64) for part in parts]

    def join(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Codes of the parts c2, d4, d8, d16: ``c4 = 5 c2 + d4`` and so on."""
        if not parts:
            raise FormatError("codes must have at least the part c2")
        code = np.asarray(parts[0], dtype=np.int64)
        for radix, part in zip(self.radices, parts[1:], strict=True):
            code = radix * code + part
        return code

    def codes(self, values: np.ndarray, limit: float) -> np.ndarray:
        """Codes (int32) of real values of any shape; all zero on a pruned grid."""
        parts = self.parts(values, limit)
        return (self.join(parts) if parts else np.zeros(np.shape(values))).astype(np.int32)

    def round_exact(self, value: Fraction) -> int:
        """Code of an exact number of steps: `round` (half to even) at each level, clipped to the grid."""
        low, high = self.code_range
        if self.bits == 0 or not low < value < high:
            return low if value <= low else high
        radices = self.radices
        scale = 1
        for radix in radices:
            scale *= radix
        rest = value / scale
        code = part = round(rest)
        for radix in radices:
            rest = (rest - part) * radix
            part = round(rest)
            code = radix * code + part
        return code

    def as_thresholds(self, ratios: Sequence[Fraction | float], in_bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Thresholds with which a `ThresholdRequantizer` of this grid's width and sign rounds nested, exactly.

        Channel c's code is that of ``v * ratios[c]`` steps, for every integer v of `in_bits` bits; a float is the
        number it is. Returns int64 thresholds (C, 2**bits - 1) in the order of the codes, and `descending` (C,), true
        where the ratio is negative. The least code of a signed requantiser is none of the grid: its
        threshold is one that every value reaches. `FormatError` where a threshold does not fit.
        """
        if self.bits not in (2, 4):
            raise FormatError(f"nested bits of thresholds must be 2 or 4, not {self.bits}")
        requantizer = ThresholdRequantizer(in_bits, self.bits, self.signed)
        least, greatest = signed_range(in_bits)
        low, high = self.code_range
        thresholds = np.empty((len(ratios), requantizer.thresholds), dtype=np.int64)
        descending = np.zeros(len(ratios), dtype=np.bool_)
        for channel, given in enumerate(ratios):
            ratio = Fraction(given)
            if ratio == 0:
                raise FormatError(f"ratio of channel {channel} must not be zero")
            descending[channel] = ratio < 0
            # Counted from the requantiser's base: codes up to `low` every value reaches.
            ends = [greatest if ratio < 0 else least] * (low - requantizer.base)
            for code in range(low + 1, high + 1):
                tie = Fraction(2 * code - 1, 2)
                first = self._first(tie / ratio, ratio > 0, self.round_exact(tie) == code)
                if not least <= first <= greatest:
                    raise FormatError(
                        f"threshold of code {code} in channel {channel} must fit {in_bits} bits, not {first}"
                    )
                ends.append(first)
            thresholds[channel] = ends
        return thresholds, descending

    def rounds_directly(self, multiplier: int, shift: int) -> bool:
        """Whether ``v * multiplier / 2**shift`` rounds alike nested and directly, for every whole v.

        The two differ on halves alone. With the multiplier's factors of two taken away, m / 2**k, a half is v = u *
        2**(k - 1) for an odd u, that is u * m / 2: where m is at least twice the greatest code and one, it is clipped.
        """
        if multiplier == 0:
            return True
        twos = (multiplier & -multiplier).bit_length() - 1
        return shift <= twos or multiplier >> twos > 2 * self.code_range[1]

    @staticmethod
    def _first(tie: Fraction, ascending: bool, reached: bool) -> int:
        """First integer, seen in that direction, beyond a tie; the tie itself where it is `reached`."""
        if ascending:
            return math.ceil(tie) if reached else math.floor(tie) + 1
        return math.floor(tie) if reached else math.ceil(tie) - 1


@dataclass(frozen=True, slots=True)
class LayerBops:
    """What a layer's BOPs depend on.

    Parameters
    ----------
    macs : multiplications of the whole layer, nothing pruned
    w_bits : bits of its weights, where they have different ones their mean; 0 where all are pruned
    a_bits : bits of the quantiser that feeds it (the network's input: 8)
    keep_out, keep_in : share of output and of input channels that are not pruned
    """

    macs: int
    w_bits: Fraction | int
    a_bits: Fraction | int
    keep_out: Fraction | float = 1
    keep_in: Fraction | float = 1

    def __post_init__(self) -> None:
        for name in ("keep_out", "keep_in"):
            if not 0 <= getattr(self, name) <= 1:
                raise FormatError(f"{name} must be a share from 0 to 1, not {getattr(self, name)}")
        if min(self.macs, self.w_bits, self.a_bits) < 0:
            raise FormatError(f"MACs and bits must not be negative: {self.macs}, {self.w_bits}, {self.a_bits}")


def bops(layers: Iterable[LayerBops]) -> float:
    """Bit operations of a network: the sum of MACs * b_w * b_a * keep_out * keep_in (the paper's section 4)."""
    return float(
        sum(
            layer.macs * layer.w_bits * layer.a_bits * Fraction(layer.keep_out) * Fraction(layer.keep_in)
            for layer in layers
        )
    )


def relative_bops(layers: Sequence[LayerBops]) -> float:
    """BOPs as a share of those of the same network, nothing pruned, in 32 x 32 bits."""
    return bops(layers) / bops([LayerBops(layer.macs, FULL_BITS, FULL_BITS) for layer in layers])

"""Fused 2/4/8-bit row: processing elements of four 2-bit bricks that narrow operands share among lanes.

A PE has four 2b x 2b multipliers, *bricks*, and registers of 8 bits of activations and 8 bits of weights. By the mode
the bricks are one 4b x 4b product, two of 4b x 2b or 2b x 4b, or four of 2b x 2b: the narrower the operands, the more
lanes (input channels) a PE reduces in a cycle. Wider operands are digit passes in 4x4, as in the digit array.

Source of the idea: Sharma et al., "Bit Fusion: Bit-Level Dynamically Composable Architecture for Accelerating Deep
Neural Networks" (ISCA 2018). Here a PE fuses at most 4b x 4b, so that its product can be limited and aligned as
ACIQ's datapath does it; operands of 8 bits fuse over time.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .align import Aligner, Alignment
from .digits import digit_count
from .errors import FormatError
from .mac import DIGIT_BITS, MacFormat
from .multiplier import DigitMultiplier
from .tree import AdderTree

__all__ = [
    "BRICKS",
    "FUSION_MODES",
    "OPERAND_BITS",
    "SLICE_BITS",
    "Brick",
    "FusionMode",
    "FusionPE",
    "FusionRow",
    "FusionStep",
    "brick_utilisation",
    "fusion_mode",
    "lanes_per_pe",
    "run_bits",
    "utilised_bricks",
]

OPERAND_BITS = 8
"""Bits of activations and of weights in a PE's registers."""
SLICE_BITS = 2
"""Bits of a brick's operands."""
BRICKS = 4
"""Bricks of a PE."""
MAX_ACTIVATION_BITS = 16


class Brick(NamedTuple):
    """What one brick multiplies in a mode: a 2-bit slice of each register, and where its product belongs.

    `a_top` and `w_top` say that the slice is its operand's top one, which carries the sign.
    """

    a_slice: int
    w_slice: int
    shift: int
    a_top: bool
    w_top: bool


class FusionMode(NamedTuple):
    """Bits of the operands of one product."""

    a_bits: int
    w_bits: int

    @property
    def lanes(self) -> int:
        """Lanes of a PE."""
        return BRICKS * SLICE_BITS**2 // (self.a_bits * self.w_bits)

    @property
    def narrow(self) -> bool:
        """Whether a PE has more than one lane; its sum is exact then, and not aligned."""
        return self.lanes > 1

    @property
    def bricks(self) -> tuple[Brick, ...]:
        """The four bricks: the first lane in the lowest bits of both registers."""
        a_slices, w_slices = self.a_bits // SLICE_BITS, self.w_bits // SLICE_BITS
        return tuple(
            Brick(lane * a_slices + i, lane * w_slices + j, SLICE_BITS * (i + j), i == a_slices - 1, j == w_slices - 1)
            for lane in range(self.lanes)
            for j in range(w_slices)
            for i in range(a_slices)
        )

    def channels(self, pes: int) -> np.ndarray:
        """Which of a step's ``pes * lanes`` channels each PE has in which lane: int64 (pes, lanes).

        The order of an engine's memory, whose words are two digits for each PE: channels follow each other from PE
        to PE, and in 2x2 the words' lower two bits come before the upper ones.
        """
        lane = np.arange(self.lanes)
        if self.lanes == BRICKS:
            lane = lane >> 1 | (lane & 1) << 1
        return np.asarray(np.arange(pes)[:, None] + pes * lane)

    def pack(self, lanes: np.ndarray, bits: int) -> np.ndarray:
        """Registers (..., PEs) uint8 of lane operands (..., PEs * lanes): `bits` is a_bits or w_bits of the mode.

        Lane ``p * lanes + k`` of the row is lane k of PE p. Only the low `bits` of an operand are taken.
        """
        patterns = np.asarray(lanes, dtype=np.int64) & ((1 << bits) - 1)
        if patterns.shape[-1] % self.lanes:
            raise FormatError(f"operands must fill PEs of {self.lanes} lanes, not {patterns.shape[-1]} lanes")
        by_pe = patterns.reshape(*patterns.shape[:-1], -1, self.lanes)
        return np.asarray((by_pe << bits * np.arange(self.lanes)).sum(axis=-1).astype(np.uint8))


FUSION_MODES = (FusionMode(4, 4), FusionMode(2, 4), FusionMode(4, 2), FusionMode(2, 2))
"""By the mode's number: bit 0 says that activations have two bits, bit 1 that weights have."""


def run_bits(bits: int) -> int:
    """Width in which a weight of 1..8 bits runs: the next of 2, 4 and 8; it is stored at its own."""
    if not 1 <= bits <= OPERAND_BITS:
        raise FormatError(f"weights of a fused array must have 1 to {OPERAND_BITS} bits, not {bits}")
    return next(width for width in (2, 4, 8) if width >= bits)


def fusion_mode(a_bits: int, w_bits: int) -> FusionMode:
    """Mode in which a layer of 1..16-bit activations and 1..8-bit weights runs.

    Activations come digit by digit, so wide ones may meet 2-bit weights in 4x2. Weights stand in the PE whole:
    where one fills the register there is no second lane to go with narrow activations.
    """
    if not 1 <= a_bits <= MAX_ACTIVATION_BITS:
        raise FormatError(f"activations of a fused array must have 1 to {MAX_ACTIVATION_BITS} bits, not {a_bits}")
    width = run_bits(w_bits)
    narrow_a = a_bits <= SLICE_BITS and width <= DIGIT_BITS
    narrow_w = width == SLICE_BITS
    return FUSION_MODES[narrow_a | narrow_w << 1]


def lanes_per_pe(a_bits: int, w_bits: int) -> int:
    """Input channels that a PE reduces at a time: 1, 2 or 4."""
    return fusion_mode(a_bits, w_bits).lanes


def utilised_bricks(a_bits: int, w_bits: int) -> int:
    """Useful brick products of one product of `a_bits` x `w_bits`: pairs of slices that hold bits of both codes."""
    _ = fusion_mode(a_bits, w_bits)  # it checks both widths
    return -(-a_bits // SLICE_BITS) * -(-w_bits // SLICE_BITS)


def brick_utilisation(a_bits: int, w_bits: int) -> float:
    """Share of brick products that are useful while every lane has a channel."""
    passes = digit_count(a_bits) * digit_count(w_bits)
    return lanes_per_pe(a_bits, w_bits) * utilised_bricks(a_bits, w_bits) / (BRICKS * passes)


def _slice(patterns: np.ndarray, index: int, signed: bool) -> np.ndarray:
    """One 2-bit slice of raw registers, as its value."""
    raw = (np.asarray(patterns, dtype=np.int64) >> SLICE_BITS * index) & 3
    return raw - (raw >> 1 << SLICE_BITS) if signed else raw


@dataclass(frozen=True, slots=True)
class FusionPE:
    """Parameters and golden model of one processing element."""

    format: MacFormat

    @property
    def product_bits(self) -> int:
        """Bits of a PE's result: of the format's product, and of every exact sum of narrow products."""
        return max(self.format.product, 2 * DIGIT_BITS)

    def compute(
        self, acts: np.ndarray, codes: np.ndarray, mode: FusionMode, a_signed: bool, w_signed: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Products of raw registers (uint8 arrays that broadcast), summed over the PE's lanes.

        In 4x4 the digits stand in the low halves, and the product is limited as by `DigitMultiplier`; in the
        other modes the sum is exact. Returns int64 values and a boolean array of overflows.
        """
        total = sum(
            (
                _slice(acts, brick.a_slice, a_signed and brick.a_top)
                * _slice(codes, brick.w_slice, w_signed and brick.w_top)
            )
            << brick.shift
            for brick in mode.bricks
        )
        if mode.narrow:
            return np.asarray(total), np.zeros(np.shape(total), dtype=np.bool_)
        return DigitMultiplier(self.format).compute(
            np.asarray(total), np.ones((), np.int64), not (a_signed or w_signed)
        )


class FusionStep(NamedTuple):
    """What a row makes of one word; arrays have the shape of the operands less their PE axis."""

    sum: np.ndarray
    product_overflows: np.ndarray
    align_overflows: np.ndarray


@dataclass(frozen=True, slots=True)
class FusionRow:
    """Parameters and golden model of a row of `lanes` PEs (a power of two)."""

    lanes: int
    format: MacFormat = field(default_factory=MacFormat)
    kind: Alignment = "shift"

    def __post_init__(self) -> None:
        _ = self.tree, self.aligner  # they check the lanes and the kind

    @property
    def pe(self) -> FusionPE:
        return FusionPE(self.format)

    @property
    def aligner(self) -> Aligner:
        return Aligner(self.format, self.kind)

    @property
    def tree(self) -> AdderTree:
        return AdderTree(self.lanes, self.format.align)

    def compute(
        self,
        acts: np.ndarray,
        codes: np.ndarray,
        amount: np.ndarray,
        mode: FusionMode,
        w_high: bool,
        a_signed: bool,
        w_signed: bool,
    ) -> FusionStep:
        """Sum one word of raw registers, `acts` and `codes` (..., lanes) uint8.

        In 4x4 `w_high` selects each code's upper digit and `amount` (..., lanes) aligns each lane; in the other
        modes there is neither, and the sum is exact.
        """
        if not mode.narrow and w_high:
            codes = np.asarray(codes) >> DIGIT_BITS
        value, product_over = self.pe.compute(acts, codes, mode, a_signed, w_signed)
        align_over = np.zeros(value.shape, dtype=np.bool_)
        if not mode.narrow:
            value, align_over = self.aligner.compute(value, amount)
        return FusionStep(self.tree.compute(value), product_over.sum(axis=-1), align_over.sum(axis=-1))

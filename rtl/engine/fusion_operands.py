"""From the memory's words to the PEs of a fused array: which sub-word a step reads, and what each PE gets of it."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.fusion import OPERAND_BITS, SLICE_BITS
from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import MODE_BITS
from ...sim.engine import EngineConfig
from ..mac import settled
from .registers import address_bits, sub_address_bits

__all__ = ["SUB_BITS", "FusionAddress", "FusionOperands"]

SUB_BITS = 2
"""Bits of the number of a sub-word."""


class FusionAddress(wiring.Component):  # type: ignore[misc]
    """Splits the address of a lane group into word and sub-word; latency 0.

    Words hold W = 2 L digits, or twice as many codes of two bits where the input is `narrow`: so 1, 2 or 4 lane groups,
    whose addresses follow each other.
    """

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(
            {
                "mode": In(MODE_BITS),
                "narrow": In(1),
                "address": In(sub_address_bits(config)),
                "word": Out(address_bits(config)),
                "sub": Out(SUB_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Twice as many with codes of two bits, half as many for each operand that is narrow.
        fours = settled(m, self.narrow & ~self.mode.any())
        twos = settled(m, (self.narrow & self.mode.xor()) | ~(self.narrow | self.mode.any()))
        address = self.address
        m.d.comb += [
            self.word.eq(Mux(fours, address >> 2, Mux(twos, address >> 1, address))),
            self.sub.eq(address & Cat(fours | twos, fours)),
        ]
        return m


class FusionOperands(wiring.Component):  # type: ignore[misc]
    """The activation registers of L PEs out of a word of the memory, or of the padding; latency 0.

    PE p has the channels ``FUSION_MODES[mode].channels(L)[p]`` of the `sub` of the word, lane 0 in the lowest bits.
    In 4x4 the upper half means nothing, and codes of two bits (`narrow`) are extended as `a_signed` says. Without
    `inside` every lane has the padding's `pad` digit.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.lanes = config.lanes
        super().__init__(
            {
                "mode": In(MODE_BITS),
                "narrow": In(1),
                "sub": In(SUB_BITS),
                "a_signed": In(1),
                "inside": In(1),
                "pad": In(DIGIT_BITS),
                "word": In(data.ArrayLayout(DIGIT_BITS, config.word_digits)),
                "digits": Out(data.ArrayLayout(OPERAND_BITS, config.lanes)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        narrow_a = self.mode[0]
        single, two_lanes = Signal(), Signal()
        upper_slots, upper_half, extends = Signal(), Signal(), Signal()
        pad = Signal(OPERAND_BITS)
        m.d.comb += [
            single.eq(~self.mode.any()),
            two_lanes.eq(self.mode == 1),
            # Sub-words are slots first, then halves of the slots; two lanes of two bits take all slots of a half.
            upper_slots.eq(self.sub[0] & ~two_lanes),
            upper_half.eq(Mux(two_lanes, self.sub[0], self.sub[1])),
            extends.eq(self.narrow & single),
            pad.eq(Mux(narrow_a, self.pad[:SLICE_BITS].replicate(4), self.pad.replicate(2))),
        ]

        def half(digit: Value) -> Value:
            return Mux(upper_half, digit[SLICE_BITS:], digit[:SLICE_BITS])

        for pe in range(self.lanes):
            low, high = self.word[pe], self.word[self.lanes + pe]
            digit = settled(m, Mux(upper_slots, high, low))
            first = settled(m, half(digit))
            second = Mux(two_lanes, half(high), digit[SLICE_BITS:])
            sign = first[-1] & self.a_signed
            taken = Cat(first, Mux(extends, sign.replicate(SLICE_BITS), second), high)
            m.d.comb += self.digits[pe].eq(Mux(self.inside, taken, pad))
        return m

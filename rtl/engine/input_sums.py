"""The sums of the activations themselves, for the zero points of the weights."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.align import Alignment
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from ..mac import settled
from .loader import AMOUNT_BITS, diagonals
from .pipeline import delayed, pipelined_sum, tree_stages
from .row import factor_bits

__all__ = ["InputSums", "input_sums_layout"]


def _sum_digit_bits(config: EngineConfig) -> int:
    """Bits of an activation digit as it is summed; aligned, at most 15 << 8 or 15 * 255 and never below -8 << 8."""
    return DIGIT_BITS + 1 + (AMOUNT_BITS if config.array == "digit" else 0)


def input_sums_layout(config: EngineConfig) -> data.ArrayLayout:
    """What a word adds to the input sums of the min(R, L) rows that may have one of their own."""
    bits = _sum_digit_bits(config) + config.lanes.bit_length() - 1
    return data.ArrayLayout(signed(bits), min(config.rows, config.lanes))


class InputSums(wiring.Component):  # type: ignore[misc]
    """The input sums of one activation word a cycle, with the latency of the rows: ``2 + ceil(log2(L) / 2)``.

    They are exact, without the digit pair's shift: the digits of all lanes of `sum_mask`, aligned by `factors` in a
    digit array (they come a cycle after the word), for every row the same; in a `depthwise` layer, which
    stands still within a layer, that of row r's own lane ``diagonal * min(R, L) + r``.
    """

    def __init__(self, config: EngineConfig, alignments: tuple[Alignment, ...]) -> None:
        self.config = config
        self.alignments = alignments
        lanes = config.lanes
        factors = {"factors": In(data.ArrayLayout(factor_bits(alignments), lanes))} if alignments else {}
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "sum_mask": In(lanes),
                "a_signed": In(1),
                "depthwise": In(1),
                "diagonal": In(range(diagonals(config))),
                **factors,
                "sums": Out(input_sums_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = _sum_digit_bits(self.config)
        aligned = []
        for lane in range(self.config.lanes):
            digit = Signal(signed(DIGIT_BITS + 1), name=f"digit_{lane}", reset_less=True)
            raw = self.digits[lane]
            m.d.sync += digit.eq(Mux(self.sum_mask[lane], Cat(raw, raw[-1] & self.a_signed), 0))
            value: Value = digit
            if self.alignments == ("shift",):
                value = (digit << self.factors[lane])[:bits].as_signed()
            elif self.alignments:
                value = digit * self.factors[lane]
            held = Signal(signed(bits), name=f"aligned_{lane}", reset_less=True)
            m.d.sync += held.eq(value)
            aligned.append(held)
        total = settled(m, pipelined_sum(m, aligned, "input_sum"))
        # The digit that is aligned now belongs to the word of two cycles ago.
        diagonal = delayed(m, self.diagonal, 2, "diagonal")
        size = len(self.sums)
        for at in range(size):
            own: Value = aligned[at]
            for place in range(1, self.config.lanes // size):
                own = Mux(diagonal == place, aligned[place * size + at], own)
            own = delayed(m, own, tree_stages(self.config.lanes), f"own_{at}")
            m.d.comb += self.sums[at].eq(Mux(self.depthwise, own, total))
        return m

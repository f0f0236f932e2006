"""The multiply-accumulate array: R rows over one activation word, and the sum of the word itself."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.align import MAX_SHIFT, Alignment
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from .loader import AMOUNT_BITS, CODE_BITS
from .pipeline import pipelined_sum, tree_stages
from .row import MacRow

__all__ = ["SUM_DIGIT_BITS", "MacArray"]

SUM_DIGIT_BITS = DIGIT_BITS + 1 + AMOUNT_BITS
"""Bits of an aligned activation digit: at most 15 << 8, or 15 * 255, and never below -8 << 8."""


class MacArray(wiring.Component):  # type: ignore[misc]
    """Row sums, overflow counts and the input sum of one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles, throughput one word a cycle. `amounts` are those of the
    word's own tile: they are registered with the products. The input sum takes the lanes of `sum_mask`
    alone; it is exact, without the digit pair's shift.
    """

    def __init__(self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul")) -> None:
        self.config = config
        self.alignments = alignments
        rows, lanes = config.rows, config.lanes
        counts = data.ArrayLayout(lanes.bit_length(), rows)
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "sum_mask": In(lanes),
                "codes": In(data.ArrayLayout(data.ArrayLayout(CODE_BITS, lanes), rows)),
                "amounts": In(data.ArrayLayout(AMOUNT_BITS, lanes)),
                "w_high": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                "multiply": In(1),
                "row_sums": Out(data.ArrayLayout(signed(config.mac.row_bits(lanes)), rows)),
                "product_overflows": Out(counts),
                "align_overflows": Out(counts),
                "input_sum": Out(signed(SUM_DIGIT_BITS + lanes.bit_length() - 1)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sums."""
        return 2 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        amounts = Signal.like(self.amounts, reset_less=True)
        m.d.sync += amounts.eq(self.amounts)
        for at in range(self.config.rows):
            m.submodules[f"row_{at}"] = row = MacRow(self.config, self.alignments)
            m.d.comb += [
                row.digits.eq(self.digits),
                row.codes.eq(self.codes[at]),
                row.amounts.eq(amounts),
                row.w_high.eq(self.w_high),
                row.a_signed.eq(self.a_signed),
                row.w_signed.eq(self.w_signed),
                row.multiply.eq(self.multiply),
                self.row_sums[at].eq(row.sum),
                self.product_overflows[at].eq(row.product_overflows),
                self.align_overflows[at].eq(row.align_overflows),
            ]

        aligned = []
        for lane in range(self.config.lanes):
            digit = Signal(signed(DIGIT_BITS + 1), name=f"digit_{lane}", reset_less=True)
            raw = self.digits[lane]
            m.d.sync += digit.eq(Mux(self.sum_mask[lane], Cat(raw, raw[-1] & self.a_signed), 0))
            results = {
                "shift": (digit << amounts[lane][: MAX_SHIFT.bit_length()])[:SUM_DIGIT_BITS].as_signed(),
                "mul": digit * amounts[lane],
            }
            value = results[self.alignments[0]]
            if len(self.alignments) > 1:
                value = Mux(self.multiply, results["mul"], results["shift"])
            held = Signal(signed(SUM_DIGIT_BITS), name=f"aligned_{lane}", reset_less=True)
            m.d.sync += held.eq(value)
            aligned.append(held)
        m.d.comb += self.input_sum.eq(pipelined_sum(m, aligned, "input_sum"))
        return m

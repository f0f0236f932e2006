"""The multiply-accumulate array: R rows over one activation word, and the sums of the word itself."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.align import MAX_SHIFT, Alignment
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from ..mac import settled
from .loader import AMOUNT_BITS, CODE_BITS, diagonals
from .pipeline import delayed, pipelined_sum, tree_stages
from .row import MacRow, factor_bits, widths_layout

__all__ = ["MacArray", "input_sums_layout"]

SUM_DIGIT_BITS = DIGIT_BITS + 1 + AMOUNT_BITS
"""Bits of an aligned activation digit: at most 15 << 8, or 15 * 255, and never below -8 << 8."""


def input_sums_layout(config: EngineConfig) -> data.ArrayLayout:
    """What a word adds to the input sums of the min(R, L) rows that may have one of their own."""
    bits = SUM_DIGIT_BITS + config.lanes.bit_length() - 1
    return data.ArrayLayout(signed(bits), min(config.rows, config.lanes))


class MacArray(wiring.Component):  # type: ignore[misc]
    """Row sums, overflow counts and the input sums of one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles, throughput one word a cycle. `amounts` are those of the
    word's own tile: they are registered with the products. Input sums are exact, without the digit pair's
    shift: the aligned digits of all lanes of `sum_mask`, for every row the same; in a `depthwise` layer,
    which stands still within a layer, that of row r's own lane ``diagonal * min(R, L) + r``.
    """

    def __init__(
        self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul"), formats: bool = False
    ) -> None:
        self.config = config
        self.alignments = alignments
        self.formats = formats
        rows, lanes = config.rows, config.lanes
        counts = data.ArrayLayout(lanes.bit_length(), rows)
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "sum_mask": In(lanes),
                "codes": In(data.ArrayLayout(CODE_BITS, lanes)).array(rows),
                "amounts": In(data.ArrayLayout(AMOUNT_BITS, lanes)),
                "w_high": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                "multiply": In(1),
                **({"widths": In(widths_layout(config.mac))} if formats else {}),
                "depthwise": In(1),
                "diagonal": In(range(diagonals(config))),
                "row_sums": Out(data.ArrayLayout(signed(config.mac.row_bits(lanes)), rows)),
                "product_overflows": Out(counts),
                "align_overflows": Out(counts),
                "input_sums": Out(input_sums_layout(config)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sums."""
        return 2 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        factors = Signal(data.ArrayLayout(factor_bits(self.alignments), self.config.lanes), reset_less=True)
        m.d.sync += [factor.eq(self._factor(amount)) for factor, amount in zip(factors, self.amounts, strict=True)]
        for at in range(self.config.rows):
            m.submodules[f"row_{at}"] = row = MacRow(self.config, self.alignments, self.formats)
            m.d.comb += [
                row.digits.eq(self.digits),
                row.codes.eq(self.codes[at]),
                row.factors.eq(factors),
                row.w_high.eq(self.w_high),
                row.a_signed.eq(self.a_signed),
                row.w_signed.eq(self.w_signed),
                self.row_sums[at].eq(row.sum),
                self.product_overflows[at].eq(row.product_overflows),
                self.align_overflows[at].eq(row.align_overflows),
            ]
            if self.formats:
                m.d.comb += row.widths.eq(self.widths)

        aligned = []
        for lane in range(self.config.lanes):
            digit = Signal(signed(DIGIT_BITS + 1), name=f"digit_{lane}", reset_less=True)
            raw = self.digits[lane]
            m.d.sync += digit.eq(Mux(self.sum_mask[lane], Cat(raw, raw[-1] & self.a_signed), 0))
            shifts = self.alignments == ("shift",)
            value = (digit << factors[lane])[:SUM_DIGIT_BITS].as_signed() if shifts else digit * factors[lane]
            held = Signal(signed(SUM_DIGIT_BITS), name=f"aligned_{lane}", reset_less=True)
            m.d.sync += held.eq(value)
            aligned.append(held)
        total = settled(m, pipelined_sum(m, aligned, "input_sum"))
        # The digit that is aligned now belongs to the word of two cycles ago.
        diagonal = delayed(m, self.diagonal, 2, "diagonal")
        size = len(self.input_sums)
        for at in range(size):
            own: Value = aligned[at]
            for place in range(1, self.config.lanes // size):
                own = Mux(diagonal == place, aligned[place * size + at], own)
            own = delayed(m, own, tree_stages(self.config.lanes), f"own_{at}")
            m.d.comb += self.input_sums[at].eq(Mux(self.depthwise, own, total))
        return m

    def _factor(self, amount: Value) -> Value:
        """What the rows align a lane by; one multiplier does both kinds where both are built."""
        if len(self.alignments) == 1:
            return amount
        shift = amount[: MAX_SHIFT.bit_length()]
        return Mux(self.multiply, amount, Const(1, MAX_SHIFT + 1) << shift)

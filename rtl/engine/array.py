"""The multiply-accumulate array: R rows over one activation word, and the sums of the word itself."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from typing import Any

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.align import MAX_SHIFT, Alignment
from ...sim.engine import EngineConfig
from .input_sums import InputSums, input_sums_layout, operand_layout
from .loader import AMOUNT_BITS, CODE_BITS, diagonals
from .pipeline import tree_stages
from .row import MacRow, factor_bits, widths_layout

__all__ = ["MacArray"]


class MacArray(wiring.Component):  # type: ignore[misc]
    """Row sums, overflow counts and the input sums of one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles, throughput one word a cycle. `amounts` are those of the
    word's own tile: they are registered with the products. Input sums are those of `InputSums`.
    """

    def __init__(
        self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul"), formats: bool = False
    ) -> None:
        self.config = config
        self.alignments = alignments
        self.formats = formats
        super().__init__(self._ports())

    def _ports(self) -> dict[str, Any]:
        config = self.config
        rows, lanes = config.rows, config.lanes
        counts = data.ArrayLayout(lanes.bit_length(), rows)
        return {
            "digits": In(operand_layout(config)),
            "sum_mask": In(config.most_lanes),
            "codes": In(data.ArrayLayout(CODE_BITS, lanes)).array(rows),
            "amounts": In(data.ArrayLayout(AMOUNT_BITS, lanes)),
            "w_high": In(1),
            "a_signed": In(1),
            "w_signed": In(1),
            "multiply": In(1),
            **({"widths": In(widths_layout(config.mac))} if self.formats else {}),
            "depthwise": In(1),
            "diagonal": In(range(diagonals(config))),
            "row_sums": Out(data.ArrayLayout(signed(config.mac.row_bits(lanes)), rows)),
            "product_overflows": Out(counts),
            "align_overflows": Out(counts),
            "input_sums": Out(input_sums_layout(config)),
        }

    _sum_ports: tuple[str, ...] = ("digits", "sum_mask", "a_signed", "depthwise", "diagonal")

    @property
    def latency(self) -> int:
        """Cycles from a word to its sums."""
        return 2 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        factors = Signal(data.ArrayLayout(factor_bits(self.alignments), self.config.lanes), reset_less=True)
        m.d.sync += [factor.eq(self._factor(amount)) for factor, amount in zip(factors, self.amounts, strict=True)]
        for at in range(self.config.rows):
            row = self._row(m, at)
            m.d.comb += [
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

        m.submodules.input_sums = sums = InputSums(self.config, self.alignments)
        for name in self._sum_ports:
            m.d.comb += getattr(sums, name).eq(getattr(self, name))
        m.d.comb += [sums.factors.eq(factors), self.input_sums.eq(sums.sums)]
        return m

    def _row(self, m: Module, at: int) -> Any:
        """A row with its activations; what it has in common with others is connected elsewhere."""
        m.submodules[f"row_{at}"] = row = MacRow(self.config, self.alignments, self.formats)
        m.d.comb += row.digits.eq(self.digits)
        return row

    def _factor(self, amount: Value) -> Value:
        """What the rows align a lane by; one multiplier does both kinds where both are built."""
        if len(self.alignments) == 1:
            return amount
        shift = amount[: MAX_SHIFT.bit_length()]
        return Mux(self.multiply, amount, Const(1, MAX_SHIFT + 1) << shift)

"""The shift array: R rows of shifters over one activation word, and the sums of the word itself."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ... import kernels
from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import SHIFT_BITS
from ...sim.engine import EngineConfig
from ..mac import settled
from ..shift import ShiftRow
from .input_sums import InputSums, input_sums_layout
from .loader import CODE_BITS, diagonals
from .pipeline import tree_stages
from .rows import row_bits

__all__ = ["SHIFT_SETTINGS", "ShiftArray"]

SHIFT_SETTINGS = {
    "focused": 1,
    "value_shift": SHIFT_BITS,
    "minus_shift": SHIFT_BITS,
    "minus_negative": 1,
    "plus_shift": SHIFT_BITS,
    "plus_negative": 1,
}
"""What rows are told about a layer, with its bits: registers of that name."""


class ShiftArray(wiring.Component):  # type: ignore[misc]
    """Row sums and input sums of one activation word a cycle, exact, latency ``2 + ceil(log2(L) / 2)`` cycles.

    A code of the stream holds, from bit 0 on: the state, complemented (2 bits, so that 0 is pruned and lanes
    without a weight do nothing), the component in `focused` layers (1 bit), the exponent.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        rows, lanes = config.rows, config.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "sum_mask": In(lanes),
                "codes": In(data.ArrayLayout(CODE_BITS, lanes)).array(rows),
                "a_signed": In(1),
                "depthwise": In(1),
                "diagonal": In(range(diagonals(config))),
                **{name: In(bits) for name, bits in SHIFT_SETTINGS.items()},
                "row_sums": Out(data.ArrayLayout(signed(row_bits(config)), rows)),
                "input_sums": Out(input_sums_layout(config)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sums."""
        return 2 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for at in range(self.config.rows):
            m.submodules[f"row_{at}"] = row = ShiftRow(kernels.ShiftRow(self.config.lanes))
            for lane, code in enumerate(self.codes[at]):
                exponent = settled(m, Mux(self.focused, code[3 : 3 + SHIFT_BITS], code[2 : 2 + SHIFT_BITS]))
                m.d.comb += row.codes[lane].eq(Cat(exponent, ~code[:2], self.focused & code[2]))
            m.d.comb += [
                row.digits.eq(self.digits),
                row.a_signed.eq(self.a_signed),
                *(getattr(row, name).eq(getattr(self, name)) for name in SHIFT_SETTINGS),
                self.row_sums[at].eq(row.sum),
            ]
        m.submodules.input_sums = sums = InputSums(self.config, ())
        for name in ("digits", "sum_mask", "a_signed", "depthwise", "diagonal"):
            m.d.comb += getattr(sums, name).eq(getattr(self, name))
        m.d.comb += self.input_sums.eq(sums.sums)
        return m

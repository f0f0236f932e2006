"""The sign array: R rows of weights of one bit over one activation word, and the sums of the word itself."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.mac import DIGIT_BITS
from ...kernels.sign import SignRow as Parameters
from ...sim.engine import EngineConfig
from ..mac import settled
from ..sign import SignRow
from .input_sums import InputSums, input_sums_layout
from .loader import code_bits, diagonals
from .pipeline import tree_stages
from .rows import row_bits

__all__ = ["SignArray"]


class SignArray(wiring.Component):  # type: ignore[misc]
    """Row sums and input sums of one activation word a cycle, exact, latency ``2 + ceil(log2(L) / 2)`` cycles.

    A row adds the lanes of `sum_mask`; in a `depthwise` layer its own lane, ``diagonal * min(R, L) + r``, alone:
    a weight of one bit cannot be zero. In a layer whose activations are signs (`binary`) digits are their bits.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        rows, lanes = config.rows, config.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "sum_mask": In(lanes),
                "codes": In(data.ArrayLayout(code_bits(config), lanes)).array(rows),
                "a_signed": In(1),
                "binary": In(1),
                "depthwise": In(1),
                "diagonal": In(range(diagonals(config))),
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
        size = min(self.config.rows, self.config.lanes)
        for at in range(self.config.rows):
            m.submodules[f"row_{at}"] = row = SignRow(Parameters(self.config.lanes))
            own = settled(m, (1 << (at % size)) << (self.diagonal * size))
            m.d.comb += [
                row.digits.eq(self.digits),
                row.bits.eq(self.codes[at]),
                row.mask.eq(Mux(self.depthwise, own, self.sum_mask)),
                row.a_signed.eq(self.a_signed),
                row.binary.eq(self.binary),
                self.row_sums[at].eq(row.sum),
            ]
        m.submodules.input_sums = sums = InputSums(self.config, ())
        for name in ("digits", "sum_mask", "a_signed", "depthwise", "diagonal"):
            m.d.comb += getattr(sums, name).eq(getattr(self, name))
        m.d.comb += self.input_sums.eq(sums.sums)
        return m

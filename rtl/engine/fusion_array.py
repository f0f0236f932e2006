"""The fused array: R rows of PEs of four 2-bit bricks over one activation word, and the sums of the word itself."""

from typing import Any

from amaranth import Module
from amaranth.lib.wiring import In

from ... import kernels
from ...sim.descriptor import MODE_BITS
from ..fusion import FusionRow
from .array import MacArray

__all__ = ["FusionArray"]


class FusionArray(MacArray):
    """Row sums, overflow counts and input sums of one activation word a cycle: `MacArray` with `FusionRow`s.

    Each PE has 8 bits of `digits`, as `FusionOperands` deals them, and a code that holds its lanes' weights. `mode`, an
    index of `FUSION_MODES`, stands still within a layer. `sum_mask` is by channel of the step.
    """

    _sum_ports = (*MacArray._sum_ports, "mode")

    def _ports(self) -> dict[str, Any]:
        return {**super()._ports(), "mode": In(MODE_BITS)}

    def _row(self, m: Module, at: int) -> FusionRow:
        parameters = kernels.FusionRow(self.config.lanes, self.config.mac)
        m.submodules[f"row_{at}"] = row = FusionRow(parameters, self.alignments, self.formats)
        m.d.comb += [row.acts.eq(self.digits), row.mode.eq(self.mode)]
        return row

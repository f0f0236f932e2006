"""Balanced adder tree: the exact sum of a row's aligned products."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from collections.abc import Sequence

from amaranth import Module, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from .bench import Bench, Fields

__all__ = ["AdderTree", "AdderTreeBench", "balanced_sum"]


def balanced_sum(terms: Sequence[Value]) -> Value:
    """Exact sum of the terms, in as many levels as the logarithm of their count."""
    if len(terms) == 1:
        return terms[0]
    middle = (len(terms) + 1) // 2
    return balanced_sum(terms[:middle]) + balanced_sum(terms[middle:])


class AdderTree(wiring.Component):  # type: ignore[misc]
    """Sum of `lanes` signed values.

    Combinational: latency 0, one sum a cycle, `parameters.levels` adders between input and sum.
    """

    def __init__(self, parameters: kernels.AdderTree) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "values": In(data.ArrayLayout(signed(parameters.bits), parameters.lanes)),
                "sum": Out(signed(parameters.out_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.sum.eq(balanced_sum([self.values[lane] for lane in range(self.parameters.lanes)]))
        return m


class AdderTreeBench(Bench[kernels.AdderTree]):
    """All-extreme lanes among random ones."""

    def expected(self, inputs: Fields) -> Fields:
        return {"sum": self.parameters.compute(inputs["values"])}

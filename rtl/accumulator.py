"""Accumulator: adds a row sum, shifted to its digit pair's place, and limits once."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Const, Module
from amaranth.hdl import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.accumulator import MAX_DIGIT_SHIFT
from ..kernels.mac import DIGIT_BITS
from .bench import Bench, Fields
from .mac import limit_within, width_layout

__all__ = ["DIGIT_SHIFT_BITS", "Accumulator", "AccumulatorBench"]

DIGIT_SHIFT_BITS = MAX_DIGIT_SHIFT.bit_length()


class Accumulator(wiring.Component):  # type: ignore[misc]
    """``total = limit(acc + (row_sum << 4 * digit_shift))``.

    Combinational: latency 0, one step a cycle. The register or memory that holds `acc` is its
    user's. `digit_shift` must be 0..max_shift; beyond, the result is undefined. With `formats` the accumulator's width
    is an input, up to that of the parameters.
    """

    def __init__(self, parameters: kernels.Accumulator, formats: bool = False) -> None:
        self.parameters = parameters
        self.formats = formats
        super().__init__(
            {
                "acc": In(signed(parameters.format.acc)),
                "row_sum": In(signed(parameters.row_bits)),
                "digit_shift": In(DIGIT_SHIFT_BITS),
                **({"width": In(width_layout(parameters.format.acc))} if formats else {}),
                "total": Out(signed(parameters.format.acc)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt, row_bits = self.parameters.format, self.parameters.row_bits
        bits_up = Cat(Const(0, DIGIT_BITS.bit_length() - 1), self.digit_shift)
        step = (self.row_sum << bits_up)[: row_bits + DIGIT_BITS * self.parameters.max_shift].as_signed()
        width = self.width if self.formats else None
        total, overflow = limit_within(m, self.acc + step, fmt.acc, fmt.overflow, width)
        m.d.comb += [self.total.eq(total), self.overflow.eq(overflow)]
        return m


class AccumulatorBench(Bench[kernels.Accumulator]):
    """Accumulators near their ends meet row sums of every size."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"digit_shift": (0, self.parameters.max_shift)}

    def expected(self, inputs: Fields) -> Fields:
        total = np.empty_like(inputs["acc"])
        overflow = np.empty(total.shape, dtype=bool)
        for shift in range(self.parameters.max_shift + 1):
            at = inputs["digit_shift"] == shift
            total[at], overflow[at] = self.parameters.compute(inputs["acc"][at], inputs["row_sum"][at], shift)
        return {"total": total, "overflow": overflow}

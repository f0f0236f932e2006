"""Digit multiplier: a Baugh-Wooley array whose sign corrections follow the mode.

Baugh and Wooley, "A two's complement parallel array multiplication algorithm" (IEEE ToC 1973)
inverts the partial products that a sign bit weights negatively and adds a constant. Here each
operand's sign is a run-time mode, so the inversions and the constant are functions of it: about
a quarter cheaper than a 5 x 5 signed multiplier, the other way to serve both signs.
"""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Const, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.mac import DIGIT_BITS
from .bench import Bench, Fields
from .mac import limit, limit_within, settled, width_layout

__all__ = ["DigitMultiplier", "DigitMultiplierBench", "digit_values"]

TOP = DIGIT_BITS - 1


class DigitMultiplier(wiring.Component):  # type: ignore[misc]
    """4b x 4b -> product, signed or unsigned by the mode.

    Combinational: latency 0, one product a cycle. Digits are raw 4-bit patterns; `a_signed` and
    `w_signed` say how to read them. `product` is a raw pattern too: unsigned where neither digit
    is signed, two's complement otherwise. With `formats` its width is an input, up to that of the parameters.
    """

    def __init__(self, parameters: kernels.DigitMultiplier, formats: bool = False) -> None:
        self.parameters = parameters
        self.formats = formats
        super().__init__(
            {
                "a": In(DIGIT_BITS),
                "w": In(DIGIT_BITS),
                "a_signed": In(1),
                "w_signed": In(1),
                **({"width": In(width_layout(parameters.format.product))} if formats else {}),
                "product": Out(parameters.format.product),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a_signed, w_signed = self.a_signed, self.w_signed

        # A row of partial products each; inverted where one sign bit alone is a factor.
        rows = [Mux(self.w[j], self.a, 0) ^ Mux(a_signed, 1 << TOP, 0) for j in range(TOP)]
        rows.append(Mux(self.w[TOP], self.a, 0) ^ Mux(a_signed, 1 << TOP, 0) ^ Mux(w_signed, (1 << DIGIT_BITS) - 1, 0))
        rows = [row[:DIGIT_BITS] << j for j, row in enumerate(rows)]
        # What the inversions added, taken back modulo 2**8: -56 for each signed operand (their
        # partial products at bits 3..5) and -64 where exactly one is (the product of the tops).
        correction = Cat(
            Const(0, 3), a_signed ^ w_signed, a_signed & w_signed, Const(0, 2), a_signed | w_signed
        )  # fmt: skip
        exact = settled(m, ((rows[0] + rows[1]) + (rows[2] + rows[3]) + correction)[: 2 * DIGIT_BITS])

        fmt = self.parameters.format
        unsigned = settled(m, ~(a_signed | w_signed))
        value = Cat(exact, exact[-1] & ~unsigned).as_signed()
        overflow: Value = Const(0, 1)
        if self.formats:
            value, overflow = limit_within(m, value, fmt.product, fmt.overflow, self.width, unsigned)
        elif fmt.product < len(exact):
            above = settled(m, exact[fmt.product :].any())
            limited = exact[: fmt.product]
            if fmt.overflow == "saturate":
                limited |= above.replicate(fmt.product)
            value, overflow = limit(m, value, fmt.product, fmt.overflow)
            value, overflow = Mux(unsigned, limited, value), Mux(unsigned, above, overflow)
        m.d.comb += [self.product.eq(value), self.overflow.eq(overflow)]
        return m


def digit_values(patterns: np.ndarray, signed: np.ndarray) -> np.ndarray:
    """Values of raw 4-bit patterns, two's complement where `signed` (broadcast) is true."""
    return np.where(signed.astype(bool) & (patterns > 7), patterns - 16, patterns)


class DigitMultiplierBench(Bench[kernels.DigitMultiplier]):
    """Every pair of digits in every mode."""

    def expected(self, inputs: Fields) -> Fields:
        a = digit_values(inputs["a"], inputs["a_signed"])
        w = digit_values(inputs["w"], inputs["w_signed"])
        neither = (inputs["a_signed"] | inputs["w_signed"]) == 0
        as_unsigned = self.parameters.compute(a, w, True)
        as_signed = self.parameters.compute(a, w, False)
        product, overflow = (np.where(neither, u, s) for u, s in zip(as_unsigned, as_signed, strict=True))
        return {"product": product, "overflow": overflow}

"""Digit multiplier: a Baugh-Wooley array whose sign corrections follow the mode.

Baugh and Wooley, "A two's complement parallel array multiplication algorithm" (IEEE ToC 1973)
inverts the partial products that a sign bit weights negatively and adds a constant. Here each
operand's sign is a run-time mode, so the inversions and the constant are functions of it: about
a quarter cheaper than a 5 x 5 signed multiplier, the other way to serve both signs.
"""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Const, Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.mac import DIGIT_BITS
from .bench import Bench, Fields
from .mac import limit, settled

__all__ = ["DigitMultiplier", "DigitMultiplierBench", "digit_values"]

TOP = DIGIT_BITS - 1


class DigitMultiplier(wiring.Component):  # type: ignore[misc]
    """4b x 4b -> product, signed or unsigned by the mode.

    Combinational: latency 0, one product a cycle. Digits are raw 4-bit patterns; `a_signed` and
    `w_signed` say how to read them. `product` is a raw pattern too: unsigned where neither digit
    is signed, two's complement otherwise.
    """

    def __init__(self, parameters: kernels.DigitMultiplier) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "a": In(DIGIT_BITS),
                "w": In(DIGIT_BITS),
                "a_signed": In(1),
                "w_signed": In(1),
                "product": Out(parameters.format.product),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        a_signed, w_signed = self.a_signed, self.w_signed

        rows = []
        for j in range(DIGIT_BITS):
            bits = []
            for i in range(DIGIT_BITS):
                bit = self.a[i] & self.w[j]
                if i == TOP:
                    bit = bit ^ a_signed
                if j == TOP:
                    bit = bit ^ w_signed
                bits.append(bit)
            rows.append(Cat(Const(0, j), *bits))
        # What the inversions added, taken back modulo 2**8: -56 for each signed operand (their
        # partial products at bits 3..5) and -64 where exactly one is (the product of the tops).
        correction = Cat(
            Const(0, 3), a_signed ^ w_signed, a_signed & w_signed, Const(0, 2), a_signed | w_signed
        )  # fmt: skip
        exact = settled(m, ((rows[0] + rows[1]) + (rows[2] + rows[3]) + correction)[: 2 * DIGIT_BITS])

        fmt = self.parameters.format
        unsigned = settled(m, ~(a_signed | w_signed))
        value = Cat(exact, exact[-1] & ~unsigned).as_signed()
        overflow = Const(0, 1)
        if fmt.product < len(exact):
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

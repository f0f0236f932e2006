"""Zero-point correction with a fraction and a width that are signals."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Signal
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ....kernels.correction import INPUT_SUM_BITS, MAX_FRACTION, ZERO_POINT_BITS
from ....kernels.planes import COEFFICIENT_BITS
from ....sim.descriptor import Field, descriptor_fields
from ....sim.engine import EngineConfig
from ...mac import limit_within, width_layout

__all__ = ["CorrectionStage", "value_bits"]


def value_bits(config: EngineConfig) -> int:
    """Bits of a corrected accumulator, or of a weighted sum of planes, and of what it is compared with."""
    return config.mac.acc + (COEFFICIENT_BITS if config.array == "sign" else MAX_FRACTION)


class CorrectionStage(wiring.Component):  # type: ignore[misc]
    """``saturate((acc << F) - zero * xsum + bias)`` to acc + F bits.

    Latency 3 cycles (fraction, product, sum), one accumulator a cycle; `zero` and `bias` come a cycle after their
    accumulator. `fraction` (0..8) stands still, and so do the `places` from the sign's of acc + F bits on (`above` of
    `rtl.mac.width_of`). Where `valid` is low nothing is computed. `overflow` says with the value, and only then, that
    it did not fit.
    """

    latency = 3

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        value = signed(value_bits(config))
        fraction: Field = descriptor_fields(config)["fraction"]
        super().__init__(
            {
                "valid": In(1),
                "acc": In(signed(config.mac.acc)),
                "xsum": In(signed(INPUT_SUM_BITS)),
                "zero": In(signed(ZERO_POINT_BITS)),
                "bias": In(value),
                "fraction": In(fraction.bits),
                "places": In(value_bits(config)),
                "value": Out(value),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal(2)
        m.d.sync += valid.eq((valid << 1) | self.valid)

        shifted = Signal(self.value.shape(), reset_less=True)
        xsum = Signal.like(self.xsum, reset_less=True)
        with m.If(self.valid):
            m.d.sync += [shifted.eq(self.acc << self.fraction), xsum.eq(self.xsum)]

        product = Signal(signed(INPUT_SUM_BITS + ZERO_POINT_BITS), reset_less=True)
        base = Signal(signed(len(self.value) + 1), reset_less=True)
        with m.If(valid[0]):
            m.d.sync += [product.eq(self.zero * xsum), base.eq(shifted + self.bias)]

        width = data.View(width_layout(len(self.value)), Cat(self.places, Const(0, 1)))
        limited, lost = limit_within(m, base - product, len(self.value), "saturate", width)
        value = Signal(self.value.shape(), reset_less=True)
        overflow = Signal()
        m.d.sync += overflow.eq(lost & valid[1])
        with m.If(valid[1]):
            m.d.sync += value.eq(limited)
        m.d.comb += [self.value.eq(value), self.overflow.eq(overflow)]
        return m

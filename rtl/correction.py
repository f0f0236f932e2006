"""Zero-point correction: the first stage of the post lane."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from amaranth import Module, Signal
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.correction import INPUT_SUM_BITS, ZERO_POINT_BITS
from .bench import Bench, Fields
from .mac import limit
from .pipeline import advance_together

__all__ = ["Correction", "CorrectionBench"]


class Correction(wiring.Component):  # type: ignore[misc]
    """``saturate((acc << F) - zwf * xsum + bias)``.

    Latency 2 cycles (product, sum), throughput one accumulator a cycle.
    """

    latency = 2

    def __init__(self, parameters: kernels.Correction) -> None:
        self.parameters = parameters
        value = signed(parameters.out_bits)
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "acc": signed(parameters.format.acc),
                                "xsum": signed(INPUT_SUM_BITS),
                                "zwf": signed(ZERO_POINT_BITS),
                                "bias": value,
                            }
                        )
                    )
                ),
                "o": Out(stream.Signature(data.StructLayout({"value": value, "overflow": 1}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, term = self.parameters, self.i.payload
        advance, _ = advance_together(m, self.i, self.o, self.latency)

        product = Signal(signed(INPUT_SUM_BITS + ZERO_POINT_BITS), reset_less=True)
        base = Signal(signed(parameters.out_bits + 1), reset_less=True)
        result = Signal(self.o.payload.shape(), reset_less=True)
        value, overflow = limit(m, base - product, parameters.out_bits, "saturate")
        with m.If(advance):
            m.d.sync += [
                product.eq(term.zwf * term.xsum),
                base.eq(term.acc.shift_left(parameters.fraction) + term.bias),
                result.value.eq(value),
                result.overflow.eq(overflow),
            ]
        m.d.comb += self.o.payload.eq(result)
        return m


class CorrectionBench(Bench[kernels.Correction]):
    """Sums within and beyond the value's width."""

    def expected(self, inputs: Fields) -> Fields:
        value, overflow = self.parameters.compute(inputs["acc"], inputs["xsum"], inputs["zwf"], inputs["bias"])
        return {"value": value, "overflow": overflow}

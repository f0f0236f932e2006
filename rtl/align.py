"""Step alignment of one lane: a barrel shifter or an 8-bit multiplier, then the aligned width."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Module, Value
from amaranth.hdl import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.align import MAX_MULTIPLIER, MAX_SHIFT
from .bench import Bench, Fields
from .mac import limit_within, width_layout

__all__ = ["Aligner", "AlignerBench"]


class Aligner(wiring.Component):  # type: ignore[misc]
    """``limit(product << amount)`` or ``limit(product * amount)``, by the kind of alignment.

    Combinational: latency 0, one product a cycle. `product` is a raw pattern that `is_unsigned` says
    how to read. A shift must be 0..8; beyond, the result is undefined. With `formats` the aligned width is an
    input, up to that of the parameters. An aligner by "mul" may have an amount of more bits: a factor of at
    most ``1 << 8`` serves both kinds.
    """

    def __init__(self, parameters: kernels.Aligner, formats: bool = False, amount_bits: int | None = None) -> None:
        self.parameters = parameters
        self.formats = formats
        super().__init__(
            {
                "product": In(parameters.format.product),
                "is_unsigned": In(1),
                "amount": In(parameters.amount_bits if amount_bits is None else amount_bits),
                **({"width": In(width_layout(parameters.format.align))} if formats else {}),
                "aligned": Out(signed(parameters.format.align)),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt = self.parameters.format
        value = Cat(self.product, self.product[-1] & ~self.is_unsigned).as_signed()
        if self.parameters.kind == "shift":
            # Amaranth's shift holds every amount of the port; the legal ones need MAX_SHIFT more bits.
            exact: Value = (value << self.amount)[: len(value) + MAX_SHIFT].as_signed()
        else:
            exact = value * self.amount
        width = self.width if self.formats else None
        aligned, overflow = limit_within(m, exact, fmt.align, fmt.overflow, width)
        m.d.comb += [self.aligned.eq(aligned), self.overflow.eq(overflow)]
        return m


class AlignerBench(Bench[kernels.Aligner]):
    """Every product, read both ways, with every legal amount."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"amount": (0, MAX_SHIFT if self.parameters.kind == "shift" else MAX_MULTIPLIER)}

    def expected(self, inputs: Fields) -> Fields:
        bits = self.parameters.format.product
        negative = (inputs["is_unsigned"] == 0) & (inputs["product"] >= 1 << (bits - 1))
        product = np.where(negative, inputs["product"] - (1 << bits), inputs["product"])
        aligned, overflow = self.parameters.compute(product, inputs["amount"])
        return {"aligned": aligned, "overflow": overflow}

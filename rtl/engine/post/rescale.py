"""Rescale: a value times its channel's scale, rounded in any of the five ways, as a code."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Const, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ....kernels.mac import signed_range
from ....kernels.requant import CONSTANT, MAX_SHIFT
from ....sim.descriptor import CODE_BITS
from ...requant import scale_code, scale_product, scale_quotient

__all__ = ["FEWER_BITS", "MULTIPLIER_BITS", "ROUNDING_BITS", "SHIFT_BITS", "Rescale"]

MULTIPLIER_BITS = 31
SHIFT_BITS = MAX_SHIFT.bit_length()
ROUNDING_BITS = 3
"""Of the index of one of `kernels.Rounding`."""
FEWER_BITS = CONSTANT.bit_length()
"""Of what a channel's codes are narrower by."""


class Rescale(wiring.Component):  # type: ignore[misc]
    """``clamp(round(value * multiplier / 2**shift) + zero_point, low, high)``.

    Latency 3 cycles (product, rounded quotient, code), one value a cycle; `multiplier` and `shift` (0..62;
    31..62 for tflite) come with their value, the rounding and the ends stand still while values are under
    way, `low` at most `high`. Without ends the code is saturated to `out_bits` bits. With `narrows` a channel's `fewer`
    (0..8) comes with its value, and narrows the ends (`kernels.requant.narrowed`). Where `valid` is low nothing
    is computed. `overflow`, a cycle after its value and of no meaning later, says that tflite saturated it to
    32 bits.
    """

    latency = 3

    def __init__(self, in_bits: int, out_bits: int = CODE_BITS, *, ends: bool = True, narrows: bool = False) -> None:
        self.in_bits = in_bits
        self.out_bits = out_bits
        self.ends = ends
        self.narrows = narrows
        code = signed(out_bits)
        super().__init__(
            {
                "valid": In(1),
                "value": In(signed(in_bits)),
                "multiplier": In(MULTIPLIER_BITS),
                "shift": In(SHIFT_BITS),
                "rounding": In(ROUNDING_BITS),
                **({name: In(code) for name in ("zero_point", "low", "high")} if ends else {}),
                **({"fewer": In(FEWER_BITS)} if narrows else {}),
                "overflow": Out(1),
                "code": Out(code),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid = Signal(2)
        m.d.sync += valid.eq((valid << 1) | self.valid)
        # Of the product, then of the quotient.
        early, fewer = Signal(FEWER_BITS, reset_less=True), Signal(FEWER_BITS, reset_less=True)

        exact, shift, lost = scale_product(m, self.value, self.multiplier, self.shift, self.rounding)
        product = Signal(exact.shape(), reset_less=True)
        amount = Signal(SHIFT_BITS, reset_less=True)
        overflow = Signal()
        m.d.sync += overflow.eq(lost & self.valid)
        with m.If(self.valid):
            m.d.sync += [product.eq(exact), amount.eq(shift)]
            if self.narrows:
                m.d.sync += early.eq(self.fewer)

        narrow, up = scale_quotient(m, product, amount, self.rounding, self.out_bits + 2)
        quotient = Signal(signed(self.out_bits + 2), reset_less=True)
        increment = Signal(reset_less=True)
        with m.If(valid[0]):
            m.d.sync += [quotient.eq(narrow), increment.eq(up)]
            if self.narrows:
                m.d.sync += fewer.eq(early)

        if self.ends:
            zero_point, low, high = self.zero_point, self.low, self.high
            if self.narrows:
                places, constant = fewer[:-1], fewer[-1]
                low, high = (Mux(constant, 0, end >> places).as_signed() for end in (self.low, self.high))
        else:
            least, greatest = signed_range(self.out_bits)
            zero_point, low, high = Const(0, 1), Const(least), Const(greatest)
        clamped = scale_code(m, quotient, increment, zero_point, low, high)
        code = Signal(signed(self.out_bits), reset_less=True)
        with m.If(valid[1]):
            m.d.sync += code.eq(clamped)
        m.d.comb += [self.overflow.eq(overflow), self.code.eq(code)]
        return m

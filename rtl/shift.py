"""Shift rows: digits shifted by powers of two, and two narrow sums for the means of focused layers."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.mac import DIGIT_BITS
from ..kernels.shift import CODE_BITS, EXPONENT_FIELD, MAX_EXPONENT
from .bench import Bench, Fields, Layout
from .engine.pipeline import pipelined_sum, tree_stages
from .mac import settled
from .multiplier import digit_values
from .streamed import Streamed

__all__ = ["ShiftPE", "ShiftPEBench", "ShiftRow", "ShiftRowBench", "streamed_shift_row"]

REGISTERS = {
    "focused": 1,
    "value_shift": EXPONENT_FIELD,
    "minus_shift": EXPONENT_FIELD,
    "plus_shift": EXPONENT_FIELD,
    "minus_negative": 1,
    "plus_negative": 1,
}
"""What a row is told about a layer, with its bits."""


def _shifted(m: Module, value: Value, amount: Value, bits: int) -> Value:
    """The low `bits` of a signed value shifted left: a chain of multiplexers, shortest shift (and narrowest) first."""
    for place, chosen in enumerate(amount):
        value = settled(m, Mux(chosen, value.shift_left(1 << place), value)[:bits].as_signed())
    return value


def _negated(m: Module, value: Value, negative: Value) -> Value:
    """A signed value or, where `negative`, its negative; both must fit its width."""
    inverted = value ^ negative.replicate(len(value))
    return settled(m, (inverted + negative)[: len(value)].as_signed())


class ShiftPE(wiring.Component):  # type: ignore[misc]
    """A digit shifted by a code's power of two with its sign, and the digit for the sum of the code's component.

    Combinational: latency 0, one digit a cycle. `digit` is raw, `a_signed` says how to read it; `code` is as
    `kernels.ShiftFormat.pe_codes` gives it. A pruned code makes zeros of all outputs, a zero one of `value`.
    """

    def __init__(self, parameters: kernels.ShiftPE) -> None:
        self.parameters = parameters
        digit = signed(parameters.digit_bits)
        super().__init__(
            {
                "digit": In(DIGIT_BITS),
                "code": In(CODE_BITS),
                "a_signed": In(1),
                "value": Out(signed(parameters.value_bits)),
                "minus": Out(digit),
                "plus": Out(digit),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponent = self.code[:EXPONENT_FIELD]
        odd, negative, component = self.code[EXPONENT_FIELD:][:3]
        digit = settled(m, Cat(self.digit, self.digit[-1] & self.a_signed).as_signed())

        # Negated before it is shifted: five bits are inverted and incremented, not twenty. States 1 and 2 have a value.
        value = settled(m, Mux(odd ^ negative, _negated(m, digit, negative), 0))
        counted = settled(m, ~(odd & negative))
        m.d.comb += [
            self.value.eq(_shifted(m, value, exponent, self.parameters.value_bits)),
            self.minus.eq(Mux(counted & ~component, digit, 0)),
            self.plus.eq(Mux(counted & component, digit, 0)),
        ]
        return m


class ShiftPEBench(Bench[kernels.ShiftPE]):
    """Every digit with every code in both sign modes."""

    def expected(self, inputs: Fields) -> Fields:
        digits = digit_values(inputs["digit"], inputs["a_signed"])
        return self.parameters.compute(digits, inputs["code"])._asdict()


class ShiftRow(wiring.Component):  # type: ignore[misc]
    """The exact sum of a row's digits, each times its weight, one activation word a cycle.

    Free running, latency ``2 + ceil(log2(L) / 2)`` cycles: the PEs and the three trees, a stage for every two levels;
    the sum of shifted digits shifted, the components' sums shifted and negated as their means say; and the sum of
    these. In layers that are not `focused` it is the sum of shifted digits alone, whatever the other registers hold.
    `a_signed` belongs to the word; the registers (`focused`, the shifts and the signs) stand still within a layer: they
    act on the word that leaves the trees, two cycles before its sum is there.
    """

    def __init__(self, parameters: kernels.ShiftRow) -> None:
        self.parameters = parameters
        lanes = parameters.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "codes": In(data.ArrayLayout(CODE_BITS, lanes)),
                "a_signed": In(1),
                **{name: In(bits) for name, bits in REGISTERS.items()},
                "sum": Out(signed(parameters.out_bits)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sum."""
        return 2 + tree_stages(self.parameters.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        terms: dict[str, list[Value]] = {"value": [], "minus": [], "plus": []}
        for lane in range(parameters.lanes):
            m.submodules[f"pe_{lane}"] = pe = ShiftPE(parameters.pe)
            m.d.comb += [
                pe.digit.eq(self.digits[lane]),
                pe.code.eq(self.codes[lane]),
                pe.a_signed.eq(self.a_signed),
            ]
            for name, lane_terms in terms.items():
                lane_terms.append(getattr(pe, name))
        sums = {name: pipelined_sum(m, lane_terms, name) for name, lane_terms in terms.items()}

        # Modulo the width of the sum, which it never leaves.
        bits = parameters.out_bits
        parts = [_shifted(m, sums["value"], Mux(self.focused, self.value_shift, 0), bits)]
        for name, shift, negative in (
            ("minus", self.minus_shift, self.minus_negative),
            ("plus", self.plus_shift, self.plus_negative),
        ):
            counted = settled(m, Mux(self.focused, sums[name], 0))
            parts.append(_shifted(m, _negated(m, counted, negative), shift, bits))
        held = [Signal.like(part, name=f"part_{at}", reset_less=True) for at, part in enumerate(parts)]
        value, minus, plus = held
        # The means' parts have trailing zeros, and are narrower: added first.
        total = Signal(signed(bits), reset_less=True)
        m.d.sync += [
            *(register.eq(part) for register, part in zip(held, parts, strict=True)),
            total.eq(value + settled(m, minus + plus)),
        ]
        m.d.comb += self.sum.eq(total)
        return m


def streamed_shift_row(parameters: kernels.ShiftRow) -> Streamed:
    """The row between two streams; what the registers hold for a word comes with it."""
    return Streamed(ShiftRow(parameters), later=dict.fromkeys(REGISTERS, tree_stages(parameters.lanes)))


class ShiftRowBench(Bench[kernels.ShiftRow]):
    """Words of any layer after each other, exponents within what the value shift leaves of them."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        words = super().stimulus(layout, rng, count)
        most = MAX_EXPONENT - np.where(words["focused"], words["value_shift"], 0)[:, None]
        exponents = words["codes"] & MAX_EXPONENT
        words["codes"] = words["codes"] - exponents + np.minimum(exponents, most)
        return words

    def expected(self, inputs: Fields) -> Fields:
        sums = self.parameters.sums(digit_values(inputs["digits"], inputs["a_signed"][:, None]), inputs["codes"])
        minus, plus = (
            np.where(inputs[f"{name}_negative"], -1, 1) << inputs[f"{name}_shift"] for name in ("minus", "plus")
        )
        return {
            "sum": self.parameters.combine(sums, inputs["focused"].astype(bool), inputs["value_shift"], minus, plus)
        }

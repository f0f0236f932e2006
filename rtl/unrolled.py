"""Unrolled dot products: constants that are wires, and adders of the very widths that their sums need."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from collections.abc import Mapping

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.hdl import Shape
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..kernels import unrolled as kernels
from .bench import Bench, Fields

__all__ = ["Adder", "ConstantMultiplier", "UnrolledDot", "UnrolledDotBench"]


def _extended(value: Value, bits: int) -> Value:
    """A number as `bits` bits, no fewer than it has."""
    missing = bits - len(value)
    sign = value[-1] if value.shape().signed else Const(0, 1)
    return Cat(value, *([sign] * missing))


def _upper(value: Value, place: int) -> Value:
    """A number shifted right: of a place beyond its bits, its sign."""
    if value.shape().signed:
        return value[min(place, len(value) - 1) :].as_signed()
    return value[place:] if place < len(value) else Const(0, 1)


class Adder(wiring.Component):  # type: ignore[misc]
    """A sum of two numbers, or of two and a bit, or a difference. Combinational: latency 0, one result a cycle."""

    def __init__(self, parameters: kernels.Adder) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "a": In(Shape(parameters.a_bits, parameters.a_signed)),
                "b": In(Shape(parameters.b_bits, parameters.b_signed)),
                **({"carry": In(1)} if parameters.carry else {}),
                "out": Out(Shape(parameters.out_bits, parameters.out_signed)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.parameters.subtract:
            m.d.comb += self.out.eq(self.a - self.b)
        elif self.parameters.a_bits == 1:
            # Two ALUTs of an ALM; a carry chain would take two ALMs.
            carry = self.carry if self.parameters.carry else Const(0, 1)
            half = self.a ^ self.b
            m.d.comb += self.out.eq(Cat(half ^ carry, self.a & self.b | half & carry))
        elif self.parameters.carry:
            # The place below the lowest makes the carry: one adder, on a carry chain too.
            shapes = (self.a.shape().signed, self.b.shape().signed)
            parts = (Cat(Const(1, 1), self.a), Cat(self.carry, self.b))
            a, b = (part.as_signed() if signed else part for part, signed in zip(parts, shapes, strict=True))
            m.d.comb += self.out.eq((a + b) >> 1)
        else:
            m.d.comb += self.out.eq(self.a + self.b)
        return m


class ConstantMultiplier(wiring.Component):  # type: ignore[misc]
    """A number times an odd constant, as the sum of its signed digits. Combinational: latency 0, one result a cycle."""

    def __init__(self, parameters: kernels.ConstantMultiplier) -> None:
        self.parameters = parameters
        net = parameters.net
        super().__init__({"a": In(Shape(parameters.bits, parameters.signed)), "out": Out(Shape(net.bits, net.signed))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total: Value | None = None
        # From the highest digit on: it is positive, and so is every number that begins with it.
        for sign, place in reversed(kernels.signed_digits(self.parameters.constant)):
            term = self.a.shift_left(place)
            total = term if total is None else total + term if sign > 0 else total - term
        assert total is not None
        m.d.comb += self.out.eq(total)
        return m


class UnrolledDot(wiring.Component):  # type: ignore[misc]
    """One output of an unrolled layer: constant weights by activations; of planes, bit j of an activation is plane j.

    Combinational: latency 0, one result a cycle. Every adder and every multiplier is a module of its own, as
    `kernels.unrolled.Circuit` has them; all else is wires.
    """

    def __init__(self, parameters: kernels.UnrolledDot) -> None:
        self.parameters = parameters
        circuit = parameters.circuit
        net = circuit.net
        shape = Shape(net.bits + circuit.result.place, net.signed)
        super().__init__(
            {
                "activations": In(data.ArrayLayout(Shape(parameters.bits, parameters.signed), parameters.taps)),
                "sum": Out(shape),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, circuit = self.parameters, self.parameters.circuit
        taps = [self.activations[tap] for tap in range(parameters.taps)]
        if parameters.activation_planes:
            taps = [tap[plane] for plane in range(parameters.bits) for tap in taps]
        nets: dict[int, Value] = {-1: Const(0, 1), **dict(enumerate(taps))}
        for at, (constant, net) in enumerate(circuit.multipliers):
            m.submodules[f"multiplier_{at}"] = multiplier = ConstantMultiplier(constant)
            m.d.comb += multiplier.a.eq(nets[net])
            nets[len(taps) + at] = multiplier.out
        for at, (made, step) in enumerate(circuit.steps()):
            nets[made] = self._added(m, at, step, nets)
        m.d.comb += self.sum.eq(nets[circuit.result.net].shift_left(circuit.result.place))
        return m

    @staticmethod
    def _added(m: Module, at: int, step: kernels.Step, nets: Mapping[int, Value]) -> Value:
        """The result of a step."""
        a, b = nets[step.a], nets[step.b]
        low = _extended(a, max(step.place, len(a)))[: step.place]
        if step.adder is None:
            upper: Value = b
        else:
            m.submodules[f"adder_{at}"] = adder = Adder(step.adder)
            operands = [_upper(a, step.place) if step.place else a.shift_left(step.lift), b]
            if step.swapped:
                operands.reverse()
            m.d.comb += [adder.a.eq(operands[0]), adder.b.eq(operands[1])]
            if step.adder.carry:
                m.d.comb += adder.carry.eq(nets[step.carry])
            upper = adder.out
        made = Signal(Shape(step.net.bits, step.net.signed), name=f"net_{at}")
        m.d.comb += made.eq(Cat(low, upper))
        return made


class UnrolledDotBench(Bench[kernels.UnrolledDot]):
    """Activations of all values; all-extreme ones among them."""

    def expected(self, inputs: Fields) -> Fields:
        return {"sum": self.parameters.compute(inputs["activations"])}

"""Clip statistics at run time: mean, deviation, ACIQ's clip value and the multiplier that it makes, of one channel."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.statistics import FACTOR_BITS, FACTOR_FRACTION, LEVEL_BITS, MULTIPLIER_BITS
from .mac import settled
from .stepped import Cycle, Driver, Spells, StepBench

__all__ = ["ClipStatistics", "ClipStatisticsBench"]

LONGEST = 24
"""Values of a channel in a bench, at most."""


def result_layout(parameters: kernels.ClipStatistics) -> data.StructLayout:
    """What leaves: `kernels.Clips`."""
    value = signed(parameters.value_bits)
    return data.StructLayout(
        {
            "mean": value,
            "deviation": parameters.value_bits,
            "offset": value,
            "range": parameters.range_bits,
            "multiplier": MULTIPLIER_BITS,
            "shift": parameters.shift_bits,
        }
    )


class _Gather(wiring.Component):  # type: ignore[misc]
    """The sums over a channel's values and the least one, a value a cycle: what each channel has for itself.

    `total` is the sum or, with `deviating`, that of distances from the mean; `squares` those of a Gaussian prior.
    """

    def __init__(self, parameters: kernels.ClipStatistics) -> None:
        self.parameters = parameters
        value = signed(parameters.value_bits)
        squares = {"squares": Out(parameters.square_bits)} if parameters.prior == "gauss" else {}
        super().__init__(
            {
                "value": In(value),
                "take": In(1),
                "first": In(1),
                "deviating": In(1),
                "mean": In(value),
                "total": Out(signed(parameters.sum_bits + 1)),
                "least": Out(value),
                **squares,
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, value = self.parameters, self.value
        term = value
        if parameters.prior == "laplace":
            distance = settled(m, value - self.mean)
            term = settled(m, Mux(self.deviating, Mux(distance < 0, -distance, distance), value))
        with m.If(self.take):
            m.d.sync += self.total.eq(Mux(self.first, 0, self.total) + term)
            with m.If(~self.deviating & (self.first | (value < self.least))):
                m.d.sync += self.least.eq(value)
            if parameters.prior == "gauss":
                m.d.sync += self.squares.eq(Mux(self.first, 0, self.squares) + (value * value).as_unsigned())
        return m


class _Finish(wiring.Component):  # type: ignore[misc]
    """From sums to the multiplier: one multiplication, root and division, which channels may take turns at."""

    def __init__(self, parameters: kernels.ClipStatistics) -> None:
        self.parameters = parameters
        squares = {"squares": In(parameters.square_bits)} if parameters.prior == "gauss" else {}
        super().__init__(
            {
                "ended": In(1),
                "total": In(signed(parameters.sum_bits + 1)),
                "least": In(signed(parameters.value_bits)),
                **squares,
                "reciprocal": In(parameters.reciprocal_bits),
                "reciprocal_shift": In(parameters.reciprocal_shift_bits),
                "factor": In(FACTOR_BITS),
                "levels": In(LEVEL_BITS),
                "half": In(1),
                "idle": Out(1),
                "deviating": Out(1),
                "result": Out(stream.Signature(result_layout(parameters))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, result = self.parameters, Signal(result_layout(self.parameters), reset_less=True)
        gauss = parameters.prior == "gauss"
        m.d.comb += self.result.payload.eq(result)

        # One multiplier for all: sums by the reciprocal of their count, the deviation by ACIQ's factor.
        wide = parameters.square_bits + 1 if gauss else parameters.sum_bits + 1
        operand = Signal(signed(wide))
        coefficient = Signal(max(parameters.reciprocal_bits, FACTOR_BITS))
        product = Signal(signed(wide + len(coefficient)), reset_less=True)
        m.d.comb += [operand.eq(self.total), coefficient.eq(self.reciprocal)]
        m.d.sync += product.eq(operand * coefficient)
        over_count = settled(m, (((product >> (self.reciprocal_shift - 1)[: len(self.reciprocal_shift)]) + 1) >> 1))
        alpha = settled(m, ((product + (1 << FACTOR_FRACTION - 1)) >> FACTOR_FRACTION)[: parameters.alpha_bits])

        left = Signal(range(parameters.divide_steps))
        remainder = Signal(parameters.range_bits, reset_less=True)
        radicand = Signal(2 * parameters.value_bits, reset_less=True)
        rest = Signal(parameters.value_bits + 2, reset_less=True)

        with m.FSM():
            with m.State("values"):
                m.d.comb += self.idle.eq(1)
                with m.If(self.ended):
                    m.next = "scale"
            with m.State("scale"):
                if gauss:
                    m.next = "mean"
                else:
                    with m.If(self.deviating):
                        m.next = "deviation"
                    with m.Else():
                        m.next = "mean"
            with m.State("mean"):
                m.d.sync += result.mean.eq(over_count)
                if gauss:
                    m.d.comb += operand.eq(self.squares)
                    m.next = "square"
                else:
                    m.d.sync += self.deviating.eq(1)
                    m.next = "values"
            if gauss:
                with m.State("square"):
                    variance = settled(m, over_count - result.mean * result.mean)
                    m.d.sync += [
                        radicand.eq(Mux(variance < 0, 0, variance)),
                        rest.eq(0),
                        result.deviation.eq(0),
                        left.eq(parameters.root_steps - 1),
                    ]
                    m.next = "root"
                with m.State("root"):
                    # Two bits of the radicand, one of the root.
                    grown = settled(m, Cat(radicand[-2:], rest))
                    less = settled(m, grown - Cat(1, 0, result.deviation))
                    m.d.sync += [
                        radicand.eq(radicand << 2),
                        rest.eq(Mux(less < 0, grown, less)),
                        result.deviation.eq(Cat(less >= 0, result.deviation)),
                        left.eq(left - 1),
                    ]
                    with m.If(left == 0):
                        m.next = "alpha"
            else:
                with m.State("deviation"):
                    m.d.sync += [result.deviation.eq(over_count), self.deviating.eq(0)]
                    m.next = "alpha"
            with m.State("alpha"):
                m.d.comb += [operand.eq(result.deviation), coefficient.eq(self.factor)]
                m.next = "clip"
            with m.State("clip"):
                below = settled(m, result.mean - alpha)
                span = settled(m, Mux(self.half, Mux(result.mean < 0, 0, result.mean) + alpha, alpha << 1))
                m.d.sync += [
                    result.offset.eq(Mux(self.half, 0, Mux(below < self.least, self.least, below))),
                    result.range.eq(Mux(span >> LEVEL_BITS == 0, 1 << LEVEL_BITS, span)),
                    result.multiplier.eq(0),
                    result.shift.eq(0),
                    remainder.eq(self.levels),
                    left.eq(parameters.divide_steps - 1),
                ]
                m.next = "divide"
            with m.State("divide"):
                # A bit of the quotient, until its top one is in its place: then the rest of the steps do nothing.
                grown = settled(m, remainder << 1)
                less = settled(m, grown - result.range)
                with m.If(~result.multiplier[-1]):
                    m.d.sync += [
                        remainder.eq(Mux(less < 0, grown, less)),
                        result.multiplier.eq(Cat(less >= 0, result.multiplier)),
                        result.shift.eq(result.shift + 1),
                    ]
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "done"
            with m.State("done"):
                m.d.comb += self.result.valid.eq(1)
                with m.If(self.result.ready):
                    m.next = "values"
        return m


class ClipStatistics(wiring.Component):  # type: ignore[misc]
    """A channel's values in, once for each pass, the last one of each marked; its clips out, behind the last pass.

    Takes a value a cycle. With a Laplace prior it takes none for `mean_cycles` behind the first pass; the result is
    there `finish_cycles` + 1 cycles after the last value, whatever the values are, and must be taken before the next
    channel begins. The constants must hold from a channel's first value to its result: the count's reciprocal and its
    shift, ACIQ's factor for the width, the greatest code, and whether a ReLU follows.
    """

    def __init__(self, parameters: kernels.ClipStatistics) -> None:
        self.parameters = parameters
        value = data.StructLayout({"value": signed(parameters.value_bits), "last": 1})
        super().__init__(
            {
                "i": In(stream.Signature(value)),
                "reciprocal": In(parameters.reciprocal_bits),
                "reciprocal_shift": In(parameters.reciprocal_shift_bits),
                "factor": In(FACTOR_BITS),
                "levels": In(LEVEL_BITS),
                "half": In(1),
                "o": Out(stream.Signature(result_layout(parameters))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.gather = gather = _Gather(self.parameters)
        m.submodules.finish = finish = _Finish(self.parameters)
        fresh, take = Signal(init=1), Signal()
        m.d.comb += [
            self.i.ready.eq(finish.idle),
            take.eq(self.i.valid & self.i.ready),
            gather.value.eq(self.i.payload.value),
            gather.take.eq(take),
            gather.first.eq(fresh),
            gather.deviating.eq(finish.deviating),
            gather.mean.eq(finish.result.payload.mean),
            finish.ended.eq(take & self.i.payload.last),
            finish.total.eq(gather.total),
            finish.least.eq(gather.least),
            *(getattr(finish, name).eq(getattr(self, name)) for name in CONSTANTS),
        ]
        if self.parameters.prior == "gauss":
            m.d.comb += finish.squares.eq(gather.squares)
        with m.If(take):
            m.d.sync += fresh.eq(self.i.payload.last)
        wiring.connect(m, finish.result, wiring.flipped(self.o))
        return m


CONSTANTS = ("reciprocal", "reciprocal_shift", "factor", "levels", "half")


class StatisticsModel:
    """Registers of `ClipStatistics`: the values of a pass, and the result as far as it has come."""

    def __init__(self, parameters: kernels.ClipStatistics) -> None:
        self.parameters = parameters
        self.state = "values"
        self.values: list[int] = []
        self.least = self.total = self.steps = 0
        self.deviating = False
        self.result = dict.fromkeys(kernels.Clips._fields, 0)

    def step(self, inputs: Cycle) -> Cycle:
        outputs = {f"o_{name}": value for name, value in self.result.items()}
        outputs |= {"i_ready": int(self.state == "values"), "o_valid": int(self.state == "done")}
        self.state = getattr(self, f"_{self.state}")(inputs)
        return outputs

    def _values(self, inputs: Cycle) -> str:
        if not inputs["i_valid"]:
            return "values"
        self.values.append(inputs["i_value"])
        return "scale" if inputs["i_last"] else "values"

    def _over_count(self, total: int, inputs: Cycle) -> int:
        return int(self.parameters.divided(np.array(total), inputs["reciprocal"], inputs["reciprocal_shift"]))

    def _scale(self, inputs: Cycle) -> str:
        return "deviation" if self.deviating else "mean"

    def _mean(self, inputs: Cycle) -> str:
        self.result["mean"], self.least = self._over_count(sum(self.values), inputs), min(self.values)
        if self.parameters.prior == "gauss":
            return "square"
        self.values, self.deviating = [], True
        return "values"

    def _deviation(self, inputs: Cycle) -> str:
        self.result["deviation"] = self._over_count(sum(abs(v - self.result["mean"]) for v in self.values), inputs)
        self.values, self.deviating = [], False
        return "alpha"

    def _square(self, inputs: Cycle) -> str:
        square = self._over_count(sum(value * value for value in self.values), inputs)
        self.total = int(self.parameters.variance(np.array(square), np.array(self.result["mean"])))
        self.result["deviation"], self.steps, self.values = 0, 0, []
        return "root"

    def _root(self, inputs: Cycle) -> str:
        self.steps += 1
        self.result["deviation"] = int(self.parameters.root(np.array(self.total), self.steps))
        return "root" if self.steps < self.parameters.root_steps else "alpha"

    def _alpha(self, inputs: Cycle) -> str:
        return "clip"

    def _clip(self, inputs: Cycle) -> str:
        mean, deviation, least = (
            np.array(each) for each in (self.result["mean"], self.result["deviation"], self.least)
        )
        offset, span = self.parameters.clipped(mean, deviation, least, inputs["factor"], bool(inputs["half"]))
        self.result |= {"offset": int(offset), "range": int(span), "multiplier": 0, "shift": 0}
        self.steps = 0
        return "divide"

    def _divide(self, inputs: Cycle) -> str:
        self.steps += 1
        found = self.parameters.multiplier(np.array([self.result["range"]]), inputs["levels"], self.steps)
        self.result |= {"multiplier": int(found[0][0]), "shift": int(found[1][0])}
        return "divide" if self.steps < self.parameters.divide_steps else "done"

    def _done(self, inputs: Cycle) -> str:
        return "values" if inputs["o_ready"] else "done"


class ClipStatisticsBench(StepBench[kernels.ClipStatistics]):
    """Channels of random length, spread and place, each passed as often as its prior wants."""

    def model(self) -> StatisticsModel:
        return StatisticsModel(self.parameters)

    def driver(self, rng: np.random.Generator) -> Driver:
        parameters, offers, takes = self.parameters, Spells(rng), Spells(rng)
        ends = 1 << parameters.value_bits - 1
        while True:
            count = int(rng.integers(1, min(LONGEST, 1 << parameters.count_bits), endpoint=True))
            # Often narrow: where all values are the same, nothing may go below 0.
            spread = max(1, int(rng.integers(0, 2 * ends)) >> int(rng.integers(0, parameters.value_bits + 2)))
            values = np.clip(rng.integers(-ends, ends) + rng.integers(1 - spread, spread, count), -ends, ends - 1)
            reciprocal, shift = parameters.reciprocal(count)
            constants = {
                "reciprocal": reciprocal,
                "reciprocal_shift": shift,
                "factor": int(rng.integers(1, 1 << FACTOR_BITS)),
                "levels": (1 << int(rng.integers(1, LEVEL_BITS, endpoint=True))) - 1,
                "half": int(rng.integers(2)),
            }
            for _ in range(parameters.passes):
                for index, value in enumerate(values.tolist()):
                    taken = False
                    while not taken:
                        offered = offers.go()
                        payload = {"i_valid": int(offered), "i_value": value, "i_last": int(index == count - 1)}
                        outputs = yield {**payload, **constants, "o_ready": int(takes.go())}
                        taken = offered and bool(outputs["i_ready"])
            taken = False
            while not taken:
                ready = takes.go()
                outputs = yield {"i_valid": 0, **constants, "o_ready": int(ready)}
                taken = ready and bool(outputs["o_valid"])

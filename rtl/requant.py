"""Requantisers: scale (multiply, shift, round, clamp) and threshold (count comparisons)."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from typing import get_args

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import Shape, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.requant import MAX_SHIFT, TFLITE_SHIFT
from .bench import Bench, Fields, Layout
from .mac import limit, settled
from .pipeline import advance_together
from .tree import balanced_sum

__all__ = [
    "ScaleRequantizer",
    "ScaleRequantizerBench",
    "ThresholdRequantizer",
    "ThresholdRequantizerBench",
    "scale_code",
    "scale_product",
    "scale_quotient",
]

ROUNDINGS = get_args(kernels.Rounding)
VALUE_BITS_TFLITE = 32


def _shift_right(m: Module, value: Value, amount: Value, bits: int) -> tuple[Value, Value, Value, Value]:
    """``value >> amount`` in `bits` bits, whether it does not fit them, the half bit, and whether anything lies below.

    The long steps go first, so that each leaves only what the shorter ones can still move into the result.
    """
    shifted: Value = Cat(Const(0, 1), value).as_signed()
    below, lost = Const(0, 1), Const(0, 1)
    for index in reversed(range(len(amount))):
        step, bit = 1 << index, amount[index]
        below |= bit & shifted[:step].any()
        moved = shifted.shift_right(step)
        lost |= Mux(bit, _beyond(moved, bits + step), _beyond(shifted, bits + step))
        shifted = settled(m, Mux(bit, moved[: bits + step].as_signed(), shifted[: bits + step].as_signed()))
    return shifted[1:].as_signed(), lost, shifted[0], below


def _beyond(value: Value, bits: int) -> Value:
    """Whether a signed value does not fit `bits` bits."""
    above = value[bits - 1 :]
    return above.any() & ~above.all() if len(value) > bits else Const(0, 1)


def _increment(odd: Value, negative: Value, half: Value, below: Value, rounding: kernels.Rounding | Value) -> Value:
    """What rounding adds to a floor quotient, odd or not, negative or not."""
    if isinstance(rounding, Value):
        ties = Mux(_is(rounding, "half_even"), odd, _is(rounding, "half_up") | ~negative)
        return half & (below | ties) & ~_is(rounding, "floor")
    match rounding:
        case "half_even":
            return half & (below | odd)
        case "half_away" | "tflite":
            return half & (below | ~negative)
        case "half_up":
            return half
        case _:
            return Const(0, 1)


def _is(rounding: Value, name: kernels.Rounding) -> Value:
    """Whether a signal is the index of that rounding."""
    return rounding == ROUNDINGS.index(name)


def scale_product(
    m: Module, value: Value, multiplier: Value, shift: Value, rounding: kernels.Rounding | Value
) -> tuple[Value, Value, Value]:
    """First of three stages of requantisation by scale: the exact product.

    Returns it, the amount to shift it by in the next stage, and whether tflite, which first saturates the
    value to 32 bits, did so. In each stage the rounding is the name of one or a signal, the index of one.
    """
    if isinstance(rounding, Value):
        limited, lost = limit(m, value, VALUE_BITS_TFLITE, "saturate")
        tflite = _is(rounding, "tflite")
        return settled(m, Mux(tflite, limited, value).as_signed()) * multiplier, shift, lost & tflite
    if rounding == "tflite":
        limited, lost = limit(m, value, VALUE_BITS_TFLITE, "saturate")
        return limited * multiplier, (shift - TFLITE_SHIFT)[: TFLITE_SHIFT.bit_length()], lost
    return value * multiplier, shift, Const(0, 1)


def scale_quotient(
    m: Module, product: Value, amount: Value, rounding: kernels.Rounding | Value, bits: int
) -> tuple[Value, Value]:
    """Second stage: the floor quotient, saturated to `bits` bits, and what rounding adds to it.

    tflite's first rounding, to nearest with ties upward, is an addition below: gemmlowp's nudge and
    truncation toward zero come to the same.
    """
    dividend = product
    if isinstance(rounding, Value):
        # The first division's quotient stays in its place, with zeros below.
        tflite = settled(m, _is(rounding, "tflite"))
        high = product[TFLITE_SHIFT:].as_signed() + (product[TFLITE_SHIFT - 1] & tflite)
        low = Mux(tflite, 0, product[:TFLITE_SHIFT])
        dividend = settled(m, Cat(low, high).as_signed())
    elif rounding == "tflite":
        dividend = settled(m, (product + (1 << (TFLITE_SHIFT - 1)))[TFLITE_SHIFT:].as_signed())
    quotient, lost, half, below = _shift_right(m, dividend, amount, bits)
    sign = dividend[-1]
    end = Cat((~sign).replicate(bits - 1), sign)
    return Mux(lost, end, quotient).as_signed(), _increment(quotient[0], sign, half, below, rounding)


def scale_code(m: Module, quotient: Value, increment: Value, zero_point: Value, low: Value, high: Value) -> Value:
    """Third stage: zero point and clamp.

    Two bits beyond the code are enough for the quotient: no zero point brings one that saturates there
    back between the ends.
    """
    total = settled(m, quotient + zero_point + increment)
    above = settled(m, Mux(total < low, low, total))
    return Mux(above > high, high, above)


class ScaleRequantizer(wiring.Component):  # type: ignore[misc]
    """``clamp(round(value * multiplier / 2**shift) + zero_point, low, high)``.

    Latency 3 cycles (product, rounded quotient, code), throughput one value a cycle. Every value
    carries its channel's constants. `shift` must be 0..62 (31..62 for tflite, which first
    saturates the value to 32 bits and says so in `overflow`); `low` must not exceed `high`.
    """

    latency = 3

    def __init__(self, parameters: kernels.ScaleRequantizer) -> None:
        self.parameters = parameters
        code = Shape(parameters.out_bits, parameters.out_signed)
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "value": signed(parameters.in_bits),
                                "multiplier": parameters.multiplier_bits,
                                "shift": MAX_SHIFT.bit_length(),
                                "zero_point": code,
                                "low": code,
                                "high": code,
                            }
                        )
                    )
                ),
                "o": Out(stream.Signature(data.StructLayout({"code": code, "overflow": 1}))),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, value = self.parameters, self.i.payload
        advance, _ = advance_together(m, self.i, self.o, self.latency)
        ends = data.StructLayout({name: value.low.shape() for name in ("zero_point", "low", "high")})

        # Stage 1: the exact product.
        exact, shift, lost = scale_product(m, value.value, value.multiplier, value.shift, parameters.rounding)
        product = Signal(exact.shape(), reset_less=True)
        amount = Signal(len(shift), reset_less=True)
        ends_1 = Signal(ends, reset_less=True)
        overflow_1 = Signal(reset_less=True)
        with m.If(advance):
            m.d.sync += [
                product.eq(exact),
                amount.eq(shift),
                overflow_1.eq(lost),
                *(ends_1[name].eq(value[name]) for name in ("zero_point", "low", "high")),
            ]

        # Stage 2: the quotient.
        narrow, up = scale_quotient(m, product, amount, parameters.rounding, parameters.out_bits + 2)
        quotient = Signal(signed(parameters.out_bits + 2), reset_less=True)
        increment = Signal(reset_less=True)
        ends_2 = Signal.like(ends_1)
        overflow_2 = Signal.like(overflow_1)
        with m.If(advance):
            m.d.sync += [
                quotient.eq(narrow),
                increment.eq(up),
                ends_2.eq(ends_1),
                overflow_2.eq(overflow_1),
            ]

        # Stage 3: the code.
        code = scale_code(m, quotient, increment, ends_2.zero_point, ends_2.low, ends_2.high)
        result = Signal(self.o.payload.shape(), reset_less=True)
        with m.If(advance):
            m.d.sync += [
                result.code.eq(code),
                result.overflow.eq(overflow_2),
            ]
        m.d.comb += self.o.payload.eq(result)
        return m


class ScaleRequantizerBench(Bench[kernels.ScaleRequantizer]):
    """Values of every magnitude, shifts that leave few bits, and exact ties."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"shift": (self.parameters.min_shift, MAX_SHIFT)}

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        vectors = super().stimulus(layout, rng, count)
        parameters = self.parameters

        # A random shift mostly leaves all or nothing; this one leaves about a code.
        size = np.frexp(np.abs(vectors["value"]).astype(float) * vectors["multiplier"])[1]
        aimed = size - rng.integers(1, parameters.out_bits + 2, count)
        aim = rng.random(count) < 1 / 2
        vectors["shift"][aim] = aimed[aim].clip(parameters.min_shift, MAX_SHIFT)

        # Ties: an odd multiple of a power of two, shifted to one place below the point. tflite's
        # point is fixed, so that its ties fall to the first rounding or, above, to the second.
        tie = rng.random(count) < 1 / 4
        top = parameters.multiplier_bits - 1
        power = np.full(count, top) if parameters.rounding == "tflite" else rng.integers(0, top, count, endpoint=True)
        above = rng.integers(0, 4, count)
        span = 1 << (parameters.out_bits - 1)
        odd = rng.integers(-span, span, count) | 1
        vectors["value"][tie] = (odd << above)[tie].clip(*layout.fields[0].range)
        vectors["multiplier"][tie] = 1 << power[tie]
        vectors["shift"][tie] = (power + 1 + above)[tie]

        # The model takes one zero point and clamp for many values, so a few sets serve all.
        least, greatest = parameters.code_range
        sets = np.sort(rng.integers(least, greatest, (12, 2), endpoint=True), axis=1)
        sets[:4] = least, greatest
        zero_points = rng.integers(least, greatest, 12, endpoint=True)
        zero_points[:4] = 0, least, greatest, 0
        chosen = rng.integers(0, 12, count)
        vectors["low"], vectors["high"] = sets[chosen].T
        vectors["zero_point"] = zero_points[chosen]
        return vectors

    def expected(self, inputs: Fields) -> Fields:
        code = np.empty(len(inputs["value"]), dtype=np.int64)
        overflow = np.empty_like(code)
        ends = np.stack([inputs["zero_point"], inputs["low"], inputs["high"]], axis=1)
        for zero_point, low, high in np.unique(ends, axis=0):
            at = (ends == (zero_point, low, high)).all(axis=1)
            # Each vector is a channel of its own.
            codes, counts = self.parameters.compute(
                inputs["value"][None, at], inputs["multiplier"][at], inputs["shift"][at], zero_point, low, high
            )
            code[at], overflow[at] = codes[0], counts
        return {"code": code, "overflow": overflow}


class ThresholdRequantizer(wiring.Component):  # type: ignore[misc]
    """The number of thresholds that a value reaches, from below or, `descending`, from above.

    Latency 2 cycles (comparisons, count), throughput one value a cycle. Every value carries its
    channel's thresholds, in any order.
    """

    latency = 2

    def __init__(self, parameters: kernels.ThresholdRequantizer) -> None:
        self.parameters = parameters
        value = signed(parameters.in_bits)
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "value": value,
                                "thresholds": data.ArrayLayout(value, parameters.thresholds),
                                "descending": 1,
                            }
                        )
                    )
                ),
                "o": Out(
                    stream.Signature(data.StructLayout({"code": Shape(parameters.out_bits, parameters.out_signed)}))
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, value = self.parameters, self.i.payload
        advance, _ = advance_together(m, self.i, self.o, self.latency)
        reached = Signal(parameters.thresholds, reset_less=True)
        result = Signal(self.o.payload.shape(), reset_less=True)
        # Complementing both sides turns the order round: v <= t is ~v >= ~t.
        turn = value.descending.replicate(parameters.in_bits)
        operand = settled(m, (value.value.as_unsigned() ^ turn).as_signed())
        with m.If(advance):
            for index in range(parameters.thresholds):
                threshold = (value.thresholds[index].as_unsigned() ^ turn).as_signed()
                m.d.sync += reached[index].eq(operand >= threshold)
            m.d.sync += result.code.eq(balanced_sum(list(reached)) + parameters.base)
        m.d.comb += self.o.payload.eq(result)
        return m


class ThresholdRequantizerBench(Bench[kernels.ThresholdRequantizer]):
    """Sorted and unsorted thresholds, values on and beside them, both directions."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        vectors = super().stimulus(layout, rng, count)
        ascending = rng.random(count) < 1 / 2
        vectors["thresholds"][ascending] = np.sort(vectors["thresholds"][ascending], axis=1)
        beside = rng.random(count) < 2 / 3
        picked = vectors["thresholds"][np.arange(count), rng.integers(0, self.parameters.thresholds, count)]
        near = (picked + rng.integers(-1, 1, count, endpoint=True)).clip(*layout.fields[0].range)
        vectors["value"] = np.where(beside, near, vectors["value"])
        return vectors

    def expected(self, inputs: Fields) -> Fields:
        # Each vector is a channel of its own.
        codes = self.parameters.compute(inputs["value"][None], inputs["thresholds"], inputs["descending"])
        return {"code": codes[0]}

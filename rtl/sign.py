"""Sign rows: activations added and subtracted by weights of one bit, and counted where they are signs too."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from collections.abc import Sequence

import numpy as np
from amaranth import Cat, Const, Module, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.mac import DIGIT_BITS
from .bench import Bench, Fields, Layout
from .engine.pipeline import STAGE_FAN_IN, pipelined_sum, tree_stages
from .mac import settled
from .streamed import Streamed

__all__ = [
    "CountedPopcountRow",
    "PopcountRow",
    "PopcountRowBench",
    "SignRow",
    "SignRowBench",
    "streamed_popcount_row",
    "streamed_sign_row",
]


def _carried_sum(m: Module, terms: Sequence[Value], carries: list[Value]) -> Value:
    """Exact sum of signed terms; every adder takes a bit to add from the end of `carries` as its carry in."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    lower, upper = (_carried_sum(m, part, carries) for part in (terms[:middle], terms[middle:]))
    # The place below the lowest makes the carry: one adder, on a carry chain too.
    total = Cat(Const(1, 1), lower).as_signed() + Cat(carries.pop(), upper).as_signed()
    return settled(m, total[1:].as_signed())


def _pipelined_carried_sum(m: Module, terms: Sequence[Value], carries: list[Value]) -> Value:
    """`pipelined_sum` of signed terms, with a bit to add for each; the last of these is added behind its last stage."""
    stage = 0
    while len(terms) > 1:
        sums = [_carried_sum(m, terms[at : at + STAGE_FAN_IN], carries) for at in range(0, len(terms), STAGE_FAN_IN)]
        terms = [Signal(value.shape(), name=f"sum_{stage}_{at}", reset_less=True) for at, value in enumerate(sums)]
        held = [Signal(name=f"carry_{stage}_{at}", reset_less=True) for at in range(len(carries))]
        m.d.sync += [register.eq(value) for register, value in zip([*terms, *held], [*sums, *carries], strict=True)]
        carries = list(held)
        stage += 1
    return terms[0] + carries[0]


class SignRow(wiring.Component):  # type: ignore[misc]
    """The exact sum of a row's activations, each with the sign of its weight, one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles: the lanes' terms, a stage for every two levels of the tree, and the last
    carry; throughput one word a cycle. A bit of 1 adds its lane's digit, 0 subtracts it; lanes outside of `mask`
    add nothing. Digits are raw, `a_signed` says how to read them; where `binary`, bit 0 alone says +1 or
    -1, and the sum is ``2 * popcount(xnor & mask) - popcount(mask)``. All of these belong to the word.
    """

    def __init__(self, parameters: kernels.SignRow) -> None:
        self.parameters = parameters
        lanes = parameters.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "bits": In(data.ArrayLayout(1, lanes)),
                "mask": In(data.ArrayLayout(1, lanes)),
                "a_signed": In(1),
                "binary": In(1),
                "sum": Out(signed(parameters.out_bits)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sum."""
        return 2 + tree_stages(self.parameters.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # A negated term is its complement and one more, which the tree adds; so a lane without weight stays 0.
        layout = data.StructLayout({"term": signed(DIGIT_BITS + 1), "negated": 1})
        held = [Signal(layout, name=f"lane_{lane}", reset_less=True) for lane in range(self.parameters.lanes)]
        for lane, register in enumerate(held):
            digit, mask = self.digits[lane], self.mask[lane]
            upper = settled(m, mask & ~self.binary)
            negated = settled(m, self.bits[lane] ^ (digit[0] | ~self.binary))
            value = Cat(
                (digit[0] | self.binary) & mask,
                digit[1:] & upper.replicate(DIGIT_BITS - 1),
                digit[-1] & upper & self.a_signed,
            )
            m.d.sync += [register.term.eq(value ^ negated.replicate(len(value))), register.negated.eq(negated)]

        result = Signal(self.sum.shape(), reset_less=True)
        m.d.sync += result.eq(_pipelined_carried_sum(m, [lane.term for lane in held], [lane.negated for lane in held]))
        m.d.comb += self.sum.eq(result)
        return m


class PopcountRow(wiring.Component):  # type: ignore[misc]
    """``2 * popcount(xnor(a, w) & mask) - active``: the sum of a row's products of signs, one word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles: agreement, a stage for every two levels of the count, the sum; throughput
    one word a cycle. `active` is ``popcount(mask)``, which is the same for all rows of an array: it comes
    ``latency - 1`` cycles after its word.
    """

    def __init__(self, parameters: kernels.PopcountRow) -> None:
        self.parameters = parameters
        bits = data.ArrayLayout(1, parameters.lanes)
        super().__init__(
            {
                "a": In(bits),
                "w": In(bits),
                "mask": In(bits),
                "active": In(range(parameters.lanes + 1)),
                "sum": Out(signed(parameters.out_bits)),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sum."""
        return 2 + tree_stages(self.parameters.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        agrees = Signal(self.parameters.lanes, reset_less=True)
        m.d.sync += agrees.eq(~(self.a.as_value() ^ self.w.as_value()) & self.mask.as_value())
        count = pipelined_sum(m, list(agrees), "count")
        result = Signal(self.sum.shape(), reset_less=True)
        m.d.sync += result.eq((count << 1) - self.active)
        m.d.comb += self.sum.eq(result)
        return m


class CountedPopcountRow(wiring.Component):  # type: ignore[misc]
    """A `PopcountRow` with the count of its mask, which an array has once: latency and throughput are the row's."""

    def __init__(self, parameters: kernels.PopcountRow) -> None:
        self.parameters = parameters
        self.row = PopcountRow(parameters)
        self.latency = self.row.latency
        members = dict(self.row.signature.members)
        del members["active"]
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.row = row = self.row
        mask = Signal(self.parameters.lanes, reset_less=True)
        m.d.sync += mask.eq(self.mask)
        m.d.comb += [
            row.a.eq(self.a),
            row.w.eq(self.w),
            row.mask.eq(self.mask),
            row.active.eq(pipelined_sum(m, list(mask), "active")),
            self.sum.eq(row.sum),
        ]
        return m


def streamed_sign_row(parameters: kernels.SignRow) -> Streamed:
    """A `SignRow` between streams."""
    return Streamed(SignRow(parameters))


def streamed_popcount_row(parameters: kernels.PopcountRow) -> Streamed:
    """A `CountedPopcountRow` between streams."""
    return Streamed(CountedPopcountRow(parameters))


class SignRowBench(Bench[kernels.SignRow]):
    """Words in every mode, with lanes masked out in half of them."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        words = super().stimulus(layout, rng, count)
        words["mask"][rng.random(count) < 1 / 2] = 1
        return words

    def expected(self, inputs: Fields) -> Fields:
        row = self.parameters
        values = row.values(inputs["digits"], inputs["a_signed"][:, None], inputs["binary"][:, None])
        return {"sum": row.compute(values, inputs["bits"], inputs["mask"])}


class PopcountRowBench(Bench[kernels.PopcountRow]):
    """Words whose lanes agree and disagree, with lanes masked out in half of them."""

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        words = super().stimulus(layout, rng, count)
        words["mask"][rng.random(count) < 1 / 2] = 1
        return words

    def expected(self, inputs: Fields) -> Fields:
        return {"sum": self.parameters.compute(inputs["a"], inputs["w"], inputs["mask"])}

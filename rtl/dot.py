"""Dot-product row: L multipliers and aligners, one adder tree, one accumulator."""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

import numpy as np
from amaranth import Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.accumulator import MAX_DIGIT_SHIFT
from ..kernels.align import MAX_MULTIPLIER, MAX_SHIFT
from ..kernels.mac import DIGIT_BITS
from .accumulator import DIGIT_SHIFT_BITS, Accumulator
from .align import Aligner
from .bench import Bench, Fields, Layout
from .multiplier import DigitMultiplier, digit_values
from .pipeline import advance_together
from .tree import AdderTree, balanced_sum

__all__ = ["DotProductRow", "DotProductRowBench"]


class DotProductRow(wiring.Component):  # type: ignore[misc]
    """One step a cycle into one accumulator; every step leaves with the accumulator it made.

    Latency 3 cycles (products, row sum, accumulator), throughput one step a cycle. `first` starts
    the accumulator from zero instead of from the step before. A step carries raw digits, the
    alignment amount of each lane, the sign mode and the digit pair's shift; it leaves with the
    lanes whose product and whose alignment overflowed, counted, and the accumulator's own flag.
    """

    latency = 3

    def __init__(self, parameters: kernels.DotProductRow) -> None:
        self.parameters = parameters
        lanes = parameters.tree.lanes
        count_bits = lanes.bit_length()
        super().__init__(
            {
                "i": In(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "a": data.ArrayLayout(DIGIT_BITS, lanes),
                                "w": data.ArrayLayout(DIGIT_BITS, lanes),
                                "amount": data.ArrayLayout(parameters.aligner.amount_bits, lanes),
                                "a_signed": 1,
                                "w_signed": 1,
                                "digit_shift": DIGIT_SHIFT_BITS,
                                "first": 1,
                            }
                        )
                    )
                ),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "acc": signed(parameters.format.acc),
                                "product_overflows": count_bits,
                                "align_overflows": count_bits,
                                "acc_overflow": 1,
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters, fmt = self.parameters, self.parameters.format
        lanes = range(parameters.lanes)
        step = self.i.payload
        advance, valid = advance_together(m, self.i, self.o, self.latency)

        # Stage 1: products.
        products = [Signal(fmt.product, name=f"product_{lane}", reset_less=True) for lane in lanes]
        product_lost = Signal(parameters.lanes, reset_less=True)
        amounts = Signal.like(step.amount, reset_less=True)
        unsigned = Signal(reset_less=True)
        shift_1 = Signal(DIGIT_SHIFT_BITS, reset_less=True)
        first_1 = Signal(reset_less=True)
        for lane in lanes:
            m.submodules[f"multiplier_{lane}"] = multiplier = DigitMultiplier(parameters.multiplier)
            m.d.comb += [
                multiplier.a.eq(step.a[lane]),
                multiplier.w.eq(step.w[lane]),
                multiplier.a_signed.eq(step.a_signed),
                multiplier.w_signed.eq(step.w_signed),
            ]
            with m.If(advance):
                m.d.sync += [
                    products[lane].eq(multiplier.product),
                    product_lost[lane].eq(multiplier.overflow),
                ]
        with m.If(advance):
            m.d.sync += [
                amounts.eq(step.amount),
                unsigned.eq(~(step.a_signed | step.w_signed)),
                shift_1.eq(step.digit_shift),
                first_1.eq(step.first),
            ]

        # Stage 2: alignment and row sum.
        m.submodules.tree = tree = AdderTree(parameters.tree)
        align_lost = Signal(parameters.lanes)
        for lane in lanes:
            m.submodules[f"aligner_{lane}"] = aligner = Aligner(parameters.aligner)
            m.d.comb += [
                aligner.product.eq(products[lane]),
                aligner.is_unsigned.eq(unsigned),
                aligner.amount.eq(amounts[lane]),
                tree.values[lane].eq(aligner.aligned),
                align_lost[lane].eq(aligner.overflow),
            ]
        row_sum = Signal.like(tree.sum, reset_less=True)
        product_overflows = Signal.like(self.o.payload.product_overflows, reset_less=True)
        align_overflows = Signal.like(self.o.payload.align_overflows, reset_less=True)
        shift_2 = Signal.like(shift_1)
        first_2 = Signal.like(first_1)
        with m.If(advance):
            m.d.sync += [
                row_sum.eq(tree.sum),
                product_overflows.eq(balanced_sum(list(product_lost))),
                align_overflows.eq(balanced_sum(list(align_lost))),
                shift_2.eq(shift_1),
                first_2.eq(first_1),
            ]

        # Stage 3: the accumulator is its own output register, so a bubble must not touch it.
        result = Signal(self.o.payload.shape(), reset_less=True)
        m.submodules.accumulator = accumulator = Accumulator(parameters.accumulator)
        m.d.comb += [
            accumulator.acc.eq(Mux(first_2, 0, result.acc)),
            accumulator.row_sum.eq(row_sum),
            accumulator.digit_shift.eq(shift_2),
            self.o.payload.eq(result),
        ]
        with m.If(advance & valid[1]):
            m.d.sync += [
                result.acc.eq(accumulator.total),
                result.product_overflows.eq(product_overflows),
                result.align_overflows.eq(align_overflows),
                result.acc_overflow.eq(accumulator.overflow),
            ]
        return m


class DotProductRowBench(Bench[kernels.DotProductRow]):
    """Runs of steps of random length, each into one accumulator."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {
            "amount": (0, MAX_SHIFT if self.parameters.kind == "shift" else MAX_MULTIPLIER),
            "digit_shift": (0, MAX_DIGIT_SHIFT),
        }

    def stimulus(self, layout: Layout, rng: np.random.Generator, count: int) -> Fields:
        steps = super().stimulus(layout, rng, count)
        steps["first"] = (rng.random(count) < 1 / 12).astype(np.int64)
        steps["first"][0] = 1
        return steps

    def expected(self, inputs: Fields) -> Fields:
        a = digit_values(inputs["a"], inputs["a_signed"][:, None])
        w = digit_values(inputs["w"], inputs["w_signed"][:, None])
        unsigned = (inputs["a_signed"] | inputs["w_signed"]) == 0
        acc = zero = np.zeros((), dtype=np.int64)
        steps = []
        for t, first in enumerate(inputs["first"]):
            start = zero if first else acc
            shift = int(inputs["digit_shift"][t])
            steps.append(self.parameters.compute(start, a[t], w[t], inputs["amount"][t], bool(unsigned[t]), shift))
            acc = steps[-1].acc
        return {
            "acc": np.array([step.acc for step in steps]),
            "product_overflows": np.array([step.product_overflows for step in steps]),
            "align_overflows": np.array([step.align_overflows for step in steps]),
            "acc_overflow": np.array([step.acc_overflow for step in steps]),
        }

"""Fused 2/4/8-bit row: processing elements of four 2-bit bricks, aligners, and the adder tree over them.

A brick is a 2 x 2 Baugh-Wooley array: the partial products that a sign bit weights negatively are inverted, and one
constant for all four bricks of a PE takes back what the inversions added.
"""

# ruff: noqa: D102 (elaborate and a bench's methods say in their base class what they do)

from itertools import product

import numpy as np
from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import kernels
from ..kernels.align import MAX_MULTIPLIER, MAX_SHIFT, Alignment
from ..kernels.fusion import FUSION_MODES, OPERAND_BITS, FusionMode, FusionStep
from ..kernels.mac import DIGIT_BITS
from ..sim.descriptor import MODE_BITS
from .align import Aligner
from .bench import Bench, Fields
from .engine.pipeline import pipelined_sum, tree_stages
from .engine.row import factor_bits, widths_layout
from .mac import limit, limit_within, settled, width_layout
from .streamed import Streamed

__all__ = ["FusionPE", "FusionPEBench", "FusionRow", "FusionRowBench", "streamed_row"]

EXACT_BITS = 2 * DIGIT_BITS


def _brick(m: Module, a: Value, w: Value, a_signed: Value, w_signed: Value) -> Value:
    """2b x 2b by partial products, those of negative weight inverted: `_correction` has what that adds."""
    one_signed = a_signed ^ w_signed
    low = Cat(a[0] & w[0], (a[1] & w[0]) ^ a_signed)
    high = Cat((a[0] & w[1]) ^ w_signed, (a[1] & w[1]) ^ one_signed)
    return settled(m, (low + (high << 1))[:4])


def _correction(mode: FusionMode, a_signed: bool, w_signed: bool) -> int:
    """What the inversions of a PE's bricks added, taken back modulo 2**8.

    An inverted partial product adds its weight: 2 and 4 where one operand of a brick is signed, 2 and 2 where both are.
    """
    added = 0
    for brick in mode.bricks:
        a, w = a_signed and brick.a_top, w_signed and brick.w_top
        added += (2 * a + 2 * w + 4 * (a ^ w)) << brick.shift
    return -added % (1 << EXACT_BITS)


class FusionPE(wiring.Component):  # type: ignore[misc]
    """One 4b x 4b product, or the exact sum of two 4b x 2b, two 2b x 4b or four 2b x 2b products.

    Combinational: latency 0, one result a cycle. `mode` is an index of `FUSION_MODES`; the first lane's operands are
    in the lowest bits of `acts` and `codes`, of which 4x4 reads the low halves. `product` is a raw pattern:
    unsigned where neither operand is signed, two's complement otherwise. A 4x4 product is limited to the format's
    product width (an input with `formats`), as by `DigitMultiplier`; `overflow` says that it did not fit.
    """

    def __init__(self, parameters: kernels.FusionPE, formats: bool = False) -> None:
        self.parameters = parameters
        self.formats = formats
        super().__init__(
            {
                "acts": In(OPERAND_BITS),
                "codes": In(OPERAND_BITS),
                "mode": In(MODE_BITS),
                "a_signed": In(1),
                "w_signed": In(1),
                **({"width": In(width_layout(parameters.format.product))} if formats else {}),
                "product": Out(parameters.product_bits),
                "overflow": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        narrow_a, narrow_w = self.mode
        narrow = settled(m, narrow_a | narrow_w)
        both = settled(m, narrow_a & narrow_w)
        a = [self.acts[at : at + 2] for at in range(0, OPERAND_BITS, 2)]
        w = [self.codes[at : at + 2] for at in range(0, OPERAND_BITS, 2)]
        a_signed, w_signed = self.a_signed, self.w_signed

        # Slices are dealt so that each brick's product belongs at one place in 4x4 and at one other elsewhere: the
        # first at 0, the two in the middle at 2 (2x2: 0), the last at 4 (elsewhere: 0). Signs go with top slices.
        first = _brick(m, a[0], w[0], a_signed & narrow_a, w_signed & narrow_w)
        second = _brick(m, a[1], Mux(narrow_a, Mux(narrow_w, w[1], w[3]), w[0]), a_signed, w_signed & narrow)
        third = _brick(m, Mux(narrow_w, a[3], a[0]), Mux(both, w[3], w[1]), a_signed & narrow, w_signed)
        last = _brick(
            m,
            Mux(narrow_w, a[2], a[1]),
            Mux(narrow_a, w[2], w[1]),
            a_signed & (narrow_a | ~narrow_w),
            w_signed & (narrow_w | ~narrow_a),
        )
        low = settled(m, first + Mux(narrow, last, 0))
        high = Mux(narrow, 0, last)
        # In 4x4 nothing carries out of the first brick, elsewhere nothing stands above it.
        outer = settled(m, Cat(low[:DIGIT_BITS], low[DIGIT_BITS] | high[0], high[1:]))
        middle = settled(m, second + third)
        middle = settled(m, Mux(both, middle, middle << 2))
        exact = settled(m, (outer + middle + self._corrections(m))[:EXACT_BITS])

        fmt = self.parameters.format
        unsigned = settled(m, ~(self.a_signed | self.w_signed))
        value = Cat(exact, exact[-1] & ~unsigned).as_signed()
        overflow: Value = Const(0, 1)
        if self.formats or fmt.product < EXACT_BITS:
            if self.formats:
                limited, lost = limit_within(m, value, fmt.product, fmt.overflow, self.width, unsigned)
            else:
                above = settled(m, exact[fmt.product :].any())
                pattern = exact[: fmt.product]
                if fmt.overflow == "saturate":
                    pattern |= above.replicate(fmt.product)
                limited, lost = limit(m, value, fmt.product, fmt.overflow)
                limited, lost = Mux(unsigned, pattern, limited), Mux(unsigned, above, lost)
            limited = settled(m, limited[: fmt.product])
            value = Mux(narrow, value, Cat(limited, limited[-1] & ~unsigned).as_signed())
            overflow = lost & ~narrow
        m.d.comb += [self.product.eq(value), self.overflow.eq(overflow)]
        return m

    def _corrections(self, m: Module) -> Value:
        """The constant of the mode and the signs."""
        correction = Signal(EXACT_BITS)
        with m.Switch(Cat(self.mode, self.a_signed, self.w_signed)):
            for number, mode in enumerate(FUSION_MODES):
                for a_signed, w_signed in product((False, True), repeat=2):
                    with m.Case(number | a_signed << MODE_BITS | w_signed << (MODE_BITS + 1)):
                        m.d.comb += correction.eq(_correction(mode, a_signed, w_signed))
        return correction


def _modes(inputs: Fields) -> list[tuple[np.ndarray, FusionMode, bool, bool, bool]]:
    """The vectors of each mode that occurs: their places, the mode, `w_high` (false in a PE) and the signs."""
    w_high = inputs.get("w_high", np.zeros_like(inputs["mode"]))
    found = []
    for mode, high, a_signed, w_signed in product(range(len(FUSION_MODES)), (0, 1), (0, 1), (0, 1)):
        here = (inputs["mode"] == mode) & (w_high == high)
        here &= (inputs["a_signed"] == a_signed) & (inputs["w_signed"] == w_signed)
        if here.any():
            found.append((np.flatnonzero(here), FUSION_MODES[mode], bool(high), bool(a_signed), bool(w_signed)))
    return found


class FusionPEBench(Bench[kernels.FusionPE]):
    """Every pair of registers in every mode, with every pair of signs."""

    def expected(self, inputs: Fields) -> Fields:
        product = np.empty(len(inputs["acts"]), dtype=np.int64)
        overflow = np.empty_like(product)
        for at, mode, _, a_signed, w_signed in _modes(inputs):
            acts, codes = inputs["acts"][at], inputs["codes"][at]
            product[at], overflow[at] = self.parameters.compute(acts, codes, mode, a_signed, w_signed)
        return {"product": product, "overflow": overflow}


class FusionRow(wiring.Component):  # type: ignore[misc]
    """The sum of a row's products, one activation word a cycle: `engine.row.MacRow` with PEs of four bricks.

    Free running; latency ``2 + ceil(log2(L) / 2)`` cycles: product, alignment, and a stage for every two levels of
    the tree. `mode` and the signs, as `FusionPE` has them, belong to the word, and so does `w_high`, which in 4x4
    selects each code's upper digit and otherwise means nothing. `factors`, what each lane's 4x4 product is aligned by,
    belong to the word of the cycle before: shifts or multipliers where the build has one kind of alignment, else the
    shifts as powers of two; narrower products are not aligned. Leaves with the number of PEs whose 4x4
    product and whose alignment overflowed. `alignments` are the kinds of the build, by default the parameters' one.
    """

    def __init__(
        self, parameters: kernels.FusionRow, alignments: tuple[Alignment, ...] = (), formats: bool = False
    ) -> None:
        self.parameters = parameters
        self.alignments = alignments or (parameters.kind,)
        self.formats = formats
        lanes, fmt = parameters.lanes, parameters.format
        super().__init__(
            {
                "acts": In(data.ArrayLayout(OPERAND_BITS, lanes)),
                "codes": In(data.ArrayLayout(OPERAND_BITS, lanes)),
                "factors": In(data.ArrayLayout(factor_bits(self.alignments), lanes)),
                "mode": In(MODE_BITS),
                "w_high": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                **({"widths": In(widths_layout(fmt))} if formats else {}),
                "sum": Out(signed(fmt.row_bits(lanes))),
                "product_overflows": Out(lanes.bit_length()),
                "align_overflows": Out(lanes.bit_length()),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sum."""
        return 2 + tree_stages(self.parameters.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parameters = self.parameters
        fmt, pe_parameters = parameters.format, parameters.pe
        unsigned = Signal(reset_less=True)
        narrow = Signal(reset_less=True)
        m.d.sync += [unsigned.eq(~(self.a_signed | self.w_signed)), narrow.eq(self.mode.any())]
        upper = settled(m, self.w_high & ~self.mode.any())

        # The aligner takes a PE's whole result; a limited product stands in it extended.
        wide = kernels.MacFormat(pe_parameters.product_bits, fmt.align, fmt.acc, fmt.overflow)
        kind: Alignment = self.alignments[0] if len(self.alignments) == 1 else "mul"
        lane_layout = data.StructLayout({"value": signed(fmt.align), "lost": 1})
        aligned, product_lost, align_lost = [], [], []
        for lane in range(parameters.lanes):
            m.submodules[f"pe_{lane}"] = pe = FusionPE(pe_parameters, self.formats)
            code = self.codes[lane]
            m.d.comb += [
                pe.acts.eq(self.acts[lane]),
                pe.codes.eq(Cat(Mux(upper, code[DIGIT_BITS:], code[:DIGIT_BITS]), code[DIGIT_BITS:])),
                pe.mode.eq(self.mode),
                pe.a_signed.eq(self.a_signed),
                pe.w_signed.eq(self.w_signed),
            ]
            result = Signal(pe_parameters.product_bits, name=f"product_{lane}", reset_less=True)
            m.d.sync += result.eq(pe.product)
            if self.formats:
                m.d.comb += pe.width.eq(self.widths.product)
            if self.formats or fmt.product < EXACT_BITS:
                # The product's flag waits for the alignment, so that both counts leave together.
                flag = Signal(2, name=f"product_lost_{lane}", reset_less=True)
                m.d.sync += flag.eq(Cat(pe.overflow, flag[0]))
                product_lost.append(flag[1])

            m.submodules[f"aligner_{lane}"] = aligner = Aligner(
                kernels.Aligner(wide, kind), self.formats, factor_bits(self.alignments)
            )
            m.d.comb += [
                aligner.product.eq(result),
                aligner.is_unsigned.eq(unsigned),
                # By nothing, a narrow sum passes: every aligned width has room for it.
                aligner.amount.eq(Mux(narrow, 0 if kind == "shift" else 1, self.factors[lane])),
            ]
            if self.formats:
                m.d.comb += aligner.width.eq(self.widths.align)
            held = Signal(lane_layout, name=f"aligned_{lane}", reset_less=True)
            m.d.sync += [held.value.eq(aligner.aligned), held.lost.eq(aligner.overflow)]
            aligned.append(held.value)
            align_lost.append(held.lost)

        m.d.comb += [
            self.sum.eq(pipelined_sum(m, aligned, "sum")),
            self.align_overflows.eq(pipelined_sum(m, align_lost, "align_count")),
            self.product_overflows.eq(pipelined_sum(m, product_lost, "product_count") if product_lost else Const(0)),
        ]
        return m


def streamed_row(parameters: kernels.FusionRow) -> Streamed:
    """The row between two streams; each word's `factors` come with it."""
    return Streamed(FusionRow(parameters), later={"factors": 1})


class FusionRowBench(Bench[kernels.FusionRow]):
    """Words of any mode after each other, with extreme and random registers and amounts."""

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        return {"factors": (0, MAX_SHIFT if self.parameters.kind == "shift" else MAX_MULTIPLIER)}

    def expected(self, inputs: Fields) -> Fields:
        results = {name: np.empty(len(inputs["mode"]), dtype=np.int64) for name in FusionStep._fields}
        for at, mode, w_high, a_signed, w_signed in _modes(inputs):
            acts, codes, factors = (inputs[name][at] for name in ("acts", "codes", "factors"))
            step = self.parameters.compute(acts, codes, factors, mode, w_high, a_signed, w_signed)
            for name, values in step._asdict().items():
                results[name][at] = values
        return results

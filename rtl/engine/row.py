"""One row of the array: L digit multipliers and aligners, and the adder tree over them."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ... import kernels
from ...kernels.align import Alignment
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from ..align import Aligner
from ..multiplier import DigitMultiplier
from .loader import AMOUNT_BITS, CODE_BITS
from .pipeline import pipelined_sum, tree_stages

__all__ = ["MacRow"]


class MacRow(wiring.Component):  # type: ignore[misc]
    """The exact sum of a row's aligned digit products, one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles: product, alignment, and a stage for every two levels of
    the tree. `w_high` selects each code's upper digit; the two sign modes say how to read the
    digits. They belong to the word; `amounts` belongs to the word of the cycle before, and
    `multiply` (alignment by factors, not by shifts) stands still within a layer. Leaves with the number of lanes
    whose product and whose alignment overflowed.
    """

    def __init__(self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul")) -> None:
        self.config = config
        self.alignments = alignments
        lanes = config.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "codes": In(data.ArrayLayout(CODE_BITS, lanes)),
                "amounts": In(data.ArrayLayout(AMOUNT_BITS, lanes)),
                "w_high": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                "multiply": In(1),
                "sum": Out(signed(config.mac.row_bits(lanes))),
                "product_overflows": Out(lanes.bit_length()),
                "align_overflows": Out(lanes.bit_length()),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from a word to its sum."""
        return 2 + tree_stages(self.config.lanes)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fmt, lanes = self.config.mac, range(self.config.lanes)
        unsigned = Signal(reset_less=True)
        m.d.sync += unsigned.eq(~(self.a_signed | self.w_signed))

        aligned, product_lost, align_lost = [], [], []
        for lane in lanes:
            m.submodules[f"multiplier_{lane}"] = multiplier = DigitMultiplier(kernels.DigitMultiplier(fmt))
            code = self.codes[lane]
            product = Signal(fmt.product, name=f"product_{lane}", reset_less=True)
            m.d.comb += [
                multiplier.a.eq(self.digits[lane]),
                multiplier.w.eq(Mux(self.w_high, code[DIGIT_BITS:], code[:DIGIT_BITS])),
                multiplier.a_signed.eq(self.a_signed),
                multiplier.w_signed.eq(self.w_signed),
            ]
            m.d.sync += product.eq(multiplier.product)
            if fmt.product < 2 * DIGIT_BITS:
                # The product's flag waits for the alignment, so that both counts leave together.
                flag = Signal(2, name=f"product_lost_{lane}", reset_less=True)
                m.d.sync += flag.eq(Cat(multiplier.overflow, flag[0]))
                product_lost.append(flag[1])

            value, lost = self._align(m, lane, product, unsigned)
            held = Signal(signed(fmt.align), name=f"aligned_{lane}", reset_less=True)
            held_lost = Signal(name=f"align_lost_{lane}", reset_less=True)
            m.d.sync += [held.eq(value), held_lost.eq(lost)]
            aligned.append(held)
            align_lost.append(held_lost)

        m.d.comb += [
            self.sum.eq(pipelined_sum(m, aligned, "sum")),
            self.align_overflows.eq(pipelined_sum(m, align_lost, "align_count")),
            self.product_overflows.eq(pipelined_sum(m, product_lost, "product_count") if product_lost else Const(0)),
        ]
        return m

    def _align(self, m: Module, lane: int, product: Value, unsigned: Value) -> tuple[Value, Value]:
        """The kinds of alignment that this build has, the running layer's one selected."""
        results = []
        for kind in self.alignments:
            m.submodules[f"{kind}_aligner_{lane}"] = aligner = Aligner(kernels.Aligner(self.config.mac, kind))
            m.d.comb += [
                aligner.product.eq(product),
                aligner.is_unsigned.eq(unsigned),
                aligner.amount.eq(self.amounts[lane]),
            ]
            results.append((aligner.aligned, aligner.overflow))
        if len(results) == 1:
            return results[0]
        (first, first_lost), (second, second_lost) = results
        choose = self.multiply == (1 if self.alignments[1] == "mul" else 0)
        return Mux(choose, second, first), Mux(choose, second_lost, first_lost)

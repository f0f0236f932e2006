"""One row of the array: L digit multipliers and aligners, and the adder tree over them."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ... import kernels
from ...kernels.align import MAX_SHIFT, Alignment
from ...kernels.mac import DIGIT_BITS, MacFormat
from ...sim.engine import EngineConfig
from ..align import Aligner
from ..mac import width_layout
from ..multiplier import DigitMultiplier
from .counters import products_overflow
from .loader import CODE_BITS
from .pipeline import pipelined_sum, tree_stages

__all__ = ["MacRow", "factor_bits", "widths_layout"]


def factor_bits(alignments: tuple[Alignment, ...]) -> int:
    """Bits of what a row aligns a lane by: the one kind's amount or, for both kinds, a factor of at most 1 << 8."""
    if len(alignments) == 1:
        return kernels.Aligner(MacFormat(), alignments[0]).amount_bits
    return MAX_SHIFT + 1


def widths_layout(fmt: MacFormat) -> data.StructLayout:
    """The widths of a format with which the array works, as inputs."""
    return data.StructLayout({"product": width_layout(fmt.product), "align": width_layout(fmt.align)})


class MacRow(wiring.Component):  # type: ignore[misc]
    """The exact sum of a row's aligned digit products, one activation word a cycle.

    Latency ``2 + ceil(log2(L) / 2)`` cycles: product, alignment, and a stage for every two levels of
    the tree. `w_high` selects each code's upper digit; the two sign modes say how to read the
    digits. They belong to the word; `factors`, what each lane is aligned by, belong to the word of the cycle
    before: shifts or multipliers where the build has one kind of alignment, else the shifts as powers of two.
    Leaves with the number of lanes whose product and whose alignment overflowed.
    """

    def __init__(
        self, config: EngineConfig, alignments: tuple[Alignment, ...] = ("shift", "mul"), formats: bool = False
    ) -> None:
        self.config = config
        self.alignments = alignments
        self.formats = formats
        lanes = config.lanes
        super().__init__(
            {
                "digits": In(data.ArrayLayout(DIGIT_BITS, lanes)),
                "codes": In(data.ArrayLayout(CODE_BITS, lanes)),
                "factors": In(data.ArrayLayout(factor_bits(alignments), lanes)),
                "w_high": In(1),
                "a_signed": In(1),
                "w_signed": In(1),
                **({"widths": In(widths_layout(config.mac))} if formats else {}),
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

        # The digit of each code is in its lower half.
        codes = Signal(len(self.codes.as_value()))
        m.d.comb += codes.eq(Mux(self.w_high, self.codes.as_value() >> DIGIT_BITS, self.codes.as_value()))

        lane_layout = data.StructLayout({"value": signed(fmt.align), "lost": 1})
        aligned, product_lost, align_lost = [], [], []
        for lane in lanes:
            m.submodules[f"multiplier_{lane}"] = multiplier = DigitMultiplier(
                kernels.DigitMultiplier(fmt), self.formats
            )
            product = Signal(fmt.product, name=f"product_{lane}", reset_less=True)
            m.d.comb += [
                multiplier.a.eq(self.digits[lane]),
                multiplier.w.eq(codes[lane * CODE_BITS :][:DIGIT_BITS]),
                multiplier.a_signed.eq(self.a_signed),
                multiplier.w_signed.eq(self.w_signed),
            ]
            m.d.sync += product.eq(multiplier.product)
            if self.formats:
                m.d.comb += multiplier.width.eq(self.widths.product)
            if products_overflow(self.config, self.formats):
                # The product's flag waits for the alignment, so that both counts leave together.
                flag = Signal(2, name=f"product_lost_{lane}", reset_less=True)
                m.d.sync += flag.eq(Cat(multiplier.overflow, flag[0]))
                product_lost.append(flag[1])

            m.submodules[f"aligner_{lane}"] = aligner = Aligner(
                kernels.Aligner(fmt, self.alignments[0] if len(self.alignments) == 1 else "mul"),
                self.formats,
                factor_bits(self.alignments),
            )
            m.d.comb += [
                aligner.product.eq(product),
                aligner.is_unsigned.eq(unsigned),
                aligner.amount.eq(self.factors[lane]),
            ]
            if self.formats:
                m.d.comb += aligner.width.eq(self.widths.align)
            # One register for both: the fewer there are, the faster the row simulates.
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

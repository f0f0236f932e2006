"""The sums of the activations themselves, for the zero points of the weights."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.align import Alignment
from ...kernels.fusion import FUSION_MODES, SLICE_BITS
from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import MODE_BITS
from ...sim.engine import EngineConfig
from ..mac import settled
from .loader import AMOUNT_BITS, diagonals
from .pipeline import delayed, pipelined_sum, tree_stages
from .row import factor_bits

__all__ = ["InputSums", "input_sums_layout", "operand_layout"]


def operand_layout(config: EngineConfig) -> data.ArrayLayout:
    """An array's activations: a digit for each PE, two in a fused array."""
    return data.ArrayLayout(config.word_digits // config.lanes * DIGIT_BITS, config.lanes)


def _sum_digit_bits(config: EngineConfig) -> int:
    """Bits of an activation digit as it is summed; aligned, at most 15 << 8 or 15 * 255 and never below -8 << 8."""
    return DIGIT_BITS + 1 + (AMOUNT_BITS if config.aligns else 0)


def input_sums_layout(config: EngineConfig) -> data.ArrayLayout:
    """What a word adds to the input sums of the min(R, L) rows that may have one of their own."""
    bits = _sum_digit_bits(config) + config.lanes.bit_length() - 1
    return data.ArrayLayout(signed(bits), min(config.rows, config.lanes))


class InputSums(wiring.Component):  # type: ignore[misc]
    """The input sums of one activation word a cycle, with the latency of the rows: ``2 + ceil(log2(L) / 2)``.

    They are exact, without the digit pair's shift: the digits of all lanes of `sum_mask`, aligned by `factors` where
    the array aligns (they come a cycle after the word), for every row the same; in a `depthwise` layer, which
    stands still within a layer, that of row r's own lane ``diagonal * min(R, L) + r``. In a fused array `mode`, which
    stands still too, says which lanes of the step a PE has, and where in its `digits`.
    """

    def __init__(self, config: EngineConfig, alignments: tuple[Alignment, ...]) -> None:
        self.config = config
        self.alignments = alignments
        lanes = config.lanes
        factors = {"factors": In(data.ArrayLayout(factor_bits(alignments), lanes))} if alignments else {}
        super().__init__(
            {
                "digits": In(operand_layout(config)),
                "sum_mask": In(config.most_lanes),
                **({"mode": In(MODE_BITS)} if config.array == "fusion" else {}),
                "a_signed": In(1),
                "depthwise": In(1),
                "diagonal": In(range(diagonals(config))),
                **factors,
                "sums": Out(input_sums_layout(config)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bits = _sum_digit_bits(self.config)
        aligned = []
        for lane in range(self.config.lanes):
            fused = self.config.array == "fusion"
            digit = Signal(signed(DIGIT_BITS + 1 + fused), name=f"digit_{lane}", reset_less=True)
            raw = self.digits[lane]
            m.d.sync += digit.eq(
                self._fused(m, lane) if fused else Mux(self.sum_mask[lane], Cat(raw, raw[-1] & self.a_signed), 0)
            )
            value: Value = digit
            if self.alignments == ("shift",):
                value = (digit << self.factors[lane])[:bits].as_signed()
            elif self.alignments:
                value = digit * self.factors[lane]
            held = Signal(signed(bits), name=f"aligned_{lane}", reset_less=True)
            m.d.sync += held.eq(value)
            aligned.append(held)
        total = settled(m, pipelined_sum(m, aligned, "input_sum"))
        # The digit that is aligned now belongs to the word of two cycles ago.
        diagonal = delayed(m, self.diagonal, 2, "diagonal")
        size = len(self.sums)
        for at in range(size):
            own: Value = aligned[at]
            for place in range(1, self.config.lanes // size):
                own = Mux(diagonal == place, aligned[place * size + at], own)
            own = delayed(m, own, tree_stages(self.config.lanes), f"own_{at}")
            m.d.comb += self.sums[at].eq(Mux(self.depthwise, own, total))
        return m

    def _fused(self, m: Module, pe: int) -> Value:
        """What the lanes of a PE add: two digits, or four codes of two bits."""
        channels = [mode.channels(self.config.lanes)[pe] for mode in FUSION_MODES]
        masks = Signal(len(self.digits[pe]) // SLICE_BITS, name=f"masks_{pe}")
        with m.Switch(self.mode):
            for number, mode in enumerate(FUSION_MODES):
                lanes = Cat(
                    self.sum_mask[int(channel)].replicate(mode.a_bits // SLICE_BITS) for channel in channels[number]
                )
                with m.Case(number):
                    m.d.comb += masks.eq(lanes)
        raw = self.digits[pe]
        slices = [
            settled(m, raw[at * SLICE_BITS :][:SLICE_BITS] & masks[at].replicate(SLICE_BITS))
            for at in range(len(masks))
        ]
        halves = []
        for low, high in zip(slices[::2], slices[1::2], strict=True):
            low_sign, high_sign = low[-1] & self.a_signed, high[-1] & self.a_signed
            apart = Cat(low, low_sign).as_signed() + Cat(high, high_sign).as_signed()
            halves.append(Mux(self.mode[0], apart, Cat(low, high, high_sign).as_signed()))
        return halves[0] + halves[1]

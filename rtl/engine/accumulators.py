"""The accumulators: two halves for each row, so that one tile drains while the next one sums."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from ... import kernels
from ...kernels.accumulator import MAX_DIGIT_SHIFT, WIDE_DIGIT_SHIFT
from ...kernels.correction import INPUT_SUM_BITS
from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig
from ..accumulator import Accumulator
from ..mac import settled, width_layout
from .counters import OverflowCounters
from .input_sums import input_sums_layout
from .rows import row_bits

__all__ = ["AccumulatorBank", "digit_bits", "pair_shift_bits"]


def digit_bits(config: EngineConfig) -> int:
    """Bits of the number of an activation's digit."""
    return (config.operand_bits // DIGIT_BITS - 1).bit_length()


def pair_shift_bits(config: EngineConfig) -> int:
    """Bits of i + j, the digit pair's place: two digits of activations and of weights, or four."""
    return digit_bits(config) + 1


class AccumulatorBank(wiring.Component):  # type: ignore[misc]
    """Adds a row sum a cycle to one pixel's accumulator of every row, and an input sum to the row's.

    Only the first min(R, L) rows keep an input sum; the others have row 0's: they are never at work in a layer in
    which the sums differ.

    What says where (`valid`, `half`, `pixel`) comes one cycle before the sums, for the memory's read;
    `first` (start from zero), `digit_shift` (i + j) and `add_input` (this digit pair counts for the
    input sum) come with it. The written value is there for a read in the second cycle after the
    sums' own: a pixel may come again two cycles later, not earlier. Throughput one pixel a cycle.

    The drain reads a half into which no sums go but `first` ones, whose writes must stay behind it:
    latency 1 cycle, one pixel of all rows a cycle.
    Overflow counts (`OverflowCounters`) go on while `close` stays low; `close` hands them over.
    """

    def __init__(self, config: EngineConfig, formats: bool = False) -> None:
        self.config = config
        self.formats = formats
        rows, fmt = config.rows, config.mac
        counts = data.ArrayLayout(config.lanes.bit_length(), rows)
        counters = data.ArrayLayout(32, rows)
        super().__init__(
            {
                "valid": In(1),
                "half": In(1),
                "pixel": In(range(config.pixels)),
                "first": In(1),
                "digit_shift": In(pair_shift_bits(config)),
                "add_input": In(1),
                "row_sums": In(data.ArrayLayout(signed(row_bits(self.config)), rows)),
                "product_overflows": In(counts),
                "align_overflows": In(counts),
                "input_sums": In(input_sums_layout(config)),
                "close": In(1),
                **({"width": In(width_layout(fmt.acc))} if formats else {}),
                "drain_half": In(1),
                "drain_pixel": In(range(config.pixels)),
                "drain_acc": Out(data.ArrayLayout(signed(fmt.acc), rows)),
                "drain_input_sum": Out(data.ArrayLayout(signed(INPUT_SUM_BITS), rows)),
                "product_count": Out(counters),
                "align_count": Out(counters),
                "acc_count": Out(counters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, fmt = self.config.rows, self.config.mac
        valid, half = Signal(), Signal()
        pixel = Signal.like(self.pixel, reset_less=True)
        first, add_input = Signal(reset_less=True), Signal(reset_less=True)
        digit_shift = Signal(pair_shift_bits(self.config), reset_less=True)
        drain_half = Signal(reset_less=True)
        m.d.sync += [
            valid.eq(self.valid),
            half.eq(self.half),
            pixel.eq(self.pixel),
            first.eq(self.first),
            add_input.eq(self.add_input),
            digit_shift.eq(self.digit_shift),
            drain_half.eq(self.drain_half),
        ]

        totals = Signal.like(self.drain_acc)
        input_totals = Signal(data.ArrayLayout(signed(INPUT_SUM_BITS), len(self.input_sums)))
        drained_sums = Signal.like(input_totals)
        acc_read = [self._half(m, f"acc_{h}", h, totals, valid & (half == h), pixel) for h in (0, 1)]
        sum_enable = [valid & add_input & (half == h) for h in (0, 1)]
        sum_read = [self._half(m, f"input_sum_{h}", h, input_totals, sum_enable[h], pixel) for h in (0, 1)]
        m.d.comb += [
            self.drain_acc.as_value().eq(Mux(drain_half, acc_read[1], acc_read[0])),
            drained_sums.as_value().eq(Mux(drain_half, sum_read[1], sum_read[0])),
        ]
        for row in range(rows):
            m.d.comb += self.drain_input_sum[row].eq(drained_sums[row if row < len(drained_sums) else 0])

        running = settled(m, Mux(first, 0, Mux(half, acc_read[1], acc_read[0])))
        lost = Signal(rows)
        most = WIDE_DIGIT_SHIFT if self.config.wide else MAX_DIGIT_SHIFT
        for row in range(rows):
            m.submodules[f"accumulator_{row}"] = adder = Accumulator(
                kernels.Accumulator(fmt, row_bits(self.config), most), self.formats
            )
            if self.formats:
                m.d.comb += adder.width.eq(self.width)
            m.d.comb += [
                adder.acc.eq(running[row * fmt.acc : (row + 1) * fmt.acc].as_signed()),
                adder.row_sum.eq(self.row_sums[row]),
                adder.digit_shift.eq(digit_shift),
                totals[row].eq(adder.total),
                lost[row].eq(adder.overflow),
            ]
        sums_before = Signal.like(input_totals)
        m.d.comb += sums_before.as_value().eq(Mux(first, 0, Mux(half, sum_read[1], sum_read[0])))
        for before, total, step in zip(sums_before, input_totals, self.input_sums, strict=True):
            # Of the weight digits only the first counts: the shift is the activation digit's.
            placed = Mux(digit_shift[0], step << DIGIT_BITS, step)
            if self.config.wide:
                placed = Mux(digit_shift[1], placed << 2 * DIGIT_BITS, placed)
            m.d.comb += total.eq(before + placed)

        m.submodules.counters = counters = OverflowCounters(self.config, self.formats)
        m.d.comb += [
            counters.valid.eq(valid),
            counters.product_overflows.eq(self.product_overflows),
            counters.align_overflows.eq(self.align_overflows),
            counters.acc_overflows.eq(lost),
            counters.close.eq(self.close),
            self.product_count.eq(counters.product_count),
            self.align_count.eq(counters.align_count),
            self.acc_count.eq(counters.acc_count),
        ]
        return m

    def _half(self, m: Module, name: str, half: int, total: Value, enable: Value, pixel: Value) -> Value:
        """One half: sums that go on from a value have the read port, the drain has it otherwise."""
        total = Value.cast(total)
        m.submodules[name] = cells = memory.Memory(shape=len(total), depth=self.config.pixels, init=[])
        read, write = cells.read_port(), cells.write_port()
        m.d.comb += [
            read.addr.eq(Mux(self.valid & ~self.first & (self.half == half), self.pixel, self.drain_pixel)),
            write.addr.eq(pixel),
            write.data.eq(total),
            write.en.eq(enable),
        ]
        return Value.cast(read.data)

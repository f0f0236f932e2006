"""Pooling: the greatest code, or the rounded mean, of the taps that lie in the image."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ....sim.descriptor import CODE_BITS
from ....sim.engine import EngineConfig
from .slots import STORED_BITS, span_channels

__all__ = ["Pool"]

COUNT_BITS = 17
"""Of a window's taps: 2**16 at most."""
SUM_BITS = COUNT_BITS - 1 + CODE_BITS
"""Of the exact sum of a window."""


class Pool(wiring.Component):  # type: ignore[misc]
    """One tap of a window a cycle, G = min(R, L) channels in parallel; `last` comes with a window's last tap.

    Taps that are not `inside` count for nothing; each window has one that is. `valid` comes with `codes`,
    for one cycle, `max_delay` cycles after `last`, or `average_delay` where `average` is up, whose
    division, half away from zero, goes on while the next window's taps come: windows may then end
    `divider_cycles` after each other, not faster. Codes have at most 16 bits.
    """

    max_delay = 1
    divider_cycles = STORED_BITS + 1
    average_delay = divider_cycles + 1

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        codes = data.ArrayLayout(signed(CODE_BITS), span_channels(config))
        super().__init__(
            {
                "average": In(1),
                "tap_valid": In(1),
                "inside": In(1),
                "last": In(1),
                "tap": In(codes),
                "valid": Out(1),
                "codes": Out(codes),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fresh, empty = Signal(init=1), Signal()
        count, before = Signal(COUNT_BITS), Signal(COUNT_BITS)
        ended, dividing, divided = Signal(), Signal(), Signal()
        left = Signal(range(STORED_BITS + 1))
        m.d.comb += [
            before.eq(Mux(fresh, 0, count)),
            empty.eq(before == 0),
            dividing.eq(left != 0),
            self.valid.eq(Mux(self.average, divided, ended)),
        ]
        m.d.sync += [
            ended.eq(self.tap_valid & self.last),
            divided.eq(left == 1),
        ]
        with m.If(self.tap_valid):
            m.d.sync += [fresh.eq(self.last), count.eq(before + self.inside)]
        with m.If(dividing):
            m.d.sync += left.eq(left - 1)
        divisor = Signal(COUNT_BITS + 1, reset_less=True)
        with m.If(ended & self.average):
            m.d.sync += [left.eq(STORED_BITS), divisor.eq(count << 1)]

        for lane in range(span_channels(self.config)):
            tap = self.tap[lane]
            total = Signal(signed(SUM_BITS), name=f"total_{lane}", reset_less=True)
            with m.If(self.tap_valid & self.inside & (empty | self.average | (tap > total))):
                m.d.sync += total.eq(Mux(empty | ~self.average, 0, total) + tap)
            quotient = self._quotient(m, lane, ended, dividing, total, count, divisor)
            m.d.comb += self.codes[lane].eq(Mux(self.average, quotient, total))
        return m

    def _quotient(
        self, m: Module, lane: int, load: Value, step: Value, total: Value, count: Value, divisor: Value
    ) -> Value:
        """``total / count``, half away from zero: ``(2 * |total| + count) // (2 * count)``, a bit a step."""
        twice = Signal(SUM_BITS + 2, name=f"twice_{lane}")
        remainder = Signal(COUNT_BITS + 1, name=f"remainder_{lane}", reset_less=True)
        quotient = Signal(STORED_BITS, name=f"quotient_{lane}", reset_less=True)
        negative = Signal(name=f"negative_{lane}", reset_less=True)
        grown = Signal(COUNT_BITS + 2, name=f"grown_{lane}")
        less = Signal(signed(COUNT_BITS + 3), name=f"less_{lane}")
        m.d.comb += [
            twice.eq((Mux(total < 0, -total, total) << 1) + count),
            grown.eq(Cat(quotient[-1], remainder)),
            less.eq(grown - divisor),
        ]
        with m.If(step):
            m.d.sync += [remainder.eq(Mux(less < 0, grown, less)), quotient.eq(Cat(less >= 0, quotient))]
        with m.If(load):
            m.d.sync += [
                quotient.eq(twice),
                remainder.eq(twice >> STORED_BITS),
                negative.eq(total < 0),
            ]
        return Mux(negative, -quotient, quotient)

"""A delay line that moves no words: those under way wait in a small memory."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["DelayLine"]


class DelayLine(wiring.Component):  # type: ignore[misc]
    """Words of `enter` come out as `o` in the cycle after their `leave`, in order.

    `leave` must come 1 to `cycles` - 1 cycles after `enter`, so that at most `cycles` words are under way, and as
    often as `enter`.
    """

    def __init__(self, bits: int, cycles: int) -> None:
        self.bits = bits
        self.cycles = cycles
        super().__init__({"enter": In(1), "i": In(bits), "leave": In(1), "o": Out(bits)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cells = cells = memory.Memory(shape=self.bits, depth=self.cycles, init=[])
        read, write = cells.read_port(), cells.write_port()
        first, last = Signal(range(self.cycles)), Signal(range(self.cycles))
        m.d.comb += [
            write.en.eq(self.enter),
            write.addr.eq(last),
            write.data.eq(self.i),
            read.en.eq(self.leave),
            read.addr.eq(first),
            self.o.eq(read.data),
        ]
        with m.If(self.enter):
            m.d.sync += last.eq(Mux(last == self.cycles - 1, 0, last + 1))
        with m.If(self.leave):
            m.d.sync += first.eq(Mux(first == self.cycles - 1, 0, first + 1))
        return m

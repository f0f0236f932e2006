"""Overflow counters: how often each width of each row was too narrow."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...sim.engine import EngineConfig

__all__ = ["COUNTER_BITS", "OverflowCounters"]

COUNTER_BITS = 32


class OverflowCounters(wiring.Component):  # type: ignore[misc]
    """Three counters a row (product, alignment, accumulator), 32 bits, saturating.

    Takes the counts of one pixel a cycle. In the cycle of `close` they leave for the outputs, which
    hold them from the next cycle to the next `close`, and start from zero; the counts that come in that
    very cycle are the first of the new ones.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        counts = data.ArrayLayout(config.lanes.bit_length(), config.rows)
        counters = data.ArrayLayout(COUNTER_BITS, config.rows)
        super().__init__(
            {
                "valid": In(1),
                "product_overflows": In(counts),
                "align_overflows": In(counts),
                "acc_overflows": In(config.rows),
                "close": In(1),
                "product_count": Out(counters),
                "align_count": Out(counters),
                "acc_count": Out(counters),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for row in range(self.config.rows):
            self._count(m, f"product_{row}", self.product_overflows[row], self.product_count[row])
            self._count(m, f"align_{row}", self.align_overflows[row], self.align_count[row])
            self._count(m, f"acc_{row}", self.acc_overflows[row], self.acc_count[row])
        return m

    def _count(self, m: Module, name: str, step: Value, out: Value) -> None:
        counter = Signal(COUNTER_BITS, name=name)
        held = Signal(COUNTER_BITS, name=f"{name}_held")
        after = Signal(COUNTER_BITS + 1, name=f"{name}_after")
        m.d.comb += [
            after.eq(Mux(self.close, 0, counter) + Mux(self.valid, step, 0)),
            out.eq(held),
        ]
        m.d.sync += counter.eq(after[:COUNTER_BITS] | after[-1].replicate(COUNTER_BITS))
        with m.If(self.close):
            m.d.sync += held.eq(counter)

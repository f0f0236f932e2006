"""Overflow counters: how often each width of each row was too narrow."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...kernels.mac import DIGIT_BITS
from ...sim.engine import EngineConfig

__all__ = ["COUNTER_BITS", "OverflowCounters", "products_overflow"]

COUNTER_BITS = 32


def products_overflow(config: EngineConfig, formats: bool) -> bool:
    """Whether a product may be too wide for its width in this build."""
    return config.aligns and (formats or config.mac.product < 2 * DIGIT_BITS)


class OverflowCounters(wiring.Component):  # type: ignore[misc]
    """Three counters a row (product, alignment, accumulator), 32 bits, saturating.

    Takes the counts of one pixel a cycle. In the cycle of `close` they leave for the outputs, which
    hold them from the next cycle to the next `close`, and start from zero; the counts that come in that
    very cycle are the first of the new ones. Products of 8 bits and more never overflow: without `formats`
    such a configuration has no counters for them. Arrays whose row sums are exact count accumulators alone.
    """

    def __init__(self, config: EngineConfig, formats: bool = False) -> None:
        self.config = config
        self.formats = formats
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
            if products_overflow(self.config, self.formats):
                self._count(m, f"product_{row}", self.product_overflows[row], self.product_count[row])
            if self.config.aligns:
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

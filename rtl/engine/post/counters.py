"""Overflow counters of the post lanes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ....sim.engine import EngineConfig
from ..counters import COUNTER_BITS

__all__ = ["PostCounters"]

MOST = 2
"""Overflows of one value: of the correction and of tflite's 32 bits."""


class PostCounters(wiring.Component):  # type: ignore[misc]
    """A counter for each row, 32 bits, saturating; a beat adds to those of its chunk, Q rows.

    With `close` they leave for `counts`, which holds them from the next cycle to the next `close`, and start
    from zero; the beat of that very cycle still belongs to those that leave.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        chunks = max(1, config.rows // config.post_lanes)
        super().__init__(
            {
                "valid": In(1),
                "chunk": In(range(chunks)),
                "overflows": In(data.ArrayLayout(range(MOST + 1), config.post_lanes)),
                "close": In(1),
                "counts": Out(data.ArrayLayout(COUNTER_BITS, config.rows)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows, lanes = self.config.rows, self.config.post_lanes
        running = Signal(data.ArrayLayout(data.ArrayLayout(COUNTER_BITS, lanes), rows // lanes))
        held = Signal.like(self.counts)
        present = Signal(data.ArrayLayout(COUNTER_BITS, lanes))
        after = Signal.like(present)
        m.d.comb += [present.eq(running[self.chunk]), self.counts.eq(held)]
        for lane in range(lanes):
            total = Signal(COUNTER_BITS + 1, name=f"total_{lane}")
            m.d.comb += [
                total.eq(present[lane] + self.overflows[lane]),
                after[lane].eq(total[:COUNTER_BITS] | total[-1].replicate(COUNTER_BITS)),
            ]
        for chunk in range(rows // lanes):
            counted = Signal(name=f"counted_{chunk}")
            m.d.comb += counted.eq(self.valid & (self.chunk == chunk))
            with m.If(self.close):
                m.d.sync += running[chunk].eq(0)
                for lane in range(lanes):
                    m.d.sync += held[chunk * lanes + lane].eq(Mux(counted, after[lane], running[chunk][lane]))
            with m.Elif(counted):
                m.d.sync += running[chunk].eq(after)
        return m

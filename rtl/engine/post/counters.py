"""Overflow counters of the post lanes."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Module, Mux, Signal
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
        running = [Signal(COUNTER_BITS, name=f"running_{row}") for row in range(rows)]
        held = [Signal(COUNTER_BITS, name=f"held_{row}") for row in range(rows)]
        m.d.comb += [count.eq(register) for count, register in zip(self.counts, held, strict=True)]
        for lane in range(lanes):
            of_lane = range(lane, rows, lanes)
            total = Signal(COUNTER_BITS + 1, name=f"total_{lane}")
            after = Signal(COUNTER_BITS, name=f"after_{lane}")
            with m.If(self.valid):
                m.d.comb += total.eq(Array(running[row] for row in of_lane)[self.chunk] + self.overflows[lane])
            m.d.comb += after.eq(total[:COUNTER_BITS] | total[-1].replicate(COUNTER_BITS))
            for chunk, row in enumerate(of_lane):
                counted = self.valid & (self.chunk == chunk)
                with m.If(self.close):
                    m.d.sync += [running[row].eq(0), held[row].eq(Mux(counted, after, running[row]))]
                with m.Elif(counted):
                    m.d.sync += running[row].eq(after)
        return m

"""The walk over a tensor's words that a transfer makes: planes, pixels, words of a pixel."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...sim.descriptor import PIXEL_BITS, PLANES, act_address_bits
from ...sim.engine import EngineConfig

__all__ = ["PlaneWalk"]


class PlaneWalk(wiring.Component):  # type: ignore[misc]
    """Counts `planes` planes of `pixels` pixels of `words` words each, none of them zero.

    `start` begins with the first word in the next cycle, `advance` moves on by one; `plane`, `plane_end` and
    `last` describe the present word while `running`.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "planes": In(3),
                "pixels": In(PIXEL_BITS),
                "words": In(act_address_bits(config)),
                "start": In(1),
                "advance": In(1),
                "running": Out(1),
                "plane": Out(range(PLANES)),
                "plane_end": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        pixel, word = Signal(PIXEL_BITS), Signal(len(self.words))
        pixel_end = Signal()
        m.d.comb += [
            pixel_end.eq(word == self.words - 1),
            self.plane_end.eq(pixel_end & (pixel == self.pixels - 1)),
            self.last.eq(self.plane_end & (self.plane == self.planes - 1)),
        ]
        with m.If(self.advance):
            m.d.sync += word.eq(word + 1)
            with m.If(pixel_end):
                m.d.sync += [word.eq(0), pixel.eq(pixel + 1)]
            with m.If(self.plane_end):
                m.d.sync += [pixel.eq(0), self.plane.eq(self.plane + 1)]
            with m.If(self.last):
                m.d.sync += self.running.eq(0)
        with m.If(self.start):
            m.d.sync += [word.eq(0), pixel.eq(0), self.plane.eq(0), self.running.eq(1)]
        return m

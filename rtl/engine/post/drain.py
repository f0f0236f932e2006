"""Drain: the beats of each slot, and the accumulators that they read."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ....sim.descriptor import PLANE_BITS
from ....sim.engine import EngineConfig
from ..registers import descriptor_layout
from ..sequencer import tile_layout
from .sequencer import TileWalk
from .slots import SlotWalk, runs, span_channels

__all__ = ["Drain"]


class Drain(wiring.Component):  # type: ignore[misc]
    """Walks the beats of every slot whose operands are `ready`: Q channels a beat, one beat a cycle from `ready` on.

    `drain_half` and `drain_pixel` are the beat's accumulators, to be read in its own cycle. All else comes a cycle
    later, with what was read, while `valid`: `chunk` is the beat's number in the row group, `part` in the slot,
    `mask` its channels that the row group has, `buffer` the parity of the row group, which ends with
    `group_last`. `release` gives a half back, in the cycle of its last read.

    In a sign array a beat is repeated for each plane, whose accumulators lie `tile_pixels` apart: `plane` says which,
    `plane_last` that it is the last one.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        parts = span_channels(config) // config.post_lanes
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "tile_done": In(1),
                "done_half": In(1),
                "done_tile": In(tile_layout(config)),
                "ready": In(1),
                "drain_half": Out(1),
                "drain_pixel": Out(range(config.pixels)),
                "release": Out(2),
                "valid": Out(1),
                "chunk": Out(range(max(1, config.rows // config.post_lanes))),
                "part": Out(range(parts)),
                "mask": Out(config.post_lanes),
                "buffer": Out(1),
                "group_last": Out(1),
                **({"plane": Out(PLANE_BITS), "plane_last": Out(1)} if config.array == "sign" else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        post_lanes = config.post_lanes
        m.submodules.slots = slots = SlotWalk(config)
        m.submodules.tiles = tiles = TileWalk(config)
        drains, reading, running, plane_last, part_last, slot_end, tile_end, buffer = (Signal() for _ in range(8))
        part = Signal.like(self.part)
        plane, plane_pixel = Signal(PLANE_BITS), Signal(range(config.pixels))
        m.d.comb += [
            drains.eq(runs(layer, "mac")),
            reading.eq(self.ready | running),
            plane_last.eq(plane == layer.plane_top if config.array == "sign" else 1),
            part_last.eq((part == layer.beats - 1) & plane_last),
            slot_end.eq(reading & part_last),
            tile_end.eq(slot_end & slots.span_last & drains & tiles.last),
            slots.layer.eq(layer),
            slots.start.eq(self.start),
            slots.next.eq(slot_end),
            tiles.tile_done.eq(self.tile_done),
            tiles.done_half.eq(self.done_half),
            tiles.done_tile.eq(self.done_tile),
            tiles.next.eq(slot_end & slots.span_last & drains),
            self.drain_half.eq(tiles.half),
            self.drain_pixel.eq(tiles.pixel + plane_pixel),
            self.release.eq(Cat(tile_end & ~tiles.half, tile_end & tiles.half)),
        ]
        m.d.sync += [
            running.eq(reading & ~part_last),
            self.valid.eq(reading),
        ]
        with m.If(reading):
            if config.array == "sign":
                m.d.sync += [
                    plane.eq(Mux(plane_last, 0, plane + 1)),
                    plane_pixel.eq(Mux(plane_last, 0, plane_pixel + layer.tile_pixels)),
                    self.plane.eq(plane),
                    self.plane_last.eq(plane_last),
                ]
            with m.If(plane_last):
                m.d.sync += part.eq(Mux(part_last, 0, part + 1))
            m.d.sync += [
                self.part.eq(part),
                self.chunk.eq(Cat(part[: ceil_log2(span_channels(config) // post_lanes)], slots.span)),
                self.mask.eq(Cat(slots.channels > part * post_lanes + lane for lane in range(post_lanes))),
                self.buffer.eq(buffer),
                self.group_last.eq(slot_end & slots.pixel_last),
            ]
        with m.If(slot_end & slots.pixel_last):
            m.d.sync += buffer.eq(~buffer)
        with m.If(self.start):
            m.d.sync += buffer.eq(0)
        return m

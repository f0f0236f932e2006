"""When slots begin, and which tile of the accumulators they belong to."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ....sim.descriptor import INTERVAL_BITS
from ....sim.engine import EngineConfig
from ..registers import descriptor_layout
from ..sequencer import tile_layout
from .slots import SlotWalk, runs

__all__ = ["SlotSequencer", "TileWalk"]


class TileWalk(wiring.Component):  # type: ignore[misc]
    """Walks the pixels of finished tiles, two of which may be there.

    A tile of `tile_done` is there from the next cycle on. While `valid`, `half` and `pixel` say where the
    accumulators of the present pixel are, `last` that it is its tile's last one; `next` moves on.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "tile_done": In(1),
                "done_half": In(1),
                "done_tile": In(tile_layout(config)),
                "next": In(1),
                "valid": Out(1),
                "half": Out(1),
                "pixel": Out(range(config.pixels)),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = data.StructLayout({"half": 1, "pixels": range(self.config.pixels + 1)})
        done, head, second = Signal(entry), Signal(entry), Signal(entry)
        count = Signal(range(3))
        leaves = Signal()
        m.d.comb += [
            done.half.eq(self.done_half),
            done.pixels.eq(self.done_tile.pixels),
            self.valid.eq(count != 0),
            self.half.eq(head.half),
            self.last.eq(self.pixel + 1 == head.pixels),
            leaves.eq(self.next & self.last),
        ]
        m.d.sync += count.eq(count + self.tile_done - leaves)
        with m.If(leaves):
            m.d.sync += head.eq(second)
        with m.If(self.tile_done):
            m.d.sync += second.eq(done)
            with m.If(count == leaves):
                m.d.sync += head.eq(done)
        with m.If(self.next):
            m.d.sync += self.pixel.eq(Mux(self.last, 0, self.pixel + 1))
        return m


class SlotSequencer(wiring.Component):  # type: ignore[misc]
    """Begins the slots of a layer: `slot` is up in a slot's first cycle.

    A slot begins `interval` cycles after the one before it, or later: its tile must have been done (`tile_done`)
    in an earlier cycle, where the layer drains accumulators; the first slot of a row group with records waits
    until `full` buffers of them are more than the row groups that began and were not freed (`records_free`). The
    first slot of a layer begins in the cycle after `start` at the earliest.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "tile_done": In(1),
                "done_half": In(1),
                "done_tile": In(tile_layout(config)),
                "full": In(range(3)),
                "records_free": In(1),
                "slot": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        m.submodules.slots = slots = SlotWalk(self.config)
        m.submodules.tiles = tiles = TileWalk(self.config)
        running, group_first, records = Signal(), Signal(), Signal()
        drains, has_records, begins = Signal(), Signal(), Signal()
        begun = Signal(range(3))
        wait = Signal(INTERVAL_BITS)
        m.d.comb += [
            drains.eq(runs(layer, "mac")),
            has_records.eq(drains | layer.adds | layer.copies),
            records.eq(~has_records | ~group_first | (self.full > begun)),
            self.slot.eq(running & (wait == 0) & (tiles.valid | ~drains) & records),
            begins.eq(self.slot & group_first & has_records),
            slots.layer.eq(layer),
            slots.start.eq(self.start),
            slots.next.eq(self.slot),
            tiles.tile_done.eq(self.tile_done),
            tiles.done_half.eq(self.done_half),
            tiles.done_tile.eq(self.done_tile),
            tiles.next.eq(self.slot & slots.span_last & drains),
        ]
        m.d.sync += begun.eq(begun + begins - self.records_free)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(self.slot):
            m.d.sync += [
                wait.eq(layer.interval - 1),
                group_first.eq(slots.pixel_last),
                running.eq(~slots.layer_last),
            ]
        with m.If(self.start):
            m.d.sync += [wait.eq(0), group_first.eq(1), running.eq(1)]
        return m

"""Transfers: bus words into the activation memory (`load`), and the reverse (`store`)."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...kernels.mac import DIGIT_BITS
from ...sim.descriptor import ADDRESS_BITS, OPERATIONS, PLANES, act_address_bits
from ...sim.engine import EngineConfig
from .gearbox import Pack, Unpack
from .plane_walk import PlaneWalk
from .registers import descriptor_layout

__all__ = ["Transfer", "write_layout"]


def write_layout(config: EngineConfig) -> data.StructLayout:
    """What the engine writes over the bus: where a word goes, and the word."""
    return data.StructLayout({"address": ADDRESS_BITS, "word": config.bus_bits})


class Transfer(wiring.Component):  # type: ignore[misc]
    """Moves N words of W digits, as they are: planes one after another, each from its address on, pixels in order.

    On the bus they follow each other without gaps, planes included, the first in the low bits; only the last bus
    word is padded, by zeros where it is stored. `start` begins a layer whose `op` is `load` or `store` (others do not
    concern it), and `done` is up in the cycle of its last write. With w = max(1, 4 * W / B) cycles for a word:

    - `load` writes ``out_planes * out_pixels * out_pixel_step`` words, each in the cycle in which the bus word with
      its last digit is offered, at most one a cycle. With a first bus word offered in cycle t, and no later one
      waited for, the last write is in cycle t + N * w - 1.
    - `store` reads ``first_planes * out_pixels * pixel_step`` words, the first in the cycle after `start`. After
      a `start` in cycle s and with `write` always ready, the last bus word is written in cycle s + 2 + N * w.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        word = data.ArrayLayout(DIGIT_BITS, config.word_digits)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "write": Out(stream.Signature(write_layout(config))),
                "act_read": Out(1),
                "act_write": Out(1),
                "act_address": Out(act_address_bits(config)),
                "act_read_data": In(word),
                "act_write_data": Out(word),
                "done": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        m.submodules.walk = walk = PlaneWalk(self.config)
        m.submodules.unpack = unpack = Unpack(self.config)
        m.submodules.pack = pack = Pack(self.config)
        load, store = layer.op == OPERATIONS.index("load"), layer.op == OPERATIONS.index("store")

        address = Signal(act_address_bits(self.config))
        planes = [Mux(store, layer[f"first_plane_{at}"], layer[f"out_plane_{at}"]) for at in range(PLANES)]
        with m.If(walk.advance):
            # The plane that follows; after the fourth there is none.
            m.d.sync += address.eq(Mux(walk.plane_end, Array(planes[1:])[walk.plane], address + 1))
        with m.If(self.start):
            m.d.sync += address.eq(planes[0])

        connect(m, flipped(self.words), unpack.words)
        m.d.comb += [
            walk.start.eq(self.start & (load | store)),
            walk.planes.eq(Mux(store, layer.first_planes, layer.out_planes)),
            walk.pixels.eq(layer.out_pixels),
            walk.words.eq(Mux(store, layer.pixel_step, layer.out_pixel_step)),
            walk.advance.eq(unpack.valid | pack.read),
            unpack.enable.eq(walk.running & load),
            unpack.last.eq(walk.last),
            pack.enable.eq(walk.running & store),
            pack.last.eq(walk.last),
            pack.word.eq(self.act_read_data),
            self.act_read.eq(pack.read),
            self.act_write.eq(unpack.valid),
            self.act_address.eq(address),
            self.act_write_data.eq(unpack.word),
        ]

        bus_address = Signal(ADDRESS_BITS)
        stored = Signal()
        m.d.comb += [
            self.write.valid.eq(pack.out.valid),
            self.write.payload.address.eq(bus_address),
            self.write.payload.word.eq(pack.out.payload),
            pack.out.ready.eq(self.write.ready),
            stored.eq(self.write.valid & self.write.ready),
            self.done.eq((unpack.valid & walk.last) | (stored & pack.out_last)),
        ]
        with m.If(stored):
            m.d.sync += bus_address.eq(bus_address + 1)
        with m.If(self.start):
            m.d.sync += bus_address.eq(layer.stream)
        return m

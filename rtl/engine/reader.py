"""The bus reader: the requests of a descriptor, of loaded data and of a layer's stream, and their words."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...sim.descriptor import ADDRESS_BITS, OPERATIONS, descriptor_words
from ...sim.engine import EngineConfig
from .plane_walk import PlaneWalk
from .prefetch import KINDS, Prefetch
from .registers import descriptor_layout
from .stream_walk import StreamWalk

__all__ = ["BusReader"]


class BusReader(wiring.Component):  # type: ignore[misc]
    """Reads in order, one word a cycle, and hands the words on by kind from one prefetch FIFO.

    - `fetch`: the `descriptor_words` words from `fetch_address` on, as `descriptor`.
    - `start`: what the layer's `op` needs from `stream` on. `load`: `data`, until the layer's words are complete.
      `mac`: for each row group its `records`, then the `weights` of its steps once for each tile of pixels
      (`StreamWalk`). `stream`: the records of each row group. The others: nothing.

    Neither may come before the words of the one before have left: `idle` says so of a layer's stream. The registers
    stand still from the strobe to the last request.

    Timing, where the bus answers after `latency` (the word requested in cycle t is on the bus in cycle
    t + 1 + latency). After a strobe in cycle s the first request is there in cycle s + 1, and another one in every
    cycle: between tiles, row groups, records and weights there is no gap. Only the data of bus words
    that hold k > 1 activation words, each of which takes a cycle to write, is requested every k cycles. So word j
    is requested in cycle q_j and leaves in cycle t_j, where, with D = `prefetch_words`,

        q_0 = s + 1,  q_j = max(q_{j-1} + 1 (or k), t_{j-D} + 1)
        t_j = the first cycle from max(t_{j-1} + 1, q_j + latency + 2) on in which its taker is ready

    With ``D >= latency + 3`` the first word leaves in cycle s + latency + 3 at the earliest, and none after it is
    ever waited for: a taker that is always ready gets a word in every cycle.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        word = stream.Signature(config.bus_bits)
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "fetch": In(1),
                "fetch_address": In(ADDRESS_BITS),
                "start": In(1),
                "request": Out(stream.Signature(ADDRESS_BITS)),
                "words": In(word),
                **{kind: Out(word) for kind in KINDS},
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        m.submodules.prefetch = prefetch = Prefetch(config)
        m.submodules.walk = walk = StreamWalk(config)
        connect(m, flipped(self.words), prefetch.words)
        for kind in KINDS:
            connect(m, getattr(prefetch, kind), flipped(getattr(self, kind)))

        address, first_weight = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        fetching = Signal()
        fetched = Signal(range(max(2, descriptor_words(config))))
        send = Signal()
        loading, load_wanted = self._load(m, send)
        m.d.comb += [
            send.eq(self.request.valid & self.request.ready),
            self.request.valid.eq((fetching | load_wanted | walk.running) & prefetch.free),
            self.request.payload.eq(address),
            prefetch.take.eq(send),
            prefetch.tag.eq(
                Mux(
                    fetching,
                    KINDS.index("descriptor"),
                    Mux(
                        loading,
                        KINDS.index("data"),
                        Mux(walk.weight, KINDS.index("weights"), KINDS.index("records")),
                    ),
                )
            ),
            walk.layer.eq(layer),
            walk.start.eq(self.start),
            walk.advance.eq(send & walk.running),
            self.idle.eq(~walk.running & prefetch.empty),
        ]
        with m.If(send):
            m.d.sync += address.eq(Mux(walk.running & walk.again, first_weight, address + 1))
            with m.If(walk.records_end):
                m.d.sync += first_weight.eq(address + 1)
            with m.If(fetching):
                m.d.sync += fetched.eq(fetched + 1)
                with m.If(fetched == descriptor_words(config) - 1):
                    m.d.sync += [fetched.eq(0), fetching.eq(0)]
        with m.If(self.start):
            m.d.sync += address.eq(layer.stream)
        with m.If(self.fetch):
            m.d.sync += [address.eq(self.fetch_address), fetching.eq(1)]
        return m

    def _load(self, m: Module, send: Value) -> tuple[Value, Value]:
        """Whether data is loaded, and whether the next word of it is wanted now."""
        layer = self.layer
        word_bits, bus = self.config.word_bits, self.config.bus_bits
        m.submodules.data_walk = walk = PlaneWalk(self.config)
        part = Signal(range(max(2, word_bits // bus, bus // word_bits)))
        wanted = Signal()
        m.d.comb += [
            walk.planes.eq(layer.out_planes),
            walk.pixels.eq(layer.out_pixels),
            walk.words.eq(layer.out_pixel_step),
            walk.start.eq(self.start & (layer.op == OPERATIONS.index("load"))),
        ]
        if bus >= word_bits:
            # The bus word is asked for with the first of the words in it; the others only pass.
            m.d.comb += [wanted.eq(walk.running & (part == 0)), walk.advance.eq(walk.running & ((part != 0) | send))]
            step, parts = walk.advance, bus // word_bits
        else:
            parts = word_bits // bus
            step = walk.running & send
            m.d.comb += [wanted.eq(walk.running), walk.advance.eq(step & (part == parts - 1))]
        with m.If(step):
            m.d.sync += part.eq(Mux(part == parts - 1, 0, part + 1))
        with m.If(walk.start):
            m.d.sync += part.eq(0)
        return walk.running, wanted

"""The prefetch FIFO: a place is taken with the request of a word and given back with the word."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...sim.engine import EngineConfig

__all__ = ["KINDS", "Prefetch"]

KINDS = ("descriptor", "records", "weights", "data")
"""What a word of the bus is for; its tag is the index."""


class Prefetch(wiring.Component):  # type: ignore[misc]
    """`prefetch_words` words with their tags; leaves them in order as one stream for each kind.

    A request takes a place (`take`, with its `tag`) while there is one: `free`. Its word therefore always
    finds room, `words` is always ready, and the word is offered in the next cycle, at the earliest; the
    place is free from the cycle after the one in which the word has left. The first word in line is offered
    in the stream of its kind, and those behind it wait. `empty`: no word is here, or on its way.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        word = stream.Signature(config.bus_bits)
        super().__init__(
            {
                "free": Out(1),
                "empty": Out(1),
                "take": In(1),
                "tag": In(range(len(KINDS))),
                "words": In(word),
                **{kind: Out(word) for kind in KINDS},
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        depth = self.config.prefetch_words
        m.submodules.cells = cells = memory.Memory(shape=self.config.bus_bits, depth=depth, init=[])
        m.submodules.tags = tags = memory.Memory(shape=len(self.tag), depth=depth, init=[])
        cell_write, tag_write = cells.write_port(), tags.write_port()
        # The word that comes in for an empty FIFO must be there in the next cycle.
        cell_read, tag_read = cells.read_port(transparent_for=[cell_write]), tags.read_port()
        head, asked, filled = (Signal(range(depth), name=name) for name in ("head", "asked", "filled"))
        places, stored = Signal(range(depth + 1), init=depth), Signal(range(depth + 1))
        come, leave, next_head = Signal(), Signal(), Signal(range(depth))

        def after(pointer: Value) -> Value:
            return Mux(pointer == depth - 1, 0, pointer + 1)

        m.d.comb += [
            self.free.eq(places != 0),
            self.empty.eq(places == depth),
            self.words.ready.eq(1),
            come.eq(self.words.valid),
            next_head.eq(Mux(leave, after(head), head)),
            tag_write.en.eq(self.take),
            tag_write.addr.eq(asked),
            tag_write.data.eq(self.tag),
            cell_write.en.eq(come),
            cell_write.addr.eq(filled),
            cell_write.data.eq(self.words.payload),
            cell_read.addr.eq(next_head),
            tag_read.addr.eq(next_head),
        ]
        m.d.sync += [
            head.eq(next_head),
            places.eq(places + leave - self.take),
            stored.eq(stored + come - leave),
        ]
        with m.If(self.take):
            m.d.sync += asked.eq(after(asked))
        with m.If(come):
            m.d.sync += filled.eq(after(filled))
        for index, kind in enumerate(KINDS):
            out = getattr(self, kind)
            m.d.comb += [
                out.payload.eq(cell_read.data),
                out.valid.eq((stored != 0) & (tag_read.data == index)),
            ]
            with m.If(out.valid & out.ready):
                m.d.comb += leave.eq(1)
        return m

"""Bus words into words of W digits and back; the wider of the two holds a power of two of the other."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...sim.engine import EngineConfig

__all__ = ["Pack", "Unpack"]


def _parts(config: EngineConfig) -> int:
    """Narrow words in a wide one."""
    return max(config.bus_bits // config.word_bits, config.word_bits // config.bus_bits)


class Unpack(wiring.Component):  # type: ignore[misc]
    """Bus words to words of W digits, while `enable` is up; `last` says of the present word that it ends the stream.

    A word is `valid` in the cycle in which its (last) bus word is offered, one word a cycle or one bus word a cycle.
    A bus word of several words is taken with the last of them.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "enable": In(1),
                "last": In(1),
                "words": In(stream.Signature(config.bus_bits)),
                "valid": Out(1),
                "word": Out(config.word_bits),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts, bus, word_bits = _parts(self.config), self.config.bus_bits, len(self.word)
        part = Signal(range(max(2, parts)))
        step, part_end = Signal(), Signal()
        m.d.comb += [
            step.eq(self.enable & self.words.valid),
            part_end.eq((part == parts - 1) | (self.valid & self.last)),
        ]
        with m.If(step):
            m.d.sync += part.eq(Mux(part_end, 0, part + 1))
        if bus >= word_bits:
            m.d.comb += [
                self.valid.eq(step),
                self.words.ready.eq(self.enable & part_end),
                self.word.eq(self.words.payload.word_select(part, word_bits)),
            ]
        else:
            lower = Signal(word_bits - bus)
            m.d.comb += [
                self.valid.eq(step & (part == parts - 1)),
                self.words.ready.eq(self.enable),
                self.word.eq(Cat(lower, self.words.payload)),
            ]
            with m.If(step):
                m.d.sync += lower.eq(self.word[bus:])
        return m


class Pack(wiring.Component):  # type: ignore[misc]
    """Words of W digits to bus words, padded with zeros where the last word of the stream does not fill one.

    While `enable` is up it asks for words by `read`, where `last` tells the end of the stream, and takes the `word` in
    the cycle after. With w = max(1, 4 * W / B) there is a read every w cycles, and part p of a word read in cycle t
    is in the bus word of cycle t + 2 + p (the first in which it is offered). While `out` waits everything does.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "enable": In(1),
                "last": In(1),
                "read": Out(1),
                "word": In(config.word_bits),
                "out": Out(stream.Signature(config.bus_bits)),
                "out_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        parts, bus, word_bits = _parts(self.config), self.config.bus_bits, len(self.word)
        part = Signal(range(max(2, parts)))
        present, fresh, present_last = Signal(), Signal(), Signal()
        word, held = Signal(word_bits), Signal(word_bits)
        step, word_end, out_end = Signal(), Signal(), Signal()
        bus_word = Signal(bus)
        m.d.comb += [
            word.eq(Mux(fresh, self.word, held)),
            step.eq(present & (~self.out.valid | self.out.ready)),
            self.read.eq(self.enable & (~present | (step & word_end))),
        ]
        m.d.sync += [fresh.eq(self.read), held.eq(word)]
        with m.If(self.read):
            m.d.sync += [present.eq(1), present_last.eq(self.last)]
        with m.Elif(step & word_end):
            m.d.sync += present.eq(0)

        if bus >= word_bits:
            collected = Signal(bus)
            m.d.comb += [
                word_end.eq(1),
                out_end.eq((part == parts - 1) | present_last),
                bus_word.eq(collected | (word << part * word_bits) if parts > 1 else word),
            ]
            with m.If(step):
                m.d.sync += collected.eq(Mux(out_end, 0, bus_word))
        else:
            m.d.comb += [
                word_end.eq(part == parts - 1),
                out_end.eq(1),
                bus_word.eq(word.word_select(part, bus)),
            ]
        with m.If(step):
            m.d.sync += part.eq(Mux((part == parts - 1) | (out_end & word_end), 0, part + 1))
            m.d.sync += [self.out.payload.eq(bus_word), self.out_last.eq(present_last & word_end)]
        with m.If(~self.out.valid | self.out.ready):
            m.d.sync += self.out.valid.eq(step & out_end)
        return m

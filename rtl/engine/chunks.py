"""Bus words taken apart into the chunks that decoders read."""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import stream

from ...sim.engine import CHUNK_BITS

__all__ = ["chunks_of"]


def chunks_of(m: Module, words: stream.Interface) -> tuple[Value, Value, Signal]:
    """The next chunk, whether it is there, and the signal that takes it, at most one a cycle.

    A word is taken from `words` with its last chunk.
    """
    word = Value.cast(words.payload)
    per_word = len(word) // CHUNK_BITS
    take = Signal(name="take")
    place = Signal(range(max(2, per_word)))
    m.d.comb += words.ready.eq(take & (place == per_word - 1))
    with m.If(take):
        m.d.sync += place.eq(Mux(place == per_word - 1, 0, place + 1))
    return (word if per_word == 1 else word.word_select(place, CHUNK_BITS)), words.valid, take

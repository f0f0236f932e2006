"""The handshake of a pipeline that moves as one: every stage advances, or none does."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import stream

__all__ = ["advance_together"]


def advance_together(m: Module, i: stream.Interface, o: stream.Interface, stages: int) -> tuple[Value, Value]:
    """Connect the handshakes of a pipeline of `stages` register stages between two streams.

    Latency is `stages` cycles, throughput one transfer a cycle. The pipeline stands still while a
    finished transfer waits at `o`; an input is accepted exactly when it moves.

    Returns the advance bit, under which every stage loads its registers, and the valid bits of
    the stages: bit k says that the registers of stage k hold a transfer.
    """
    valid = Signal(stages)
    advance = Signal()
    m.d.comb += [
        o.valid.eq(valid[-1]),
        advance.eq(~valid[-1] | o.ready),
        i.ready.eq(advance),
    ]
    with m.If(advance):
        m.d.sync += valid.eq(Cat(i.valid, valid))
    return advance, valid

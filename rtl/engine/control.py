"""Control: one descriptor after another from the list in memory, checked, run, counted."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ...sim.descriptor import ADDRESS_BITS, CHECK, OPERATIONS, descriptor_bits, descriptor_words
from ...sim.engine import EngineConfig
from .check import ErrorCode, LayerCheck
from .counters import COUNTER_BITS
from .registers import descriptor_layout

__all__ = ["COUNTED_LAYERS", "LAYER_BITS", "Control"]

LAYER_BITS = 16
"""Of a layer's number."""
COUNTED_LAYERS = 256
"""Layers whose cycles are kept: the first ones."""


class Control(wiring.Component):  # type: ignore[misc]
    """Runs the descriptors from word `base` on, from `start` until `end` or an error.

    **Sequence.** `fetch` asks for a descriptor, in the cycle of `start` or of the last write before. Its
    words come as `words`, one a cycle at most; in the cycle after the last of them they are the `layer` registers and
    are checked: `begin` is up where they pass. `end` and a bad one only stop: `busy` falls in the
    next cycle. Then control waits for `done`, which is up in the cycle of the layer's last write.

    With the bus reader in front, where the bus answers after `latency`, and W words of a descriptor, a fetch in
    cycle s (a layer's first cycle is s + 1) has `begin` in cycle s + W + latency + 3 and the first word of the layer's
    stream offered at the earliest in cycle s + W + 2 * latency + 6. With N words to transfer (`Transfer`), and
    w = max(1, 4 * L / B), a `load` takes N * w + W + 2 * latency + 5 cycles, a `store` N * w + W + latency + 5.

    **Cycles.** A layer's first cycle is the one after `start` or after the last write of the layer before, its
    last one that of its own last write. `layer_done` is up in the cycle after that, with `layer_cycles` and
    `layer_index`, which hold; `total_cycles` is their sum since `start`, without the fetch of `end`, from which
    on `busy` is up for W + latency + 3 more cycles. `current` is the number of the layer that runs. The first 256
    counts are also there as `value` in the cycle after their number is at `select`.

    **Errors.** `error` is an `ErrorCode`, `error_layer` the layer's number; both hold until the next
    `start`. A descriptor must have its magic, the right XOR of all bytes, a known operation and good sizes
    (`LayerCheck`); the first of these that fails is reported. A `conflict` during a layer
    stops the engine after the layer's last write, a `stream_error` at once: before the next `start` the engine must
    then be reset.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "base": In(ADDRESS_BITS),
                "busy": Out(1),
                "error": Out(ceil_log2(len(ErrorCode))),
                "error_layer": Out(LAYER_BITS),
                "current": Out(LAYER_BITS),
                "layer_done": Out(1),
                "layer_index": Out(LAYER_BITS),
                "layer_cycles": Out(COUNTER_BITS),
                "total_cycles": Out(COUNTER_BITS),
                "select": In(range(COUNTED_LAYERS)),
                "value": Out(COUNTER_BITS),
                "fetch": Out(1),
                "fetch_address": Out(ADDRESS_BITS),
                "words": In(stream.Signature(config.bus_bits)),
                "layer": Out(descriptor_layout(config)),
                "begin": Out(1),
                "done": In(1),
                "conflict": In(1),
                **({"stream_error": In(1)} if config.decoder != "raw" else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus, count = self.config.bus_bits, descriptor_words(self.config)
        m.submodules.check = check = LayerCheck(self.config)

        # The words move down from the top: after the last one, the first is at the bottom.
        descriptor = Signal(descriptor_bits(self.config))
        folded = Signal(8)
        received = Signal(range(count))
        next_address = Signal(ADDRESS_BITS)
        cycles = Signal(COUNTER_BITS)
        conflicted = Signal()
        problem = Signal.like(self.error)
        finished = Signal()
        m.d.comb += [
            self.words.ready.eq(1),
            self.layer.eq(descriptor[: len(self.layer.as_value())]),
            check.layer.eq(self.layer),
        ]
        with m.If(self.words.valid):
            word = self.words.payload
            m.d.sync += [
                descriptor.eq(Cat(descriptor, word) >> bus),
                folded.eq(reduce(xor, (word[low : low + 8] for low in range(0, bus, 8)), folded)),
                received.eq(received + 1),
            ]
        with m.If(check.bad_magic):
            m.d.comb += problem.eq(ErrorCode.MAGIC)
        with m.Elif(folded != CHECK):
            m.d.comb += problem.eq(ErrorCode.CHECK)
        with m.Elif(check.bad_operation):
            m.d.comb += problem.eq(ErrorCode.OPERATION)
        with m.Elif(check.bad_size):
            m.d.comb += problem.eq(ErrorCode.SIZE)

        m.d.sync += [cycles.eq(cycles + 1), self.layer_done.eq(finished)]
        with m.FSM() as fsm:
            with m.State("idle"):
                m.d.comb += self.fetch_address.eq(self.base)
                with m.If(self.start):
                    m.d.comb += self.fetch.eq(1)
                    m.next = "fetch"
                    m.d.sync += [
                        self.error.eq(ErrorCode.NONE),
                        self.error_layer.eq(0),
                        self.current.eq(0),
                        self.total_cycles.eq(0),
                    ]
            with m.State("fetch"):
                with m.If(self.words.valid & (received == count - 1)):
                    m.next = "check"
            with m.State("check"):
                with m.If(problem != ErrorCode.NONE):
                    m.d.sync += [self.error.eq(problem), self.error_layer.eq(self.current)]
                    m.next = "idle"
                with m.Elif(self.layer.op == OPERATIONS.index("end")):
                    m.next = "idle"
                with m.Else():
                    m.d.comb += self.begin.eq(1)
                    m.next = "run"
            with m.State("run"):
                m.d.comb += [self.fetch_address.eq(next_address), finished.eq(self.done)]
                with m.If(self.conflict):
                    m.d.sync += conflicted.eq(1)
                with m.If(self.done):
                    m.d.sync += [
                        self.current.eq(self.current + 1),
                        self.layer_index.eq(self.current),
                        self.layer_cycles.eq(cycles),
                        self.total_cycles.eq(self.total_cycles + cycles),
                    ]
                    with m.If(conflicted | self.conflict):
                        m.d.sync += [self.error.eq(ErrorCode.BANK_CONFLICT), self.error_layer.eq(self.current)]
                        m.next = "idle"
                    with m.Else():
                        m.d.comb += self.fetch.eq(1)
                        m.next = "fetch"
                if self.config.decoder != "raw":
                    with m.If(self.stream_error):
                        m.d.comb += self.fetch.eq(0)
                        m.d.sync += [self.error.eq(ErrorCode.STREAM), self.error_layer.eq(self.current)]
                        m.next = "idle"
        m.d.comb += self.busy.eq(~fsm.ongoing("idle"))
        with m.If(self.fetch):
            m.d.sync += [
                next_address.eq(self.fetch_address + count),
                received.eq(0),
                folded.eq(0),
                conflicted.eq(0),
                cycles.eq(1),
            ]

        m.submodules.counts = counts = memory.Memory(shape=COUNTER_BITS, depth=COUNTED_LAYERS, init=[])
        read, write = counts.read_port(), counts.write_port()
        m.d.comb += [
            read.addr.eq(self.select),
            self.value.eq(read.data),
            write.en.eq(finished & (self.current < COUNTED_LAYERS)),
            write.addr.eq(self.current),
            write.data.eq(cycles),
        ]
        return m

"""The engine: control, bus, activation memory, array and post unit."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ...kernels.align import Alignment
from ...sim.arrays import check_engine
from ...sim.descriptor import ADDRESS_BITS, OPERATIONS, SIZE_BITS
from ...sim.engine import EngineConfig
from .act_memory import ActMemory
from .compute import ComputeUnit
from .control import LAYER_BITS, Control
from .counters import COUNTER_BITS
from .format import format_layout
from .post.unit import PostUnit
from .reader import BusReader
from .transfer import Transfer, write_layout

__all__ = ["Engine"]

POST_OPERATIONS = tuple(OPERATIONS.index(op) for op in ("mac", "max_pool", "average_pool", "stream"))
"""What the post unit takes part in."""
HOST_PORTS = (
    "start", "base", "busy", "error", "error_layer", "current", "layer_done", "layer_index", "layer_cycles",
    "total_cycles", "select", "value",
)  # fmt: skip
"""Ports of control that are the engine's own."""

WRITE_PORTS = ("write_mask", "write_address", "write_data")
"""What is written into the activation memory, for whoever watches."""


class Engine(wiring.Component):  # type: ignore[misc]
    """Runs a compiled network from one `start`: the descriptors from bus word `base` on.

    **Bus.** `request` is a stream of word addresses, `words` brings their words in the same order, always taken
    at once (`BusReader`). `write` stores words (`Transfer`); the address is in the low bits.

    **Host.** `busy`, `error`, `error_layer`, `current`, the cycles of the layers and their sum are those of
    `Control`, with all the cycles from a layer's fetch to its last write. Overflow counts of a row group of an array
    layer, one for each row, leave in two steps and hold until the next row group's: `product_count`,
    `align_count` and `acc_count` are there with the strobe `counts_closed`, of row group `counts_row_group`, and
    `post_count` with the strobe `post_closed`, of row group `post_row_group`; both of layer `counts_layer`, whose
    last ones may come after its last write, but before the next layer begins. `weight_wait` and `post_wait`
    are up in the cycles in which the array waits, for weights or for a half of the accumulators. The `write_mask` (by
    digit, in a fusion engine by half digits), `write_address` and `write_data` show what goes into the activation
    memory in this cycle.

    After a stream's error (`ErrorCode.STREAM`) no more words are asked for. When those on their way have come, the
    engine must be reset.

    With `formats` the input `format` narrows the datapath, up to the configured widths; it stands still while `busy`.
    `alignments` are what the array supports.
    """

    def __init__(
        self,
        config: EngineConfig,
        formats: bool = False,
        alignments: tuple[Alignment, ...] = ("shift", "mul"),
    ) -> None:
        check_engine(config)
        self.config = config
        self.formats = formats
        self.control = Control(config)
        self.reader = BusReader(config)
        self.memory = ActMemory(config)
        self.transfer = Transfer(config)
        self.compute = ComputeUnit(config, alignments, formats)
        self.post = PostUnit(config, formats)
        counters = data.ArrayLayout(COUNTER_BITS, config.rows)
        host = self.control.signature.members
        members: dict[str, Any] = {
            "request": Out(stream.Signature(ADDRESS_BITS)),
            "words": In(stream.Signature(config.bus_bits)),
            "write": Out(stream.Signature(write_layout(config))),
            **{name: host[name] for name in HOST_PORTS},
            "counts_closed": Out(1),
            "counts_row_group": Out(SIZE_BITS),
            "product_count": Out(counters),
            "align_count": Out(counters),
            "acc_count": Out(counters),
            "post_closed": Out(1),
            "post_row_group": Out(SIZE_BITS),
            "post_count": Out(counters),
            "counts_layer": Out(LAYER_BITS),
            "weight_wait": Out(1),
            "post_wait": Out(1),
            **{name: Out(self.memory.signature.members[name].shape) for name in WRITE_PORTS},
        }
        if formats:
            members["format"] = In(format_layout())
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        control, reader, memory = self.control, self.reader, self.memory
        transfer, compute, post = self.transfer, self.compute, self.post
        for name in ("control", "reader", "memory", "transfer", "compute", "post"):
            m.submodules[name] = getattr(self, name)
        layer = control.layer

        connect(m, flipped(self.words), reader.words)
        self._connect_requests(m)
        connect(m, reader.descriptor, control.words)
        connect(m, reader.records, post.words)
        connect(m, reader.weights, compute.words)
        connect(m, reader.data, transfer.words)
        connect(m, transfer.write, flipped(self.write))
        for name in HOST_PORTS:
            inner, outer = getattr(control, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if control.signature.members[name].flow is In else outer.eq(inner)
        for unit in (reader, transfer, compute, post):
            m.d.comb += unit.layer.eq(layer)
        if self.formats:
            m.d.comb += [compute.format.eq(self.format), post.format.eq(self.format)]

        m.d.comb += [
            reader.fetch.eq(control.fetch),
            reader.fetch_address.eq(control.fetch_address),
            reader.start.eq(control.begin),
            transfer.start.eq(control.begin),
            compute.start.eq(control.begin & (layer.op == OPERATIONS.index("mac"))),
            post.start.eq(control.begin & layer.op.matches(*POST_OPERATIONS)),
            control.done.eq(transfer.done | self._posted(m)),
            control.conflict.eq(memory.conflict),
        ]

        # A finished tile goes to the post unit, which gives its half back.
        m.d.comb += [
            post.tile_done.eq(compute.tile_done),
            post.done_half.eq(compute.done_half),
            post.done_tile.eq(compute.done_tile),
            compute.release.eq(post.release),
            compute.drain_half.eq(post.drain_half),
            compute.drain_pixel.eq(post.drain_pixel),
            post.drain_acc.eq(compute.drain_acc),
            post.drain_input_sum.eq(compute.drain_input_sum),
        ]

        # A layer either transfers or posts: the second reader and the writer are never wanted by both.
        m.d.comb += [
            memory.array_read.eq(compute.act_read),
            memory.array_address.eq(compute.act_address),
            compute.act_data.eq(memory.array_data),
            memory.post_read.eq(transfer.act_read | post.fetch_read),
            memory.post_address.eq(Mux(transfer.act_read, transfer.act_address, post.fetch_address)),
            transfer.act_read_data.eq(memory.post_data),
            post.fetch_data.eq(memory.post_data),
            memory.write_mask.eq(transfer.act_write.replicate(self.config.word_enables) | post.write_mask),
            memory.write_address.eq(Mux(transfer.act_write, transfer.act_address, post.write_address)),
            memory.write_data.eq(Mux(transfer.act_write, transfer.act_write_data, post.write_data)),
        ]

        # The counters hold what they hand over; the strobes and numbers that go with it.
        closing = compute.tile_done & compute.done_tile.row_group_last
        post_row_group = Signal(SIZE_BITS)
        m.d.sync += self.counts_closed.eq(closing)
        with m.If(closing):
            m.d.sync += self.counts_row_group.eq(compute.done_tile.row_group)
        with m.If(post.post_closed):
            m.d.sync += post_row_group.eq(post_row_group + 1)
        with m.If(control.begin):
            m.d.sync += [self.counts_layer.eq(control.current), post_row_group.eq(0)]
        m.d.comb += [
            self.product_count.eq(compute.product_count),
            self.align_count.eq(compute.align_count),
            self.acc_count.eq(compute.acc_count),
            self.post_closed.eq(post.post_closed),
            self.post_row_group.eq(post_row_group),
            self.post_count.eq(post.post_count),
            self.weight_wait.eq(compute.weight_wait),
            self.post_wait.eq(compute.post_wait),
        ]
        for name in WRITE_PORTS:
            m.d.comb += getattr(self, name).eq(getattr(memory, name))
        return m

    def _connect_requests(self, m: Module) -> None:
        """Hand requests on; after a stream's error only the one that is there already."""
        reader, request = self.reader.request, self.request
        if self.config.decoder == "raw":
            connect(m, reader, flipped(request))
            return
        asks, waits = Signal(), Signal()
        m.d.comb += [
            asks.eq(self.control.busy | waits),
            request.payload.eq(reader.payload),
            request.valid.eq(reader.valid & asks),
            reader.ready.eq(request.ready & asks),
        ]
        m.d.sync += waits.eq(request.valid & ~request.ready)

    def _posted(self, m: Module) -> Value:
        """Whether a layer ends that does not transfer: with its last write, but not before its coded stream."""
        post, compute = self.post, self.compute
        if self.config.decoder == "raw":
            return post.done
        written, ends = Signal(), Signal()
        m.d.comb += [
            compute.reader_idle.eq(self.reader.idle),
            self.control.stream_error.eq(compute.stream_error),
            ends.eq((post.done | written) & (compute.stream_idle | (self.control.layer.op != OPERATIONS.index("mac")))),
        ]
        m.d.sync += written.eq((post.done | written) & ~ends)
        return ends

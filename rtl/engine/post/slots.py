"""Slots, the post unit's unit of work: one pixel's channels of one span; and the words of an operand in one."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ....kernels.mac import DIGIT_BITS
from ....sim.descriptor import CODE_BITS, OPERATIONS, PIXEL_BITS, PLANES, SIZE_BITS
from ....sim.engine import EngineConfig
from ..registers import descriptor_layout
from ..row_groups import RowGroups

__all__ = [
    "CODE_BITS",
    "MEMORY_CHANNEL_BITS",
    "STORED_BITS",
    "SlotWalk",
    "WordWalk",
    "is_narrow",
    "memory_channel",
    "plane_address",
    "runs",
    "shift_digits",
    "span_channels",
    "word_address",
]

STORED_BITS = PLANES * DIGIT_BITS
"""Bits of a code in the memory, at most."""
MEMORY_CHANNEL_BITS = SIZE_BITS + 3
"""Of a channel's place among the lanes of its pixel's words; negative before them."""


def span_channels(config: EngineConfig) -> int:
    """Channels of a slot, at most: they lie in one word of W slots, or in two neighbours."""
    return min(config.rows, config.lanes)


def runs(layer: data.View, *operations: str) -> Value:
    """Whether the layer's operation is one of these."""
    return Cat(layer.op == OPERATIONS.index(operation) for operation in operations).any()


def memory_channel(layer: data.View, prefix: str, channel: Value) -> Value:
    """Where an output channel lies in a tensor, counted from lane 0 of the pixel's first word."""
    return (layer[f"{prefix}_channel"] + channel)[:MEMORY_CHANNEL_BITS].as_signed()


def plane_address(layer: data.View, prefix: str, plane: Value) -> Value:
    """The address of the first word of a tensor's digit plane."""
    return Array(layer[f"{prefix}_plane_{index}"] for index in range(PLANES))[plane]


def word_address(address: Value, narrow: Value | None) -> Value:
    """The word of the memory that an address of a tensor of the post lanes names: a narrow one's counts half-words."""
    return address if narrow is None else Mux(narrow, address >> 1, address)


def is_narrow(layer: data.View, tensor: Value, prefixes: tuple[str, str]) -> Value | None:
    """Whether the tensor of that number, of two, has half-words; None where no tensor of the engine has."""
    first, second = (f"{prefix}_narrow" for prefix in prefixes)
    return Mux(tensor, layer[second], layer[first]) if first in layer.shape().members else None


def shift_digits(digits: Value, lanes: Value, right: bool = False) -> Value:
    """Digits moved up (or down) by a number of lanes."""
    bits = Cat(Const(0, ceil_log2(DIGIT_BITS)), lanes)
    return digits >> bits if right else digits << bits


class SlotWalk(wiring.Component):  # type: ignore[misc]
    """Walks a layer's slots: row groups, then pixels, then spans of up to G = min(R, L) channels of a row group.

    `channel` is the output channel of lane 0 of the present slot, `span` its number in the row group, `channels` how
    many there are; `span_last` ends a pixel, `pixel_last` (with it) a row group, `layer_last` the layer. They
    belong to the present slot from the cycle after `start` or `next` on. A layer has at least one slot.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "next": In(1),
                "channel": Out(SIZE_BITS),
                "span": Out(range(max(2, config.rows // span_channels(config)))),
                "channels": Out(range(span_channels(config) + 1)),
                "span_last": Out(1),
                "pixel_last": Out(1),
                "layer_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        size = span_channels(config)
        m.submodules.row_groups = row_groups = RowGroups(config)
        pixels_left = Signal(PIXEL_BITS)
        m.d.comb += [
            row_groups.layer.eq(layer),
            row_groups.start.eq(self.start),
            row_groups.next.eq(self.next & self.pixel_last),
            self.pixel_last.eq(self.span_last & (pixels_left == 1)),
            self.layer_last.eq(self.pixel_last & row_groups.last),
        ]
        if size == config.rows:
            m.d.comb += [
                self.channel.eq(row_groups.first),
                self.channels.eq(row_groups.rows),
                self.span_last.eq(1),
            ]
        else:
            before = Cat(Const(0, ceil_log2(size)), self.span)
            left = Signal(range(config.rows + 1))
            m.d.comb += [
                left.eq(row_groups.rows - before),
                self.channel.eq(row_groups.first + before),
                self.channels.eq(Mux(self.span_last, left, size)),
                self.span_last.eq(left <= size),
            ]
            with m.If(self.next):
                m.d.sync += self.span.eq(Mux(self.span_last, 0, self.span + 1))
            with m.If(self.start):
                m.d.sync += self.span.eq(0)
        with m.If(self.next & self.span_last):
            m.d.sync += pixels_left.eq(Mux(self.pixel_last, layer.out_pixels, pixels_left - 1))
        with m.If(self.start):
            m.d.sync += pixels_left.eq(layer.out_pixels)
        return m


class WordWalk(wiring.Component):  # type: ignore[misc]
    """Walks the words of a slot in two tensors: tensor, digit plane, half (the second where a span may straddle).

    A tensor without planes is left out. While `again` is up, the end of the first tensor leads to its first word.
    `tensor`, `plane` and `half` are the present word's, `tensor_last` and `slot_last` (with it) say what it ends;
    `step` moves on after this cycle, from a slot's last word to the first one. Of a slot without words nothing is
    to be used.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "planes": In(data.ArrayLayout(3, 2)),
                "straddles": In(2),
                "again": In(1),
                "step": In(1),
                "tensor": Out(1),
                "plane": Out(range(PLANES)),
                "half": Out(1),
                "tensor_last": Out(1),
                "slot_last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        second = Signal()
        half_last = Signal()
        m.d.comb += [
            self.tensor.eq(second | (self.planes[0] == 0)),
            half_last.eq(self.half | ~self.straddles.bit_select(self.tensor, 1)),
            self.tensor_last.eq(half_last & (self.plane + 1 == Mux(self.tensor, self.planes[1], self.planes[0]))),
            self.slot_last.eq(self.tensor_last & (self.tensor | ((self.planes[1] == 0) & ~self.again))),
        ]
        with m.If(self.step):
            m.d.sync += [
                self.half.eq(~half_last),
                self.plane.eq(Mux(self.tensor_last, 0, self.plane + half_last)),
            ]
            with m.If(self.tensor_last):
                m.d.sync += second.eq(~self.slot_last & ~self.again)
        return m

"""Activation addresses: the word that each pixel of a tile needs under each tap, by additions alone."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...sim.descriptor import SIZE_BITS
from ...sim.engine import EngineConfig
from .accumulators import digit_bits
from .registers import descriptor_layout, sub_address_bits

__all__ = ["AddressGenerator", "first_word_bits"]

POSITION_BITS = SIZE_BITS + 1
"""A position may lie in the padding: left of zero, it is a large number modulo 2**17, thus outside too."""


def first_word_bits(config: EngineConfig) -> int:
    """Bits of the number of a pixel's word in which a convolution group begins."""
    return SIZE_BITS + 1 - (config.lanes.bit_length() - 1)


class AddressGenerator(wiring.Component):  # type: ignore[misc]
    """Walks a tile's pixels in row-major order, again and again, under one tap after another.

    A word's place is the sum of the pixel's (where it lies without the kernel) and the tap's (ky, kx and word of
    the pixel, the padding included); in a fused array these are sub-words, a lane group each. Latency 0, one address
    a cycle: `address` and `inside` belong to this cycle's pixel; outside the image there is nothing to read.
    `upper_digit` is the number of the digit plane. The strobes move on after this cycle:

    - `start`: a layer begins with the next cycle.
    - `advance`: to the next pixel. With `pass_end`, in any cycle from the last pixel on, back to the
      tile's first pixel; with `tile_end` too, on to the next tile; with `row_group_end` too, to pixel 0.
    - `lane`: to the pixel's next word under the same tap.
    - `kernel_x`, `kernel_y`, `first_tap`: to the next tap, the one named having moved, and the first word that a
      step takes there. With `first_tap`, `first_word` says which of a pixel's words that is from now on; from
      `start` on it is word 0.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        strobes = ("start", "advance", "pass_end", "tile_end", "row_group_end")
        taps = ("lane", "kernel_x", "kernel_y", "first_tap")
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "upper_digit": In(digit_bits(config)),
                "first_word": In(first_word_bits(config)),
                **{name: In(1) for name in strobes + taps},
                "address": Out(sub_address_bits(config)),
                "inside": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        bits = sub_address_bits(self.config)
        place = data.StructLayout({"y": POSITION_BITS, "x": POSITION_BITS, "address": bits})
        pixel, tile, after, tap = Signal(place), Signal(place), Signal(place), Signal(place)
        # The tap's first word, from which the way leads to the next tap's.
        first = Signal(bits)
        next_first = Signal(bits)

        m.d.comb += after.eq(pixel)
        with m.If(self.advance):
            with m.If(pixel.x == layer.last_x):
                m.d.comb += [
                    after.y.eq(pixel.y + layer.stride_y),
                    after.x.eq(0),
                    after.address.eq(pixel.address + layer.row_step),
                ]
            with m.Else():
                m.d.comb += [
                    after.x.eq(pixel.x + layer.stride_x),
                    after.address.eq(pixel.address + layer.pixel_step),
                ]
        m.d.sync += pixel.eq(after)
        with m.If(self.pass_end):
            m.d.sync += pixel.eq(tile)
            with m.If(self.tile_end):
                m.d.sync += [pixel.eq(after), tile.eq(after)]
                with m.If(self.row_group_end):
                    m.d.sync += [pixel.as_value().eq(0), tile.as_value().eq(0)]

        with m.If(self.lane):
            m.d.sync += tap.address.eq(tap.address + 1)
        with m.If(self.kernel_x):
            m.d.comb += next_first.eq(first + layer.kernel_x_step)
            m.d.sync += tap.x.eq(tap.x + layer.dilation_x)
        with m.If(self.kernel_y):
            m.d.comb += next_first.eq(first + layer.kernel_y_step)
            m.d.sync += [tap.y.eq(tap.y + layer.dilation_y), tap.x.eq(-layer.pad_left)]
        with m.If(self.first_tap):
            m.d.comb += next_first.eq(layer.origin + self.first_word)
        with m.If(self.start):
            m.d.comb += next_first.eq(layer.origin)
            m.d.sync += [pixel.as_value().eq(0), tile.as_value().eq(0)]
        with m.If(self.first_tap | self.start):
            m.d.sync += [tap.y.eq(-layer.pad_top), tap.x.eq(-layer.pad_left)]
        with m.If(self.kernel_x | self.kernel_y | self.first_tap | self.start):
            m.d.sync += [first.eq(next_first), tap.address.eq(next_first)]

        upper = self.upper_digit[0] if self.config.wide else self.upper_digit
        plane = Mux(upper, layer.plane_stride, 0)
        if self.config.wide:
            plane = plane + Mux(self.upper_digit[1], layer.pair_stride, 0)
        y, x = Signal(POSITION_BITS), Signal(POSITION_BITS)
        m.d.comb += [
            y.eq(pixel.y + tap.y),
            x.eq(pixel.x + tap.x),
            self.inside.eq((y < layer.in_height) & (x < layer.in_width)),
            self.address.eq(pixel.address + (tap.address + plane)),
        ]
        return m

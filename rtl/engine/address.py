"""Activation addresses: the word that each pixel of a tile needs under each tap, by additions alone."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...sim.engine import EngineConfig
from .registers import SIZE_BITS, address_bits, layer_registers

__all__ = ["AddressGenerator"]

POSITION_BITS = SIZE_BITS + 1
"""A position may lie in the padding: left of zero, it is a large number modulo 2**17, thus outside too."""


class AddressGenerator(wiring.Component):  # type: ignore[misc]
    """Walks a tile's pixels in row-major order, again and again, under one tap after another.

    A word's place is the sum of the pixel's (where it lies without the kernel) and the tap's (ky, kx and lane
    group, the padding included). Latency 0, one address a cycle: `address` and `inside` belong to this
    cycle's pixel; outside the image there is nothing to read. The strobes move on after this cycle:

    - `start`: a layer begins with the next cycle.
    - `advance`: to the next pixel. With `pass_end`, in any cycle from the last pixel on, back to the
      tile's first pixel; with `tile_end` too, on to the next tile; with `row_group_end` too, to pixel 0.
    - `lane`, `kernel_x`, `kernel_y`, `first_tap`: to the next tap, the one named having moved.
    - `group`: the first tap lies in the next convolution group (or lane group, if depthwise) from now on;
      it comes with `first_tap`.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        strobes = ("start", "advance", "pass_end", "tile_end", "row_group_end")
        taps = ("lane", "kernel_x", "kernel_y", "first_tap", "group")
        super().__init__(
            {
                "layer": In(layer_registers(config)),
                "upper_digit": In(1),
                **{name: In(1) for name in strobes + taps},
                "address": Out(address_bits(config)),
                "inside": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layer = self.layer
        place = data.StructLayout({"y": POSITION_BITS, "x": POSITION_BITS, "address": address_bits(self.config)})
        pixel, tile, after, tap = Signal(place), Signal(place), Signal(place), Signal(place)
        origin = Signal(address_bits(self.config))
        next_origin = Signal.like(origin)

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

        m.d.comb += next_origin.eq(origin + Mux(self.group, layer.group_step, 0))
        with m.If(self.lane):
            m.d.sync += tap.address.eq(tap.address + layer.lane_step)
        with m.If(self.kernel_x):
            m.d.sync += [
                tap.x.eq(tap.x + layer.dilation_x),
                tap.address.eq(tap.address + layer.kernel_x_step),
            ]
        with m.If(self.kernel_y):
            m.d.sync += [
                tap.y.eq(tap.y + layer.dilation_y),
                tap.x.eq(-layer.pad_left),
                tap.address.eq(tap.address + layer.kernel_y_step),
            ]
        with m.If(self.first_tap):
            m.d.sync += [
                tap.y.eq(-layer.pad_top),
                tap.x.eq(-layer.pad_left),
                tap.address.eq(next_origin),
                origin.eq(next_origin),
            ]
        with m.If(self.start):
            m.d.sync += [
                pixel.as_value().eq(0),
                tile.as_value().eq(0),
                tap.y.eq(-layer.pad_top),
                tap.x.eq(-layer.pad_left),
                tap.address.eq(layer.origin),
                origin.eq(layer.origin),
            ]

        plane = Mux(self.upper_digit, layer.plane_stride, 0)
        y, x = Signal(POSITION_BITS), Signal(POSITION_BITS)
        m.d.comb += [
            y.eq(pixel.y + tap.y),
            x.eq(pixel.x + tap.x),
            self.inside.eq((y < layer.in_height) & (x < layer.in_width)),
            self.address.eq(pixel.address + (tap.address + plane)),
        ]
        return m

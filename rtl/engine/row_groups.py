"""The walk over a layer's row groups, for whoever needs to know how many rows the next one has."""

# ruff: noqa: D102 (elaborate says in its base class what it does)

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...sim.descriptor import SIZE_BITS
from ...sim.engine import EngineConfig
from .registers import descriptor_layout

__all__ = ["RowGroups"]


class RowGroups(wiring.Component):  # type: ignore[misc]
    """Rows and first output channel of the present row group; `next` moves on, `start` begins the layer.

    `group_end`: it is its convolution group's last; `last`: it is the layer's.

    Row groups have up to R output channels (depthwise: min(R, L)) and end with each convolution group. The
    outputs belong to the present row group from the cycle after `start` or `next` on.
    """

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        super().__init__(
            {
                "layer": In(descriptor_layout(config)),
                "start": In(1),
                "next": In(1),
                "rows": Out(range(config.rows + 1)),
                "first": Out(SIZE_BITS),
                "group_end": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config, layer = self.config, self.layer
        outputs_left, groups_left = Signal(SIZE_BITS), Signal(SIZE_BITS)
        limit = Signal(range(config.rows + 1))
        m.d.comb += [
            limit.eq(Mux(layer.depthwise, min(config.rows, config.lanes), config.rows)),
            self.rows.eq(Mux(outputs_left < limit, outputs_left, limit)),
            self.group_end.eq(outputs_left == self.rows),
            self.last.eq(self.group_end & (groups_left <= 1)),
        ]
        with m.If(self.next):
            m.d.sync += [
                self.first.eq(self.first + self.rows),
                outputs_left.eq(Mux(self.group_end, layer.group_outputs, outputs_left - self.rows)),
                groups_left.eq(groups_left - self.group_end),
            ]
        with m.If(self.start):
            m.d.sync += [self.first.eq(0), outputs_left.eq(layer.group_outputs), groups_left.eq(layer.groups)]
        return m
